//! Numbered work, several pieces side by side.

use std::{
    ops::ControlFlow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Calls `work` with each number below `count`, in order and `jobs` at a time. A thread that is told
/// to break begins no more.
pub(super) fn each(count: usize, jobs: usize, work: impl Fn(usize) -> ControlFlow<()> + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= count || work(nth).is_break() {
                        return;
                    }
                }
            });
        }
    });
}

/// Returns the lowest number for which `ask` answers, with its answer, whichever is done first.
pub(super) fn first<T: Send>(
    count: usize,
    jobs: usize,
    ask: impl Fn(usize) -> Option<T> + Sync,
) -> Option<(usize, T)> {
    let best = Mutex::new(None::<(usize, T)>);
    let lock = || best.lock().unwrap_or_else(PoisonError::into_inner);
    each(count, jobs, |nth| {
        if lock().as_ref().is_some_and(|(best, _)| *best < nth) {
            return ControlFlow::Break(());
        }
        if let Some(answer) = ask(nth) {
            let mut best = lock();
            if best.as_ref().is_none_or(|(best, _)| nth < *best) {
                *best = Some((nth, answer));
            }
        }
        ControlFlow::Continue(())
    });
    best.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_number_is_worked_on_once() {
        for jobs in 1..=4 {
            let seen = Mutex::new(Vec::new());
            each(50, jobs, |nth| {
                seen.lock().expect("no panic").push(nth);
                ControlFlow::Continue(())
            });
            let seen = seen.into_inner().expect("no panic");
            assert_eq!(seen.len(), 50);
            assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), (0..50).collect());
        }
    }

    #[test]
    fn lowest_answer_wins_though_a_later_one_is_done_before() {
        let ask = |nth: usize| {
            if nth == 3 {
                thread::park_timeout(std::time::Duration::from_millis(30));
            }
            (nth >= 3).then_some(nth * 10)
        };
        for jobs in 1..=4 {
            assert_eq!(first(100, jobs, ask), Some((3, 30)));
        }
        assert_eq!(first(3, 2, ask), None);
    }
}
