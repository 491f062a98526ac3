//! Presence of users: rows of `(session, by master, last seen)` in store time.
//!
//! 1. Every list is computed from these rows alone, so it is the same on every master (G12).
//! 2. A row not touched for 25 s is not active; upkeep drops it, and a touch after a silence drops
//!    it before it could come back.
//! 3. When no master touched for over 10 s, or the last touch lies ahead, the rows' ages cannot be
//!    trusted: lists wait for a touch, and that touch sets every row that was active then to now.

use rusqlite::params;

use super::{
    Tx,
    sql::{Columns, int},
};
use crate::{
    model::{
        ids::{Author, NodeId, SessionKey, UserId},
        rows::{Active, ActiveUser, StoreError},
    },
    store::bounds::{ACTIVE_MS, AHEAD_MAX_MS, SILENCE_MAX_MS, USE_NOTED_MS, USERS_MAX},
};

impl Tx<'_> {
    pub(super) fn touch_sessions(
        &self,
        master: NodeId,
        keys: &[SessionKey],
    ) -> Result<(), StoreError> {
        match self.meta("touched_at")? {
            Some(last_ms) if !self.long_ago(last_ms) => {}
            last_ms => self.revive(last_ms.unwrap_or(0))?,
        }
        self.set_meta("touched_at", self.now_ms)?;
        let oldest = int(self.now_ms.saturating_sub(ACTIVE_MS));
        let mut put = self.db.prepare_cached(
            "INSERT INTO presence (key, master, since, last_seen)
             SELECT ?1, ?2, ?3, ?3 WHERE EXISTS (SELECT 1 FROM sessions WHERE key = ?1)
             ON CONFLICT (key) DO UPDATE SET
                 master = excluded.master, last_seen = excluded.last_seen,
                 since = CASE WHEN presence.last_seen < ?4 THEN excluded.since
                              ELSE min(presence.since, excluded.since) END",
        )?;
        for key in keys {
            put.execute(params![key.0, master.0, int(self.now_ms), oldest])?;
        }
        self.use_sessions(keys)
    }

    /// Notes that sessions are in use, unless that was noted within the hour. Lists nobody.
    pub(super) fn use_sessions(&self, keys: &[SessionKey]) -> Result<(), StoreError> {
        let mut note = self.db.prepare_cached(
            "UPDATE sessions SET used_at = ?2 WHERE key = ?1 AND abs(used_at - ?2) > ?3",
        )?;
        for key in keys {
            note.execute(params![key.0, int(self.now_ms), int(USE_NOTED_MS)])?;
        }
        Ok(())
    }

    /// Returns whether the last touch of any master is too long ago, or lies ahead.
    const fn long_ago(&self, touched_at_ms: u64) -> bool {
        touched_at_ms > self.now_ms.saturating_add(AHEAD_MAX_MS)
            || self.now_ms.saturating_sub(touched_at_ms) > SILENCE_MAX_MS
    }

    /// Drops at most `rows` rows that are not active any more, unless their ages cannot be trusted.
    pub(super) fn purge_presence(&self, rows: u64) -> Result<(), StoreError> {
        if self.meta("touched_at")?.is_none_or(|at_ms| self.long_ago(at_ms)) {
            return Ok(());
        }
        let mut purge = self.db.prepare_cached(
            "DELETE FROM presence WHERE key IN
                 (SELECT key FROM presence WHERE last_seen < ?1 LIMIT ?2)",
        )?;
        purge.execute(params![int(self.now_ms.saturating_sub(ACTIVE_MS)), int(rows)])?;
        Ok(())
    }

    /// Sets every row that was active at the last touch to now.
    fn revive(&self, last_touch_ms: u64) -> Result<(), StoreError> {
        let mut purge = self.db.prepare_cached("DELETE FROM presence WHERE last_seen < ?1")?;
        purge.execute([int(last_touch_ms.saturating_sub(ACTIVE_MS))])?;
        let mut put =
            self.db.prepare_cached("UPDATE presence SET last_seen = ?1, since = min(since, ?1)")?;
        put.execute([int(self.now_ms)])?;
        Ok(())
    }

    pub(super) fn leave_sessions(
        &self,
        master: NodeId,
        sessions: &[(SessionKey, u64)],
    ) -> Result<(), StoreError> {
        let mut leave = self.db.prepare_cached(
            "DELETE FROM presence WHERE key = ?1 AND master = ?2 AND last_seen <= ?3",
        )?;
        for (key, seen_ms) in sessions {
            leave.execute(params![key.0, master.0, int(*seen_ms)])?;
        }
        Ok(())
    }

    pub(super) fn active_users(&self) -> Result<Active, StoreError> {
        if self.meta("touched_at")?.is_none_or(|at_ms| self.long_ago(at_ms)) {
            return Ok(Active::TouchFirst);
        }
        let mut find = self.db.prepare_cached(
            "SELECT s.user, min(s.name), min(p.since), max(p.last_seen)
             FROM presence p JOIN sessions s ON s.key = p.key
             WHERE p.last_seen >= ?1
             GROUP BY s.user ORDER BY 2, 1 LIMIT ?2",
        )?;
        let oldest = int(self.now_ms.saturating_sub(ACTIVE_MS));
        let rows = find.query_map(params![oldest, USERS_MAX], |row| {
            Ok(ActiveUser {
                user: Author { id: UserId(row.get(0)?), name: row.word(1)? },
                since_ms: row.nat(2)?,
                last_seen_ms: row.nat(3)?,
            })
        })?;
        Ok(Active::Users(rows.collect::<Result<_, _>>()?))
    }
}
