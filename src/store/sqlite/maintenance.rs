//! Upkeep: drops rows whose time is over, in small pieces that are operations of their own.
//!
//! 1. One piece changes a bounded number of rows and finds them by an index, or in a table with a
//!    small bound, however many are due: it holds up no other operation for longer than a batch of
//!    posts would.
//! 2. What is judged by its age is left alone within a day after the store's clock jumped, because
//!    no age can be trusted then. A caller that watches the clock by its own monotonic one reports
//!    a jump; a step back of more than 5 s, or more than a day without any piece, counts as one.
//! 3. Every piece may be repeated, and pieces of several masters may follow each other in any order.

use rusqlite::params;

use super::{
    Tx,
    sql::{Columns, int},
};
use crate::{
    model::{ids::SessionKey, rows::StoreError},
    store::bounds::{
        BACK_MAX_MS, CANCELLED_KEPT_MS, CLOSED_KEPT_MS, DAY_MS, PIECE_ROWS_MAX, SESSION_IDLE_MS,
        SESSION_ROWS, TICKET_KEPT_MS, WRITES_KEPT,
    },
};

/// Drops of the rows whose time `?1` is over, at most `?2` of them.
const BY_AGE: [(&str, u64); 4] = [
    (
        "DELETE FROM closed_sessions WHERE number IN
             (SELECT number FROM closed_sessions WHERE closed_at < ?1 LIMIT ?2)",
        CLOSED_KEPT_MS,
    ),
    (
        "DELETE FROM tickets WHERE ticket IN
             (SELECT ticket FROM tickets WHERE ends_at < ?1 LIMIT ?2)",
        TICKET_KEPT_MS,
    ),
    (
        "DELETE FROM join_tokens WHERE id IN
             (SELECT id FROM join_tokens WHERE ends_at < ?1 LIMIT ?2)",
        0,
    ),
    (
        "UPDATE masters SET listed = 0 WHERE node IN
             (SELECT node FROM masters WHERE listed = 1 AND touched_at < ?1 LIMIT ?2)",
        DAY_MS,
    ),
];

impl Tx<'_> {
    /// Does one piece of upkeep, and returns whether more is due now.
    pub(super) fn keep_up(&self, clock_jumped: bool) -> Result<bool, StoreError> {
        let start = self.db.total_changes();
        let left = || PIECE_ROWS_MAX.saturating_sub(self.db.total_changes() - start);
        self.trim_writes(left())?;
        self.purge_presence(left())?;
        self.check_digest()?;
        if self.may_judge_by_age(clock_jumped)? {
            self.drop_by_age(&left)?;
        }
        // What is left may be too little for one more session.
        Ok(left() < SESSION_ROWS)
    }

    /// Watches the clock, and returns whether the rows' ages can be trusted.
    fn may_judge_by_age(&self, clock_jumped: bool) -> Result<bool, StoreError> {
        let last_ms = self.meta("clock_at")?.unwrap_or(0);
        self.set_meta("clock_at", self.now_ms)?;
        let jumped = clock_jumped
            || last_ms.saturating_sub(self.now_ms) > BACK_MAX_MS
            || self.now_ms.saturating_sub(last_ms) > DAY_MS;
        if jumped {
            self.set_meta("jumped_at", self.now_ms)?;
        }
        self.are_ages_good()
    }

    /// Returns whether no jump of the clock was seen for a day.
    pub(super) fn are_ages_good(&self) -> Result<bool, StoreError> {
        Ok(self.now_ms.abs_diff(self.meta("jumped_at")?.unwrap_or(0)) >= DAY_MS)
    }

    fn drop_by_age(&self, left: &impl Fn() -> u64) -> Result<(), StoreError> {
        let before = |age_ms| int(self.now_ms.saturating_sub(age_ms));
        for (sql, age_ms) in BY_AGE {
            self.db.prepare_cached(sql)?.execute(params![before(age_ms), int(left())])?;
        }
        let mut find =
            self.db.prepare_cached("SELECT key FROM sessions WHERE used_at < ?1 LIMIT ?2")?;
        let idle = find
            .query_map(params![before(SESSION_IDLE_MS), int(left() / SESSION_ROWS)], |row| {
                Ok(SessionKey(row.get(0)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        for key in idle {
            if left() == 0 {
                break;
            }
            self.end_session(key)?;
        }
        self.forget_cancels(before(CANCELLED_KEPT_MS), left())?;
        self.forget_leases(before(DAY_MS), left())
    }

    fn trim_writes(&self, rows: u64) -> Result<(), StoreError> {
        let mut trim = self.db.prepare_cached(
            "DELETE FROM writes WHERE number IN
                 (SELECT number FROM writes
                  WHERE number <= (SELECT max(number) FROM writes) - ?1 ORDER BY number LIMIT ?2)",
        )?;
        trim.execute(params![int(WRITES_KEPT), int(rows)])?;
        Ok(())
    }

    /// Forgets the leases of boards that were never created and of masters' sessions, so that their
    /// names have a bound.
    fn forget_leases(&self, ended_before: i64, rows: u64) -> Result<(), StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT t.resource, l.lease FROM lease_terms t JOIN leases l USING (resource)
             WHERE t.ends_at < ?1 AND (t.resource NOT LIKE 'board:%'
                 OR NOT EXISTS (SELECT 1 FROM boards WHERE name = substr(t.resource, 7)))
             LIMIT ?2",
        )?;
        let ended = find
            .query_map(params![ended_before, int(rows.div_ceil(2))], |row| {
                Ok((row.get(0)?, row.nat(1)?))
            })?
            .collect::<Result<Vec<(String, u64)>, _>>()?;
        for (key, lease) in ended {
            self.forget_lease(&key, lease)?;
        }
        Ok(())
    }
}
