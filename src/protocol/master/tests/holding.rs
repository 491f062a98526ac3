//! Posts that workers hold while the store is away, and hand in afterwards.

use super::*;
use crate::model::stream::HeldState;

impl Lab {
    /// The store goes, for long enough that this master is weak.
    fn weaken(&mut self) {
        self.now = self.now + Duration::from_millis(2500);
        self.wrote(false);
    }

    /// The next post that is to be held, and the links to ask over.
    fn holds(&mut self) -> Option<(TaskId, Vec<(LinkId, u8)>)> {
        self.take(|effect| match effect {
            Effect::Hold { id, holders, .. } => Some((*id, holders.clone())),
            _ => None,
        })
    }

    fn hand_in(&mut self, n: u8) -> Result<TaskId, Outcome> {
        let Task::Post { board, post } = post(n) else { unreachable!("it is a post") };
        self.master.on_handed_in(self.now, HeldPost { board, post }, &mut self.out)
    }

    fn linked(&mut self, can_write: bool) {
        self.master.on_master(self.now, LinkId(50), holder(2).node, &mut self.out);
        let beat = Beat { reaches_store: can_write };
        self.master.on_beat(self.now, LinkId(50), beat, &mut self.out);
    }
}

const UNAVAILABLE: Outcome = Outcome::Unavailable { retry_ms: RETRY_MS };

#[test]
fn post_is_held_by_own_workers_in_turn_then_by_those_of_other_masters() {
    let mut lab = Lab::new(2);
    lab.linked(false);
    lab.weaken();
    let ids = [lab.submit(1), lab.submit(2)];
    let (first, second) = (lab.holds().expect("one"), lab.holds().expect("two"));
    assert_eq!([first.0, second.0], ids);
    let (one, two, other) = (LinkId(1), LinkId(2), LinkId(50));
    let mut orders = [first.1, second.1];
    orders.sort();
    let [one, two] = [one, two].map(|link| (link, 0));
    let [other, again] = [0, 1].map(|copy| (other, copy));
    assert_eq!(orders, [vec![one, two, other, again], vec![two, one, other, again]]);
    let end = HoldEnd { copies: 2, ..HoldEnd::default() };
    lab.master.on_hold_end(ids[1], end, &mut lab.out);
    let before = lab.submit(2);
    assert_eq!(lab.holds(), Some((before, vec![one, two, other, again])), "as the first time");
    let end = HoldEnd { copies: 2, ..HoldEnd::default() };
    lab.out.clear();
    lab.master.on_hold_end(ids[0], end, &mut lab.out);
    let state = HeldState::Pending;
    let update = Update::Pending { user: UserId([1; 16]), id: PostId([1; 16]), state };
    assert!(lab.has(|e| *e == Effect::Publish { update: update.clone(), spread: true }));
    assert_eq!(lab.ended(), Some((ids[0], Outcome::Pending { copies: 2 })));
    assert_eq!(lab.master.queue().total(), 1);
}

#[test]
fn worker_that_ends_is_asked_to_hold_nothing() {
    let mut lab = Lab::new(3);
    lab.linked(false);
    lab.weaken();
    let (ends, unknown) = (LinkId(1), LinkId(99));
    lab.master.on_worker_ends(ends);
    lab.master.on_worker_ends(unknown);
    assert!(lab.master.is_ending(ends) && !lab.master.is_ending(unknown));
    lab.submit(1);
    let (_, mut holders) = lab.holds().expect("one");
    assert_eq!(holders, lab.master.holders(&PostId([1; 16])));
    holders.sort_unstable();
    assert_eq!(
        holders,
        [(2, 0), (3, 0), (50, 0), (50, 1)].map(|(link, copy)| (LinkId(link), copy))
    );
    lab.master.on_link_over(lab.now, ends, &LinkOver::Left, &mut lab.out);
    assert!(!lab.master.is_ending(ends), "nothing is kept of a link that is over");
}

#[test]
fn worker_that_ends_finishes_its_batch_and_gets_no_other_unless_it_stays() {
    let mut lab = Lab::new(2);
    lab.submit(1);
    lab.grant(1);
    let (slot, attempt, ends, _) = lab.assigned().expect("in flight");
    lab.master.on_worker_ends(ends);
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert!(lab.ended().is_some());
    for n in 2..5 {
        lab.submit(n);
        let (slot, attempt, link, _) = lab.assigned().expect("in flight");
        assert_ne!(link, ends);
        lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(u64::from(n))])));
    }
    lab.submit(5);
    let (slot, attempt, other, _) = lab.assigned().expect("in flight");
    lab.master.on_worker_ends(other);
    lab.answer(slot, attempt, Err(CallFailed::TimedOut));
    lab.pass(200);
    assert!(lab.assigned().is_none(), "it is not tried again where it cannot end");
    lab.master.on_worker_stays(lab.now, ends, &mut lab.out);
    assert_eq!(lab.assigned().map(|sent| sent.2), Some(ends));
}

