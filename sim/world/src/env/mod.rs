//! [`dst_env::Platform`] for one life of one simulated host.

mod disk;
mod stream;

use std::{io, sync::Arc};

use dst_env::{
    BoxFuture, BoxStream, Disk, Listener, Task,
    time::{Mono, Wall},
};
use madsim::runtime::NodeHandle;
use tokio::sync::oneshot;

use self::{
    disk::SimDisk,
    stream::{Connecting, SimListener},
};
use crate::{
    cpu,
    guarded::Guarded,
    ids::{HostId, Life},
    panics::COMPUTE,
    shared::Shared,
    state::State,
    wait::Timer,
};

/// The world as one life of one host sees it.
pub(crate) struct SimEnv {
    world: Shared,
    life: Life,
    spawner: NodeHandle,
}

impl SimEnv {
    /// Returns the view of a life, whose tasks `spawner` starts.
    pub(crate) const fn new(world: Shared, life: Life, spawner: NodeHandle) -> Self {
        Self { world, life, spawner }
    }
}

/// Reads `host:port`; `localhost` and the like are the machine itself.
fn address(state: &State, here: HostId, addr: &str) -> io::Result<(HostId, u16)> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{addr}: {why}"));
    let (name, port) = addr.rsplit_once(':').ok_or_else(|| wrong("want host:port"))?;
    let port = port.parse().map_err(|_| wrong("want host:port"))?;
    let host = match name {
        "localhost" | "127.0.0.1" | "0.0.0.0" | "[::]" | "[::1]" => Some(here),
        name => state.find(name),
    };
    Ok((host.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such host"))?, port))
}

impl dst_env::Platform for SimEnv {
    fn now(&self) -> Mono {
        self.world.look(|state| state.mono(self.life.host))
    }

    fn wall(&self) -> Wall {
        self.world.look(|state| state.wall(self.life.host))
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        Box::pin(Timer::new(self.world.clone(), self.life, at))
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        let task = Guarded::new(self.world.clone(), self.life, name, task);
        // A task of an ended life is spawned on a killed node and never runs.
        let handle = self.spawner.spawn(task).abort_handle();
        Task::new(move || handle.abort())
    }

    fn connect(&self, addr: &str) -> BoxFuture<'static, io::Result<BoxStream>> {
        let (world, life) = (self.world.clone(), self.life);
        let to = world.with(|state| address(state, life.host, addr));
        Box::pin(async move {
            let (to, port) = to?;
            Connecting::start(world, life, to, port)?.await
        })
    }

    fn listen(&self, addr: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (world, life) = (self.world.clone(), self.life);
        let at = world.with(|state| address(state, life.host, addr));
        Box::pin(async move {
            let (host, port) = at?;
            if host != life.host {
                return Err(io::ErrorKind::AddrNotAvailable.into());
            }
            Ok(Box::new(SimListener::listen(&world, life, port)?) as Box<dyn Listener>)
        })
    }

    fn entropy(&self, label: &str) -> [u8; 32] {
        self.world.with(|state| state.entropy(self.life, label))
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(SimDisk { world: self.world.clone(), life: self.life })
    }

    fn compute(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let (world, life) = (self.world.clone(), self.life);
        let (before, after) = world.with(|state| state.hosts[life.host.0].cpu.job());
        let (tell, told) = oneshot::channel();
        let thread = async move {
            Timer::after(&world, life, before).await;
            world.with(|state| {
                state.hosts[life.host.0].disk.begin_job(state.core.now + after);
            });
            let (end, mut asked_ns) = cpu::run(job);
            // A job that panicked dropped its result, which its asker sees as cancelled.
            if let Err(panic) = end {
                world.on_panic(life, COMPUTE, panic);
            }
            let synced = world.with(|state| state.hosts[life.host.0].disk.end_job());
            Timer::after(&world, life, after + synced).await;
            while asked_ns > 0 {
                let piece = world.with(|state| state.hosts[life.host.0].cpu.piece(&mut asked_ns));
                Timer::after(&world, life, piece).await;
            }
            // Nobody may wait for it any more; the job was done all the same.
            let _ = tell.send(());
        };
        self.spawner.spawn(Guarded::new(self.world.clone(), self.life, COMPUTE, Box::pin(thread)));
        Box::pin(async move {
            // Without a word the process has ended.
            let _ = told.await;
        })
    }

    fn event(&self, line: &str) {
        self.world.with(|state| state.event(self.life, line));
    }

    fn fault_point(&self, name: &'static str) {
        self.world.fault_point(self.life, name);
    }

    fn sometimes(&self, probe: &'static str) {
        self.world.with(|state| state.sometimes(self.life, probe));
    }

    fn trace(&self, text: &dyn Fn() -> String) {
        self.world.with(|state| state.trace(self.life, text));
    }
}
