use std::{cell::Cell, rc::Rc};

use proptest::prelude::*;

use super::{checks::CHECKS_MAX, *};
use crate::model::ids::{Author, UserId};

/// Returns a cache for whose sessions everybody waits to the end.
fn cache<W>(max: usize) -> Sessions<W> {
    Sessions::new(max, |_| false)
}

fn key(n: u8) -> SessionKey {
    SessionKey([n; 32])
}

fn row(n: u8) -> SessionRow {
    let user = Author { id: UserId([n; 16]), name: "Ada".parse().expect("a name") };
    SessionRow { key: key(n), user, read_marks: Vec::new() }
}

/// Ends a look-up of the store that is there. Returns all who waited for it.
fn looked_up<W>(sessions: &mut Sessions<W>, key: &SessionKey, row: Option<&SessionRow>) -> Vec<W> {
    sessions.on_looked_up(key, row).expect("no row was forgotten meanwhile")
}

/// Returns one of many keys.
fn made_up(n: usize) -> SessionKey {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&n.to_le_bytes());
    SessionKey(key)
}

#[test]
fn read_mark_that_comes_during_a_lookup_is_kept_though_the_row_is_older() {
    let mut sessions = cache(2);
    assert_eq!(sessions.wait(key(1), 0), Ok(true));
    for seq in [7, 5] {
        sessions.raise_mark(&key(1), BoardName::lobby(), Seq(seq));
    }
    let older = SessionRow { read_marks: vec![(BoardName::lobby(), Seq(3))], ..row(1) };
    assert_eq!(looked_up(&mut sessions, &key(1), Some(&older)), [0]);
    let marks = |sessions: &Sessions<_>, n| sessions.get(&key(n)).map(|row| row.read_marks.clone());
    assert_eq!(marks(&sessions, 1), Some(vec![(BoardName::lobby(), Seq(7))]));
    // A session that was not found has no marks, and their number is bounded.
    assert_eq!(sessions.wait(key(2), 0), Ok(true));
    for n in 0..2 * MARKS_MAX {
        sessions.raise_mark(&key(2), format!("b{n}").parse().expect("a name"), Seq(1));
    }
    assert_eq!(looked_up(&mut sessions, &key(2), None), [0]);
    assert_eq!(marks(&sessions, 2), None);
    assert_eq!(sessions.wait(key(2), 0), Ok(true));
    for n in 0..2 * MARKS_MAX {
        sessions.raise_mark(&key(2), format!("b{n}").parse().expect("a name"), Seq(1));
    }
    assert_eq!(looked_up(&mut sessions, &key(2), Some(&row(2))), [0]);
    assert_eq!(marks(&sessions, 2).map(|marks| marks.len()), Some(MARKS_MAX));
}

#[test]
fn lookups_beyond_the_bound_wait_their_turn() {
    let mut sessions = cache(2);
    let begun = (0..LOOKUPS_MAX + 2).filter(|n| sessions.wait(made_up(*n), *n) == Ok(true));
    assert_eq!(begun.count(), LOOKUPS_MAX);
    assert_eq!(sessions.wait(made_up(LOOKUPS_MAX), 0), Ok(false));
    assert_eq!(sessions.next_lookup(), None);
    assert_eq!(looked_up(&mut sessions, &made_up(7), None), [7]);
    assert_eq!(sessions.next_lookup(), Some(made_up(LOOKUPS_MAX)));
    assert_eq!(sessions.next_lookup(), None);
    assert_eq!(looked_up(&mut sessions, &made_up(LOOKUPS_MAX), None), [LOOKUPS_MAX, 0]);
    assert_eq!(sessions.next_lookup(), Some(made_up(LOOKUPS_MAX + 1)));
}

#[test]
fn late_row_of_a_closed_session_does_not_open_it() {
    let mut sessions = cache::<()>(2);
    sessions.put(row(1));
    sessions.close(&key(1));
    sessions.put(row(1));
    assert_eq!(sessions.get(&key(1)), None);
    sessions.put(row(2));
    assert_eq!(sessions.get(&key(2)), Some(&row(2)));
}

