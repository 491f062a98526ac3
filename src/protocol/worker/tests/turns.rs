//! Turns in which the workers of a crowded master move away.

use super::*;

/// Workers of master 9 beside this one: so many with lower ids, then so many with higher ones.
fn others(lower: usize, higher: usize) -> Vec<Member> {
    let own = me(1, MemberState::In).fact.node;
    let all = (2..200).map(|n| worker_of(n, 9));
    let (below, above): (Vec<_>, Vec<_>) = all.partition(|it| it.fact.node < own);
    below.into_iter().take(lower).chain(above.into_iter().take(higher)).collect()
}

/// A worker of master 9 beside so many with lower ids, and with higher ones.
fn crowded(lower: usize, higher: usize) -> Worker {
    let mut worker = worker(0);
    register(&mut worker, at(0), others(lower, higher));
    worker
}

/// Has the worker read each second, while masters 8 and 9 write, until it leaves. Returns the second.
fn leaves_at(worker: &mut Worker, from: u64, to: u64) -> Option<u64> {
    (from..=to).find(|second| !read_rows(worker, *second, *second, &[8, 9]).is_empty())
}

/// Another worker has moved to master 8.
fn other_moves(worker: &mut Worker, now: Mono, mut other: Member) {
    other.fact.registration = Registration(2);
    other.fact.master = member(8, Role::Master, 1, MemberState::In).fact.node;
    worker.on_members(now, vec![other], &mut Vec::new());
}

#[test]
fn worker_has_its_turn_when_those_before_it_do_not_move() {
    for (lower, higher, second) in [(3, 0, 3), (2, 1, 15), (1, 2, 27), (0, 3, 39)] {
        let left = leaves_at(&mut crowded(lower, higher), 0, 60);
        assert_eq!(left, Some(second), "{higher} come before it");
    }
}

#[test]
fn turns_begin_again_behind_a_worker_that_moves() {
    let mut worker = crowded(1, 1);
    assert_eq!(leaves_at(&mut worker, 0, 14), None);
    other_moves(&mut worker, at(14_500), others(1, 1).remove(1));
    assert_eq!(leaves_at(&mut worker, 15, 100), None, "two are no more than one and one");
    let mut worker = crowded(2, 1);
    assert_eq!(leaves_at(&mut worker, 0, 14), None);
    other_moves(&mut worker, at(14_500), others(2, 1).remove(2));
    assert_eq!(leaves_at(&mut worker, 15, 100), Some(18), "it is the first of three now");
}

#[test]
fn turns_begin_again_for_all_when_one_between_them_moves() {
    // The first of four could not read in its turn, the second one moves in its own.
    let mut first = crowded(3, 0);
    assert_eq!(leaves_at(&mut first, 0, 2), None);
    assert_eq!(leaves_at(&mut first, 10, 15), None);
    other_moves(&mut first, at(15_500), others(3, 0).remove(2));
    let mut third = crowded(1, 2);
    assert_eq!(leaves_at(&mut third, 0, 15), None);
    other_moves(&mut third, at(15_500), others(1, 2).remove(1));
    assert_eq!(leaves_at(&mut first, 16, 100), Some(19), "the first of three again");
    assert_eq!(leaves_at(&mut third, 16, 100), Some(31), "the second of three now");
}

#[test]
fn turns_count_from_the_change_of_the_list_whenever_it_was_read() {
    let mut late = crowded(2, 1);
    assert_eq!(leaves_at(&mut late, 12, 60), Some(15), "its turn is that of the others' count");
    let mut away = crowded(2, 1);
    assert_eq!(leaves_at(&mut away, 0, 8), None);
    away.on_store_away(at(9_000));
    assert_eq!(leaves_at(&mut away, 14, 60), Some(17), "the reason has to stand again, no more");
}

#[test]
fn master_that_seems_to_stand_still_for_a_while_shifts_no_turn() {
    let mut worker = crowded(2, 1);
    assert_eq!(leaves_at(&mut worker, 0, 9), None);
    for second in 10..14 {
        assert_eq!(read_rows(&mut worker, second, second, &[9]), []);
    }
    assert_eq!(leaves_at(&mut worker, 14, 60), Some(17));
}

#[test]
fn worker_that_comes_back_begins_the_turns_again_with_another_one() {
    let mut worker = crowded(2, 1);
    assert_eq!(leaves_at(&mut worker, 0, 14), None);
    let mut back = others(2, 1).remove(0);
    back.fact.registration = Registration(2);
    worker.on_members(at(14_500), vec![back], &mut Vec::new());
    assert_eq!(leaves_at(&mut worker, 15, 60), Some(18), "it is the first of four now");
}

#[test]
fn worker_that_could_not_read_in_its_turn_waits_for_its_next_one() {
    let mut worker = crowded(1, 0);
    assert_eq!(leaves_at(&mut worker, 0, 2), None);
    assert_eq!(leaves_at(&mut worker, 10, 60), Some(27), "the other one had the turn between");
}
