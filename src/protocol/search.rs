//! Search of a worker for an active master, which tries the addresses of its list in turn.
//!
//! ```text
//!   config ─┐
//!   directory ─► one list, by address ─► the active ones, in a ring ─► dial ─► taken in
//!   store ──┘                              └── none took it in: wait, 250 ms doubling to 3 s
//! ```
//!
//! 1. One address is tried at a time, and each once in a round.
//! 2. Masters that are out by the store's rows, or that drain, are tried only if no other is left.
//!    Masters without a row are tried after those that are in.
//! 3. A wait between rounds is jittered and at most `backoff_max`.
//! 4. A master that listed the worker and named a time is tried first, at that time, unless it is
//!    out. A master that sent the worker away is not tried before the time it named, unless no
//!    other is left.
//! 5. A worker whose place another process took waits before it takes it back: 250 ms, doubling
//!    each time to `backoff_max`.
//! 6. After a loss the search begins at a random place of the ring, with the lost master last among
//!    its equals: workers that lose their master together spread over the others.
//! 7. At most [`CANDIDATES_MAX`] addresses are kept; configured ones are never dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    model::{
        ids::{NodeId, Role},
        message::{Close, CloseReason, Member, MemberState},
        rows::MasterRow,
        time::Mono,
    },
    protocol::jitter::jittered,
};

/// Most addresses that are kept.
pub const CANDIDATES_MAX: usize = 256;
/// Wait after the first round without success.
const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// Next step of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Dial this address.
    Dial(String),
    /// Call [`Search::next`] again at this time.
    Wait(Mono),
    /// No address is known.
    Nowhere,
}

/// State of an address's master by the store's rows. The lower is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    In,
    Unsaid,
    Out,
}

#[derive(Clone, Debug)]
struct Candidate {
    configured: bool,
    node: Option<NodeId>,
    standing: Standing,
    /// Time until which the master sent this worker away.
    not_before: Mono,
}

/// List of addresses, and the position of the search in it.
#[derive(Clone, Debug)]
pub struct Search {
    candidates: BTreeMap<String, Candidate>,
    /// Addresses tried in this round.
    tried: BTreeSet<String>,
    /// Address tried last; the ring goes on after it.
    last: Option<String>,
    /// Address of the master whose link ended last; it comes last among its equals.
    lost: Option<String>,
    /// Whether the ring is to be begun at a random place.
    anywhere: bool,
    /// Address to try before all others, and the earliest time to do so.
    first: Option<(String, Mono)>,
    wait_until: Option<Mono>,
    rounds: u32,
    /// Time at which this worker was last displaced, and how often before it in a row.
    displaced: Option<(Mono, u32)>,
    backoff_max: Duration,
}

impl Search {
    /// Creates a search over the configured addresses. `draw` is a random number, which spreads
    /// the workers over the ring.
    #[must_use]
    pub fn new(configured: &[String], backoff_max: Duration, draw: u64) -> Self {
        let candidate = Candidate {
            configured: true,
            node: None,
            standing: Standing::Unsaid,
            not_before: Mono::ZERO,
        };
        let candidates: BTreeMap<_, _> =
            configured.iter().map(|addr| (addr.clone(), candidate.clone())).collect();
        let len = candidates.len().max(1) as u64;
        let start = usize::try_from(draw % len).unwrap_or_default();
        let last = candidates.keys().nth(start).cloned();
        Self {
            candidates,
            tried: BTreeSet::new(),
            last,
            lost: None,
            anywhere: false,
            first: None,
            wait_until: None,
            rounds: 0,
            displaced: None,
            backoff_max,
        }
    }

