//! Leases that are asked for, wanted and taken.

use super::*;

#[test]
fn expired_holder_is_queried_again() {
    let mut lab = Lab::new(1);
    lab.takes_forward(holder(3).node, post(1)).expect("taken");
    lab.held_by(holder(3));
    lab.out.clear();
    lab.pass(3100);
    // The holder of then sends it here itself: it is the holder no more.
    let id = lab.takes_forward(holder(3).node, post(2));
    let id = id.expect("who holds it now is not known");
    lab.grant(8);
    let (slot, attempt, ..) = lab.assigned().expect("done here");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
}

#[test]
fn lease_of_a_dead_coordinator_is_taken_for_a_master_without_workers_too() {
    let mut lab = Lab::new(1);
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    let from = holder(3).node;
    let forward = |lab: &mut Lab, n| lab.takes_forward(from, post(n));
    forward(&mut lab, 1).expect("it may be coordinated here");
    lab.held_by(holder(2));
    let over = LinkOver::Lost("broken".to_owned());
    lab.master.on_link_over(lab.now, LinkId(50), &over, &mut lab.out);
    lab.out.clear();
    forward(&mut lab, 2).expect("it may have given the lease back");
    lab.held_by(holder(2));
    assert!(forward(&mut lab, 3).is_err(), "its term may still run");
    lab.pass(3100);
    lab.out.clear();
    let id = forward(&mut lab, 4).expect("its term is over");
    assert_eq!(lab.ended(), None, "and it is not sent back to the dead one");
    lab.grant(8);
    let (slot, attempt, ..) = lab.assigned().expect("done here");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
}

#[test]
fn lease_of_a_silent_holder_is_requested_once_for_all_its_tasks() {
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
fn wanted_lease_is_released_after_the_attempt_in_flight() {
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
    assert_eq!(lab.forwarded().map(|(.., tasks)| tasks), Some(vec![waiting]));
}

/// Post of user 1 to this board.
fn post_to(board: &str, id: u8) -> Task {
    let Task::Post { post, .. } = post(id) else { unreachable!() };
    Task::Post { board: board.parse().expect("a name"), post }
}

/// Submits a post and has it written.
fn write_to(lab: &mut Lab, board: &str, id: u8) {
    lab.master.on_submit(lab.now, post_to(board, id), &mut lab.out).expect("taken");
    lab.grant(5);
    let (slot, attempt, ..) = lab.assigned().expect("in flight");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    lab.out.clear();
}

fn resources(lab: &Lab) -> Vec<String> {
    let mut names: Vec<_> =
        lab.master.queue().slots().map(|(_, resource)| resource.to_string()).collect();
    names.sort();
    names
}

#[test]
fn idle_resource_is_let_go_with_its_lease() {
    let mut lab = Lab::new(1);
    write_to(&mut lab, "lobby", 1);
    lab.held_elsewhere("dev", 2);
    lab.pass(29_000);
    assert_eq!(resources(&lab), ["board:dev", "board:lobby"]);
    lab.pass(2_000);
    assert!(lab.has(|effect| matches!(effect, Effect::ReleaseLease { lease: 5, .. })));
    assert_eq!(resources(&lab), [""; 0]);
}

#[test]
fn least_recently_used_idle_resource_makes_room() {
    let mut lab = Lab::new(1);
    lab.master.queue = TaskQueue::new(Bounds { tasks_max: 9, total_max: 9, resources_max: 2 });
    write_to(&mut lab, "one", 1);
    lab.pass(100);
    write_to(&mut lab, "two", 2);
    lab.pass(100);
    lab.master.on_submit(lab.now, post_to("one", 3), &mut lab.out).expect("taken");
    let (slot, attempt, ..) = lab.assigned().expect("in flight");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(2)])));
    lab.pass(100);
    write_to(&mut lab, "three", 4);
    assert_eq!(resources(&lab), ["board:one", "board:three"]);
}

#[test]
fn lease_of_a_store_that_was_replaced_meanwhile_is_asked_for_again() {
    let mut lab = Lab::new(1);
    lab.submit(1);
    lab.master.on_store_epoch(lab.now, StoreEpoch(2), &mut lab.out);
    // Its grant was on the way, in epoch 1.
    lab.grant(5);
    assert!(lab.assigned().is_none(), "the store would refuse its token");
    lab.pass(600);
    let asked = lab.take(|effect| match effect {
        Effect::AcquireLease { slot, .. } => Some(*slot),
        _ => None,
    });
    let slot = asked.expect("it is asked for again");
    let answer = Some(Lease::Granted { epoch: StoreEpoch(2), lease: 5, n: 0 });
    lab.master.on_lease(lab.now, slot, lab.now, answer, &mut lab.out);
    let (.., assign) = lab.assigned().expect("a worker gets it");
    assert_eq!(assign.permission.token.epoch, StoreEpoch(2));
}
