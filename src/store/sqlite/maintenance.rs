//! Sweeps of rows whose time is over, run beside a master's touch, which comes each second.
//!
//! 1. Nothing is dropped within a day after the store's clock jumped by more than 5 s, because no
//!    age can be trusted then. A silence of all masters looks the same and has the same effect.
//! 2. One sweep an hour, of a bounded number of sessions.

use rusqlite::params;

use super::{
    Tx,
    sql::{Columns, int},
};
use crate::model::{
    ids::{Resource, SessionKey},
    rows::StoreError,
};

const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Time between two touches above which the clock has jumped, ms.
const JUMP_MS: u64 = 5000;

/// Life of an idle session, ms (G6).
const SESSION_IDLE_MS: u64 = 30 * DAY_MS;

/// Time for which closed sessions stay listed, ms: longer than any cached copy could live.
const CLOSED_KEPT_MS: u64 = 40 * DAY_MS;

/// Time for which a spent or expired ticket answers repeats, ms.
const TICKET_KEPT_MS: u64 = 10 * 60 * 1000;

/// Maximum number of sessions dropped in one sweep.
const SWEPT_MAX: u32 = 1000;

/// Number of rows that the record of writes keeps.
const WRITES_KEPT: u64 = 1_000_000;

impl Tx<'_> {
    /// Watches the clock, and sweeps when it is time.
    pub(super) fn keep_up(&self) -> Result<(), StoreError> {
        let clock_at_ms = self.meta("clock_at")?.unwrap_or(0);
        self.set_meta("clock_at", self.now_ms)?;
        if self.now_ms.abs_diff(clock_at_ms) > JUMP_MS {
            return self.set_meta("jumped_at", self.now_ms);
        }
        let since = |name| Ok::<_, StoreError>(self.now_ms.abs_diff(self.meta(name)?.unwrap_or(0)));
        if since("jumped_at")? < DAY_MS || since("swept_at")? < HOUR_MS {
            return Ok(());
        }
        self.set_meta("swept_at", self.now_ms)?;
        self.sweep()
    }

    fn sweep(&self) -> Result<(), StoreError> {
        let before = |age_ms| int(self.now_ms.saturating_sub(age_ms));
        let mut find = self
            .db
            .prepare_cached("SELECT key FROM sessions WHERE used_at < ?1 ORDER BY key LIMIT ?2")?;
        let idle = find
            .query_map(params![before(SESSION_IDLE_MS), SWEPT_MAX], |row| {
                Ok(SessionKey(row.get(0)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        for key in idle {
            self.end_session(key)?;
        }
        for (sql, bound) in [
            ("DELETE FROM closed_sessions WHERE closed_at < ?1", before(CLOSED_KEPT_MS)),
            ("DELETE FROM tickets WHERE ends_at < ?1", before(TICKET_KEPT_MS)),
            ("DELETE FROM join_tokens WHERE ends_at < ?1", before(0)),
            ("UPDATE masters SET listed = 0 WHERE touched_at < ?1", before(DAY_MS)),
            (
                "DELETE FROM writes WHERE number <= (SELECT max(number) FROM writes) - ?1",
                int(WRITES_KEPT),
            ),
        ] {
            self.db.prepare_cached(sql)?.execute([bound])?;
        }
        self.forget_leases(before(DAY_MS))
    }

    /// Forgets the leases of boards that were never created, so that their names have a bound.
    fn forget_leases(&self, ended_before: i64) -> Result<(), StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT t.resource, l.lease FROM lease_terms t JOIN leases l USING (resource)
             WHERE t.ends_at < ?1",
        )?;
        let ended = find
            .query_map([ended_before], |row| {
                let resource: String = row.get(0)?;
                Ok((resource, row.nat(1)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        for (key, lease) in ended {
            let Ok(Resource::Board(name)) = key.parse() else { continue };
            if !matches!(self.board_end(&name), Err(StoreError::Unknown { .. })) {
                continue;
            }
            let floor = self.meta("lease_floor")?.unwrap_or(0);
            self.set_meta("lease_floor", floor.max(lease))?;
            for sql in [
                "DELETE FROM leases WHERE resource = ?1",
                "DELETE FROM lease_terms WHERE resource = ?1",
            ] {
                self.db.prepare_cached(sql)?.execute([&key])?;
            }
        }
        Ok(())
    }
}
