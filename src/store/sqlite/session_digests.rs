//! Digests of the open sessions, kept beside the rows, and pages of the sessions of a bucket: what
//! copies are repaired by.
//!
//! 1. Whatever changes a session or its read marks changes the digest in the same transaction.
//! 2. A digest that another release let go wrong costs reads, never a session: pages are read from
//!    the rows. Upkeep counts one bucket after another again.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{
    Tx,
    sql::{Columns, int},
};
use crate::model::{
    copies::{
        BUCKETS, PAGE_SESSIONS_MAX, SessionDigests, SessionEntry, SessionPage, keys_of, mark_digest,
    },
    ids::{BoardName, SessionKey, UserId},
    rows::StoreError,
};

impl Tx<'_> {
    /// Adds a change to the digest of a key's bucket.
    pub(super) fn change_digest(&self, key: &SessionKey, by: u64) -> Result<(), StoreError> {
        let [bucket, ..] = key.0;
        self.change_bucket(bucket, by)
    }

    /// Adds a change to the digest of a bucket. SQLite has no XOR.
    fn change_bucket(&self, bucket: u8, by: u64) -> Result<(), StoreError> {
        let mut put = self.db.prepare_cached(
            "INSERT INTO session_digests (bucket, digest) VALUES (?1, ?2)
             ON CONFLICT (bucket) DO UPDATE
             SET digest = (digest | excluded.digest) - (digest & excluded.digest)",
        )?;
        put.execute(params![bucket, by.cast_signed()])?;
        Ok(())
    }

    /// Adds a raised read mark to the digests of all sessions of its user, once to each bucket.
    pub(super) fn change_mark(
        &self,
        user: &UserId,
        board: &BoardName,
        (from, to): (u64, u64),
    ) -> Result<(), StoreError> {
        if from == to {
            return Ok(());
        }
        let mut find = self.db.prepare_cached("SELECT key FROM sessions WHERE user = ?1")?;
        let keys = find.query_map([user.0], |row| Ok(SessionKey(row.get(0)?)))?;
        let mut changes: BTreeMap<u8, u64> = BTreeMap::new();
        for key in keys {
            let key = key?;
            let [bucket, ..] = key.0;
            let mark = |seq| mark_digest(&key, board.as_str(), seq);
            *changes.entry(bucket).or_default() ^= mark(from) ^ mark(to);
        }
        changes.into_iter().try_for_each(|(bucket, by)| self.change_bucket(bucket, by))
    }

    pub(super) fn session_digests(&self) -> Result<SessionDigests, StoreError> {
        let mut digests = SessionDigests::empty(self.epoch()?);
        let mut find = self.db.prepare_cached("SELECT bucket, digest FROM session_digests")?;
        let rows = find.query_map([], |row| Ok((row.small(0)?, row.get::<_, i64>(1)?)))?;
        for row in rows {
            let (bucket, digest) = row?;
            if let Some(open) = digests.open.get_mut(bucket as usize) {
                *open = digest.cast_unsigned();
            }
        }
        Ok(digests)
    }

    pub(super) fn sessions(
        &self,
        bucket: u8,
        after: Option<&SessionKey>,
    ) -> Result<SessionPage, StoreError> {
        let (first, last) = keys_of(bucket);
        let mut find = self.db.prepare_cached(
            "SELECT key FROM sessions WHERE key > coalesce(?1, x'') AND key BETWEEN ?2 AND ?3
             ORDER BY key LIMIT ?4",
        )?;
        let after = after.map(|key| key.0);
        let keys = find
            .query_map(params![after, first.0, last.0, int(PAGE_SESSIONS_MAX as u64)], |row| {
                Ok(SessionKey(row.get(0)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        let rows = keys.into_iter().filter_map(|key| self.find_session(key).transpose());
        Ok(SessionPage::of(rows.map(|row| row.map(SessionEntry::Open)).collect::<Result<_, _>>()?))
    }

    /// Counts the digest of a bucket again.
    fn count_digest(&self, bucket: u8) -> Result<(), StoreError> {
        let (mut digest, mut after) = (0, None);
        loop {
            let page = self.sessions(bucket, after.as_ref())?;
            for entry in &page.entries {
                if let SessionEntry::Open(row) = entry {
                    digest ^= row.digest();
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut put = self.db.prepare_cached(
            "INSERT INTO session_digests (bucket, digest) VALUES (?1, ?2)
             ON CONFLICT (bucket) DO UPDATE SET digest = excluded.digest
             WHERE digest <> excluded.digest",
        )?;
        put.execute(params![bucket, digest.cast_signed()])?;
        Ok(())
    }

    /// Counts the digests of all buckets.
    pub(super) fn count_digests(&self) -> Result<(), StoreError> {
        (0..=u8::MAX).try_for_each(|bucket| self.count_digest(bucket))
    }

    /// Counts the digest of the bucket whose turn it is.
    pub(super) fn check_digest(&self) -> Result<(), StoreError> {
        let turn = self.meta("digest_turn")?.unwrap_or(0) % BUCKETS as u64;
        self.count_digest(u8::try_from(turn).unwrap_or_default())?;
        self.set_meta("digest_turn", turn + 1)
    }
}
