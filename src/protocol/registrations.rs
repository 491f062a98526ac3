//! A domain's own workers: who is registered here, over which link, under which number.
//!
//! 1. A worker has at most one registration here, a link at most one worker.
//! 2. A registration replaces only an older one of the same worker.
//! 3. At most `workers_max` workers.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::model::ids::{NodeId, Registration};

/// One registered worker. `L` names a link of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered<L> {
    /// Over which link it is reached.
    pub link: L,
    /// Under which number.
    pub registration: Registration,
}

/// Why a worker was not taken in. Nothing changed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RegisterError {
    /// The domain has as many workers as it may.
    #[error("the domain is full")]
    Full,
    /// Its number is not above the one that is registered.
    #[error("registration {registration} is not above {have}")]
    Stale {
        /// The number shown.
        registration: Registration,
        /// The number registered.
        have: Registration,
    },
}

/// The workers registered with this master.
#[derive(Clone, Debug)]
pub struct Registrations<L> {
    workers: BTreeMap<NodeId, Registered<L>>,
    links: BTreeMap<L, NodeId>,
    workers_max: usize,
}

impl<L: Copy + Ord> Registrations<L> {
    /// Nobody yet.
    #[must_use]
    pub const fn new(workers_max: usize) -> Self {
        Self { workers: BTreeMap::new(), links: BTreeMap::new(), workers_max }
    }

    /// Takes a worker in. An older registration of it is returned: close its link.
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

    /// A link ended, or is to be: who was registered over it, if still so.
    pub fn remove_link(&mut self, link: L) -> Option<(NodeId, Registration)> {
        let node = self.links.remove(&link)?;
        let gone = self.workers.remove(&node)?;
        Some((node, gone.registration))
    }

    /// Takes a worker out; its registration here, if it had one.
    pub fn remove(&mut self, node: &NodeId) -> Option<Registered<L>> {
        let gone = self.workers.remove(node)?;
        self.links.remove(&gone.link);
        Some(gone)
    }

    /// A worker's registration here.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<Registered<L>> {
        self.workers.get(node).copied()
    }

    /// Who is registered over a link.
    #[must_use]
    pub fn by_link(&self, link: L) -> Option<NodeId> {
        self.links.get(&link).copied()
    }

    /// All of them, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Registered<L>)> {
        self.workers.iter().map(|(node, registered)| (*node, *registered))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether there are none.
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
        fn a_roster_is_a_map_of_the_newest_registrations(steps in steps()) {
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
