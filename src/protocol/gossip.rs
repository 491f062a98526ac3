//! How two directories become one: each says its digest in turn, and who differs sends pages of
//! what it knows, to which the other answers what it knows better.
//!
//! ```text
//!   A ── digest ──► B    differs: B sends a page, and its next page at the next digest
//!   A ◄── members ── B   A takes them in and answers with its newer facts of the same nodes
//! ```
//!
//! The same on both ends of a link, whatever their roles. One value is one peer's.

use crate::model::{
    event::Event,
    ids::NodeId,
    message::{Direct, Fact, Member},
};

use super::registry::Registry;

/// Members in one message: a directory of a small cluster goes in one.
pub const PAGE_MEMBERS: usize = 64;

/// What is under way with one peer.
#[derive(Clone, Debug, Default)]
pub struct Gossip {
    /// The last node of the page sent last: the next page begins after it.
    page_end: Option<NodeId>,
}

impl Gossip {
    /// What to send every `digest_interval`.
    #[must_use]
    pub fn digest(registry: &Registry) -> Direct {
        Direct::Digest { digest: registry.digest() }
    }

    /// The peer's digest came: a page, if the directories differ.
    pub fn on_digest(&mut self, registry: &Registry, theirs: [u8; 16]) -> Option<Direct> {
        if registry.digest() == theirs {
            self.page_end = None;
            return None;
        }
        let page = registry.page(self.page_end, PAGE_MEMBERS);
        self.page_end = page.last().map(|member| member.fact.node);
        (!page.is_empty()).then_some(Direct::Members(page))
    }

    /// The peer's members came: what it ought to know better, if anything.
    #[must_use]
    pub fn corrections(registry: &Registry, theirs: &[Member]) -> Option<Direct> {
        let newer = registry.corrections(theirs);
        (!newer.is_empty()).then_some(Direct::Members(newer))
    }
}

/// The line that a node writes when it learns a newer fact of another.
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
    fn agreeing_directories_say_nothing_more() {
        let (a, b) = (registry(&[(1, 1)]), registry(&[(1, 1)]));
        assert_eq!(Gossip::default().on_digest(&a, b.digest()), None);
    }

    #[test]
    fn one_digest_and_its_answers_make_two_small_directories_one() {
        let (mut a, mut b) = (registry(&[(1, 3), (2, 1)]), registry(&[(1, 2), (2, 5), (3, 1)]));
        let page = Gossip::default().on_digest(&b, a.digest());
        let corrections = take_in(&mut a, page);
        assert_eq!(take_in(&mut b, corrections), None);
        assert_eq!(a.digest(), b.digest());
    }

    #[test]
    fn a_long_directory_goes_page_by_page() {
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
