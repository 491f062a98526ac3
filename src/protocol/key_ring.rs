//! Key ring: the epochs of one domain's common key, as a member and as its master hold them.
//!
//! ```text
//!            install e+1            use e+1             10 s later
//!   e used ──────────────► e used ──────────► e+1 used ────────────► e+1 used
//!                          e+1 held           e held                 (e erased)
//! ```
//!
//! 1. At most two epochs are held, one of them used.
//! 2. Only a higher epoch is installed, and only when the highest epoch held is used; that
//!    removes the older of two.
//! 3. A second key for a held epoch changes nothing and is an alarm.
//! 4. A removed key is handed to the caller, who erases it; nothing keeps a copy.
//!
//! A ring belongs to one domain: a node that moves to another master begins a new ring. The
//! master counts the members that hold a new epoch with a [`Rollout`].

use std::{collections::BTreeSet, time::Duration};

use crate::model::{
    ids::{Domain, Fingerprint, KeyEpoch, NodeId},
    time::Mono,
};

/// Time for which the previous epoch is still held once a new one is used.
pub const OVERLAP: Duration = Duration::from_secs(10);
/// Longest time the master waits until all members hold a new epoch.
pub const INSTALL_WAIT: Duration = Duration::from_secs(2);

/// Result of installing a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Installed<K> {
    /// The key is held; if two were held, the older was removed.
    Held {
        /// Removed key, which the caller erases.
        removed: Option<(KeyEpoch, K)>,
    },
    /// The same key is held already; nothing changed.
    Known,
    /// The epoch is older than one that is used or held; nothing changed.
    Old,
    /// The highest epoch held is not used yet; nothing changed. Install again after its use.
    TooSoon,
    /// Another key is held for this epoch; nothing changed. It is forged, or the master is faulty.
    Alarm,
}

#[derive(Debug)]
struct Held<K> {
    epoch: KeyEpoch,
    fingerprint: Fingerprint,
    key: K,
}

/// Common keys of a domain at one node. `K` is the key of one epoch.
#[derive(Debug)]
pub struct KeyRing<K> {
    domain: Domain,
    used: Held<K>,
    next: Option<Held<K>>,
    /// Previous epoch, and the time of its removal.
    before: Option<(Held<K>, Mono)>,
}

impl<K> KeyRing<K> {
    /// Creates a ring that uses the epoch from the Welcome.
    #[must_use]
    pub const fn new(domain: Domain, epoch: KeyEpoch, fingerprint: Fingerprint, key: K) -> Self {
        Self { domain, used: Held { epoch, fingerprint, key }, next: None, before: None }
    }

    /// Returns the domain whose keys these are.
    #[must_use]
    pub const fn domain(&self) -> Domain {
        self.domain
    }

    /// Returns the epoch that is used.
    #[must_use]
    pub const fn epoch(&self) -> KeyEpoch {
        self.used.epoch
    }

    /// Returns the key that is used.
    #[must_use]
    pub const fn key(&self) -> &K {
        &self.used.key
    }

    fn held(&self) -> impl Iterator<Item = &Held<K>> {
        let before = self.before.as_ref().map(|(held, _)| held);
        std::iter::once(&self.used).chain(before).chain(&self.next)
    }

    /// Returns the key that opens envelopes of an epoch, if it is held.
    #[must_use]
    pub fn get(&self, epoch: KeyEpoch) -> Option<&K> {
        self.held().find(|held| held.epoch == epoch).map(|held| &held.key)
    }

    /// Installs the key of a new epoch. The caller has verified its signature.
    pub fn install(&mut self, epoch: KeyEpoch, fingerprint: Fingerprint, key: K) -> Installed<K> {
        if let Some(held) = self.held().find(|held| held.epoch == epoch) {
            let same = held.fingerprint == fingerprint;
            return if same { Installed::Known } else { Installed::Alarm };
        }
        if epoch < self.used.epoch {
            return Installed::Old;
        }
        if let Some(next) = &self.next {
            return if epoch > next.epoch { Installed::TooSoon } else { Installed::Old };
        }
        let removed = self.before.take().map(|(held, _)| (held.epoch, held.key));
        self.next = Some(Held { epoch, fingerprint, key });
        debug_assert!(self.held().count() <= 2, "invariant 1");
        Installed::Held { removed }
    }

    /// Begins to use an installed epoch; the previous one is removed after [`OVERLAP`]. Returns
    /// whether the epoch is used now: `false` when it is not held.
    pub fn use_epoch(&mut self, now: Mono, epoch: KeyEpoch) -> bool {
        if self.used.epoch == epoch {
            return true;
        }
        match self.next.take() {
            Some(next) if next.epoch == epoch => {
                let before = std::mem::replace(&mut self.used, next);
                self.before = Some((before, now + OVERLAP));
                true
            }
            other => {
                self.next = other;
                false
            }
        }
    }

    /// Removes and returns the previous epoch when its overlap is over. The caller erases it.
    pub fn expire(&mut self, now: Mono) -> Option<(KeyEpoch, K)> {
        let (held, _) = self.before.take_if(|(_, until)| now >= *until)?;
        Some((held.epoch, held.key))
    }

    /// Returns the time of the next [`KeyRing::expire`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.before.as_ref().map(|(_, until)| *until)
    }
}

/// Count of the members that do not yet hold the epoch which their master installs.
#[derive(Clone, Debug)]
pub struct Rollout {
    epoch: KeyEpoch,
    waiting: BTreeSet<NodeId>,
    until: Mono,
}

