use chatchat::model::ids::{BoardName, Fingerprint, Incarnation, Registration, Resource, Token};

use super::*;
use crate::oracle::{
    PageTaken,
    fixtures::{Fixture, ms, node},
};

const WORKER: u8 = 1;

fn domain(master: u8) -> Domain {
    Domain { master: node(master), incarnation: Incarnation(1) }
}

fn held(master: u8, epoch: u64) -> Event {
    let print = Fingerprint([1; 32]);
    Event::KeyHeld { domain: domain(master), epoch: KeyEpoch(epoch), print }
}

fn used(master: u8, epoch: u64) -> Event {
    Event::Epoch { domain: domain(master), epoch: KeyEpoch(epoch) }
}

fn join(worker: u8, registration: u64, master: u8) -> Event {
    let registration = Registration(registration);
    Event::Join { node: node(worker), registration, master: node(master) }
}

fn task() -> Event {
    Event::Assign {
        worker: node(WORKER),
        registration: Registration(1),
        resource: Resource::Board(BoardName::lobby()),
        token: Token::default(),
        after: None,
        posts: Vec::new(),
        attempt: 1,
    }
}

fn expel() -> Event {
    Event::Expel { node: node(WORKER) }
}

/// Masters 8 and 9 with their first keys. Worker 1 is with master 9, works, and is expelled at 20 s,
/// which master 9 says; `more` are faults besides.
fn begun(more: &[(&str, &str, u64, u64)]) -> Fixture {
    let mut faults = vec![("expel", "target = \"worker:0\"", 20_000, 50_000)];
    faults.extend(more);
    let mut made = Fixture::with_faults(&faults);
    for (place, master) in [("master:0", 8), ("master:1", 9)] {
        made.said(0, place, Event::Start { incarnation: Incarnation(1) });
        made.said(0, place, held(master, 1)).said(0, place, used(master, 1));
    }
    made.said(1, "worker:0", held(9, 1)).said(1, "worker:0", used(9, 1));
    made.said(1, "worker:0", join(WORKER, 1, 9)).said(2, "master:1", join(WORKER, 1, 9));
    made.said(19_000, "master:1", task());
    made.said(20_000, "master:1", expel());
    made
}

/// Lets master 9 use its second key, as a forced refresh does.
fn refreshed(made: &mut Fixture) {
    made.said(20_100, "master:1", held(9, 2)).said(20_200, "master:1", used(9, 2));
}

fn rules(made: &Fixture) -> Vec<&'static str> {
    made.judge(judge).iter().map(|violation| violation.rule.name).collect()
}

#[test]
fn expulsion_that_all_follow_is_accepted_and_so_is_the_machine_as_another_node() {
    let mut made = begun(&[]);
    refreshed(&mut made);
    // It came to the other master before that one knew.
    made.said(20_300, "worker:0", held(8, 1)).said(20_300, "worker:0", join(WORKER, 2, 8));
    made.said(20_301, "master:0", join(WORKER, 2, 8)).said(20_400, "master:0", task());
    made.said(21_000, "master:0", expel());
    made.said(21_100, "master:0", held(8, 2)).said(21_200, "master:0", used(8, 2));
    made.said(50_100, "worker:0", held(9, 2)).said(50_100, "worker:0", join(2, 1, 9));
    made.said(50_101, "master:1", join(2, 1, 9));
    assert_eq!(rules(&made), [""; 0]);
}

#[test]
fn task_after_the_masters_own_line_or_after_the_time_to_read_the_store_is_reported() {
    let mut made = begun(&[]);
    refreshed(&mut made);
    made.said(20_300, "master:1", task());
    assert_eq!(rules(&made), ["task"]);
    let mut made = begun(&[]);
    refreshed(&mut made);
    made.said(25_000, "master:0", task());
    assert_eq!(rules(&made), [""; 0], "it may not have read the store yet");
    made.said(26_000, "master:0", task());
    assert_eq!(rules(&made), ["task"]);
}

#[test]
fn master_that_cannot_read_the_store_is_given_more_time() {
    let cut = ("partition", "from = \"master:0\"\nto = \"store\"", 19_000, 40_000);
    let mut made = begun(&[cut]);
    refreshed(&mut made);
    made.said(30_000, "master:0", task()).said(45_000, "master:0", task());
    assert_eq!(rules(&made), [""; 0]);
    made.said(46_000, "master:0", task());
    assert_eq!(rules(&made), ["task"]);
    let other = ("partition", "from = \"master:1\"\nto = \"store\"", 19_000, 40_000);
    let mut made = begun(&[other]);
    refreshed(&mut made);
    made.said(30_000, "master:0", task());
    assert_eq!(rules(&made), ["task"], "the other one's line is no excuse");
}

