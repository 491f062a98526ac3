//! Upkeep: drops rows whose time is over, in small pieces that are operations of their own.
//!
//! 1. One piece changes a bounded number of rows and finds them by an index, or in a table with a
//!    small bound, however many are due. It takes a bounded number of statements, too: one that took
//!    longer than `store_timeout` would be undone, and begin again as it was.
//! 2. What is judged by its age is left alone within a day after the store's clock jumped, because
//!    no age can be trusted then. A caller that watches the clock by its own monotonic one reports
//!    a jump; a step back of more than 5 s, or more than a day without any piece, counts as one.
//! 3. Every piece may be repeated, and pieces of several masters may follow each other in any order.
//! 4. The space of dropped rows is given back by PostgreSQL's own autovacuum.

use super::{
    sql::{Columns, Outcome, int},
    tx::{Tx, each},
};
use crate::{
    model::ids::SessionKey,
    store::bounds::{
        BACK_MAX_MS, CANCELLED_KEPT_MS, CLOSED_KEPT_MS, DAY_MS, PIECE_ROWS_MAX, SESSION_IDLE_MS,
        SESSION_ROWS, TICKET_KEPT_MS, WRITES_KEPT,
    },
};

/// Drops of the rows whose time `$1` is over, at most `$2` of them.
const BY_AGE: [(&str, u64); 4] = [
    (
        "DELETE FROM closed_sessions WHERE number IN
             (SELECT number FROM closed_sessions WHERE closed_at < $1 LIMIT $2)",
        CLOSED_KEPT_MS,
    ),
    (
        "DELETE FROM tickets WHERE ticket IN
             (SELECT ticket FROM tickets WHERE ends_at < $1 LIMIT $2)",
        TICKET_KEPT_MS,
    ),
    (
        "DELETE FROM join_tokens WHERE id IN
             (SELECT id FROM join_tokens WHERE ends_at < $1 LIMIT $2)",
        0,
    ),
    (
        "UPDATE masters SET listed = FALSE WHERE node IN
             (SELECT node FROM masters WHERE listed AND touched_at < $1 LIMIT $2)",
        DAY_MS,
    ),
];

/// Maximum number of sessions that a piece ends, and of leases that it forgets: each takes several
/// statements, one after the other.
const ENDS_MAX: u64 = 16;

/// Rows that a piece may still change.
struct Left(u64);

impl Left {
    const fn take(&mut self, changed: u64) {
        self.0 = self.0.saturating_sub(changed);
    }
}

impl Tx<'_> {
    /// Does one piece of upkeep, and returns whether more is due now.
    pub(super) async fn keep_up(&self, clock_jumped: bool) -> Outcome<bool> {
        let mut left = Left(PIECE_ROWS_MAX);
        left.take(self.trim_writes(left.0).await?);
        left.take(self.purge_presence(left.0).await?);
        left.take(self.check_digest().await?);
        let has_more =
            self.may_judge_by_age(clock_jumped).await? && self.drop_by_age(&mut left).await?;
        // What is left may be too little for one more session.
        Ok(has_more || left.0 < SESSION_ROWS)
    }

    /// Watches the clock, and returns whether the rows' ages can be trusted.
    async fn may_judge_by_age(&self, clock_jumped: bool) -> Outcome<bool> {
        let last_ms = self.meta("clock_at").await?.unwrap_or(0);
        self.set_meta("clock_at", self.now_ms).await?;
        let jumped = clock_jumped
            || last_ms.saturating_sub(self.now_ms) > BACK_MAX_MS
            || self.now_ms.saturating_sub(last_ms) > DAY_MS;
        if jumped {
            self.set_meta("jumped_at", self.now_ms).await?;
        }
        self.are_ages_good().await
    }

    /// Returns whether no jump of the clock was seen for a day.
    pub(super) async fn are_ages_good(&self) -> Outcome<bool> {
        let jumped_ms = self.meta("jumped_at").await?.unwrap_or(0);
        Ok(self.now_ms.abs_diff(jumped_ms) >= DAY_MS)
    }

    /// Drops what is too old. Returns whether more sessions or leases may be due than it took.
    async fn drop_by_age(&self, left: &mut Left) -> Outcome<bool> {
        let before = |age_ms| int(self.now_ms.saturating_sub(age_ms));
        for (sql, age_ms) in BY_AGE {
            left.take(self.db.run(sql, &[&before(age_ms), &int(left.0)]).await?);
        }
        let sql = "SELECT key FROM sessions WHERE used_at < $1 LIMIT $2";
        let limit = ENDS_MAX.min(left.0 / SESSION_ROWS);
        let idle = self.db.rows(sql, &[&before(SESSION_IDLE_MS), &int(limit)]).await?;
        for key in each(&idle, |row| Ok(SessionKey(row.bytes(0)?)))? {
            if left.0 == 0 {
                break;
            }
            self.end_session(key).await?;
            left.take(SESSION_ROWS);
        }
        left.take(self.forget_cancels(before(CANCELLED_KEPT_MS), left.0).await?);
        let ended = self.forget_leases(before(DAY_MS), left).await?;
        Ok(idle.len() as u64 == ENDS_MAX || ended == ENDS_MAX)
    }

    async fn trim_writes(&self, rows: u64) -> Outcome<u64> {
        let sql = "DELETE FROM writes WHERE number IN
             (SELECT number FROM writes
              WHERE number <= (SELECT max(number) FROM writes) - $1 ORDER BY number LIMIT $2)";
        self.db.run(sql, &[&int(WRITES_KEPT), &int(rows)]).await
    }

    /// Forgets the leases of boards that were never created and of masters' sessions, so that their
    /// names have a bound. Returns their number.
    async fn forget_leases(&self, ended_before: i64, left: &mut Left) -> Outcome<u64> {
        let sql = "SELECT t.resource, l.lease FROM lease_terms t JOIN leases l USING (resource)
             WHERE t.ends_at < $1 AND (t.resource NOT LIKE 'board:%'
                 OR NOT EXISTS (SELECT 1 FROM boards WHERE name = substr(t.resource, 7)))
             LIMIT $2";
        let limit = ENDS_MAX.min(left.0.div_ceil(2));
        let ended = self.db.rows(sql, &[&ended_before, &int(limit)]).await?;
        for row in &ended {
            left.take(self.forget_lease(row.try_get(0)?, row.nat(1)?).await?);
        }
        Ok(ended.len() as u64)
    }
}
