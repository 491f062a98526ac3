//! Workers that come and go.

use super::*;
use crate::protocol::master_watch;

#[test]
fn joins_leaves_and_failures_are_published_once() {
    let mut lab = Lab::new(0);
    lab.join(1, 1);
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
fn worker_that_registered_elsewhere_is_let_go() {
    let mut lab = Lab::new(1);
    let mut moved = worker(1, 2);
    moved.fact.master = holder(2).node;
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    lab.master.on_members(lab.now, LinkId(50), vec![moved], &mut lab.out);
    assert!(lab.master.registrations().is_empty());
    assert!(lab.has(|effect| matches!(effect,
        Effect::Close { link, close } if *link == LinkId(1) && close.reason == CloseReason::Replaced)));
    let back = lab.master.on_worker(lab.now, LinkId(9), worker(1, 2), &mut lab.out);
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
fn registration_that_only_a_worker_knows_is_ended_when_its_master_is_long_out() {
    let mut lab = Lab::new(1);
    let link = LinkId(1);
    let told = |registration, state| Member {
        fact: Fact { state, master: holder(9).node, ..worker(2, registration).fact },
        ..worker(2, registration)
    };
    let known = |lab: &Lab| {
        let known = lab.master.registry().get(&worker(2, 1).fact.node);
        known.map(|m| (m.fact.registration.0, m.fact.state))
    };
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    let failed = vec![told(1, MemberState::Failed)];
    lab.master.on_members(lab.now, LinkId(50), failed, &mut lab.out);
    let hears = |lab: &mut Lab, registration, state| {
        lab.master.on_members(lab.now, link, vec![told(registration, state)], &mut lab.out);
    };
    let rows = || vec![master_watch::tests::row(1, 1, 1)];
    hears(&mut lab, 3, MemberState::In);
    assert_eq!(known(&lab), Some((1, MemberState::Failed)), "no list of masters was read yet");
    lab.master.on_masters(lab.now, Some(rows()), &mut lab.out);
    for (registration, state) in [(3, MemberState::Left), (u64::MAX, MemberState::In)] {
        hears(&mut lab, registration, state);
        assert_eq!(known(&lab), Some((1, MemberState::Failed)));
    }
    hears(&mut lab, 3, MemberState::In);
    assert_eq!(known(&lab), Some((3, MemberState::Failed)));
    lab.join(2, 4);
    hears(&mut lab, 5, MemberState::In);
    assert_eq!(known(&lab), Some((4, MemberState::In)), "it is in");
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
    let mut lost = worker(2, 1);
    lost.fact.master = lab.master.me().node;
    lab.master.on_master(lab.now, LinkId(50), holder(2).node, &mut lab.out);
    lab.master.on_members(lab.now, LinkId(50), vec![lost.clone()], &mut lab.out);
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
