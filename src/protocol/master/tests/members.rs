//! Workers that come and go.

use super::*;
use crate::protocol::{master_watch, registry::WORD_INTERVAL};

#[test]
fn joins_leaves_and_failures_are_published_once() {
    let mut lab = Lab::new(0);
    lab.join(1, 1);
    lab.now = lab.now + Duration::from_millis(50);
    lab.join(2, 1);
    lab.master.on_link_over(lab.now, LinkId(1), &LinkOver::Left, &mut lab.out);
    let lost = LinkOver::Lost("silent".to_owned());
    lab.master.on_link_over(lab.now, LinkId(2), &lost, &mut lab.out);
    let told: Vec<_> = lab
        .out
        .iter()
        .filter_map(|effect| match effect {
            Effect::Publish { update: Update::Members(members), spread: true } => {
                Some((members[0].name.clone(), members[0].fact.state))
            }
            _ => None,
        })
        .collect();
    let (one, two) = ("worker-1".to_owned(), "worker-2".to_owned());
    assert_eq!(
        told,
        [
            (one.clone(), MemberState::In),
            (two.clone(), MemberState::In),
            (one, MemberState::Left),
            (two, MemberState::Failed),
        ]
    );
}

#[test]
fn joins_that_come_at_the_same_time_are_published_together_and_before_an_end() {
    let mut lab = Lab::new(0);
    lab.master.on_time(lab.now, &mut lab.out);
    lab.out.clear();
    let before = lab.master.next_deadline();
    let published = |lab: &mut Lab| -> Vec<Vec<String>> {
        let effects = std::mem::take(&mut lab.out).into_iter();
        effects
            .filter_map(|effect| match effect {
                Effect::Publish { update: Update::Members(members), spread: true } => {
                    let told = |it: &Member| format!("{} {:?}", it.name, it.fact.state);
                    Some(members.iter().map(told).collect())
                }
                _ => None,
            })
            .collect()
    };
    for nth in 1..=3 {
        lab.join(nth, 1);
    }
    assert_eq!(published(&mut lab), [["worker-1 In"]]);
    let due = lab.now + Duration::from_millis(50);
    assert!(before > due);
    assert_eq!(lab.master.next_deadline(), due);
    lab.master.on_time(due, &mut lab.out);
    assert_eq!(published(&mut lab), [["worker-2 In", "worker-3 In"]]);
    assert!(lab.master.next_deadline() > due, "nothing waits");
    lab.now = due;
    lab.join(4, 1);
    assert!(published(&mut lab).is_empty());
    let failed = LinkOver::Lost("silent".to_owned());
    lab.master.on_link_over(lab.now, LinkId(4), &failed, &mut lab.out);
    assert_eq!(published(&mut lab), [["worker-4 In"], ["worker-4 Failed"]]);
}

#[test]
fn joins_that_wait_are_published_before_a_digest() {
    let mut lab = Lab::new(0);
    lab.join(1, 1);
    lab.master.on_time(lab.now + Duration::from_secs(60), &mut lab.out);
    lab.now = lab.now + Duration::from_secs(120);
    lab.join(2, 1);
    lab.join(3, 1);
    lab.out.clear();
    // Too soon for joins by themselves.
    lab.master.on_time(lab.now, &mut lab.out);
    let at = |wanted: fn(&Effect) -> bool| lab.out.iter().position(wanted);
    let published = at(|it| matches!(it, Effect::Publish { .. }));
    let digest = at(|it| matches!(it, Effect::Send { direct: Direct::Digest { .. }, .. }));
    assert!(published.is_some() && published < digest, "{:?}", lab.out);
}

/// Hears from master 2, over a new link, that a worker is registered with this master. Returns what was told.
fn hear_of(lab: &mut Lab, mut worker: Member, with: NodeId) -> Member {
    worker.fact.master = with;
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    lab.master.on_members(lab.now, LinkId(50), vec![worker.clone()], &mut lab.out);
    worker
}

#[test]
fn worker_that_registered_elsewhere_is_let_go() {
    let mut lab = Lab::new(1);
    hear_of(&mut lab, worker(1, 2), holder(2).node);
    assert!(lab.master.registrations().is_empty());
    assert!(lab.has(|effect| matches!(effect,
        Effect::Close { link, close } if *link == LinkId(1) && close.reason == CloseReason::Replaced)));
    let back = lab.master.on_worker(lab.now, LinkId(9), worker(1, 2), None, &mut lab.out);
    assert!(back.is_err(), "only a higher registration wins");
}

