//! Posts that wait for the store: durable before anybody is told, and kept through a new epoch.

use std::sync::atomic::Ordering;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::{
    Replica, ReplicaError,
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
    /// Puts posts on the disk, in one transaction that is durable when this returns. `wall_ms` is the
    /// time by this node's clock, for their age.
    ///
    /// # Errors
    /// [`ReplicaError`]: whether the posts are on the disk is not known.
    pub fn hold(&self, posts: &[HeldPost], wall_ms: u64) -> Result<Vec<HoldReply>, ReplicaError> {
        let answers = self.db.run(|db| put(db, posts, wall_ms))?;
        self.groups_unsaved.store(0, Ordering::Relaxed);
        Ok(answers)
    }

    /// Returns the posts that are on the disk, by author and id.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn held(&self) -> Result<Vec<HeldKey>, ReplicaError> {
        self.db.run(|db| {
            let table = db.begin_read()?.open_table(HELD)?;
            table
                .range::<(&[u8; 16], &[u8; 16])>(..)?
                .map(|row| {
                    let (key, _) = row?;
                    let (user, id) = key.value();
                    Ok(HeldKey { user: UserId(*user), id: PostId(*id) })
                })
                .collect()
        })
    }

    /// Returns a post that is on the disk, and when it was put there; `None` if there is none.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn held_post(&self, key: HeldKey) -> Result<Option<(HeldPost, u64)>, ReplicaError> {
        self.db.run(|db| {
            let table = db.begin_read()?.open_table(HELD)?;
            let Some(row) = table.get((&key.user.0, &key.id.0))? else { return Ok(None) };
            let (board, name, text, wall_ms) = row.value();
            let author = author_of(&key.user.0, name).ok_or(WRONG)?;
            let text = text.parse().map_err(|_| WRONG)?;
            let post = NewPost { id: key.id, author, text };
            Ok(Some((HeldPost { board: board.parse().map_err(|_| WRONG)?, post }, wall_ms)))
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

fn put(db: &Database, posts: &[HeldPost], wall_ms: u64) -> Result<Vec<HoldReply>, ReplicaError> {
    let mut txn = db.begin_write()?;
    let mut answers = Vec::with_capacity(posts.len());
    {
        let mut table = txn.open_table(HELD)?;
        for HeldPost { board, post } in posts {
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
                    table.insert(key, (board.as_str(), name, text, wall_ms))?;
                    HoldReply::Held
                }
            });
        }
    }
    txn.set_durability(Durability::Immediate)?;
    txn.commit()?;
    Ok(answers)
}