#[test]
fn session_that_was_forgotten_is_looked_up_again_and_one_that_was_closed_stays_so() {
    let mut sessions = cache(2);
    for n in [1, 2] {
        sessions.put(row(n));
    }
    sessions.close(&key(2));
    sessions.forget(BTreeSet::new());
    assert_eq!((sessions.get(&key(1)), sessions.is_closed(&key(2))), (None, true));
    assert_eq!(sessions.wait(key(1), 0), Ok(true));
    assert_eq!(looked_up(&mut sessions, &key(1), Some(&row(1))), [0]);
    assert_eq!(sessions.get(&key(1)), Some(&row(1)));
    sessions.put(row(2));
    assert_eq!(sessions.get(&key(2)), None);
}

/// Returns a cache whose rows were forgotten while sessions 1 and 2 were looked up, 1 for `a`.
fn replaced_cache() -> Sessions<&'static str> {
    let mut sessions = cache(8);
    assert_eq!(sessions.wait(key(1), "a"), Ok(true));
    sessions.raise_mark(&key(1), BoardName::lobby(), Seq(9));
    sessions.forget(BTreeSet::from([key(2)]));
    assert_eq!(sessions.next_check(), Some(key(2)));
    sessions.forget(BTreeSet::new());
    sessions
}

#[test]
fn answer_of_before_rows_were_forgotten_is_asked_for_again_and_not_cached() {
    let mut sessions = replaced_cache();
    assert_eq!(sessions.wait(key(1), "b"), Ok(false), "it joins those who wait");
    assert_eq!(sessions.on_looked_up(&key(1), Some(&row(1))), None);
    assert_eq!(sessions.get(&key(1)), None);
    assert_eq!(sessions.next_lookup(), Some(key(1)));
    assert_eq!(sessions.next_lookup(), None, "it is asked once");
    assert_eq!(looked_up(&mut sessions, &key(1), Some(&row(1))), ["a", "b"]);
    assert_eq!(sessions.get(&key(1)), Some(&row(1)), "without a mark of the store before");
    // Nobody waits for the other one.
    assert_eq!(sessions.on_looked_up(&key(2), Some(&row(2))), None);
    assert_eq!(sessions.get(&key(2)), None);
    assert_eq!((sessions.next_lookup(), sessions.waiting, sessions.running()), (None, 0, 0));
}

#[test]
fn lookup_that_had_yet_to_begin_when_rows_were_forgotten_is_made_once() {
    let mut sessions = busy_cache();
    let last = made_up(LOOKUPS_MAX);
    assert_eq!(sessions.wait(last, Rc::default()), Ok(false));
    sessions.forget(BTreeSet::new());
    for n in 0..LOOKUPS_MAX {
        assert_eq!(sessions.on_looked_up(&made_up(n), None), None, "of the store before");
        assert_eq!(sessions.next_lookup(), Some(made_up(n)), "its place is its own");
    }
    assert_eq!(looked_up(&mut sessions, &made_up(0), None).len(), 1);
    assert_eq!(sessions.next_lookup(), Some(last));
    assert_eq!(looked_up(&mut sessions, &last, Some(&row(1))).len(), 1);
}

#[test]
fn sessions_in_use_are_looked_up_a_few_at_a_time_until_the_store_told_of_each() {
    let mut sessions = cache::<&str>(2);
    assert_eq!(sessions.next_check(), None, "no store was replaced");
    let in_use = 4 * CHECKS_MAX;
    sessions.forget((0..in_use).map(made_up).collect());
    let mut under_way: VecDeque<_> = std::iter::from_fn(|| sessions.next_check()).collect();
    let mut told = BTreeSet::new();
    // The store does not answer each time.
    for is_told in [true, false, true, true].into_iter().cycle() {
        assert!(under_way.len() <= CHECKS_MAX);
        let Some(key) = under_way.pop_front() else { break };
        assert_eq!(looked_up(&mut sessions, &key, None), [""; 0]);
        if is_told {
            sessions.on_confirmed(&key);
            assert!(told.insert(key), "it is not asked for again");
        }
        under_way.extend(std::iter::from_fn(|| sessions.next_check()));
    }
    assert_eq!(told.len(), in_use);
    assert_eq!(sessions.running(), 0);
}

