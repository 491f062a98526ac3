//! State of the world: its hosts, their network, and the rules that join them.
//!
//! 1. What an end does to a host (its connections, its disk, the number of its life) is done
//!    before its tasks are killed: what they still do, or drop, is stale and does nothing.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use dst_env::{
    rng::Seed,
    time::{Mono, Wall},
};
use madsim::{
    task::NodeId,
    time::{Sleep, TimeHandle},
};

use crate::{
    clock::Clock,
    core::Core,
    host::Host,
    ids::{HostId, Life},
    log::{Detail, quoted},
    net::Net,
    panics::{COMPUTE, Panicked},
    queue::Due,
    setup::{Progress, Setup},
    timers::TimerId,
};

/// Way in which a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The machine loses power.
    Crash,
    /// The process dies, the machine goes on.
    Exit,
}

/// State of one world.
pub(crate) struct State {
    pub(crate) core: Core,
    pub(crate) net: Net,
    pub(crate) hosts: Vec<Host>,
    by_name: BTreeMap<String, HostId>,
    pub(crate) seed: Seed,
    /// Time that a step takes on a processor at full speed, ns.
    pub(crate) step_ns: u64,
    /// Probes that were reached, and how often.
    pub(crate) probes: BTreeMap<&'static str, u64>,
    /// Panics that nobody asked for yet.
    pub(crate) panics: Vec<Panicked>,
    /// Names of tasks whose panics end the task alone.
    pub(crate) contained: &'static [&'static str],
    progress: Arc<Progress>,
    /// Waker of the task that pumps the queue.
    pump: Option<Waker>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Virtual times at which the pump will be woken, ns, the earliest last.
    armed_at: Vec<u64>,
}

impl State {
    /// Returns an empty world of seed 0, until [`State::set_up`].
    pub(crate) fn new() -> Self {
        Self {
            core: Core::new(Detail::default()),
            net: Net::new(Seed(0)),
            hosts: Vec::new(),
            by_name: BTreeMap::new(),
            seed: Seed(0),
            step_ns: 0,
            probes: BTreeMap::new(),
            panics: Vec::new(),
            contained: &[],
            progress: Arc::default(),
            pump: None,
            sleep: None,
            armed_at: Vec::new(),
        }
    }

    /// Applies the settings of a run, before any host is added.
    pub(crate) fn set_up(&mut self, setup: Setup) {
        self.seed = setup.seed;
        self.progress = setup.progress;
        self.net = Net::new(setup.seed);
        self.core = Core::new(setup.detail);
    }

    /// Carries out all events that are due, as the pump's task, and returns virtual time.
    pub(crate) fn pump(&mut self, cx: &Context<'_>) -> u64 {
        if self.pump.as_ref().is_none_or(|pump| !pump.will_wake(cx.waker())) {
            self.pump = Some(cx.waker().clone());
        }
        while self.armed_at.pop_if(|at| *at <= self.core.now).is_some() {}
        while let Some(due) = self.core.queue.pop(self.core.now) {
            self.carry_out(due);
        }
        self.progress.virtual_ms.store(self.core.now / 1_000_000, Ordering::Relaxed);
        self.progress.events.store(self.core.log.lines().len() as u64, Ordering::Relaxed);
        self.core.now
    }

