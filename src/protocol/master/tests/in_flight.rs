//! Several batches of one resource in flight: each follows the one before it, at the same worker.

use super::*;

type Sent = (Slot, AttemptId, LinkId, Assign);

/// A lab with `count` batches of one task each in flight, at one of its two workers.
fn in_flight(count: u8) -> (Lab, Vec<Sent>) {
    let mut lab = Lab::with_in_flight(2, 3);
    lab.submit(1);
    lab.grant(1);
    let mut sent = vec![lab.assigned().expect("at once")];
    for n in 2..=count {
        lab.submit(n);
        sent.push(lab.assigned().expect("right behind"));
    }
    (lab, sent)
}

fn done(seq: u64) -> Result<AssignReply, CallFailed> {
    Ok(AssignReply::Done(vec![committed(seq)]))
}

fn away() -> Result<AssignReply, CallFailed> {
    Ok(AssignReply::StoreAway { why: String::new() })
}

/// Posts of a batch, by the number that they were made with.
fn posts(assign: &Assign) -> Vec<u8> {
    let number = |task: &Task| match task {
        Task::Post { post, .. } => post.id.0[0],
        other => panic!("{other:?}"),
    };
    assign.tasks.iter().map(number).collect()
}

#[test]
fn each_batch_names_the_one_before_it_and_goes_to_its_worker() {
    let (mut lab, sent) = in_flight(3);
    let n: Vec<_> = sent.iter().map(|(.., assign)| assign.permission.token.n).collect();
    assert!(n.is_sorted_by(|a, b| a < b));
    let after: Vec<_> = sent.iter().map(|(.., assign)| assign.permission.after).collect();
    assert_eq!(after, [None, Some(n[0]), Some(n[1])]);
    assert!(sent.iter().all(|(_, _, link, _)| *link == sent[0].2), "one worker");
    lab.submit(4);
    lab.submit(5);
    assert!(lab.assigned().is_none(), "three are in flight");
    let (slot, attempt, ..) = sent[0];
    lab.answer(slot, attempt, done(1));
    let (.., next) = lab.assigned().expect("there is room");
    assert_eq!((posts(&next), next.permission.after), (vec![4, 5], Some(n[2])));
}

#[test]
fn later_batches_fall_with_the_first_and_are_sent_again_in_order() {
    let (mut lab, sent) = in_flight(3);
    let (slot, attempt, ..) = sent[0];
    lab.answer(slot, attempt, away());
    assert!(lab.assigned().is_none(), "there is a pause");
    // What the later ones are answered is late, even that they were written.
    lab.answer(slot, sent[1].1, done(2));
    lab.answer(slot, sent[2].1, Ok(AssignReply::NotNext));
    assert_eq!(lab.ended(), None);
    lab.pass(200);
    let (.., again) = lab.assigned().expect("all again");
    assert_eq!((posts(&again), again.permission.after), (vec![1, 2, 3], None));
    assert!(again.permission.token > sent[2].3.permission.token);
    assert!(again.tasks.len() == 3 && lab.master.queue().total() == 3);
}

#[test]
fn first_batch_that_was_followed_is_tried_again_under_a_token_above_all_others() {
    let (mut lab, sent) = in_flight(2);
    let (slot, attempt, link, first) = &sent[0];
    lab.answer(*slot, *attempt, Err(CallFailed::TimedOut));
    lab.pass(200);
    let (_, attempt, again_link, again) = lab.assigned().expect("the same batch");
    assert_eq!((again_link, &again.tasks), (*link, &first.tasks), "at the same worker");
    let permission = &again.permission;
    assert!(permission.token > sent[1].3.permission.token && permission.after.is_none());
    assert!(lab.assigned().is_none(), "nothing follows a batch that has failed");
    lab.answer(*slot, attempt, done(1));
    let (.., second) = lab.assigned().expect("the second batch");
    assert_eq!((posts(&second), second.permission.after), (vec![2], None));
}

#[test]
fn later_batch_that_fails_waits_for_the_first_which_costs_nobody_a_try() {
    let (mut lab, sent) = in_flight(3);
    let slot = sent[0].0;
    lab.answer(slot, sent[1].1, Err(CallFailed::TimedOut));
    lab.submit(4);
    assert!(lab.assigned().is_none(), "there is a pause");
    lab.answer(slot, sent[0].1, done(1));
    let (_, attempt, _, again) = lab.assigned().expect("all that the first let through");
    assert_eq!(posts(&again), [2, 3, 4]);
    assert!(lab.has(|effect| matches!(effect, Effect::End { .. })));
    let tries =
        |e: &Effect| matches!(e, Effect::Event(Event::Assign { attempt, .. }) if *attempt > 1);
    assert!(!lab.has(tries));
    lab.answer(slot, attempt, Ok(AssignReply::Done((2..5).map(committed).collect())));
    assert_eq!(lab.master.queue().total(), 0);
}

#[test]
fn later_batch_that_is_answered_first_ends_first() {
    let (mut lab, sent) = in_flight(2);
    let slot = sent[0].0;
    lab.answer(slot, sent[1].1, done(2));
    assert_eq!(lab.ended(), Some((TaskId(2), Outcome::Settled(committed(2)))));
    lab.submit(3);
    let (_, third, _, follows) = lab.assigned().expect("right behind");
    assert_eq!(follows.permission.after, Some(sent[1].3.permission.token.n));
    lab.answer(slot, third, Ok(AssignReply::NotNext));
    lab.pass(200);
    let (.., follows) = lab.assigned().expect("once more");
    assert_eq!(follows.permission.after, Some(sent[1].3.permission.token.n));
    // The answer to the first was lost. It was written, under a token that is too old by now.
    lab.answer(slot, sent[0].1, Err(CallFailed::TimedOut));
    lab.pass(200);
    let (_, attempt, _, again) = lab.assigned().expect("again");
    assert!(again.permission.token > follows.permission.token);
    let known = TaskResult::Duplicate { seq: Seq(1), posted_at_ms: 1 };
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![known.clone()])));
    assert_eq!(lab.ended(), Some((TaskId(1), Outcome::Settled(known))));
}

#[test]
fn worker_that_is_lost_fails_the_first_batch_alone() {
    let (mut lab, sent) = in_flight(3);
    let (slot, _, lost, _) = sent[0];
    for (_, attempt, ..) in sent.iter().rev() {
        lab.answer(slot, *attempt, Err(CallFailed::Gone));
    }
    let (_, attempt, link, again) = lab.assigned().expect("the other worker");
    assert_eq!((posts(&again), link == lost), (vec![1], false));
    lab.answer(slot, attempt, done(1));
    let (.., rest) = lab.assigned().expect("the rest");
    assert_eq!(posts(&rest), [2, 3]);
}

#[test]
fn wanted_lease_is_released_after_all_that_is_in_flight() {
    let (mut lab, sent) = in_flight(2);
    let lobby = Resource::Board(BoardName::lobby());
    let (asked, wanted) = ([(lobby.clone(), 1)], [(lobby, Renewed::Wanted)]);
    lab.master.on_renewed(lab.now, lab.now, &asked, &wanted, &mut lab.out);
    let is_release = |effect: &Effect| matches!(effect, Effect::ReleaseLease { .. });
    lab.submit(3);
    assert!(lab.assigned().is_none() && !lab.has(is_release), "nothing new is given out");
    lab.answer(sent[0].0, sent[0].1, done(1));
    assert!(!lab.has(is_release), "the second is in flight");
    lab.answer(sent[1].0, sent[1].1, done(2));
    assert!(lab.has(is_release));
}
