//! The contract suites of the seams, held against the simulated world.

use chatchat::{
    env::{self, Env},
    model::ids::{Role, StoreEpoch},
    store::sqlite::NewCluster,
    testing,
};

use crate::{
    HostId, World,
    keys::KeyPool,
    seed::Seed,
    simulate,
    store::{StoreHost, remote},
    tests::{LONG, run, secs, setup},
};

/// The world's view of a machine on which nothing else runs.
async fn idle(world: &World, host: HostId) -> Env {
    let (tell, told) = tokio::sync::oneshot::channel();
    world.boot(host, |env| async move {
        // The test waits for it.
        let _ = tell.send(env.clone());
        env.sleep(LONG).await;
    });
    told.await.expect("it was booted")
}

#[test]
fn the_simulated_world_does_all_that_every_world_must() {
    for check in env::contract::CHECKS {
        for seed in 0..4 {
            simulate(setup(seed), async |world| {
                let (left, right) = (world.add_host("left"), world.add_host("right"));
                let right = idle(&world, right).await;
                run(&world, left, |left| async move {
                    let right_host = "right".to_owned();
                    check.run(&env::contract::Lab { left, right, right_host }).await;
                })
                .await;
            });
        }
    }
}

#[test]
fn links_do_all_that_they_must_in_the_simulated_world_whoever_begins() {
    for check in testing::comm::CHECKS {
        for (seed, beginner) in [(0, Role::Worker), (1, Role::Master)] {
            simulate(setup(seed), async |world| {
                let (worker, master) = (world.add_host("worker"), world.add_host("master"));
                let master = idle(&world, master).await;
                run(&world, worker, |worker| async move {
                    let master_host = "master".to_owned();
                    let keys = KeyPool::new(Seed(seed), 2).source(1);
                    let lab = testing::comm::Lab { worker, master, master_host, keys };
                    check.run(&lab, beginner).await;
                })
                .await;
            });
        }
    }
}

#[test]
fn the_store_behind_a_network_does_all_that_every_store_must() {
    // Those that move the clock want one that stands still meanwhile: this one runs.
    for check in testing::store::CHECKS.iter().filter(|check| !check.moves_clock) {
        simulate(setup(0), async |world| {
            let at = world.add_host("store");
            let new = NewCluster { cluster: [7; 16], epoch: StoreEpoch(1), now_ms: 0 };
            let host = StoreHost::new(&new).expect("SQLite works");
            world.boot(at, |env| host.serve(env, "0.0.0.0:5432"));
            let asker = world.add_host("asker");
            run(&world, asker, |env| async move {
                let store = remote(&env, "store:5432", secs(5));
                check.run(&testing::store::Lab { store, clock: None }).await;
            })
            .await;
        });
    }
}
