//! Contract suites of the seams, run in the simulated world.

use std::time::Duration;

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
    // Those that move the clock want one that stands still meanwhile: this one runs.
    for check in testing::store::CHECKS.iter().filter(|check| !check.moves_clock) {
        simulate(Setup::new(0), async |world| {
            let at = world.add_host("store");
            let new = NewCluster { cluster: [7; 16], epoch: StoreEpoch(1), now_ms: 0 };
            let host = StoreHost::new(&new).expect("SQLite works");
            world.boot(at, |env| host.serve(env, "0.0.0.0:5432"));
            let asker = world.add_host("asker");
            world
                .run(asker, |env| async move {
                    let store = remote(&env, "store:5432", Duration::from_secs(5));
                    check.run(&testing::store::Lab { store, clock: None }).await;
                })
                .await;
        });
    }
}