impl Rollout {
    /// Starts the count for these members, to which the key was sent.
    #[must_use]
    pub fn new(now: Mono, epoch: KeyEpoch, members: impl IntoIterator<Item = NodeId>) -> Self {
        Self { epoch, waiting: members.into_iter().collect(), until: now + INSTALL_WAIT }
    }

    /// Counts a member that holds the epoch. Ignores another epoch.
    pub fn on_held(&mut self, node: &NodeId, epoch: KeyEpoch) {
        if epoch == self.epoch {
            self.waiting.remove(node);
        }
    }

    /// Stops waiting for a member that is gone.
    pub fn on_gone(&mut self, node: &NodeId) {
        self.waiting.remove(node);
    }

    /// Returns the epoch to use, once all members hold it or the wait is over, and the members
    /// that do not hold it and must join again.
    #[must_use]
    pub fn ready(&self, now: Mono) -> Option<(KeyEpoch, Vec<NodeId>)> {
        let ready = self.waiting.is_empty() || now >= self.until;
        ready.then(|| (self.epoch, self.waiting.iter().copied().collect()))
    }

    /// Returns the time at which the wait is over.
    #[must_use]
    pub const fn next_deadline(&self) -> Mono {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ids::Incarnation;

    fn ring() -> KeyRing<u64> {
        let domain = Domain { master: NodeId([1; 16]), incarnation: Incarnation(1) };
        KeyRing::new(domain, KeyEpoch(1), print(1), 1)
    }

    fn print(n: u8) -> Fingerprint {
        Fingerprint([n; 32])
    }

    fn at(s: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(s)
    }

    #[test]
    fn new_epoch_is_installed_then_used_and_the_previous_removed() {
        let mut ring = ring();
        assert_eq!(ring.install(KeyEpoch(2), print(2), 2), Installed::Held { removed: None });
        assert_eq!((ring.epoch(), ring.get(KeyEpoch(2))), (KeyEpoch(1), Some(&2)));
        assert_eq!(ring.install(KeyEpoch(3), print(3), 3), Installed::TooSoon);
        assert!(!ring.use_epoch(at(0), KeyEpoch(3)));
        assert!(ring.use_epoch(at(0), KeyEpoch(2)));
        assert_eq!((ring.key(), ring.get(KeyEpoch(1))), (&2, Some(&1)));
        assert_eq!(ring.expire(at(9)), None);
        assert_eq!(ring.next_deadline(), Some(at(10)));
        assert_eq!(ring.expire(at(10)), Some((KeyEpoch(1), 1)));
        assert_eq!(ring.install(KeyEpoch(1), print(1), 1), Installed::Old);
    }

    #[test]
    fn install_during_the_overlap_removes_the_older_of_two() {
        let mut ring = ring();
        ring.install(KeyEpoch(2), print(2), 2);
        ring.use_epoch(at(0), KeyEpoch(2));
        let removed = Some((KeyEpoch(1), 1));
        assert_eq!(ring.install(KeyEpoch(5), print(5), 5), Installed::Held { removed });
        assert_eq!(ring.install(KeyEpoch(5), print(5), 5), Installed::Known);
        assert_eq!(ring.install(KeyEpoch(5), print(6), 6), Installed::Alarm);
        assert_eq!(ring.install(KeyEpoch(4), print(4), 4), Installed::Old);
    }

    #[test]
    fn rollout_waits_for_present_members_up_to_its_deadline() {
        let nodes = [NodeId([1; 16]), NodeId([2; 16]), NodeId([3; 16])];
        let mut rollout = Rollout::new(at(0), KeyEpoch(2), nodes);
        rollout.on_held(&nodes[0], KeyEpoch(2));
        rollout.on_held(&nodes[1], KeyEpoch(1));
        rollout.on_gone(&nodes[2]);
        assert_eq!(rollout.ready(at(1)), None);
        assert_eq!(rollout.ready(rollout.next_deadline()), Some((KeyEpoch(2), vec![nodes[1]])));
        rollout.on_held(&nodes[1], KeyEpoch(2));
        assert_eq!(rollout.ready(at(1)), Some((KeyEpoch(2), vec![])));
    }

    proptest! {
        #[test]
        fn epochs_only_grow_and_at_most_two_are_held(
            steps in proptest::collection::vec((0..8_u64, any::<bool>(), 0..6_u64), 0..60),
        ) {
            let mut ring = ring();
            let (mut now, mut used, mut erased) = (0, 1, BTreeSet::new());
            for (epoch, installs, pass) in steps {
                now += pass;
                erased.extend(ring.expire(at(now)).map(|(epoch, _)| epoch));
                let epoch = KeyEpoch(epoch);
                if installs {
                    let print = print(u8::try_from(epoch.0).expect("below 8"));
                    if let Installed::Held { removed } = ring.install(epoch, print, epoch.0) {
                        prop_assert!(!erased.contains(&epoch));
                        erased.extend(removed.map(|(epoch, _)| epoch));
                    }
                } else {
                    ring.use_epoch(at(now), epoch);
                }
                prop_assert!(ring.epoch().0 >= used);
                used = ring.epoch().0;
                prop_assert!(ring.held().count() <= 2);
                for epoch in &erased {
                    prop_assert_eq!(ring.get(*epoch), None);
                }
            }
        }
    }
}
