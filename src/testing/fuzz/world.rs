//! World of one input: its tasks run in turn on the caller's thread, and its clock moves only when
//! the input says so. It needs no runtime, so that an input costs microseconds.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use crate::{
    env::{BoxFuture, BoxStream, Disk, Env, Listener, Platform, Task},
    model::time::{Mono, Wall},
};

/// Rounds without a step of the clock after which tasks count as running for ever.
const ROUNDS_MAX: usize = 10_000;

/// Handle on the world.
#[derive(Clone, Default)]
pub(super) struct World(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    signal: Arc<Signal>,
}

#[derive(Default)]
struct State {
    now: Mono,
    timers: BTreeSet<Mono>,
    /// Tasks by number; `None` once one has ended, was aborted, or while it runs.
    tasks: Vec<Option<BoxFuture<'static, ()>>>,
    aborted: BTreeSet<usize>,
    drawn: u8,
}

/// Notes that some task can go on.
#[derive(Default)]
struct Signal(AtomicBool);

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl World {
    pub(super) fn env(&self) -> Env {
        Env::new(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs all tasks until none can go on.
    ///
    /// # Panics
    /// When they never stop.
    pub(super) fn settle(&self) {
        let waker = Waker::from(Arc::clone(&self.0.signal));
        let mut cx = Context::from_waker(&waker);
        for _ in 0..ROUNDS_MAX {
            self.0.signal.0.store(false, Ordering::Relaxed);
            let count = self.state().tasks.len();
            for number in 0..count {
                let task = self.state().tasks[number].take();
                let Some(mut task) = task else { continue };
                if task.as_mut().poll(&mut cx).is_pending() {
                    let mut state = self.state();
                    if !state.aborted.contains(&number) {
                        state.tasks[number] = Some(task);
                    }
                }
            }
            if !self.0.signal.0.load(Ordering::Relaxed) && self.state().tasks.len() == count {
                return;
            }
        }
        panic!("tasks run for ever without a step of the clock");
    }

    /// Moves the clock, from timer to timer, and runs all tasks at each.
    pub(super) fn pass(&self, time: Duration) {
        let end = self.state().now + time;
        loop {
            self.settle();
            let mut state = self.state();
            match state.timers.first().copied().filter(|at| *at <= end) {
                Some(at) => {
                    state.timers.remove(&at);
                    state.now = state.now.max(at);
                    self.0.signal.0.store(true, Ordering::Relaxed);
                }
                None => {
                    state.now = end;
                    return;
                }
            }
        }
    }
}

impl Platform for World {
    fn now(&self) -> Mono {
        self.state().now
    }

    fn wall(&self) -> Wall {
        Wall { ms: self.state().now.as_ns() / 1_000_000 }
    }

    fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        let world = self.clone();
        Box::pin(poll_fn(move |_| {
            let mut state = world.state();
            if state.now >= at {
                return Poll::Ready(());
            }
            state.timers.insert(at);
            Poll::Pending
        }))
    }

    fn spawn(&self, _: &'static str, task: BoxFuture<'static, ()>) -> Task {
        let number = {
            let mut state = self.state();
            state.tasks.push(Some(task));
            state.tasks.len() - 1
        };
        let world = self.clone();
        Task::new(move || {
            let mut state = world.state();
            state.aborted.insert(number);
            let task = state.tasks[number].take();
            // What a task drops may ask the world something.
            drop(state);
            drop(task);
        })
    }

    fn connect(&self, _: &str) -> BoxFuture<'static, io::Result<BoxStream>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn listen(&self, _: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn entropy(&self, _: &str) -> [u8; 32] {
        let mut state = self.state();
        state.drawn = state.drawn.wrapping_add(1);
        [state.drawn; 32]
    }

    fn disk(&self) -> Arc<dyn Disk> {
        panic!("no target uses a disk")
    }

    fn compute(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        job();
        Box::pin(async {})
    }

    fn event(&self, _: &str) {}

    fn fault_point(&self, _: &'static str) {}

    fn sometimes(&self, _: &'static str) {}
}