    /// Adds the masters in a directory, and removes those that left. Ignores workers.
    pub fn on_directory<'a>(&mut self, members: impl IntoIterator<Item = &'a Member>) {
        for member in members {
            let fact = &member.fact;
            if let (Role::Master, Some(link)) = (fact.role, &member.link) {
                if fact.state == MemberState::In {
                    self.learn(link, fact.node);
                } else if let Some(known) = self.candidates.get(link)
                    && known.node == Some(fact.node)
                    && !known.configured
                {
                    self.candidates.remove(link);
                }
            }
        }
    }

    /// Takes all rows of masters in the store, each with whether the master is in. They hold until
    /// the next reading.
    pub fn on_store<'a>(&mut self, rows: impl IntoIterator<Item = (&'a MasterRow, bool)>) {
        for candidate in self.candidates.values_mut() {
            candidate.standing = Standing::Unsaid;
        }
        let mut rows: Vec<_> = rows.into_iter().collect();
        // A master that lost its identity left a row with the address at which the new one is in.
        rows.sort_by_key(|(_, is_in)| *is_in);
        for (row, is_in) in rows {
            self.learn(&row.link, row.node);
            if let Some(candidate) = self.candidates.get_mut(&row.link) {
                let active = is_in && !row.draining;
                candidate.standing = if active { Standing::In } else { Standing::Out };
            }
        }
    }

    fn learn(&mut self, addr: &str, node: NodeId) {
        // A master that moved no longer answers at its old address.
        self.candidates.retain(|at, c| c.configured || c.node != Some(node) || at == addr);
        if let Some(known) = self.candidates.get_mut(addr) {
            known.node = Some(node);
        } else if self.candidates.len() < CANDIDATES_MAX {
            let standing = Standing::Unsaid;
            let fresh =
                Candidate { configured: false, node: Some(node), standing, not_before: Mono::ZERO };
            self.candidates.insert(addr.to_owned(), fresh);
        }
    }

    /// Restarts the search: the link to the master at `addr` ended, with `close` if it sent one.
    pub fn restart(&mut self, now: Mono, addr: &str, close: Option<&Close>) {
        self.tried.clear();
        self.rounds = 0;
        self.wait_until = None;
        self.first = None;
        self.last = Some(addr.to_owned());
        self.lost = Some(addr.to_owned());
        self.anywhere = true;
        let Some(close) = close else { return };
        // The delay comes from a peer and is bounded: a peer may not send a worker away for ever.
        let retry = Duration::from_millis(close.retry_ms).min(self.backoff_max * 4);
        let is_out = self.candidates.get(addr).is_some_and(|c| c.standing == Standing::Out);
        match close.reason {
            // Another master can reach the store, this one cannot.
            _ if is_out => {}
            CloseReason::Listed => self.first = Some((addr.to_owned(), now + retry)),
            CloseReason::Replaced => {
                let wait = retry.max(self.displaced(now));
                self.first = Some((addr.to_owned(), now + wait));
            }
            _ => self.send_away(addr, now + retry.max(BACKOFF_MIN)),
        }
    }

    /// Notes that another process took this worker's place. Returns the wait before it takes it
    /// back: two that share an identity would else do nothing but chase each other.
    fn displaced(&mut self, now: Mono) -> Duration {
        let before = self.displaced.filter(|(at, _)| now.since(*at) <= self.backoff_max * 4);
        let nth = before.map_or(0, |(_, nth)| (nth + 1).min(8));
        self.displaced = Some((now, nth));
        (BACKOFF_MIN * 2_u32.pow(nth)).min(self.backoff_max)
    }

    /// Has the master at `addr` tried before all others.
    pub fn prefer(&mut self, now: Mono, addr: &str) {
        self.first = Some((addr.to_owned(), now));
    }

    /// Returns the next step. `draw` is a random number for the jitter of a wait, and for the place
    /// at which the ring begins after a loss.
    pub fn next(&mut self, now: Mono, draw: u64) -> Step {
        if let Some((addr, at)) = self.first.take() {
            if now < at {
                self.first = Some((addr, at));
                return Step::Wait(at);
            }
            return self.dial(addr);
        }
        if let Some(at) = self.wait_until.filter(|at| now < *at) {
            return Step::Wait(at);
        }
        self.wait_until = None;
        if self.candidates.is_empty() {
            return Step::Nowhere;
        }
        if let Some(addr) = self.pick(now, draw) {
            self.anywhere = false;
            return self.dial(addr);
        }
        self.tried.clear();
        let until = now + self.backoff(draw);
        self.rounds = self.rounds.saturating_add(1);
        self.wait_until = Some(until);
        Step::Wait(until)
    }

    fn dial(&mut self, addr: String) -> Step {
        self.tried.insert(addr.clone());
        self.last = Some(addr.clone());
        Step::Dial(addr)
    }

    /// Returns the untried address with the best standing; among equals the next in the ring, or
    /// any if the ring begins anywhere.
    fn pick(&self, now: Mono, draw: u64) -> Option<String> {
        let away = |c: &Candidate| now < c.not_before;
        let anyone_active =
            self.candidates.values().any(|c| c.standing < Standing::Out && !away(c));
        let passed = |addr: &String| self.last.as_ref().is_some_and(|last| addr <= last);
        let mut untried: Vec<_> = self
            .candidates
            .iter()
            .filter(|(addr, _)| !self.tried.contains(*addr))
            .filter(|(_, c)| !anyone_active || (c.standing < Standing::Out && !away(c)))
            .map(|(addr, c)| ((c.standing, self.lost.as_ref() == Some(addr)), passed(addr), addr))
            .collect();
        untried.sort_unstable();
        let (best, ..) = untried.first()?;
        let equals = untried.iter().take_while(|(rank, ..)| rank == best).count();
        let nth = if self.anywhere { draw % equals as u64 } else { 0 };
        let (.., addr) = untried.get(usize::try_from(nth).unwrap_or_default())?;
        Some((*addr).clone())
    }

    /// Returns the wait before the next round: 250 ms, doubling with each round, jittered down to
    /// its half.
    fn backoff(&self, draw: u64) -> Duration {
        let whole = (BACKOFF_MIN * 2_u32.pow(self.rounds.min(8))).min(self.backoff_max);
        jittered(whole, draw)
    }

    /// Postpones the master at `addr`, which refused the worker until this time.
    pub fn send_away(&mut self, addr: &str, until: Mono) {
        if let Some(candidate) = self.candidates.get_mut(addr) {
            candidate.not_before = until;
        }
    }

    /// Iterates over all addresses, in their order.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.candidates.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::protocol::{master_watch::tests::row, registry::tests::member};

    const MAX: Duration = Duration::from_secs(3);

    fn search(addrs: &[&str]) -> Search {
        let addrs: Vec<_> = addrs.iter().map(|a| (*a).to_owned()).collect();
        let mut search = Search::new(&addrs, MAX, 0);
        search.last = None;
        search
    }

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    fn dial(addr: &str) -> Step {
        Step::Dial(addr.to_owned())
    }

    #[test]
    fn round_tries_each_address_once_and_waits_grow_between_rounds() {
        let mut search = search(&["a", "b"]);
        let steps: Vec<_> = (0..3).map(|_| search.next(at(0), 0)).collect();
        assert_eq!(steps, [dial("a"), dial("b"), Step::Wait(at(125))]);
        assert_eq!(search.next(at(100), 0), Step::Wait(at(125)));
        let steps: Vec<_> = (0..3).map(|_| search.next(at(125), u64::MAX)).collect();
        assert_eq!(steps[..2], [dial("a"), dial("b")]);
        let Step::Wait(until) = steps[2] else { panic!("{steps:?}") };
        assert!(until > at(125 + 250) && until <= at(125 + 500), "{until:?}");
    }

    #[test]
    fn lost_master_is_tried_last_and_the_one_that_listed_the_worker_first() {
        let mut search = search(&["a", "b", "c"]);
        search.restart(at(0), "b", None);
        let order: Vec<_> = (0..3).map(|_| search.next(at(0), 0)).collect();
        assert_eq!(order, [dial("c"), dial("a"), dial("b")]);
        let close = Close { reason: CloseReason::Listed, retry_ms: 1000 };
        search.restart(at(0), "b", Some(&close));
        assert_eq!(search.next(at(0), 0), Step::Wait(at(1000)));
        assert_eq!(search.next(at(1000), 0), dial("b"));
        assert_eq!(search.next(at(1000), 0), dial("c"));
        let close = Close { reason: CloseReason::Draining, retry_ms: 5000 };
        search.restart(at(2000), "c", Some(&close));
        let order: Vec<_> = (0..2).map(|_| search.next(at(2000), 0)).collect();
        assert_eq!(order, [dial("a"), dial("b")]);
        assert!(matches!(search.next(at(2000), 0), Step::Wait(_)));
    }

    /// Random number of a worker in a run with this seed.
    fn drawn(seed: u8, worker: u8) -> u64 {
        let hash: [u8; 32] = Sha256::digest([seed, worker]).into();
        hash[..8].iter().fold(0, |draw, byte| draw << 8 | u64::from(*byte))
    }

    #[test]
    fn workers_that_lose_their_master_together_spread_over_the_others() {
        let rows = [row(1, 1, 1), row(2, 1, 1), row(3, 1, 1)];
        for (seed, reads_store) in (0..20).flat_map(|seed| [(seed, true), (seed, false)]) {
            let mut first = BTreeMap::new();
            for worker in 0..12 {
                let mut search = search(&["m1:1", "m2:1", "m3:1"]);
                if reads_store {
                    search.on_store(rows.iter().map(|row| (row, true)));
                }
                search.restart(at(0), "m2:1", None);
                let round: Vec<_> =
                    (0..3).map(|_| search.next(at(0), drawn(seed, worker))).collect();
                let [Step::Dial(one), Step::Dial(other), lost] = &round[..] else {
                    panic!("{round:?}")
                };
                assert_ne!(one, other);
                assert_eq!(*lost, dial("m2:1"), "the dead one is tried last: {round:?}");
                assert!(matches!(search.next(at(0), 0), Step::Wait(_)));
                *first.entry(one.clone()).or_insert(0) += 1;
            }
            for addr in ["m1:1", "m3:1"] {
                let count = first.get(addr).copied().unwrap_or(0);
                assert!((3..=9).contains(&count), "seed {seed}: {first:?}");
            }
        }
    }

    #[test]
    fn lost_master_stays_last_when_the_ring_begins_anywhere_and_all_others_are_tried() {
        for draw in 0..30 {
            let mut search = search(&["a", "b", "c", "d", "e"]);
            search.restart(at(0), "c", None);
            let round: Vec<_> = (0..5).map(|_| search.next(at(0), draw)).collect();
            assert_eq!(round[4], dial("c"), "{round:?}");
            for addr in ["a", "b", "d", "e"] {
                assert!(round.contains(&dial(addr)), "{round:?}");
            }
        }
    }

    #[test]
    fn worker_that_is_displaced_again_and_again_waits_longer_each_time() {
        let mut search = search(&["a", "b"]);
        let close = Close { reason: CloseReason::Replaced, retry_ms: 0 };
        let mut now = at(0);
        let mut waited = Vec::new();
        for _ in 0..6 {
            search.restart(now, "a", Some(&close));
            let Step::Wait(until) = search.next(now, 0) else { panic!("dialed at once") };
            waited.push(until.since(now).as_millis());
            assert_eq!(search.next(until, 0), dial("a"));
            now = until + Duration::from_millis(5);
        }
        assert_eq!(waited, [250, 500, 1000, 2000, 3000, 3000]);
        now = now + MAX * 5;
        search.restart(now, "a", Some(&close));
        assert_eq!(search.next(now, 0), Step::Wait(now + Duration::from_millis(250)));
    }

    #[test]
    fn masters_that_are_out_or_draining_are_tried_only_when_no_other_is_left() {
        let mut search = search(&["a", "m1:1"]);
        let (one, two, mut three) = (row(1, 1, 1), row(2, 1, 1), row(3, 1, 1));
        three.draining = true;
        search.on_store([(&one, false), (&two, true), (&three, true)]);
        let steps: Vec<_> = (0..2).map(|_| search.next(at(0), 0)).collect();
        assert_eq!(steps, [dial("m2:1"), dial("a")]);
        assert!(matches!(search.next(at(0), 0), Step::Wait(_)));
        let close = Close { reason: CloseReason::Listed, retry_ms: 0 };
        search.restart(at(9000), "m1:1", Some(&close));
        assert_eq!(search.next(at(9000), 0), dial("m2:1"));
        // No master is in: one that is out is better than none.
        let mut search = self::search(&[]);
        search.on_store([(&one, false)]);
        assert_eq!(search.next(at(0), 0), dial("m1:1"));
    }

    #[test]
    fn address_of_a_master_that_lost_its_identity_counts_as_that_of_the_new_one() {
        let (new, two) = (row(1, 1, 1), row(2, 1, 1));
        let old = MasterRow { link: new.link.clone(), ..row(3, 1, 1) };
        for rows in [
            [(&new, true), (&two, false), (&old, false)],
            [(&old, false), (&two, false), (&new, true)],
        ] {
            let mut search = search(&[]);
            search.on_store(rows);
            assert_eq!(search.next(at(0), 0), dial("m1:1"));
            assert!(matches!(search.next(at(0), 0), Step::Wait(_)), "the other is out");
        }
    }

    #[test]
    fn old_address_of_a_moved_or_left_master_is_dropped() {
        let mut search = search(&["a"]);
        let mut master = member(1, Role::Master, 1, MemberState::In);
        master.link = Some("x".to_owned());
        search.on_directory([&master, &member(2, Role::Worker, 1, MemberState::In)]);
        assert!(search.addresses().eq(["a", "x"]));
        master.link = Some("y".to_owned());
        search.on_directory([&master]);
        assert!(search.addresses().eq(["a", "y"]));
        master.fact.state = MemberState::Left;
        search.on_directory([&master]);
        assert!(search.addresses().eq(["a"]));
        assert_eq!(self::search(&[]).next(at(0), 0), Step::Nowhere);
    }

    proptest! {
        #[test]
        fn every_active_master_is_tried_before_any_wait_and_waits_are_bounded(
            configured in 1..6_usize,
            store in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..6),
            draws in proptest::collection::vec(any::<u64>(), 40),
        ) {
            let addrs: Vec<_> = (0..configured).map(|n| format!("c{n}")).collect();
            let mut search = Search::new(&addrs, MAX, draws[0]);
            let rows: Vec<_> = (0..).zip(&store).map(|(n, (is_in, draining))| {
                let mut row = row(n, 1, 1);
                row.draining = *draining;
                (row, *is_in)
            }).collect();
            search.on_store(rows.iter().map(|(row, is_in)| (row, *is_in)));
            let active: BTreeSet<_> = rows
                .iter()
                .filter(|(row, is_in)| *is_in && !row.draining)
                .map(|(row, _)| row.link.clone())
                .chain(addrs)
                .collect();
            let mut now = Mono::ZERO;
            let mut round = BTreeSet::new();
            for draw in draws {
                match search.next(now, draw) {
                    Step::Dial(addr) => prop_assert!(round.insert(addr)),
                    Step::Wait(until) => {
                        prop_assert_eq!(&round, &active);
                        prop_assert!(until > now && until <= now + MAX);
                        now = until;
                        round.clear();
                    }
                    Step::Nowhere => prop_assert!(false, "there are addresses"),
                }
            }
        }
    }
}
