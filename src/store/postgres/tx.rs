//! Transaction of one operation, in three manners, and the single numbers of the store.
//!
//! 1. A write *in turn* locks the one row of `clock` first and holds it until its commit: such
//!    writes follow each other over all hosts, as they do on SQLite. Whatever is numbered in the
//!    order of commits, or counted against a bound, is written in turn. So are all changes of `leases`,
//!    `boards` and `post_ids`: an append decides by what it read of them in its turn (`append.rs`).
//! 2. A write *beside* them takes no turn: what a master lives by never waits for a batch of posts.
//!    It raises the clock unless a write in turn has it, which then raises it itself.
//! 3. A read is one statement, or several in one snapshot.
//! 4. A store that a newer release has closed to this one meanwhile takes no write from it.

use futures_util::future::{join, try_join, try_join3};
use tokio_postgres::{Row, types::ToSql};

use super::{
    connection::Db,
    sql::{Columns, Outcome, int, malformed},
};
use crate::{
    model::{
        absence::AwayReason,
        ids::StoreEpoch,
        rows::{ClusterRow, StoreError},
    },
    store::{Op, allowed, history::Mark},
};

/// Waits for the turn, and returns the greatest time of any write.
pub(super) const TURN: &str = "SELECT at FROM clock WHERE one = 1 FOR UPDATE";

/// Time of the server, ms since the Unix epoch, and the oldest release that may use the store.
const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
            (SELECT min_reader FROM chatchat_store)";

const CLUSTER: &str =
    "SELECT cluster, epoch, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
     FROM chatchat_store";

/// Manner in which an operation is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    InTurn,
    Beside,
    Read,
}

impl Manner {
    pub(super) const fn of(op: &Op) -> Self {
        match op {
            Op::Write { .. }
            | Op::RegisterMaster(_)
            | Op::AcquireLease { .. }
            | Op::PutDeadLetter(_)
            | Op::PutJoinToken(_)
            | Op::Enrol { .. }
            | Op::Deny(_)
            | Op::PutLogin { .. }
            | Op::KeepUp { .. } => Self::InTurn,
            _ if op.is_write() => Self::Beside,
            _ => Self::Read,
        }
    }
}

/// Returns the time of a transaction from the first column of what it read first; the oldest release that
/// may use the store stands in column `reader`.
///
/// # Errors
/// [`StoreError::Away`] if the store wants a newer release.
pub(super) fn begun(db: &Db, row: &Row, reader: usize) -> Outcome<u64> {
    let wants = if row.is_null(reader)? { 0 } else { row.nat(reader)? };
    allowed(wants, db.steps).map_err(|error| db.seen.while_running(error))?;
    db.time(row, 0)
}

/// Transaction at one store time. Each concern's file adds its operations.
pub(super) struct Tx<'a> {
    pub(super) db: &'a Db,
    pub(super) now_ms: u64,
    /// Greatest time of any write, of a write in turn; 0 else.
    pub(super) clock_ms: u64,
}

impl<'a> Tx<'a> {
    /// Begins a write in turn, once those before it are done.
    pub(super) async fn in_turn(db: &'a Db) -> Outcome<Self> {
        db.prepare(&[TURN, NOW]).await?;
        // The time is read by a statement of its own, after the wait for the turn.
        let (_, clock, now) =
            try_join3(db.begin("BEGIN"), db.one(TURN, &[]), db.one(NOW, &[])).await?;
        Ok(Self { db, now_ms: begun(db, &now, 1)?, clock_ms: clock.nat(0)? })
    }

    /// Begins a write that takes no turn.
    pub(super) async fn beside(db: &'a Db) -> Outcome<Self> {
        db.prepare(&[NOW]).await?;
        let (_, now) = try_join(db.begin("BEGIN"), db.one(NOW, &[])).await?;
        Ok(Self { db, now_ms: begun(db, &now, 1)?, clock_ms: 0 })
    }

    /// Returns a read outside of any transaction: each of its statements has a snapshot of its own.
    pub(super) const fn reading(db: &'a Db) -> Self {
        Self { db, now_ms: 0, clock_ms: 0 }
    }

