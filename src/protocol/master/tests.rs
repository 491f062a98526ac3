//! The master's decisions, driven by hand: each test is a short story of inputs and effects.

use std::{sync::Arc, time::Duration};

use sha2::{Digest, Sha256};

use super::*;
use crate::model::{
    ids::{
        Author, BoardName, Fingerprint, Incarnation, PostId, Registration, Role, Seq, StoreEpoch,
        UserId,
    },
    message::{AssignReply, Beat, CloseReason, Fact, ForwardReply, Member, MemberState},
    outcome::TaskResult,
    rows::{Lease, NewPost, Renewed},
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
}

impl Lab {
    /// Master 1, strong, with so many workers that reach the store, on links 1.. .
    fn new(workers: u8) -> Self {
        let config = Config::default();
        let mut lab =
            Self { master: Master::new(at(0), holder(1), config), now: at(0), out: vec![] };
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
        self.master.on_worker(self.now, link, member, &mut self.out).expect("taken in");
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

    /// The next effect that `want` knows, taken out with all before it.
    fn take<T>(&mut self, want: impl Fn(&Effect) -> Option<T>) -> Option<T> {
        let at = self.out.iter().position(|effect| want(effect).is_some())?;
        let found = want(&self.out[at]);
        self.out.drain(..=at);
        found
    }

    fn assigned(&mut self) -> Option<(Slot, AttemptId, LinkId, Assign)> {
        self.take(|effect| match effect {
            Effect::Assign { link, slot, attempt, assign } => {
                Some((*slot, *attempt, *link, assign.clone()))
            }
            _ => None,
        })
    }

    fn answer(&mut self, slot: Slot, attempt: AttemptId, answer: Result<AssignReply, CallFailed>) {
        self.master.on_attempt(self.now, slot, attempt, answer, &mut self.out);
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

#[test]
fn a_post_goes_from_queue_to_lease_to_worker_to_its_author() {
    let mut lab = Lab::new(1);
    let id = lab.submit(1);
    lab.grant(7);
    let (slot, attempt, link, assign) = lab.assigned().expect("a worker gets it");
    assert_eq!((link, assign.permission.token.lease, assign.permission.token.n), (LinkId(1), 7, 1));
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    let published = lab.take(|effect| match effect {
        Effect::Publish { update: Update::Posts { posts, .. }, spread: true } => Some(posts.len()),
        _ => None,
    });
    assert_eq!(published, Some(1), "told before the author hears of it");
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
}

#[test]
fn what_waits_behind_a_batch_goes_together_under_a_higher_token() {
    let mut lab = Lab::new(1);
    lab.submit(1);
    lab.grant(1);
    let (slot, attempt, _, first) = lab.assigned().expect("at once");
    lab.submit(2);
    lab.submit(3);
    assert!(lab.assigned().is_none(), "one batch of a resource is in flight");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    let (_, _, _, second) = lab.assigned().expect("the next batch");
    assert_eq!(second.tasks.len(), 2);
    assert!(second.permission.token > first.permission.token);
}

#[test]
fn a_silent_worker_is_tried_again_with_its_token_then_listed_and_the_token_raised() {
    let mut lab = Lab::new(2);
    let id = lab.submit(1);
    lab.grant(1);
    let (slot, attempt, first_link, first) = lab.assigned().expect("the first try");
    lab.answer(slot, attempt, Err(CallFailed::TimedOut));
    assert!(lab.assigned().is_none(), "there is a pause between tries");
    lab.pass(200);
    let (_, attempt, link, again) = lab.assigned().expect("the second try");
    assert_eq!((link, &again), (first_link, &first), "same worker, same token, same batch");
    lab.answer(slot, attempt, Err(CallFailed::TimedOut));
    let failed = first.permission.worker;
    assert!(lab.has(|effect| matches!(effect,
        Effect::Close { link, close } if *link == first_link && close.reason == CloseReason::Listed)));
    assert!(lab.has(|e| matches!(e, Effect::Event(Event::Fail { node, .. }) if *node == failed)));
    assert!(lab.has(|e| matches!(e, Effect::Event(Event::List { node, .. }) if *node == failed)));
    let (_, attempt, link, other) = lab.assigned().expect("another worker");
    assert_ne!(link, first_link);
    assert!(other.permission.token > first.permission.token, "the token is raised");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
}

#[test]
fn a_listed_worker_gets_nothing_until_it_has_registered_again() {
    let mut lab = Lab::new(1);
    lab.submit(1);
    lab.grant(1);
    let (slot, attempt, ..) = lab.assigned().expect("the first try");
    lab.answer(slot, attempt, Err(CallFailed::Gone));
    assert!(lab.assigned().is_none(), "nobody else is eligible: it waits");
    lab.pass(1000);
    assert!(lab.assigned().is_none());
    lab.join(1, 2);
    let (_, _, link, assign) = lab.assigned().expect("it is back");
    assert_eq!((link, assign.registration), (LinkId(101), Registration(2)));
}

#[test]
fn a_single_task_that_nobody_answers_to_becomes_a_dead_letter() {
    let mut lab = Lab::new(3);
    let id = lab.submit(1);
    lab.grant(1);
    for _ in 0..4 {
        let (slot, attempt, ..) = lab.assigned().expect("four tries in all");
        lab.answer(slot, attempt, Err(CallFailed::TimedOut));
        if !lab.has(|effect| matches!(effect, Effect::DeadLetter(_) | Effect::Assign { .. })) {
            lab.pass(200);
        }
    }
    assert!(lab.has(|effect| matches!(effect, Effect::DeadLetter(_))));
    assert_eq!(lab.ended(), Some((id, Outcome::DeadLetter)));
    assert_eq!(lab.master.queue().total(), 0);
}

#[test]
fn a_batch_that_breaks_the_store_is_split_at_once_and_costs_no_worker() {
    let mut lab = Lab::new(1);
    lab.submit(1);
    lab.grant(1);
    let (slot, attempt, ..) = lab.assigned().expect("the first batch");
    let (second, third) = (lab.submit(2), lab.submit(3));
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    let (_, attempt, _, batch) = lab.assigned().expect("the next two");
    assert_eq!(batch.tasks.len(), 2);
    let broken = || Ok(AssignReply::Broken { why: "disk image is malformed".to_owned() });
    lab.answer(slot, attempt, broken());
    let (_, attempt, _, alone) = lab.assigned().expect("the first of them alone");
    assert_eq!(alone.tasks.len(), 1);
    lab.answer(slot, attempt, broken());
    assert_eq!(lab.ended(), Some((second, Outcome::DeadLetter)));
    let (_, attempt, ..) = lab.assigned().expect("the other alone");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(2)])));
    assert_eq!(lab.ended(), Some((third, Outcome::Settled(committed(2)))));
    assert!(lab.master.failed().iter().next().is_none());
}

