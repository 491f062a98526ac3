//! The master's decisions, driven by hand: each test is a short story of inputs and effects.

mod attempts;
mod dials;
mod drain;
mod forwards;
mod holding;
mod in_flight;
mod leases;
mod members;
mod properties;
mod tasks;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};

use super::*;
use crate::{
    model::{
        ids::{
            Author, BoardName, Fingerprint, Incarnation, PostId, Registration, Role, Seq,
            StoreEpoch, UserId,
        },
        message::{
            Assign, AssignReply, Beat, CloseReason, Fact, ForwardReply, Member, MemberState,
        },
        outcome::TaskResult,
        rows::{Lease, NewPost, Renewed},
    },
    protocol::{assignment::AttemptId, calls::Attempt, key_refresh::FIRST_EPOCH, tries::Assignee},
};

fn at(ms: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(ms)
}

fn holder(n: u8) -> Holder {
    Holder { node: NodeId([n; 16]), incarnation: Incarnation(1) }
}

/// Worker `n`: its id is the hash of its key.
fn worker(n: u8, registration: u64) -> Member {
    let spki = vec![n; 8];
    let hash: [u8; 32] = Sha256::digest(&spki).into();
    let fact = Fact {
        node: NodeId::of(&Fingerprint(hash)),
        role: Role::Worker,
        registration: Registration(registration),
        state: MemberState::In,
        master: holder(1).node,
    };
    Member { fact, name: format!("worker-{n}"), link: None, http: None, spki }
}

fn post(n: u8) -> Task {
    let author = Author { id: UserId([n; 16]), name: "Ada".parse().expect("a name") };
    let post = NewPost { id: PostId([n; 16]), author, text: "hello".parse().expect("a text") };
    Task::Post { board: BoardName::lobby(), post }
}

fn committed(seq: u64) -> TaskResult {
    TaskResult::Committed { seq: Seq(seq), posted_at_ms: seq }
}

/// One master, and what it decided so far.
struct Lab {
    master: Master,
    now: Mono,
    out: Vec<Effect>,
    /// Worker of each attempt that was looked at.
    callees: BTreeMap<AttemptId, Assignee>,
}

impl Lab {
    /// Master 1, strong, with so many workers that reach the store, on links 1.. , and one batch of
    /// a resource in flight.
    fn new(workers: u8) -> Self {
        Self::with_in_flight(workers, 1)
    }

    /// As [`Self::new`], with so many batches of a resource in flight.
    fn with_in_flight(workers: u8, batches: usize) -> Self {
        let config = Config { batches_in_flight: batches, ..Config::default() };
        let master = Master::new(at(0), holder(1), config);
        let mut lab = Self { master, now: at(0), out: vec![], callees: BTreeMap::new() };
        lab.wrote(true);
        for n in 1..=workers {
            lab.join(n, 1);
        }
        lab.out.clear();
        lab
    }

    fn join(&mut self, n: u8, registration: u64) {
        let link = LinkId(u64::from(n) + 100 * (registration - 1));
        let member = worker(n, registration);
        self.master
            .on_worker(self.now, link, member, Some(FIRST_EPOCH), &mut self.out)
            .expect("taken in");
        let beat = Beat { reaches_store: true };
        self.master.on_beat(self.now, link, beat, &mut self.out);
    }

    fn wrote(&mut self, done: bool) {
        self.master.on_store_write(self.now, done, &mut self.out);
    }

