//! Admission lists: a master's copy of who may join, refreshed from the store.
//!
//! 1. A denied node has no guard and is never admitted, whatever else lists it. It stays denied for
//!    this life of the master: an answer of the store that was under way does not undo it.
//! 2. A worker is admitted under the key and role that it was enrolled with, and no other.
//! 3. A worker that was enrolled stays known whatever an older answer of the store says.
//! 4. Strangers make the master read the store at most once in [`REFRESH_INTERVAL`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::model::{
    ids::{Fingerprint, NodeId, Role},
    message::Member,
    read_order::{ReadNumber, ReadOrder},
    rows::{Admission, Enrolled, JoinToken, MasterRow},
    time::Mono,
};

/// Shortest time between two refreshes that strangers cause.
pub const REFRESH_INTERVAL: Duration = Duration::from_millis(200);

/// Standing of a worker that proved which key it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Enrolled with this key, as a worker.
    Enrolled(Enrolled),
    /// Enrolled with another key or in another role.
    Mismatch,
    /// Expelled.
    Denied,
    /// Not enrolled, as far as this copy knows.
    Unknown,
}

/// Copy of the store's admission lists, of its masters, and of the directory for newcomers.
#[derive(Debug)]
pub struct AdmissionLists {
    tokens: Vec<JoinToken>,
    allowed: BTreeMap<NodeId, Enrolled>,
    /// Workers that were enrolled here, with the reads that had begun by then, until a later read ends.
    fresh: Vec<(ReadNumber, Enrolled)>,
    /// Reads of the store's lists.
    reads: ReadOrder,
    denied: BTreeSet<NodeId>,
    /// Nodes that were expelled in this life, until they are taken.
    newly_denied: BTreeSet<NodeId>,
    /// Whether the store's lists were read in this life. Nobody is admitted before.
    was_read: bool,
    masters: BTreeMap<NodeId, MasterRow>,
    directory: Vec<Member>,
    directory_max: usize,
    refreshed_at: Option<Mono>,
}

impl AdmissionLists {
    /// Returns empty lists with a directory of at most `directory_max` members.
    #[must_use]
    pub const fn new(directory_max: usize) -> Self {
        Self {
            tokens: Vec::new(),
            allowed: BTreeMap::new(),
            fresh: Vec::new(),
            reads: ReadOrder::new(),
            denied: BTreeSet::new(),
            newly_denied: BTreeSet::new(),
            was_read: false,
            masters: BTreeMap::new(),
            directory: Vec::new(),
            directory_max,
            refreshed_at: None,
        }
    }

    /// Returns the number of a read of the store's lists that begins now.
    pub const fn begin_read(&mut self) -> ReadNumber {
        self.reads.begin()
    }

    /// Replaces tokens and enrolled nodes by what a read found, unless one that began later has ended,
    /// and adds the nodes that the store denies.
    pub fn set_admission(&mut self, read: ReadNumber, admission: Admission) {
        let Admission { tokens, allowed, denied } = admission;
        if self.reads.end(read) {
            self.tokens = tokens;
            self.allowed = allowed.into_iter().map(|row| (row.node, row)).collect();
            self.fresh.retain(|(begun, _)| *begun >= read);
            self.allowed.extend(self.fresh.iter().map(|(_, row)| (row.node, row.clone())));
        }
        if self.was_read {
            denied.into_iter().for_each(|node| self.on_denied(node));
        } else {
            self.denied.extend(denied);
            self.was_read = true;
        }
    }

    /// Replaces the masters by those that the store lists.
    pub fn set_masters(&mut self, rows: &[MasterRow]) {
        self.masters = rows.iter().map(|row| (row.node, row.clone())).collect();
    }

    /// Replaces the directory; members over the bound are left out.
    pub fn set_directory(&mut self, members: impl IntoIterator<Item = Member>) {
        self.directory = members.into_iter().take(self.directory_max).collect();
    }

    /// Adds a node that was enrolled just now.
    pub fn on_enrolled(&mut self, row: Enrolled) {
        self.fresh.push((self.reads.last_begun(), row.clone()));
        self.allowed.insert(row.node, row);
    }

    /// Denies a node that was expelled just now.
    pub fn on_denied(&mut self, node: NodeId) {
        if self.denied.insert(node) {
            self.newly_denied.insert(node);
        }
    }

