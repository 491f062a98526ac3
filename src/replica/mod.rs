//! A worker's node database: posts, sessions and the directory on redb, over the node's disk.
//!
//! It is filled from fanout and repaired from a master, else from the store; it answers weakly
//! consistent reads without a permission. Calls block: a worker runs them on
//! `Env::compute`. One task writes, any number read.
//!
//! 1. Of each board it was given a gapless prefix `1..=last` of the posts that the store committed,
//!    and holds the end of it, `first..=last`. Posts ahead of the prefix are dropped and reported as a
//!    [`Gap`]: the repair that reads on from the prefix gets them again, so keeping them would only
//!    make a second kind of row.
//! 2. A post is never replaced by another of the same place.
//! 3. All posts and sessions are of one store epoch; a newer one empties them.
//! 4. A closed session is remembered as closed, so that a late update does not open it again.
//! 5. A crash loses at most the last [`GROUPS_UNSAVED_MAX`] groups of posts and read marks, and
//!    leaves invariant 1 standing: a group is one transaction. Updates whose loss no gap would
//!    show (sessions, boards, masters) are durable when [`Replica::apply`] returns.
//! 6. The digests of the sessions are those of the last commit.
//! 7. A post that waits for the store is durable before [`Replica::hold`] returns, and stays until it
//!    is let go, whatever the store's epoch.
//! 8. Everything has a bound: boards, posts (the oldest are dropped, of whichever board), sessions (closed
//!    ones are forgotten first, then the least recently written is dropped), members, and the page of one
//!    read. A page that would begin with dropped posts is not given at all, so that nobody takes it for
//!    the board's beginning.

mod apply;
mod backend;
mod bound;
mod digests;
mod guard;
mod held;
mod image;
mod observed;
mod read;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use redb::{Database, DatabaseError, StorageError};
use thiserror::Error;

use self::{
    backend::{Backend, Checks},
    guard::Guarded,
    image::Image,
    observed::Observed,
    tables::Tables,
};
use crate::{
    env::{Disk, DiskFile},
    model::{
        bounds,
        copies::SessionDigests,
        ids::{BoardName, Seq, StoreEpoch},
    },
};

/// Name of the database file on the node's disk.
pub const FILE: &str = "replica.redb";

/// Maximum number of groups of updates that a crash may lose.
pub const GROUPS_UNSAVED_MAX: u32 = 64;

/// Maximum number of posts of one [`Replica::read`].
pub const PAGE_POSTS_MAX: u32 = 500;

/// Maximum bytes of text of one [`Replica::read`]; the first post is always returned.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;
const _: () = {
    let heads = PAGE_POSTS_MAX as usize * bounds::POST_HEAD_MAX;
    assert!(PAGE_BYTES_MAX + heads + bounds::POST_LEN_MAX <= bounds::PAGE_BYTES_MAX);
};

/// Bounds of a node database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaLimits {
    /// Size of redb's cache, bytes.
    pub cache_bytes: usize,
    /// Maximum number of boards.
    pub boards_max: u64,
    /// Maximum number of posts of all boards together.
    pub posts_max: u64,
    /// Maximum number of sessions, remembered closed ones included.
    pub sessions_max: u64,
    /// Maximum number of members of the directory.
    pub members_max: u64,
}

impl Default for ReplicaLimits {
    fn default() -> Self {
        Self {
            cache_bytes: 1024 * 1024,
            boards_max: bounds::BOARDS_MAX as u64,
            posts_max: bounds::REPLICA_POSTS_MAX as u64,
            sessions_max: 200_000,
            members_max: 16_384,
        }
    }
}

/// Failure of an operation on the node database.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReplicaError {
    /// The disk or redb failed. Nothing of this call is visible; the handle is of no further
    /// use, opening again may help.
    #[error("the node database failed: {why}")]
    Failed {
        /// Description of the problem.
        why: String,
    },
    /// A row cannot be parsed. Nothing was changed; opening the database again checks it.
    #[error("the node database holds a row of {table} that makes no sense")]
    Corrupt {
        /// Name of the table.
        table: &'static str,
    },
    /// The file is sound, but of a format that is too old for this release. Nothing was changed; opening
    /// puts a new one in its place.
    #[error("the node database is of format {0}, which is older than what this release reads")]
    OlderFormat(u64),
    /// The file is sound, but a later release wrote it, in a format of its own. Nothing was changed;
    /// opening puts a new one in its place.
    #[error("the node database is of format {0}, which is newer than what this release reads")]
    NewerFormat(u64),
    /// The file is damaged: a block does not fit its check, or redb finds it corrupt or panics.
    /// Nothing of this call is visible; the handle is of no further use. Opening again checks the
    /// file, and replaces what cannot be mended by a new one.
    #[error("the node database is damaged: {why}")]
    Damaged {
        /// Description of the problem.
        why: String,
    },
}