    /// Makes sure that the pump runs when the first event is due. A timer of madsim cannot be
    /// withdrawn, so it is only set when it is earlier than the one that stands.
    pub(crate) fn arm(&mut self, time: &TimeHandle) {
        let earliest = self.armed_at.last().copied().unwrap_or(u64::MAX);
        let Some(next) = self.next_before(earliest) else { return };
        let Some(pump) = &self.pump else { return };
        self.armed_at.push(next);
        let ahead = Duration::from_nanos(next.saturating_sub(self.core.now));
        let deadline = time.now_instant() + ahead;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(time.sleep(Duration::ZERO)));
        // `reset` has no floor, `sleep` has one of 1 ms.
        sleep.as_mut().reset(deadline);
        if sleep.as_mut().poll(&mut Context::from_waker(pump)).is_ready() {
            self.core.wakes.add(Some(pump.clone()));
        }
    }

    /// Returns when the first event is due, if that is before `limit`. Those that no longer matter
    /// are dropped, so that the pump does not wake for them.
    fn next_before(&mut self, limit: u64) -> Option<u64> {
        loop {
            let (at, due) = self.core.queue.first().filter(|(at, _)| *at < limit)?;
            match *due {
                Due::Timer { host, timer } if !self.hosts[host as usize].waits_for(timer) => {
                    self.core.queue.drop_first();
                }
                Due::Retransmit(socket) => {
                    let due = self.net.timer(&mut self.core, socket, at);
                    if due == Some(at) {
                        return due;
                    }
                    self.core.queue.drop_first();
                    if let Some(due) = due {
                        self.core.queue.push(due, Due::Retransmit(socket));
                    }
                }
                _ => return Some(at),
            }
        }
    }

    fn carry_out(&mut self, due: Due) {
        match due {
            Due::Timer { host, timer } => {
                let host = HostId(host as usize);
                self.hosts[host.0].on_timer(&mut self.core, host, timer);
            }
            Due::Segment(segment) => self.net.deliver(&mut self.core, *segment),
            Due::Acks(socket) => self.net.on_acks(&mut self.core, socket),
            Due::Retransmit(socket) => self.net.on_timer(&mut self.core, socket),
        }
    }

    /// Adds a machine, switched off.
    pub(crate) fn add_host(&mut self, name: &str, node: NodeId) -> HostId {
        self.hosts.push(Host::new(self.seed, name, node));
        self.net.add_machine(name);
        self.core.names.push(name.to_owned());
        let id = HostId(self.hosts.len() - 1);
        self.by_name.entry(name.to_owned()).or_insert(id);
        id
    }

    /// Returns the machine with this name.
    pub(crate) fn find(&self, name: &str) -> Option<HostId> {
        self.by_name.get(name).copied()
    }

    /// Checks that a life has not ended.
    ///
    /// # Errors
    /// When it has.
    pub(crate) fn live(&self, life: Life) -> io::Result<()> {
        let host = &self.hosts[life.host.0];
        if host.is_running && host.boot == life.boot {
            Ok(())
        } else {
            Err(io::Error::other("this process has ended"))
        }
    }

    /// Begins a life of a host; `None` when one runs already.
    pub(crate) fn boot(&mut self, host: HostId) -> Option<(Life, NodeId)> {
        let machine = &mut self.hosts[host.0];
        if machine.is_running {
            return None;
        }
        let (boot, node) = (machine.begin_life(), machine.node);
        self.net.power_on(host);
        self.core.note(host, "boot", &format!(r#""boot":{boot}"#));
        Some((Life { host, boot }, node))
    }

    /// Ends the process of a host, if one runs, and returns its node, which is to be killed then.
    pub(crate) fn end(&mut self, host: HostId, end: End) -> Option<NodeId> {
        let machine = &mut self.hosts[host.0];
        if !machine.is_running {
            return None;
        }
        machine.end_life();
        let node = machine.node;
        match end {
            End::Crash => {
                self.power_off(host);
            }
            End::Exit => {
                machine.disk.process_ended();
                self.core.note(host, "exit", "");
                self.net.process_ended(&mut self.core, host);
            }
        }
        Some(node)
    }

    /// Ends the process that runs on a node of madsim's, if it is one of the hosts.
    pub(crate) fn end_node(&mut self, node: NodeId) {
        if let Some(at) = self.hosts.iter().position(|host| host.node == node) {
            self.end(HostId(at), End::Exit);
        }
    }

    /// Takes a machine's power away. False when it was off.
    pub(crate) fn power_off(&mut self, host: HostId) -> bool {
        if !self.net.is_up(host) {
            return false;
        }
        self.net.power_off(host);
        let machine = &mut self.hosts[host.0];
        let unsynced = machine.disk.lose_power(self.core.now, &mut machine.rng);
        machine.clock.reboot(self.core.now, &mut machine.rng);
        self.core.note(host, "crash", &format!(r#""unsynced":{unsynced}"#));
        true
    }

    /// Stops or resumes a process and returns its node; `None` when there is nothing to change.
    pub(crate) fn set_paused(&mut self, host: HostId, is_paused: bool) -> Option<NodeId> {
        let machine = &mut self.hosts[host.0];
        if !machine.is_running || machine.is_paused == is_paused {
            return None;
        }
        machine.is_paused = is_paused;
        let node = machine.node;
        self.core.note(host, if is_paused { "pause" } else { "resume" }, "");
        Some(node)
    }

    /// Changes a host's clock, writes that down, and queues its timers again.
    pub(crate) fn change_clock(
        &mut self,
        host: HostId,
        kind: &str,
        by: i64,
        change: impl FnOnce(&mut Clock, u64),
    ) {
        change(&mut self.hosts[host.0].clock, self.core.now);
        self.core.note(host, kind, &format!(r#""by":{by}"#));
        self.hosts[host.0].requeue_timers(&mut self.core, host);
    }

    /// Returns a host's monotonic clock.
    pub(crate) fn mono(&self, host: HostId) -> Mono {
        self.hosts[host.0].read_mono(self.core.now)
    }

    /// Returns a host's wall clock.
    pub(crate) fn wall(&self, host: HostId) -> Wall {
        self.hosts[host.0].read_wall(self.core.now)
    }

    /// Ready when the host's monotonic clock has reached `at`; never for an ended life.
    pub(crate) fn poll_timer(
        &mut self,
        life: Life,
        timer: &mut Option<TimerId>,
        at: Mono,
        cx: &Context<'_>,
    ) -> Poll<()> {
        if self.live(life).is_err() {
            return Poll::Pending;
        }
        let host = &mut self.hosts[life.host.0];
        host.poll_timer(&mut self.core, life.host, timer, at, cx)
    }

    /// Returns bytes that no other call in any life of any host gets.
    pub(crate) fn entropy(&mut self, life: Life, label: &str) -> [u8; 32] {
        let counter = self.hosts[life.host.0].count_entropy(label);
        let name = self.core.name(life.host);
        self.seed.bytes(&format!("node/{name}/{}/{label}/{counter}", life.boot))
    }

    /// Keeps an event line of a node. Does nothing for an ended life.
    pub(crate) fn event(&mut self, life: Life, line: &str) {
        if self.live(life).is_ok() {
            self.core.log.event(self.core.now, &self.core.names[life.host.0], line);
        }
    }

    /// Writes down that a node reached a fault point. Returns whether its life goes on, and
    /// whether it has to panic here.
    pub(crate) fn fault_point(&mut self, life: Life, name: &'static str) -> (bool, bool) {
        if self.live(life).is_err() {
            return (false, false);
        }
        self.core.note(life.host, "fault_point", &format!(r#""name":"{name}""#));
        (true, self.hosts[life.host.0].panics_at.take_if(|at| *at == name).is_some())
    }

    /// Writes down that a task panicked, and returns whether that ends its process. Does nothing
    /// for an ended life.
    pub(crate) fn panicked(
        &mut self,
        life: Life,
        task: &'static str,
        message: String,
        location: String,
    ) -> bool {
        if self.live(life).is_err() {
            return false;
        }
        let (said, at) = (quoted(&message), quoted(&location));
        let members = format!(r#""task":"{task}","message":{said},"at":{at}"#);
        self.core.note(life.host, "panicked", &members);
        let host = self.core.name(life.host).to_owned();
        self.panics.push(Panicked { at_ns: self.core.now, host, task, message, location });
        task != COMPUTE && !self.contained.contains(&task)
    }

    /// Writes down what a node received, if the log keeps such lines.
    pub(crate) fn trace(&mut self, life: Life, text: &dyn Fn() -> String) {
        if self.core.keeps_segments() && self.live(life).is_ok() {
            self.core.note(life.host, "message", &format!(r#""name":{}"#, quoted(&text())));
        }
    }

    /// Counts that a probe was reached, and writes the first time down.
    pub(crate) fn sometimes(&mut self, life: Life, probe: &'static str) {
        if self.live(life).is_err() {
            return;
        }
        let reached = self.probes.entry(probe).or_default();
        *reached += 1;
        if *reached == 1 {
            self.core.note(life.host, "probe", &format!(r#""probe":{}"#, quoted(probe)));
        }
    }
}