    /// Takes the nodes that were expelled since the last call, in order. Those of earlier lives of
    /// this master are not among them: they had no key of this one.
    #[must_use]
    pub fn take_newly_denied(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.newly_denied).into_iter().collect()
    }

    /// Returns whether the lists are to be read from the store now, for a guard or a master that
    /// they lack; then counts that as done.
    #[must_use]
    pub fn begin_refresh(&mut self, now: Mono) -> bool {
        let is_due = self.refreshed_at.is_none_or(|at| now.since(at) >= REFRESH_INTERVAL);
        if is_due {
            self.refreshed_at = Some(now);
        }
        is_due
    }

    /// Returns the directory that a newcomer is given.
    #[must_use]
    pub fn directory(&self) -> &[Member] {
        &self.directory
    }

    /// Returns whether a node was expelled.
    #[must_use]
    pub fn is_denied(&self, node: &NodeId) -> bool {
        self.denied.contains(node)
    }

    /// Returns the guard of a join token.
    #[must_use]
    pub fn token_guard(&self, id: [u8; 8]) -> Option<[u8; 32]> {
        self.tokens.iter().find(|token| token.id == id).map(|token| token.guard)
    }

    /// Returns the guard of a worker or a master. A denied node has none: it is not worth the
    /// RSA operations of a reply.
    #[must_use]
    pub fn node_guard(&self, node: &NodeId) -> Option<[u8; 32]> {
        if self.is_denied(node) {
            return None;
        }
        let worker = self.allowed.get(node).map(|row| row.guard);
        worker.or_else(|| self.masters.get(node).map(|row| row.guard))
    }

    /// Returns whether the store lists a master of this id and key.
    #[must_use]
    pub fn is_master(&self, node: &NodeId, spki: &[u8]) -> bool {
        self.masters.get(node).is_some_and(|row| row.spki == spki)
    }

    /// Returns the standing of a worker with this key.
    #[must_use]
    pub fn worker(&self, node: &NodeId, key: &Fingerprint) -> Standing {
        match self.allowed.get(node) {
            _ if self.is_denied(node) => Standing::Denied,
            Some(row) if row.role == Role::Worker && row.fingerprint == *key => {
                Standing::Enrolled(row.clone())
            }
            Some(_) => Standing::Mismatch,
            None => Standing::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        ids::{Incarnation, Registration},
        message::{Fact, MemberState},
    };

    fn node(n: u8) -> NodeId {
        NodeId([n; 16])
    }

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    fn enrolled(n: u8, role: Role) -> Enrolled {
        Enrolled { node: node(n), fingerprint: Fingerprint([n; 32]), role, guard: [n; 32] }
    }

    fn master(n: u8) -> MasterRow {
        MasterRow {
            node: node(n),
            incarnation: Incarnation(1),
            beat: 0,
            http: String::new(),
            link: String::new(),
            spki: vec![n; 8],
            name: format!("master-{n}"),
            draining: false,
            guard: [n; 32],
        }
    }

    /// Worker 1 is enrolled, node 2 has another role, worker 3 is expelled, master 9 is listed.
    fn lists() -> AdmissionLists {
        let mut lists = AdmissionLists::new(2);
        let token = JoinToken {
            id: [7; 8],
            guard: [77; 32],
            bearer_sha256: [0; 32],
            role: Role::Worker,
            uses_left: 1,
            ends_at_ms: 0,
        };
        let allowed =
            vec![enrolled(1, Role::Worker), enrolled(2, Role::Master), enrolled(3, Role::Worker)];
        let read = lists.begin_read();
        lists
            .set_admission(read, Admission { tokens: vec![token], allowed, denied: vec![node(3)] });
        lists.set_masters(&[master(9)]);
        lists
    }

    #[test]
    fn guards_are_those_of_tokens_workers_and_masters() {
        let lists = lists();
        assert_eq!(lists.token_guard([7; 8]), Some([77; 32]));
        assert_eq!(lists.token_guard([8; 8]), None);
        assert_eq!(lists.node_guard(&node(1)), Some([1; 32]));
        assert_eq!(lists.node_guard(&node(9)), Some([9; 32]));
        assert_eq!(lists.node_guard(&node(5)), None);
    }

    #[test]
    fn denied_node_has_no_guard() {
        let mut lists = lists();
        assert!(lists.is_denied(&node(3)));
        assert_eq!(lists.node_guard(&node(3)), None);
        lists.set_masters(&[master(3)]);
        assert_eq!(lists.node_guard(&node(3)), None, "nor as a master");
        assert_eq!(lists.worker(&node(3), &Fingerprint([3; 32])), Standing::Denied);
    }

    #[test]
    fn answer_from_before_an_expulsion_does_not_undo_it() {
        let mut lists = lists();
        assert_eq!(lists.take_newly_denied(), [], "the node was expelled in an earlier life");
        lists.on_denied(node(1));
        let allowed = vec![enrolled(1, Role::Worker)];
        let read = lists.begin_read();
        lists.set_admission(read, Admission { allowed, ..Admission::default() });
        assert!(lists.is_denied(&node(1)) && lists.is_denied(&node(3)));
        assert_eq!(lists.worker(&node(1), &Fingerprint([1; 32])), Standing::Denied);
    }

    #[test]
    fn node_is_newly_denied_once_however_often_it_is_listed() {
        let mut lists = lists();
        lists.on_denied(node(1));
        let listed =
            || Admission { denied: vec![node(1), node(3), node(5)], ..Admission::default() };
        let read = lists.begin_read();
        lists.set_admission(read, listed());
        assert_eq!(lists.take_newly_denied(), [node(1), node(5)]);
        let read = lists.begin_read();
        lists.set_admission(read, listed());
        lists.on_denied(node(5));
        assert_eq!(lists.take_newly_denied(), []);
    }

    #[test]
    fn worker_is_enrolled_under_its_key_and_role_only() {
        let lists = lists();
        let standing = |n, key| lists.worker(&node(n), &Fingerprint([key; 32]));
        assert_eq!(standing(1, 1), Standing::Enrolled(enrolled(1, Role::Worker)));
        assert_eq!(standing(1, 2), Standing::Mismatch);
        assert_eq!(standing(2, 2), Standing::Mismatch, "it is enrolled as a master");
        assert_eq!(standing(5, 5), Standing::Unknown);
    }

    #[test]
    fn master_is_listed_under_its_key_only() {
        let lists = lists();
        assert!(lists.is_master(&node(9), &[9; 8]));
        assert!(!lists.is_master(&node(9), &[8; 8]));
        assert!(!lists.is_master(&node(1), &[1; 8]));
    }

    #[test]
    fn enrolled_worker_is_known_before_the_next_refresh_and_replaced_by_it() {
        let mut lists = lists();
        lists.on_enrolled(enrolled(5, Role::Worker));
        let key = Fingerprint([5; 32]);
        assert!(matches!(lists.worker(&node(5), &key), Standing::Enrolled(_)));
        let read = lists.begin_read();
        lists.set_admission(read, Admission::default());
        assert_eq!(lists.worker(&node(5), &key), Standing::Unknown);
    }

    #[test]
    fn enrolled_worker_stays_known_though_an_answer_from_before_comes_later() {
        let mut lists = lists();
        let is_known = |lists: &AdmissionLists| {
            matches!(lists.worker(&node(5), &Fingerprint([5; 32])), Standing::Enrolled(_))
        };
        let (first, second) = (lists.begin_read(), lists.begin_read());
        lists.on_enrolled(enrolled(5, Role::Worker));
        lists.set_admission(second, Admission::default());
        assert!(is_known(&lists), "the read had begun before");
        lists.set_admission(first, Admission { denied: vec![node(6)], ..Admission::default() });
        assert!(is_known(&lists), "an older read replaces nothing");
        assert!(lists.is_denied(&node(6)), "but who is denied is denied");
        let (gone, late) = (lists.begin_read(), Admission::default());
        lists.set_admission(gone, late);
        assert!(!is_known(&lists), "this one began after the enrolment");
        lists.set_admission(
            second,
            Admission { allowed: vec![enrolled(5, Role::Worker)], ..Admission::default() },
        );
        assert!(!is_known(&lists));
    }

    #[test]
    fn strangers_cause_one_refresh_in_an_interval() {
        let mut lists = lists();
        assert!(lists.begin_refresh(at(0)));
        assert!(!lists.begin_refresh(at(199)));
        assert!(lists.begin_refresh(at(200)));
        assert!(!lists.begin_refresh(at(399)));
    }

    #[test]
    fn directory_is_bounded() {
        let mut lists = lists();
        let member = |n| Member {
            fact: Fact {
                node: node(n),
                role: Role::Worker,
                registration: Registration(1),
                state: MemberState::In,
                master: node(9),
            },
            name: String::new(),
            link: None,
            http: None,
            spki: Vec::new(),
        };
        lists.set_directory((1..6).map(member));
        assert_eq!(lists.directory(), [member(1), member(2)]);
    }
}
