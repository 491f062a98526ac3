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
    lab.take(|effect| match effect {
        Effect::Forward { link, id, .. } => Some((*link, *id)),
        _ => None,
    })
}

#[test]
fn task_of_another_masters_board_is_forwarded_and_comes_back_with_its_outcome() {
    let (mut lab, id) = with_forwarded_task();
    assert_eq!(forwarded(&mut lab), Some((LinkId(50), id)));
    let settled = ForwardReply::Ended(Outcome::Settled(committed(4)));
    lab.master.on_forward(lab.now, id, Ok(settled), &mut lab.out);
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(4)))));
}

#[test]
fn forwarded_task_is_sent_back_and_never_forwarded_again() {
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
fn lease_of_a_dead_coordinator_is_taken_and_the_task_done_here() {
    let (mut lab, id) = with_forwarded_task();
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
    lab.master.on_forward(lab.now, id, Ok(late), &mut lab.out);
    assert!(lab.ended().is_none(), "each task ends once");
}

#[test]
fn task_that_came_back_from_its_coordinator_after_it_was_sent_is_done_here() {
    let (mut lab, id) = with_forwarded_task();
    lab.out.clear();
    // Its worker had the task when it lost the lease: it may be written.
    let unknown = ForwardReply::Ended(Outcome::Unknown);
    lab.master.on_forward(lab.now, id, Ok(unknown), &mut lab.out);
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
    lab.master.on_forward(lab.now, id, Ok(unknown), &mut lab.out);
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
