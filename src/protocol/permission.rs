//! Permissions to write: the leases of resources, as their holder and as other masters see them.
//!
//! ```text
//!   Free ──ask──> Asking ──granted──> Mine ──released, lost, ran out──> Free
//!     ^             │held by another                                      ^
//!     └──ran out── Other <────────────────────────────────────────────────┘
//! ```
//!
//! 1. Each token that this table gives out is greater than every token before it.
//! 2. The term of a lease counts from *sending* the request, less a tenth: this clock may run
//!    slower than the store's. Safety never depends on that, only on the token.
//! 3. A lease that another master wants gives no new permission; it is released after the
//!    attempt in flight.

use std::time::Duration;

use crate::{
    model::{
        ids::{StoreEpoch, Token},
        rows::{Holder, Lease, Renewed},
        time::Mono,
    },
    protocol::task_queue::Slot,
};

/// Lease that this master holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Newest token given out, or else the lease's first.
    pub token: Token,
    /// End of the lease's use, by this node's clock.
    pub until: Mono,
    /// Time of the last use.
    pub used_at: Mono,
    /// Whether another master wants the lease.
    pub wanted: bool,
}

/// State of one resource's lease, as this master knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// No holder is known.
    Free {
        /// Earliest time to ask the store for the lease.
        ask_at: Mono,
    },
    /// A request for the lease is on its way to the store.
    Asking {
        /// Time of the request.
        since: Mono,
    },
    /// This master holds the lease.
    Mine(Held),
    /// Another master holds the lease.
    Other {
        /// Holder of the lease.
        holder: Holder,
        /// End of its term unless it renews, by this node's clock.
        until: Mono,
        /// Earliest time to ask again while the holder cannot be reached, or for another master.
        look_at: Mono,
    },
}

/// Leases known to one master, by slot.
#[derive(Debug)]
pub struct Permissions {
    ttl: Duration,
    leases: Vec<LeaseState>,
    /// Highest `n` given out in this life, for any resource: a lease that is granted again under
    /// its old number must not give out a token a second time.
    n: u64,
    /// Newest epoch of the store that this table was told of; 0 in the first one.
    epoch: StoreEpoch,
}

const FREE: LeaseState = LeaseState::Free { ask_at: Mono::ZERO };

impl Permissions {
    /// Creates a table without leases. `ttl` is the term that the store is asked for.
    #[must_use]
    pub const fn new(ttl: Duration) -> Self {
        Self { ttl, leases: Vec::new(), n: 0, epoch: StoreEpoch(0) }
    }

    /// Returns the state of a lease.
    #[must_use]
    pub fn state(&self, slot: Slot) -> LeaseState {
        self.leases.get(slot.index()).copied().unwrap_or(FREE)
    }

    fn state_mut(&mut self, slot: Slot) -> &mut LeaseState {
        if self.leases.len() <= slot.index() {
            self.leases.resize(slot.index() + 1, FREE);
        }
        &mut self.leases[slot.index()]
    }

    /// Returns the lease if this master holds it and its term runs.
    #[must_use]
    pub fn held(&self, now: Mono, slot: Slot) -> Option<Held> {
        match self.state(slot) {
            LeaseState::Mine(held) if now < held.until => Some(held),
            _ => None,
        }
    }

    /// Returns when the request was sent by which the store last confirmed a held lease.
    #[must_use]
    pub fn confirmed_at(&self, held: &Held) -> Mono {
        held.until - self.ttl * 9 / 10
    }

    /// Returns whether a new permission may be given: the lease is held, runs, and no other master
    /// wants it.
    #[must_use]
    pub fn usable(&self, now: Mono, slot: Slot) -> bool {
        self.held(now, slot).is_some_and(|held| !held.wanted)
    }

    /// Notes that the store was asked for the lease.
    pub fn on_asked(&mut self, now: Mono, slot: Slot) {
        *self.state_mut(slot) = LeaseState::Asking { since: now };
    }

    /// Takes the store's answer to a request sent at `sent_at`. Without an answer (`None`) the
    /// lease may be asked for again at `again_at`.
    pub fn on_answer(
        &mut self,
        now: Mono,
        slot: Slot,
        sent_at: Mono,
        answer: Option<Lease>,
        again_at: Mono,
    ) {
        let until = sent_at + self.ttl * 9 / 10;
        *self.state_mut(slot) = match answer {
            Some(Lease::Granted { epoch, lease, n }) => LeaseState::Mine(Held {
                token: Token { epoch, lease, n },
                until,
                used_at: now,
                wanted: false,
            }),
            Some(Lease::HeldBy { holder, left_ms }) => LeaseState::Other {
                holder,
                until: now + Duration::from_millis(left_ms),
                look_at: again_at,
            },
            None => LeaseState::Free { ask_at: again_at },
        };
    }

    /// Takes another master's word on who holds the lease; `None` if that master does not hold it.
    /// Changes nothing while this master holds the lease or asks for it.
    pub fn on_told(&mut self, slot: Slot, holder: Option<Holder>, until: Mono, look_at: Mono) {
        if matches!(self.state(slot), LeaseState::Mine(_) | LeaseState::Asking { .. }) {
            return;
        }
        *self.state_mut(slot) = match holder {
            Some(holder) => LeaseState::Other { holder, until, look_at },
            None => LeaseState::Free { ask_at: look_at },
        };
    }

