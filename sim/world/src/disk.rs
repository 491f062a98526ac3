//! Disk of a host: files as they read now, and what of them would survive a power loss.
//!
//! 1. Reads see every write at once.
//! 2. A sync, and `write_atomic`, make durable what came before.
//! 3. A sync takes its time. Within it, what it was asked to make durable counts as unsynced, and
//!    what its process did after it, to this file or another, has not happened yet. Files that were
//!    replaced or removed as a whole are excepted: that is done at once.
//! 4. When the power goes, each unsynced change of a file is kept, lost or torn, by draw, each
//!    on its own: later ones may survive earlier ones. A torn write keeps its first sectors, or
//!    any of them. When only the process ends, all stay.

mod content;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io};

use dst_env::rng::Rng;

use self::content::Content;
use crate::disk_faults::DiskFaults;

/// Bytes that a disk writes as a whole.
const SECTOR: usize = 512;

/// Change of a file that is not durable yet.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Change {
    fn apply(&self, to: &mut Content) {
        match self {
            Self::Write { offset, bytes } => to.write(*offset, bytes),
            Self::SetLen(len) => to.set_len(*len),
        }
    }
}

/// Number of a step of the disk, which its changes and syncs share: they are in one order, whatever
/// their files.
type Step = u64;

/// Sync that is under way.
#[derive(Debug)]
struct PendingSync {
    /// Virtual time at which it ends, ns.
    settles_at: u64,
    /// Step that asked for it.
    asked: Step,
    /// Changes that it makes durable, each with its step, in order.
    changes: Vec<(Step, Change)>,
}

/// One file's bytes, as they read and as they would survive.
#[derive(Debug, Default)]
pub(crate) struct File {
    live: Content,
    durable: Content,
    /// Changes that nobody has asked to make durable yet, each with its step, in order.
    unsynced: Vec<(Step, Change)>,
    /// Syncs that are under way, in order.
    settling: Vec<PendingSync>,
    /// Step that made the file.
    made: Step,
    /// Whether the name itself would survive.
    is_linked: bool,
}

impl File {
    /// Returns a file that is durable as it is.
    fn whole(content: Content) -> Self {
        Self { live: content.clone(), durable: content, is_linked: true, ..Self::default() }
    }

    /// Returns the number of bytes as they read now.
    pub(crate) const fn len(&self) -> usize {
        self.live.len()
    }

    fn change(&mut self, step: Step, change: Change) {
        change.apply(&mut self.live);
        self.unsynced.push((step, change));
    }

    fn sync(&mut self, asked: Step, settles_at: u64) {
        let changes = std::mem::take(&mut self.unsynced);
        self.settling.push(PendingSync { settles_at, asked, changes });
    }

    /// Makes durable what syncs had done by `now`.
    fn settle(&mut self, now: u64) {
        while self.settling.first().is_some_and(|sync| sync.settles_at <= now) {
            for (_, change) in self.settling.remove(0).changes {
                change.apply(&mut self.durable);
            }
            self.is_linked = true;
        }
    }

    /// Returns the end of its first sync that is under way, and the step that asked for it.
    fn first_sync(&self) -> Option<(u64, Step)> {
        self.settling.first().map(|sync| (sync.settles_at, sync.asked))
    }

    /// Returns how many changes a power loss may undo.
    fn unsynced(&self) -> usize {
        self.unsynced.len() + self.settling.iter().map(|sync| sync.changes.len()).sum::<usize>()
    }

    /// Keeps, loses or tears each unsynced change up to the step `until`; those after it did not
    /// happen. False when not even the name survives.
    fn lose_power(&mut self, until: Step, rng: &mut Rng, faults: &mut DiskFaults) -> bool {
        let is_named = self.is_linked || self.made <= until && rng.odds(1, 2);
        let later = std::mem::take(&mut self.unsynced);
        let syncs = std::mem::take(&mut self.settling);
        let changes = syncs.into_iter().flat_map(|sync| sync.changes).chain(later);
        for (_, change) in changes.filter(|(step, _)| *step <= until) {
            let fate = if faults.tears() { 1 } else { rng.below(3) };
            match (fate, change) {
                (0, _) => {}
                (1, Change::Write { offset, mut bytes }) if rng.odds(1, 2) => {
                    bytes.truncate(SECTOR * rng.index(bytes.len() / SECTOR + 1));
                    Change::Write { offset, bytes }.apply(&mut self.durable);
                }
                (1, Change::Write { offset, bytes }) => {
                    self.keep_some_sectors(offset, &bytes, rng);
                }
                (_, change) => change.apply(&mut self.durable),
            }
        }
        self.live.clone_from(&self.durable);
        is_named
    }

