//! Identity of a store and of its file: whether what lies at a path is still the store that was
//! there before.
//!
//! 1. A store is known by its cluster, and in one epoch its clock never goes back: a file whose
//!    clock did is an older copy.
//! 2. A file is known by its inode. SQLite's log lies beside it and belongs to one file only: a new
//!    file beside the log of the one before is not opened.

use std::{
    fs::{self, Metadata},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::{SqliteCore, refused, sql::Columns, write_lock::beside};
use crate::model::{absence::AwayReason, ids::StoreEpoch, rows::StoreError};

/// Store that a file has to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Any; a new one is made where there is none.
    #[default]
    AnyOrNew,
    /// One that is there already, of whatever cluster.
    Existing,
    /// The one of this cluster.
    Cluster([u8; 16]),
}

/// Place of a store in its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) cluster: [u8; 16],
    pub(super) epoch: StoreEpoch,
    /// Greatest time of any write.
    pub(super) clock_ms: u64,
}

impl SqliteCore {
    /// Reads the store's mark.
    pub(super) fn mark(&self) -> Result<Mark, StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT cluster, epoch, (SELECT value FROM meta WHERE name = 'clock') FROM cluster",
        )?;
        Ok(find.query_row([], |row| {
            Ok(Mark {
                cluster: row.get(0)?,
                epoch: StoreEpoch(row.nat(1)?),
                // A store of an earlier release has no clock yet.
                clock_ms: row.get::<_, Option<i64>>(2)?.unwrap_or(0).try_into().unwrap_or(0),
            })
        })?)
    }
}

/// Memory of the store that a process has seen; all its connections share it.
#[derive(Debug)]
pub(super) struct Seen {
    expected: Expected,
    mark: Mutex<Option<Mark>>,
    files: Mutex<Option<Files>>,
}

/// A store's file, and the log and its index beside it once they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Files {
    file: FileId,
    beside: [Option<FileId>; 2],
}

impl Files {
    fn of(file: FileId, path: &Path) -> Self {
        let beside = ["-wal", "-shm"];
        Self { file, beside: beside.map(|end| FileId::at(&self::beside(path, end)).ok().flatten()) }
    }

    /// Returns whether another file lies beside the log of this one.
    fn left_log_to(&self, now: &Self) -> bool {
        let mut both = self.beside.iter().zip(now.beside);
        self.file != now.file && both.any(|(old, new)| old.is_some() && *old == new)
    }
}

impl Seen {
    pub(super) fn new(expected: Expected) -> Self {
        Self { expected, mark: Mutex::new(None), files: Mutex::new(None) }
    }

    /// Returns the newest mark. A mark read from now on must not be older.
    pub(super) fn newest(&self) -> Option<Mark> {
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn may_create(&self) -> bool {
        self.expected == Expected::AnyOrNew && self.newest().is_none()
    }

    /// Compares a mark with the newest one from before it was read, and keeps it.
    ///
    /// # Errors
    /// [`StoreError::Away`] when it is of another store than was seen, or older;
    /// [`StoreError::Refused`] when nothing was seen and it is of another cluster than expected.
    pub(super) fn check(&self, before: Option<Mark>, now: Mark) -> Result<(), StoreError> {
        match (before, self.expected) {
            (Some(before), _) if before.cluster != now.cluster => {
                let why = format!("its file is that of another cluster, {}", short(now.cluster));
                return Err(StoreError::away(AwayReason::Replaced, why));
            }
            (Some(before), _) if (now.epoch, now.clock_ms) < (before.epoch, before.clock_ms) => {
                let why = format!(
                    "its file is an older copy: it ends {} ms before what was seen of epoch {}; \
                     put the newer file back",
                    before.clock_ms.saturating_sub(now.clock_ms),
                    before.epoch
                );
                return Err(StoreError::away(AwayReason::RolledBack, why));
            }
            (None, Expected::Cluster(ours)) if ours != now.cluster => {
                return Err(refused(format!(
                    "it is the store of cluster {}, and this node belongs to {}; name its own \
                     with --store, or give the node a new --data-dir",
                    short(now.cluster),
                    short(ours)
                )));
            }
            _ => {}
        }
        self.raise(now);
        Ok(())
    }

    /// Keeps a mark of the store, unless a newer one was seen.
    pub(super) fn raise(&self, now: Mark) {
        let mut newest = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        let is_newer =
            newest.is_none_or(|seen| (now.epoch, now.clock_ms) > (seen.epoch, seen.clock_ms));
        if is_newer {
            *newest = Some(now);
        }
    }

    /// Keeps which files the store is in. The log may appear after the first look.
    fn note_files(&self, file: FileId, path: &Path) {
        let mut known = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none_or(|known| known.file != file || known.beside.contains(&None)) {
            *known = Some(Files::of(file, path));
        }
    }

    /// Names what opening a file means once a store was seen: an operator may put it back.
    pub(super) fn while_running(&self, error: StoreError) -> StoreError {
        if self.newest().is_none() {
            return error;
        }
        match error {
            StoreError::Refused { why } => StoreError::away(AwayReason::Replaced, why),
            StoreError::Broken { why } => StoreError::away(AwayReason::Damaged, why),
            // It is there, but no store was made in it.
            StoreError::Away { reason: AwayReason::Gone, why } => {
                StoreError::away(AwayReason::Replaced, why)
            }
            other => other,
        }
    }
}

/// Connection with the file that it is on.
#[derive(Debug)]
pub(super) struct Opened {
    core: SqliteCore,
    file: FileId,
}

/// Device and inode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

impl FileId {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self(meta.dev(), meta.ino())
    }

