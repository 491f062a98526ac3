//! The world: one madsim plugin that holds hosts, network, disks, clocks and the event log.
//!
//! 1. One heap of events, ordered by (time, sequence), and one task that pumps it, on the
//!    supervisor.
//! 2. Nothing wakes a task, and no madsim lock is asked for, while the world is locked.
//! 3. What an end does to a host (its connections, its disk, its life's number) is done before
//!    its tasks are killed: whatever they still do, or drop, is stale and does nothing.

use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, pending},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use dst_env::{
    Env,
    time::{Mono, Wall},
};
use madsim::{
    plugin::{Simulator, simulator},
    rand::GlobalRng,
    runtime::{Handle, Runtime},
    task::NodeId,
    time::{Sleep, TimeHandle},
};
use tokio::sync::oneshot;

use crate::{
    clock::Clock,
    disk::Platter,
    env::SimEnv,
    log::{Detail, EventRecord, Log, quoted},
    net::{Capture, FaultId, Link, Net},
    queue::{Due, Queue},
    seed::{Rng, Seed},
};

/// A machine of the simulated world, in the order they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// One life of a host: from a boot to a crash or exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) host: HostId,
    pub(crate) boot: u64,
}

/// How far a run is, for who looks on from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Virtual time, ms.
    pub virtual_ms: AtomicU64,
    /// Lines in the event log.
    pub events: AtomicU64,
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Everything random follows from it.
    pub seed: Seed,
    /// How much the event log holds.
    pub detail: Detail,
    /// Told how far it is.
    pub progress: Arc<Progress>,
}

impl Setup {
    /// A run of a seed that logs events and that nobody watches.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed: Seed(seed), detail: Detail::Events, progress: Arc::default() }
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The machine loses power.
    Crash,
    /// The process dies, the machine goes on.
    Exit,
}

/// What every part of the world acts on.
pub(crate) struct Core {
    /// Virtual ns, set at each entry.
    pub(crate) now: u64,
    pub(crate) queue: Queue,
    /// Woken when the world is unlocked.
    pub(crate) wakes: Vec<Waker>,
    pub(crate) log: Log,
    pub(crate) names: Vec<String>,
}

pub(crate) struct Host {
    pub(crate) platter: Platter,
    node: NodeId,
    clock: Clock,
    /// Rng for what happens to it: torn writes, boots.
    draws: Rng,
    boot: u64,
    is_running: bool,
    is_paused: bool,
    timers: BTreeMap<u64, (Mono, Option<Waker>)>,
    entropy: BTreeMap<String, u64>,
}

pub(crate) struct State {
    pub(crate) core: Core,
    pub(crate) net: Net,
    pub(crate) hosts: Vec<Host>,
    seed: Seed,
    progress: Arc<Progress>,
    next_timer: u64,
    probes: BTreeMap<&'static str, u64>,
    pump: Option<Waker>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// The earliest time at which the pump will be woken.
    armed_at: u64,
}