#[test]
fn request_waits_for_the_check_of_its_session_and_a_check_for_a_request() {
    let mut sessions = cache(2);
    sessions.forget(BTreeSet::from([key(1)]));
    assert_eq!(sessions.next_check(), Some(key(1)));
    assert_eq!(sessions.wait(key(1), "a"), Ok(false));
    assert_eq!(looked_up(&mut sessions, &key(1), Some(&row(1))), ["a"]);
    sessions.on_confirmed(&key(1));
    assert_eq!(sessions.wait(key(2), "b"), Ok(true));
    sessions.check(key(2));
    assert_eq!(sessions.next_check(), None, "it is being looked up");
    // The store did not answer.
    assert_eq!(looked_up(&mut sessions, &key(2), None), ["b"]);
    assert_eq!(sessions.next_check(), Some(key(2)));
}

#[test]
fn check_whose_askers_left_before_its_turn_is_made_later() {
    let mut sessions = busy_cache();
    sessions.forget(BTreeSet::new());
    let (asker, key) = (Rc::<Cell<bool>>::default(), made_up(LOOKUPS_MAX));
    assert_eq!(sessions.wait(key, Rc::clone(&asker)), Ok(false));
    sessions.check(key);
    assert_eq!(sessions.on_looked_up(&made_up(0), None), None);
    assert_eq!(sessions.next_check(), None, "its look-up is queued");
    assert_eq!(sessions.next_lookup(), Some(made_up(0)));
    asker.set(true);
    assert_eq!(looked_up(&mut sessions, &made_up(0), None).len(), 1);
    assert_eq!(sessions.next_lookup(), None);
    assert_eq!(sessions.next_check(), Some(key));
}

#[test]
fn row_that_is_not_the_answer_of_the_store_is_checked_once_a_store_was_replaced() {
    let mut sessions = cache::<()>(2);
    sessions.put(row(1));
    assert_eq!(sessions.next_check(), None);
    sessions.forget(BTreeSet::new());
    for n in [1, 2] {
        sessions.put(row(n));
    }
    sessions.close(&key(2));
    assert_eq!(sessions.next_check(), Some(key(1)));
    // A copy of it answered.
    assert_eq!(looked_up(&mut sessions, &key(1), Some(&row(1))), [(); 0]);
    assert_eq!(sessions.next_check(), Some(key(1)));
    assert_eq!(looked_up(&mut sessions, &key(1), Some(&row(1))), [(); 0]);
    sessions.on_confirmed(&key(1));
    assert_eq!(sessions.next_check(), None);
    // Those that are told besides are bounded.
    for n in 3..9 {
        sessions.put(row(n));
    }
    let checks = std::iter::from_fn(|| sessions.next_check());
    assert_eq!(checks.count(), 2);
}

#[test]
fn open_and_closed_sessions_are_bounded() {
    let mut sessions = cache::<()>(2);
    for n in 0..9 {
        sessions.put(row(n));
        sessions.close(&key(n + 10));
    }
    assert_eq!((sessions.rows.len(), sessions.closed.lens()), (2, (2, 2)));
}

#[test]
fn read_marks_rise_and_stay_in_the_order_of_names() {
    let mut sessions = cache::<()>(2);
    sessions.put(row(1));
    let [dev, lobby] = ["dev", "lobby"].map(|name| name.parse::<BoardName>().expect("a name"));
    sessions.raise_mark(&key(1), lobby.clone(), Seq(4));
    sessions.raise_mark(&key(1), dev.clone(), Seq(2));
    sessions.raise_mark(&key(1), lobby.clone(), Seq(3));
    sessions.raise_mark(&key(2), lobby.clone(), Seq(9));
    let marks = sessions.get(&key(1)).map(|row| row.read_marks.clone());
    assert_eq!(marks, Some(vec![(dev, Seq(2)), (lobby, Seq(4))]));
}

#[test]
fn late_duplicate_of_an_opening_keeps_the_read_marks() {
    let mut sessions = cache::<()>(2);
    sessions.put(row(1));
    sessions.raise_mark(&key(1), BoardName::lobby(), Seq(4));
    sessions.put(row(1));
    let marks = sessions.get(&key(1)).map(|row| row.read_marks.clone());
    assert_eq!(marks, Some(vec![(BoardName::lobby(), Seq(4))]));
}

