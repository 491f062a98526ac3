//! Decisions about leases, which every backend takes alike.

use super::bounds::{KEPT_MS, WISH_STANDS_MS};
use crate::model::rows::{Holder, Lease, StoreError};

/// Term of a lease, as its row has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    /// Master that has the lease; `None` once it was released.
    pub(super) holder: Option<Holder>,
    pub(super) ttl_ms: u64,
    /// End of the term; after a release, end of the time reserved for the wisher.
    pub(super) ends_at_ms: u64,
    pub(super) wisher: Option<Holder>,
    pub(super) wished_at_ms: u64,
}

impl Term {
    /// Returns the end to which the row is to be cut: after the clock went back the end would lie
    /// further ahead than the term is long.
    pub(super) fn cut_end(&self, now_ms: u64) -> Option<u64> {
        let latest = now_ms.saturating_add(self.longest());
        (self.ends_at_ms > latest).then_some(latest)
    }

    /// Returns the answer to a master that asks for the lease; `None` if it is to be granted.
    pub(super) fn refuse(&self, asker: Holder, now_ms: u64) -> Result<Option<Lease>, StoreError> {
        let left_ms = self.ends_at_ms.saturating_sub(now_ms).min(self.longest());
        match (self.holder, self.wisher) {
            (Some(holder), _)
                if holder.node == asker.node && holder.incarnation > asker.incarnation =>
            {
                Err(StoreError::Stale)
            }
            (Some(holder), _) if holder.node != asker.node && left_ms > 0 => {
                Ok(Some(Lease::HeldBy { holder, left_ms }))
            }
            (None, Some(wisher)) if wisher.node != asker.node && left_ms > 0 => {
                Ok(Some(Lease::HeldBy { holder: wisher, left_ms }))
            }
            _ => Ok(None),
        }
    }

    /// Returns whether a wish of this master is to be noted.
    pub(super) fn takes_wish(&self, wisher: Holder, now_ms: u64) -> bool {
        // A free lease is acquired, not wished for.
        if self.holder.is_none_or(|holder| holder.node == wisher.node) {
            return false;
        }
        let stands = self.wisher.is_some()
            && self.wished_at_ms <= now_ms
            && now_ms - self.wished_at_ms <= WISH_STANDS_MS;
        !stands
    }

    fn longest(&self) -> u64 {
        if self.holder.is_some() { self.ttl_ms } else { KEPT_MS }
    }
}
