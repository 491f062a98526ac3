//! Small file system of a test, which it can fill up.

use std::{fs, io::Write, os::unix::fs::MetadataExt, path::PathBuf, process::Command};

use super::skip::{say_skipped, skip};
use crate::env::real::TempDir;

/// File system of 2 MiB in memory, unmounted with its handle.
#[derive(Debug)]
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts it; `None` where that is not allowed, after the test was [skipped](skip()).
    ///
    /// # Panics
    /// When there can be no temporary directory.
    #[must_use]
    pub fn mounted() -> Option<Self> {
        let dir = TempDir::new().expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs"]).arg(dir.path());
        if mount.output().is_ok_and(|done| done.status.success()) {
            return Some(Self(dir));
        }
        if fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0) {
            say_skipped("this machine gives nobody a small disk");
        } else {
            skip("no small disk can be mounted (it needs root)");
        }
        None
    }

    /// Returns the path of a file on it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Fills it up, with a file that makes room again when it is removed.
    ///
    /// # Panics
    /// When that file cannot be made.
    #[must_use]
    pub fn fill(&self) -> PathBuf {
        let ballast = self.path("ballast");
        let mut file = fs::File::create(&ballast).expect("made");
        while Write::write(&mut file, &[1; 4096]).is_ok_and(|len| len > 0) {}
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).output();
    }
}