#[test]
fn a_store_that_is_away_costs_no_attempt() {
    let mut lab = Lab::new(1);
    let id = lab.submit(1);
    lab.grant(1);
    for _ in 0..10 {
        let (slot, attempt, ..) = lab.assigned().expect("tried again for ever");
        let away = AssignReply::StoreAway { why: "no answer".to_owned() };
        lab.answer(slot, attempt, Ok(away));
        lab.pass(1100);
        if !lab.has(|effect| matches!(effect, Effect::Assign { .. })) {
            lab.grant(2);
        }
    }
    let (slot, attempt, ..) = lab.assigned().expect("still tried");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
}

#[test]
fn a_late_answer_of_a_worker_that_was_given_up_changes_nothing() {
    let mut lab = Lab::new(2);
    let id = lab.submit(1);
    lab.grant(1);
    let (slot, late, ..) = lab.assigned().expect("the first try");
    lab.answer(slot, late, Err(CallFailed::Gone));
    let (_, attempt, ..) = lab.assigned().expect("another worker");
    lab.answer(slot, late, Ok(AssignReply::Done(vec![committed(9)])));
    assert!(lab.ended().is_none());
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
    assert!(lab.ended().is_none(), "each task ends once");
}

#[test]
fn a_task_of_anothers_board_is_forwarded_once_and_comes_back_with_its_outcome() {
    let mut lab = Lab::new(1);
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    let id = lab.submit(1);
    lab.held_by(holder(2));
    let forwarded = lab.take(|effect| match effect {
        Effect::Forward { link, id, .. } => Some((*link, *id)),
        _ => None,
    });
    assert_eq!(forwarded, Some((LinkId(50), id)));
    let settled = ForwardReply::Ended(Outcome::Settled(committed(4)));
    lab.master.on_forward(lab.now, id, Ok(settled), &mut lab.out);
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(4)))));
}

