//! [`dst_env::Platform`] for one life of one simulated host.

mod disk;
mod stream;

use std::{
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use dst_env::{
    BoxFuture, BoxStream, Disk, Listener, Task,
    time::{Mono, Wall},
};
use madsim::runtime::NodeHandle;

use self::{
    disk::SimDisk,
    stream::{Connecting, SimListener},
};
use crate::{
    guarded::Guarded,
    ids::{HostId, Life},
    panics::COMPUTE,
    shared::Shared,
    state::State,
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

/// Wait for a host's monotonic clock.
struct Timer {
    world: Shared,
    life: Life,
    at: Mono,
    id: Option<u64>,
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.world.with(|state| state.poll_timer(this.life, &mut this.id, this.at, cx))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.id.is_some() {
            let host = self.life.host;
            self.world.with(|state| state.hosts[host.0].drop_timer(&mut self.id));
        }
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
        self.world.with(|state| state.mono(self.life.host))
    }

    fn wall(&self) -> Wall {
        self.world.with(|state| state.wall(self.life.host))
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        Box::pin(Timer { world: self.world.clone(), life: self.life, at, id: None })
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
        Box::pin(async move {
            // A job that panicked dropped its result, which its asker sees as cancelled.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
                world.on_panic(life, COMPUTE, panic);
            }
            // Others run before the result is seen, as they do beside a thread.
            madsim::task::yield_now().await;
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
}
