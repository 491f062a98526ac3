//! Files of a store that lies in a directory of this machine.

use std::{
    fs, io,
    path::PathBuf,
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chatchat::env::real::make_private_dir;

/// Directory of one store's files. It goes away with this.
#[derive(Debug)]
pub(super) struct Files(PathBuf);

impl Files {
    /// Makes the directory.
    pub(super) fn new() -> io::Result<Self> {
        static NTH: AtomicU64 = AtomicU64::new(0);
        // No draw names it: in a simulated world that would be the same one for two processes.
        let nth = NTH.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("chatchat-sim-{}-{nth}", process::id()));
        // A process of this number may have been killed over it.
        match fs::remove_dir_all(&dir) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => make_private_dir(&dir)?,
        }
        Ok(Self(dir))
    }

    /// Returns the name of the store's file.
    pub(super) fn store(&self) -> PathBuf {
        self.0.join("store.db")
    }

    /// Returns the name of a backup of it.
    pub(super) fn backup(&self) -> PathBuf {
        self.0.join("backup.db")
    }

    /// Returns the directory.
    #[cfg(test)]
    pub(super) fn dir(&self) -> &std::path::Path {
        &self.0
    }

    fn remove(&self) {
        // Nobody is left to tell.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Removes a store's files when it is dropped: tasks of a world that is over may keep the store.
#[derive(Debug)]
pub struct RemovesFiles(Option<Arc<Files>>);

impl RemovesFiles {
    pub(super) fn of(files: Option<Arc<Files>>) -> Self {
        Self(files)
    }
}

impl Drop for RemovesFiles {
    fn drop(&mut self) {
        if let Some(files) = &self.0 {
            files.remove();
        }
    }
}
