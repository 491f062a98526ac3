//! Limit, by address, on requests of sessions that this front end has not met: each may cost the store a
//! look-up, and tokens are easily made up.
//!
//! 1. A session that was found is met: its requests are not counted, whatever else comes from its address.
//! 2. A request of another session is counted until its session is found, or cannot be looked up. One whose
//!    session is not there stays counted.
//! 3. A request that is refused here costs the master nothing.

use std::{sync::Arc, time::Duration};

use super::{connection::PeerHost, rate::RateLimiter};
use crate::model::{bounds::UNMET_AT_ONCE, ids::SessionKey, recent::Recent, time::Mono};

/// Time for each further request of a session that was not found.
const INTERVAL: Duration = Duration::from_millis(100);

/// Sessions that were met, and the requests of others.
#[derive(Debug)]
pub(super) struct Unmet {
    /// Sessions that were found, the latest.
    met: Recent<SessionKey>,
    /// Sessions of these that have ended since.
    ended: Recent<SessionKey>,
    /// Requests of sessions that are not met, by address.
    requests: RateLimiter<Arc<str>>,
}

impl Unmet {
    /// Returns the limit for so many sessions and addresses; more are forgotten.
    pub(super) fn new(len_max: usize) -> Self {
        Self {
            met: Recent::new(len_max),
            ended: Recent::new(len_max),
            requests: RateLimiter::every(INTERVAL, UNMET_AT_ONCE, len_max),
        }
    }

    /// Counts a request if its session is not met. Returns whether it was counted.
    ///
    /// # Errors
    /// The wait before the next one, in milliseconds. Nothing was counted.
    pub(super) fn admit(
        &mut self,
        now: Mono,
        key: &SessionKey,
        from: &PeerHost,
    ) -> Result<bool, u64> {
        if self.met.contains(key) && !self.ended.contains(key) {
            return Ok(false);
        }
        self.requests.admit(now, Arc::clone(&from.0))?;
        Ok(true)
    }

    /// Takes a request back that was counted.
    pub(super) fn give_back(&mut self, from: &PeerHost) {
        self.requests.give_back(&from.0);
    }

    /// Notes that a session is there.
    pub(super) fn on_found(&mut self, key: SessionKey) {
        self.met.insert(key);
    }

    /// Notes that there is no such session, or none any more.
    pub(super) fn on_missing(&mut self, key: SessionKey) {
        // A key that was never met would only push others out.
        if self.met.contains(&key) {
            self.ended.insert(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: SessionKey = SessionKey([1; 32]);
    const EVE: SessionKey = SessionKey([2; 32]);

    fn here() -> PeerHost {
        PeerHost("10.0.0.1".into())
    }

    #[test]
    fn session_that_is_met_costs_nothing_until_it_ends() {
        let mut unmet = Unmet::new(8);
        assert_eq!(unmet.admit(Mono::ZERO, &ADA, &here()), Ok(true));
        unmet.on_found(ADA);
        unmet.give_back(&here());
        for _ in 0..UNMET_AT_ONCE {
            assert_eq!(unmet.admit(Mono::ZERO, &ADA, &here()), Ok(false));
            assert_eq!(unmet.admit(Mono::ZERO, &EVE, &here()), Ok(true));
            unmet.on_missing(EVE);
        }
        assert_eq!(unmet.admit(Mono::ZERO, &EVE, &here()), Err(100));
        assert_eq!(unmet.admit(Mono::ZERO, &ADA, &here()), Ok(false));
        unmet.on_missing(ADA);
        assert_eq!(unmet.admit(Mono::ZERO, &ADA, &here()), Err(100), "it has ended");
        let elsewhere = PeerHost("10.0.0.2".into());
        assert_eq!(unmet.admit(Mono::ZERO, &EVE, &elsewhere), Ok(true));
    }
}
