//! A directory that goes away with its handle.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{entropy, files::make_private_dir};

/// A fresh directory under the system's place for such, removed when this is dropped. A
/// process that is killed leaves it behind.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes one.
    ///
    /// # Errors
    /// The file system's.
    pub fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("dst-env-{}", hex::encode(&entropy()[..8])));
        make_private_dir(&path)?;
        Ok(Self(path))
    }

    /// Returns its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Nobody is left to tell, and the system clears the place in time.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_is_removed_with_its_handle() {
        let temp = TempDir::new().expect("made");
        let path = temp.path().to_owned();
        std::fs::write(path.join("file"), b"x").expect("written");
        drop(temp);
        assert!(!path.exists());
    }
}