#[test]
fn posts_in_the_queue_and_in_flight_are_held_when_the_store_goes() {
    let mut lab = Lab::new(1);
    let sent = lab.submit(1);
    lab.grant(1);
    let (slot, attempt, ..) = lab.assigned().expect("in flight");
    let waits = lab.submit(2);
    lab.weaken();
    assert_eq!(lab.holds().map(|held| held.0), Some(waits));
    lab.answer(slot, attempt, Ok(AssignReply::StoreAway { why: String::new() }));
    assert_eq!(lab.holds().map(|held| held.0), Some(sent));
}

#[test]
fn nothing_is_held_while_another_master_can_write_nor_when_a_life_begins() {
    let mut lab = Lab::new(1);
    lab.linked(true);
    lab.weaken();
    lab.submit(1);
    assert!(lab.has(|effect| matches!(effect, Effect::Forward { .. })));
    assert_eq!(lab.holds(), None);

    let mut lab = Lab::new(1);
    lab.master = Master::new(at(0), holder(1), Config::default());
    lab.join(1, 1);
    assert_eq!(lab.master.on_submit(at(1900), post(1), &mut lab.out), Err(UNAVAILABLE));
    assert!(lab.master.on_submit(at(2000), post(1), &mut lab.out).is_ok());
    assert!(lab.holds().is_some());
}

#[test]
fn no_other_task_than_a_post_is_held() {
    let mut lab = Lab::new(2);
    lab.weaken();
    let tasks = [
        Task::CreateBoard { board: "dev".parse().expect("a name") },
        Task::CancelPost { user: UserId([1; 16]), id: PostId([1; 16]) },
    ];
    for task in tasks {
        assert_eq!(lab.master.on_submit(lab.now, task, &mut lab.out), Err(UNAVAILABLE));
    }
}

#[test]
fn outcome_says_nothing_was_done_only_when_no_worker_may_hold_the_post() {
    let end = |copies, conflict, in_doubt| HoldEnd { copies, conflict, in_doubt };
    let conflict = Outcome::Settled(TaskResult::Conflict);
    for (end, outcome) in [
        (end(1, false, true), Outcome::Pending { copies: 1 }),
        (end(0, false, false), UNAVAILABLE),
        (end(0, false, true), Outcome::Unknown),
        (end(0, true, false), conflict),
        (end(0, true, true), Outcome::Unknown),
        // One of both is written, and the other refused: which one is not known.
        (end(1, true, false), Outcome::Unknown),
    ] {
        let mut lab = Lab::new(2);
        lab.weaken();
        let id = lab.submit(1);
        lab.master.on_hold_end(id, end, &mut lab.out);
        assert_eq!(lab.ended(), Some((id, outcome)), "{end:?}");
        lab.master.on_hold_end(id, end, &mut lab.out);
        assert_eq!(lab.ended(), None, "it ended");
    }
}

#[test]
fn held_post_is_written_as_any_other_and_is_not_held_again() {
    let mut lab = Lab::new(1);
    lab.weaken();
    assert_eq!(lab.hand_in(1), Err(UNAVAILABLE));
    lab.wrote(true);
    let id = lab.hand_in(1).expect("taken");
    lab.weaken();
    assert_eq!(lab.holds(), None);
    assert_eq!(lab.ended(), Some((id, UNAVAILABLE)));

    let mut lab = Lab::new(1);
    let id = lab.hand_in(2).expect("taken");
    lab.grant(1);
    let (slot, attempt, _, assign) = lab.assigned().expect("in flight");
    assert_eq!(*assign.tasks, [post(2)]);
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
}

#[test]
fn held_post_is_forwarded_to_a_master_that_can_write() {
    let mut lab = Lab::new(1);
    lab.weaken();
    lab.linked(true);
    let id = lab.hand_in(1).expect("taken");
    assert_eq!(lab.forwarded().map(|(.., tasks)| tasks), Some(vec![id]));
}
