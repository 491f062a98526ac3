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
        let asked_at = env.now();
        let Ok(row) = store.cluster().await else { continue };
        // Reported until a piece is done: a piece that was not heard may not have been.
        clock_jumped |= clock.on_read(asked_at, env.now(), row.now_ms);
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