#[test]
fn node_that_is_taken_in_again_is_reported_as_itself_and_under_another_name() {
    let mut made = begun(&[]);
    refreshed(&mut made);
    made.said(20_300, "master:1", join(WORKER, 2, 9));
    assert_eq!(rules(&made), ["back"]);
    let mut made = begun(&[("wipe", "target = \"worker:0\"", 30_000, 31_000)]);
    refreshed(&mut made);
    made.said(32_000, "worker:0", join(2, 1, 8));
    assert_eq!(rules(&made), ["back"]);
}

#[test]
fn master_that_begins_later_takes_the_node_in_at_no_time() {
    let mut made = begun(&[("exit", "target = \"master:0\"", 15_000, 21_000)]);
    refreshed(&mut made);
    made.said(21_500, "master:0", Event::Start { incarnation: Incarnation(2) });
    let second = Domain { incarnation: Incarnation(2), ..domain(8) };
    let (epoch, print) = (KeyEpoch(1), Fingerprint([1; 32]));
    made.said(21_500, "master:0", Event::KeyHeld { domain: second, epoch, print });
    assert_eq!(rules(&made), [""; 0]);
    made.said(21_600, "master:0", join(WORKER, 2, 8));
    assert_eq!(rules(&made), ["back"]);
}

#[test]
fn key_that_was_made_or_came_after_the_expulsion_is_reported() {
    let mut made = begun(&[]);
    refreshed(&mut made);
    made.said(20_150, "worker:0", held(9, 2));
    assert_eq!(rules(&made), ["key", "epoch"], "it was installed at the expelled node, too");
    let mut made = begun(&[]);
    refreshed(&mut made);
    made.said(20_110, "worker:0", held(9, 1));
    assert_eq!(rules(&made), [""; 0], "a Welcome was on its way");
    made.said(23_000, "worker:0", held(9, 1));
    assert_eq!(rules(&made), ["key"]);
}

#[test]
fn key_that_the_node_holds_and_its_master_goes_on_using_is_reported() {
    let mut made = begun(&[]);
    assert_eq!(rules(&made), ["epoch"]);
    made.said(27_000, "master:1", held(9, 2)).said(27_000, "master:1", used(9, 2));
    assert_eq!(rules(&made), ["epoch"], "too late");
    let mut made = begun(&[]);
    refreshed(&mut made);
    made.said(30_000, "worker:1", used(9, 1));
    assert_eq!(rules(&made), ["epoch"], "a fellow uses the old one");
    let mut made = begun(&[("pause", "target = \"master:1\"", 20_050, 30_000)]);
    made.said(19_000, "worker:1", used(9, 1));
    assert_eq!(rules(&made), [""; 0], "nothing is expected of a master that is stopped");
    assert!(made.with(|evidence| evidence.is_touched(Place::Master(1), ms(21_000), ms(22_000))));
}

/// Lets worker 0 take a page.
fn take(made: &mut Fixture, at: Duration) {
    made.store.pages_taken.push(PageTaken { at, by: Place::Worker(0) });
}

#[test]
fn posts_that_the_machine_takes_from_the_store_are_reported() {
    let mut made = begun(&[]);
    refreshed(&mut made);
    take(&mut made, ms(20_500));
    made.store.pages_taken.push(PageTaken { at: ms(40_000), by: Place::Worker(1) });
    assert_eq!(rules(&made), [""; 0], "too soon, and another worker");
    let all_know = ms(20_000) + known_within(&Config::default());
    let from = all_know + link_lost_within(&Config::default());
    for (at, wanted) in [(from, 1), (from - ms(1), 0), (ms(59_999), 1)] {
        take(&mut made, at);
        assert_eq!(rules(&made).len(), wanted, "{at:?}");
        made.store.pages_taken.pop();
    }
    made.said(51_000, "worker:0", join(7, 1, 8));
    take(&mut made, ms(51_000));
    assert_eq!(rules(&made), [""; 0], "it is another node now");
    take(&mut made, ms(50_999));
    assert_eq!(rules(&made), ["read"], "it was set up anew, and is in nowhere");
}

#[test]
fn pages_are_excused_while_the_machine_or_the_store_may_not_know_better() {
    for (kind, keys, excused) in [
        ("pause", "target = \"worker:0\"", true),
        ("pause", "target = \"store\"", true),
        ("clone", "target = \"master:0\"", true),
        ("pause", "target = \"worker:1\"", false),
        ("crash", "target = \"master:0\"", false),
    ] {
        let mut made = begun(&[(kind, keys, 30_000, 39_000)]);
        refreshed(&mut made);
        take(&mut made, ms(40_000));
        assert_eq!(rules(&made).is_empty(), excused, "{kind} {keys}: {:?}", rules(&made));
    }
}
