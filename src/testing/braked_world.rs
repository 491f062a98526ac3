//! World of this machine whose disk and clocks a test stops, and whose wall clock it sets.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    env::{
        BoxFuture, BoxStream, Disk, DiskFile, Env, Listener, Platform, Task,
        real::{RealWorld, TempDir},
    },
    model::time::{Mono, Wall},
};

/// Longest time for which the disk stands still: a test that failed starts it no more.
const STOPPED_MAX: Duration = Duration::from_secs(30);
/// Time between two looks at a clock that stands still.
const LOOK: Duration = Duration::from_millis(5);

/// Hold of a test on the disk and the clocks of a world.
#[derive(Debug, Default)]
pub(crate) struct Brake {
    disk_stands: Mutex<bool>,
    disk_starts: Condvar,
    clock_stands_at: Mutex<Option<Mono>>,
    wall_ahead_ms: AtomicU64,
    /// Time of the wall clock, ms, while it stands still.
    wall_stands_at_ms: Mutex<Option<u64>>,
}

impl Brake {
    /// Has files that are opened, and syncs of them, wait from now on.
    pub(crate) fn stop_disk(&self) {
        *self.disk_stands.lock().expect("not poisoned") = true;
    }

    pub(crate) fn start_disk(&self) {
        *self.disk_stands.lock().expect("not poisoned") = false;
        self.disk_starts.notify_all();
    }

    /// Stops the monotonic clock at its time now.
    pub(crate) fn stop_clock(&self, now: Mono) {
        *self.clock_stands_at.lock().expect("not poisoned") = Some(now);
    }

    /// Has the clock go on as if it had never stopped.
    pub(crate) fn start_clock(&self) {
        *self.clock_stands_at.lock().expect("not poisoned") = None;
    }

    /// Sets the wall clock ahead of this machine's; the monotonic clock does not notice.
    pub(crate) fn set_wall_ahead(&self, by_ms: u64) {
        self.wall_ahead_ms.store(by_ms, Ordering::SeqCst);
    }

    /// Stops the wall clock at this time, ms since the Unix epoch.
    pub(crate) fn stop_wall(&self, at_ms: u64) {
        *self.wall_stands_at_ms.lock().expect("not poisoned") = Some(at_ms);
    }

    /// Moves the wall clock, which stands still, by so many milliseconds.
    pub(crate) fn move_wall(&self, by_ms: i64) {
        let mut stands = self.wall_stands_at_ms.lock().expect("not poisoned");
        *stands = stands.map(|at_ms| at_ms.saturating_add_signed(by_ms));
    }

    fn wait_for_disk(&self) {
        let stands = self.disk_stands.lock().expect("not poisoned");
        let waited = self.disk_starts.wait_timeout_while(stands, STOPPED_MAX, |stands| *stands);
        drop(waited.expect("not poisoned"));
    }

    fn time(&self, real: Mono) -> Mono {
        self.clock_stands_at.lock().expect("not poisoned").unwrap_or(real)
    }
}

/// Returns the world of a node with this directory, and its brake.
pub(crate) fn braked(dir: &TempDir) -> (Env, Arc<Brake>) {
    let world = Arc::new(RealWorld::new(dir.path()).expect("usable"));
    let brake = Arc::new(Brake::default());
    (Env::new(BrakedWorld { world, brake: Arc::clone(&brake) }), brake)
}

struct BrakedWorld {
    world: Arc<RealWorld>,
    brake: Arc<Brake>,
}

impl Platform for BrakedWorld {
    fn now(&self) -> Mono {
        self.brake.time(self.world.now())
    }

    fn wall(&self) -> Wall {
        let stands_at_ms = *self.brake.wall_stands_at_ms.lock().expect("not poisoned");
        let ahead_ms = self.brake.wall_ahead_ms.load(Ordering::SeqCst);
        Wall { ms: stands_at_ms.unwrap_or_else(|| self.world.wall().ms + ahead_ms) }
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        let (world, brake) = (Arc::clone(&self.world), Arc::clone(&self.brake));
        Box::pin(async move {
            world.sleep_until(at).await;
            while brake.time(world.now()) < at {
                world.sleep_until(world.now() + LOOK).await;
            }
        })
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
        Arc::new(BrakedDisk { disk: self.world.disk(), brake: Arc::clone(&self.brake) })
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

struct BrakedDisk {
    disk: Arc<dyn Disk>,
    brake: Arc<Brake>,
}

impl Disk for BrakedDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.brake.wait_for_disk();
        let file = self.disk.open(name)?;
        Ok(Box::new(BrakedFile { file, brake: Arc::clone(&self.brake) }))
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.disk.read(name)
    }

    fn write_atomic(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_atomic(name, bytes)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
}

#[derive(Debug)]
struct BrakedFile {
    file: Box<dyn DiskFile>,
    brake: Arc<Brake>,
}

impl DiskFile for BrakedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.brake.wait_for_disk();
        self.file.sync()
    }
}
