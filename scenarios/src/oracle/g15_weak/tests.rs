//! Hand-made histories of weak service that must be accepted, and those that must be refused.

use chatchat::{
    api::{PendingEvent, SessionRestored},
    model::{
        ids::{Registration, Resource, Token},
        rows::Range,
    },
};

use super::*;
use crate::history::End;
use crate::oracle::fixtures::{
    Fixture, busy, id, letter, node, refused as refusal, restored, unsettled,
};

const STORE: (&str, &str, u64, u64) = ("crash", "target = \"store\"", 20_000, 30_000);

fn made(faults: &[(&str, &str, u64, u64)]) -> Fixture {
    let mut made = Fixture::with_faults(faults);
    made.acked(0, 1, 1000, 1100, 1).stored(0, 1);
    made
}

fn is_held(made: &mut Fixture, n: u8, from: u64) {
    is_held_by(made, n, from, 2);
}

fn is_held_by(made: &mut Fixture, n: u8, from: u64, copies: u32) {
    let answer = Ok(Answer::Pending { copies });
    made.did(0, from, from + 10, Fixture::request(n), answer);
}

#[test]
fn held_post_that_came_or_was_settled_otherwise_is_accepted() {
    let mut made = made(&[STORE]);
    is_held(&mut made, 2, 26_000);
    made.stored(0, 2);
    is_held(&mut made, 3, 26_000);
    made.did(0, 31_000, 31_010, Fixture::request(3), refusal(409));
    is_held(&mut made, 4, 26_000);
    made.did(0, 31_000, 31_010, Request::Cancel { id: id(4) }, busy(503));
    is_held(&mut made, 5, 26_000);
    made.dropped(letter(0, 5), 31_000, unsettled());
    assert_eq!(made.judge(judge), []);
}

#[test]
fn held_post_that_never_came_is_reported_unless_as_many_disks_or_nodes_are_gone_as_held_it() {
    let lost = |copies, more: &[(&str, &str, u64, u64)]| {
        let mut made = made(&[&[STORE], more].concat());
        is_held_by(&mut made, 2, 26_000, copies);
        // That one copy is too few is another rule.
        made.rules(judge).iter().filter(|rule| *rule == "g15.lost").count()
    };
    let crash = |until: u64| ("crash", "target = \"worker:0\"", 27_000, until);
    let wipe = |target, from: u64| ("wipe", target, from, from + 2_000);
    let (one, all) = ("target = \"worker:0\"", "target = \"worker:*\"");
    assert_eq!(lost(1, &[]), 1);
    assert_eq!(lost(1, &[crash(29_000)]), 1);
    assert_eq!(lost(2, &[wipe(one, 27_000)]), 1, "another one holds it");
    assert_eq!(lost(2, &[crash(50_000)]), 1, "another one holds it");
    assert_eq!(lost(2, &[wipe(all, 56_000)]), 1, "long after it was due");
    assert_eq!(lost(1, &[wipe(one, 27_000)]), 0);
    assert_eq!(lost(1, &[crash(50_000)]), 0);
    assert_eq!(lost(2, &[wipe(all, 27_000)]), 0);
    assert_eq!(lost(2, &[crash(50_000), wipe("target = \"worker:1\"", 27_000)]), 0);
}

#[test]
fn held_post_is_judged_in_a_run_that_ends_in_a_core() {
    let held = |core: (u64, u64), comes_at: Option<u64>| {
        let mut made = made(&[STORE]);
        first_posted_at(&mut made, 1_000_000);
        is_held(&mut made, 2, 26_000);
        if let Some(store_ms) = comes_at {
            comes_second_at(&mut made, store_ms);
        }
        made.trouble(core.0, core.1);
        made.plan.expect.core = true;
        made.rules(judge)
    };
    assert_eq!(held((29_000, 34_000), None), ["g15.lost"], "all was whole for 25 s");
    assert!(held((29_000, 36_000), None).is_empty(), "its holders may have been outside");
    // 1_000_000 of the store is 1.1 s of the observer at the latest.
    assert_eq!(held((29_000, 34_000), Some(1_000_000 + 58_200)), ["g15.late"]);
    assert!(held((29_000, 34_000), Some(1_000_000 + 57_800)).is_empty());
    assert_eq!(held((56_000, 58_000), Some(1_000_000 + 54_200)), ["g15.late"]);
}

