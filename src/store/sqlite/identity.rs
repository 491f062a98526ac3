//! Identity of a store and of its file: whether what lies at a path is still the store that was
//! there before.
//!
//! 1. A store is known by its cluster, and in one epoch its clock never goes back: a file whose
//!    clock did is an older copy.
//! 2. A file that is opened anew is compared with what the process's nodes have of the boards, too.
//! 3. A file is known by its inode. SQLite's log lies beside it and belongs to one file only: a new
//!    file beside the log of the one before is not opened.

use std::{
    fs::{self, Metadata},
    io::{self, ErrorKind},
    ops::Deref,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::{SqliteCore, Tx, schema, sql::Columns, write_lock::beside};
pub use crate::store::history::Expected;
use crate::{
    model::{
        absence::AwayReason,
        ids::StoreEpoch,
        rows::{Boards, StoreError},
    },
    store::history::{self, Before, Mark},
};

impl SqliteCore {
    /// Reads the store's mark.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the store wants a newer release; those of the database.
    pub(super) fn mark(&self) -> Result<Mark, StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT cluster, epoch, (SELECT value FROM meta WHERE name = 'clock'), min_reader
             FROM cluster",
        )?;
        let (mark, min_reader) = find.query_row([], |row| {
            let mark = Mark {
                cluster: row.get(0)?,
                epoch: StoreEpoch(row.nat(1)?),
                // A store of an earlier release has no clock yet.
                clock_ms: row.get::<_, Option<i64>>(2)?.unwrap_or(0).try_into().unwrap_or(0),
            };
            Ok((mark, row.small(3)?))
        })?;
        schema::allowed(min_reader)?;
        Ok(mark)
    }

    /// Lists the boards with their last places.
    fn boards(&self) -> Result<Boards, StoreError> {
        // The time is of writes alone.
        Tx { db: &self.db, now_ms: 0 }.boards()
    }
}

/// Memory of the store that a process has seen, and of the files that it is in.
#[derive(Debug)]
pub(super) struct Seen {
    history: history::Seen,
    files: Mutex<Option<Files>>,
}

impl Deref for Seen {
    type Target = history::Seen;

    fn deref(&self) -> &history::Seen {
        &self.history
    }
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
        Self { history: history::Seen::new(expected, "file"), files: Mutex::new(None) }
    }

    /// Keeps which files the store is in. The log may appear after the first look.
    fn note_files(&self, file: FileId, path: &Path) {
        let mut known = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none_or(|known| known.file != file || known.beside.contains(&None)) {
            *known = Some(Files::of(file, path));
        }
    }
}

/// Connection with the file that it is on.
#[derive(Debug)]
pub(super) struct Opened {
    core: SqliteCore,
    file: FileId,
    /// Whether its boards were compared with what the nodes have.
    is_compared: bool,
}

impl Opened {
    /// Checks that the store on it is the one that was seen, and keeps how far that is.
    fn check(&mut self, before: &Before, seen: &Seen) -> Result<(), StoreError> {
        // Another content may lie in the same file once it does not fit.
        let was_compared = std::mem::replace(&mut self.is_compared, false);
        let told = |error| seen.while_running(error);
        let now = self.core.mark().map_err(told)?;
        if was_compared {
            seen.check(before.mark(), now)?;
        } else {
            seen.check_new(before, now, &self.core.boards().map_err(told)?)?;
        }
        self.is_compared = true;
        Ok(())
    }
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
    let before = seen.before();
    let at = FileId::at(path)
        .map_err(|e| StoreError::away(AwayReason::Failing, format!("{}: {e}", path.display())))?;
    if at.is_none() && seen.newest().is_some() {
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
            none.insert(Opened { core, file, is_compared: false })
        }
    };
    let done = opened.check(&before, seen).and_then(|()| {
        seen.note_files(opened.file, path);
        act(&mut opened.core)
    });
    if done.as_ref().is_err_and(|error| error.away_reason() == Some(AwayReason::Damaged)) {
        // What SQLite keeps of the file may be as wrong as the file was.
        *slot = None;
    }
    done
}