/// Extent of the check of a database that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The whole file if its last life did not close it, else only what is needed to begin.
    AfterUncleanEnd,
    /// The whole file.
    Whole,
}

/// State in which [`Replica::open`] found the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenedAs {
    /// There was none: a new one was created.
    New,
    /// It is as the last life left it, or was rolled back to its last durable group.
    Kept,
    /// It was damaged, or of a format that this release does not read, and was replaced by a new one, which
    /// the store fills again. Of posts that were held those that could be read are in it.
    Unreadable {
        /// Description of the problem.
        why: String,
    },
}

/// Posts of a board that the replica lacks: some or all after `have`, up to `offered`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Name of the board.
    pub board: BoardName,
    /// Last place that the replica has.
    pub have: Seq,
    /// Highest place that is known to be committed.
    pub offered: Seq,
}

/// Report of a write: the changes it made and the gaps it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyReport {
    /// Number of posts that are new here.
    pub posts: u64,
    /// Boards to repair, in the order of names.
    pub gaps: Vec<Gap>,
    /// Whether a newer store epoch emptied posts and sessions.
    pub emptied: bool,
    /// Number of updates that were of an older epoch, over a bound, or malformed.
    pub ignored: u64,
}

/// Open node database.
#[derive(Debug)]
pub struct Replica {
    db: Guarded,
    limits: ReplicaLimits,
    groups_unsaved: AtomicU32,
    observed: Mutex<Arc<Observed>>,
    /// Digests of the sessions, counted when the database is opened and kept beside the rows.
    digests: Mutex<SessionDigests>,
}

impl Replica {
    /// Opens the database on this disk, or creates a new one if none can be read. A check calls
    /// `progress` with the part that is done, from 0 to 1.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`] when the disk fails; the file is left as it was.
    pub fn open(
        disk: &Arc<dyn Disk>,
        limits: ReplicaLimits,
        check: Check,
        progress: fn(f64),
    ) -> Result<(Self, OpenedAs), ReplicaError> {
        let file = disk.open(FILE).map_err(failed)?;
        let found = if file.is_empty().map_err(failed)? { OpenedAs::New } else { OpenedAs::Kept };
        drop(file);
        let open = |check, checked| {
            let file = disk.open(FILE).map_err(failed)?;
            Self::try_open(file, limits, check, checked, progress)
        };
        let opened = open(check, true).or_else(|unopened| match unopened {
            Unopened::Failed(_) => Err(unopened),
            // A crash leaves half-written blocks. redb can do without them, and with nothing else
            // that does not fit its check.
            Unopened::Unreadable(_) => open(Check::Whole, false).and_then(|replica| {
                drop(replica);
                open(Check::Whole, true)
            }),
        });
        let why = match opened {
            Ok(replica) => return Ok((replica, found)),
            Err(Unopened::Failed(e)) => return Err(e),
            Err(Unopened::Unreadable(why)) => why,
        };
        // All else comes back from the store.
        let file = disk.open(FILE).map_err(failed)?;
        let damaged = Self::database(file, limits, Check::AfterUncleanEnd, false, progress);
        let held = match damaged {
            Ok(db) => held::salvage(&db)?,
            Err(Unopened::Failed(e)) => return Err(e),
            Err(Unopened::Unreadable(_)) => Vec::new(),
        };
        if held.is_empty() {
            disk.remove(FILE).map_err(failed)?;
        } else {
            // Whole at once: a crash leaves the posts in the old file or in the new one.
            let image = Image::default();
            Self::try_open(Box::new(image.clone()), limits, check, true, progress)
                .map_err(Unopened::into_failed)?
                .hold(&held)?;
            disk.write_atomic(FILE, &image.take()).map_err(failed)?;
        }
        let replica = open(check, true).map_err(Unopened::into_failed)?;
        Ok((replica, OpenedAs::Unreadable { why }))
    }

