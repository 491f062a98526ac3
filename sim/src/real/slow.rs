//! Slow processor of one process: it is stopped again and again, so that all it does takes longer.

use std::time::Duration;

use chatchat::env::Env;

/// Time for which the process runs between two stops.
const RUNS: Duration = Duration::from_millis(2);

/// Lets a process run for one `factor`th of the time, for ever. `may_run` stops it and lets it go on.
pub(super) async fn slow_down(env: Env, factor: f64, may_run: impl Fn(bool)) {
    let share = (factor - 1.0).max(0.0);
    loop {
        let from = env.now();
        may_run(true);
        env.sleep(RUNS).await;
        may_run(false);
        // A timer may be late: what counts is for how long it ran.
        let ran = env.now().since(from);
        env.sleep(ran.mul_f64(share)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use chatchat::env::real::RealWorld;
    use tokio::runtime;

    use super::*;

    #[test]
    fn slowed_process_gets_its_share_of_the_time() {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let switches: Arc<Mutex<Vec<_>>> = Arc::default();
        let seen = Arc::clone(&switches);
        runtime.expect("a runtime").block_on(async {
            let env = Env::new(RealWorld::temporary().expect("a folder"));
            let clock = env.clone();
            let may_run = move |may| seen.lock().expect("not poisoned").push((may, clock.now()));
            let ended =
                env.timeout(Duration::from_millis(200), slow_down(env.clone(), 5.0, may_run));
            assert!(ended.await.is_err(), "it never ends");
        });
        let switches = switches.lock().expect("not poisoned");
        assert!(switches.len() > 3, "{switches:?}");
        for cycle in switches.windows(3).step_by(2) {
            let [(true, from), (false, stopped), (true, again)] = *cycle else {
                panic!("it runs first: {cycle:?}")
            };
            let (ran, stood) = (stopped.since(from), again.since(stopped));
            // Between two looks at the clock next to nothing happens, or a busy machine.
            assert!(stood + Duration::from_millis(1) >= ran * 4, "{ran:?}, then {stood:?}");
        }
    }
}
