//! A master that hands its work over before it ends.

use super::*;

const PEER: LinkId = LinkId(50);

/// A master with one worker that holds the lobby's lease, linked to another that can write.
fn lab() -> Lab {
    let mut lab = Lab::new(1);
    lab.master.on_master(lab.now, PEER, holder(2).node, &mut lab.out);
    let beat = Beat { reaches_store: true };
    lab.master.on_beat(lab.now, PEER, beat, &mut lab.out);
    lab.submit(1);
    lab.grant(7);
    lab
}

fn forwarded(lab: &mut Lab) -> Option<TaskId> {
    let (link, _, tasks) = lab.forwarded()?;
    assert_eq!((link, tasks.len()), (PEER, 1));
    Some(tasks[0])
}

fn released(lab: &mut Lab) -> bool {
    lab.take(|effect| matches!(effect, Effect::ReleaseLease { lease: 7, .. }).then_some(()))
        .is_some()
}

#[test]
fn what_waits_is_forwarded_once_the_batch_in_flight_is_done() {
    let mut lab = lab();
    let (slot, attempt, ..) = lab.assigned().expect("in flight");
    let waits = lab.submit(2);
    lab.master.drain(lab.now, &mut lab.out);
    assert!(!released(&mut lab), "its worker may still write under it");
    assert!(!lab.master.is_empty());
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert!(released(&mut lab));
    assert_eq!(forwarded(&mut lab), Some(waits));
    let ended = Ok(ForwardReply::Ended(Outcome::Settled(committed(2))));
    lab.forward_ends(waits, ended);
    assert!(lab.master.is_empty());
    let later = lab.submit(3);
    assert_eq!(forwarded(&mut lab), Some(later), "and no lease is asked for again");
}

#[test]
fn batch_without_an_answer_goes_to_the_other_master_and_not_to_another_worker() {
    let mut lab = lab();
    lab.join(2, 1);
    let (slot, attempt, ..) = lab.assigned().expect("in flight");
    lab.master.drain(lab.now, &mut lab.out);
    lab.answer(slot, attempt, Err(CallFailed::TimedOut));
    lab.pass(200);
    assert!(lab.assigned().is_none());
    assert!(released(&mut lab));
    assert!(forwarded(&mut lab).is_some());
}

/// Returns what is said next of members over a link.
fn said_of_members(lab: &mut Lab, over: LinkId) -> Option<Vec<Member>> {
    lab.take(|effect| match effect {
        Effect::Send { link, direct: Direct::Members(members) } if *link == over => {
            Some(members.clone())
        }
        _ => None,
    })
}

/// Returns what a master says of itself in its only life.
fn word_of(n: u8, state: MemberState) -> Member {
    let Holder { node, incarnation } = holder(n);
    let registration = Registration(incarnation.0);
    let fact = Fact { node, role: Role::Master, registration, state, master: node };
    Member { fact, name: String::new(), link: None, http: None, spki: Vec::new() }
}

#[test]
fn drained_master_tells_those_that_are_linked_and_those_that_link_later() {
    let (mut lab, later) = (lab(), LinkId(51));
    lab.master.drain(lab.now, &mut lab.out);
    let word = vec![word_of(1, MemberState::Left)];
    assert_eq!(said_of_members(&mut lab, PEER), Some(word.clone()));
    lab.master.on_master(lab.now, later, holder(3).node, &mut lab.out);
    assert_eq!(said_of_members(&mut lab, later), Some(word));
}

#[test]
fn master_that_says_that_it_is_drained_is_counted_on_no_more_until_its_next_link() {
    let (mut lab, peer) = (lab(), holder(2).node);
    let left = MemberState::Left;
    for word in [word_of(2, MemberState::In), word_of(1, left), word_of(3, left)] {
        lab.master.on_members(lab.now, PEER, vec![word], &mut lab.out);
        assert!(lab.master.peer_goes_on(&peer) && lab.master.has_lasting_successor());
    }
    lab.master.on_members(lab.now, PEER, vec![word_of(2, left)], &mut lab.out);
    assert!(lab.master.peer_drains(&peer) && !lab.master.peer_goes_on(&peer));
    assert!(!lab.master.has_lasting_successor());
    assert!(lab.master.has_successor(), "what it can write, it still does");
    lab.master.drain(lab.now, &mut lab.out);
    assert!(!lab.master.hands_over(), "each would hand over to the other");
    // Its next life.
    lab.master.on_master(lab.now, LinkId(51), peer, &mut lab.out);
    assert!(lab.master.peer_goes_on(&peer));
    assert!(!lab.master.peer_goes_on(&holder(3).node), "it is not linked");
}

