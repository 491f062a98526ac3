//! Contract suites of the seams, run in the simulated world.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chatchat::{
    model::ids::{Role, StoreEpoch},
    store::sqlite::NewCluster,
    testing,
};

use dst_world::{Seed, Setup, simulate};

use crate::{
    keys::KeyPool,
    store::{StoreHost, remote},
};

/// Time of a store's clock that a test moves, at first.
const START_MS: u64 = 1_700_000_000_000;

#[test]
fn links_pass_every_check_in_the_simulated_world_with_roles_swapped() {
    for check in testing::comm::CHECKS {
        for (seed, beginner) in [(0, Role::Worker), (1, Role::Master)] {
            simulate(Setup::new(seed), async |world| {
                let (worker, master) = (world.add_host("worker"), world.add_host("master"));
                let master = world.idle(master).await;
                world
                    .run(worker, |worker| async move {
                        let master_host = "master".to_owned();
                        let keys = KeyPool::new(Seed(seed), 2, 0).source(1);
                        let lab = testing::comm::Lab { worker, master, master_host, keys };
                        check.run(&lab, beginner).await;
                    })
                    .await;
            });
        }
    }
}

#[test]
fn store_behind_a_network_passes_every_check_of_a_store() {
    let mut ran = 0;
    for check in testing::store::CHECKS {
        simulate(Setup::new(0), async |world| {
            let at = world.add_host("store");
            let now_ms = if check.moves_clock { START_MS } else { world.wall(at).ms };
            let new = NewCluster { cluster: [7; 16], epoch: StoreEpoch(1), now_ms };
            let mut host = StoreHost::new(&new).expect("SQLite works");
            // Checks that move no clock hold by the world's, which runs.
            let mut clock = None;
            if check.moves_clock {
                let stands_at_ms = Arc::new(AtomicU64::new(START_MS));
                host = host.with_clock(Arc::clone(&stands_at_ms));
                clock = Some(moves(stands_at_ms));
            }
            world.boot(at, |env| host.serve(env, "0.0.0.0:5432"));
            let asker = world.add_host("asker");
            world
                .run(asker, |env| async move {
                    let store = remote(&env, "store:5432", Duration::from_secs(5));
                    check.run(&testing::store::Lab { store, clock }).await;
                })
                .await;
        });
        ran += 1;
    }
    let all = testing::store::CHECKS.len();
    println!("store contract on the simulated host: {ran} of {all} checks ran");
    assert_eq!(ran, all);
}

/// Returns a check's way to move this clock.
fn moves(clock: Arc<AtomicU64>) -> testing::store::MoveClock {
    Arc::new(move |ms| {
        let now_ms = clock.load(Ordering::Relaxed).saturating_add_signed(ms);
        clock.store(now_ms, Ordering::Relaxed);
    })
}
