//! Gossip between the two ends of a link, which makes their directories equal.
//!
//! Each end sends its digest in turn. If the digests differ, the receiver sends a page of its
//! directory, and the other end answers with its newer facts of the same nodes.
//!
//! ```text
//!   A ── digest ──► B    differs: B sends a page, and its next page at the next digest
//!   A ◄── members ── B   A takes them in and answers with its newer facts of the same nodes
//! ```
//!
//! Both ends of a link do the same, whatever their roles. A node keeps one [`Gossip`] per peer.

use crate::model::{
    event::Event,
    ids::NodeId,
    message::{Direct, Fact, Member},
};

use super::registry::Registry;

/// Most members in one message: the directory of a small cluster fits into one.
pub const PAGE_MEMBERS: usize = 64;

/// State of the gossip with one peer.
#[derive(Clone, Debug, Default)]
pub struct Gossip {
    /// Last node of the last page sent; the next page begins after it.
    page_end: Option<NodeId>,
}

impl Gossip {
    /// Returns the message to send every `digest_interval`.
    #[must_use]
    pub fn digest(registry: &Registry) -> Direct {
        Direct::Digest { digest: registry.digest() }
    }

    /// Answers the peer's digest with a page if the directories differ.
    pub fn on_digest(&mut self, registry: &Registry, theirs: [u8; 16]) -> Option<Direct> {
        if registry.digest() == theirs {
            self.page_end = None;
            return None;
        }
        let page = registry.page(self.page_end, PAGE_MEMBERS);
        self.page_end = page.last().map(|member| member.fact.node);
        (!page.is_empty()).then_some(Direct::Members(page))
    }

    /// Answers the peer's members with newer facts of the same nodes, if there are any.
    #[must_use]
    pub fn corrections(registry: &Registry, theirs: &[Member]) -> Option<Direct> {
        let newer = registry.corrections(theirs);
        (!newer.is_empty()).then_some(Direct::Members(newer))
    }
}

/// Returns the event that a node writes when it learns a newer fact of another node.
#[must_use]
pub const fn announcement(fact: &Fact) -> Event {
    Event::Announce {
        node: fact.node,
        role: fact.role,
        registration: fact.registration,
        state: fact.state,
        master: fact.master,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{ids::Role, message::MemberState, time::Mono},
        protocol::registry::tests::member,
    };

    fn registry(facts: &[(u8, u64)]) -> Registry {
        let mut registry = Registry::new(1000);
        for (n, registration) in facts {
            let member = member(*n, Role::Worker, *registration, MemberState::In);
            registry.apply(Mono::ZERO, member);
        }
        registry
    }

    fn take_in(registry: &mut Registry, direct: Option<Direct>) -> Option<Direct> {
        let Some(Direct::Members(members)) = direct else { return None };
        let corrections = Gossip::corrections(registry, &members);
        for member in members {
            registry.apply(Mono::ZERO, member);
        }
        corrections
    }

    #[test]
    fn equal_directories_exchange_no_page() {
        let (a, b) = (registry(&[(1, 1)]), registry(&[(1, 1)]));
        assert_eq!(Gossip::default().on_digest(&a, b.digest()), None);
    }

    #[test]
    fn small_directories_are_equal_after_one_digest_and_its_answers() {
        let (mut a, mut b) = (registry(&[(1, 3), (2, 1)]), registry(&[(1, 2), (2, 5), (3, 1)]));
        let page = Gossip::default().on_digest(&b, a.digest());
        let corrections = take_in(&mut a, page);
        assert_eq!(take_in(&mut b, corrections), None);
        assert_eq!(a.digest(), b.digest());
    }

    #[test]
    fn long_directory_is_sent_page_by_page() {
        let full: Vec<_> = (0..200).map(|n| (n, 1)).collect();
        let (mut a, b) = (registry(&[]), registry(&full));
        let mut gossip = Gossip::default();
        for _ in 0..4 {
            let page = gossip.on_digest(&b, a.digest());
            take_in(&mut a, page);
        }
        assert_eq!(a.digest(), b.digest());
    }
}
