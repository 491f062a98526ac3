//! Limit on log lines that others cause: one at a time, which says how many were left out.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::model::time::Mono;

/// Lines of one kind, told at most once per interval.
#[derive(Debug)]
pub struct Seldom {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    told_at: Option<Mono>,
    left_out: u64,
}

impl Seldom {
    /// Returns a limit of one line per interval.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::default() }
    }

    /// Returns how many lines were left out since the last one if another may be written, and
    /// counts this one as left out otherwise.
    #[must_use]
    pub fn left_out(&self, now: Mono) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.told_at.is_some_and(|at| now.since(at) < self.interval) {
            state.left_out += 1;
            return None;
        }
        state.told_at = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_told_once_per_interval_and_says_how_many_were_left_out() {
        let seldom = Seldom::new(Duration::from_secs(1));
        let at = |ms| Mono::ZERO + Duration::from_millis(ms);
        assert_eq!(seldom.left_out(at(0)), Some(0));
        assert_eq!(seldom.left_out(at(10)), None);
        assert_eq!(seldom.left_out(at(999)), None);
        assert_eq!(seldom.left_out(at(1000)), Some(2));
    }
}
