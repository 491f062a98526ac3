//! A node's handles on its disk, which do nothing once its life has ended.

use std::io;

use dst_env::{Disk, DiskFile};

use crate::{
    disk::{Change, DiskState, Inode},
    ids::Life,
    shared::Shared,
};

/// Directory of a host in one of its lives.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    pub(crate) world: Shared,
    pub(crate) life: Life,
}

impl SimDisk {
    fn with<T>(&self, act: impl FnOnce(&mut DiskState) -> io::Result<T>) -> io::Result<T> {
        self.world.with(|state| {
            state.live(self.life)?;
            act(&mut state.hosts[self.life.host.0].disk)
        })
    }
}

/// Refuses names that would lead out of the directory.
fn plain(name: &str) -> io::Result<()> {
    if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name"));
    }
    Ok(())
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        plain(name)?;
        let inode = self.with(|disk| Ok(disk.open(name)))?;
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        plain(name)?;
        self.with(|disk| Ok(disk.read(name)))
    }

    fn write_atomic(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        plain(name)?;
        self.with(|disk| disk.write_atomic(name, bytes))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        plain(name)?;
        self.with(|disk| {
            disk.remove(name);
            Ok(())
        })
    }
}

/// Open file of one life.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: Inode,
}

/// Reads an offset as an index.
fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.with(|disk| Ok(disk.file(self.inode)?.len() as u64))
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = place(offset)?;
        self.disk.with(|disk| disk.read_at(self.inode, from, out))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = place(offset)?;
        let change = Change::Write { offset, bytes: bytes.to_vec() };
        self.disk.with(|disk| disk.change(self.inode, change))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = place(len)?;
        self.disk.with(|disk| disk.change(self.inode, Change::SetLen(len)))
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.world.with(|state| {
            state.live(self.disk.life)?;
            state.hosts[self.disk.life.host.0].disk.sync(state.core.now, self.inode)
        })
    }
}