#[test]
fn post_that_may_have_become_a_dead_letter_waits_for_a_registration() {
    let lost = |attempt: u32, state: Option<HeldState>| {
        let mut made = made(&[STORE]);
        is_held(&mut made, 2, 26_000);
        let assign = Event::Assign {
            worker: node(1),
            registration: Registration(1),
            resource: Resource::Board(BoardName::lobby()),
            token: Token::default(),
            after: None,
            posts: vec![id(2)],
            attempt,
        };
        made.said(31_000, "master:0", assign);
        let told = state.map(|state| PendingEvent { id: id(2), state });
        made.stream(0, 1, told.map(|it| (32_000, StreamEvent::Pending(it))).into_iter().collect());
        made.judge(judge).len()
    };
    assert_eq!(lost(1, None), 1);
    assert_eq!(lost(4, None), 0, "there is no further try");
    assert_eq!(lost(1, Some(HeldState::DeadLetter)), 0);
    assert_eq!(lost(1, Some(HeldState::Pending)), 1);
}

#[test]
fn disk_that_failed_long_before_a_post_was_held_is_no_excuse() {
    let lost = |kind: &str, keys: &str, until: u64| {
        let keys = format!("target = \"worker:0\"{keys}");
        let mut made = made(&[STORE, (kind, keys.as_str(), 9_000, until)]);
        is_held_by(&mut made, 2, 26_000, 1);
        made.judge(judge).len()
    };
    assert_eq!(lost("disk_full", "", 10_900), 1);
    assert_eq!(lost("disk_full", "", 11_100), 0, "not so long before");
    assert_eq!(lost("wipe", "", 10_900), 1);
    assert_eq!(lost("bit_rot", "\nrate = 0.1", 10_900), 0, "nobody has read it since");
}

#[test]
fn held_post_of_a_worker_that_was_stopped_comes_from_another_one() {
    let lost = |masters: usize, kind: &str| {
        let mut made = made(&[STORE, (kind, "target = \"worker:0\"", 27_000, 59_000)]);
        made.plan.cluster.masters = masters;
        let answer = Ok(Answer::Pending { copies: 1 });
        made.did(0, 26_000, 26_010, Fixture::request(2), answer);
        made.judge(judge).len()
    };
    assert_eq!(lost(1, "stop"), 1);
    assert_eq!(lost(1, "exit"), 0, "it had no time");
    assert_eq!(lost(2, "stop"), 0, "there may be no other worker in its domain");
}

#[test]
fn post_that_two_held_comes_though_one_of_them_is_gone_for_good() {
    let lost = |stopped_at: u64, kind: &str, copies: u32| {
        let stop = ("stop", "target = \"worker:0\"", stopped_at, 60_000);
        let death = (kind, "target = \"worker:1\"", 29_000, 60_000);
        let mut made = made(&[STORE, stop, death]);
        (made.plan.cluster.masters, made.plan.cluster.workers) = (1, 3);
        let answer = Ok(Answer::Pending { copies });
        made.did(0, 22_000, 22_010, Fixture::request(2), answer);
        made.judge(judge).len()
    };
    assert_eq!(lost(23_000, "crash", 2), 1);
    assert_eq!(lost(23_000, "exit", 2), 1);
    assert_eq!(lost(23_000, "crash", 1), 0, "it was with that one alone");
    assert_eq!(lost(25_000, "crash", 2), 0, "the stopped one had too little time");
    assert_eq!(lost(23_000, "pause", 2), 0, "it may come back");
}

#[test]
fn held_post_that_comes_long_after_the_store_is_reported() {
    let held_by = |copies, store_ms: u64, faults: &[(&str, &str, u64, u64)]| {
        let mut made = made(faults);
        first_posted_at(&mut made, 1_000_000);
        is_held_by(&mut made, 2, 26_000, copies);
        comes_second_at(&mut made, store_ms);
        made.rules(judge).iter().filter(|rule| *rule == "g15.late").count()
    };
    let came_at = |store_ms, faults: &[(&str, &str, u64, u64)]| held_by(2, store_ms, faults);
    // 1_000_000 of the store is 1.1 s of the observer at the latest.
    assert_eq!(came_at(1_000_000 + 53_800, &[STORE]), 0, "25 s after the store");
    assert_eq!(came_at(1_000_000 + 54_000, &[STORE]), 1);
    let other = ("pause", "target = \"worker:1\"", 40_000, 45_000);
    assert_eq!(held_by(1, 1_000_000 + 54_000, &[STORE, other]), 0, "a worker was away");
    assert_eq!(came_at(1_000_000 + 54_000, &[STORE, other]), 1, "two held it");
    let clock = ("clock_jump", "target = \"store\"\nby = \"1s\"", 21_000, 21_000);
    assert_eq!(came_at(1_000_000 + 54_000, &[STORE, clock]), 0, "who knows when it was");
}

