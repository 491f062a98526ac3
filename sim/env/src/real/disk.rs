//! A node's directory on a real file system.
//!
//! 1. A name is plain, so no name leads out of the directory.
//! 2. Files are readable by their owner only.
//! 3. What `write_atomic` returned for is durable: the bytes, then the name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use super::{
    files::{make_private_dir, open_private, replace_file},
    temp::TempDir,
};
use crate::{Disk, DiskFile};

/// A directory of files.
#[derive(Debug)]
pub(super) struct RealDisk {
    dir: PathBuf,
    /// Two replacements of one file would share its temporary name.
    replacing: Mutex<()>,
    /// Removes the directory with the last handle on it.
    _temp: Option<TempDir>,
}

impl RealDisk {
    pub(super) fn new(dir: PathBuf, temp: Option<TempDir>) -> io::Result<Self> {
        make_private_dir(&dir)?;
        Ok(Self { dir, replacing: Mutex::new(()), _temp: temp })
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        let plain = !name.is_empty()
            && name.len() <= 200
            && !name.starts_with('.')
            && !name.contains(['/', '\\', '\0']);
        if !plain {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} is not a plain file name"),
            ));
        }
        Ok(self.dir.join(name))
    }
}

impl Disk for RealDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        Ok(Box::new(RealFile(open_private(&mut options, &self.path(name)?)?)))
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let file = open_private(OpenOptions::new().read(true), &self.path(name)?);
        match file.and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn write_atomic(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name)?;
        let _one_at_a_time = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        replace_file(&path, bytes)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)?) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => File::open(&self.dir)?.sync_all(),
        }
    }
}

/// An open file.
#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_private_and_names_stay_within_the_directory() {
        let temp = TempDir::new().expect("a directory");
        let disk = RealDisk::new(temp.path().join("node"), None).expect("a directory");
        disk.write_atomic("key", b"secret").expect("written");
        drop(disk.open("db").expect("made"));
        for (name, want) in [("", 0o700), ("key", 0o600), ("db", 0o600)] {
            let path = temp.path().join("node").join(name);
            let mode = fs::metadata(path).expect("is there").permissions().mode();
            assert_eq!(mode & 0o777, want, "{name}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "a\\b", "a\0b", ".hidden", &"x".repeat(201)] {
            let refused = disk.write_atomic(bad, b"x").expect_err("not plain");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{bad:?}");
            assert!(disk.open(bad).is_err() && disk.read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn half_written_replacement_of_an_earlier_life_is_overwritten() {
        let temp = TempDir::new().expect("a directory");
        fs::write(temp.path().join(".key.new"), b"torn and much longer").expect("written");
        let path = temp.path().join("key");
        replace_file(&path, b"whole").expect("replaced");
        assert_eq!(fs::read(&path).expect("is there"), b"whole");
        assert!(!temp.path().join(".key.new").exists());
    }
}
