//! World of this machine whose wall clock a test sets; its monotonic clock does not notice.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    env::{BoxFuture, BoxStream, Disk, Listener, Platform, Task, real::RealWorld},
    model::time::{Mono, Wall},
};

/// A node's world with a wall clock that is ahead.
pub(crate) struct LeapingClock {
    world: RealWorld,
    ahead_ms: Arc<AtomicU64>,
}

impl LeapingClock {
    /// Returns a world of a node with this directory, whose wall clock is so many milliseconds ahead.
    pub(crate) fn new(dir: &Path, ahead_ms: &Arc<AtomicU64>) -> Self {
        let world = RealWorld::new(dir).expect("usable");
        Self { world, ahead_ms: Arc::clone(ahead_ms) }
    }
}

impl Platform for LeapingClock {
    fn now(&self) -> Mono {
        self.world.now()
    }

    fn wall(&self) -> Wall {
        Wall { ms: self.world.wall().ms + self.ahead_ms.load(Ordering::SeqCst) }
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        self.world.sleep_until(at)
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        self.world.spawn(name, task)
    }

    fn connect(&self, addr: &str) -> BoxFuture<'static, io::Result<BoxStream>> {
        self.world.connect(addr)
    }

    fn listen(&self, addr: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.world.listen(addr)
    }

    fn entropy(&self, label: &str) -> [u8; 32] {
        self.world.entropy(label)
    }

    fn disk(&self) -> Arc<dyn Disk> {
        self.world.disk()
    }

    fn compute(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        self.world.compute(job)
    }

    fn event(&self, line: &str) {
        self.world.event(line);
    }

    fn fault_point(&self, name: &'static str) {
        self.world.fault_point(name);
    }

    fn sometimes(&self, probe: &'static str) {
        self.world.sometimes(probe);
    }
}
