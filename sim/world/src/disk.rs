//! Disk of a host: files as they read now, and what of them would survive a power loss.
//!
//! 1. Reads see every write at once.
//! 2. A sync, and `write_atomic`, make durable what came before.
//! 3. When the power goes, each unsynced change of a file is kept, lost or torn, by draw, each
//!    on its own: later ones may survive earlier ones. When only the process ends, all stay.

use std::{collections::BTreeMap, io};

use dst_env::rng::Rng;

/// Bytes that a disk writes as a whole.
const SECTOR: usize = 512;

/// Change of a file that is not durable yet.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(bytes);
            }
            Self::SetLen(len) => to.resize(*len, 0),
        }
    }
}

/// One file's bytes, as they read and as they would survive.
#[derive(Debug, Default)]
pub(crate) struct File {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// Whether the name itself would survive.
    is_linked: bool,
}

impl File {
    /// Returns the bytes as they read now.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.live
    }

    /// Changes the file; a power loss may undo that until the next sync.
    pub(crate) fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
        self.is_linked = true;
    }

    /// Keeps, loses or tears each unsynced change. False when not even the name survives.
    fn lose_power(&mut self, rng: &mut Rng) -> bool {
        let is_named = self.is_linked || rng.odds(1, 2);
        for change in std::mem::take(&mut self.unsynced) {
            match (rng.below(3), change) {
                (0, _) => {}
                (1, Change::Write { offset, mut bytes }) => {
                    bytes.truncate(SECTOR * rng.index(bytes.len() / SECTOR + 1));
                    Change::Write { offset, bytes }.apply(&mut self.durable);
                }
                (_, change) => change.apply(&mut self.durable),
            }
        }
        self.live.clone_from(&self.durable);
        is_named
    }
}

/// Number of a file's content, which outlives its name while it is open.
pub(crate) type Inode = u64;

/// Contents of one host's disk.
#[derive(Debug, Default)]
pub(crate) struct DiskState {
    names: BTreeMap<String, Inode>,
    files: BTreeMap<Inode, File>,
    next: Inode,
    syncs: u64,
}

impl DiskState {
    /// Returns an open file.
    ///
    /// # Errors
    /// When it was lost or wiped meanwhile.
    pub(crate) fn file(&mut self, inode: Inode) -> io::Result<&mut File> {
        self.files.get_mut(&inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Opens a file, making it if it is not there.
    pub(crate) fn open(&mut self, name: &str) -> Inode {
        if let Some(inode) = self.names.get(name) {
            return *inode;
        }
        self.next += 1;
        self.names.insert(name.to_owned(), self.next);
        self.files.insert(self.next, File::default());
        self.next
    }

    /// Replaces a whole file, durably.
    pub(crate) fn write_atomic(&mut self, name: &str, bytes: &[u8]) {
        self.names.remove(name);
        let inode = self.open(name);
        let whole = File {
            live: bytes.to_vec(),
            durable: bytes.to_vec(),
            is_linked: true,
            ..File::default()
        };
        self.files.insert(inode, whole);
        self.syncs += 1;
    }

    /// Makes a file's changes durable.
    ///
    /// # Errors
    /// When it was lost or wiped meanwhile.
    pub(crate) fn sync(&mut self, inode: Inode) -> io::Result<()> {
        self.file(inode)?.sync();
        self.syncs += 1;
        Ok(())
    }

    /// Removes a name, durably. What is open stays readable.
    pub(crate) fn remove(&mut self, name: &str) {
        self.names.remove(name);
    }

    /// Returns a file as it is now.
    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        Some(self.files.get(self.names.get(name)?)?.live.clone())
    }

    /// Applies a power loss and returns how many changes were unsynced.
    pub(crate) fn lose_power(&mut self, rng: &mut Rng) -> usize {
        let unsynced = self.files.values().map(|file| file.unsynced.len()).sum();
        let names = std::mem::take(&mut self.names);
        let mut files = std::mem::take(&mut self.files);
        for (name, inode) in names {
            if let Some(mut file) = files.remove(&inode)
                && file.lose_power(rng)
            {
                self.names.insert(name, inode);
                self.files.insert(inode, file);
            }
        }
        unsynced
    }

    /// Applies the end of the process: removed files go, all others stay as they are.
    pub(crate) fn process_ended(&mut self) {
        let named: Vec<Inode> = self.names.values().copied().collect();
        self.files.retain(|inode, _| named.contains(inode));
    }

    /// Empties the disk.
    pub(crate) fn wipe(&mut self) {
        self.names.clear();
        self.files.clear();
    }

    /// Returns how often something was made durable.
    pub(crate) const fn syncs(&self) -> u64 {
        self.syncs
    }
}

#[cfg(test)]
mod tests {
    use dst_env::rng::Seed;

    use super::*;

    fn write(disk: &mut DiskState, name: &str, bytes: &[u8]) -> Inode {
        let inode = disk.open(name);
        let change = Change::Write { offset: 0, bytes: bytes.to_vec() };
        disk.file(inode).expect("open").change(change);
        inode
    }

    #[test]
    fn synced_bytes_survive_and_unsynced_bytes_are_kept_lost_or_torn() {
        let mut seen = [false; 3];
        for seed in 0..40 {
            let mut disk = DiskState::default();
            let inode = write(&mut disk, "db", &[1; 4096]);
            disk.sync(inode).expect("open");
            write(&mut disk, "db", &[2; 4096]);
            assert_eq!(disk.read("db"), Some(vec![2; 4096]), "reads see it at once");
            disk.lose_power(&mut Seed(seed).stream("faults"));
            let left = disk.read("db").expect("it was synced");
            let new = left.iter().take_while(|byte| **byte == 2).count();
            assert!(left[new..].iter().all(|byte| *byte == 1) && new % SECTOR == 0);
            seen[match new {
                0 => 0,
                4096 => 1,
                _ => 2,
            }] = true;
        }
        assert_eq!(seen, [true; 3]);
    }

    #[test]
    fn process_end_loses_nothing_and_atomic_write_is_whole() {
        let mut disk = DiskState::default();
        write(&mut disk, "log", b"unsynced");
        disk.process_ended();
        assert_eq!(disk.read("log").as_deref(), Some(&b"unsynced"[..]));
        for seed in 0..10 {
            disk.write_atomic("key", b"whole");
            disk.lose_power(&mut Seed(seed).stream("faults"));
            assert_eq!(disk.read("key").as_deref(), Some(&b"whole"[..]));
        }
        disk.wipe();
        assert_eq!(disk.read("key"), None);
    }
}
