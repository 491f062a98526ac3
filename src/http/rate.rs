//! Rate limiter by session or address: a token bucket for each, kept as one point in time (GCRA).
//!
//! 1. A client that keeps to the rate is never refused.
//! 2. The table holds `sessions_cached_max` at most. When it is full, the client that spent the
//!    least is forgotten, and has its whole burst again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::model::time::Mono;

/// Rate limiter with a bound on its size.
#[derive(Debug)]
pub(super) struct RateLimiter<K> {
    /// Time that one request costs.
    interval: Duration,
    /// Time that may be spent ahead: the burst.
    window: Duration,
    len_max: usize,
    /// Time up to which each key has spent its share.
    spent: BTreeMap<K, Mono>,
    /// The same, in the order in which they are at rest.
    by_rest: BTreeSet<(Mono, K)>,
}

impl<K: Ord + Clone> RateLimiter<K> {
    /// Returns a limiter of `per_s` requests a second and `burst` at once, for each of at most
    /// `len_max` keys.
    pub(super) fn new(per_s: u32, burst: u32, len_max: usize) -> Self {
        Self::every(Duration::from_secs(1) / per_s.max(1), burst, len_max)
    }

    /// Returns a limiter of one request in each interval and `burst` at once, for each of at most
    /// `len_max` keys.
    pub(super) fn every(interval: Duration, burst: u32, len_max: usize) -> Self {
        Self {
            interval,
            window: interval * burst.saturating_sub(1),
            len_max,
            spent: BTreeMap::new(),
            by_rest: BTreeSet::new(),
        }
    }

    /// Counts one request of a key.
    ///
    /// # Errors
    /// The wait before the next request, in milliseconds. Nothing was counted.
    pub(super) fn admit(&mut self, now: Mono, key: K) -> Result<(), u64> {
        self.check(now, &key)?;
        let known = self.spent.get(&key).copied();
        if let Some(known) = known {
            self.by_rest.remove(&(known, key.clone()));
        } else if self.spent.len() >= self.len_max.max(1)
            && let Some((_, least)) = self.by_rest.pop_first()
        {
            self.spent.remove(&least);
        }
        let spent = known.unwrap_or(now).max(now) + self.interval;
        self.by_rest.insert((spent, key.clone()));
        self.spent.insert(key, spent);
        Ok(())
    }

    /// Checks whether a request of a key would be counted, and counts nothing.
    ///
    /// # Errors
    /// The wait before the next request, in milliseconds.
    pub(super) fn check(&self, now: Mono, key: &K) -> Result<(), u64> {
        let ahead = self.spent.get(key).map_or(Duration::ZERO, |spent| spent.since(now));
        if ahead > self.window { Err(ms_up(ahead - self.window)) } else { Ok(()) }
    }

    /// Takes a request of a key back that was counted.
    pub(super) fn give_back(&mut self, key: &K) {
        if let Some(spent) = self.spent.get_mut(key) {
            self.by_rest.remove(&(*spent, key.clone()));
            *spent = *spent - self.interval;
            self.by_rest.insert((*spent, key.clone()));
        }
    }

    /// Forgets a key that is of no client.
    pub(super) fn forget(&mut self, key: &K) {
        if let Some(spent) = self.spent.remove(key) {
            self.by_rest.remove(&(spent, key.clone()));
        }
    }
}

fn ms_up(by: Duration) -> u64 {
    u64::try_from(by.as_micros().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::SessionKey;

    fn limiter(len_max: usize) -> RateLimiter<SessionKey> {
        RateLimiter::new(10, 3, len_max)
    }

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn burst_passes_then_the_rate_holds() {
        let mut limiter = limiter(8);
        let key = SessionKey([1; 32]);
        for _ in 0..3 {
            assert_eq!(limiter.admit(at(0), key), Ok(()));
        }
        assert_eq!(limiter.admit(at(0), key), Err(100));
        assert_eq!(limiter.admit(at(99), key), Err(1));
        assert_eq!(limiter.admit(at(100), key), Ok(()));
        assert_eq!(limiter.admit(at(0), SessionKey([2; 32])), Ok(()), "others are not held back");
    }

    #[test]
    fn request_that_is_taken_back_costs_nothing() {
        let mut limiter = limiter(8);
        let key = SessionKey([1; 32]);
        for _ in 0..3 {
            assert_eq!(limiter.check(at(0), &key), Ok(()));
            assert_eq!(limiter.admit(at(0), key), Ok(()));
        }
        assert_eq!(limiter.check(at(0), &key), Err(100));
        limiter.give_back(&key);
        assert_eq!((limiter.spent.len(), limiter.by_rest.len()), (1, 1));
        assert_eq!(limiter.admit(at(0), key), Ok(()));
        assert_eq!(limiter.admit(at(0), key), Err(100));
        limiter.give_back(&SessionKey([2; 32]));
        assert_eq!((limiter.spent.len(), limiter.by_rest.len()), (1, 1), "nothing to take back");
    }

    #[test]
    fn client_at_the_rate_is_never_refused() {
        let mut limiter = limiter(8);
        for nth in 0..1000 {
            assert_eq!(limiter.admit(at(nth * 100), SessionKey([1; 32])), Ok(()));
        }
    }

    #[test]
    fn full_table_forgets_the_client_that_spent_the_least_and_refuses_nobody_within_the_rate() {
        let mut limiter = limiter(2);
        let key = |n| SessionKey([n; 32]);
        for _ in 0..3 {
            assert_eq!(limiter.admit(at(0), key(1)), Ok(()));
        }
        for n in 2..100 {
            assert_eq!(limiter.admit(at(0), key(n)), Ok(()));
            assert_eq!((limiter.spent.len(), limiter.by_rest.len()), (2, 2));
        }
        assert_eq!(limiter.admit(at(0), key(1)), Err(100), "the busiest is still known");
        limiter.forget(&key(1));
        assert_eq!((limiter.spent.len(), limiter.by_rest.len()), (1, 1));
        assert_eq!(limiter.admit(at(0), key(1)), Ok(()));
    }
}