#[test]
fn a_forwarded_task_is_never_forwarded_again() {
    let mut lab = Lab::new(1);
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    let id = lab
        .master
        .on_forwarded(lab.now, holder(3).node, post(1), &mut lab.out)
        .expect("it may be coordinated here");
    lab.held_by(holder(2));
    let back = lab.take(|effect| match effect {
        Effect::SendBack { id, holder } => Some((*id, *holder)),
        _ => None,
    });
    assert_eq!(back, Some((id, Some(holder(2)))));
    assert!(!lab.has(|effect| matches!(effect, Effect::Forward { .. })));
    let next = lab.master.on_forwarded(lab.now, holder(3).node, post(2), &mut lab.out);
    assert_eq!(next, Err(ForwardReply::HeldBy(Some(holder(2)))), "known now");
}

#[test]
fn what_is_known_of_a_holder_is_asked_anew_once_its_term_ran_out() {
    let mut lab = Lab::new(1);
    lab.master.on_forwarded(lab.now, holder(3).node, post(1), &mut lab.out).expect("taken");
    lab.held_by(holder(3));
    lab.out.clear();
    lab.pass(3100);
    // The holder of then sends it here itself: it is the holder no more.
    let id = lab.master.on_forwarded(lab.now, holder(3).node, post(2), &mut lab.out);
    let id = id.expect("who holds it now is not known");
    lab.grant(8);
    let (slot, attempt, ..) = lab.assigned().expect("done here");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
}

#[test]
fn when_the_coordinator_dies_its_lease_is_taken_and_the_task_done_here() {
    let mut lab = Lab::new(1);
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    let id = lab.submit(1);
    lab.held_by(holder(2));
    lab.out.clear();
    lab.master.on_forward(lab.now, id, Err(CallFailed::Gone), &mut lab.out);
    let over = LinkOver::Lost("broken".to_owned());
    lab.master.on_link_over(lab.now, LinkId(50), &over, &mut lab.out);
    assert!(lab.has(|effect| matches!(effect, Effect::Wish { .. })));
    lab.grant(8);
    let (slot, attempt, _, assign) = lab.assigned().expect("done here");
    assert_eq!(assign.permission.token.lease, 8);
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
}

#[test]
fn the_lease_of_a_dead_coordinator_is_taken_for_a_master_without_workers_too() {
    let mut lab = Lab::new(1);
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    let from = holder(3).node;
    let forward = |lab: &mut Lab, n| lab.master.on_forwarded(lab.now, from, post(n), &mut lab.out);
    forward(&mut lab, 1).expect("it may be coordinated here");
    lab.held_by(holder(2));
    let over = LinkOver::Lost("broken".to_owned());
    lab.master.on_link_over(lab.now, LinkId(50), &over, &mut lab.out);
    lab.out.clear();
    assert!(forward(&mut lab, 2).is_err(), "its term may still run");
    lab.pass(3100);
    let id = forward(&mut lab, 3).expect("its term is over");
    assert_eq!(lab.ended(), None, "and it is not sent back to the dead one");
    lab.grant(8);
    let (slot, attempt, ..) = lab.assigned().expect("done here");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
}

#[test]
fn a_silent_holder_is_wished_away_and_its_tasks_are_taken_back() {
    let mut lab = Lab::new(1);
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    let id = lab.submit(1);
    lab.held_by(holder(2));
    lab.out.clear();
    lab.pass(2100);
    assert!(lab.has(|effect| matches!(effect, Effect::Wish { .. })));
    lab.grant(3);
    let (slot, attempt, ..) = lab.assigned().expect("taken back");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
    let late = ForwardReply::Ended(Outcome::Settled(committed(1)));
    lab.master.on_forward(lab.now, id, Ok(late), &mut lab.out);
    assert!(lab.ended().is_none(), "each task ends once");
}

#[test]
fn a_lease_is_asked_for_once_however_many_wait_for_its_silent_holder() {
    let mut lab = Lab::new(1);
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    lab.submit(1);
    lab.held_by(holder(2));
    lab.pass(50);
    lab.submit(2);
    lab.out.clear();
    lab.pass(2100);
    lab.pass(50);
    let asked =
        lab.out.iter().filter(|effect| matches!(effect, Effect::AcquireLease { .. })).count();
    assert_eq!(asked, 1, "{:?}", lab.out);
}