    /// Begins a read of one snapshot; end it with [`Self::end_snapshot`].
    pub(super) async fn snapshot(&self) -> Outcome<Self> {
        let db = self.db;
        db.prepare(&[NOW]).await?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let (_, now) = try_join(db.begin(begin), db.one(NOW, &[])).await?;
        Ok(Self { db, now_ms: begun(db, &now, 1)?, clock_ms: 0 })
    }

    /// Returns the time at which a write in turn looks at what has an end: what ended stays ended if the
    /// server's clock goes back.
    pub(super) fn latest_ms(&self) -> u64 {
        self.now_ms.max(self.clock_ms)
    }

    pub(super) async fn end_snapshot(self) -> Outcome<()> {
        self.db.commit().await
    }

    /// Raises the clock and commits.
    pub(super) async fn commit(self, manner: Manner) -> Outcome<()> {
        let raise = match manner {
            // Nobody writes beside this one: the row is locked.
            Manner::InTurn => "UPDATE clock SET at = $1 WHERE one = 1 AND at < $1",
            Manner::Beside => {
                "UPDATE clock SET at = $1 WHERE one =
                     (SELECT one FROM clock WHERE at < $1 FOR UPDATE SKIP LOCKED)"
            }
            Manner::Read => return Ok(()),
        };
        let raised = self.end(raise, &[&int(self.now_ms)]).await?;
        // A write beside one in turn leaves the clock to that one, which may yet be undone.
        if manner == Manner::InTurn || raised > 0 {
            self.note_commit();
        }
        Ok(())
    }

    /// Carries out the last statement of a write in turn, which raises the clock too, and commits.
    pub(super) async fn commit_with(
        self,
        last: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Outcome<()> {
        self.end(last, values).await?;
        self.note_commit();
        Ok(())
    }

    /// Carries out the last statement and commits, in one round trip; returns the number of rows that
    /// it changed.
    async fn end(&self, last: &'static str, values: &[&(dyn ToSql + Sync)]) -> Outcome<u64> {
        let db = self.db;
        db.prepare(&[last]).await?;
        db.forget_warning();
        // Both are waited for: the transaction is over, whatever the statement says. A statement that
        // could not even be sent would be missing in what is committed: its values have fixed types.
        let (changed, committed) = join(db.run(last, values), db.commit()).await;
        let changed = changed?;
        committed?;
        // PostgreSQL reports a commit that no standby confirmed as done, with a warning.
        if let Some(warning) = db.warning() {
            let why = format!("a commit is not certain: {warning}");
            return Err(StoreError::away(AwayReason::NoAnswer, why).into());
        }
        Ok(changed)
    }

    fn note_commit(&self) {
        let clock_ms = self.now_ms.max(self.clock_ms);
        self.db.seen.raise(Mark { clock_ms, ..self.db.mark });
    }

    pub(super) async fn cluster(&self) -> Outcome<ClusterRow> {
        let row = self.db.one(CLUSTER, &[]).await?;
        Ok(ClusterRow {
            cluster: row.bytes(0)?,
            epoch: StoreEpoch(row.nat(1)?),
            now_ms: self.db.time(&row, 2)?,
        })
    }

    /// Returns one of the single numbers of `meta`.
    pub(super) async fn meta(&self, name: &str) -> Outcome<Option<u64>> {
        let row = self.db.row("SELECT value FROM meta WHERE name = $1", &[&name]).await?;
        row.map(|row| row.nat(0)).transpose()
    }

    pub(super) async fn set_meta(&self, name: &str, value: u64) -> Outcome<()> {
        let sql = "INSERT INTO meta (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.db.run(sql, &[&name, &int(value)]).await.map(drop)
    }

    /// Counts rows by a statement that does.
    pub(super) async fn count(&self, sql: &'static str) -> Outcome<u64> {
        self.db.one(sql, &[]).await?.nat(0)
    }
}

/// Returns the rows of a column as a typed list.
pub(super) fn each<T>(rows: &[Row], read: impl Fn(&Row) -> Outcome<T>) -> Outcome<Vec<T>> {
    rows.iter().map(read).collect()
}

/// Parses a text that has no fallible conversion from a string.
pub(super) fn parsed<T: std::str::FromStr>(row: &Row, column: usize) -> Outcome<T>
where
    T::Err: std::fmt::Display,
{
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|why| malformed(column, &why))
}
