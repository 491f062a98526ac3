//! Registry: the directory of all nodes, with the newest membership fact of each.
//!
//! ```text
//!   (1, in) < (1, failed) < (1, left) < (2, in) < ..      facts of one node; the highest wins
//! ```
//!
//! Facts about workers spread from node to node and merge in any order to the same directory.
//! Facts about masters name the newest life known and whether it left; whether a master that did
//! not leave is *out* is each reader's own judgement, see
//! [`MasterWatch`](super::master_watch::MasterWatch).
//!
//! 1. The fact of a node never goes back in `(registration, state)`.
//! 2. A node's id is the hash of its key, and its role never changes.
//! 3. At most `directory_max` nodes are kept. When it is full, a node that joins takes the place
//!    of the one that has been gone for the longest; a node that is in is never dropped.
//! 4. A fact is announced when [`Merged::is_news`], so at most once.

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use sha2::{Digest, Sha256};

use crate::model::{
    bounds::{ADDRESS_LEN_MAX, NODE_NAME_LEN_MAX, PAGE_MEMBERS, SPKI_LEN_MAX},
    ids::{Fingerprint, NodeId, Registration, Role},
    message::{Fact, Member, MemberState},
    time::Mono,
};

/// Shortest time between two words of workers on one node that are taken: a worker that was refused
/// tries again sooner, and what several know of a node that is gone is still soon known to all.
pub const WORD_INTERVAL: Duration = Duration::from_secs(5);

/// Result of merging a member into the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// The node was unknown and was added.
    New,
    /// The fact is newer than the known one and replaced it.
    Newer,
    /// The same fact is known; nothing changed.
    Known,
    /// A newer fact is known; nothing changed. The sender may want it.
    Older,
    /// The directory is full; nothing changed.
    Full,
    /// The key does not match the id, or the role differs from the known one; nothing changed.
    Forged,
}

impl Merged {
    /// Returns whether the fact is to be announced.
    #[must_use]
    pub const fn is_news(self) -> bool {
        matches!(self, Self::New | Self::Newer)
    }
}

#[derive(Clone, Debug)]
struct Entry {
    member: Member,
    /// Time at which the fact was learnt, by this node's clock.
    since: Mono,
    /// Time at which a worker's word on the node was last taken.
    word_at: Option<Mono>,
}

/// Directory of all nodes.
#[derive(Clone, Debug)]
pub struct Registry {
    members: BTreeMap<NodeId, Entry>,
    nodes_max: usize,
}

/// Returns the key that orders the facts of one node.
const fn rank(fact: &Fact) -> (Registration, MemberState) {
    (fact.registration, fact.state)
}

/// Returns whether the fact `a` is newer than the fact `b` of the same node.
#[must_use]
pub fn is_newer(a: &Fact, b: &Fact) -> bool {
    rank(a) > rank(b)
}

/// Returns whether the key is the node's, and the member is within its bounds.
fn key_fits(member: &Member) -> bool {
    let texts = [&member.link, &member.http].into_iter().flatten();
    if member.spki.len() > SPKI_LEN_MAX
        || member.name.len() > NODE_NAME_LEN_MAX
        || texts.into_iter().any(|text| text.len() > ADDRESS_LEN_MAX)
    {
        return false;
    }
    let hash: [u8; 32] = Sha256::digest(&member.spki).into();
    NodeId::of(&Fingerprint(hash)) == member.fact.node
}

impl Registry {
    /// Creates an empty directory of at most `nodes_max` nodes.
    #[must_use]
    pub const fn new(nodes_max: usize) -> Self {
        Self { members: BTreeMap::new(), nodes_max }
    }

    /// Merges a member into the directory. Announce it if [`Merged::is_news`].
    pub fn apply(&mut self, now: Mono, member: Member) -> Merged {
        let node = member.fact.node;
        match self.members.get(&node) {
            Some(known) if rank(&known.member.fact) == rank(&member.fact) => Merged::Known,
            Some(known) if is_newer(&known.member.fact, &member.fact) => Merged::Older,
            Some(known) if known.member.fact.role != member.fact.role => Merged::Forged,
            Some(_) if !key_fits(&member) => Merged::Forged,
            Some(known) => {
                let word_at = known.word_at;
                self.members.insert(node, Entry { member, since: now, word_at });
                Merged::Newer
            }
            None if !key_fits(&member) => Merged::Forged,
            None => {
                if self.members.len() >= self.nodes_max && !self.make_room_for(&member) {
                    return Merged::Full;
                }
                self.members.insert(node, Entry { member, since: now, word_at: None });
                Merged::New
            }
        }
    }