#[test]
fn one_look_up_answers_all_who_wait_for_the_session() {
    let mut sessions = cache(2);
    assert_eq!(sessions.wait(key(1), "a"), Ok(true));
    assert_eq!(sessions.wait(key(1), "b"), Ok(false));
    assert_eq!(sessions.wait(key(2), "c"), Ok(true));
    assert_eq!(looked_up(&mut sessions, &key(1), Some(&row(1))), ["a", "b"]);
    assert_eq!(sessions.get(&key(1)), Some(&row(1)));
    assert_eq!(looked_up(&mut sessions, &key(2), None), ["c"]);
    assert_eq!(sessions.get(&key(2)), None);
    assert_eq!((sessions.waiting, sessions.wait(key(1), "d")), (0, Ok(true)));
}

#[test]
fn too_many_waiters_are_refused_until_some_are_answered() {
    let mut sessions = cache(2);
    for n in 0..WAITING_MAX {
        sessions.wait(key(1), n).expect("room");
    }
    assert_eq!(sessions.wait(key(2), 7), Err(TooMany(7)));
    looked_up(&mut sessions, &key(1), None);
    assert_eq!(sessions.wait(key(2), 7), Ok(true));
}

/// Returns a cache whose look-ups all run, for one who stays.
fn busy_cache() -> Sessions<Rc<Cell<bool>>> {
    let mut sessions = Sessions::new(2, |asker: &Rc<Cell<bool>>| asker.get());
    for n in 0..LOOKUPS_MAX {
        assert_eq!(sessions.wait(made_up(n), Rc::default()), Ok(true));
    }
    sessions
}

#[test]
fn lookup_whose_askers_left_is_not_made() {
    let mut sessions = busy_cache();
    let [leaves, stays]: [Rc<Cell<bool>>; 2] = Default::default();
    let [left, shared, last] = [1, 2, 3].map(|n| made_up(LOOKUPS_MAX + n));
    for (key, asker) in [(left, &leaves), (shared, &leaves), (shared, &stays), (last, &stays)] {
        assert_eq!(sessions.wait(key, Rc::clone(asker)), Ok(false));
    }
    leaves.set(true);
    assert_eq!(looked_up(&mut sessions, &made_up(0), None).len(), 1);
    assert_eq!(sessions.next_lookup(), Some(shared), "nobody waits for the first one");
    assert_eq!(looked_up(&mut sessions, &shared, None), [Rc::clone(&stays)]);
    assert_eq!(sessions.next_lookup(), Some(last));
    assert_eq!(looked_up(&mut sessions, &last, None), [stays]);
    assert_eq!(sessions.waiting, LOOKUPS_MAX - 1, "those whose look-ups run");
    assert_eq!(sessions.wait(left, Rc::default()), Ok(true), "who comes back is looked up");
}

#[test]
fn places_of_askers_who_left_are_free_again() {
    let mut sessions = busy_cache();
    let asker: Rc<Cell<bool>> = Rc::default();
    for n in LOOKUPS_MAX..WAITING_MAX {
        assert_eq!(sessions.wait(made_up(n), Rc::clone(&asker)), Ok(false));
    }
    assert!(sessions.wait(key(0xff), Rc::default()).is_err(), "all places are taken");
    asker.set(true);
    assert_eq!(sessions.wait(key(0xff), Rc::default()), Ok(false));
    looked_up(&mut sessions, &made_up(0), None);
    assert_eq!(sessions.next_lookup(), Some(key(0xff)));
}

proptest! {
    /// The cache against lists that are searched from end to end.
    #[test]
    fn cache_holds_the_newest_open_sessions(moves in prop::collection::vec((any::<bool>(), 0..8u8), 0..60)) {
        const MAX: usize = 3;
        let mut sessions = cache::<()>(MAX);
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for (put, n) in moves {
            if put {
                sessions.put(row(n));
                if !closed.contains(&n) && !open.contains(&n) {
                    open.push(n);
                }
            } else {
                sessions.close(&key(n));
                open.retain(|one| *one != n);
                if !closed.contains(&n) {
                    closed.push(n);
                }
            }
            open.drain(..open.len().saturating_sub(MAX));
            closed.drain(..closed.len().saturating_sub(MAX));
            for n in 0..8 {
                prop_assert_eq!(sessions.get(&key(n)).is_some(), open.contains(&n));
            }
        }
    }
}
