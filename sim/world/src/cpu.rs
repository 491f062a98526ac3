//! Processor of a host: the time that jobs take, and the time that steps take, where they take any.
//!
//! 1. A processor whose steps take time makes one after another: while it is busy, no task of its host
//!    runs. Steps take the world's cost of a step, and longer while a processor is slow.
//! 2. Jobs run beside each other and beside the tasks; a slow processor makes them longer.
//! 3. A job that asks for more time takes it at the speed that the processor has at each moment.

use std::{
    cell::Cell,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

use dst_env::rng::Rng;

use crate::net::FaultId;

/// Least time that counts for a step where a processor is slow, ns.
const SLOW_STEP_NS: u64 = 10_000;
/// Time that a processor runs ahead before its tasks wait for it, ns.
const AHEAD_NS: u64 = 100_000;
/// Longest piece of the time that a job asked for which passes at one speed, ns. A processor that was
/// slow for a moment does not make the rest longer.
const PIECE_NS: u64 = 5_000_000;

thread_local! {
    /// Time that the job asked for which runs on this thread, ns; none where no job runs.
    static ASKED_NS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Makes the compute job that calls it take so much longer, at full speed: stands for work that a
/// simulation leaves out. The job's effect comes before that time, its result after it. Does nothing
/// outside of a job of a simulated host.
pub fn take_longer(by: Duration) {
    if let Some(asked) = ASKED_NS.get() {
        let by_ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        ASKED_NS.set(Some(asked.saturating_add(by_ns)));
    }
}

/// Runs a job, and returns its end and the time that it asked for, ns.
pub(crate) fn run(job: impl FnOnce()) -> (thread::Result<()>, u64) {
    ASKED_NS.set(Some(0));
    let end = catch_unwind(AssertUnwindSafe(job));
    (end, ASKED_NS.take().unwrap_or(0))
}

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

    /// Returns whether a fault makes it slower.
    pub(crate) fn is_slow(&self) -> bool {
        !self.slow.is_empty()
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

    /// Makes a step that takes so long at full speed, or returns the virtual time at which it can be
    /// asked for again.
    pub(crate) fn step(&mut self, now: u64, cost_ns: u64) -> Option<u64> {
        if self.slow.is_empty() && cost_ns == 0 {
            return None;
        }
        if now < self.free_at {
            return Some(self.free_at);
        }
        let cost_ns = if self.slow.is_empty() { cost_ns } else { cost_ns.max(SLOW_STEP_NS) };
        self.owed_ns += self.stretched(cost_ns);
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

    /// Takes the next piece off the time that a job asked for, and returns how long it takes at the
    /// present speed, ns.
    pub(crate) fn piece(&mut self, left_ns: &mut u64) -> u64 {
        let piece = (*left_ns).min(PIECE_NS);
        *left_ns -= piece;
        self.stretched(piece)
    }
}

#[cfg(test)]
mod tests {
    use dst_env::rng::Seed;

    use super::*;

    fn steps_in_a_second(cpu: &mut Cpu, cost_ns: u64) -> u64 {
        let (mut now, mut steps) = (0, 0);
        while now < 1_000_000_000 {
            match cpu.step(now, cost_ns) {
                None => steps += 1,
                Some(free_at) => now = free_at,
            }
        }
        steps
    }

    #[test]
    fn steps_that_cost_time_are_made_one_after_another() {
        let mut cpu = Cpu::new(Seed(1).stream("cpu"));
        let steps = steps_in_a_second(&mut cpu, 20_000);
        assert!((49_900..50_100).contains(&steps), "{steps} steps of 20 us in a second");
        cpu.slow_down(3, 2_000);
        let mut cpu_of_steps = |cost_ns| {
            cpu.free_at = 0;
            steps_in_a_second(&mut cpu, cost_ns)
        };
        let (dear, cheap) = (cpu_of_steps(20_000), cpu_of_steps(1_000));
        assert!((24_900..25_100).contains(&dear), "{dear} steps of 40 us in a second");
        assert!((49_900..50_100).contains(&cheap), "{cheap}: a slow step is no cheaper than usual");
    }

    #[test]
    fn slow_processor_makes_few_steps_and_long_jobs() {
        let mut cpu = Cpu::new(Seed(1).stream("cpu"));
        assert!((0..1000).all(|_| cpu.step(0, 0).is_none()), "steps cost nothing at full speed");
        cpu.slow_down(3, 20_000);
        let steps = steps_in_a_second(&mut cpu, 0);
        assert!((4_900..5_100).contains(&steps), "{steps} steps of 200 us in a second");
        let slow: u64 = (0..100).map(|_| cpu.job()).map(|(before, after)| before + after).sum();
        assert!(cpu.speed_up(3) > 0 && cpu.speed_up(3) == 0);
        let fast: u64 = (0..100).map(|_| cpu.job()).map(|(before, after)| before + after).sum();
        assert!(slow > 5 * fast, "{slow} {fast}");
    }

    #[test]
    fn job_asks_for_time_of_its_own_and_nothing_outside_of_a_job_does() {
        let second = Duration::from_secs(1);
        take_longer(second);
        let asked = |job: fn()| run(job).1;
        assert_eq!(asked(|| ()), 0, "what was asked for before it is not the job's");
        let twice = || {
            take_longer(Duration::from_secs(1));
            take_longer(Duration::from_secs(2));
        };
        assert_eq!(asked(twice), 3_000_000_000);
        let (end, asked_ns) = run(|| {
            take_longer(second);
            panic!("on purpose");
        });
        assert!(end.is_err() && asked_ns == 1_000_000_000, "{asked_ns}");
        assert_eq!(asked(|| ()), 0, "nor is that of another job");
    }

    #[test]
    fn time_that_a_job_asked_for_follows_the_speed_of_each_moment() {
        let mut cpu = Cpu::new(Seed(1).stream("cpu"));
        let mut left_ns = 12_000_000;
        cpu.slow_down(3, 20_000);
        assert_eq!((cpu.piece(&mut left_ns), left_ns), (100_000_000, 7_000_000));
        assert_eq!(cpu.speed_up(3), 1);
        assert_eq!((cpu.piece(&mut left_ns), left_ns), (5_000_000, 2_000_000));
        assert_eq!((cpu.piece(&mut left_ns), left_ns), (2_000_000, 0));
    }
}