    /// Drops the node that has been gone for the longest. Returns whether there was one; a node
    /// that is gone itself takes nobody's place.
    fn make_room_for(&mut self, member: &Member) -> bool {
        if member.fact.state != MemberState::In {
            return false;
        }
        let gone = self.members.iter().filter(|(_, e)| e.member.fact.state != MemberState::In);
        let oldest = gone.min_by_key(|(node, entry)| (entry.since, **node)).map(|(node, _)| *node);
        oldest.is_some_and(|node| self.members.remove(&node).is_some())
    }

    /// Ends a registration. Returns the member to publish; `None` when the node is unknown or a
    /// fact at least as new is known.
    pub fn end(
        &mut self,
        now: Mono,
        node: NodeId,
        registration: Registration,
        state: MemberState,
    ) -> Option<Member> {
        let mut member = self.members.get(&node)?.member.clone();
        member.fact.registration = registration;
        member.fact.state = state;
        self.apply(now, member.clone()).is_news().then_some(member)
    }

    /// Notes that a worker's word on a node is to be taken. Returns whether it may be: the node is
    /// known, and no word on it was taken in the last [`WORD_INTERVAL`].
    pub fn take_word(&mut self, now: Mono, node: &NodeId) -> bool {
        let Some(entry) = self.members.get_mut(node) else { return false };
        let is_due = entry.word_at.is_none_or(|at| now.since(at) >= WORD_INTERVAL);
        if is_due {
            entry.word_at = Some(now);
        }
        is_due
    }

