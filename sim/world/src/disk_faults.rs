//! Faults of a disk: bits that flip, syncs that take long or fail, no room, and torn writes.
//!
//! 1. Each fault draws from a stream of its own, so that one moves no draw of another.
//! 2. A sync that fails has made nothing durable.

use std::io;

use dst_env::rng::Rng;

use crate::net::FaultId;

/// Effect of one fault on a host's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFault {
    /// Unsynced writes that the next power loss tears, of a million.
    pub torn_ppm: u64,
    /// Reads of open files that give a flipped bit, of a million.
    pub rot_ppm: u64,
    /// Time that each sync takes, ns.
    pub sync_takes_ns: u64,
    /// Syncs that fail, of a million.
    pub sync_error_ppm: u64,
    /// Every write that needs room fails.
    pub is_full: bool,
}

/// One fault on a disk.
#[derive(Debug)]
struct Layer {
    fault: FaultId,
    effect: DiskFault,
    rng: Rng,
    /// Operations that it touched.
    touched: u64,
}

impl Layer {
    fn is_hit(&mut self, ppm: u64) -> bool {
        let hit = ppm > 0 && self.rng.below(1_000_000) < ppm;
        self.touched += u64::from(hit);
        hit
    }
}

/// Faults that stand on one disk.
#[derive(Debug, Default)]
pub(crate) struct DiskFaults {
    standing: Vec<Layer>,
}

impl DiskFaults {
    /// Begins a fault.
    pub(crate) fn add(&mut self, fault: FaultId, effect: DiskFault, rng: Rng) {
        self.standing.push(Layer { fault, effect, rng, touched: 0 });
    }

    /// Ends a fault and returns how many operations it touched.
    pub(crate) fn remove(&mut self, fault: FaultId) -> u64 {
        let of = |layer: &&Layer| layer.fault == fault;
        let touched = self.standing.iter().filter(of).map(|layer| layer.touched).sum();
        self.standing.retain(|layer| layer.fault != fault);
        touched
    }

    /// Returns whether a fault that stands may refuse writes or syncs.
    pub(crate) fn may_refuse(&self) -> bool {
        self.standing.iter().any(|layer| layer.effect.is_full || layer.effect.sync_error_ppm > 0)
    }

    /// Flips a bit of what was read, if a fault says so.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) {
        for layer in &mut self.standing {
            if !bytes.is_empty() && layer.is_hit(layer.effect.rot_ppm) {
                let at = layer.rng.index(bytes.len());
                bytes[at] ^= 1 << layer.rng.below(8);
            }
        }
    }

    /// Checks that a write finds room.
    ///
    /// # Errors
    /// When the disk is full.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        match self.standing.iter_mut().find(|layer| layer.effect.is_full) {
            Some(layer) => {
                layer.touched += 1;
                Err(io::ErrorKind::StorageFull.into())
            }
            None => Ok(()),
        }
    }

    /// Returns how long a sync takes, ns.
    ///
    /// # Errors
    /// When a fault lets it fail.
    pub(crate) fn sync(&mut self) -> io::Result<u64> {
        let mut takes_ns = 0;
        for layer in &mut self.standing {
            if layer.is_hit(layer.effect.sync_error_ppm) {
                return Err(io::Error::other("the disk failed to sync"));
            }
            layer.touched += u64::from(layer.effect.sync_takes_ns > 0);
            takes_ns += layer.effect.sync_takes_ns;
        }
        Ok(takes_ns)
    }

    /// Returns whether a power loss tears this unsynced write.
    pub(crate) fn tears(&mut self) -> bool {
        self.standing.iter_mut().any(|layer| layer.is_hit(layer.effect.torn_ppm))
    }
}

#[cfg(test)]
mod tests {
    use dst_env::rng::Seed;

    use super::*;

    fn with(effect: DiskFault) -> DiskFaults {
        let mut faults = DiskFaults::default();
        faults.add(4, effect, Seed(1).stream("disk"));
        faults
    }

    #[test]
    fn rot_flips_one_bit_of_some_reads() {
        let mut faults = with(DiskFault { rot_ppm: 250_000, ..DiskFault::default() });
        let mut flipped = 0;
        for _ in 0..400 {
            let mut bytes = [0; 64];
            faults.read(&mut bytes);
            let bits: u32 = bytes.iter().map(|byte: &u8| byte.count_ones()).sum();
            assert!(bits <= 1);
            flipped += u64::from(bits);
        }
        assert!((50..150).contains(&flipped), "{flipped}");
        assert_eq!((faults.remove(3), faults.remove(4), faults.remove(4)), (0, flipped, 0));
    }

    #[test]
    fn full_disk_refuses_writes_and_syncs_take_long_or_fail() {
        let mut full = with(DiskFault { is_full: true, ..DiskFault::default() });
        assert_eq!(full.write().map_err(|e| e.kind()), Err(io::ErrorKind::StorageFull));
        assert_eq!((full.sync().expect("it syncs"), full.remove(4)), (0, 1));
        assert!(full.write().is_ok());
        let mut slow = with(DiskFault { sync_takes_ns: 7, ..DiskFault::default() });
        assert_eq!((slow.sync().expect("slowly"), slow.remove(4)), (7, 1));
        let mut failing = with(DiskFault { sync_error_ppm: 1_000_000, ..DiskFault::default() });
        assert!(failing.sync().is_err() && failing.write().is_ok());
    }
}
