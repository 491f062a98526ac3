//! Digests of the sessions in the node database, and reads of a bucket's sessions.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included},
    sync::PoisonError,
};

use super::{
    Replica, ReplicaError,
    guard::Guarded,
    read::Reader,
    tables::{META, META_NEXT, SESSIONS},
};
use crate::model::{
    copies::{SessionDigests, SessionEntry, closed_digest, keys_of},
    ids::{SessionKey, StoreEpoch},
};

/// Changes of the digests by one transaction: of open and of closed sessions, by bucket.
#[derive(Debug, Default)]
pub(super) struct Changes(BTreeMap<u8, (u64, u64)>);

impl Changes {
    pub(super) fn open(&mut self, key: &SessionKey, by: u64) {
        self.0.entry(key.0[0]).or_default().0 ^= by;
    }

    pub(super) fn closed(&mut self, key: &SessionKey) {
        self.0.entry(key.0[0]).or_default().1 ^= closed_digest(key);
    }

    pub(super) fn make(&self, digests: &mut SessionDigests) {
        for (bucket, (open, closed)) in &self.0 {
            digests.open[usize::from(*bucket)] ^= open;
            digests.closed[usize::from(*bucket)] ^= closed;
        }
    }
}

/// Counts the digests of a database that was just opened.
pub(super) fn count(db: &Guarded) -> Result<SessionDigests, ReplicaError> {
    db.read(|reader| {
        let mut digests = SessionDigests::empty(reader.epoch()?);
        let mut changes = Changes::default();
        for bucket in 0..=u8::MAX {
            for (_, entry) in reader.sessions(bucket, None, None, usize::MAX)? {
                match entry {
                    SessionEntry::Open(row) => changes.open(&row.key, row.digest()),
                    SessionEntry::Closed(key) => changes.closed(&key),
                }
            }
        }
        changes.make(&mut digests);
        Ok(digests)
    })
}

impl Reader {
    /// Returns the sessions of a bucket after one key and up to another, at most `limit`, each with
    /// its place in the order of writes.
    fn sessions(
        &self,
        bucket: u8,
        after: Option<SessionKey>,
        to: Option<SessionKey>,
        limit: usize,
    ) -> Result<Vec<(u64, SessionEntry)>, ReplicaError> {
        let (first, last) = keys_of(bucket);
        let to = to.map_or(last, |to| to.min(last));
        let after = after.filter(|after| *after >= first);
        let from = after.as_ref().map_or(Included(&first.0), |after| Excluded(&after.0));
        if after.is_some_and(|after| after >= to) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for row in
            self.0.open_table(SESSIONS)?.range::<&[u8; 32]>((from, Included(&to.0)))?.take(limit)
        {
            let (key, row) = row?;
            let key = SessionKey(*key.value());
            let (place, closed, ..) = row.value();
            let entry = match self.session(key)? {
                Some(row) if !closed => SessionEntry::Open(row),
                _ => SessionEntry::Closed(key),
            };
            found.push((place, entry));
        }
        Ok(found)
    }
}

impl Replica {
    /// Returns the digests of all sessions, and a place in the order of writes that every later one
    /// stands at or behind.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn digests(&self) -> Result<(SessionDigests, u64), ReplicaError> {
        let next = self.db.read(|reader| {
            Ok(reader.0.open_table(META)?.get(META_NEXT)?.map_or(0, |row| row.value()))
        })?;
        let digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((digests.clone(), next))
    }

    /// Returns the sessions of a bucket after one key and up to another, at most `limit`, each with
    /// its place in the order of writes.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn sessions(
        &self,
        bucket: u8,
        after: Option<SessionKey>,
        to: Option<SessionKey>,
        limit: usize,
    ) -> Result<Vec<(u64, SessionEntry)>, ReplicaError> {
        self.db.read(|reader| reader.sessions(bucket, after, to, limit))
    }

    /// Brings the digests up to a commit.
    pub(super) fn change_digests(&self, epoch: StoreEpoch, emptied: bool, changes: &Changes) {
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if emptied {
            *digests = SessionDigests::empty(epoch);
        }
        digests.epoch = epoch;
        changes.make(&mut digests);
    }
}
