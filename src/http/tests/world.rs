//! A world whose clock is tokio's paused one: waits cost no time, and end in their order.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    env::{BoxFuture, BoxStream, Disk, DiskFile, Listener, Task, World},
    model::time::{Mono, Wall},
};

#[derive(Debug)]
pub(super) struct PausedWorld {
    start: Instant,
    drawn: AtomicU64,
    token: Arc<TokenDisk>,
}

impl PausedWorld {
    pub(super) fn new() -> Self {
        // Tokio's clock, which the tests pause.
        Self { start: Instant::now(), drawn: AtomicU64::new(0), token: Arc::default() }
    }
}

impl World for PausedWorld {
    fn now(&self) -> Mono {
        Mono::ZERO + self.start.elapsed()
    }

    fn wall(&self) -> Wall {
        Wall { ms: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX) }
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        // Tokio counts in milliseconds and may wake one early.
        let at = self.start + Duration::from_nanos(at.as_ns());
        Box::pin(tokio::time::sleep_until(at))
    }

    fn spawn(&self, _: &'static str, task: BoxFuture<'static, ()>) -> Task {
        #[expect(clippy::disallowed_methods, reason = "this is the world")]
        let handle = tokio::spawn(task);
        Task::new(move || handle.abort())
    }

    fn connect(&self, _: &str) -> BoxFuture<'static, io::Result<BoxStream>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn listen(&self, _: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn entropy(&self, _: &str) -> [u8; 32] {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&self.drawn.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        seed
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.token) as Arc<dyn Disk>
    }

    fn compute(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        job();
        Box::pin(async {})
    }

    fn event(&self, _: &str) {}

    fn fault_point(&self, _: &'static str) {}

    fn sometimes(&self, _: &'static str) {}
}

/// One small file is all that the front end keeps.
#[derive(Debug, Default)]
struct TokenDisk(std::sync::Mutex<Option<Vec<u8>>>);

impl Disk for TokenDisk {
    fn open(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read(&self, _: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().expect("not poisoned").clone())
    }

    fn write_atomic(&self, _: &str, bytes: &[u8]) -> io::Result<()> {
        *self.0.lock().expect("not poisoned") = Some(bytes.to_vec());
        Ok(())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        *self.0.lock().expect("not poisoned") = None;
        Ok(())
    }
}
