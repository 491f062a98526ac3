//! Sessions of a group: their rows, their read marks, and the room for them.
//!
//! 1. Open sessions stand in one order, by their last write, and closed ones in another, by the time they were
//!    closed here. A session that is new takes the room of the first closed one, else of the first open one.
//! 2. A closed session that is new takes no open one's room: without a closed one it is not remembered.
//! 3. A session that is closed again keeps its place: each start of the worker reads all log-outs again.

use redb::{ReadableTable, ReadableTableMetadata, Table};

use super::Group;
use crate::{
    model::{
        copies::{mark_digest, open_digest},
        ids::{BoardName, Seq, SessionKey, UserId},
        rows::SessionRow,
    },
    replica::{
        ReplicaError,
        tables::{Key, META_NEXT},
    },
};

impl Group<'_> {
    pub(super) fn put_session(&mut self, row: &SessionRow) -> Result<(), ReplicaError> {
        let known = self.known(row.key)?;
        if known.is_some_and(|(_, digest)| digest.is_none()) {
            return Ok(());
        }
        if let Some((place, _)) = known {
            self.tables.order.remove(place)?;
        } else {
            self.make_room(true)?;
            self.durable = true;
        }
        let place = self.next_place()?;
        self.tables.order.insert(place, &row.key.0)?;
        let user = &row.user;
        let digest = open_digest(&row.key, &user.id, user.name.as_str());
        self.changes.open(&row.key, digest ^ known.and_then(|(_, digest)| digest).unwrap_or(0));
        self.tables.sessions.insert(&row.key.0, (place, false, &user.id.0, user.name.as_str()))?;
        for (board, seq) in row.read_marks.iter().take(self.limits.boards_max as usize) {
            self.raise(row.key, board, *seq)?;
        }
        Ok(())
    }

    /// Raises a read mark. Ignores a session that is not known here: its row, when it comes, has the
    /// mark.
    pub(super) fn raise_mark(
        &mut self,
        key: SessionKey,
        board: &BoardName,
        seq: Seq,
    ) -> Result<(), ReplicaError> {
        let is_open = self.tables.sessions.get(&key.0)?.is_some_and(|known| !known.value().1);
        if is_open { self.raise(key, board, seq) } else { Ok(()) }
    }

    pub(super) fn close_session(&mut self, key: SessionKey) -> Result<(), ReplicaError> {
        let known = self.known(key)?;
        if known.is_some_and(|(_, digest)| digest.is_none()) {
            return Ok(());
        }
        if let Some((place, _)) = known {
            self.tables.order.remove(place)?;
        } else if !self.make_room(false)? {
            self.done.ignored += 1;
            return Ok(());
        }
        let place = self.next_place()?;
        self.tables.closed.insert(place, &key.0)?;
        self.forget(key, known.and_then(|(_, digest)| digest))?;
        self.changes.closed(&key);
        self.tables.sessions.insert(&key.0, (place, true, &[0; 16], ""))?;
        self.durable = true;
        Ok(())
    }

    fn raise(&mut self, key: SessionKey, board: &BoardName, seq: Seq) -> Result<(), ReplicaError> {
        let place = (&key.0, board.as_str());
        let mark = self.tables.marks.get(place)?.map_or(0, |mark| mark.value());
        if mark < seq.0 {
            let digest = |seq| mark_digest(&key, board.as_str(), seq);
            self.changes.open(&key, digest(mark) ^ digest(seq.0));
            self.tables.marks.insert(place, seq.0)?;
        }
        Ok(())
    }

    /// Returns the place of a session in its order, and its digest without marks unless it is closed.
    fn known(&self, key: SessionKey) -> Result<Option<(u64, Option<u64>)>, ReplicaError> {
        Ok(self.tables.sessions.get(&key.0)?.map(|known| {
            let (place, closed, user, name) = known.value();
            (place, (!closed).then(|| open_digest(&key, &UserId(*user), name)))
        }))
    }

    /// Drops a session if there is no room for one more, an open one only for another open one. Returns
    /// whether there is room now.
    fn make_room(&mut self, for_open: bool) -> Result<bool, ReplicaError> {
        if self.tables.sessions.len()? < self.limits.sessions_max {
            return Ok(true);
        }
        let first = match first_out(&mut self.tables.closed)? {
            None if for_open => first_out(&mut self.tables.order)?,
            first => first,
        };
        let Some(first) = first else { return Ok(for_open) };
        if let Some((_, digest)) = self.known(first)? {
            if digest.is_none() {
                self.changes.closed(&first);
            }
            self.forget(first, digest)?;
            self.tables.sessions.remove(&first.0)?;
        }
        Ok(true)
    }

    /// Returns the next place in the order of writes, which both orders share.
    fn next_place(&mut self) -> Result<u64, ReplicaError> {
        let place = self.tables.meta.get(META_NEXT)?.map_or(0, |row| row.value());
        self.tables.meta.insert(META_NEXT, place + 1)?;
        Ok(place)
    }

    /// Drops the read marks of a session, and takes it out of the digests of open ones.
    fn forget(&mut self, key: SessionKey, digest: Option<u64>) -> Result<(), ReplicaError> {
        let mut digest = digest.unwrap_or(0);
        // '{' is the first character after all that a board's name is made of.
        self.tables.marks.retain_in((&key.0, "")..(&key.0, "{"), |(_, board), seq| {
            digest ^= mark_digest(&key, board, seq);
            false
        })?;
        self.changes.open(&key, digest);
        Ok(())
    }
}

/// Takes the first session out of an order.
fn first_out(order: &mut Table<'_, u64, Key>) -> Result<Option<SessionKey>, ReplicaError> {
    Ok(order.pop_first()?.map(|(_, key)| SessionKey(*key.value())))
}