    /// Returns a node, whatever its state.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&Member> {
        self.members.get(node).map(|entry| &entry.member)
    }

    /// Iterates over all nodes, in the order of ids.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().map(|entry| &entry.member)
    }

    /// Iterates over all facts, in the order of ids.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.members().map(|member| &member.fact)
    }

    /// Returns whether a worker is in and registered with a master.
    #[must_use]
    pub fn has_workers(&self, master: &NodeId) -> bool {
        self.workers_of(master).next().is_some()
    }

    /// Iterates over the workers that are in and registered with a master, in the order of ids.
    pub fn workers_of(&self, master: &NodeId) -> impl Iterator<Item = &NodeId> {
        self.facts_of_workers(master).map(|fact| &fact.node)
    }

    /// Iterates over the facts of the workers that are in and registered with a master, in the order
    /// of ids.
    pub fn facts_of_workers(&self, master: &NodeId) -> impl Iterator<Item = &Fact> {
        let of = |fact: &&Fact| fact.role == Role::Worker && fact.state == MemberState::In;
        let master = *master;
        self.facts().filter(of).filter(move |fact| fact.master == master)
    }

    /// Returns the number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns whether the directory is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns the number of a node's next registration: above all known ones of it.
    #[must_use]
    pub fn next_registration(&self, node: &NodeId) -> Registration {
        self.get(node).map_or_else(Registration::default, |m| m.fact.registration).next()
    }

    /// Returns a digest of the directory: SHA-256, cut to 16 bytes, over the nodes and what orders
    /// their facts. Two directories with the same digest agree on all members.
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        for fact in self.facts() {
            hash.update(fact.node.0);
            hash.update(fact.registration.0.to_be_bytes());
            hash.update([fact.state as u8]);
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.finalize()[..16]);
        digest
    }

    /// Returns up to `limit` members after `after`, wrapping round at the end: the next page for a
    /// peer whose digest differs.
    #[must_use]
    pub fn page(&self, after: Option<NodeId>, limit: usize) -> Vec<Member> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let upper = self.members.range((from, Bound::Unbounded));
        let lower = after.map(|after| self.members.range(..=after)).into_iter().flatten();
        upper.chain(lower).take(limit).map(|(_, entry)| entry.member.clone()).collect()
    }

    /// Returns the members of which a newer fact is known than in `theirs`: the answer to a page.
    #[must_use]
    pub fn corrections(&self, theirs: &[Member]) -> Vec<Member> {
        let newer = |told: &Member| {
            let known = self.get(&told.fact.node)?;
            is_newer(&known.fact, &told.fact).then(|| known.clone())
        };
        theirs.iter().filter_map(newer).take(PAGE_MEMBERS).collect()
    }

    /// Iterates over workers that are in, whose master `is_out`, and whose facts were learnt not
    /// after `before`. Any node may declare them failed. A worker that has just registered with a
    /// master that seems out thus gets the same time as the master got.
    pub fn orphans(
        &self,
        before: Mono,
        is_out: impl Fn(&NodeId) -> bool,
    ) -> impl Iterator<Item = &Fact> {
        self.members
            .values()
            .filter(move |entry| {
                let fact = &entry.member.fact;
                fact.role == Role::Worker
                    && fact.state == MemberState::In
                    && entry.since <= before
                    && is_out(&fact.master)
            })
            .map(|entry| &entry.member.fact)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a member whose key is the byte `n`.
    pub(in crate::protocol) fn member(
        n: u8,
        role: Role,
        registration: u64,
        state: MemberState,
    ) -> Member {
        let spki = vec![n];
        let hash: [u8; 32] = Sha256::digest(&spki).into();
        let node = NodeId::of(&Fingerprint(hash));
        let fact = Fact {
            node,
            role,
            registration: Registration(registration),
            state,
            master: NodeId([7; 16]),
        };
        Member { fact, name: format!("n{n}"), link: None, http: None, spki }
    }

    #[test]
    fn node_that_joins_a_full_directory_takes_the_place_of_the_one_longest_gone() {
        let at = |s| Mono::ZERO + std::time::Duration::from_secs(s);
        let mut registry = Registry::new(3);
        for (s, n, state) in
            [(1, 1, MemberState::In), (2, 2, MemberState::Failed), (3, 3, MemberState::Left)]
        {
            assert_eq!(registry.apply(at(s), member(n, Role::Worker, 1, state)), Merged::New);
        }
        let gone = member(4, Role::Worker, 1, MemberState::Left);
        assert_eq!(registry.apply(at(4), gone), Merged::Full);
        let (joins, more, last) = (4, 5, 6);
        let joining = |n| member(n, Role::Worker, 1, MemberState::In);
        assert_eq!(registry.apply(at(5), joining(joins)), Merged::New);
        assert!(registry.get(&joining(2).fact.node).is_none(), "it was gone for the longest");
        assert_eq!(registry.apply(at(6), joining(more)), Merged::New);
        assert_eq!(registry.apply(at(7), joining(last)), Merged::Full, "all are in");
        assert_eq!(registry.len(), 3);
    }

    const STATES: [MemberState; 3] = [MemberState::In, MemberState::Failed, MemberState::Left];

    fn told() -> impl Strategy<Value = Vec<Member>> {
        let one = (0..6_u8, 1..5_u64, 0..3_usize)
            .prop_map(|(n, registration, s)| member(n, Role::Worker, registration, STATES[s]));
        proptest::collection::vec(one, 0..40)
    }

    proptest! {
        #[test]
        fn merges_in_any_order_give_equal_directories_and_announce_each_fact_once(
            mut told in told(),
            seed in any::<u64>(),
        ) {
            let mut one = Registry::new(100);
            let mut news = Vec::new();
            for member in &told {
                let before = one.get(&member.fact.node).map(|m| rank(&m.fact));
                let merged = one.apply(Mono::ZERO, member.clone());
                prop_assert_eq!(merged.is_news(), before < Some(rank(&member.fact)));
                if merged.is_news() {
                    prop_assert!(!news.contains(&member.fact));
                    news.push(member.fact);
                }
            }
            let len = told.len().max(1);
            told.rotate_left(usize::try_from(seed % len as u64).expect("below len"));
            told.reverse();
            let mut other = Registry::new(100);
            for member in told {
                other.apply(Mono::ZERO, member);
            }
            prop_assert_eq!(one.digest(), other.digest());
            prop_assert!(one.facts().eq(other.facts()));
        }

        #[test]
        fn directories_are_equal_after_pages_and_corrections(
            a in told(),
            b in told(),
            limit in 1..4_usize,
        ) {
            let fill = |told: Vec<Member>| {
                let mut registry = Registry::new(100);
                for member in told {
                    registry.apply(Mono::ZERO, member);
                }
                registry
            };
            let (mut a, mut b) = (fill(a), fill(b));
            let (mut at_a, mut at_b) = (None, None);
            for _ in 0..12 {
                for member in a.page(at_a, limit) {
                    at_a = Some(member.fact.node);
                    b.apply(Mono::ZERO, member);
                }
                let page = b.page(at_b, limit);
                at_b = page.last().map(|m| m.fact.node);
                for member in page {
                    a.apply(Mono::ZERO, member);
                }
            }
            prop_assert_eq!(a.digest(), b.digest());
            for member in b.corrections(&a.page(None, 100)) {
                prop_assert!(false, "{member:?} is not known to a");
            }
        }
    }

    #[test]
    fn full_directory_refuses_new_nodes_and_updates_known_ones() {
        let mut registry = Registry::new(1);
        let one = |registration| member(1, Role::Worker, registration, MemberState::In);
        assert_eq!(registry.apply(Mono::ZERO, one(1)), Merged::New);
        let other = member(2, Role::Worker, 1, MemberState::In);
        assert_eq!(registry.apply(Mono::ZERO, other), Merged::Full);
        assert_eq!(registry.apply(Mono::ZERO, one(2)), Merged::Newer);
        assert_eq!(registry.apply(Mono::ZERO, one(1)), Merged::Older);
        assert_eq!(registry.next_registration(&one(1).fact.node), Registration(3));
    }

    #[test]
    fn foreign_key_and_changed_role_are_refused() {
        let mut registry = Registry::new(9);
        let mut forged = member(1, Role::Worker, 1, MemberState::In);
        forged.spki = vec![2];
        assert_eq!(registry.apply(Mono::ZERO, forged.clone()), Merged::Forged);
        registry.apply(Mono::ZERO, member(1, Role::Worker, 1, MemberState::In));
        forged.fact.registration = Registration(2);
        assert_eq!(registry.apply(Mono::ZERO, forged), Merged::Forged);
        let turned = member(1, Role::Master, 2, MemberState::In);
        assert_eq!(registry.apply(Mono::ZERO, turned), Merged::Forged);
    }

    #[test]
    fn end_of_a_registration_is_published_once_and_not_for_an_older_one() {
        let mut registry = Registry::new(9);
        let worker = member(1, Role::Worker, 2, MemberState::In);
        let node = worker.fact.node;
        registry.apply(Mono::ZERO, worker);
        let mut end =
            |n, state| registry.end(Mono::ZERO, node, Registration(n), state).map(|m| m.fact.state);
        assert_eq!(end(1, MemberState::Left), None);
        assert_eq!(end(2, MemberState::Failed), Some(MemberState::Failed));
        assert_eq!(end(2, MemberState::Failed), None);
        assert_eq!(end(2, MemberState::Left), Some(MemberState::Left));
    }

    #[test]
    fn orphans_are_workers_in_with_old_facts_whose_master_is_out() {
        let mut registry = Registry::new(9);
        let at = |s: u64| Mono::from_ns(s * 1_000_000_000);
        registry.apply(at(1), member(1, Role::Worker, 1, MemberState::In));
        registry.apply(at(9), member(2, Role::Worker, 1, MemberState::In));
        registry.apply(at(1), member(3, Role::Worker, 1, MemberState::Left));
        registry.apply(at(1), member(4, Role::Master, 1, MemberState::In));
        let out = |before| registry.orphans(before, |m| m.0 == [7; 16]).count();
        assert_eq!((out(at(0)), out(at(5)), out(at(9))), (0, 1, 2));
        assert_eq!(registry.orphans(at(9), |_| false).count(), 0);
    }
}
