//! Workers that come and go.

use super::*;

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
    lab.master.on_members(lab.now, LinkId(50), vec![moved], &mut lab.out);
    assert!(lab.master.registrations().is_empty());
    assert!(lab.has(|effect| matches!(effect,
        Effect::Close { link, close } if *link == LinkId(1) && close.reason == CloseReason::Replaced)));
    let back = lab.master.on_worker(lab.now, LinkId(9), worker(1, 2), &mut lab.out);
    assert!(back.is_err(), "only a higher registration wins");
}
