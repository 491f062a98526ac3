//! Registrations of a domain's workers: the link and the number of each.
//!
//! 1. A worker has at most one registration, and a link has at most one worker.
//! 2. A registration replaces only an older one of the same worker.
//! 3. At most `workers_max` workers are registered.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::model::ids::{NodeId, Registration};

/// Registration of one worker. `L` names a link of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered<L> {
    /// Link to the worker.
    pub link: L,
    /// Number of the registration.
    pub registration: Registration,
}

/// Refusal of a registration. Nothing changed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RegisterError {
    /// The domain has `workers_max` workers.
    #[error("the domain is full")]
    Full,
    /// The number is not above the one that is registered.
    #[error("registration {registration} is not above {have}")]
    Stale {
        /// Number refused.
        registration: Registration,
        /// Number registered.
        have: Registration,
    },
}

/// Workers registered with this master.
#[derive(Clone, Debug)]
pub struct Registrations<L> {
    workers: BTreeMap<NodeId, Registered<L>>,
    links: BTreeMap<L, NodeId>,
    workers_max: usize,
}

impl<L: Copy + Ord> Registrations<L> {
    /// Creates a table of at most `workers_max` workers, without any.
    #[must_use]
    pub const fn new(workers_max: usize) -> Self {
        Self { workers: BTreeMap::new(), links: BTreeMap::new(), workers_max }
    }

    /// Registers a worker. Returns its older registration, whose link the caller closes.
    ///
    /// # Errors
    /// [`RegisterError`]; nothing changed.
    pub fn register(
        &mut self,
        node: NodeId,
        link: L,
        registration: Registration,
    ) -> Result<Option<Registered<L>>, RegisterError> {
        let before = self.workers.get(&node).copied();
        match before {
            Some(Registered { registration: have, .. }) if have >= registration => {
                return Err(RegisterError::Stale { registration, have });
            }
            None if self.workers.len() >= self.workers_max => return Err(RegisterError::Full),
            _ => {}
        }
        if let Some(before) = before {
            self.links.remove(&before.link);
        }
        if let Some(displaced) = self.links.insert(link, node) {
            self.workers.remove(&displaced);
        }
        self.workers.insert(node, Registered { link, registration });
        debug_assert_eq!(self.workers.len(), self.links.len(), "invariant 1");
        Ok(before)
    }

    /// Removes the worker that is registered over a link, and returns it.
    pub fn remove_link(&mut self, link: L) -> Option<(NodeId, Registration)> {
        let node = self.links.remove(&link)?;
        let gone = self.workers.remove(&node)?;
        Some((node, gone.registration))
    }

    /// Removes a worker and returns its registration.
    pub fn remove(&mut self, node: &NodeId) -> Option<Registered<L>> {
        let gone = self.workers.remove(node)?;
        self.links.remove(&gone.link);
        Some(gone)
    }

    /// Returns a worker's registration.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<Registered<L>> {
        self.workers.get(node).copied()
    }

    /// Returns the worker that is registered over a link.
    #[must_use]
    pub fn by_link(&self, link: L) -> Option<NodeId> {
        self.links.get(&link).copied()
    }

    /// Iterates over the links of all workers, in the order of links.
    pub fn links(&self) -> impl Iterator<Item = L> {
        self.links.keys().copied()
    }

    /// Iterates over the workers with their registrations, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Registered<L>)> {
        self.workers.iter().map(|(node, registered)| (*node, *registered))
    }

    /// Returns the number of workers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Returns whether no worker is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Register(u8, u64),
        LinkEnds(u64),
        Remove(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..4_u8, 0..6_u64).prop_map(|(n, r)| Step::Register(n, r)),
            (0..40_u64).prop_map(Step::LinkEnds),
            (0..4_u8).prop_map(Step::Remove),
        ];
        proptest::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn table_behaves_like_a_map_of_the_newest_registrations(steps in steps()) {
            let mut registrations = Registrations::new(3);
            let mut model: BTreeMap<u8, (u64, u64)> = BTreeMap::new();
            for (link, step) in (0_u64..).zip(steps) {
                match step {
                    Step::Register(n, r) => {
                        let told = registrations.register(NodeId([n; 16]), link, Registration(r));
                        let have = model.get(&n).copied();
                        match have {
                            Some((_, have)) if have >= r => {
                                let have = Registration(have);
                                let registration = Registration(r);
                                prop_assert_eq!(told, Err(RegisterError::Stale { registration, have }));
                            }
                            None if model.len() == 3 => prop_assert_eq!(told, Err(RegisterError::Full)),
                            _ => {
                                let before = told.expect("room, and newer");
                                prop_assert_eq!(before.map(|b| b.link), have.map(|h| h.0));
                                model.insert(n, (link, r));
                            }
                        }
                    }
                    Step::LinkEnds(link) => {
                        let of = model.iter().find(|(_, (l, _))| *l == link).map(|(n, _)| *n);
                        let gone = registrations.remove_link(link);
                        prop_assert_eq!(gone.map(|(node, _)| node), of.map(|n| NodeId([n; 16])));
                        of.map(|n| model.remove(&n));
                    }
                    Step::Remove(n) => {
                        let gone = registrations.remove(&NodeId([n; 16]));
                        prop_assert_eq!(gone.map(|g| g.link), model.remove(&n).map(|m| m.0));
                    }
                }
                prop_assert_eq!(registrations.len(), model.len());
                for (n, (link, r)) in &model {
                    let want = Registered { link: *link, registration: Registration(*r) };
                    prop_assert_eq!(registrations.get(&NodeId([*n; 16])), Some(want));
                    prop_assert_eq!(registrations.by_link(*link), Some(NodeId([*n; 16])));
                }
            }
        }
    }
}
