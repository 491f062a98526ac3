//! A host's disk: what was written, and what of it would survive.
//!
//! 1. Reads see every write at once.
//! 2. A sync, and [`Disk::write_atomic`], make durable what came before.
//! 3. When the power goes, each unsynced change of a file is kept, lost or torn, by draw, each
//!    on its own: later ones may survive earlier ones. When only the process ends, all stay.

use std::{collections::BTreeMap, io};

use dst_env::{Disk, DiskFile};

use crate::{
    seed::Rng,
    world::{Life, World},
};

/// What a disk writes as a whole.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Change {
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

#[derive(Debug, Default)]
struct File {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// Whether the name itself would survive.
    is_linked: bool,
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
        self.is_linked = true;
    }

    /// What is left after a power loss; `None` when not even the name is.
    fn lose_power(&mut self, draws: &mut Rng) -> Option<()> {
        let is_named = self.is_linked || draws.odds(1, 2);
        for change in std::mem::take(&mut self.unsynced) {
            match (draws.below(3), change) {
                (0, _) => {}
                (1, Change::Write { offset, mut bytes }) => {
                    bytes.truncate(SECTOR * draws.index(bytes.len() / SECTOR + 1));
                    Change::Write { offset, bytes }.apply(&mut self.durable);
                }
                (_, change) => change.apply(&mut self.durable),
            }
        }
        self.live.clone_from(&self.durable);
        is_named.then_some(())
    }
}

/// Names a file's content, which outlives its name while it is open.
type Inode = u64;

/// The disk of one host.
#[derive(Debug, Default)]
pub(crate) struct Platter {
    names: BTreeMap<String, Inode>,
    files: BTreeMap<Inode, File>,
    next: Inode,
    syncs: u64,
}

impl Platter {
    fn file(&mut self, inode: Inode) -> io::Result<&mut File> {
        self.files.get_mut(&inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open(&mut self, name: &str) -> Inode {
        if let Some(inode) = self.names.get(name) {
            return *inode;
        }
        self.next += 1;
        self.names.insert(name.to_owned(), self.next);
        self.files.insert(self.next, File::default());
        self.next
    }

    fn write_atomic(&mut self, name: &str, bytes: &[u8]) {
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

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        Some(self.files.get(self.names.get(name)?)?.live.clone())
    }

    /// The power goes. Answers how many unsynced changes there were.
    pub(crate) fn lose_power(&mut self, draws: &mut Rng) -> usize {
        let unsynced = self.files.values().map(|file| file.unsynced.len()).sum();
        let names = std::mem::take(&mut self.names);
        let mut files = std::mem::take(&mut self.files);
        for (name, inode) in names {
            if let Some(mut file) = files.remove(&inode)
                && file.lose_power(draws).is_some()
            {
                self.names.insert(name, inode);
                self.files.insert(inode, file);
            }
        }
        unsynced
    }

    /// The process ends: what has no name goes, all else stays.
    pub(crate) fn process_ended(&mut self) {
        let named: Vec<Inode> = self.names.values().copied().collect();
        self.files.retain(|inode, _| named.contains(inode));
    }

    pub(crate) fn wipe(&mut self) {
        self.names.clear();
        self.files.clear();
    }

    /// A file as it is now.
    pub(crate) fn peek(&self, name: &str) -> Option<Vec<u8>> {
        self.read(name)
    }

    /// How often something was made durable.
    pub(crate) const fn syncs(&self) -> u64 {
        self.syncs
    }
}

/// A host's directory, in one of its lives.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    pub(crate) world: World,
    pub(crate) life: Life,
}

impl SimDisk {
    fn with<T>(&self, act: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        self.world.with(|state| {
            state.live(self.life)?;
            act(&mut state.hosts[self.life.host.0].platter)
        })
    }
}

fn plain(name: &str) -> io::Result<()> {
    if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name"));
    }
    Ok(())
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        plain(name)?;
        let inode = self.with(|platter| Ok(platter.open(name)))?;
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        plain(name)?;
        self.with(|platter| Ok(platter.read(name)))
    }

    fn write_atomic(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        plain(name)?;
        self.with(|platter| {
            platter.write_atomic(name, bytes);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        plain(name)?;
        self.with(|platter| {
            platter.names.remove(name);
            Ok(())
        })
    }
}

/// An open file.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: Inode,
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.with(|platter| Ok(platter.file(self.inode)?.live.len() as u64))
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = place(offset)?;
        self.disk.with(|platter| {
            let live = &platter.file(self.inode)?.live;
            let bytes = from.checked_add(out.len()).and_then(|to| live.get(from..to));
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = place(offset)?;
        self.disk.with(|platter| {
            platter.file(self.inode)?.change(Change::Write { offset, bytes: bytes.to_vec() });
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = place(len)?;
        self.disk.with(|platter| {
            platter.file(self.inode)?.change(Change::SetLen(len));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.with(|platter| {
            platter.file(self.inode)?.sync();
            platter.syncs += 1;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn write(platter: &mut Platter, name: &str, bytes: &[u8]) -> Inode {
        let inode = platter.open(name);
        let change = Change::Write { offset: 0, bytes: bytes.to_vec() };
        platter.file(inode).expect("open").change(change);
        inode
    }

    #[test]
    fn synced_bytes_survive_and_unsynced_ones_may_be_kept_lost_or_torn() {
        let mut seen = [false; 3];
        for seed in 0..40 {
            let mut platter = Platter::default();
            let inode = write(&mut platter, "db", &[1; 4096]);
            platter.file(inode).expect("open").sync();
            write(&mut platter, "db", &[2; 4096]);
            assert_eq!(platter.read("db"), Some(vec![2; 4096]), "reads see it at once");
            platter.lose_power(&mut Seed(seed).stream("faults"));
            let left = platter.read("db").expect("it was synced");
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
    fn a_process_end_loses_nothing_and_an_atomic_write_is_whole() {
        let mut platter = Platter::default();
        write(&mut platter, "log", b"unsynced");
        platter.process_ended();
        assert_eq!(platter.read("log").as_deref(), Some(&b"unsynced"[..]));
        for seed in 0..10 {
            platter.write_atomic("key", b"whole");
            platter.lose_power(&mut Seed(seed).stream("faults"));
            assert_eq!(platter.read("key").as_deref(), Some(&b"whole"[..]));
        }
        platter.wipe();
        assert_eq!(platter.read("key"), None);
    }
}
