//! A worker's node database: posts, sessions and the directory on redb, over the node's disk.
//!
//! It is filled from fanout and repaired from a master, then from the store; it answers reads
//! without anyone's permission, weakly consistent. Calls block: a worker runs them on
//! `Env::compute`. One task writes, any number read.
//!
//! 1. Of each board it holds a gapless prefix `1..=last` of what the store committed. Update
//!    ahead of the prefix is dropped and reported as a [`Gap`]: the repair that reads from the
//!    prefix on meets those posts again, so keeping them would only make a second kind of row.
//! 2. What stands at a place stays: a post is never replaced by another of the same place.
//! 3. All posts and sessions are of one store epoch; a newer one empties them.
//! 4. A closed session is remembered as closed, so that late news does not open it again.
//! 5. A crash loses at most the last [`GROUPS_UNSAVED_MAX`] groups of posts and read marks, and
//!    leaves invariant 1 standing: a group is one transaction. What no gap would show, sessions
//!    opened and closed, boards and masters, is durable when [`Replica::apply`] returns.
//! 6. Everything has a bound: boards, sessions (the least recently written goes), members, and
//!    what one read returns. Posts are kept for good, as the store keeps them.

mod apply;
mod backend;
mod read;
mod tables;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use redb::{Database, DatabaseError, StorageError};
use thiserror::Error;

use self::{backend::Backend, tables::Tables};
use crate::{
    env::Disk,
    model::ids::{BoardName, Seq, StoreEpoch},
};

/// The name of its file on the node's disk.
pub const FILE: &str = "replica.redb";

/// Groups of news that a crash may lose.
pub const GROUPS_UNSAVED_MAX: u32 = 64;

/// Posts of one [`Replica::read`].
pub const PAGE_POSTS_MAX: u32 = 500;

/// Bytes of text of one [`Replica::read`], the first post apart.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;

/// The bounds of one node database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaLimits {
    /// Bytes of redb's cache.
    pub cache_bytes: usize,
    /// Boards.
    pub boards_max: u64,
    /// Sessions, closed ones that are remembered included.
    pub sessions_max: u64,
    /// Members of the directory.
    pub members_max: u64,
}

impl Default for ReplicaLimits {
    fn default() -> Self {
        Self {
            cache_bytes: 1024 * 1024,
            boards_max: 1024,
            sessions_max: 200_000,
            members_max: 16_384,
        }
    }
}

/// Why the node database did not do what was asked.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReplicaError {
    /// The disk or redb failed. Nothing of this call is visible; the handle is of no further
    /// use, opening again may help.
    #[error("the node database failed: {why}")]
    Failed {
        /// What was seen.
        why: String,
    },
    /// A row is not what was written. Nothing was changed; opening again finds out what is left.
    #[error("the node database holds a row of {table} that makes no sense")]
    Corrupt {
        /// Where.
        table: &'static str,
    },
}

/// How the database was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There was none.
    Nothing,
    /// As the last life left it, or repaired to its last durable group.
    Kept,
    /// Unreadable, and so begun anew: the store fills it again.
    Unreadable {
        /// What was seen.
        why: String,
    },
}

/// Posts that the replica lacks: all after `have` up to `offered`, the latter not included
/// where it is an earlier one that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Of which board.
    pub board: BoardName,
    /// The last place that the replica has.
    pub have: Seq,
    /// The highest place that is known to be committed.
    pub offered: Seq,
}

/// What a group of news did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Posts that are new here.
    pub posts: u64,
    /// Boards to repair, in the order of names.
    pub gaps: Vec<Gap>,
    /// Whether a newer store epoch emptied posts and sessions.
    pub emptied: bool,
    /// Pieces that were of an older epoch, over a bound, or not what they have to be.
    pub ignored: u64,
}

/// Up to when the store was seen whole, kept in memory: after a restart it is asked again.
#[derive(Debug, Default)]
struct Observed {
    as_of_ms: u64,
    /// Boards that lacked posts at that time.
    behind: BTreeSet<BoardName>,
}

/// An open node database.
#[derive(Debug)]
pub struct Replica {
    db: Database,
    limits: ReplicaLimits,
    groups_unsaved: AtomicU32,
    observed: Mutex<Observed>,
}

