//! Clocks of a host: an offset, a drift and jumps away from virtual time.
//!
//! 1. The monotonic clock never goes backwards, whatever is done to it.
//! 2. Both clocks run at the same rate, `1 + drift`.

use dst_env::{
    rng::Rng,
    time::{Mono, Wall},
};

const SECOND_NS: i64 = 1_000_000_000;
/// 2026-01-01T00:00:00Z, where every run's virtual time begins.
const START_WALL_MS: u64 = 1_767_225_600_000;

/// Monotonic and wall clock of one host.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// Virtual time at which the two below were read.
    base_ns: u64,
    mono_ns: u64,
    wall_ns: i128,
    /// Parts per billion by which it runs too fast.
    drift_ppb: i64,
}

impl Clock {
    /// Draws a clock as machines have it: up to 100 ms off, drifting by up to 50 parts per million.
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let signed = |rng: &mut Rng, most: i64| {
            i64::try_from(rng.below(2 * most.unsigned_abs() + 1)).expect("small") - most
        };
        Self {
            base_ns: 0,
            mono_ns: rng.below(86_400) * 1_000_000_000,
            wall_ns: i128::from(START_WALL_MS) * 1_000_000 + i128::from(signed(rng, 100_000_000)),
            drift_ppb: signed(rng, 50_000),
        }
    }

    fn elapsed(&self, now: u64) -> u64 {
        let real = now.saturating_sub(self.base_ns);
        // A node reads its clock often, and divisions of 128 bits are slow.
        let gained = i64::try_from(real).ok().and_then(|real| real.checked_mul(self.drift_ppb));
        if let Some(gained) = gained {
            return real.saturating_add_signed(gained.div_euclid(SECOND_NS));
        }
        let rate = i128::from(SECOND_NS + self.drift_ppb);
        let elapsed = i128::from(real) * rate / i128::from(SECOND_NS);
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }

    /// Returns the monotonic clock at virtual time `now`.
    pub(crate) fn mono(&self, now: u64) -> Mono {
        Mono::from_ns(self.mono_ns.saturating_add(self.elapsed(now)))
    }

    /// Returns the wall clock at virtual time `now`, read so many ns later.
    pub(crate) fn wall(&self, now: u64, later_ns: u64) -> Wall {
        let ns = self.wall_ns + i128::from(self.elapsed(now)) + i128::from(later_ns);
        let ns = ns.max(0);
        let ms = match u64::try_from(ns) {
            Ok(ns) => ns / 1_000_000,
            Err(_) => u64::try_from(ns / 1_000_000).unwrap_or(u64::MAX),
        };
        Wall { ms }
    }

    /// Returns the virtual time, ns, at which the monotonic clock has reached `at`, at the present drift.
    pub(crate) fn reaches(&self, at: Mono) -> u64 {
        let ahead = i128::from(at.as_ns().saturating_sub(self.mono_ns));
        let rate = i128::from(SECOND_NS + self.drift_ppb);
        let real = (ahead * i128::from(SECOND_NS) + rate - 1) / rate;
        self.base_ns.saturating_add(u64::try_from(real).unwrap_or(u64::MAX))
    }

    fn rebase(&mut self, now: u64) {
        let elapsed = i128::from(self.elapsed(now));
        (self.mono_ns, self.wall_ns) = (self.mono(now).as_ns(), self.wall_ns + elapsed);
        self.base_ns = now;
    }

    /// Runs at `1 + ppb / 10^9` from now on. Beyond ±90 % it is held there.
    pub(crate) fn set_drift(&mut self, now: u64, ppb: i64) {
        self.rebase(now);
        self.drift_ppb = ppb.clamp(-900_000_000, 900_000_000);
    }

    /// Steps both clocks by `by_ns`; the monotonic one only forwards.
    pub(crate) fn jump(&mut self, now: u64, by_ns: i64) {
        self.rebase(now);
        self.wall_ns += i128::from(by_ns);
        self.mono_ns = self.mono_ns.saturating_add(u64::try_from(by_ns).unwrap_or(0));
    }

    /// Steps the wall clock alone by `by_ns`.
    pub(crate) fn step_wall(&mut self, by_ns: i64) {
        self.wall_ns += i128::from(by_ns);
    }

    /// Restarts the monotonic clock after a power loss; the wall clock went on.
    pub(crate) fn reboot(&mut self, now: u64, rng: &mut Rng) {
        self.rebase(now);
        self.mono_ns = rng.between(1, 30) * 1_000_000_000;
    }
}

#[cfg(test)]
mod tests {
    use dst_env::rng::Seed;

    use super::*;

    const S: u64 = 1_000_000_000;

    fn clock() -> Clock {
        Clock { base_ns: 0, mono_ns: 5 * S, wall_ns: 0, drift_ppb: 0 }
    }

    #[test]
    fn fast_clock_reaches_a_point_early() {
        let mut clock = clock();
        clock.set_drift(S, 500_000_000);
        assert_eq!(clock.mono(3 * S).as_ns(), 5 * S + S + 3 * S);
        let at = Mono::from_ns(12 * S);
        let reached = clock.reaches(at);
        assert!(clock.mono(reached) >= at && clock.mono(reached - 2) < at);
        assert_eq!(reached, 5 * S);
    }

    #[test]
    fn jump_back_moves_the_wall_clock_alone() {
        let mut clock = clock();
        clock.step_wall(60_000_000_000);
        let before = (clock.mono(S), clock.wall(S, 0));
        clock.jump(S, -10_000_000_000);
        assert_eq!(clock.mono(S), before.0);
        assert_eq!(clock.wall(S, 0).ms + 10_000, before.1.ms);
        clock.jump(S, 1_000_000_000);
        assert_eq!(clock.mono(S).since(before.0).as_secs(), 1);
    }

    #[test]
    fn hosts_have_different_clocks() {
        let of = |name| Clock::new(&mut Seed(3).stream(name)).wall(0, 0).ms;
        assert_ne!(of("a"), of("b"));
        assert!(of("a").abs_diff(START_WALL_MS) <= 100);
    }
}
