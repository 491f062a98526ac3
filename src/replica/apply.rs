//! Writes to the node database: groups of updates, pages of repairs, and views of the store's boards.

mod sessions;

use std::{collections::BTreeMap, sync::atomic::Ordering};

use redb::{Database, Durability, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::{
    ApplyReport, GROUPS_UNSAVED_MAX, Gap, Replica, ReplicaError, ReplicaLimits, bound,
    digests::Changes,
    observed::Observed,
    tables::{META, META_EPOCH, Tables, member_row, post_row},
};
use crate::model::{
    ids::{BoardName, Post, Role, Seq, StoreEpoch},
    message::{Member, Update},
    rows::{Boards, Page},
};

/// Posts of one board that a publish or a page offers.
struct Offer<'a> {
    board: &'a BoardName,
    posts: &'a [Post],
    /// Last place of the board at `as_of_ms`, as far as the offer tells.
    end: Seq,
    as_of_ms: u64,
}

impl Offer<'_> {
    fn first(&self) -> Seq {
        self.posts.first().map_or(self.end, |post| post.seq)
    }

    /// Returns whether the posts are of the board, ascend without a hole, and end by `end`.
    fn is_sound(&self) -> bool {
        self.posts.iter().all(|post| post.board == *self.board && post.seq > Seq(0))
            && self.posts.windows(2).all(|two| two[0].seq.next() == two[1].seq)
            && self.posts.last().is_none_or(|last| last.seq <= self.end)
    }
}

impl Replica {
    /// Applies a group of updates in one transaction. Groups of 64 posts or 250 ms keep the cost
    /// of a post low; the order within a group does not matter.
    ///
    /// # Errors
    /// [`ReplicaError`]: nothing of the group was applied.
    pub fn apply(&self, updates: &[Update]) -> Result<ApplyReport, ReplicaError> {
        let newest = updates.iter().filter_map(epoch_of).max();
        self.write(newest, |group| {
            let mut offers = Vec::new();
            for update in updates {
                match update {
                    Update::Posts { epoch, board, posts, as_of_ms } => match posts.last() {
                        Some(last) if *epoch == group.epoch => {
                            offers.push(Offer { board, posts, end: last.seq, as_of_ms: *as_of_ms })
                        }
                        _ => group.done.ignored += 1,
                    },
                    Update::BoardCreated(board) => group.know(board)?,
                    Update::Session(row) => group.put_session(row)?,
                    Update::SessionClosed(key) => group.close_session(*key)?,
                    Update::Members(members) => group.put_members(members)?,
                    Update::ReadMark { key, board, seq } => group.raise_mark(*key, board, *seq)?,
                    Update::PresenceChanged | Update::Pending { .. } => {}
                }
            }
            // Two publishes that overtook each other are no gap.
            offers.sort_by(|a, b| (a.board, a.first()).cmp(&(b.board, b.first())));
            offers.iter().try_for_each(|offer| group.offer(offer))
        })
    }

    /// Applies a page of a repair, from a master or the store.
    ///
    /// # Errors
    /// [`ReplicaError`]: nothing of the page was applied.
    pub fn apply_page(&self, board: &BoardName, page: &Page) -> Result<ApplyReport, ReplicaError> {
        self.write(Some(page.epoch), |group| {
            if page.epoch != group.epoch {
                group.done.ignored += 1;
                return Ok(());
            }
            group.offer(&Offer {
                board,
                posts: &page.posts,
                end: page.last_seq,
                as_of_ms: page.as_of_ms,
            })
        })
    }

    /// Compares the database with the store's boards: creates boards that are new here, reports the
    /// gaps, and notes the time up to which the others are complete. Writes only when a board is new.
    ///
    /// # Errors
    /// [`ReplicaError`]: nothing was taken in.
    pub fn observe(&self, seen: &Boards) -> Result<ApplyReport, ReplicaError> {
        let known = self.boards()?;
        let mut done = ApplyReport::default();
        if seen.epoch < known.epoch {
            done.ignored = 1;
            return Ok(done);
        }
        let mut lasts: BTreeMap<_, _> = known.boards.into_iter().collect();
        if seen.epoch > known.epoch || seen.boards.iter().any(|(b, _)| !lasts.contains_key(b)) {
            done = self.write(Some(seen.epoch), |group| {
                seen.boards.iter().try_for_each(|(board, _)| group.know(board))
            })?;
            lasts = self.boards()?.boards.into_iter().collect();
        }
        let mut observed =
            Observed { epoch: seen.epoch, as_of_ms: seen.as_of_ms, ..Observed::default() };
        for (board, last) in &seen.boards {
            // A board over the bound is not kept, and so not repaired.
            let Some(have) = lasts.get(board).copied() else { continue };
            if have < *last {
                observed.behind.insert(board.clone());
                done.gaps.push(Gap { board: board.clone(), have, offered: *last });
            }
        }
        self.set_observed(observed);
        Ok(done)
    }

    /// Stores members of the directory; the higher `(registration, state)` of each stays.
    ///
    /// # Errors
    /// [`ReplicaError`]: none was stored.
    pub fn put_members(&self, members: &[Member]) -> Result<(), ReplicaError> {
        self.write(None, |group| group.put_members(members)).map(|_| ())
    }

