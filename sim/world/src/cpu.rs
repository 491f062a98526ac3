//! Processor of a host: the time that jobs take, and, while it is slow, the time that steps take.
//!
//! 1. A slow processor makes one step after another: while it is busy, no task of its host runs.
//! 2. Jobs run beside each other and beside the tasks; a slow processor makes them longer.

use std::collections::BTreeMap;

use dst_env::rng::Rng;

use crate::net::FaultId;

/// Time that a step takes at full speed, ns. It counts only where a processor is slow.
const STEP_NS: u64 = 10_000;
/// Time that a processor runs ahead before its tasks wait for it, ns.
const AHEAD_NS: u64 = 100_000;

/// Processor of one host.
#[derive(Debug)]
pub(crate) struct Cpu {
    rng: Rng,
    /// Faults that stand: by how much each makes it slower, in thousandths.
    slow: BTreeMap<FaultId, (u64, u64)>,
    /// Time of steps that nobody has waited for yet, ns.
    owed_ns: u64,
    /// Virtual time until which it is busy, ns.
    free_at: u64,
}

impl Cpu {
    /// Returns a processor at full speed.
    pub(crate) const fn new(rng: Rng) -> Self {
        Self { rng, slow: BTreeMap::new(), owed_ns: 0, free_at: 0 }
    }

    /// Makes it slower, so many thousandths of its time.
    pub(crate) fn slow_down(&mut self, fault: FaultId, thousandths: u64) {
        self.slow.insert(fault, (thousandths, 0));
    }

    /// Ends that and returns how many steps and jobs it made longer.
    pub(crate) fn speed_up(&mut self, fault: FaultId) -> u64 {
        self.slow.remove(&fault).map_or(0, |(_, touched)| touched)
    }

    /// Returns a span as it is at the present speed.
    fn stretched(&mut self, ns: u64) -> u64 {
        let mut ns = ns;
        for (thousandths, touched) in self.slow.values_mut() {
            ns = ns.saturating_mul(*thousandths) / 1000;
            *touched += 1;
        }
        ns
    }

    /// Makes a step, or returns the virtual time at which it can be asked for again.
    pub(crate) fn step(&mut self, now: u64) -> Option<u64> {
        if self.slow.is_empty() {
            return None;
        }
        if now < self.free_at {
            return Some(self.free_at);
        }
        self.owed_ns += self.stretched(STEP_NS);
        if self.owed_ns >= AHEAD_NS {
            self.free_at = now.saturating_add(std::mem::take(&mut self.owed_ns));
        }
        None
    }

    /// Returns how long a job waits and works before its effect, and how long after it, ns.
    pub(crate) fn job(&mut self) -> (u64, u64) {
        // A lookup, a transaction, an operation with an RSA key.
        let takes = match self.rng.below(8) {
            0..4 => self.rng.between(20_000, 120_000),
            4..7 => self.rng.between(100_000, 900_000),
            _ => self.rng.between(1_000_000, 8_000_000),
        };
        let before = self.rng.below(takes);
        (self.stretched(before), self.stretched(takes - before))
    }
}

#[cfg(test)]
mod tests {
    use dst_env::rng::Seed;

    use super::*;

    #[test]
    fn slow_processor_makes_few_steps_and_long_jobs() {
        let mut cpu = Cpu::new(Seed(1).stream("cpu"));
        assert!((0..1000).all(|_| cpu.step(0).is_none()), "steps cost nothing at full speed");
        cpu.slow_down(3, 20_000);
        let (mut now, mut steps) = (0, 0);
        while now < 1_000_000_000 {
            match cpu.step(now) {
                None => steps += 1,
                Some(free_at) => now = free_at,
            }
        }
        assert!((4_900..5_100).contains(&steps), "{steps} steps of 200 us in a second");
        let slow: u64 = (0..100).map(|_| cpu.job()).map(|(before, after)| before + after).sum();
        assert!(cpu.speed_up(3) > 0 && cpu.speed_up(3) == 0);
        let fast: u64 = (0..100).map(|_| cpu.job()).map(|(before, after)| before + after).sum();
        assert!(slow > 5 * fast, "{slow} {fast}");
    }
}
