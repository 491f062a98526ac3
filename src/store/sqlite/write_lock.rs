//! Write lock of a store's file, for the processes that share it.
//!
//! SQLite's own busy handler sleeps and tries again, which starves writers; a lock of the
//! operating system (`flock` on `FILE.gate`) wakes a waiting writer, and is free again when its
//! holder dies.
//!
//! 1. Correctness never rests on this lock: SQLite's locks stand behind it.
//! 2. A waiting process holds nothing: one that was stopped while it waited blocks nobody. (A
//!    second lock to queue on would be fairer, and would lose that. Measured with five processes
//!    whose writers are never idle: none waited longer than 0.3 s without one.)

use std::{
    ffi::OsString,
    fs::{File, OpenOptions, metadata, read_to_string, remove_file},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::owner::Owner;
use crate::env::real::open_private;

/// Offset in the `-shm` file of the byte that a writer in WAL mode locks.
const WAL_WRITE_LOCK: u64 = 120;

/// Write lock of one file, as one thread uses it.
#[derive(Debug)]
pub(super) struct WriteLock(Arc<File>);

/// Held write lock; dropping it releases the lock.
#[derive(Debug)]
pub(super) struct Held(Arc<File>);

impl WriteLock {
    /// Opens the lock file of `path`, and creates it (mode 0600) if it is missing.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        Ok(Self(Arc::new(open_private(&mut options, &beside(path, ".gate"))?)))
    }

    /// Opens the lock file of `path`, and creates it (mode 0600) for this owner if it is missing.
    pub(super) fn of_owner(path: &Path, owner: Owner) -> io::Result<Self> {
        let gate = beside(path, ".gate");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        match open_private(&mut options, &gate) {
            Ok(file) => {
                owner.take(&file).inspect_err(|_| {
                    // It would keep the owner's nodes out.
                    let _ = remove_file(&gate);
                })?;
                Ok(Self(Arc::new(file)))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::of(path),
            Err(error) => Err(error),
        }
    }

    /// Waits for the lock, as long as it takes: a process that was stopped with it blocks everyone.
    pub(super) fn acquire(&self) -> io::Result<Held> {
        loop {
            match self.0.lock() {
                Ok(()) => return Ok(Held(Arc::clone(&self.0))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns whether the lock file of `path` is still the one that was opened.
    pub(super) fn is_of(&self, path: &Path) -> bool {
        let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let there = metadata(beside(path, ".gate")).map(id);
        matches!((self.0.metadata().map(id), there), (Ok(ours), Ok(there)) if ours == there)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Cannot fail on a lock that is held; the system would take it back at the end anyway.
        let _ = self.0.unlock();
    }
}

/// Path of a file beside `path`: its name and a suffix.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Returns the process that keeps all others from writing to the store's file at `path`: the holder
/// of SQLite's write lock, else the holder of `FILE.gate`. `None` when there is neither, or on a
/// system without `/proc/locks`.
///
/// A process that is named twice, seconds apart, was probably stopped in mid-transaction.
#[must_use]
pub fn holder_of_lock(path: &Path) -> Option<u32> {
    let writes =
        |lock: &Lock<'_>| lock.writes && (lock.first..=lock.last).contains(&WAL_WRITE_LOCK);
    holder(path, "-shm", &|lock| lock.kind == "POSIX" && writes(lock))
        .or_else(|| holder(path, ".gate", &|lock| lock.kind == "FLOCK" && lock.writes))
}

/// Returns another process that has the store's file at `path` open, as a connection in WAL mode
/// always holds locks. `None` when there is none, or on a system without `/proc/locks`.
pub(super) fn other_user(path: &Path) -> Option<u32> {
    let other = |lock: &Lock<'_>| lock.pid != std::process::id();
    ["", "-shm", ".gate"].into_iter().find_map(|suffix| holder(path, suffix, &other))
}

/// Returns the process of the first such lock on the file beside `path` with this suffix.
fn holder(path: &Path, suffix: &str, wanted: &dyn Fn(&Lock<'_>) -> bool) -> Option<u32> {
    let locks = read_to_string("/proc/locks").ok()?;
    // Looked at by name alone: to open and close SQLite's files would drop its locks.
    let file = FileId::of(&metadata(beside(path, suffix)).ok()?);
    let mut held = locks.lines().filter_map(Lock::parse).filter(|lock| lock.file == file);
    held.find(wanted).map(|lock| lock.pid)
}

/// Identity of a file in `/proc/locks`.
#[derive(Debug, PartialEq, Eq)]
struct FileId {
    major: u64,
    minor: u64,
    inode: u64,
}

impl FileId {
    fn of(meta: &std::fs::Metadata) -> Self {
        // Linux's own packing of device numbers into 64 bits.
        let device = meta.dev();
        let major = ((device >> 8) & 0xfff) | ((device >> 32) & !0xfff);
        let minor = (device & 0xff) | ((device >> 12) & !0xff);
        Self { major, minor, inode: meta.ino() }
    }
}

/// Line of `/proc/locks`: `4: POSIX  ADVISORY  WRITE 2049 fe:00:5366074 120 120`.
#[derive(Debug, PartialEq, Eq)]
struct Lock<'a> {
    kind: &'a str,
    writes: bool,
    pid: u32,
    file: FileId,
    first: u64,
    last: u64,
}

impl<'a> Lock<'a> {
    /// Parses a line. `None` for waiters (`4: -> POSIX ..`), for other shapes, and for processes
    /// outside this pid namespace, which have no pid here.
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().skip(1);
        let kind = words.next().filter(|kind| *kind != "->")?;
        let writes = words.nth(1)? == "WRITE";
        let pid = words.next()?.parse().ok().filter(|pid| *pid != 0)?;
        let mut id = words.next()?.split(':');
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (major, minor) = (hex(id.next()?)?, hex(id.next()?)?);
        let file = FileId { major, minor, inode: id.next()?.parse().ok()? };
        let first = words.next()?.parse().ok()?;
        let last = match words.next()? {
            "EOF" => u64::MAX,
            last => last.parse().ok()?,
        };
        Some(Self { kind, writes, pid, file, first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_lines_are_parsed_and_waiters_left_out() {
        let held = Lock::parse("4: POSIX  ADVISORY  WRITE 2049 fe:0a:5366074 120 120");
        let file = FileId { major: 0xfe, minor: 10, inode: 5_366_074 };
        let want = Lock { kind: "POSIX", writes: true, pid: 2049, file, first: 120, last: 120 };
        assert_eq!(held, Some(want));
        let whole = Lock::parse("1: FLOCK  ADVISORY  WRITE 7 fe:00:1 0 EOF").expect("a lock");
        assert_eq!((whole.first, whole.last), (0, u64::MAX));
        for other in ["", "4: -> POSIX  ADVISORY  WRITE 2 fe:00:1 120 120", "4: FLOCK x WRITE 0"] {
            assert_eq!(Lock::parse(other), None, "{other}");
        }
    }
}
