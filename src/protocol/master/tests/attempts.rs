//! Batches, workers and their answers.

use super::*;
use crate::model::ids::SessionKey;

#[test]
fn post_goes_from_queue_to_lease_to_worker_to_its_author() {
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
fn tasks_behind_a_batch_go_together_under_a_higher_token() {
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
fn silent_worker_is_retried_then_listed_and_the_token_raised() {
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
fn listed_worker_gets_no_task_until_it_registers_again() {
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
fn worker_whose_link_ends_over_a_batch_left_or_failed_as_the_link_says() {
    let is_failed = |effect: &Effect| matches!(effect, Effect::Event(Event::Fail { .. }));
    let is_left = |effect: &Effect| matches!(effect, Effect::Event(Event::Leave { .. }));
    for over in [LinkOver::Left, LinkOver::Lost("broken".to_owned())] {
        let mut lab = Lab::new(2);
        lab.submit(1);
        lab.grant(1);
        let (slot, attempt, gone, _) = lab.assigned().expect("the first try");
        lab.answer(slot, attempt, Err(CallFailed::Gone));
        assert!(!lab.has(is_failed), "nothing is known of its end yet");
        let (_, _, other, _) = lab.assigned().expect("another worker");
        assert_ne!(other, gone);
        lab.master.on_link_over(lab.now, gone, &over, &mut lab.out);
        let has_left = over == LinkOver::Left;
        assert_eq!((lab.has(is_left), lab.has(is_failed)), (has_left, !has_left));
        assert_eq!(lab.master.failed().iter().next().is_none(), has_left);
    }
}

#[test]
fn unanswered_single_task_becomes_a_dead_letter() {
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
fn batch_that_breaks_the_store_is_split_and_costs_no_worker() {
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
fn store_that_is_away_costs_no_attempt() {
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
fn late_answer_of_a_listed_worker_changes_nothing() {
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

/// Two tasks in one batch: the first is alone in a batch that is answered while they wait.
fn batch_of_two(lab: &mut Lab) -> (Slot, AttemptId) {
    lab.submit(1);
    lab.grant(1);
    let (slot, attempt, ..) = lab.assigned().expect("the first batch");
    lab.submit(2);
    lab.submit(3);
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    let (slot, attempt, _, batch) = lab.assigned().expect("the next two");
    assert_eq!(batch.tasks.len(), 2);
    lab.out.clear();
    (slot, attempt)
}

#[test]
fn batch_that_two_workers_failed_is_not_given_to_a_third() {
    let mut lab = Lab::new(3);
    let (slot, attempt) = batch_of_two(&mut lab);
    lab.answer(slot, attempt, Err(CallFailed::Gone));
    let (_, attempt, ..) = lab.assigned().expect("the second worker");
    lab.answer(slot, attempt, Err(CallFailed::Gone));
    let sizes: Vec<_> =
        std::iter::from_fn(|| lab.assigned().map(|(.., assign)| assign.tasks.len())).collect();
    assert_eq!(sizes, [1], "its first task alone, and nothing else");
}

#[test]
fn dead_letter_is_in_flight_nowhere() {
    let mut lab = Lab::new(3);
    lab.submit(1);
    lab.grant(1);
    let mut tries = 0;
    while let Some((slot, attempt, ..)) = lab.assigned() {
        tries += 1;
        lab.answer(slot, attempt, Err(CallFailed::TimedOut));
        if lab.has(|effect| matches!(effect, Effect::DeadLetter(_))) {
            break;
        }
        if !lab.has(|effect| matches!(effect, Effect::Assign { .. })) {
            lab.pass(200);
        }
    }
    assert_eq!(tries, 4);
    assert!(lab.assigned().is_none(), "a fifth try");
    let busy: Vec<_> =
        (1..=3).map(|n| lab.master.selection().in_flight(&worker(n, 1).fact.node)).collect();
    assert_eq!(busy, [0, 0, 0]);
}

#[test]
fn tries_are_remembered_when_the_batch_goes_back_to_the_queue() {
    let mut lab = Lab::new(2);
    let (slot, attempt) = batch_of_two(&mut lab);
    lab.answer(slot, attempt, Err(CallFailed::TimedOut));
    lab.pass(200);
    let (_, attempt, first_link, _) = lab.assigned().expect("the second try");
    let away = AssignReply::StoreAway { why: "no answer".to_owned() };
    lab.answer(slot, attempt, Ok(away));
    lab.submit(4);
    lab.pass(200);
    let mut tries = BTreeMap::from([(first_link, 1)]);
    for _ in 0..3 {
        let (slot, attempt, link, batch) = lab.assigned().expect("four tries in all");
        assert_eq!(batch.tasks.len(), 2, "a fresh task does not share their tries");
        *tries.entry(link).or_insert(0) += 1;
        lab.answer(slot, attempt, Err(CallFailed::TimedOut));
        if !lab.has(|effect| matches!(effect, Effect::Assign { .. })) {
            lab.pass(200);
        }
    }
    assert_eq!(tries.into_values().collect::<Vec<_>>(), [2, 2], "two tries on each worker");
    assert!(lab.has(|effect| matches!(effect, Effect::Probe("a batch was split"))));
}

#[test]
fn boards_beyond_a_workers_room_take_turns() {
    const BOARDS: usize = 300;
    let mut lab = Lab::new(1);
    for n in 0..2 * BOARDS {
        let Task::Post { post, .. } = post(1) else { unreachable!() };
        let board = format!("board-{}", n % BOARDS).parse().expect("a name");
        lab.master.on_submit(lab.now, Task::Post { board, post }, &mut lab.out).expect("taken");
    }
    let (mut under_way, mut ended, mut order) = (VecDeque::<Call>::new(), 0, vec![]);
    let (mut calls, mut most) = (0, (0, 0));
    loop {
        for effect in std::mem::take(&mut lab.out) {
            match effect {
                Effect::AcquireLease { slot, .. } => {
                    let granted = Lease::Granted { epoch: StoreEpoch(1), lease: 1, n: 0 };
                    lab.master.on_lease(lab.now, slot, lab.now, Some(granted), &mut lab.out);
                }
                Effect::Assign { call, .. } => {
                    for one in &call.attempts {
                        // A second batch of each board, behind the first.
                        let Task::Post { post, .. } = post(2) else { unreachable!() };
                        let resource = &one.assign.permission.resource;
                        if let Resource::Board(board) = resource
                            && order.len() < BOARDS
                        {
                            let task = Task::Post { board: board.clone(), post };
                            lab.master.on_submit(lab.now, task, &mut lab.out).expect("taken");
                        }
                        order.push(resource.clone());
                    }
                    calls += 1;
                    under_way.push_back(call);
                }
                Effect::End { outcome: Outcome::Settled(_), .. } => ended += 1,
                _ => {}
            }
        }
        let batches = under_way.iter().map(|call| call.attempts.len()).sum::<usize>();
        most = (most.0.max(under_way.len()), most.1.max(batches));
        if lab.out.is_empty() {
            let Some(call) = under_way.pop_front() else { break };
            let ends = call.attempts.into_iter().map(|one| {
                let done = AssignReply::Done(vec![committed(1); one.assign.tasks.len()]);
                AttemptEnd { slot: one.slot, attempt: one.number, answer: Ok(done) }
            });
            lab.master.on_call(lab.now, call.worker, ends, &mut lab.out);
        }
    }
    assert_eq!(ended, 3 * BOARDS);
    assert_eq!(most, (2, 64), "calls and batches at once on a worker");
    assert!(calls < order.len() / 20, "{calls} calls with {} batches", order.len());
    // Each board has its turn before any has its second.
    let first: BTreeSet<_> = order[..BOARDS].iter().collect();
    assert_eq!(first.len(), BOARDS);
}

#[test]
fn worker_that_finds_every_fresh_token_too_old_is_listed_and_another_writes() {
    let mut lab = Lab::new(2);
    let id = lab.submit(1);
    lab.grant(1);
    let wrong = lab.assigned().expect("a worker gets it");
    let node = wrong.3.permission.worker;
    let mut next = Some(wrong);
    for tries in 0..10 {
        let Some((slot, attempt, _, assign)) = next.take() else {
            panic!("nobody got try {tries}")
        };
        if assign.permission.worker != node {
            lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
            break;
        }
        lab.answer(slot, attempt, Ok(AssignReply::Fenced));
        lab.now = lab.now + Duration::from_millis(5);
        lab.master.on_time(lab.now, &mut lab.out);
        lab.grant(1);
        // The other worker is busy with something else: this one is always picked.
        next = lab.assigned();
    }
    assert_eq!(lab.ended(), Some((id, Outcome::Settled(committed(1)))));
}

#[test]
fn batches_that_were_fenced_together_count_once() {
    let mut selection = Selection::new();
    selection.add(holder(9).node, true);
    let mut fence = |now, confirmed| selection.on_fenced(at(now), &holder(9).node, at(confirmed));
    for _ in 0..20 {
        assert!(!fence(100, 50), "one wave");
    }
    assert!(!fence(200, 150));
    assert!(!fence(201, 150));
    assert!(fence(300, 250), "the third");
}

#[test]
fn result_of_a_store_that_was_replaced_meanwhile_is_answered_and_published_only_if_it_closed() {
    let is_told = |effect: &Effect| {
        let Effect::Publish { update, spread: true } = effect else { return false };
        matches!(update, Update::Session(_) | Update::SessionClosed(_))
    };
    let key = SessionKey([1; 32]);
    let user = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
    let (opens, closes) = (Task::OpenSession { key, user }, Task::CloseSession { key });
    let cases = [(&opens, 1, true), (&opens, 2, false), (&closes, 1, true), (&closes, 2, true)];
    for (task, epoch, publishes) in cases {
        let mut lab = Lab::new(1);
        let id = lab.master.on_submit(lab.now, task.clone(), &mut lab.out).expect("taken");
        lab.grant(1);
        let (slot, attempt, ..) = lab.assigned().expect("at once");
        lab.master.on_store_epoch(lab.now, StoreEpoch(epoch), &mut lab.out);
        lab.answer(slot, attempt, Ok(AssignReply::Done(vec![TaskResult::Done])));
        assert_eq!(lab.has(is_told), publishes, "{task:?} in epoch {epoch}");
        assert_eq!(lab.ended(), Some((id, Outcome::Settled(TaskResult::Done))));
    }
}
