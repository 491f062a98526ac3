//! The simulation as its harness sees it: [`simulate`] and the handle [`World`].
//!
//! Machines are added and switched on (`machines`), disturbed (`disturb`), and observed
//! (`observe`).

mod disturb;
mod machines;
mod observe;

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
    time::Duration,
};

use madsim::{plugin::simulator, runtime::Runtime};

use crate::{
    panics::{describe, remember_locations},
    setup::Setup,
    shared::Shared,
};

/// Cheap handle on a simulated world, for the harness that runs it.
#[derive(Clone, Debug)]
pub struct World(Shared);

/// Runs `main` in a world of its own, on a thread of its own, and returns its result.
///
/// # Panics
/// When the harness or the world panics; the message then says where. A panic of a host's task
/// ends that host's process; when `main` returns without having asked for it by
/// [`World::panics`], this panics with it.
pub fn simulate<T, F>(setup: Setup, main: impl FnOnce(World) -> F + Send) -> T
where
    T: Send,
    F: Future<Output = T>,
{
    remember_locations();
    let run = move || {
        let scheduler = setup.seed.stream("scheduler").word();
        let runtime = Runtime::with_seed_and_config(scheduler, madsim::Config::default());
        runtime.add_simulator::<Shared>();
        runtime.block_on(async move {
            let world = Shared::clone(&simulator::<Shared>());
            world.start(setup);
            let done = main(World(world.clone())).await;
            let panics = world.with(|state| std::mem::take(&mut state.panics));
            if let Some(panic) = panics.first() {
                panic!("{panic}");
            }
            done
        })
    };
    thread::scope(|scope| {
        // A thread of its own: std's hash maps draw on a counter of their thread.
        let run = || {
            catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
                let (message, location) = describe(&*panic);
                format!("{message}, at {location}")
            })
        };
        let thread = thread::Builder::new().name("simulation".to_owned()).spawn_scoped(scope, run);
        let ended = thread.expect("the machine can start a thread").join();
        let ended = ended.unwrap_or_else(|panic| resume_unwind(panic));
        ended.unwrap_or_else(|why| resume_unwind(Box::new(why)))
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