    /// Takes the store's answer to a renewal sent at `sent_at`. Ignores it if the lease is another
    /// one by now.
    pub fn on_renewed(&mut self, slot: Slot, lease: u64, sent_at: Mono, answer: Renewed) {
        let until = sent_at + self.ttl * 9 / 10;
        let LeaseState::Mine(held) = self.state_mut(slot) else { return };
        if held.token.lease != lease {
            return;
        }
        match answer {
            Renewed::Kept => held.until = held.until.max(until),
            Renewed::Wanted => {
                held.until = held.until.max(until);
                held.wanted = true;
            }
            Renewed::Lost => *self.state_mut(slot) = FREE,
        }
    }

    /// Gives up a lease; it may be asked for again at `ask_at`.
    pub fn drop_lease(&mut self, slot: Slot, ask_at: Mono) {
        *self.state_mut(slot) = LeaseState::Free { ask_at };
    }

    /// Postpones the next request about another master's lease to `look_at`.
    pub fn look_again(&mut self, slot: Slot, look_at: Mono) {
        if let LeaseState::Other { look_at: at, .. } = self.state_mut(slot) {
            *at = look_at;
        }
    }

    /// Returns the next token of a lease that this master holds, for a new batch or for a batch
    /// that moves to another registration; `None` when it does not hold the lease.
    pub fn raise(&mut self, now: Mono, slot: Slot) -> Option<Token> {
        let given = self.n;
        let LeaseState::Mine(held) = self.state_mut(slot) else { return None };
        held.token.n = held.token.n.max(given) + 1;
        held.used_at = now;
        let token = held.token;
        self.n = token.n;
        Some(token)
    }

    /// Drops the leases of other store epochs than this one.
    pub fn on_epoch(&mut self, epoch: StoreEpoch) {
        self.epoch = epoch;
        for lease in &mut self.leases {
            if matches!(lease, LeaseState::Mine(held) if held.token.epoch != epoch) {
                *lease = FREE;
            }
        }
    }

    /// Returns whether the store of this epoch is known to have been replaced by another one.
    #[must_use]
    pub fn is_outdated(&self, epoch: StoreEpoch) -> bool {
        epoch < self.epoch
    }

    /// Clears a retired slot.
    pub fn forget(&mut self, slot: Slot) {
        *self.state_mut(slot) = FREE;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ids::{Incarnation, NodeId};

    const SLOT: Slot = Slot(3);
    const TTL: Duration = Duration::from_secs(3);

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    fn granted(lease: u64, n: u64) -> Option<Lease> {
        Some(Lease::Granted { epoch: StoreEpoch(1), lease, n })
    }

    #[test]
    fn term_counts_from_sending_less_a_tenth() {
        let mut table = Permissions::new(TTL);
        table.on_asked(at(0), SLOT);
        table.on_answer(at(400), SLOT, at(0), granted(1, 0), at(900));
        assert!(table.usable(at(2699), SLOT));
        assert!(!table.usable(at(2700), SLOT));
    }

    #[test]
    fn wanted_lease_gives_no_new_permission() {
        let mut table = Permissions::new(TTL);
        table.on_answer(at(0), SLOT, at(0), granted(1, 0), at(0));
        table.on_renewed(SLOT, 1, at(1000), Renewed::Wanted);
        assert!(table.held(at(1001), SLOT).is_some());
        assert!(!table.usable(at(1001), SLOT));
    }

    #[test]
    fn late_answer_about_an_older_lease_changes_nothing() {
        let mut table = Permissions::new(TTL);
        table.on_answer(at(0), SLOT, at(0), granted(7, 0), at(0));
        table.on_renewed(SLOT, 6, at(100), Renewed::Lost);
        assert!(table.usable(at(100), SLOT));
    }

    #[test]
    fn lease_held_here_survives_another_masters_claim() {
        let mut table = Permissions::new(TTL);
        table.on_answer(at(0), SLOT, at(0), granted(7, 0), at(0));
        let other = Holder { node: NodeId([9; 16]), incarnation: Incarnation(1) };
        table.on_told(SLOT, Some(other), at(5000), at(500));
        assert!(table.usable(at(100), SLOT));
    }

    proptest! {
        /// Invariant 1, over losing leases and taking them again, under the old number too.
        #[test]
        fn tokens_only_grow(moves in prop::collection::vec(0..5u8, 1..100)) {
            let mut table = Permissions::new(TTL);
            let (mut lease, mut now) = (0, 0);
            let mut last = Token::default();
            for kind in moves {
                now += 10;
                match kind {
                    0 => {
                        lease += 1;
                        table.on_answer(at(now), SLOT, at(now), granted(lease, 0), at(now));
                    }
                    1 => table.drop_lease(SLOT, at(now)),
                    4 => table.on_answer(at(now), SLOT, at(now), granted(lease, 0), at(now)),
                    2 => table.on_renewed(SLOT, lease, at(now), Renewed::Lost),
                    _ => if let Some(token) = table.raise(at(now), SLOT) {
                        prop_assert!(token > last);
                        last = token;
                    }
                }
            }
        }
    }
}