#[test]
fn lease_that_comes_late_is_given_back_at_once() {
    let mut lab = Lab::new(1);
    lab.master.on_master(lab.now, PEER, holder(2).node, &mut lab.out);
    lab.master.on_beat(lab.now, PEER, Beat { reaches_store: true }, &mut lab.out);
    let waits = lab.submit(1);
    lab.master.drain(lab.now, &mut lab.out);
    lab.grant(7);
    assert!(lab.assigned().is_none());
    assert!(released(&mut lab));
    assert_eq!(forwarded(&mut lab), Some(waits));
}

#[test]
fn holder_out_of_reach_is_wished_away_for_the_master_that_takes_over() {
    let mut lab = Lab::new(1);
    lab.writer_is_linked(1);
    let waits = lab.submit(1);
    lab.held_by(holder(3));
    lab.master.drain(lab.now, &mut lab.out);
    lab.pass(500);
    assert_eq!(lab.wished(), Some(holder(2)), "it takes no lease itself any more");
    assert_eq!(forwarded(&mut lab), Some(waits));
}

#[test]
fn task_of_another_master_is_refused_and_one_that_waited_is_sent_back() {
    let mut lab = lab();
    let waits = lab.takes_forward(holder(3).node, post(2));
    let waits = waits.expect("taken");
    let (slot, attempt, ..) = lab.assigned().expect("in flight");
    lab.master.drain(lab.now, &mut lab.out);
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert!(lab.has(|e| *e == Effect::SendBack { id: waits, holder: None }), "{:?}", lab.out);
    let refused = lab.takes_forward(holder(3).node, post(3));
    assert!(
        matches!(refused, Err(ForwardReply::Ended(Outcome::Unavailable { .. }))),
        "{refused:?}"
    );
}

#[test]
fn lease_without_a_task_is_given_back_at_once() {
    let mut lab = lab();
    let (slot, attempt, ..) = lab.assigned().expect("in flight");
    lab.master.drain(lab.now, &mut lab.out);
    assert!(!released(&mut lab));
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    assert!(released(&mut lab), "others have to wait for it no longer");
}

#[test]
fn without_another_master_that_can_write_it_goes_on_by_itself() {
    let mut lab = lab();
    let reaches = |lab: &mut Lab, reaches_store| {
        lab.master.on_beat(lab.now, PEER, Beat { reaches_store }, &mut lab.out);
    };
    let (slot, attempt, ..) = lab.assigned().expect("in flight");
    lab.master.drain(lab.now, &mut lab.out);
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    reaches(&mut lab, false);
    lab.out.clear();
    let waits = lab.submit(2);
    lab.grant(8);
    let (slot, attempt, ..) = lab.assigned().expect("done here");
    let later = lab.submit(3);
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(2)])));
    // The next batch goes before the end of this one.
    let (slot, attempt, ..) = lab.assigned().expect("done here too");
    assert_eq!(lab.ended(), Some((waits, Outcome::Settled(committed(2)))));
    reaches(&mut lab, true);
    assert!(!lab.has(|e| matches!(e, Effect::ReleaseLease { .. })), "its worker still writes");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(3)])));
    assert!(lab.has(|e| matches!(e, Effect::ReleaseLease { lease: 8, .. })), "{:?}", lab.out);
    assert_eq!(lab.ended(), Some((later, Outcome::Settled(committed(3)))));
    let last = lab.submit(4);
    assert_eq!(forwarded(&mut lab), Some(last));
}

#[test]
fn successor_asks_for_the_lease_at_once_though_its_term_would_still_run() {
    let mut lab = Lab::new(1);
    lab.held_elsewhere("lobby", 1);
    let id = lab.takes_forward(holder(2).node, post(2));
    let id = id.expect("who forwards it holds the lease no more");
    lab.grant(8);
    let (slot, attempt, ..) = lab.assigned().expect("done here");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(2)])));
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(2)))));
}

#[test]
fn while_nobody_can_write_its_posts_are_held_until_another_can() {
    let mut lab = Lab::new(1);
    lab.master.on_master(lab.now, PEER, holder(2).node, &mut lab.out);
    lab.now = lab.now + Duration::from_millis(2500);
    lab.wrote(false);
    lab.master.drain(lab.now, &mut lab.out);
    let id = lab.submit(1);
    assert!(lab.has(|e| matches!(e, Effect::Hold { id: held, .. } if *held == id)));
    assert!(!lab.master.is_empty());
    let end = HoldEnd { copies: 2, ..HoldEnd::default() };
    lab.master.on_hold_end(id, end, &mut lab.out);
    assert_eq!(lab.ended(), Some((id, Outcome::Pending { copies: 2 })));
    assert!(lab.master.is_empty());
    lab.wrote(true);
    lab.master.on_beat(lab.now, PEER, Beat { reaches_store: true }, &mut lab.out);
    let later = lab.submit(2);
    assert_eq!(forwarded(&mut lab), Some(later));
}
