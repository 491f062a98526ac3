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
//! Both ends of a link do the same, whatever their roles; a master takes in only what masters
//! send. A node keeps one [`Gossip`] per peer.
//!
//! A peer that differs although it was sent every page is sent them again once in
//! `REST_DIGESTS` digests, or when either directory changes: it may know nodes that this one
//! never heard of.

use crate::model::{
    event::Event,
    ids::NodeId,
    message::{Direct, Fact, Member},
};

use super::registry::Registry;

pub use crate::model::bounds::PAGE_MEMBERS;

/// Digests that pass before an unchanged directory is sent once more.
const REST_DIGESTS: u32 = 15;

/// State of the gossip with one peer.
#[derive(Clone, Debug, Default)]
pub struct Gossip {
    /// Last node of the last page sent; the next page begins after it.
    page_end: Option<NodeId>,
    /// Members that were sent since the two digests are what they are.
    sent: usize,
    /// Own digest and the peer's, when a page was last sent.
    digests: Option<([u8; 16], [u8; 16])>,
    /// Digests since the whole directory was sent.
    rested: u32,
}

impl Gossip {
    /// Returns the message to send every `digest_interval`.
    #[must_use]
    pub fn digest(registry: &Registry) -> Direct {
        Direct::Digest { digest: registry.digest() }
    }

    /// Answers the peer's digest with a page if the directories differ.
    pub fn on_digest(&mut self, registry: &Registry, theirs: [u8; 16]) -> Option<Direct> {
        let ours = registry.digest();
        if ours == theirs {
            *self = Self::default();
            return None;
        }
        if self.digests.replace((ours, theirs)) != Some((ours, theirs)) {
            (self.sent, self.rested) = (0, 0);
        }
        if self.sent >= registry.len() {
            self.rested += 1;
            if self.rested < REST_DIGESTS {
                return None;
            }
            (self.sent, self.rested) = (0, 0);
        }
        let page = registry.page(self.page_end, PAGE_MEMBERS);
        self.page_end = page.last().map(|member| member.fact.node);
        self.sent += page.len();
        (!page.is_empty()).then_some(Direct::Members(page))
    }

    /// Has the directory sent again without a rest: what the peer answered is to be heard again.
    pub const fn send_again(&mut self) {
        self.sent = 0;
        self.rested = 0;
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
    fn peer_that_keeps_differing_is_sent_the_directory_once_and_then_rarely() {
        let (a, mut b) = (registry(&[(1, 1), (2, 1)]), registry(&[(1, 1)]));
        let mut gossip = Gossip::default();
        let mut sent = |b: &Registry| gossip.on_digest(b, a.digest()).is_some();
        let told: Vec<bool> = (0..40).map(|_| sent(&b)).collect();
        let pages: Vec<_> = (0..40).filter(|nth| told[*nth]).collect();
        assert_eq!(pages, [0, 15, 30]);
        b.apply(Mono::ZERO, member(3, Role::Worker, 1, MemberState::In));
        assert!(sent(&b), "a change is told at once");
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
