//! The simulation as its harness sees it: [`simulate`] and the handle [`World`].
//!
//! Machines are added and switched on (`machines`), disturbed (`disturb`), and observed
//! (`observe`).

mod disturb;
mod machines;
mod observe;

use std::{future::Future, thread, time::Duration};

use madsim::{plugin::simulator, runtime::Runtime};

use crate::{setup::Setup, shared::Shared};

/// Cheap handle on a simulated world, for the harness that runs it.
#[derive(Clone, Debug)]
pub struct World(Shared);

/// Runs `main` in a world of its own, on a thread of its own, and returns its result.
///
/// # Panics
/// When anything in the world panics: the simulation is over.
pub fn simulate<T, F>(setup: Setup, main: impl FnOnce(World) -> F + Send) -> T
where
    T: Send,
    F: Future<Output = T>,
{
    let run = move || {
        let scheduler = setup.seed.stream("scheduler").word();
        let runtime = Runtime::with_seed_and_config(scheduler, madsim::Config::default());
        runtime.add_simulator::<Shared>();
        runtime.block_on(async move {
            let world = Shared::clone(&simulator::<Shared>());
            world.start(setup);
            main(World(world)).await
        })
    };
    thread::scope(|scope| {
        // A thread of its own: std's hash maps draw on a counter of their thread.
        let thread = thread::Builder::new().name("simulation".to_owned()).spawn_scoped(scope, run);
        let ended = thread.expect("the machine can start a thread").join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl World {
    /// Waits, in virtual time. For the harness: nodes have clocks of their own.
    pub async fn sleep(&self, by: Duration) {
        madsim::time::sleep(by).await;
    }

    /// Runs a task of the harness, beside all machines.
    pub fn supervise(&self, task: impl Future<Output = ()> + Send + 'static) {
        madsim::task::spawn(task);
    }
}
