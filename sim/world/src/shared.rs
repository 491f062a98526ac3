//! Shared handle on the world's state, registered with madsim as a plugin.
//!
//! 1. Nothing wakes a task, and no lock of madsim's is taken, while the world is locked.
//! 2. The world is not entered twice at once.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use madsim::{
    plugin::Simulator,
    rand::GlobalRng,
    runtime::{Handle, NodeHandle},
    task::NodeId,
    time::TimeHandle,
};

use crate::{
    ids::{HostId, Life},
    setup::Setup,
    state::State,
};

type OnFaultPoint = Box<dyn Fn(HostId, &'static str) + Send + Sync>;

struct Inner {
    time: TimeHandle,
    runtime: OnceLock<Handle>,
    on_fault_point: OnceLock<OnFaultPoint>,
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
        madsim::task::spawn(std::future::poll_fn(move |cx| {
            world.with(|state| state.pump(cx));
            std::task::Poll::<()>::Pending
        }));
    }

    /// Enters the world. Must not be nested.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let (done, wakes) = {
            // A panic ends the simulation anyway; what is dropped on the way must not panic too.
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.core.now = u64::try_from(self.0.time.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let done = act(&mut state);
            state.arm(&self.0.time);
            (done, std::mem::take(&mut state.core.wakes))
        };
        for waker in wakes {
            waker.wake();
        }
        done
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
    pub(crate) fn fault_point(&self, life: Life, name: &'static str) {
        let is_live = self.with(|state| state.fault_point(life, name));
        if let Some(act) = self.0.on_fault_point.get().filter(|_| is_live) {
            act(life.host, name);
        }
    }
}
