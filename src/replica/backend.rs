//! Adapter from the node's disk to redb's storage, which checks each block that it reads.
//!
//! redb compares its own checksums only when it checks a whole file; a bit that flipped in between
//! would be shown, or make redb panic. In the file each block of 4,096 bytes stands behind a
//! CRC-32 over its number and its bytes.
//!
//! 1. A block that was never written is all zeros, its check too.
//! 2. The first block has no check: redb's header is written in place, and holds checksums of its
//!    own against a torn write.
//! 3. A block that was being written in a crash may not fit its check. redb then goes back to its
//!    last commit, by its own checksums and without these. The check stands first, so that a write
//!    that was cut off seldom leaves a whole block behind a wrong check; where one does, the
//!    database is filled anew.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::StorageBackend;

use crate::env::DiskFile;

/// Size of a block without its check, bytes.
const BLOCK: usize = 4096;
/// Size of a block's check, bytes.
const SUM: usize = size_of::<u32>();
/// Distance of two blocks in the file, bytes.
const STRIDE: usize = SUM + BLOCK;
/// Number of blocks at the front without a check.
const UNCHECKED: u64 = 1;

/// Whether blocks are checked when they are read, shared with the backend. At first they are not.
#[derive(Clone, Debug, Default)]
pub(super) struct Checks(Arc<AtomicBool>);

impl Checks {
    pub(super) fn start(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn are_made(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// File of the node's disk. It takes no locks: a node's directory is used by that node alone.
#[derive(Debug)]
pub(super) struct Backend {
    file: Box<dyn DiskFile>,
    checks: Checks,
}

impl Backend {
    pub(super) fn new(file: Box<dyn DiskFile>, checks: Checks) -> Self {
        Self { file, checks }
    }

    /// Reads whole blocks with their checks, from one number up to before another.
    fn blocks(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let mut blocks = vec![0; usize::try_from(to - from).map_err(too_long)? * STRIDE];
        self.file.read_at(place(from)?, &mut blocks)?;
        if self.checks.are_made() {
            for (number, block) in (from..to).zip(blocks.chunks_exact(STRIDE)) {
                let (sum, bytes) = block.split_at(SUM);
                let fits = sum == check(number, bytes) || block.iter().all(|byte| *byte == 0);
                if number >= UNCHECKED && !fits {
                    let why = format!("block {number} of the node database does not fit its check");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
            }
        }
        Ok(blocks)
    }
}

/// Returns the check of a block, as it stands in the file.
fn check(number: u64, bytes: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&number.to_le_bytes());
    crc.update(bytes);
    crc.finalize().to_le_bytes()
}

/// Returns where a block begins in the file.
fn place(number: u64) -> io::Result<u64> {
    number.checked_mul(STRIDE as u64).ok_or_else(|| too_long(()))
}

/// Returns the numbers of the blocks that hold a span of bytes, the second excluded, and where in
/// the first the span begins.
fn span(offset: u64, len: usize) -> io::Result<(u64, u64, usize)> {
    let end = offset.checked_add(len as u64).ok_or_else(|| too_long(()))?;
    let (first, within) = (offset / BLOCK as u64, offset % BLOCK as u64);
    Ok((first, end.div_ceil(BLOCK as u64).max(first), within as usize))
}

fn too_long<E>(_: E) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a place beyond the end of any file")
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.len()? / STRIDE as u64 * BLOCK as u64)
    }

    fn read(&self, offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let (from, to, mut within) = span(offset, out.len())?;
        for block in self.blocks(from, to)?.chunks_exact(STRIDE) {
            let bytes = &block[SUM + within..];
            let (now, later) = out.split_at_mut(bytes.len().min(out.len()));
            now.copy_from_slice(&bytes[..now.len()]);
            (out, within) = (later, 0);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(BLOCK as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a length in whole blocks"));
        }
        self.file.set_len(place(len / BLOCK as u64)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn write(&self, offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        let (from, to, mut within) = span(offset, bytes.len())?;
        let whole = within == 0 && bytes.len().is_multiple_of(BLOCK);
        let mut blocks =
            if whole { vec![0; bytes.len() / BLOCK * STRIDE] } else { self.blocks(from, to)? };
        for (number, block) in (from..to).zip(blocks.chunks_exact_mut(STRIDE)) {
            let (sum, into) = block.split_at_mut(SUM);
            let (now, later) = bytes.split_at((BLOCK - within).min(bytes.len()));
            into[within..within + now.len()].copy_from_slice(now);
            sum.copy_from_slice(&check(number, into));
            (bytes, within) = (later, 0);
        }
        self.file.write_at(place(from)?, &blocks)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{env::Disk, testing::memory_disk::MemDisk};

    const BLOCKS: usize = 6;
    const LEN: usize = BLOCKS * BLOCK;

    fn backend(disk: &MemDisk) -> Backend {
        let checks = Checks::default();
        checks.start();
        Backend::new(disk.open("file").expect("opens"), checks)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn file_reads_as_it_was_written_and_a_flipped_bit_is_an_error(
            writes in proptest::collection::vec((0..LEN, 1..3 * BLOCK, any::<u8>()), 0..8),
            reads in proptest::collection::vec((0..LEN, 0..3 * BLOCK), 1..8),
            flipped in (STRIDE..BLOCKS * STRIDE, 0..8),
        ) {
            let disk = MemDisk::default();
            let file = backend(&disk);
            file.set_len(LEN as u64).expect("grows");
            let mut model = vec![0; LEN];
            for (at, len, byte) in writes {
                let len = len.min(LEN - at);
                file.write(at as u64, &vec![byte; len]).expect("written");
                model[at..at + len].fill(byte);
            }
            prop_assert_eq!(file.len().expect("known"), LEN as u64);
            for (at, len) in reads {
                let mut read = vec![7; len.min(LEN - at)];
                file.read(at as u64, &mut read).expect("read");
                prop_assert_eq!(&read[..], &model[at..at + read.len()]);
            }
            let (at, bit) = flipped;
            disk.file().live[at] ^= 1_u8 << bit;
            let mut read = vec![0; BLOCK];
            let refused = file.read((at / STRIDE * BLOCK) as u64, &mut read).expect_err("noticed");
            prop_assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn block_in_the_place_of_another_is_an_error() {
        let disk = MemDisk::default();
        let file = backend(&disk);
        file.set_len(LEN as u64).expect("grows");
        file.write(BLOCK as u64, &[7; BLOCK]).expect("written");
        disk.file().live.copy_within(STRIDE..2 * STRIDE, 2 * STRIDE);
        file.read(BLOCK as u64, &mut [0; 9]).expect("it is where it belongs");
        file.read(2 * BLOCK as u64, &mut [0; 9]).expect_err("it is not");
        file.read(LEN as u64 - 3, &mut [0; 9]).expect_err("beyond the end");
    }
}
