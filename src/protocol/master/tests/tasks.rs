//! Tasks that are refused, and tasks that share a batch.

use super::*;

#[test]
fn weak_master_says_nothing_was_done_only_of_tasks_never_sent() {
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
    for (id, outcome) in
        [(sent, Outcome::Unknown), (unsent, Outcome::Unavailable { retry_ms: RETRY_MS })]
    {
        // Nobody could hold it.
        lab.master.on_hold_end(id, HoldEnd::default(), &mut lab.out);
        assert_eq!(lab.ended(), Some((id, outcome)));
    }
    let over = LinkOver::Lost(String::new());
    lab.master.on_link_over(lab.now, LinkId(1), &over, &mut lab.out);
    let refused = lab.master.on_submit(lab.now, post(3), &mut lab.out);
    assert_eq!(refused, Err(Outcome::Unavailable { retry_ms: RETRY_MS }));
}

#[test]
fn full_queue_refuses_and_keeps_its_tasks() {
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
fn tasks_submitted_together_leave_in_one_batch() {
    let mut lab = Lab::new(1);
    lab.submit(1);
    lab.grant(1);
    let (slot, attempt, ..) = lab.assigned().expect("in flight");
    lab.answer(slot, attempt, Ok(AssignReply::Done(vec![committed(1)])));
    let taken = lab.master.on_submit_all(lab.now, (2..6).map(post), &mut lab.out);
    assert!(taken.iter().all(Result::is_ok), "{taken:?}");
    let (.., assign) = lab.assigned().expect("in flight");
    assert_eq!(assign.tasks.len(), 4);
}

#[test]
fn task_without_any_worker_is_refused_once_none_came_for_a_while() {
    let mut lab = Lab::new(0);
    let id = lab.submit(1);
    lab.pass(2900);
    assert_eq!(lab.ended(), None, "a worker may be starting");
    lab.pass(1100);
    let refused = Outcome::Unavailable { retry_ms: RETRY_MS };
    assert_eq!(lab.ended(), Some((id, refused.clone())));
    assert_eq!(lab.master.on_submit(lab.now, post(2), &mut lab.out), Err(refused));
    lab.join(1, 1);
    lab.submit(3);
}

#[test]
fn task_waits_for_the_worker_of_a_master_that_hands_over_or_is_gone() {
    let peer = LinkId(50);
    for goes in [true, false] {
        let mut lab = Lab::new(0);
        lab.master.on_master(lab.now, peer, holder(2).node, &mut lab.out);
        lab.master.on_beat(lab.now, peer, Beat { reaches_store: true }, &mut lab.out);
        lab.pass(10_000);
        if goes {
            let over = LinkOver::Lost("silent".to_owned());
            lab.master.on_link_over(lab.now, peer, &over, &mut lab.out);
        } else {
            lab.master.on_beat(lab.now, peer, Beat { reaches_store: false }, &mut lab.out);
        }
        let id = lab.submit(1);
        lab.pass(2000);
        assert_eq!(lab.ended(), None, "its worker may come here");
        lab.pass(2000);
        let refused = Outcome::Unavailable { retry_ms: RETRY_MS };
        if !goes {
            // The other master may know a worker that holds it.
            assert!(
                lab.has(|effect| matches!(effect, Effect::Hold { id: held, .. } if *held == id))
            );
            continue;
        }
        assert_eq!(lab.ended(), Some((id, refused.clone())));
        assert_eq!(lab.master.on_submit(lab.now, post(2), &mut lab.out), Err(refused));
    }
}