#[test]
fn a_wanted_lease_is_released_after_the_attempt_in_flight() {
    let mut lab = Lab::new(1);
    lab.submit(1);
    lab.grant(5);
    let (slot, attempt, ..) = lab.assigned().expect("in flight");
    let waiting = lab.submit(2);
    let lobby = Resource::Board(BoardName::lobby());
    let (asked, answers) = ([(lobby.clone(), 5)], [(lobby, Renewed::Wanted)]);
    lab.master.on_renewed(lab.now, lab.now, &asked, &answers, &mut lab.out);
    assert!(!lab.has(|effect| matches!(effect, Effect::ReleaseLease { .. })));
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert!(lab.has(|effect| matches!(effect, Effect::ReleaseLease { lease: 5, .. })));
    assert!(lab.assigned().is_none(), "what waits goes to the next holder");
    lab.pass(600);
    lab.held_by(holder(2));
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    assert!(lab.has(|effect| matches!(effect, Effect::Forward { id, .. } if *id == waiting)));
}

#[test]
fn a_weak_master_does_nothing_and_says_so_only_of_what_was_never_sent() {
    let mut lab = Lab::new(1);
    let sent = lab.submit(1);
    lab.grant(1);
    let (slot, attempt, ..) = lab.assigned().expect("in flight");
    let unsent = lab.submit(2);
    lab.now = at(2500);
    lab.answer(slot, attempt, Ok(AssignReply::StoreAway { why: String::new() }));
    lab.wrote(false);
    lab.now = at(5000);
    lab.wrote(false);
    assert_eq!(lab.ended(), Some((unsent, Outcome::Unavailable { retry_ms: RETRY_MS })));
    assert!(lab.ended().is_none(), "what was sent has no such answer");
    assert_eq!(lab.master.on_waited(sent), Outcome::Unknown);
    let refused = lab.master.on_submit(lab.now, post(3), &mut lab.out);
    assert_eq!(refused, Err(Outcome::Unavailable { retry_ms: RETRY_MS }));
}

#[test]
fn a_full_queue_refuses_and_keeps_what_it_has() {
    let config = Config { queue_tasks_max: 2, ..Config::default() };
    let mut lab = Lab::new(0);
    lab.master = Master::new(at(0), holder(1), config);
    lab.wrote(true);
    lab.submit(1);
    lab.submit(2);
    let refused = lab.master.on_submit(lab.now, post(3), &mut lab.out);
    assert_eq!(refused, Err(Outcome::Overloaded { retry_ms: RETRY_MS }));
    assert_eq!(lab.master.queue().total(), 2);
}

#[test]
fn joins_leaves_and_failures_are_told_to_everyone_once() {
    let mut lab = Lab::new(0);
    lab.join(1, 1);
    lab.join(2, 1);
    lab.master.on_link_over(lab.now, LinkId(1), &LinkOver::Left, &mut lab.out);
    let lost = LinkOver::Lost("silent".to_owned());
    lab.master.on_link_over(lab.now, LinkId(2), &lost, &mut lab.out);
    let told: Vec<_> = lab
        .out
        .iter()
        .filter_map(|effect| match effect {
            Effect::Publish { update: Update::Members(members), spread: true } => {
                Some((members[0].name.clone(), members[0].fact.state))
            }
            _ => None,
        })
        .collect();
    let (one, two) = ("worker-1".to_owned(), "worker-2".to_owned());
    assert_eq!(
        told,
        [
            (one.clone(), MemberState::In),
            (two.clone(), MemberState::In),
            (one, MemberState::Left),
            (two, MemberState::Failed),
        ]
    );
}

#[test]
fn a_worker_that_registered_elsewhere_is_let_go() {
    let mut lab = Lab::new(1);
    let mut moved = worker(1, 2);
    moved.fact.master = holder(2).node;
    lab.master.on_members(lab.now, LinkId(50), vec![moved], &mut lab.out);
    assert!(lab.master.registrations().is_empty());
    assert!(lab.has(|effect| matches!(effect,
        Effect::Close { link, close } if *link == LinkId(1) && close.reason == CloseReason::Replaced)));
    let back = lab.master.on_worker(lab.now, LinkId(9), worker(1, 2), &mut lab.out);
    assert!(back.is_err(), "only a higher registration wins");
}

