//! File that gets its name when it is whole: a name stands for a whole file or for none.

use std::{
    fs::{self, File, OpenOptions},
    io, iter,
    path::{Path, PathBuf},
};

use super::{
    owner::{Owner, dir_of},
    write_lock::beside,
};
use crate::{
    env::real::{check_access, open_private},
    model::{absence::AwayReason, rows::StoreError},
};

/// Endings of the files that SQLite keeps beside one.
pub(super) const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// File without its name yet. It is removed unless it gets it.
#[derive(Debug)]
pub(in crate::store) struct NewFile(PathBuf);

impl NewFile {
    /// Makes it, empty and readable by its owner only, beside the file whose name it will get.
    pub(super) fn beside(name: &Path, what: &str) -> Result<Self, StoreError> {
        let file = Self(beside(name, &format!(".{what}-{}", std::process::id())));
        // A process of this number may have been killed over it.
        file.remove();
        open_private(OpenOptions::new().write(true).create_new(true), &file.0)
            .map_err(|e| failing(&file.0, &e))?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Gives it to the owner of a store.
    pub(super) fn give_to(&self, owner: Owner) -> io::Result<()> {
        owner.take(&open_private(OpenOptions::new().write(true), &self.0)?)
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let synced = File::open(&self.0).and_then(|file| file.sync_all());
        synced.map_err(|e| failing(&self.0, &e))
    }

    /// Gives it its name; durable when it returns.
    pub(in crate::store) fn name(self, name: &Path) -> Result<(), StoreError> {
        let named = fs::rename(&self.0, name).and_then(|()| File::open(dir_of(name))?.sync_all());
        named.map_err(|e| failing(name, &e))
    }

    /// Removes it, if it has not got its name, and what SQLite left beside it.
    fn remove(&self) {
        let _ = fs::remove_file(&self.0);
        for end in LOGS {
            let _ = fs::remove_file(beside(&self.0, end));
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        self.remove();
    }
}

pub(super) fn length(path: &Path) -> Result<u64, StoreError> {
    Ok(fs::metadata(path).map_err(|e| failing(path, &e))?.len())
}

pub(super) fn failing(path: &Path, error: &io::Error) -> StoreError {
    StoreError::away(AwayReason::Failing, format!("{}: {error}", path.display()))
}

/// Adds the file's name to an error.
pub(super) fn of_file(path: &Path, error: StoreError) -> StoreError {
    let named = |why: String| format!("{}: {why}", path.display());
    match error {
        StoreError::Away { reason, why } => StoreError::Away { reason, why: named(why) },
        StoreError::Refused { why } => StoreError::Refused { why: named(why) },
        StoreError::Broken { why } => StoreError::Broken { why: named(why) },
        other => other,
    }
}

/// Names the file of the store at `path` that this user may not open, if that explains the error: SQLite
/// says only that it cannot open one.
pub(super) fn or_denied(path: &Path, error: StoreError) -> StoreError {
    if error.away_reason() != Some(AwayReason::Failing) {
        return error;
    }
    let is_denied = |file: &PathBuf| {
        check_access(file).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
    };
    let mut files = iter::once("").chain(LOGS).map(|end| beside(path, end));
    match files.find(is_denied) {
        Some(file) => {
            let why = format!("this user may not read and write {}", file.display());
            StoreError::away(AwayReason::ReadOnly, why)
        }
        None => error,
    }
}