    /// Time passes; the master stays strong.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.now = self.now + Duration::from_millis(100);
            self.wrote(true);
            self.master.on_time(self.now, &mut self.out);
        }
    }

    fn submit(&mut self, n: u8) -> TaskId {
        self.master.on_submit(self.now, post(n), &mut self.out).expect("taken")
    }

    fn grant(&mut self, lease: u64) {
        let Some(slot) = self.take(|effect| match effect {
            Effect::AcquireLease { slot, .. } => Some(*slot),
            _ => None,
        }) else {
            panic!("no lease was asked for: {:?}", self.out)
        };
        let answer = Some(Lease::Granted { epoch: StoreEpoch(1), lease, n: 0 });
        self.master.on_lease(self.now, slot, self.now, answer, &mut self.out);
    }

    fn held_by(&mut self, other: Holder) {
        let slot = self
            .take(|effect| match effect {
                Effect::AcquireLease { slot, .. } => Some(*slot),
                _ => None,
            })
            .expect("a lease is asked for");
        let answer = Some(Lease::HeldBy { holder: other, left_ms: 3000 });
        self.master.on_lease(self.now, slot, self.now, answer, &mut self.out);
    }

    /// Master 2 is linked on this link, and its driver spoke.
    fn is_linked(&mut self, link: LinkId, reaches_store: bool) {
        self.master.on_master(self.now, link, holder(2).node, &mut self.out);
        self.master.on_beat(self.now, link, Beat { reaches_store }, &mut self.out);
    }

    /// Master 2 is linked on link 50 and can have things written; the store lists it in this life.
    fn writer_is_linked(&mut self, incarnation: u64) {
        self.is_linked(LinkId(50), true);
        let row = crate::protocol::master_watch::tests::row(2, incarnation, 1);
        self.master.on_masters(self.now, Some(vec![row]), &mut self.out);
    }

    /// The master in whose name a lease is wished for next.
    fn wished(&mut self) -> Option<Holder> {
        self.take(|effect| match effect {
            Effect::Wish { by, .. } => Some(*by),
            _ => None,
        })
    }

    /// Has a post to this board forwarded to master 2, and answered there.
    fn held_elsewhere(&mut self, board: &str, id: u8) {
        self.master.on_master(self.now, LinkId(50), holder(2).node, &mut self.out);
        let Task::Post { post, .. } = post(id) else { unreachable!() };
        let task = Task::Post { board: board.parse().expect("a name"), post };
        let id = self.master.on_submit(self.now, task, &mut self.out).expect("taken");
        self.held_by(holder(2));
        self.forward_ends(id, Ok(ForwardReply::Ended(Outcome::Settled(committed(1)))));
        self.out.clear();
    }

    /// The next tasks that are forwarded together.
    fn forwarded(&mut self) -> Option<(LinkId, ForwardId, Vec<TaskId>)> {
        self.take(|effect| match effect {
            Effect::Forward { link, call, tasks } => {
                Some((*link, *call, tasks.iter().map(|(id, _)| *id).collect()))
            }
            _ => None,
        })
    }

    /// Ends the last call with forwarded tasks, which had this one.
    fn forward_ends(&mut self, id: TaskId, answer: Result<ForwardReply, CallFailed>) {
        let call = self.master.last_forward;
        self.master.on_forward(self.now, call, [(id, answer)], &mut self.out);
    }

    /// A task comes from another master.
    fn takes_forward(&mut self, from: NodeId, task: Task) -> Result<TaskId, ForwardReply> {
        self.master.on_forwarded(self.now, from, [task], &mut self.out).remove(0)
    }

    /// The next effect that `want` knows, taken out with all before it.
    fn take<T>(&mut self, want: impl Fn(&Effect) -> Option<T>) -> Option<T> {
        let at = self.out.iter().position(|effect| want(effect).is_some())?;
        let found = want(&self.out[at]);
        self.out.drain(..=at);
        found
    }

    /// The next batch that is given out, alone in its call.
    fn assigned(&mut self) -> Option<(Slot, AttemptId, LinkId, Assign)> {
        let (link, call) = self.take(|effect| match effect {
            Effect::Assign { link, call } => Some((*link, call.clone())),
            _ => None,
        })?;
        let [Attempt { slot, number, assign, .. }] = &call.attempts[..] else { panic!("{call:?}") };
        self.callees.insert(*number, call.worker);
        Some((*slot, *number, link, assign.clone()))
    }

    /// Ends the call that [`Self::assigned`] returned.
    fn answer(&mut self, slot: Slot, attempt: AttemptId, answer: Result<AssignReply, CallFailed>) {
        let worker = self.callees[&attempt];
        let end = AttemptEnd { slot, attempt, answer };
        self.master.on_call(self.now, worker, [end], &mut self.out);
    }

    fn ended(&mut self) -> Option<(TaskId, Outcome)> {
        self.take(|effect| match effect {
            Effect::End { id, outcome } => Some((*id, outcome.clone())),
            _ => None,
        })
    }

    fn has(&self, want: impl Fn(&Effect) -> bool) -> bool {
        self.out.iter().any(want)
    }
}
