//! Tasks that other masters coordinate.

use super::*;

/// Returns a master with a worker whose task went to master 2, which holds the lease.
fn with_forwarded_task() -> (Lab, TaskId) {
    let mut lab = Lab::new(1);
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    let id = lab.submit(1);
    lab.held_by(holder(2));
    (lab, id)
}

fn forwarded(lab: &mut Lab) -> Option<(LinkId, TaskId)> {
    let (link, _, tasks) = lab.forwarded()?;
    let [id] = tasks[..] else { panic!("{tasks:?}") };
    Some((link, id))
}

#[test]
fn task_of_another_masters_board_is_forwarded_and_comes_back_with_its_outcome() {
    let (mut lab, id) = with_forwarded_task();
    assert_eq!(forwarded(&mut lab), Some((LinkId(50), id)));
    let settled = ForwardReply::Ended(Outcome::Settled(committed(4)));
    lab.forward_ends(id, Ok(settled));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(4)))));
}

#[test]
fn forwarded_task_is_sent_back_and_never_forwarded_again() {
    let mut lab = Lab::new(1);
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    let id = lab.takes_forward(holder(3).node, post(1)).expect("it may be coordinated here");
    lab.held_by(holder(2));
    let back = lab.take(|effect| match effect {
        Effect::SendBack { id, holder } => Some((*id, *holder)),
        _ => None,
    });
    assert_eq!(back, Some((id, Some(holder(2)))));
    assert!(!lab.has(|effect| matches!(effect, Effect::Forward { .. })));
    let next = lab.takes_forward(holder(3).node, post(2));
    assert_eq!(next, Err(ForwardReply::HeldBy(Some(holder(2)))), "known now");
}

#[test]
fn holder_out_of_reach_is_wished_away_in_the_name_of_the_master_that_gets_the_task() {
    let mut lab = Lab::new(0);
    lab.writer_is_linked(4);
    let id = lab.submit(1);
    assert_eq!(forwarded(&mut lab), Some((LinkId(50), id)));
    lab.forward_ends(id, Ok(ForwardReply::HeldBy(Some(holder(3)))));
    lab.pass(400);
    assert!(!lab.has(|effect| matches!(effect, Effect::Wish { .. } | Effect::Forward { .. })));
    lab.pass(100);
    assert_eq!(lab.wished(), Some(Holder { incarnation: Incarnation(4), ..holder(2) }));
    assert_eq!(forwarded(&mut lab), Some((LinkId(50), id)));
    assert_eq!(lab.wished(), None, "a wish of its own would keep the lease from the other one");
}

#[test]
fn holder_that_is_reached_gets_the_task_and_is_not_wished_away() {
    let mut lab = Lab::new(0);
    lab.writer_is_linked(1);
    lab.master.on_master(lab.now, LinkId(51), holder(3).node, &mut lab.out);
    let id = lab.submit(1);
    assert_eq!(forwarded(&mut lab), Some((LinkId(50), id)));
    lab.forward_ends(id, Ok(ForwardReply::HeldBy(Some(holder(3)))));
    assert!(!lab.has(|effect| matches!(effect, Effect::Wish { .. })));
    assert_eq!(forwarded(&mut lab), Some((LinkId(51), id)));
}

#[test]
fn store_is_asked_anew_for_a_task_that_comes_back() {
    for is_linked in [true, false] {
        let mut lab = Lab::new(1);
        if is_linked {
            lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
        }
        let from = holder(3).node;
        let first = lab.takes_forward(from, post(1)).expect("it may be coordinated here");
        lab.held_by(holder(2));
        let back = Effect::SendBack { id: first, holder: Some(holder(2)) };
        assert!(lab.has(|effect| *effect == back), "{:?}", lab.out);
        lab.out.clear();
        lab.pass(500);
        // The holder may have been wished away, and the lease be kept for this master for a second.
        let id = lab.takes_forward(from, post(1)).expect("who holds it now is not known");
        let wishes =
            lab.has(|effect| matches!(effect, Effect::Wish { by, .. } if *by == holder(1)));
        assert_eq!(wishes, !is_linked, "who is out of reach here too is wished away from here");
        lab.grant(8);
        let (slot, attempt, ..) = lab.assigned().expect("done here");
        lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
        assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
    }
}

#[test]
fn lease_of_a_dead_coordinator_is_taken_and_the_task_done_here() {
    let (mut lab, id) = with_forwarded_task();
    lab.out.clear();
    lab.forward_ends(id, Err(CallFailed::Gone));
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
fn silent_holders_lease_is_wished_for_and_its_tasks_are_taken_back() {
    let (mut lab, id) = with_forwarded_task();
    lab.out.clear();
    lab.pass(2100);
    assert!(lab.has(|effect| matches!(effect, Effect::Wish { .. })));
    lab.grant(3);
    let (slot, attempt, ..) = lab.assigned().expect("taken back");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
    let late = ForwardReply::Ended(Outcome::Settled(committed(1)));
    lab.forward_ends(id, Ok(late));
    assert!(lab.ended().is_none(), "each task ends once");
}

#[test]
fn nothing_is_known_of_a_task_that_was_taken_back_and_finds_no_worker() {
    let (mut lab, id) = with_forwarded_task();
    lab.pass(2100);
    let over = LinkOver::Lost("broken".to_owned());
    lab.master.on_link_over(lab.now, LinkId(1), &over, &mut lab.out);
    lab.grant(3);
    assert!(lab.assigned().is_none(), "its only worker is gone");
    assert_eq!(
        lab.master.on_waited(id),
        Outcome::Unknown,
        "the silent master may have had it written"
    );
}

#[test]
fn task_that_came_back_from_its_coordinator_after_it_was_sent_is_done_here() {
    let (mut lab, id) = with_forwarded_task();
    lab.out.clear();
    // Its worker had the task when it lost the lease: it may be written.
    let unknown = ForwardReply::Ended(Outcome::Unknown);
    lab.forward_ends(id, Ok(unknown));
    assert_eq!(lab.ended(), None, "the same task again is safe");
    lab.pass(600);
    lab.grant(8);
    let (slot, attempt, ..) = lab.assigned().expect("done here");
    let duplicate = TaskResult::Duplicate { seq: Seq(1), posted_at_ms: 1 };
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![duplicate.clone()])));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(duplicate))));
}