    fn try_open(
        file: Box<dyn DiskFile>,
        limits: ReplicaLimits,
        check: Check,
        checked: bool,
        progress: fn(f64),
    ) -> Result<Self, Unopened> {
        let db = Self::database(file, limits, check, checked, progress)?;
        db.run(Tables::prepare)?;
        let digests = digests::count(&db)?;
        Ok(Self {
            db,
            limits,
            groups_unsaved: AtomicU32::new(0),
            observed: Mutex::default(),
            digests: Mutex::new(digests),
        })
    }

    /// Opens the file. `checked` says whether blocks are checked before redb has it open; after
    /// that they always are.
    fn database(
        file: Box<dyn DiskFile>,
        limits: ReplicaLimits,
        check: Check,
        checked: bool,
        progress: fn(f64),
    ) -> Result<Guarded, Unopened> {
        let checks = Checks::default();
        if checked {
            checks.start();
        }
        let backend = Backend::new(file, checks.clone());
        let db = guard::caught(|| -> Result<Guarded, Unopened> {
            let db = Database::builder()
                .set_cache_size(limits.cache_bytes)
                .set_check_integrity_on_open(check == Check::Whole)
                .set_repair_callback(move |session| progress(session.progress()))
                .create_with_backend(backend)?;
            // At once: a second panic, of its drop, while a first unwinds ends the process.
            Ok(Guarded::new(db))
        })?;
        checks.start();
        Ok(db)
    }

    /// Makes everything that was applied durable.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`]; what was durable stays so.
    pub fn persist(&self) -> Result<(), ReplicaError> {
        if self.groups_unsaved.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        self.db.run(|db| {
            let txn = db.begin_write()?;
            // A commit with a row, because redb may skip an empty one.
            txn.open_table(tables::META)?.insert(tables::META_SAVES, 0)?;
            Ok(txn.commit()?)
        })?;
        self.groups_unsaved.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the store epoch of posts and sessions; 0 until the first is known.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`].
    pub fn epoch(&self) -> Result<StoreEpoch, ReplicaError> {
        self.db.read(read::Reader::epoch)
    }
}

/// Reason why a file did not open.
enum Unopened {
    /// The file is not readable as this database; a new one has to take its place.
    Unreadable(String),
    /// The disk failed; nothing is known about the file.
    Failed(ReplicaError),
}

impl Unopened {
    fn into_failed(self) -> ReplicaError {
        match self {
            Self::Failed(e) => e,
            Self::Unreadable(why) => ReplicaError::Failed { why },
        }
    }
}

impl From<ReplicaError> for Unopened {
    fn from(e: ReplicaError) -> Self {
        match e {
            ReplicaError::Failed { .. } => Self::Failed(e),
            ReplicaError::Corrupt { .. }
            | ReplicaError::OlderFormat(_)
            | ReplicaError::NewerFormat(_)
            | ReplicaError::Damaged { .. } => Self::Unreadable(e.to_string()),
        }
    }
}

impl From<DatabaseError> for Unopened {
    fn from(e: DatabaseError) -> Self {
        match e {
            DatabaseError::Storage(e) => ReplicaError::from(e).into(),
            DatabaseError::UpgradeRequired(_) => Self::Unreadable(e.to_string()),
            other => Self::Failed(failed(other)),
        }
    }
}

fn failed(e: impl ToString) -> ReplicaError {
    ReplicaError::Failed { why: e.to_string() }
}

impl From<StorageError> for ReplicaError {
    fn from(e: StorageError) -> Self {
        use std::io::ErrorKind::{InvalidData, UnexpectedEof};
        match e {
            StorageError::Corrupted(why) => Self::Damaged { why },
            StorageError::Io(e) if matches!(e.kind(), InvalidData | UnexpectedEof) => {
                Self::Damaged { why: e.to_string() }
            }
            other => failed(other),
        }
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for ReplicaError {
            fn from(e: redb::$error) -> Self {
                match e {
                    redb::$error::Storage(e) => e.into(),
                    other => failed(other),
                }
            }
        })*
    };
}

from_redb!(CommitError, TransactionError);

impl From<redb::SetDurabilityError> for ReplicaError {
    fn from(e: redb::SetDurabilityError) -> Self {
        failed(e)
    }
}

impl From<redb::TableError> for ReplicaError {
    fn from(e: redb::TableError) -> Self {
        match e {
            redb::TableError::Storage(e) => e.into(),
            _ => Self::Corrupt { table: "the list of tables" },
        }
    }
}
