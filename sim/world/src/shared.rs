//! Shared handle on the world's state, registered with madsim as a plugin.
//!
//! 1. Nothing wakes a task, and no lock of madsim's is taken, while the world is locked.
//! 2. The world is not entered twice at once.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dst_env::time::Mono;
use madsim::{
    plugin::Simulator,
    rand::GlobalRng,
    runtime::{Handle, NodeHandle},
    task::NodeId,
    time::TimeHandle,
};

use crate::{
    ids::{HostId, Life},
    panics,
    setup::Setup,
    state::{End, State},
};

const SECOND_NS: u64 = 1_000_000_000;

type OnFaultPoint = Box<dyn Fn(HostId, &'static str) + Send + Sync>;

struct Inner {
    time: TimeHandle,
    runtime: OnceLock<Handle>,
    on_fault_point: OnceLock<OnFaultPoint>,
    /// The listener for fault points panicked.
    is_broken: AtomicBool,
    /// A processor is or was slow: from then on each step asks for its turn.
    has_slow: AtomicBool,
    state: Mutex<State>,
}

/// Cheap handle on the state of one world.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Inner>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl Simulator for Shared {
    fn new(_: &GlobalRng, time: &TimeHandle, _: &madsim::Config) -> Self {
        Self(Arc::new(Inner {
            time: time.clone(),
            runtime: OnceLock::new(),
            on_fault_point: OnceLock::new(),
            is_broken: AtomicBool::new(false),
            has_slow: AtomicBool::new(false),
            state: Mutex::new(State::new()),
        }))
    }

    /// Counts a kill as an exit. madsim holds its locks here. An end that the world itself
    /// decided on was carried out before the kill.
    fn reset_node(&self, id: NodeId) {
        self.with(|state| state.end_node(id));
    }
}

impl Shared {
    /// Applies the settings and starts the task that pumps the queue.
    ///
    /// # Panics
    /// When the world was started before.
    pub(crate) fn start(&self, setup: Setup) {
        assert!(self.0.runtime.set(Handle::current()).is_ok(), "a world starts once");
        self.with(|state| state.set_up(setup));
        let world = self.clone();
        let mut second = 0;
        madsim::task::spawn(std::future::poll_fn(move |cx| {
            let now = world.with(|state| state.pump(cx));
            if now / SECOND_NS > second {
                second = now / SECOND_NS;
                // Asked for its side effect: madsim lets go of ended tasks only when it counts.
                world.runtime().metrics().num_tasks();
            }
            std::task::Poll::<()>::Pending
        }));
    }

    /// Enters the world. Must not be nested.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let (done, wakes) = {
            // A panic in here ends the run; what is dropped on the way must not panic too.
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.core.now = self.now_ns();
            let done = act(&mut state);
            state.arm(&self.0.time);
            (done, state.core.wakes.take())
        };
        wakes.wake();
        done
    }

    /// Looks at the world without changing it. Must not be nested.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&State) -> T) -> T {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.core.now = self.now_ns();
        at(&state)
    }

    fn now_ns(&self) -> u64 {
        let elapsed = self.0.time.elapsed();
        elapsed.as_secs() * SECOND_NS + u64::from(elapsed.subsec_nanos())
    }

    /// Returns madsim's runtime.
    pub(crate) fn runtime(&self) -> &Handle {
        self.0.runtime.get().expect("a world is only handed out after its start")
    }

    /// Returns what spawns tasks on a host's node.
    pub(crate) fn spawner(&self, node: NodeId) -> NodeHandle {
        self.runtime().get_node(node).expect("the host was added")
    }

    /// Returns virtual time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.time.elapsed()
    }

    /// Sets the listener for fault points.
    ///
    /// # Panics
    /// When there is one already.
    pub(crate) fn on_fault_point(&self, act: OnFaultPoint) {
        assert!(self.0.on_fault_point.set(act).is_ok(), "one listener for fault points");
    }

    /// Writes a fault point down and calls the listener, in the middle of the node's step.
    ///
    /// # Panics
    /// As the node, when that was asked for.
    pub(crate) fn fault_point(&self, life: Life, name: &'static str) {
        let (is_live, panics) = self.with(|state| state.fault_point(life, name));
        assert!(!panics, "asked to panic at {name}");
        let Some(act) = self.0.on_fault_point.get().filter(|_| is_live) else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| act(life.host, name))) {
            self.0.is_broken.store(true, Ordering::Relaxed);
            resume_unwind(panic);
        }
    }

    /// Lets steps ask for their turns from now on.
    pub(crate) fn count_steps(&self) {
        self.0.has_slow.store(true, Ordering::Relaxed);
    }

    /// Makes a step of a life, or returns when it can be asked for again, by its host's clock.
    pub(crate) fn step(&self, life: Life) -> Option<Mono> {
        if !self.0.has_slow.load(Ordering::Relaxed) {
            return None;
        }
        self.with(|state| {
            state.live(life).ok()?;
            let host = &mut state.hosts[life.host.0];
            host.cpu.step(state.core.now, state.step_ns).map(|free_at| host.clock.mono(free_at))
        })
    }

    /// Ends the process whose task panicked, unless panics of such tasks are contained.
    ///
    /// # Panics
    /// When it was the world or the harness that panicked in the middle of the task's step.
    pub(crate) fn on_panic(&self, life: Life, task: &'static str, panic: Box<dyn Any + Send>) {
        if self.0.state.is_poisoned() || self.0.is_broken.load(Ordering::Relaxed) {
            resume_unwind(panic);
        }
        let (message, location) = panics::describe(&*panic);
        if self.with(|state| state.panicked(life, task, message, location)) {
            self.end(life.host, End::Exit);
        }
    }

    /// Ends the process of a host; false when none ran.
    pub(crate) fn end(&self, host: HostId, way: End) -> bool {
        let Some(node) = self.with(|state| state.end(host, way)) else { return false };
        self.runtime().kill(node);
        true
    }
}