#[test]
fn nothing_is_known_of_a_task_that_came_back_after_it_was_sent() {
    let mut lab = Lab::new(0);
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    let id = lab.submit(1);
    let beat = Beat { reaches_store: true };
    lab.master.on_beat(lab.now, LinkId(50), beat, &mut lab.out);
    assert!(lab.has(|effect| matches!(effect, Effect::Forward { .. })));
    let unknown = ForwardReply::Ended(Outcome::Unknown);
    lab.forward_ends(id, Ok(unknown));
    assert_eq!(lab.master.on_waited(id), Outcome::Unknown);
}

#[test]
fn silent_holder_is_asked_about_again_until_its_lease_is_free() {
    let (mut lab, id) = with_forwarded_task();
    lab.out.clear();
    lab.pass(2100);
    lab.held_by(holder(2));
    lab.out.clear();
    lab.pass(600);
    assert!(lab.has(|effect| matches!(effect, Effect::Wish { .. })), "its wish may be too old");
    lab.grant(3);
    let (slot, attempt, ..) = lab.assigned().expect("taken back");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
}

#[test]
fn task_of_a_silent_holder_goes_to_the_next_holder() {
    let mut lab = Lab::new(1);
    for n in [2, 3] {
        lab.master.on_master(lab.now, LinkId(50 + u64::from(n)), holder(n).node, &mut lab.out);
    }
    let id = lab.submit(1);
    lab.held_by(holder(2));
    lab.out.clear();
    lab.pass(2100);
    lab.held_by(holder(3));
    assert_eq!(forwarded(&mut lab), Some((LinkId(53), id)));
}

#[test]
fn tasks_that_come_while_two_calls_are_out_are_forwarded_together() {
    let (mut lab, first) = with_forwarded_task();
    let (_, one, tasks) = lab.forwarded().expect("at once");
    assert_eq!(tasks, [first]);
    let second = lab.submit(2);
    let (_, two, tasks) = lab.forwarded().expect("a second call");
    assert_eq!(tasks, [second]);
    let later = [3, 4, 5].map(|n| lab.submit(n));
    assert_eq!(lab.forwarded(), None);
    let settled = |seq| Ok(ForwardReply::Ended(Outcome::Settled(committed(seq))));
    lab.master.on_forward(lab.now, two, [(second, settled(2))], &mut lab.out);
    assert_eq!(lab.ended(), Some((second, Outcome::Settled(committed(2)))));
    let (_, three, tasks) = lab.forwarded().expect("there is room");
    assert_eq!(tasks, later);
    // One of them comes back, and goes again; each task ends once.
    let held = Ok(ForwardReply::HeldBy(Some(holder(2))));
    let ends = [(later[0], settled(3)), (later[1], held), (later[2], settled(5))];
    lab.master.on_forward(lab.now, three, ends, &mut lab.out);
    for (id, seq) in [(later[0], 3), (later[2], 5)] {
        assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(seq)))));
    }
    assert_eq!(lab.forwarded().map(|(.., tasks)| tasks), Some(vec![later[1]]));
    lab.master.on_forward(lab.now, one, [(first, settled(1))], &mut lab.out);
    assert_eq!(lab.ended(), Some((first, Outcome::Settled(committed(1)))));
    lab.forward_ends(later[1], settled(4));
    assert_eq!(lab.ended(), Some((later[1], Outcome::Settled(committed(4)))));
    assert!(lab.master.is_empty());
}

#[test]
fn tasks_of_a_call_that_failed_come_back_in_their_order() {
    let (mut lab, first) = with_forwarded_task();
    let second = lab.submit(2);
    let later = [3, 4, 5].map(|n| lab.submit(n));
    lab.out.clear();
    let (one, two) = (ForwardId(1), ForwardId(2));
    let held = Ok(ForwardReply::HeldBy(Some(holder(2))));
    lab.master.on_forward(lab.now, one, [(first, held)], &mut lab.out);
    let (_, three, tasks) = lab.forwarded().expect("again");
    assert_eq!(tasks, [first, later[0], later[1], later[2]]);
    let gone = tasks.iter().map(|id| (*id, Err(CallFailed::Full)));
    lab.master.on_forward(lab.now, three, gone.collect::<Vec<_>>(), &mut lab.out);
    lab.master.on_forward(lab.now, two, [(second, Err(CallFailed::Full))], &mut lab.out);
    lab.pass(600);
    lab.grant(8);
    let (.., assign) = lab.assigned().expect("done here");
    let order: Vec<_> = assign
        .tasks
        .iter()
        .map(|task| match task {
            Task::Post { post, .. } => post.id.0[0],
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, [2, 1, 3, 4, 5], "the last that came back is first");
}
