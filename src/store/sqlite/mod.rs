//! The shared store on SQLite.
//!
//! [`SqliteCore`] carries out one [`Op`] in one transaction, or a group of batches of users' tasks
//! in one, with the time as a parameter. [`memory`] puts it behind a mutex for tests;
//! [`mod@file`] puts it behind a write lock and a writing thread, for the many processes that
//! share one file. [`backup`] copies such a file, and puts a copy in its place.
//! The module `transfer` moves rows between a file and another engine.
//!
//! 1. A write is `BEGIN IMMEDIATE` .. `COMMIT`: nobody writes between its check and its rows.
//! 2. A failed operation leaves nothing behind, and of a group a refused batch alone fails.
//! 3. The same operations at the same times give the same answers and the same rows.
//! 4. Every write raises the row `clock` to its time, and what is read is as of that row: no later
//!    commit has an earlier time, whatever the clock does and however many read beside a writer.
//! 5. A store that was seen is used only while its file is the same one and not older.
//! 6. A file is in WAL mode with `synchronous=FULL`: what was committed survives a power loss.

mod admission;
pub mod backup;
mod dead_letters;
pub mod file;
pub mod group;
mod identity;
mod leases;
mod maintenance;
mod masters;
pub mod memory;
mod new_file;
mod owner;
mod posts;
mod presence;
mod schema;
mod session_digests;
mod sessions;
mod sql;
#[cfg(test)]
mod tests;
pub(super) mod transfer;
mod write_lock;
mod writes;

use std::{path::Path, time::Duration};

use rusqlite::{
    Connection, MAIN_DB, OpenFlags, OptionalExtension, TransactionBehavior, config::DbConfig,
    params,
};

use self::sql::{Columns, int};
pub use self::{file::open, schema::NewCluster, write_lock::holder_of_lock};
use super::{ClusterRow, Op, OpReply, StoreError, batch::Batch, refused, unknown};
use crate::model::{absence::AwayReason, ids::StoreEpoch, outcome::TaskResult};

/// Capacity of the statement cache: above the number of statements, so that each is compiled once
/// per connection.
const STATEMENTS_MAX: usize = 128;

/// Pages in the log before a commit copies them back into the file: 16 MB. Four times SQLite's
/// own, because ids are random and most of their pages change again soon (a fifth less work per
/// post, measured); the copying stays far below `store_timeout`.
const CHECKPOINT_PAGES: u32 = 4000;

/// Length that the log is cut to once it was copied back, bytes.
const LOG_LEN_MAX: u32 = 32 * 1024 * 1024;

/// Connection to a store, with the operations on it.
#[derive(Debug)]
pub struct SqliteCore {
    db: Connection,
}

impl SqliteCore {
    /// Opens a new store in memory that lives as long as this value.
    ///
    /// # Errors
    /// [`StoreError::Broken`] if SQLite cannot be used at all.
    pub fn open_in_memory(new: &NewCluster) -> Result<Self, StoreError> {
        let mut db = Connection::open_in_memory()?;
        // Chance and the file system stay out of it: sorting never spills into files.
        db.pragma_update(None, "temp_store", "MEMORY")?;
        keep_statements(&db)?;
        schema::prepare(&mut db, Some(new))?;
        Ok(Self { db })
    }

    /// Opens a file, and creates the store if the file is empty or missing; `new` is used only then.
    /// Waits at most `busy` for other processes, here and in each operation.
    ///
    /// Two processes must not create the same file at once: [`mod@file`] holds its lock meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a file of another program, of a release too new, or on a file
    /// system without shared memory; [`StoreError::Away`] while it cannot be opened or written.
    pub fn open_file(path: &Path, new: &NewCluster, busy: Duration) -> Result<Self, StoreError> {
        Self::open_to_write(path, Some(new), busy)
    }

    /// Opens an existing store for reading and writing; never creates one.
    ///
    /// # Errors
    /// As [`Self::open_file`]; [`StoreError::Refused`] for an empty file.
    pub fn open_existing(path: &Path, busy: Duration) -> Result<Self, StoreError> {
        Self::open_to_write(path, None, busy)
    }