#[test]
fn worker_cannot_expel_others_by_its_word() {
    let mut lab = Lab::new(3);
    let (bad, victim) = (LinkId(1), worker(2, u64::MAX));
    let gone = Member { fact: Fact { state: MemberState::Left, ..victim.fact }, ..victim };
    lab.master.on_members(lab.now, bad, vec![gone, worker(9, 4)], &mut lab.out);
    assert_eq!(lab.master.registrations().len(), 3);
    let known = |member: Member| lab.master.registry().get(&member.fact.node).map(|m| m.fact);
    assert_eq!(known(worker(2, 1)), Some(worker(2, 1).fact));
    assert_eq!(known(worker(9, 4)), None, "nor does it fill the directory");
    assert!(!lab.has(|effect| matches!(effect, Effect::Close { .. } | Effect::Publish { .. })));
}

#[test]
fn registration_that_only_a_worker_knows_is_taken_in_when_the_node_is_gone_anyway() {
    let mut lab = Lab::new(1);
    let told = |master, registration, state| Member {
        fact: Fact { state, master: holder(master).node, ..worker(2, registration).fact },
        name: "forged".to_owned(),
        ..worker(2, registration)
    };
    let known = |lab: &Lab| {
        let known = lab.master.registry().get(&worker(2, 1).fact.node);
        known.map(|m| (m.fact.registration.0, m.fact.state))
    };
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    let failed = Member { name: "worker-2".to_owned(), ..told(2, 1, MemberState::Failed) };
    lab.master.on_members(lab.now, LinkId(50), vec![failed], &mut lab.out);
    let rows = vec![master_watch::tests::row(1, 1, 1), master_watch::tests::row(2, 1, 1)];
    lab.master.on_masters(lab.now, Some(rows), &mut lab.out);
    let mut hears = |master, registration, state| {
        let told = vec![told(master, registration, state)];
        lab.now = lab.now + WORD_INTERVAL;
        lab.master.on_members(lab.now, LinkId(1), told, &mut lab.out);
        known(&lab)
    };
    let (up, failed) = (MemberState::In, MemberState::Failed);
    assert_eq!(hears(2, u64::MAX, up), Some((1, failed)), "the numbers are not used up");
    assert_eq!(hears(2, 2, failed), Some((2, failed)));
    assert_eq!(hears(9, 3, up), Some((3, failed)), "master 9 is not there");
    assert_eq!(hears(2, 4, up), Some((4, up)), "master 2 is, and knows better");
    assert_eq!(hears(2, 5, failed), Some((4, up)), "it is not gone");
    let name = &lab.master.registry().get(&worker(2, 1).fact.node).expect("known").name;
    assert_eq!(name, "worker-2");
}

/// A lab with worker 1, and worker 2, which failed in its first registration.
fn lab_with_a_failed_worker() -> Lab {
    let mut lab = Lab::new(2);
    let lost = LinkOver::Lost("silent".to_owned());
    lab.master.on_link_over(lab.now, LinkId(2), &lost, &mut lab.out);
    lab.out.clear();
    lab
}

/// Word of worker 1 that worker 2 failed in this registration.
fn word(registration: u64) -> Member {
    let member = worker(2, registration);
    Member { fact: Fact { state: MemberState::Failed, ..member.fact }, ..member }
}

#[test]
fn worker_that_keeps_raising_a_registration_neither_keeps_its_node_out_nor_is_spread() {
    let mut lab = lab_with_a_failed_worker();
    lab.master.on_members(lab.now, LinkId(1), vec![word(2), word(3)], &mut lab.out);
    let published: Vec<_> = lab
        .out
        .iter()
        .filter_map(|effect| match effect {
            Effect::Publish { update: Update::Members(members), .. } => Some(members),
            _ => None,
        })
        .flatten()
        .map(|member| member.fact.registration)
        .collect();
    assert_eq!(published, [Registration(2)], "one word counts, also of one message");
    lab.out.clear();
    lab.now = lab.now + Duration::from_secs(1);
    lab.master.on_members(lab.now, LinkId(1), vec![word(3)], &mut lab.out);
    assert!(lab.out.is_empty(), "too soon: {:?}", lab.out);
    lab.join(2, 3);
    assert_eq!(lab.master.registrations().len(), 2, "its number is not taken");
}