type OnFaultPoint = Box<dyn Fn(HostId, &'static str) + Send + Sync>;

struct Shared {
    time: TimeHandle,
    runtime: OnceLock<Handle>,
    on_fault_point: OnceLock<OnFaultPoint>,
    state: Mutex<State>,
}

/// A cheap handle on the world.
#[derive(Clone)]
pub struct World(Arc<Shared>);

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl Simulator for World {
    fn new(_: &GlobalRng, time: &TimeHandle, _: &madsim::Config) -> Self {
        let seed = Seed(0);
        Self(Arc::new(Shared {
            time: time.clone(),
            runtime: OnceLock::new(),
            on_fault_point: OnceLock::new(),
            state: Mutex::new(State {
                core: Core {
                    now: 0,
                    queue: Queue::default(),
                    wakes: Vec::new(),
                    log: Log::new(Detail::default()),
                    names: Vec::new(),
                },
                net: Net::new(seed),
                hosts: Vec::new(),
                seed,
                progress: Arc::default(),
                next_timer: 0,
                probes: BTreeMap::new(),
                pump: None,
                sleep: None,
                armed_at: u64::MAX,
            }),
        }))
    }

    /// madsim holds its locks here. Who kills through [`World`] has done all before; a kill by
    /// any other way counts as an exit.
    fn reset_node(&self, id: NodeId) {
        self.with(|state| {
            if let Some(at) = state.hosts.iter().position(|host| host.node == id) {
                state.end(HostId(at), End::Exit);
            }
        });
    }
}

/// Runs `main` in a world of its own, on a thread of its own, to its end.
///
/// # Panics
/// When anything in the world panics: the simulation is over.
pub fn simulate<T, F>(setup: Setup, main: impl FnOnce(World) -> F + Send) -> T
where
    T: Send,
    F: Future<Output = T>,
{
    let run = move || {
        let runtime = Runtime::with_seed_and_config(
            crate::seed::scheduler(setup.seed),
            madsim::Config::default(),
        );
        runtime.add_simulator::<World>();
        runtime.block_on(async move {
            let world = World::clone(&simulator::<World>());
            world.start(setup);
            main(world).await
        })
    };
    thread::scope(|scope| {
        // A thread of its own: std's hash maps draw on a counter of their thread.
        let thread = thread::Builder::new().name("simulation".to_owned()).spawn_scoped(scope, run);
        let ended = thread.expect("the machine can start a thread").join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl World {
    fn start(&self, setup: Setup) {
        assert!(self.0.runtime.set(Handle::current()).is_ok(), "a world starts once");
        self.with(|state| {
            state.seed = setup.seed;
            state.progress = setup.progress;
            state.net = Net::new(setup.seed);
            state.core.log = Log::new(setup.detail);
        });
        let world = self.clone();
        madsim::task::spawn(std::future::poll_fn(move |cx| world.pump(cx)));
    }

    fn pump(&self, cx: &Context<'_>) -> Poll<()> {
        self.with(|state| {
            if state.pump.as_ref().is_none_or(|pump| !pump.will_wake(cx.waker())) {
                state.pump = Some(cx.waker().clone());
            }
            if state.core.now >= state.armed_at {
                state.armed_at = u64::MAX;
            }
            while let Some(due) = state.core.queue.pop(state.core.now) {
                state.carry_out(due);
            }
            let ms = state.core.now / 1_000_000;
            state.progress.virtual_ms.store(ms, Ordering::Relaxed);
            let events = state.core.log.lines().len() as u64;
            state.progress.events.store(events, Ordering::Relaxed);
        });
        Poll::Pending
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

    fn runtime(&self) -> &Handle {
        self.0.runtime.get().expect("a world is only handed out after its start")
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.time.elapsed()
    }

    /// Waits, in virtual time. For the supervisor: nodes have clocks of their own.
    pub async fn sleep(&self, by: Duration) {
        madsim::time::sleep(by).await;
    }

    /// Runs a task of the harness, beside all machines.
    pub fn supervise(&self, task: impl Future<Output = ()> + Send + 'static) {
        madsim::task::spawn(task);
    }

    /// Adds a machine, switched off.
    pub fn add_host(&self, name: &str) -> HostId {
        let node = self.runtime().create_node().name(name).build().id();
        self.with(|state| {
            let mut draws = state.seed.stream(&format!("host/{name}"));
            let host = Host {
                platter: Platter::default(),
                node,
                clock: Clock::new(&mut draws),
                draws,
                boot: 0,
                is_running: false,
                is_paused: false,
                timers: BTreeMap::new(),
                entropy: BTreeMap::new(),
            };
            state.hosts.push(host);
            state.net.add_machine();
            state.core.names.push(name.to_owned());
            HostId(state.hosts.len() - 1)
        })
    }

    /// The machine with this name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<HostId> {
        self.with(|state| state.find(name))
    }

    /// A machine's name.
    #[must_use]
    pub fn name(&self, host: HostId) -> String {
        self.with(|state| state.core.names[host.0].clone())
    }

    /// Switches a machine on if it is off and starts a process on it. When `main` ends, so does
    /// the process. Nothing happens if one runs.
    pub fn boot<F>(&self, host: HostId, main: impl FnOnce(Env) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some((life, node)) = self.with(|state| state.boot(host)) else { return };
        if life.boot > 1 {
            self.runtime().restart(node);
        }
        let spawner = self.runtime().get_node(node).expect("the host was added");
        let env = Env::new(SimEnv::new(self.clone(), life, spawner.clone()));
        let (world, running) = (self.clone(), main(env));
        spawner.spawn(async move {
            running.await;
            world.ended(life);
        });
    }

    /// Runs one process on a machine to its end and returns its result.
    ///
    /// # Panics
    /// When a process runs there already, or this one was ended before it was done.
    pub async fn run<T, F>(&self, host: HostId, main: impl FnOnce(Env) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        self.boot(host, |env| {
            let main = main(env);
            async move {
                // The caller waits for it.
                let _ = tell.send(main.await);
            }
        });
        told.await.expect("the process comes to its end")
    }

    /// Boots a machine with a process that only stays, and returns what it sees of the world:
    /// tasks are spawned through it until the process is ended.
    ///
    /// # Panics
    /// When a process runs there already.
    pub async fn idle(&self, host: HostId) -> Env {
        let (tell, told) = oneshot::channel();
        self.boot(host, |env| async move {
            // The caller waits for it.
            let _ = tell.send(env);
            pending::<()>().await;
        });
        told.await.expect("a machine that was off starts")
    }

    fn ended(&self, life: Life) {
        if self.with(|state| state.live(life).is_ok()) {
            self.end(life.host, End::Exit);
        }
    }

    fn end(&self, host: HostId, end: End) -> bool {
        let Some(node) = self.with(|state| state.end(host, end)) else { return false };
        self.runtime().kill(node);
        true
    }

    /// Power loss: peers hear nothing, unsynced bytes are lost or torn. False when it was off.
    pub fn crash(&self, host: HostId) -> bool {
        // A machine whose process has ended can still lose power.
        self.end(host, End::Crash) || self.with(|state| state.power_off(host))
    }

    /// The process dies, its kernel closes its connections. False when none ran.
    pub fn exit(&self, host: HostId) -> bool {
        self.end(host, End::Exit)
    }

    /// Power loss, and the disk is empty afterwards.
    pub fn wipe(&self, host: HostId) -> bool {
        let bit = self.crash(host);
        self.with(|state| {
            state.hosts[host.0].platter.wipe();
            state.note(host, "wipe", "");
        });
        bit
    }

    /// Stops the process; its kernel goes on. False when none runs or it is stopped.
    pub fn pause(&self, host: HostId) -> bool {
        let node = self.with(|state| {
            let it = &mut state.hosts[host.0];
            let node = (it.is_running && !it.is_paused).then_some(it.node)?;
            it.is_paused = true;
            state.note(host, "pause", "");
            Some(node)
        });
        node.inspect(|node| self.runtime().pause(*node)).is_some()
    }

    /// Lets a stopped process go on. False when it is not stopped.
    pub fn resume(&self, host: HostId) -> bool {
        let node = self.with(|state| {
            let it = &mut state.hosts[host.0];
            let node = (it.is_running && it.is_paused).then_some(it.node)?;
            it.is_paused = false;
            state.note(host, "resume", "");
            Some(node)
        });
        node.inspect(|node| self.runtime().resume(*node)).is_some()
    }

    /// Whether a process runs on it, stopped or not.
    #[must_use]
    pub fn is_running(&self, host: HostId) -> bool {
        self.with(|state| state.hosts[host.0].is_running)
    }

    /// A fault begins to do this to one direction between two hosts.
    pub fn add_fault(&self, from: HostId, to: HostId, fault: FaultId, link: Link) {
        self.with(|state| state.net.add_fault(from, to, fault, link));
    }

    /// What a fault does to this direction ends. Answers how many segments it touched.
    pub fn remove_fault(&self, from: HostId, to: HostId, fault: FaultId) -> u64 {
        self.with(|state| state.net.remove_fault(from, to, fault))
    }

    /// Resets every connection between two hosts; answers how many ends there were.
    pub fn reset_between(&self, one: HostId, other: HostId) -> usize {
        self.with(|state| state.net.reset_between(&mut state.core, one, other))
    }

    /// Keeps, from now on, what each end of each connection writes.
    pub fn capture(&self) {
        self.with(|state| state.net.capture());
    }

    /// What was kept.
    #[must_use]
    pub fn captures(&self) -> Vec<Capture> {
        self.with(|state| state.net.captures())
    }

    /// Lets a host's clocks run too fast by this many parts per billion.
    pub fn set_drift(&self, host: HostId, ppb: i64) {
        self.change_clock(host, "clock_drift", ppb, |clock, now| clock.set_drift(now, ppb));
    }

    /// Steps a host's clocks; the monotonic one only forwards.
    pub fn jump_clock(&self, host: HostId, by_ns: i64) {
        self.change_clock(host, "clock_jump", by_ns, |clock, now| clock.jump(now, by_ns));
    }

    /// Steps a host's wall clock alone.
    pub fn step_wall(&self, host: HostId, by_ns: i64) {
        self.change_clock(host, "clock_offset", by_ns, |clock, _| clock.step_wall(by_ns));
    }

    fn change_clock(
        &self,
        host: HostId,
        kind: &str,
        by: i64,
        change: impl FnOnce(&mut Clock, u64),
    ) {
        self.with(|state| {
            let now = state.core.now;
            change(&mut state.hosts[host.0].clock, now);
            state.note(host, kind, &format!(r#""by":{by}"#));
            state.requeue_timers(host);
        });
    }

    /// A host's wall clock.
    #[must_use]
    pub fn wall(&self, host: HostId) -> Wall {
        self.with(|state| state.hosts[host.0].clock.wall(state.core.now))
    }

    /// Called at each moment that a node announces, in the middle of its step. Set it once.
    pub fn on_fault_point(&self, act: impl Fn(HostId, &'static str) + Send + Sync + 'static) {
        let set = self.0.on_fault_point.set(Box::new(act));
        assert!(set.is_ok(), "one listener for moments");
    }

    pub(crate) fn fault_point(&self, life: Life, name: &'static str) {
        let is_live = self.with(|state| {
            let is_live = state.live(life).is_ok();
            if is_live {
                state.note(life.host, "fault_point", &format!(r#""name":"{name}""#));
            }
            is_live
        });
        if let Some(act) = self.0.on_fault_point.get().filter(|_| is_live) {
            act(life.host, name);
        }
    }

    /// Writes a line of the caller's own into the log; `rest` holds JSON members.
    pub fn note(&self, host: &str, kind: &str, rest: &str) {
        self.with(|state| state.core.log.note(state.core.now, host, kind, rest));
    }

    /// The streams of the root seed.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.with(|state| state.seed)
    }

    /// The probes that were reached, and how often.
    #[must_use]
    pub fn probes(&self) -> BTreeMap<&'static str, u64> {
        self.with(|state| state.probes.clone())
    }

    /// What nodes said so far.
    #[must_use]
    pub fn events(&self) -> Vec<EventRecord> {
        self.with(|state| state.core.log.events().to_vec())
    }

    /// The latest thing that nodes said of which `what` makes something.
    pub fn latest<T>(&self, what: impl FnMut(&EventRecord) -> Option<T>) -> Option<T> {
        self.with(|state| state.core.log.events().iter().rev().find_map(what))
    }

    /// The log's lines so far.
    #[must_use]
    pub fn log_lines(&self) -> Vec<String> {
        self.with(|state| state.core.log.lines().to_vec())
    }

    /// SHA-256 over the log so far.
    #[must_use]
    pub fn digest(&self) -> String {
        self.with(|state| state.core.log.digest())
    }

    /// How often a host's disk made something durable.
    #[must_use]
    pub fn syncs(&self, host: HostId) -> u64 {
        self.with(|state| state.hosts[host.0].platter.syncs())
    }

    /// Reads a file of a host's disk, as an operator with the disk in hand would.
    #[must_use]
    pub fn read_file(&self, host: HostId, name: &str) -> Option<Vec<u8>> {
        self.with(|state| state.hosts[host.0].platter.peek(name))
    }
}

impl State {
    /// Sees to it that the pump runs when the first event is due. A timer of madsim's cannot be
    /// withdrawn, so it is only set when it is earlier than the one that stands.
    fn arm(&mut self, time: &TimeHandle) {
        let (Some(next), Some(pump)) = (self.core.queue.next_at(), &self.pump) else { return };
        if next >= self.armed_at {
            return;
        }
        self.armed_at = next;
        let ahead = Duration::from_nanos(next.saturating_sub(self.core.now));
        let deadline = time.now_instant() + ahead;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(time.sleep(Duration::ZERO)));
        // `reset` has no floor, `sleep` has one of 1 ms.
        sleep.as_mut().reset(deadline);
        if sleep.as_mut().poll(&mut Context::from_waker(pump)).is_ready() {
            self.core.wakes.push(pump.clone());
        }
    }

    fn carry_out(&mut self, due: Due) {
        match due {
            Due::Timer { host, timer } => self.on_timer(host, timer),
            Due::Segment(segment) => self.net.deliver(&mut self.core, *segment),
            Due::Retransmit(socket) => self.net.on_timer(&mut self.core, socket),
        }
    }

    fn note(&mut self, host: HostId, kind: &str, rest: &str) {
        let now = self.core.now;
        self.core.log.note(now, &self.core.names[host.0], kind, rest);
    }

    pub(crate) fn find(&self, name: &str) -> Option<HostId> {
        self.core.names.iter().position(|known| known == name).map(HostId)
    }

    /// # Errors
    /// When this life has ended.
    pub(crate) fn live(&self, life: Life) -> io::Result<()> {
        let host = &self.hosts[life.host.0];
        if host.is_running && host.boot == life.boot {
            Ok(())
        } else {
            Err(io::Error::other("this process has ended"))
        }
    }

    fn boot(&mut self, host: HostId) -> Option<(Life, NodeId)> {
        let it = &mut self.hosts[host.0];
        if it.is_running {
            return None;
        }
        it.boot += 1;
        it.is_running = true;
        it.entropy.clear();
        let (boot, node) = (it.boot, it.node);
        self.net.power_on(host);
        self.note(host, "boot", &format!(r#""boot":{boot}"#));
        Some((Life { host, boot }, node))
    }

    /// Ends the process of a host, if one runs; its node is to be killed then.
    fn end(&mut self, host: HostId, end: End) -> Option<NodeId> {
        let it = &mut self.hosts[host.0];
        if !it.is_running {
            return None;
        }
        it.is_running = false;
        it.is_paused = false;
        it.timers.clear();
        let node = it.node;
        match end {
            End::Crash => {
                self.power_off(host);
            }
            End::Exit => {
                it.platter.process_ended();
                self.note(host, "exit", "");
                self.net.process_ended(&mut self.core, host);
            }
        }
        Some(node)
    }

    fn power_off(&mut self, host: HostId) -> bool {
        if !self.net.is_up(host) {
            return false;
        }
        self.net.power_off(host);
        let it = &mut self.hosts[host.0];
        let unsynced = it.platter.lose_power(&mut it.draws);
        it.clock.reboot(self.core.now, &mut it.draws);
        self.note(host, "crash", &format!(r#""unsynced":{unsynced}"#));
        true
    }

    pub(crate) fn mono(&self, host: HostId) -> Mono {
        self.hosts[host.0].clock.mono(self.core.now)
    }

    pub(crate) fn wall(&self, host: HostId) -> Wall {
        self.hosts[host.0].clock.wall(self.core.now)
    }

    /// Ready when the host's monotonic clock has reached `at`. `timer` is the waiter's own.
    pub(crate) fn poll_timer(
        &mut self,
        life: Life,
        timer: &mut Option<u64>,
        at: Mono,
        cx: &Context<'_>,
    ) -> Poll<()> {
        if self.live(life).is_err() {
            return Poll::Pending;
        }
        if self.mono(life.host) >= at {
            self.drop_timer(life, timer);
            return Poll::Ready(());
        }
        let host = &mut self.hosts[life.host.0];
        if let Some(id) = *timer {
            host.timers.insert(id, (at, Some(cx.waker().clone())));
        } else {
            let id = self.next_timer;
            self.next_timer += 1;
            *timer = Some(id);
            host.timers.insert(id, (at, Some(cx.waker().clone())));
            let due = host.clock.reaches(at);
            self.core.queue.push(due, Due::Timer { host: life.host, timer: id });
        }
        Poll::Pending
    }

    pub(crate) fn drop_timer(&mut self, life: Life, timer: &mut Option<u64>) {
        if let Some(id) = timer.take() {
            self.hosts[life.host.0].timers.remove(&id);
        }
    }

    fn on_timer(&mut self, host: HostId, timer: u64) {
        let reached = self.mono(host);
        let it = &mut self.hosts[host.0];
        let Some((at, waker)) = it.timers.get_mut(&timer) else { return };
        if reached >= *at {
            self.core.wakes.extend(waker.take());
        } else {
            let due = it.clock.reaches(*at).max(self.core.now + 1);
            self.core.queue.push(due, Due::Timer { host, timer });
        }
    }

    fn requeue_timers(&mut self, host: HostId) {
        let it = &self.hosts[host.0];
        for (timer, (at, _)) in &it.timers {
            self.core.queue.push(it.clock.reaches(*at), Due::Timer { host, timer: *timer });
        }
    }

    /// Bytes that no other call in any life of any host gets.
    pub(crate) fn entropy(&mut self, life: Life, label: &str) -> [u8; 32] {
        let counter = self.hosts[life.host.0].entropy.entry(label.to_owned()).or_default();
        *counter += 1;
        let name = &self.core.names[life.host.0];
        self.seed.bytes(&format!("node/{name}/{}/{label}/{counter}", life.boot))
    }

    pub(crate) fn event(&mut self, life: Life, line: &str) {
        if self.live(life).is_ok() {
            let now = self.core.now;
            self.core.log.event(now, &self.core.names[life.host.0], line);
        }
    }

    pub(crate) fn sometimes(&mut self, life: Life, probe: &'static str) {
        if self.live(life).is_ok() {
            let reached = self.probes.entry(probe).or_default();
            *reached += 1;
            if *reached == 1 {
                self.note(life.host, "probe", &format!(r#""probe":{}"#, quoted(probe)));
            }
        }
    }
}