/// A worker dies after another one was stopped, and comes back; a post comes so late.
#[test]
fn post_that_comes_only_with_a_dead_worker_whose_posts_another_has_is_reported() {
    let late = |store_ms: u64, copies: u32| {
        let stop = ("stop", "target = \"worker:0\"", 23_000, 60_000);
        let death = ("crash", "target = \"worker:1\"", 29_000, 55_500);
        let mut made = made(&[STORE, stop, death]);
        (made.plan.cluster.masters, made.plan.cluster.workers) = (1, 3);
        first_posted_at(&mut made, 1_000_000);
        let answer = Ok(Answer::Pending { copies });
        made.did(0, 22_000, 22_010, Fixture::request(2), answer);
        comes_second_at(&mut made, store_ms);
        made.breaks(judge, "g15.late")
    };
    assert_eq!(late(1_000_000 + 54_500, 2), 1, "the store is back for 25.6 s");
    assert_eq!(late(1_000_000 + 53_800, 2), 0, "it is back for 24.9 s");
    assert_eq!(late(1_000_000 + 54_500, 1), 0, "it was with the dead one alone");
}

/// Puts the second post into the store, at a time of its clock.
fn comes_second_at(made: &mut Fixture, store_ms: u64) {
    made.stored(0, 2);
    let posts = made.store.boards.values_mut().next().unwrap();
    posts.last_mut().unwrap().posted_at_ms = store_ms;
}

/// Sets the store's time of the first post, of which its author was told at 1.1 s.
fn first_posted_at(made: &mut Fixture, store_ms: u64) {
    let first = made.store.boards.values_mut().next().unwrap().first_mut().unwrap();
    first.posted_at_ms = store_ms;
    for operation in &mut made.history.operations {
        if let Some((_, End::Answered(Ok(Answer::Posted(post))))) = &mut operation.end {
            post.posted_at_ms = store_ms;
        }
    }
}

#[test]
fn post_that_nobody_holds_is_reported() {
    let mut made = made(&[STORE]);
    let answer = Ok(Answer::Pending { copies: 0 });
    made.did(0, 26_000, 26_010, Fixture::request(2), answer).stored(0, 2);
    assert_eq!(made.rules(judge), ["g15.copies"]);
}

#[test]
fn post_refused_while_the_store_alone_is_away_is_reported() {
    let refused_at = |from, faults: &[(&str, &str, u64, u64)]| {
        let mut made = made(faults);
        made.did(0, from, from + 10, Fixture::request(2), busy(503));
        made.breaks(judge, "g15.refused")
    };
    assert_eq!(refused_at(26_000, &[STORE]), 1);
    assert_eq!(refused_at(24_000, &[STORE]), 0, "nobody knows yet");
    assert_eq!(refused_at(31_000, &[STORE]), 0, "it is back");
    let other = ("pause", "target = \"worker:1\"", 21_000, 22_000);
    assert_eq!(refused_at(26_000, &[STORE, other]), 0, "a worker was touched");
}

#[test]
fn post_that_fails_or_gets_no_answer_while_the_store_alone_is_away_is_reported() {
    let fails = |status, faults: &[(&str, &str, u64, u64)]| {
        let mut made = made(faults);
        let failure = Failure::Unknown { status, why: "cut".to_owned() };
        made.did(0, 26_000, 26_010, Fixture::request(2), Err(failure));
        made.breaks(judge, "g15.refused")
    };
    for status in [Some(500), Some(504), None] {
        assert_eq!(fails(status, &[STORE]), 1, "{status:?}");
    }
    let machine = ("crash", "target = \"person:0\"", 25_900, 26_000);
    assert_eq!(fails(None, &[STORE, machine]), 0, "its own machine may have lost it");
    assert_eq!(fails(Some(500), &[STORE, machine]), 1);
}