#[test]
fn word_that_came_too_soon_is_heard_again_once_it_counts() {
    let mut lab = lab_with_a_failed_worker();
    lab.master.on_members(lab.now, LinkId(1), vec![word(2)], &mut lab.out);
    let registration = |lab: &Lab| {
        let known = lab.master.registry().get(&word(1).fact.node);
        known.map(|member| member.fact.registration)
    };
    let mut heard = Vec::new();
    for _ in 0..4 {
        lab.now = lab.now + Duration::from_secs(2);
        lab.out.clear();
        lab.master.on_digest(LinkId(1), [0; 16], &mut lab.out);
        if lab.has(|it| matches!(it, Effect::Send { direct: Direct::Members(_), .. })) {
            // The worker knows better than the page.
            lab.master.on_members(lab.now, LinkId(1), vec![word(3)], &mut lab.out);
        }
        heard.extend(registration(&lab));
    }
    assert_eq!(heard, [2, 2, 3, 3].map(Registration));
}

#[test]
fn expelled_worker_is_cut_with_the_reason_and_announced_as_gone_once() {
    let mut lab = Lab::new(2);
    let node = worker(1, 1).fact.node;
    lab.master.expel(lab.now, node, &mut lab.out);
    assert!(lab.has(|effect| matches!(effect,
        Effect::Close { link, close } if *link == LinkId(1) && close.reason == CloseReason::Expelled)));
    let left = lab.out.iter().filter(|effect| {
        matches!(effect, Effect::Event(Event::Announce { node: it, state: MemberState::Left, .. })
            if *it == node)
    });
    assert_eq!(left.count(), 1);
    assert_eq!(lab.master.registrations().len(), 1);
    lab.out.clear();
    lab.master.expel(lab.now, node, &mut lab.out);
    assert!(lab.out.is_empty(), "it is gone: {:?}", lab.out);
}