    fn open_to_write(
        path: &Path,
        new: Option<&NewCluster>,
        busy: Duration,
    ) -> Result<Self, StoreError> {
        let flags = new.map_or(OpenFlags::empty(), |_| OpenFlags::SQLITE_OPEN_CREATE);
        let mut db = connect_to_write(path, flags, busy)?;
        // The mode is kept in the file: first see whether it is ours to change.
        schema::recognise(&db)?.usable(new)?;
        let mode: String =
            db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            let why =
                format!("the file system of {} cannot share a write-ahead log", path.display());
            return Err(StoreError::Refused { why });
        }
        schema::prepare(&mut db, new)?;
        Ok(Self { db })
    }

    /// Opens an existing store for reading alone.
    ///
    /// # Errors
    /// As [`Self::open_file`]; [`StoreError::Away`] if the file is not there.
    pub fn open_to_read(path: &Path, busy: Duration) -> Result<Self, StoreError> {
        let db = connect(path, OpenFlags::empty(), busy)?;
        db.pragma_update(None, "query_only", true)?;
        match schema::recognise(&db)? {
            schema::FileState::Store { .. } => Ok(Self { db }),
            schema::FileState::Empty => {
                Err(StoreError::away(AwayReason::Gone, "it is not made yet"))
            }
        }
    }

    /// Commits a write that changes nothing: it fails where the file or its disk takes no writes.
    ///
    /// # Errors
    /// [`StoreError::Away`] while it takes none.
    pub(super) fn try_to_write(&self) -> Result<(), StoreError> {
        let transaction = Transaction::begin(&self.db, "BEGIN IMMEDIATE")?;
        let steps: u32 = self.db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        self.db.pragma_update(None, "user_version", steps)?;
        // A rollback would show nothing of a full disk: pages go to the log with the commit.
        Ok(transaction.commit()?)
    }

    /// Carries out one operation at this store time, whole or not at all.
    ///
    /// # Errors
    /// As [`Op`] and the methods of [`super::Store`] say. Nothing was written, except that after
    /// [`StoreError::Away`] from the commit itself the operation may have been.
    pub fn apply(&mut self, op: &Op, now_ms: u64) -> Result<OpReply, StoreError> {
        let begin = if op.is_write() { "BEGIN IMMEDIATE" } else { "BEGIN DEFERRED" };
        let transaction = Transaction::begin(&self.db, begin)?;
        let before = self.db.total_changes();
        let tx = Tx { db: &self.db, now_ms };
        let reply = tx.carry_out(op)?;
        if self.db.total_changes() > before {
            tx.raise_clock()?;
        }
        transaction.commit()?;
        Ok(reply)
    }

    /// Writes several batches of users' tasks in one transaction, in order: one answer per batch,
    /// as [`Op::Write`] would give it. A batch that is refused or fails leaves nothing behind and
    /// the others stand. When the store is away or the commit fails, that is every batch's
    /// answer, and after a failed commit all of them or none may have been written.
    pub fn write_group(
        &mut self,
        batches: &[Batch<'_>],
        now_ms: u64,
    ) -> Vec<Result<Vec<TaskResult>, StoreError>> {
        match self.try_group(batches, now_ms) {
            Ok(answers) => answers,
            Err(error) => vec![Err(error); batches.len()],
        }
    }

    fn try_group(
        &mut self,
        batches: &[Batch<'_>],
        now_ms: u64,
    ) -> Result<Vec<Result<Vec<TaskResult>, StoreError>>, StoreError> {
        let mut transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut answers = Vec::with_capacity(batches.len());
        for batch in batches {
            let savepoint = transaction.savepoint()?;
            let answer = Tx { db: &savepoint, now_ms }.write(*batch);
            match &answer {
                Ok(_) => savepoint.commit()?,
                // SQLite may have rolled the whole transaction back by itself.
                Err(error) if error.is_away() => return Err(error.clone()),
                // Back to the savepoint: what was written before it stands.
                Err(_) => savepoint.finish()?,
            }
            answers.push(answer);
        }
        Tx { db: &transaction, now_ms }.raise_clock()?;
        transaction.commit()?;
        Ok(answers)
    }
}

/// Lets every statement be compiled once. Without stable plans SQLite compiles one whose limit is a
/// parameter again each time that it is bound.
fn keep_statements(db: &Connection) -> Result<(), StoreError> {
    db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn connect(path: &Path, more: OpenFlags, busy: Duration) -> Result<Connection, StoreError> {
    let db = open_connection(path, more)?;
    prepare_connection(&db, busy)?;
    Ok(db)
}

/// Connects as [`connect`] does, and fails where SQLite may only read the file.
fn connect_to_write(
    path: &Path,
    more: OpenFlags,
    busy: Duration,
) -> Result<Connection, StoreError> {
    let db = open_connection(path, more)?;
    // Before anything is read: then SQLite makes log and index with the file's mode, and they stay
    // read-only when the file no longer is.
    if db.is_readonly(MAIN_DB)? {
        return Err(StoreError::away(AwayReason::ReadOnly, "the file may only be read"));
    }
    prepare_connection(&db, busy)?;
    Ok(db)
}

fn open_connection(path: &Path, more: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    Connection::open_with_flags(path, flags)
}

fn prepare_connection(db: &Connection, busy: Duration) -> Result<(), StoreError> {
    db.busy_timeout(busy)?;
    keep_statements(db)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.pragma_update(None, "journal_size_limit", LOG_LEN_MAX)?;
    Ok(())
}

/// Copies the log of the store at `path` back into its file, so that the file is the whole store.
/// Does as much as it can without waiting for other processes, and does not create a store.
pub fn copy_log_back(path: &Path) {
    if !path.is_file() {
        return;
    }
    let copied = connect_to_write(path, OpenFlags::empty(), Duration::ZERO)
        .and_then(|db| Ok(db.pragma(None, "wal_checkpoint", "TRUNCATE", |_| Ok(()))?));
    if let Err(error) = copied {
        tracing::debug!(%error, store = %path.display(), "its log was not copied back");
    }
}

/// Transaction that is rolled back unless it was committed. Beginning and ending it costs no
/// compiling, as [`rusqlite::Transaction`] does.
struct Transaction<'a>(&'a Connection);

impl<'a> Transaction<'a> {
    fn begin(db: &'a Connection, begin: &str) -> rusqlite::Result<Self> {
        db.prepare_cached(begin)?.execute([])?;
        Ok(Self(db))
    }

    fn commit(self) -> rusqlite::Result<()> {
        // After a failure it is still open, and dropped.
        self.0.prepare_cached("COMMIT")?.execute([]).map(drop)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // Committed, or SQLite has rolled it back by itself.
        if !self.0.is_autocommit() {
            // What cannot be rolled back cannot be begun anew either, which its caller is told.
            let _ = self.0.execute_batch("ROLLBACK");
        }
    }
}

/// Transaction at one store time. Each concern's file adds its operations.
struct Tx<'a> {
    db: &'a Connection,
    now_ms: u64,
}