#[test]
fn store_that_is_cut_off_from_all_nodes_both_ways_is_away_alone() {
    let all = "from = [\"master:*\", \"worker:*\"]\nto = \"store\"";
    let back = "from = \"store\"\nto = [\"worker:*\", \"master:0\", \"master:1\"]";
    let some = "from = [\"master:*\", \"worker:0\"]\nto = \"store\"";
    let one_way = format!("{all}\ndirection = \"forward\"");
    let refused_at = |from, cut: &str, more: &[(&str, &str, u64, u64)]| {
        let cut = ("partition", cut, 20_000, 30_000);
        let mut made = made(&[&[cut], more].concat());
        made.did(0, from, from + 10, Fixture::request(2), busy(503));
        made.breaks(judge, "g15.refused")
    };
    assert_eq!(refused_at(26_000, all, &[]), 1);
    assert_eq!(refused_at(26_000, back, &[]), 1);
    assert_eq!(refused_at(24_000, all, &[]), 0, "nobody knows yet");
    assert_eq!(refused_at(31_000, all, &[]), 0, "it is healed");
    assert_eq!(refused_at(26_000, some, &[]), 0, "a worker reaches it");
    assert_eq!(refused_at(26_000, &one_way, &[]), 0, "it may hear them");
    let pause = ("pause", "target = \"worker:1\"", 21_000, 22_000);
    assert_eq!(refused_at(26_000, all, &[pause]), 0, "a worker was touched");
    let mut listed = made(&[("partition", all, 20_000, 30_000)]);
    is_held(&mut listed, 2, 26_000);
    listed.stored(0, 2);
    let none = Answer::Restored(restored(0, Consistency::Weak));
    listed.did(0, 27_000, 27_010, Request::Restore, Ok(none));
    assert_eq!(listed.rules(judge), ["g06.pending-missing"]);
}

#[test]
fn post_whose_id_another_unsettled_one_has_may_be_put_off() {
    let told = |other_text: Option<&str>| {
        let mut made = made(&[STORE]);
        let Request::Post { board, id, text } = Fixture::request(2) else { panic!("a post") };
        let text = other_text.map_or(text, |text| text.parse().unwrap());
        let held = Ok(Answer::Pending { copies: 2 });
        made.did(0, 26_000, 26_010, Fixture::request(2), held).stored(0, 2);
        made.did(0, 26_100, 26_110, Request::Post { board, id, text }, busy(503));
        made.breaks(judge, "g15.refused")
    };
    assert_eq!(told(Some("other")), 0);
    assert_eq!(told(None), 1, "it is the same post");
}

#[test]
fn post_held_once_and_page_refused_while_the_store_alone_is_away_are_reported() {
    let rules = |from, faults: &[(&str, &str, u64, u64)]| {
        let mut made = made(faults);
        made.did(0, from, from + 10, Fixture::request(2), Ok(Answer::Pending { copies: 1 }));
        let range = Range::Last;
        let (board, wanted) = (BoardName::lobby(), Consistency::Strong);
        let read = Request::Read { board, range, limit: 10, wanted };
        made.did(0, from, from + 10, read, busy(503));
        made.stored(0, 2);
        made.rules(judge)
    };
    assert_eq!(rules(26_000, &[STORE]), ["g15.once", "g15.unread"]);
    assert!(rules(24_000, &[STORE]).is_empty(), "nobody knows yet");
    let other = ("pause", "target = \"worker:1\"", 21_000, 22_000);
    assert!(rules(26_000, &[STORE, other]).is_empty(), "a worker was touched");
}

#[test]
fn held_post_or_call_while_the_store_alone_is_away_shows_weak_service() {
    let shown = |made: &Fixture| made.with(shown_weak_service);
    assert!(!shown(&made(&[STORE])), "nobody asked for anything");
    let asked = |from, answer| {
        let mut made = made(&[STORE]);
        made.did(0, from, from + 10, Fixture::request(2), answer);
        made
    };
    assert!(shown(&asked(26_000, busy(503))));
    assert!(!shown(&asked(24_000, busy(503))), "nobody knows yet");
    let held = || Ok(Answer::Pending { copies: 1 });
    assert!(shown(&asked(24_000, held())));
    let wipe = ("wipe", "target = \"worker:1\"", 27_000, 28_000);
    let mut made = made(&[STORE, wipe]);
    made.did(0, 26_000, 26_010, Fixture::request(2), held());
    assert!(!shown(&made), "a disk is gone, and a worker was touched");
}

#[test]
fn held_post_that_its_session_does_not_list_is_reported() {
    let rules = |pending: &[u8], from: u64| {
        let mut made = made(&[STORE]);
        is_held(&mut made, 2, 26_000);
        made.stored(0, 2);
        let pending = pending.iter().map(|n| id(*n)).collect();
        let listed = SessionRestored { pending, ..restored(0, Consistency::Weak) };
        made.did(0, from, from + 10, Request::Restore, Ok(Answer::Restored(listed)));
        made.rules(judge)
    };
    assert_eq!(rules(&[], 27_000), ["g06.pending-missing"]);
    assert!(rules(&[2], 27_000).is_empty());
    assert!(rules(&[], 25_500).is_empty(), "it was asked before");
    assert!(rules(&[], 31_000).is_empty(), "the store is back");
}