/// Whatever happens, each task ends at most once and no token is given out twice.
mod properties {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Move {
        Submit,
        Grant,
        Refuse,
        Done,
        Away,
        Fenced,
        TimedOut,
        Gone,
        Lost,
        Pass,
        Rejoin(u8),
        LinkOver(u8),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        use Move::*;
        let one = prop_oneof![
            4 => Just(Submit), 4 => Just(Grant), 1 => Just(Refuse), 4 => Just(Done),
            1 => Just(Away), 1 => Just(Fenced), 2 => Just(TimedOut), 1 => Just(Gone),
            1 => Just(Lost), 3 => Just(Pass), 2 => (1..4u8).prop_map(Rejoin),
            1 => (1..4u8).prop_map(LinkOver),
        ];
        prop::collection::vec(one, 1..120)
    }

    proptest! {
        #[test]
        fn every_task_ends_once_and_every_token_is_new(moves in moves()) {
            let mut lab = Lab::new(3);
            let mut registrations = [1_u64; 4];
            let (mut asks, mut attempts) = (Vec::new(), Vec::new());
            let (mut ended, mut tokens) = (BTreeSet::new(), BTreeSet::new());
            let (mut lease, mut submitted) = (0, 0_usize);
            for one in moves {
                match one {
                    Move::Submit => { lab.submit(1); submitted += 1; }
                    Move::Grant => if let Some(slot) = asks.pop() {
                        lease += 1;
                        let answer = Lease::Granted { epoch: StoreEpoch(1), lease, n: 0 };
                        lab.master.on_lease(lab.now, slot, lab.now, Some(answer), &mut lab.out);
                    },
                    Move::Refuse => if let Some(slot) = asks.pop() {
                        lab.master.on_lease(lab.now, slot, lab.now, None, &mut lab.out);
                    },
                    Move::Lost => {
                        let lobby = Resource::Board(BoardName::lobby());
                        let (asked, lost) = ([(lobby.clone(), lease)], [(lobby, Renewed::Lost)]);
                        lab.master.on_renewed(lab.now, lab.now, &asked, &lost, &mut lab.out);
                    }
                    Move::Pass => lab.pass(1000),
                    Move::Rejoin(n) => {
                        registrations[n as usize] += 1;
                        lab.join(n, registrations[n as usize]);
                    }
                    Move::LinkOver(n) => {
                        let link = LinkId(u64::from(n) + 100 * (registrations[n as usize] - 1));
                        let over = LinkOver::Lost(String::new());
                        lab.master.on_link_over(lab.now, link, &over, &mut lab.out);
                    }
                    Move::Done | Move::Away | Move::Fenced | Move::TimedOut | Move::Gone => {
                        let Some((slot, attempt, tasks)) = attempts.pop() else { continue };
                        let answer = match one {
                            Move::Done => Ok(AssignReply::Done(vec![committed(1); tasks])),
                            Move::Away => Ok(AssignReply::StoreAway { why: String::new() }),
                            Move::Fenced => Ok(AssignReply::Fenced),
                            Move::TimedOut => Err(CallFailed::TimedOut),
                            _ => Err(CallFailed::Gone),
                        };
                        lab.answer(slot, attempt, answer);
                    }
                }
                for effect in std::mem::take(&mut lab.out) {
                    match effect {
                        Effect::AcquireLease { slot, .. } => asks.push(slot),
                        Effect::Assign { slot, attempt, assign, .. } => {
                            let Assign { registration, permission, tasks } = assign;
                            attempts.push((slot, attempt, tasks.len()));
                            let who = (permission.worker, registration);
                            tokens.insert((permission.token, who, Arc::as_ptr(&tasks).addr()));
                        }
                        Effect::End { id, .. } | Effect::SendBack { id, .. } => prop_assert!(ended.insert(id), "{id:?} ended twice"),
                        _ => {}
                    }
                }
                // One token names one worker and one batch.
                let distinct: BTreeSet<_> = tokens.iter().map(|(token, ..)| *token).collect();
                prop_assert_eq!(distinct.len(), tokens.len());
                prop_assert!(ended.len() + lab.master.queue().total() == submitted);
            }
        }
    }
}
