//! Dials of other masters.

use super::{members::rows_stand, *};
use crate::{model::rows::MasterRow, protocol::master_watch::tests::row};

/// Begins the dials that are due. Returns the numbers of their masters.
fn begun(lab: &mut Lab) -> Vec<u8> {
    let rows = lab.master.begin_dials(lab.now, |_| false);
    rows.iter().map(|row| row.node.0[0]).collect()
}

/// Ends dials that reached nobody.
fn fail(lab: &mut Lab, masters: &[u8]) {
    for n in masters {
        lab.master.on_dialed(lab.now, holder(*n).node, false);
    }
}

/// Dials in vain for so many seconds, in which only the row of master 3 changes. Returns the seconds
/// in which a master was dialled.
fn dialled(lab: &mut Lab, n: u8, seconds: u64) -> Vec<u64> {
    let mut at = Vec::new();
    for second in 0..seconds {
        let masters = begun(lab);
        fail(lab, &masters);
        at.extend(masters.contains(&n).then_some(second));
        rows_stand(lab, 1);
    }
    at
}

/// Makes a lab in which master 2 is out, and master 3 is in.
fn lab_with_a_master_that_is_out() -> Lab {
    let mut lab = Lab::new(0);
    rows_stand(&mut lab, 20);
    assert!(!lab.master.watch().is_in(&holder(2).node));
    assert!(lab.master.watch().is_in(&holder(3).node));
    lab
}

#[test]
fn master_that_is_out_is_dialled_after_pauses_that_grow_up_to_a_minute() {
    let mut lab = lab_with_a_master_that_is_out();
    assert_eq!(dialled(&mut lab, 2, 200), [0, 1, 3, 7, 15, 31, 63, 123, 183]);
}

#[test]
fn master_that_is_in_is_dialled_every_second() {
    let mut lab = lab_with_a_master_that_is_out();
    let every: Vec<u64> = (0..100).collect();
    assert_eq!(dialled(&mut lab, 3, 100), every);
}

#[test]
fn master_that_is_out_is_dialled_at_once_when_its_link_breaks() {
    let mut lab = lab_with_a_master_that_is_out();
    dialled(&mut lab, 2, 100);
    lab.is_linked(LinkId(50), false);
    assert_eq!(dialled(&mut lab, 2, 100), [] as [u64; 0], "it is linked");
    let lost = LinkOver::Lost("reset".to_owned());
    lab.master.on_link_over(lab.now, LinkId(50), &lost, &mut lab.out);
    assert_eq!(dialled(&mut lab, 2, 10), [0, 1, 3, 7]);
}

#[test]
fn pauses_grow_of_a_master_that_is_reached_and_says_nothing() {
    let mut lab = lab_with_a_master_that_is_out();
    let (mut dialled, mut linked) = (Vec::new(), None);
    for second in 0..40 {
        if let Some(link) = linked.take() {
            let lost = LinkOver::Lost("silent".to_owned());
            lab.master.on_link_over(lab.now, link, &lost, &mut lab.out);
        }
        if begun(&mut lab).contains(&2) {
            let link = LinkId(50 + second);
            lab.master.on_dialed(lab.now, holder(2).node, true);
            lab.master.on_master(lab.now, link, holder(2).node, &mut lab.out);
            (linked, dialled) = (Some(link), [dialled, vec![second]].concat());
        }
        rows_stand(&mut lab, 1);
    }
    assert_eq!(dialled, [0, 2, 5, 10, 19, 36]);
}

#[test]
fn master_that_comes_back_is_dialled_without_the_pause_of_one_that_is_out() {
    let mut lab = lab_with_a_master_that_is_out();
    assert_eq!(dialled(&mut lab, 2, 65).last(), Some(&63));
    let rows = vec![row(2, 1, 2), row(3, 1, 1)];
    lab.master.on_masters(lab.now, Some(rows), &mut lab.out);
    assert!(begun(&mut lab).contains(&2));
}

#[test]
fn dial_of_a_master_that_was_out_gives_way_to_another_when_it_is_in() {
    let mut lab = lab_with_a_master_that_is_out();
    assert_eq!(begun(&mut lab), [2, 3]);
    rows_stand(&mut lab, 5);
    assert_eq!(begun(&mut lab), [] as [u8; 0], "both are under way");
    lab.master.on_masters(lab.now, Some(vec![row(2, 1, 2), row(3, 1, 1)]), &mut lab.out);
    assert_eq!(begun(&mut lab), [2]);
    assert_eq!(begun(&mut lab), [] as [u8; 0], "it was in when this one began");
    // The link of a dial that reached it comes next: until then nothing waits.
    lab.master.on_dialed(lab.now, holder(2).node, true);
    assert_eq!(begun(&mut lab), [2]);
}

#[test]
fn master_that_is_linked_denied_drained_or_of_smaller_id_is_not_dialled_though_it_is_out() {
    let mut lab = Lab::new(0);
    lab.master.on_master(lab.now, LinkId(50), holder(5).node, &mut lab.out);
    for second in 1..=20 {
        lab.now = lab.now + Duration::from_secs(1);
        let ended = MasterRow { draining: true, ..row(4, 1, 1) };
        let still = [row(0, 1, 1), row(1, 1, 1), row(2, 1, 1), ended, row(5, 1, 1), row(6, 1, 1)];
        let rows = still.into_iter().chain([row(3, 1, second)]).collect();
        lab.master.on_masters(lab.now, Some(rows), &mut lab.out);
    }
    let rows = lab.master.begin_dials(lab.now, |node| *node == holder(6).node);
    let dialled: Vec<_> = rows.iter().map(|row| row.node).collect();
    assert_eq!(dialled, [holder(2).node, holder(3).node]);
    lab.master.on_masters(lab.now, Some(vec![row(3, 1, 21)]), &mut lab.out);
    fail(&mut lab, &[2]);
    lab.now = lab.now + Duration::from_secs(60);
    assert_eq!(begun(&mut lab), [] as [u8; 0], "3 is under way, and the others have no row");
}

#[test]
fn master_without_the_store_dials_all_masters_that_it_knew() {
    let mut lab = lab_with_a_master_that_is_out();
    lab.now = lab.now + Duration::from_secs(5);
    for _ in 0..60 {
        lab.now = lab.now + Duration::from_secs(1);
        // After so long a time it does not know any more who was out.
        lab.master.on_masters(lab.now, None, &mut lab.out);
        let masters = begun(&mut lab);
        assert_eq!(masters, [2, 3]);
        fail(&mut lab, &masters);
    }
}

#[test]
fn end_of_a_pause_is_a_deadline_until_it_is_looked_at() {
    let mut lab = lab_with_a_master_that_is_out();
    let at = lab.now;
    let masters = begun(&mut lab);
    fail(&mut lab, &masters);
    lab.now = at + Duration::from_millis(300);
    lab.master.on_time(lab.now, &mut lab.out);
    let without = lab.master.next_deadline();
    assert_eq!(begun(&mut lab), [] as [u8; 0]);
    let due = at + Duration::from_secs(1);
    assert!(due < without);
    assert_eq!(lab.master.next_deadline(), due);
    lab.now = due;
    assert!(lab.master.begin_dials(lab.now, |_| true).is_empty(), "both were denied meanwhile");
    assert_eq!(lab.master.next_deadline(), without);
}
