//! The contract suites of the seams, held against the simulated world.

use chatchat::env::{
    Env,
    contract::{CHECKS, Lab},
};

use crate::{
    HostId, World, simulate,
    tests::{LONG, run, setup},
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
    for check in CHECKS {
        for seed in 0..4 {
            simulate(setup(seed), async |world| {
                let (left, right) = (world.add_host("left"), world.add_host("right"));
                let right = idle(&world, right).await;
                run(&world, left, |left| async move {
                    check.run(&Lab { left, right, right_host: "right".to_owned() }).await;
                })
                .await;
            });
        }
    }
}
