//! Posts that wait for the store: durable before anybody is told, and kept through a new epoch.

use std::sync::atomic::Ordering;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::{
    Replica, ReplicaError,
    guard::Guarded,
    tables::{HELD, author_of},
};
use crate::model::{
    bounds::HELD_MAX,
    held::{HeldKey, HeldPost, HoldReply},
    ids::{PostId, UserId},
    rows::NewPost,
};

const WRONG: ReplicaError = ReplicaError::Corrupt { table: "held posts" };

impl Replica {
    /// Puts posts on the disk, in one transaction that is durable when this returns. Each comes with the
    /// time by this node's clock from which on it was held.
    ///
    /// # Errors
    /// [`ReplicaError`]: whether the posts are on the disk is not known.
    pub fn hold(&self, posts: &[(HeldPost, u64)]) -> Result<Vec<HoldReply>, ReplicaError> {
        let (answers, is_saved) = self.db.run(|db| put(db, posts))?;
        if is_saved {
            self.groups_unsaved.store(0, Ordering::Relaxed);
        }
        Ok(answers)
    }

    /// Returns the posts that are on the disk, by author and id, and since when each is held.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn held(&self) -> Result<Vec<(HeldKey, u64)>, ReplicaError> {
        self.db.run(|db| {
            let table = db.begin_read()?.open_table(HELD)?;
            table
                .range::<(&[u8; 16], &[u8; 16])>(..)?
                .map(|row| {
                    let (key, row) = row?;
                    let (user, id) = key.value();
                    let (.., wall_ms) = row.value();
                    Ok((HeldKey { user: UserId(*user), id: PostId(*id) }, wall_ms))
                })
                .collect()
        })
    }

    /// Returns a post that is on the disk, and since when it is held; `None` if there is none.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn held_post(&self, key: HeldKey) -> Result<Option<(HeldPost, u64)>, ReplicaError> {
        self.db.run(|db| {
            let table = db.begin_read()?.open_table(HELD)?;
            let row = table.get((&key.user.0, &key.id.0))?;
            row.map(|row| held_row(key, row.value()).ok_or(WRONG)).transpose()
        })
    }

    /// Deletes a post. A crash may bring it back: the store knows it by then.
    ///
    /// # Errors
    /// [`ReplicaError`]: the post is still there.
    pub fn let_go(&self, key: HeldKey) -> Result<(), ReplicaError> {
        self.db.run(|db| {
            let mut txn = db.begin_write()?;
            txn.open_table(HELD)?.remove((&key.user.0, &key.id.0))?;
            txn.set_durability(Durability::None)?;
            Ok(txn.commit()?)
        })
    }
}

fn held_row(key: HeldKey, row: (&str, &str, &str, u64)) -> Option<(HeldPost, u64)> {
    let (board, name, text, wall_ms) = row;
    let author = author_of(&key.user.0, name)?;
    let post = NewPost { id: key.id, author, text: text.parse().ok()? };
    Some((HeldPost { board: board.parse().ok()?, post }, wall_ms))
}

/// Returns the posts of a database of which other parts may be damaged, as far as they can be read.
///
/// # Errors
/// [`ReplicaError::Failed`] when the disk fails.
pub(super) fn salvage(db: &Guarded) -> Result<Vec<(HeldPost, u64)>, ReplicaError> {
    let mut found = Vec::new();
    let read = db.run(|db| {
        let table = db.begin_read()?.open_table(HELD)?;
        for row in table.range::<(&[u8; 16], &[u8; 16])>(..)? {
            let (key, row) = row?;
            let (user, id) = key.value();
            let key = HeldKey { user: UserId(*user), id: PostId(*id) };
            found.extend(held_row(key, row.value()));
        }
        Ok(())
    });
    match read {
        Err(failed @ ReplicaError::Failed { .. }) => Err(failed),
        // What was read before the damage counts.
        _ => Ok(found),
    }
}

/// Returns the answers, and whether anything was written.
fn put(db: &Database, posts: &[(HeldPost, u64)]) -> Result<(Vec<HoldReply>, bool), ReplicaError> {
    let mut txn = db.begin_write()?;
    let mut answers = Vec::with_capacity(posts.len());
    let mut is_new = false;
    {
        let mut table = txn.open_table(HELD)?;
        for (HeldPost { board, post }, wall_ms) in posts {
            let (key, text) = ((&post.author.id.0, &post.id.0), post.text.as_str());
            let known = table.get(key)?.map(|row| {
                let (known_board, _, known_text, _) = row.value();
                known_board == board.as_str() && known_text == text
            });
            answers.push(match known {
                Some(true) => HoldReply::Held,
                Some(false) => HoldReply::Conflict,
                None if table.len()? >= HELD_MAX as u64 => HoldReply::Full,
                None => {
                    let name = post.author.name.as_str();
                    table.insert(key, (board.as_str(), name, text, *wall_ms))?;
                    is_new = true;
                    HoldReply::Held
                }
            });
        }
    }
    if is_new {
        txn.set_durability(Durability::Immediate)?;
        txn.commit()?;
    } else {
        txn.abort()?;
    }
    Ok((answers, is_new))
}