#[test]
fn registration_of_an_earlier_life_of_this_master_is_ended() {
    let mut lab = Lab::new(1);
    let own = lab.master.me().node;
    let lost = hear_of(&mut lab, worker(2, 1), own);
    lab.out.clear();
    lab.master.on_masters(lab.now, None, &mut lab.out);
    let told: Vec<_> = lab
        .out
        .iter()
        .filter_map(|effect| match effect {
            Effect::Publish { update: Update::Members(members), spread: true } => {
                Some((members[0].fact.node, members[0].fact.state))
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [(lost.fact.node, MemberState::Failed)], "its own worker 1 stays");
    lab.join(2, 2);
    lab.out.clear();
    lab.master.on_masters(lab.now, None, &mut lab.out);
    assert!(!lab.has(|effect| matches!(effect, Effect::Publish { .. })), "it is back");
}

/// Reads the rows of masters 1 to 3 for so many seconds; only that of master 3 changes.
pub(super) fn rows_stand(lab: &mut Lab, seconds: u64) {
    let row = master_watch::tests::row;
    for _ in 0..seconds {
        lab.now = lab.now + Duration::from_secs(1);
        let beat = lab.now.as_ns() / 1_000_000_000;
        let rows = vec![row(1, 1, 1), row(2, 1, 1), row(3, 1, beat)];
        lab.master.on_masters(lab.now, Some(rows), &mut lab.out);
    }
}

/// Returns whether a worker was announced as failed.
fn is_called_failed(lab: &Lab, worker: &Member) -> bool {
    lab.has(|effect| {
        matches!(effect, Effect::Event(Event::Announce { node, state: MemberState::Failed, .. })
            if *node == worker.fact.node)
    })
}

/// Makes a lab in which a worker is registered with master 2, which is linked, and out for long.
fn lab_with_a_linked_master_that_is_out() -> (Lab, Member) {
    let mut lab = Lab::new(0);
    let theirs = hear_of(&mut lab, worker(1, 1), holder(2).node);
    lab.master.on_beat(lab.now, LinkId(50), Beat { reaches_store: false }, &mut lab.out);
    rows_stand(&mut lab, 20);
    assert!(!lab.master.watch().is_in(&holder(2).node), "it is out for the store");
    assert!(!is_called_failed(&lab, &theirs));
    (lab, theirs)
}

/// Has a link break.
fn breaks(lab: &mut Lab, link: LinkId) {
    let lost = LinkOver::Lost("reset".to_owned());
    lab.master.on_link_over(lab.now, link, &lost, &mut lab.out);
}

/// Has link 50 break, and sees when master 2's worker is called failed.
fn is_called_failed_five_seconds_after_a_break(lab: &mut Lab, theirs: &Member) {
    breaks(lab, LinkId(50));
    rows_stand(lab, 4);
    assert!(!is_called_failed(lab, theirs), "the link may be made again");
    rows_stand(lab, 1);
    assert!(is_called_failed(lab, theirs));
}

#[test]
fn worker_of_a_linked_master_that_is_out_is_called_failed_five_seconds_after_the_end_of_the_link() {
    let (mut lab, theirs) = lab_with_a_linked_master_that_is_out();
    is_called_failed_five_seconds_after_a_break(&mut lab, &theirs);
}

#[test]
fn worker_of_a_master_that_is_out_is_not_called_failed_when_its_link_breaks_and_is_made_again() {
    let (mut lab, theirs) = lab_with_a_linked_master_that_is_out();
    for link in 50..55 {
        breaks(&mut lab, LinkId(link));
        rows_stand(&mut lab, 3);
        lab.is_linked(LinkId(link + 1), false);
        rows_stand(&mut lab, 10);
    }
    assert!(!is_called_failed(&lab, &theirs));
    breaks(&mut lab, LinkId(55));
    rows_stand(&mut lab, 5);
    assert!(is_called_failed(&lab, &theirs), "counted from the end of the last link");
}

#[test]
fn worker_of_a_master_that_is_out_is_called_failed_though_its_hanging_driver_is_linked_again_and_again()
 {
    let (mut lab, theirs) = lab_with_a_linked_master_that_is_out();
    for link in 50..53 {
        assert!(!is_called_failed(&lab, &theirs), "{link}");
        breaks(&mut lab, LinkId(link));
        lab.master.on_master(lab.now, LinkId(link + 1), holder(2).node, &mut lab.out);
        rows_stand(&mut lab, 2);
    }
    assert!(is_called_failed(&lab, &theirs), "counted from the end of the link that spoke");
}

#[test]
fn worker_of_a_master_that_is_out_is_not_called_failed_when_a_forward_is_lost_before_its_link() {
    let mut lab = Lab::new(1);
    let theirs = hear_of(&mut lab, worker(2, 1), holder(2).node);
    lab.master.on_beat(lab.now, LinkId(50), Beat { reaches_store: false }, &mut lab.out);
    let id = lab.submit(1);
    lab.held_by(holder(2));
    rows_stand(&mut lab, 20);
    assert!(lab.has(|it| matches!(it, Effect::Forward { .. })), "{:?}", lab.out);
    lab.forward_ends(id, Err(CallFailed::Gone));
    is_called_failed_five_seconds_after_a_break(&mut lab, &theirs);
}

#[test]
fn ends_of_links_that_count_no_more_are_forgotten_while_the_store_is_away_too() {
    let (mut lab, _) = lab_with_a_linked_master_that_is_out();
    breaks(&mut lab, LinkId(50));
    lab.now = lab.now + Duration::from_secs(4);
    lab.master.on_masters(lab.now, None, &mut lab.out);
    assert_eq!(lab.master.links_ended.len(), 1);
    lab.now = lab.now + Duration::from_secs(1);
    lab.master.on_masters(lab.now, None, &mut lab.out);
    assert!(lab.master.links_ended.is_empty());
}

#[test]
fn worker_of_a_master_whose_own_row_stands_is_not_called_failed_by_it() {
    let mut lab = Lab::new(1);
    rows_stand(&mut lab, 20);
    assert!(!lab.master.watch().is_in(&holder(1).node), "its writes do not come through");
    assert!(!is_called_failed(&lab, &worker(1, 1)));
    assert_eq!(lab.master.registrations().len(), 1);
}
