//! Watch over the store's clock by a monotonic one of this node.
//!
//! 1. A reading lies somewhere between its question and its answer, so a slow store, a pause of
//!    this node or of the store never looks like a jump.
//! 2. The first reading has nothing to be compared with and is no jump.
//! 3. The node's clock has to go on while its host sleeps (`Env::continuous_now`): of one that stands
//!    still then, each sleep looks like a jump of the store's.

use std::time::Duration;

use crate::model::time::Mono;

/// Difference between the two clocks above which the store's has jumped.
const JUMP: Duration = Duration::from_secs(5);

/// Last reading of the store's clock.
#[derive(Clone, Copy, Debug)]
struct Reading {
    asked_at: Mono,
    answered_at: Mono,
    store_ms: u64,
}

/// Watch over the store's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreClock {
    last: Option<Reading>,
}

impl StoreClock {
    /// Takes a reading that was asked for and answered at these times. Returns whether the store's
    /// clock jumped since the last one.
    pub fn on_read(&mut self, asked_at: Mono, answered_at: Mono, store_ms: u64) -> bool {
        let Some(last) = self.last.replace(Reading { asked_at, answered_at, store_ms }) else {
            return false;
        };
        let passed = Duration::from_millis(store_ms.saturating_sub(last.store_ms));
        let least = asked_at.since(last.answered_at);
        let most = answered_at.since(last.asked_at);
        store_ms < last.store_ms && Duration::from_millis(last.store_ms - store_ms) > JUMP
            || passed + JUMP < least
            || passed > most + JUMP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks at `asked` and hears `store_ms` at `answered`, both in seconds.
    fn reads(rows: &[(u64, u64, u64)]) -> Vec<bool> {
        let mut clock = StoreClock::default();
        let at = |s: &u64| Mono::ZERO + Duration::from_secs(*s);
        rows.iter()
            .map(|(asked, answered, s)| clock.on_read(at(asked), at(answered), s * 1000))
            .collect()
    }

    #[test]
    fn pause_of_either_side_is_no_jump() {
        // Asked before a pause of a minute and answered behind it, read at either end of it.
        assert_eq!(reads(&[(0, 0, 100), (10, 70, 110), (80, 80, 180)]), [false; 3]);
        assert_eq!(reads(&[(0, 0, 100), (10, 70, 170), (80, 80, 180)]), [false; 3]);
        assert_eq!(reads(&[(0, 0, 100), (9000, 9000, 9100)]), [false; 2], "a long silence");
    }

    #[test]
    fn step_of_the_clock_in_either_direction_is_a_jump_once() {
        assert_eq!(reads(&[(0, 0, 100), (10, 10, 116), (20, 20, 126)]), [false, true, false]);
        assert_eq!(reads(&[(0, 0, 100), (10, 10, 104), (20, 20, 114)]), [false, true, false]);
        assert_eq!(reads(&[(0, 0, 100), (1, 1, 90)]), [false, true]);
        assert_eq!(reads(&[(0, 0, 100), (10, 10, 114)]), [false, false], "within the allowance");
    }
}
