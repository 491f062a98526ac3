//! Machines: adding, booting, and ending what runs on them.

use std::future::{Future, pending};

use dst_env::Env;
use tokio::sync::oneshot;

use super::World;
use crate::{
    env::SimEnv,
    guarded::Guarded,
    ids::{HostId, Life},
    panics::MAIN,
    shared::Shared,
    state::End,
};

impl World {
    /// Adds a machine, switched off. Others reach it by its name.
    pub fn add_host(&self, name: &str) -> HostId {
        let node = self.0.runtime().create_node().name(name).build().id();
        self.0.with(|state| state.add_host(name, node))
    }

    /// Returns the machine with this name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<HostId> {
        self.0.with(|state| state.find(name))
    }

    /// Returns a machine's name.
    #[must_use]
    pub fn name(&self, host: HostId) -> String {
        self.0.with(|state| state.core.name(host).to_owned())
    }

    /// Switches a machine on if it is off and starts a process on it. When `main` ends, so does
    /// the process. Does nothing if a process runs there.
    pub fn boot<F>(&self, host: HostId, main: impl FnOnce(Env) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some((life, node)) = self.0.with(|state| state.boot(host)) else { return };
        if life.boot > 1 {
            self.0.runtime().restart(node);
        }
        let spawner = self.0.spawner(node);
        let env = Env::new(SimEnv::new(self.0.clone(), life, spawner.clone()));
        let (world, running) = (self.0.clone(), main(env));
        let main = async move {
            running.await;
            end_life(&world, life);
        };
        spawner.spawn(Guarded::new(self.0.clone(), life, MAIN, Box::pin(main)));
    }

    /// Runs one process on a machine to its end and returns its result.
    ///
    /// # Panics
    /// When a process runs there already, or this one panicked or was ended before it was done.
    pub async fn run<T, F>(&self, host: HostId, main: impl FnOnce(Env) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (send, result) = oneshot::channel();
        self.boot(host, |env| {
            let main = main(env);
            async move {
                // The caller waits for it.
                let _ = send.send(main.await);
            }
        });
        result.await.expect("the process comes to its end")
    }

    /// Boots a machine with a process that does nothing, and returns its view of the world, so
    /// that tasks can be spawned there until the process is ended.
    ///
    /// # Panics
    /// When a process runs there already.
    pub async fn idle(&self, host: HostId) -> Env {
        let (send, env) = oneshot::channel();
        self.boot(host, |env| async move {
            // The caller waits for it.
            let _ = send.send(env);
            pending::<()>().await;
        });
        env.await.expect("a machine that was off starts")
    }

    /// Lets panics of tasks of these names end only the task, such as one that serves a single
    /// peer. They are recorded like all others. A panic of any other task ends its process.
    pub fn contain_panics_of(&self, tasks: &'static [&'static str]) {
        self.0.with(|state| state.contained = tasks);
    }

    /// Makes a machine's process panic when it next reaches a fault point.
    pub fn panic_at(&self, host: HostId, point: &'static str) {
        self.0.with(|state| state.hosts[host.0].panics_at = Some(point));
    }

    /// Cuts a machine's power: peers hear nothing, unsynced bytes are kept, lost or torn. False
    /// when it was off.
    pub fn crash(&self, host: HostId) -> bool {
        // A machine whose process has ended can still lose power.
        self.0.end(host, End::Crash) || self.0.with(|state| state.power_off(host))
    }

    /// Ends the process; its kernel closes its connections. False when none ran.
    pub fn exit(&self, host: HostId) -> bool {
        self.0.end(host, End::Exit)
    }

    /// Cuts a machine's power and empties its disk. False when it was off; the disk is emptied
    /// all the same.
    pub fn wipe(&self, host: HostId) -> bool {
        let was_on = self.crash(host);
        self.0.with(|state| {
            state.hosts[host.0].disk.wipe();
            state.core.note(host, "wipe", "");
        });
        was_on
    }

    /// Stops the process; its kernel goes on. False when none runs or it is stopped already.
    pub fn pause(&self, host: HostId) -> bool {
        let node = self.0.with(|state| state.set_paused(host, true));
        node.inspect(|node| self.0.runtime().pause(*node)).is_some()
    }

    /// Lets a stopped process go on. False when none is stopped.
    pub fn resume(&self, host: HostId) -> bool {
        let node = self.0.with(|state| state.set_paused(host, false));
        node.inspect(|node| self.0.runtime().resume(*node)).is_some()
    }

    /// Returns whether a machine has power.
    #[must_use]
    pub fn is_on(&self, host: HostId) -> bool {
        self.0.with(|state| state.net.is_up(host))
    }

    /// Returns whether a process runs on a machine, stopped or not.
    #[must_use]
    pub fn is_running(&self, host: HostId) -> bool {
        self.0.with(|state| state.hosts[host.0].is_running)
    }

    /// Returns whether the process of a machine is stopped.
    #[must_use]
    pub fn is_paused(&self, host: HostId) -> bool {
        self.0.with(|state| state.hosts[host.0].is_paused)
    }
}

/// Ends a process whose `main` has returned.
fn end_life(world: &Shared, life: Life) {
    if world.with(|state| state.live(life).is_ok()) {
        world.end(life.host, End::Exit);
    }
}