impl Tx<'_> {
    fn carry_out(&self, op: &Op) -> Result<OpReply, StoreError> {
        Ok(match op {
            Op::Cluster => OpReply::Cluster(self.cluster()?),
            Op::RegisterMaster(row) => OpReply::Registered(self.register_master(row)?),
            Op::TouchMaster { holder, draining } => done(self.touch_master(*holder, *draining))?,
            Op::LeaveMaster(holder) => done(self.leave_master(*holder))?,
            Op::Masters => OpReply::Masters(self.masters()?),
            Op::AcquireLease { resource, holder, ttl_ms } => {
                OpReply::Lease(self.acquire_lease(resource, *holder, *ttl_ms)?)
            }
            Op::RenewLeases { holder, leases, ttl_ms } => {
                OpReply::Renewed(self.renew_leases(*holder, leases, *ttl_ms)?)
            }
            Op::ReleaseLease { resource, holder, lease } => {
                done(self.release_lease(resource, *holder, *lease))?
            }
            Op::Wish { resource, wisher } => done(self.wish(resource, *wisher))?,
            Op::Write { permission, tasks, known } => {
                OpReply::Written(self.write(Batch { permission, tasks, known: *known })?)
            }
            Op::FindPost { user, id } => OpReply::Found(self.find_post(*user, *id)?),
            Op::Read { board, range, limit } => OpReply::Page(self.read(board, *range, *limit)?),
            Op::Boards => OpReply::Boards(self.boards()?),
            Op::FindSession(key) => OpReply::Session(self.find_session(*key)?),
            Op::ClosedSince(mark) => {
                let (keys, mark) = self.closed_since(*mark)?;
                OpReply::Closed { keys, mark }
            }
            Op::SessionDigests => OpReply::SessionDigests(self.session_digests()?),
            Op::Sessions { bucket, after } => {
                OpReply::Sessions(self.sessions(*bucket, after.as_ref())?)
            }
            Op::TouchSessions { master, keys } => {
                self.touch_sessions(*master, keys)?;
                OpReply::Touched { now_ms: self.now_ms }
            }
            Op::LeaveSessions { master, sessions } => done(self.leave_sessions(*master, sessions))?,
            Op::UseSessions(keys) => done(self.use_sessions(keys))?,
            Op::ActiveUsers => OpReply::Active(self.active_users()?),
            Op::PutDeadLetter(letter) => done(self.put_dead_letter(letter))?,
            Op::DeadLetters { before, limit } => {
                OpReply::DeadLetters(self.dead_letters(*before, *limit)?)
            }
            Op::DropDeadLetter(number) => done(self.drop_dead_letter(*number))?,
            Op::PutJoinToken(token) => done(self.put_join_token(token))?,
            Op::RevokeJoinToken(id) => done(self.revoke_join_token(id))?,
            Op::Admission => OpReply::Admission(self.admission()?),
            Op::Enrol { token, bearer_sha256, node } => {
                OpReply::Enrolled(self.enrol(token, bearer_sha256, node)?)
            }
            Op::UseNodes(nodes) => done(self.use_nodes(nodes))?,
            Op::Deny(node) => done(self.deny(*node))?,
            // Whoever may read the file may write it.
            Op::MakesLogins => OpReply::MakesLogins(false),
            Op::PutLogin { .. } => OpReply::Login(None),
            Op::KeepUp { clock_jumped } => OpReply::KeptUp { more: self.keep_up(*clock_jumped)? },
            Op::Writes { after, limit } => OpReply::Writes(self.writes(*after, *limit)?),
        })
    }

    fn cluster(&self) -> Result<ClusterRow, StoreError> {
        let mut find = self.db.prepare_cached("SELECT cluster, epoch FROM cluster")?;
        Ok(find.query_row([], |row| {
            Ok(ClusterRow {
                cluster: row.get(0)?,
                epoch: StoreEpoch(row.nat(1)?),
                now_ms: self.now_ms,
            })
        })?)
    }

    fn epoch(&self) -> Result<StoreEpoch, StoreError> {
        Ok(self.cluster()?.epoch)
    }

    /// Returns the greatest time of any write that this transaction sees. A later commit never has
    /// an earlier time, which the time at which a read began does not promise: a writer may have
    /// taken its time before that and commit after it.
    fn clock(&self) -> Result<u64, StoreError> {
        Ok(self.meta("clock")?.unwrap_or(0))
    }

    /// Returns the time at which what has an end is looked at: what ended stays ended if the store's clock
    /// goes back.
    fn latest_ms(&self) -> Result<u64, StoreError> {
        Ok(self.clock()?.max(self.now_ms))
    }

    /// Ends a write: no later one has an earlier time, even if the store's clock goes back.
    fn raise_clock(&self) -> Result<(), StoreError> {
        let clock_ms = self.clock()?;
        if clock_ms < self.now_ms { self.set_meta("clock", self.now_ms) } else { Ok(()) }
    }

    /// Returns one of the single numbers of `meta`.
    fn meta(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let mut find = self.db.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
        Ok(find.query_row([name], |row| row.nat(0)).optional()?)
    }

    fn set_meta(&self, name: &str, value: u64) -> Result<(), StoreError> {
        let mut put = self.db.prepare_cached(
            "INSERT INTO meta (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )?;
        put.execute(params![name, int(value)])?;
        Ok(())
    }

    /// Returns the number of rows of a table. `table` is a constant of this program, never an input.
    fn count(&self, table: &str) -> Result<u64, StoreError> {
        let mut count = self.db.prepare_cached(&format!("SELECT count(*) FROM {table}"))?;
        Ok(count.query_row([], |row| row.nat(0))?)
    }
}

fn done(result: Result<(), StoreError>) -> Result<OpReply, StoreError> {
    result.map(|()| OpReply::Done)
}
