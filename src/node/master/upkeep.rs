//! Upkeep of the store: small pieces in a task of its own, beside all that people wait for.

use std::time::Duration;

use crate::{env::Env, protocol::store_clock::StoreClock, store::Store};

/// Pause before a piece when the last one left nothing due, and after an error.
const IDLE: Duration = Duration::from_secs(20);

/// Pause before a piece when the last one left more. With the size of a piece this is several
/// times what a busy site opens, and leaves the store free for nine tenths of the time.
const BUSY: Duration = Duration::from_millis(200);

/// Does one piece after another for as long as the master lives.
pub(super) async fn keep_up(env: Env, store: Store) {
    let mut clock = StoreClock::default();
    let mut clock_jumped = false;
    let mut pause = IDLE;
    loop {
        env.sleep(pause).await;
        pause = IDLE;
        // The store's clock went on while this host slept, and all masters share what is told of it.
        let asked_at = env.continuous_now();
        let Ok(row) = store.cluster().await else { continue };
        // Reported until a piece is done: a piece that was not heard may not have been.
        clock_jumped |= clock.on_read(asked_at, env.continuous_now(), row.now_ms);
        match store.keep_up(clock_jumped).await {
            Ok(more) => {
                clock_jumped = false;
                if more {
                    pause = BUSY;
                }
            }
            Err(why) => tracing::debug!(%why, "upkeep of the store is put off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;
    use crate::{
        env::BoxFuture,
        model::{
            ids::StoreEpoch,
            rows::{ClusterRow, StoreError},
        },
        store::{Backend, Op, OpReply},
        testing::stepped_world,
    };

    /// Store with a clock of its own, and what it was told of that at each piece.
    #[derive(Clone)]
    struct Told {
        env: Env,
        /// Time by which its clock is ahead of the monotonic one of the world, ms.
        ahead_ms: Arc<AtomicU64>,
        jumps: Arc<Mutex<Vec<bool>>>,
    }

    impl Backend for Told {
        fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
            let ahead_ms = self.ahead_ms.load(Ordering::Relaxed);
            let now_ms = self.env.now().as_ns() / 1_000_000 + ahead_ms;
            let reply = match op {
                Op::Cluster => {
                    let (cluster, epoch) = ([1; 16], StoreEpoch(1));
                    OpReply::Cluster(ClusterRow { cluster, epoch, now_ms })
                }
                Op::KeepUp { clock_jumped } => {
                    self.jumps.lock().expect("one thread").push(clock_jumped);
                    OpReply::KeptUp { more: false }
                }
                other => panic!("upkeep does not ask for {}", other.name()),
            };
            Box::pin(async { Ok(reply) })
        }
    }

    #[test]
    fn sleep_of_the_host_is_no_jump_of_the_clock_of_the_store_and_a_step_of_it_is() {
        const NIGHT_MS: u64 = 8 * 60 * 60 * 1000;
        let jumps = stepped_world::run_with_sleep(|env, slept_ms| async move {
            let (ahead_ms, jumps) = (Arc::<AtomicU64>::default(), Arc::default());
            let store = Told { env: env.clone(), ahead_ms: ahead_ms.clone(), jumps };
            let upkeep = keep_up(env.clone(), Store::new(store.clone()));
            let _upkeep = env.spawn("upkeep", upkeep).abort_on_drop();
            env.sleep(IDLE * 5 / 2).await;
            slept_ms.fetch_add(NIGHT_MS, Ordering::Relaxed);
            ahead_ms.fetch_add(NIGHT_MS, Ordering::Relaxed);
            env.sleep(IDLE).await;
            ahead_ms.fetch_add(NIGHT_MS, Ordering::Relaxed);
            env.sleep(2 * IDLE).await;
            store.jumps.lock().expect("one thread").clone()
        });
        assert_eq!(jumps, [false, false, false, true, false]);
    }
}
