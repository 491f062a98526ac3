//! Clocks, tasks, entropy, compute.

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use rand_chacha::rand_core::Rng;

use super::{Lab, QUIET};
use crate::{Env, time::Mono};

const STEP: Duration = Duration::from_millis(5);

pub(super) async fn now_never_goes_back(lab: &Lab) {
    let mut last = lab.left.now();
    for round in 0..100 {
        if round % 10 == 0 {
            lab.left.sleep(STEP).await;
        }
        let now = lab.left.now();
        assert!(now >= last, "{now:?} after {last:?}");
        last = now;
    }
}

pub(super) async fn continuous_now_passes_no_less_than_now(lab: &Lab) {
    let (first, start) = (lab.left.continuous_now(), lab.left.now());
    let mut last = first;
    for _ in 0..10 {
        lab.left.sleep(STEP).await;
        let passed = lab.left.now().since(start);
        let now = lab.left.continuous_now();
        assert!(now >= last, "{now:?} after {last:?}");
        // A system may correct the rate of one of its clocks alone.
        let least = passed.saturating_sub(Duration::from_millis(1));
        assert!(now.since(first) >= least, "{:?} in {passed:?}", now.since(first));
        last = now;
    }
}

pub(super) async fn sleeps_never_wake_early(lab: &Lab) {
    for us in [1, 999, 1_000, 1_001, 7_300, 50_000] {
        let until = lab.left.now() + Duration::from_micros(us);
        lab.left.sleep_until(until).await;
        let woke = lab.left.now();
        assert!(woke >= until, "{us} us: woke {:?} early", until.since(woke));
    }
}

pub(super) async fn a_sleep_until_the_past_is_over_at_once(lab: &Lab) {
    lab.left.sleep(STEP).await;
    let before = lab.left.now();
    lab.left.sleep_until(Mono::ZERO).await;
    lab.left.sleep_until(before).await;
    let took = lab.left.now().since(before);
    assert!(took < super::LIMIT / 2, "took {took:?}");
}

/// Sets its flag when dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

pub(super) async fn a_wait_that_times_out_is_dropped(lab: &Lab) {
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Flag(Arc::clone(&dropped));
    let waited = lab.left.timeout(STEP, async move {
        let _flag = flag;
        pending::<()>().await;
    });
    assert!(waited.await.is_err(), "it never ends by itself");
    assert!(dropped.load(SeqCst));
    assert_eq!(lab.left.timeout(QUIET, async { 7 }).await, Ok(7), "what is ready wins");
}

/// A task that counts its polls, one per step.
fn count(env: &Env) -> (crate::Task, Arc<AtomicU64>) {
    let polls = Arc::new(AtomicU64::new(0));
    let (counter, own) = (Arc::clone(&polls), env.clone());
    let task = env.spawn("counts", async move {
        loop {
            counter.fetch_add(1, SeqCst);
            own.sleep(STEP).await;
        }
    });
    (task, polls)
}

async fn grows(env: &Env, polls: &AtomicU64) {
    let before = polls.load(SeqCst);
    while polls.load(SeqCst) < before + 3 {
        env.sleep(STEP).await;
    }
}

async fn rests(env: &Env, polls: &AtomicU64) {
    // On another thread the poll in which the abort fell may still be running.
    env.sleep(QUIET).await;
    let before = polls.load(SeqCst);
    env.sleep(QUIET).await;
    assert_eq!(polls.load(SeqCst), before, "polled after its abort");
}

pub(super) async fn a_task_runs_on_without_its_handle(lab: &Lab) {
    let (task, polls) = count(&lab.left);
    drop(task);
    grows(&lab.left, &polls).await;
}

pub(super) async fn an_aborted_task_is_not_polled_again(lab: &Lab) {
    let (task, polls) = count(&lab.left);
    grows(&lab.left, &polls).await;
    task.abort();
    rests(&lab.left, &polls).await;
}

pub(super) async fn a_guard_aborts_its_task(lab: &Lab) {
    let (task, polls) = count(&lab.left);
    let guard = task.abort_on_drop();
    grows(&lab.left, &polls).await;
    drop(guard);
    rests(&lab.left, &polls).await;
}

pub(super) async fn entropy_never_repeats(lab: &Lab) {
    let mut seen = BTreeSet::new();
    for env in [&lab.left, &lab.right] {
        for _ in 0..100 {
            for label in ["keys", "jitter", ""] {
                let mut drawn = [0; 16];
                env.rng(label).fill_bytes(&mut drawn);
                assert!(seen.insert(drawn), "{label:?} repeats");
            }
        }
    }
}

pub(super) async fn computed_results_come_back(lab: &Lab) {
    let sum = lab.left.compute(|| (1..=1000_u64).sum::<u64>()).await;
    assert_eq!(sum, Ok(500_500));
    let many = (0..50_u64).map(|n| lab.left.compute(move || n * n));
    let many = futures_util::future::try_join_all(many).await;
    assert_eq!(many, Ok((0..50).map(|n| n * n).collect()), "each its own, in the asked order");
}