    /// Makes any of the sectors of a write durable. They are those of the disk, not of the write.
    fn keep_some_sectors(&mut self, offset: usize, mut bytes: &[u8], rng: &mut Rng) {
        let mut offset = offset;
        while !bytes.is_empty() {
            let len = (SECTOR - offset % SECTOR).min(bytes.len());
            let (sector, rest) = bytes.split_at(len);
            if rng.odds(1, 2) {
                Change::Write { offset, bytes: sector.to_vec() }.apply(&mut self.durable);
            }
            (offset, bytes) = (offset + len, rest);
        }
    }
}

/// Number of a file's content, which outlives its name while it is open.
pub(crate) type Inode = u64;

/// Copy of a disk's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskImage(BTreeMap<String, Content>);

/// Contents of one host's disk.
#[derive(Debug, Default)]
pub(crate) struct DiskState {
    names: BTreeMap<String, Inode>,
    files: BTreeMap<Inode, File>,
    next: Inode,
    /// Last step so far.
    step: Step,
    syncs: u64,
    /// Faults that stand.
    pub(crate) faults: DiskFaults,
    /// Time that syncs took and that nobody has waited for yet, ns.
    owed_ns: u64,
    /// Virtual time at which the last sync ends, ns.
    settles_at: u64,
    /// Virtual time until which the present job works, ns, its syncs apart; 0 outside of jobs.
    job_ends: u64,
    /// Draw of the disk, so that disks differ.
    salt: u64,
}

/// Returns how long a sync takes, ns: from a fast disk's to a slow one's.
const fn sync_takes(salt: u64, nth: u64) -> u64 {
    let mixed = (salt ^ nth).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    200_000 + (mixed >> 32) % 4_000_000
}

impl DiskState {
    /// Returns an open file.
    ///
    /// # Errors
    /// When it was lost or wiped meanwhile.
    pub(crate) fn file(&mut self, inode: Inode) -> io::Result<&mut File> {
        self.files.get_mut(&inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Returns a disk without files.
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self { salt: rng.word(), ..Self::default() }
    }

    /// Opens a file, making it if it is not there.
    pub(crate) fn open(&mut self, name: &str) -> Inode {
        if let Some(inode) = self.names.get(name) {
            return *inode;
        }
        self.next += 1;
        self.step += 1;
        self.names.insert(name.to_owned(), self.next);
        self.files.insert(self.next, File { made: self.step, ..File::default() });
        self.next
    }

    /// Changes an open file; a power loss may undo that until the next sync.
    ///
    /// # Errors
    /// When the file was lost or wiped meanwhile, or there is no room.
    pub(crate) fn change(&mut self, inode: Inode, change: Change) -> io::Result<()> {
        let file = self.files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        if !matches!(change, Change::SetLen(len) if len <= file.len()) {
            self.faults.write()?;
        }
        self.step += 1;
        file.change(self.step, change);
        Ok(())
    }

    /// Replaces a whole file, durably.
    ///
    /// # Errors
    /// When there is no room, or the sync fails; then the file is the one that it was.
    pub(crate) fn write_atomic(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.faults.write()?;
        self.owed_ns += self.faults.sync()?;
        self.names.remove(name);
        let inode = self.open(name);
        self.files.insert(inode, File::whole(bytes.into()));
        self.syncs += 1;
        Ok(())
    }

    /// Makes a file's changes durable.
    ///
    /// # Errors
    /// When it was lost or wiped meanwhile, or a fault lets the sync fail.
    pub(crate) fn sync(&mut self, now: u64, inode: Inode) -> io::Result<()> {
        let mut takes_ns = self.faults.sync()?;
        if self.job_ends > 0 {
            takes_ns += sync_takes(self.salt, self.syncs);
        }
        self.settle(now);
        self.owed_ns += takes_ns;
        let before = self.settles_at.max(now);
        if self.job_ends > 0 {
            // It waits for a sync of another job that outlasts its own job.
            let waits_ns = before.saturating_sub(self.job_ends);
            self.owed_ns += waits_ns;
            self.job_ends += waits_ns;
        }
        // Somewhere in what is left of the job, whose end a sync puts off.
        let settles_at = before + self.job_ends.saturating_sub(before) / 2 + takes_ns;
        if self.job_ends > 0 {
            (self.settles_at, self.job_ends) = (settles_at, self.job_ends + takes_ns);
        }
        let at = if self.job_ends > 0 { settles_at } else { now };
        self.step += 1;
        let asked = self.step;
        self.file(inode)?.sync(asked, at);
        self.settle(now);
        self.syncs += 1;
        Ok(())
    }

    /// Removes a name, durably. What is open stays readable.
    pub(crate) fn remove(&mut self, name: &str) {
        self.names.remove(name);
    }

    /// Returns a file as it is now.
    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        Some(self.files.get(self.names.get(name)?)?.live.to_vec())
    }

