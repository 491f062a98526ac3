//! One machine: its disk, clocks, timers and the life that runs on it.

use std::{
    cell::Cell,
    collections::BTreeMap,
    task::{Context, Poll},
};

use dst_env::{
    rng::{Rng, Seed},
    time::{Mono, Wall},
};
use madsim::task::NodeId;

use crate::{
    clock::Clock,
    core::Core,
    cpu::Cpu,
    disk::DiskState,
    ids::HostId,
    queue::Due,
    timers::{TimerId, Timers},
};

/// Time by which reads of the clock within one step may be ahead of virtual time, ns.
const READS_AHEAD_NS: u64 = 20_000;

/// Machine of the simulated world.
pub(crate) struct Host {
    pub(crate) disk: DiskState,
    pub(crate) clock: Clock,
    pub(crate) cpu: Cpu,
    /// Node of madsim's executor that its tasks run on.
    pub(crate) node: NodeId,
    /// Draws for what happens to the machine: torn writes, boots.
    pub(crate) rng: Rng,
    /// Number of the newest life, 0 before the first boot.
    pub(crate) boot: u64,
    pub(crate) is_running: bool,
    pub(crate) is_paused: bool,
    /// Fault point at which its process has to panic.
    pub(crate) panics_at: Option<&'static str>,
    /// Waits for the monotonic clock.
    timers: Timers,
    /// Newest read of the monotonic clock, ns, and the draw of the next step.
    reads: Cell<(u64, u64)>,
    /// Draws of entropy in this life, by label.
    entropy: BTreeMap<String, u64>,
}

impl Host {
    /// Returns a machine that is switched off.
    pub(crate) fn new(seed: Seed, name: &str, node: NodeId) -> Self {
        let mut rng = seed.stream(&format!("host/{name}"));
        Self {
            disk: DiskState::new(&mut seed.stream(&format!("host/{name}/disk"))),
            clock: Clock::new(&mut rng),
            cpu: Cpu::new(seed.stream(&format!("host/{name}/cpu"))),
            node,
            rng,
            boot: 0,
            is_running: false,
            is_paused: false,
            panics_at: None,
            timers: Timers::default(),
            reads: Cell::new((0, seed.stream(&format!("host/{name}/reads")).word())),
            entropy: BTreeMap::new(),
        }
    }

    /// Reads the monotonic clock. Two reads of one step differ, as they do where steps take time.
    pub(crate) fn read_mono(&self, now: u64) -> Mono {
        let true_ns = self.clock.mono(now).as_ns();
        let (last, draw) = self.reads.get();
        let draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let later = last.saturating_add((draw >> 33) % 400).min(true_ns + READS_AHEAD_NS);
        let read = true_ns.max(later).max(last);
        self.reads.set((read, draw));
        Mono::from_ns(read)
    }

    /// Reads the wall clock, as far ahead as the monotonic one is read.
    pub(crate) fn read_wall(&self, now: u64) -> Wall {
        let ahead = self.read_mono(now).as_ns().saturating_sub(self.clock.mono(now).as_ns());
        self.clock.wall(now, ahead)
    }

    /// Begins the next life and returns its number.
    pub(crate) fn begin_life(&mut self) -> u64 {
        self.boot += 1;
        self.is_running = true;
        // The monotonic clock may begin anew.
        self.reads.set((0, self.reads.get().1));
        self.entropy.clear();
        self.boot
    }

    /// Ends the life that runs.
    pub(crate) fn end_life(&mut self) {
        self.is_running = false;
        self.is_paused = false;
        self.timers.clear();
    }

    /// Ready when the monotonic clock has reached `at`. `timer` is the waiter's own, added when it
    /// first waits.
    pub(crate) fn poll_timer(
        &mut self,
        core: &mut Core,
        host: HostId,
        timer: &mut Option<TimerId>,
        at: Mono,
        cx: &Context<'_>,
    ) -> Poll<()> {
        if self.clock.mono(core.now) >= at {
            self.drop_timer(timer);
            return Poll::Ready(());
        }
        match *timer {
            Some(id) => self.timers.set_waker(id, cx.waker()),
            None => {
                let id = self.timers.add(at, cx.waker());
                core.queue.push(self.clock.reaches(at), Due::timer(host, id));
                *timer = Some(id);
            }
        }
        Poll::Pending
    }

    /// Forgets a wait that its waiter gave up.
    pub(crate) fn drop_timer(&mut self, timer: &mut Option<TimerId>) {
        if let Some(id) = timer.take() {
            self.timers.remove(id);
        }
    }

    /// Returns whether somebody waits for a timer.
    pub(crate) fn waits_for(&self, timer: TimerId) -> bool {
        self.timers.until(timer).is_some()
    }

    /// Wakes the waiter of a timer, or queues it again when the clock is not there yet.
    pub(crate) fn on_timer(&mut self, core: &mut Core, host: HostId, timer: TimerId) {
        let Some(at) = self.timers.until(timer) else { return };
        if self.clock.mono(core.now) >= at {
            core.wakes.add(self.timers.fire(timer));
        } else {
            let due = self.clock.reaches(at).max(core.now + 1);
            core.queue.push(due, Due::timer(host, timer));
        }
    }

    /// Queues all timers again after the clock was changed.
    pub(crate) fn requeue_timers(&self, core: &mut Core, host: HostId) {
        for (timer, at) in self.timers.all() {
            core.queue.push(self.clock.reaches(at), Due::timer(host, timer));
        }
    }

    /// Returns how often this label was drawn from in this life, this time included.
    pub(crate) fn count_entropy(&mut self, label: &str) -> u64 {
        let counter = self.entropy.entry(label.to_owned()).or_default();
        *counter += 1;
        *counter
    }
}