impl Replica {
    /// Opens the database on this disk, or begins a new one where there is none that can be
    /// read. Reads the whole file to check it.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`] when the disk fails; the file is left as it was.
    pub fn open(
        disk: &Arc<dyn Disk>,
        limits: ReplicaLimits,
    ) -> Result<(Self, Found), ReplicaError> {
        let file = disk.open(FILE).map_err(failed)?;
        let found = if file.is_empty().map_err(failed)? { Found::Nothing } else { Found::Kept };
        drop(file);
        match Self::try_open(disk, limits) {
            Ok(replica) => Ok((replica, found)),
            Err(Unopened::Failed(e)) => Err(e),
            Err(Unopened::Unreadable(why)) => {
                disk.remove(FILE).map_err(failed)?;
                match Self::try_open(disk, limits) {
                    Ok(replica) => Ok((replica, Found::Unreadable { why })),
                    Err(Unopened::Failed(e)) => Err(e),
                    Err(Unopened::Unreadable(why)) => Err(ReplicaError::Failed { why }),
                }
            }
        }
    }

    fn try_open(disk: &Arc<dyn Disk>, limits: ReplicaLimits) -> Result<Self, Unopened> {
        let file = disk.open(FILE).map_err(failed)?;
        // Checksums hold a file together against torn writes; some other damage makes redb
        // panic, and a file is no reason for a node to die.
        let opened = catch_unwind(AssertUnwindSafe(|| -> Result<Database, Unopened> {
            let db = Database::builder()
                .set_cache_size(limits.cache_bytes)
                .set_check_integrity_on_open(true)
                .create_with_backend(Backend::new(file))?;
            Tables::prepare(&db)?;
            Ok(db)
        }));
        let db =
            opened.unwrap_or_else(|_| Err(Unopened::Unreadable("redb panicked".to_owned())))?;
        Ok(Self { db, limits, groups_unsaved: AtomicU32::new(0), observed: Mutex::default() })
    }

    /// Makes all that was applied durable, if it is not.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`]; what was durable stays so.
    pub fn persist(&self) -> Result<(), ReplicaError> {
        if self.groups_unsaved.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let txn = self.db.begin_write()?;
        // Not empty, so that nobody has to know what redb does with an empty one.
        txn.open_table(tables::META)?.insert(tables::META_SAVES, 0)?;
        txn.commit()?;
        self.groups_unsaved.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// The store epoch that posts and sessions are of; 0 until the first is known.
    ///
    /// # Errors
    /// [`ReplicaError::Failed`].
    pub fn epoch(&self) -> Result<StoreEpoch, ReplicaError> {
        read::Reader::begin(&self.db)?.epoch()
    }
}

/// Why a file did not open.
enum Unopened {
    /// Not readable as this database; a new one has to take its place.
    Unreadable(String),
    /// The disk failed; nothing is known of the file.
    Failed(ReplicaError),
}

impl From<ReplicaError> for Unopened {
    fn from(e: ReplicaError) -> Self {
        match e {
            ReplicaError::Failed { .. } => Self::Failed(e),
            ReplicaError::Corrupt { .. } => Self::Unreadable(e.to_string()),
        }
    }
}

impl From<DatabaseError> for Unopened {
    fn from(e: DatabaseError) -> Self {
        use std::io::ErrorKind::{InvalidData, UnexpectedEof};
        match e {
            DatabaseError::Storage(StorageError::Corrupted(why)) => Self::Unreadable(why),
            DatabaseError::Storage(StorageError::Io(e))
                if matches!(e.kind(), InvalidData | UnexpectedEof) =>
            {
                Self::Unreadable(e.to_string())
            }
            DatabaseError::UpgradeRequired(_) => Self::Unreadable(e.to_string()),
            other => Self::Failed(failed(other)),
        }
    }
}

fn failed(e: impl ToString) -> ReplicaError {
    ReplicaError::Failed { why: e.to_string() }
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for ReplicaError {
            fn from(e: redb::$error) -> Self {
                failed(e)
            }
        })*
    };
}

from_redb!(CommitError, SetDurabilityError, StorageError, TransactionError);

impl From<redb::TableError> for ReplicaError {
    fn from(e: redb::TableError) -> Self {
        match e {
            redb::TableError::Storage(e) => e.into(),
            _ => Self::Corrupt { table: "the list of tables" },
        }
    }
}