    /// Begins a job that works until `ends`, its syncs apart.
    pub(crate) const fn begin_job(&mut self, ends: u64) {
        // What was synced outside of jobs made nobody wait.
        self.owed_ns = 0;
        self.job_ends = ends;
    }

    /// Ends the steps of a job and returns the time that its syncs took, ns.
    pub(crate) const fn end_job(&mut self) -> u64 {
        self.job_ends = 0;
        std::mem::replace(&mut self.owed_ns, 0)
    }

    fn settle(&mut self, now: u64) {
        for file in self.files.values_mut() {
            file.settle(now);
        }
    }

    /// Applies a power loss and returns how many changes were unsynced.
    pub(crate) fn lose_power(&mut self, now: u64, rng: &mut Rng) -> usize {
        self.settle(now);
        let unsynced = self.files.values().map(File::unsynced).sum();
        // The sync that was under way; what came after it did not happen.
        let first = self.files.values().filter_map(File::first_sync).min();
        let until = first.map_or(Step::MAX, |(_, asked)| asked);
        let names = std::mem::take(&mut self.names);
        let mut files = std::mem::take(&mut self.files);
        for (name, inode) in names {
            if let Some(mut file) = files.remove(&inode)
                && file.lose_power(until, rng, &mut self.faults)
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

    /// Returns what of the disk would survive a power loss now, file by file.
    pub(crate) fn image(&mut self, now: u64) -> DiskImage {
        self.settle(now);
        let durable = |inode: &Inode| self.files.get(inode).filter(|file| file.is_linked);
        let named = self.names.iter().filter_map(|(name, inode)| {
            durable(inode).map(|file| (name.clone(), file.durable.clone()))
        });
        DiskImage(named.collect())
    }

    /// Replaces all that is on the disk. The faults that stand go on.
    pub(crate) fn restore(&mut self, image: &DiskImage) {
        self.wipe();
        for (name, content) in &image.0 {
            let inode = self.open(name);
            self.files.insert(inode, File::whole(content.clone()));
        }
    }

    /// Empties the disk.
    pub(crate) fn wipe(&mut self) {
        self.names.clear();
        self.files.clear();
    }

    /// Fills `out` from an open file.
    ///
    /// # Errors
    /// When the file was lost or wiped meanwhile, or ends before that.
    pub(crate) fn read_at(&mut self, inode: Inode, from: usize, out: &mut [u8]) -> io::Result<()> {
        if !self.file(inode)?.live.read(from, out) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.faults.read(out);
        Ok(())
    }

    /// Returns how often something was made durable.
    pub(crate) const fn syncs(&self) -> u64 {
        self.syncs
    }
}
