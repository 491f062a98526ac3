//! A disk in memory with one file, which can fail and can crash.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard},
};

use rand_chacha::{ChaCha20Rng, rand_core::Rng};

use crate::env::{Disk, DiskFile};

/// Disk in memory that loses unsynced writes at random in a crash.
#[derive(Debug, Default)]
pub(crate) struct MemDisk(Arc<Mutex<MemFile>>);

#[derive(Default)]
pub(crate) struct MemFile {
    pub(crate) live: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync, in order; a cut is a write of nothing at the new end.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Number of syncs since the file was made.
    pub(crate) syncs: u32,
    pub(crate) fails: bool,
    /// Work that the next read does first.
    pub(crate) before_read: Option<Box<dyn FnOnce() + Send>>,
}

impl fmt::Debug for MemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemFile of {} bytes", self.live.len())
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, with: &[u8]) {
    let end = offset + with.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(with);
}

fn on_fire() -> io::Error {
    io::Error::other("the disk is on fire")
}

impl MemDisk {
    pub(crate) fn file(&self) -> MutexGuard<'_, MemFile> {
        self.0.lock().expect("no test panics with it")
    }

    /// Returns the disk after a crash. Each unsynced write is kept whole, kept in part, or
    /// lost; growth of the file is kept.
    pub(crate) fn crash(&self, rng: &mut ChaCha20Rng) -> Arc<dyn Disk> {
        let file = self.file();
        let mut left = file.durable.clone();
        left.resize(file.live.len(), 0);
        for (offset, bytes) in &file.unsynced {
            let keep = match rng.next_u32() % 3 {
                0 => 0,
                1 => rng.next_u32() as usize % (bytes.len() + 1),
                _ => bytes.len(),
            };
            if *offset + keep <= left.len() {
                put(&mut left, *offset, &bytes[..keep]);
            }
        }
        Self::holding(left)
    }

    pub(crate) fn holding(bytes: Vec<u8>) -> Arc<dyn Disk> {
        let file = MemFile { durable: bytes.clone(), live: bytes, ..MemFile::default() };
        Arc::new(Self(Arc::new(Mutex::new(file))))
    }
}

impl Disk for MemDisk {
    fn open(&self, _name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Self(Arc::clone(&self.0))))
    }

    fn read(&self, _name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(Some(self.file().live.clone()))
    }

    fn write_atomic(&self, _name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.file();
        if file.fails {
            return Err(on_fire());
        }
        file.live = bytes.to_owned();
        drop(file);
        self.sync()
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        *self.file() = MemFile::default();
        Ok(())
    }
}

impl DiskFile for MemDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file().live.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let first = self.file().before_read.take();
        if let Some(first) = first {
            first();
        }
        let file = self.file();
        let from = offset as usize;
        let bytes = file.live.get(from..from + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.file();
        if file.fails {
            return Err(on_fire());
        }
        put(&mut file.live, offset as usize, bytes);
        file.unsynced.push((offset as usize, bytes.to_owned()));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file().live.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut file = self.file();
        file.durable = file.live.clone();
        file.unsynced.clear();
        file.syncs += 1;
        Ok(())
    }
}