    /// Runs one transaction. `epoch` is the newest that the group names.
    fn write(
        &self,
        epoch: Option<StoreEpoch>,
        body: impl FnOnce(&mut Group<'_>) -> Result<(), ReplicaError>,
    ) -> Result<ApplyReport, ReplicaError> {
        self.db.run(|db| self.transact(db, epoch, body))
    }

    fn transact(
        &self,
        db: &Database,
        epoch: Option<StoreEpoch>,
        body: impl FnOnce(&mut Group<'_>) -> Result<(), ReplicaError>,
    ) -> Result<ApplyReport, ReplicaError> {
        let mut txn = db.begin_write()?;
        let own = own_epoch(&txn)?;
        let newer = epoch.filter(|epoch| *epoch > own);
        // What came before any epoch was known is of the one that is now learnt.
        let emptied = newer.is_some() && own != StoreEpoch(0);
        if emptied {
            Tables::empty(&txn)?;
        }
        if let Some(epoch) = newer {
            txn.open_table(META)?.insert(META_EPOCH, epoch.0)?;
        }
        let mut group = Group {
            tables: Tables::open(&txn)?,
            limits: self.limits,
            epoch: newer.unwrap_or(own),
            done: ApplyReport { emptied, ..ApplyReport::default() },
            missing: BTreeMap::new(),
            changes: Changes::default(),
            durable: newer.is_some(),
        };
        body(&mut group)?;
        if group.done.posts > 0 {
            bound::drop_oldest(&mut group.tables, self.limits.posts_max)?;
        }
        let changes = std::mem::take(&mut group.changes);
        let (done, durable) = group.end()?;
        let unsaved = self.groups_unsaved.load(Ordering::Relaxed) + 1;
        let save = durable || unsaved >= GROUPS_UNSAVED_MAX;
        txn.set_durability(if save { Durability::Immediate } else { Durability::None })?;
        txn.commit()?;
        self.groups_unsaved.store(if save { 0 } else { unsaved }, Ordering::Relaxed);
        self.change_digests(newer.unwrap_or(own), emptied, &changes);
        if emptied {
            self.set_observed(Observed::default());
        }
        Ok(done)
    }
}

fn epoch_of(news: &Update) -> Option<StoreEpoch> {
    match news {
        Update::Posts { epoch, .. } => Some(*epoch),
        _ => None,
    }
}

fn own_epoch(txn: &WriteTransaction) -> Result<StoreEpoch, ReplicaError> {
    let meta = txn.open_table(META)?;
    let epoch = meta.get(META_EPOCH)?.map_or(0, |row| row.value());
    Ok(StoreEpoch(epoch))
}

/// Group of updates inside its transaction.
struct Group<'t> {
    tables: Tables<'t>,
    limits: ReplicaLimits,
    epoch: StoreEpoch,
    done: ApplyReport,
    /// Highest place of each board that was dropped for a gap.
    missing: BTreeMap<BoardName, Seq>,
    changes: Changes,
    durable: bool,
}

impl Group<'_> {
    /// Returns the report of the group, and whether it has to be durable. Closes the tables.
    fn end(mut self) -> Result<(ApplyReport, bool), ReplicaError> {
        for (board, offered) in self.missing {
            let have = self.tables.boards.get(board.as_str())?.map_or(0, |row| row.value().0);
            if Seq(have) < offered {
                self.done.gaps.push(Gap { board, have: Seq(have), offered });
            }
        }
        Ok((self.done, self.durable))
    }

    /// Creates a board's row if there is none and there is room.
    fn know(&mut self, board: &BoardName) -> Result<(), ReplicaError> {
        let boards = &mut self.tables.boards;
        if boards.get(board.as_str())?.is_some() {
            return Ok(());
        }
        if boards.len()? >= self.limits.boards_max {
            self.done.ignored += 1;
            return Ok(());
        }
        boards.insert(board.as_str(), (0, 0))?;
        self.durable = true;
        Ok(())
    }

    fn offer(&mut self, offer: &Offer<'_>) -> Result<(), ReplicaError> {
        if !offer.is_sound() {
            self.done.ignored += 1;
            return Ok(());
        }
        self.know(offer.board)?;
        let name = offer.board.as_str();
        let Some((mut last, mut as_of)) = self.tables.boards.get(name)?.map(|row| row.value())
        else {
            return Ok(());
        };
        let before = (last, as_of);
        for post in offer.posts {
            if post.seq.0 <= last {
                continue;
            }
            if post.seq.0 != last + 1 {
                break;
            }
            self.tables.posts.insert((name, post.seq.0), post_row(post))?;
            last += 1;
            self.done.posts += 1;
        }
        if last >= offer.end.0 {
            as_of = as_of.max(offer.as_of_ms);
        } else {
            let missing = self.missing.entry(offer.board.clone()).or_default();
            *missing = (*missing).max(offer.end);
        }
        if (last, as_of) != before {
            self.tables.boards.insert(name, (last, as_of))?;
        }
        Ok(())
    }

    fn put_members(&mut self, members: &[Member]) -> Result<(), ReplicaError> {
        for member in members {
            let fact = &member.fact;
            let row = member_row(member);
            let known = self.tables.members.get(&fact.node.0)?.map(|known| {
                let known = known.value();
                (known.1, known.2)
            });
            match known {
                Some(known) if known >= (row.1, row.2) => continue,
                None if self.tables.members.len()? >= self.limits.members_max => {
                    self.done.ignored += 1;
                    continue;
                }
                _ => {}
            }
            self.tables.members.insert(&fact.node.0, row)?;
            self.durable |= fact.role == Role::Master;
        }
        Ok(())
    }
}