    /// Looks a file up by its name, without opening it; `None` if there is none.
    pub(super) fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(meta) => Ok(Some(Self::of(&meta))),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Uses the connection on the file at `path`, opened by `open` if there is none or if another file
/// lies there now, once the file was seen to be the store.
///
/// # Errors
/// Those of `open` and `act`, and those of [`Seen::check`]; [`StoreError::Away`] when the file that
/// was there is gone.
pub(super) fn on_file<T>(
    slot: &mut Option<Opened>,
    path: &Path,
    seen: &Seen,
    open: impl FnOnce() -> Result<SqliteCore, StoreError>,
    act: impl FnOnce(&mut SqliteCore) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let before = seen.newest();
    let at = FileId::at(path)
        .map_err(|e| StoreError::away(AwayReason::Failing, format!("{}: {e}", path.display())))?;
    if at.is_none() && before.is_some() {
        // The connection is kept for the file to come back, and not used meanwhile.
        let why = format!("{} is not there: it was moved or removed", path.display());
        return Err(StoreError::away(AwayReason::Gone, why));
    }
    if let Some(file) = at {
        let known = seen.files.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some_and(|known| known.left_log_to(&Files::of(file, path))) {
            let why = format!(
                "{0} is another file, beside the log of the one before; move {0}-wal and {0}-shm \
                 to the file that they belong to",
                path.display()
            );
            return Err(StoreError::away(AwayReason::Replaced, why));
        }
    }
    slot.take_if(|opened| Some(opened.file) != at);
    let opened = match &mut *slot {
        Some(opened) => opened,
        none @ None => {
            let core = open().map_err(|error| seen.while_running(error))?;
            let file = FileId::at(path).ok().flatten().ok_or_else(|| {
                StoreError::away(AwayReason::Gone, format!("{} is not there", path.display()))
            })?;
            none.insert(Opened { core, file })
        }
    };
    let file = opened.file;
    let done = opened
        .core
        .mark()
        .map_err(|error| seen.while_running(error))
        .and_then(|now| seen.check(before, now))
        .and_then(|()| {
            seen.note_files(file, path);
            act(&mut opened.core)
        });
    if done.as_ref().is_err_and(|error| error.away_reason() == Some(AwayReason::Damaged)) {
        // What SQLite keeps of the file may be as wrong as the file was.
        *slot = None;
    }
    done
}

/// Returns the beginning of a cluster's id, which tells it from others.
fn short(cluster: [u8; 16]) -> String {
    hex::encode(&cluster[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(cluster: u8, epoch: u64, clock_ms: u64) -> Mark {
        Mark { cluster: [cluster; 16], epoch: StoreEpoch(epoch), clock_ms }
    }

    #[test]
    fn mark_of_another_cluster_or_of_an_earlier_time_is_away() {
        let seen = Seen::new(Expected::AnyOrNew);
        let check = |now| seen.check(seen.newest(), now).map_err(|error| error.away_reason());
        assert!(seen.may_create());
        assert_eq!(check(mark(1, 5, 100)), Ok(()));
        assert!(!seen.may_create(), "a store that was seen is never made again");
        assert_eq!(check(mark(1, 5, 100)), Ok(()));
        assert_eq!(check(mark(1, 5, 99)), Err(Some(AwayReason::RolledBack)));
        assert_eq!(check(mark(1, 4, 200)), Err(Some(AwayReason::RolledBack)));
        assert_eq!(check(mark(2, 6, 200)), Err(Some(AwayReason::Replaced)));
        assert_eq!(check(mark(1, 6, 10)), Ok(()), "a new epoch begins with a backup");
        assert_eq!(check(mark(1, 5, 300)), Err(Some(AwayReason::RolledBack)));
    }

    #[test]
    fn mark_read_beside_a_newer_one_is_no_rollback() {
        let seen = Seen::new(Expected::AnyOrNew);
        seen.check(None, mark(1, 5, 100)).expect("the first");
        let before = seen.newest();
        seen.check(before, mark(1, 5, 200)).expect("by another thread");
        assert_eq!(seen.check(before, mark(1, 5, 150)), Ok(()));
        assert_eq!(seen.newest(), Some(mark(1, 5, 200)));
    }

    #[test]
    fn store_of_another_cluster_is_refused_at_the_start() {
        let seen = Seen::new(Expected::Cluster([1; 16]));
        assert!(!seen.may_create());
        let refused = seen.check(None, mark(2, 5, 100));
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
        assert_eq!(seen.newest(), None);
    }
}
