//! A world for the tests of links: one thread, time that jumps to the next timer when nothing
//! else is to be done, pipes for streams. A test of an hour's silence takes no time.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use crate::{
    comm::{Peer, Secured},
    crypto::record,
    env::{BoxFuture, BoxStream, Disk, DiskFile, Env, Listener, Task, World},
    model::{
        ids::{NodeId, Role},
        time::{Mono, Wall},
    },
};

/// More polls than any test needs: a task that spins is a failure, not a hang.
const POLLS_MAX: u32 = 2_000_000;

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Job {
    woken: Arc<Woken>,
    aborted: Arc<AtomicBool>,
    body: Option<BoxFuture<'static, ()>>,
}

#[derive(Default)]
struct Inner {
    now_ns: AtomicU64,
    draws: AtomicU64,
    timers: Mutex<Vec<(u64, Waker)>>,
    spawned: Mutex<Vec<Job>>,
    files: Mutex<BTreeMap<String, Vec<u8>>>,
}

/// Whole small files: all that a handshake keeps.
struct SmallFiles(Arc<Inner>);

impl Disk for SmallFiles {
    fn open(&self, _name: &str) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.files.lock().expect("one thread").get(name).cloned())
    }

    fn write_atomic(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.files.lock().expect("one thread").insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.files.lock().expect("one thread").remove(name);
        Ok(())
    }
}

/// Runs the tasks of one test.
pub(crate) struct Steps {
    inner: Arc<Inner>,
    jobs: Vec<Job>,
}

struct StepWorld(Arc<Inner>);

struct Timer {
    inner: Arc<Inner>,
    at_ns: u64,
}

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.inner.now_ns.load(Ordering::Relaxed) >= self.at_ns {
            return Poll::Ready(());
        }
        let mut timers = self.inner.timers.lock().expect("one thread");
        timers.push((self.at_ns, context.waker().clone()));
        Poll::Pending
    }
}

impl World for StepWorld {
    fn now(&self) -> Mono {
        Mono::from_ns(self.0.now_ns.load(Ordering::Relaxed))
    }

    fn wall(&self) -> Wall {
        Wall { ms: self.0.now_ns.load(Ordering::Relaxed) / 1_000_000 }
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        Box::pin(Timer { inner: Arc::clone(&self.0), at_ns: at.as_ns() })
    }

    fn spawn(&self, _name: &'static str, body: BoxFuture<'static, ()>) -> Task {
        let aborted = Arc::new(AtomicBool::new(false));
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let job = Job { woken, aborted: Arc::clone(&aborted), body: Some(body) };
        self.0.spawned.lock().expect("one thread").push(job);
        Task::new(move || aborted.store(true, Ordering::Relaxed))
    }

    fn connect(&self, _addr: &str) -> BoxFuture<'static, io::Result<BoxStream>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn listen(&self, _addr: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn entropy(&self, _label: &str) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.0.draws.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        bytes
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(SmallFiles(Arc::clone(&self.0)))
    }

    fn compute(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        job();
        Box::pin(async {})
    }

    fn event(&self, _event: &str) {}

    fn fault_point(&self, _moment: &'static str) {}

    fn sometimes(&self, _probe: &'static str) {}
}

/// Runs a test in a fresh world.
pub(crate) fn run<T, F: Future<Output = T>>(test: impl FnOnce(Env) -> F) -> T {
    let inner = Arc::new(Inner::default());
    let env = Env::new(StepWorld(Arc::clone(&inner)));
    Steps { inner, jobs: Vec::new() }.run(test(env))
}

impl Steps {
    fn run<T>(mut self, test: impl Future<Output = T>) -> T {
        let mut test = std::pin::pin!(test);
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        for _ in 0..POLLS_MAX {
            let mut polled = false;
            if woken.0.swap(false, Ordering::Relaxed) {
                polled = true;
                if let Poll::Ready(done) = test.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return done;
                }
            }
            self.jobs.append(&mut self.inner.spawned.lock().expect("one thread"));
            polled |= self.poll_jobs();
            if !polled {
                self.step_to_next_timer();
            }
        }
        panic!("a task spins");
    }

    fn poll_jobs(&mut self) -> bool {
        let mut polled = false;
        for job in &mut self.jobs {
            if job.aborted.load(Ordering::Relaxed) {
                job.body = None;
            } else if job.woken.0.swap(false, Ordering::Relaxed)
                && let Some(body) = &mut job.body
            {
                polled = true;
                let waker = Waker::from(Arc::clone(&job.woken));
                if body.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    job.body = None;
                }
            }
        }
        self.jobs.retain(|job| job.body.is_some());
        polled
    }

    fn step_to_next_timer(&self) {
        let mut timers = self.inner.timers.lock().expect("one thread");
        let now = timers.iter().map(|(at, _)| *at).min().expect("everything waits for nothing");
        self.inner.now_ns.fetch_max(now, Ordering::Relaxed);
        timers.retain(|(at, waker)| {
            let due = *at <= now;
            if due {
                waker.wake_by_ref();
            }
            !due
        });
    }
}

/// Both ends of a pipe that holds `room` bytes each way, secured: a master's, then a worker's.
pub(crate) fn secured_pair(room: usize) -> (Secured, Secured) {
    let (near, far) = tokio::io::duplex(room);
    let (near_keys, far_keys) = record::pair_for_tests();
    let secured = |stream: tokio::io::DuplexStream, (sealer, opener), peer| Secured {
        stream: Box::new(stream),
        sealer,
        opener,
        peer,
    };
    (secured(near, near_keys, peer(2, Role::Worker)), secured(far, far_keys, peer(1, Role::Master)))
}

fn peer(id: u8, role: Role) -> Peer {
    Peer { node: NodeId([id; 16]), role, spki: vec![id; 4], name: format!("{role}-{id}") }
}

/// A second, in a test.
pub(crate) const SECOND: Duration = Duration::from_secs(1);
