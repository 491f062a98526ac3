use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(ms)
}

fn person(n: u16) -> ActiveUser {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    let name = format!("Ann {n}").parse().expect("a name");
    let user = Author { id: UserId(id), name };
    ActiveUser { user, since_ms: 5, last_seen_ms: 5 }
}

fn people(numbers: impl IntoIterator<Item = u16>) -> Vec<ActiveUser> {
    numbers.into_iter().map(person).collect()
}

fn number(id: UserId) -> u16 {
    u16::from_be_bytes([id.0[0], id.0[1]])
}

fn change(list: &mut ActiveList, now: Mono) -> Option<(u64, usize, Vec<u16>, Vec<u16>)> {
    let change = list.due(now)?.change.expect("a short one");
    let came = change.came.iter().map(|one| number(one.user.id)).collect();
    let left = change.left.iter().map(|id| number(*id)).collect();
    Some((change.version, change.count, came, left))
}

#[test]
fn version_names_what_changed_since_the_one_before() {
    let mut list = ActiveList::new(at(0));
    assert!(list.take(people([1, 2])));
    assert_eq!(change(&mut list, at(0)), Some((1, 2, vec![1, 2], vec![])));
    assert!(list.take(people([2, 3])));
    assert_eq!(change(&mut list, at(1000)), Some((2, 2, vec![3], vec![1])));
    let back = ActiveUser { since_ms: 9, ..person(3) };
    assert!(list.take(vec![person(2), back]), "active anew");
    assert_eq!(change(&mut list, at(2000)), Some((3, 2, vec![3], vec![])));
}

#[test]
fn many_changes_within_a_second_are_one_version() {
    let mut list = ActiveList::new(at(0));
    list.take(people([1]));
    assert!(list.due(at(0)).is_some(), "the first is told at once");
    for (ms, n) in (100..).step_by(100).zip(2..=10) {
        list.take(people(1..=n));
        assert_eq!(list.due(at(ms)), None, "{ms} ms");
    }
    assert_eq!(list.next_deadline(), Some(at(1000)));
    assert_eq!(change(&mut list, at(1000)), Some((2, 10, (2..=10).collect(), vec![])));
    assert_eq!((list.next_deadline(), list.due(at(9000))), (None, None));
}

#[test]
fn time_of_being_seen_makes_no_version() {
    let mut list = ActiveList::new(at(0));
    list.take(people([1]));
    assert!(list.due(at(0)).is_some());
    let seen = ActiveUser { last_seen_ms: 77, ..person(1) };
    assert!(!list.take(vec![seen.clone()]));
    assert_eq!(list.due(at(5000)), None);
    assert_eq!(list.users().first(), Some(&seen));
    assert_eq!(list.window().users, [seen], "a window shows the newest");
}

#[test]
fn person_who_came_and_went_within_a_second_is_named_as_gone() {
    let mut list = ActiveList::new(at(0));
    list.take(people([1]));
    assert!(list.due(at(0)).is_some());
    list.take(people([1, 2]));
    let shown = list.window();
    assert_eq!((shown.version, shown.users.len()), (1, 2), "a newer list under the old version");
    list.take(people([1]));
    assert_eq!(change(&mut list, at(1000)), Some((2, 1, vec![], vec![2])));
}

#[test]
fn change_longer_than_a_window_is_not_made() {
    let mut list = ActiveList::new(at(0));
    let few = u16::try_from(PRESENCE_MAX).expect("small");
    list.take(people(0..few));
    assert!(list.due(at(0)).expect("a version").change.is_some());
    list.take(people(few..2 * few + 1));
    let long = list.due(at(1000)).expect("a version");
    assert_eq!(long.change, None);
    assert_eq!((long.window.version, long.window.count), (2, usize::from(few) + 1));
    assert_eq!(long.window.users, people(few..2 * few));
}

#[test]
fn list_that_fits_into_a_window_again_is_told_as_one() {
    let mut list = ActiveList::new(at(0));
    let few = u16::try_from(PRESENCE_MAX).expect("small");
    list.take(people(0..few));
    assert!(list.due(at(0)).expect("a version").change.is_some());
    // Longer only between two versions, when somebody was shown a part of it.
    list.take(people(0..few + 5));
    list.take(people(1..few));
    assert_eq!(list.due(at(1000)).expect("a version").change, None);
    list.take(people(2..few));
    assert!(list.due(at(2000)).expect("a version").change.is_some());
}

#[test]
fn window_is_shared_until_the_list_is_read_again() {
    let mut list = ActiveList::new(at(0));
    list.take(people([1]));
    list.window().encoded(|_| "once".into());
    assert_eq!(list.window().encoded(|_| "twice".into()), "once");
    list.take(people([1]));
    assert_eq!(list.window().encoded(|_| "twice".into()), "twice");
}

#[test]
fn person_who_is_not_on_the_list_yet_has_a_row_from_now_on() {
    let mut list = ActiveList::new(at(0));
    list.take(people([1]));
    assert_eq!(list.row_of(&person(1).user, 40), person(1));
    let new = ActiveUser { since_ms: 40, last_seen_ms: 40, ..person(2) };
    assert_eq!(list.row_of(&person(2).user, 40), new);
}

proptest! {
    /// Invariants 1 and 2: readers that begin with a window at any time follow the list.
    #[test]
    fn reader_of_every_version_has_the_list(
        steps in prop::collection::vec((prop::collection::btree_set(0..12_u16, 0..12), 0..900_u64), 1..40),
    ) {
        let mut list = ActiveList::new(at(0));
        let mut readers: Vec<(u64, BTreeMap<UserId, ActiveUser>)> = Vec::new();
        let (mut now, mut made) = (0, Vec::new());
        for (who, pause) in steps {
            now += pause;
            list.take(people(who));
            let window = list.window();
            let seen = window.users.iter().map(|one| (one.user.id, one.clone())).collect();
            readers.push((window.version, seen));
            if let Some(version) = list.due(at(now)) {
                made.push(now);
                tell(&mut readers, &version)?;
            }
        }
        if let Some(version) = list.due(at(now + 1000)) {
            tell(&mut readers, &version)?;
        }
        prop_assert!(made.windows(2).all(|pair| pair[1] - pair[0] >= 1000), "{:?}", made);
        let newest: BTreeMap<_, _> = list.users().iter().map(|one| (one.user.id, one.clone())).collect();
        for (version, seen) in readers {
            prop_assert_eq!((version, seen), (list.version(), newest.clone()));
        }
    }
}

fn tell(
    readers: &mut [(u64, BTreeMap<UserId, ActiveUser>)],
    new: &NewVersion,
) -> Result<(), TestCaseError> {
    let change = new.change.as_ref().expect("a short one");
    for (version, seen) in readers {
        prop_assert_eq!(change.version, *version + 1);
        *version = change.version;
        seen.retain(|id, _| !change.left.contains(id));
        seen.extend(change.came.iter().map(|one| (one.user.id, one.clone())));
    }
    Ok(())
}
