//! Disturbances of links, disks and clocks. Those of machines are ends of their processes.

use std::time::Duration;

use super::World;
use crate::{
    disk::DiskImage,
    disk_faults::DiskFault,
    ids::HostId,
    net::{Change, FaultId, Link},
};

impl World {
    /// Begins a fault on one direction between two hosts.
    pub fn add_fault(&self, from: HostId, to: HostId, fault: FaultId, link: Link) {
        self.0.with(|state| state.net.add_fault(from, to, fault, link));
    }

    /// Ends a fault on one direction between two hosts and returns how many segments it touched.
    pub fn remove_fault(&self, from: HostId, to: HostId, fault: FaultId) -> u64 {
        self.0.with(|state| state.net.remove_fault(from, to, fault))
    }

    /// Returns how many faults stand on one direction between two hosts, corruptions left out.
    #[must_use]
    pub fn line_faults(&self, from: HostId, to: HostId) -> usize {
        self.0.with(|state| state.net.line_faults(from, to))
    }

    /// Resets every connection between two hosts and returns how many ends there were.
    pub fn reset_between(&self, one: HostId, other: HostId) -> usize {
        self.0.with(|state| state.net.reset_between(&mut state.core, one, other))
    }

    /// Lets the connections between two hosts vanish at `to` alone, without a word to `from`, and
    /// returns how many there were.
    pub fn half_open(&self, from: HostId, to: HostId) -> usize {
        self.0.with(|state| state.net.half_open(&mut state.core, from, to))
    }

    /// Begins to flip bits of segments with bytes on one direction, so many of a million. Direction and
    /// `label` name the draws: under the same label and seed they are the same, whatever else is begun.
    pub fn begin_corruption(
        &self,
        from: HostId,
        to: HostId,
        fault: FaultId,
        label: &str,
        ppm: u64,
    ) {
        self.0.with(|state| state.net.corrupt(from, to, fault, label, ppm, Change::Flip));
    }

    /// Begins to put recorded bytes of one direction, of whatever connection, in the place of later
    /// ones, in so many of a million segments. It ends as a corruption does, and draws as one does.
    pub fn begin_injection(&self, from: HostId, to: HostId, fault: FaultId, label: &str, ppm: u64) {
        self.0.with(|state| state.net.corrupt(from, to, fault, label, ppm, Change::Replay));
    }

    /// Ends a corruption on one direction and returns how many segments it touched there.
    pub fn end_corruption(&self, from: HostId, to: HostId, fault: FaultId) -> u64 {
        self.0.with(|state| state.net.corruption.end(from, to, fault))
    }

    /// Lets a host's process hold no more than `count` sockets: connects and accepts beyond fail.
    pub fn bound_fds(&self, host: HostId, fault: FaultId, count: usize) {
        self.0.with(|state| state.net.bound_fds(host, fault, count));
    }

    /// Ends that and returns how many connects and accepts were refused.
    pub fn unbound_fds(&self, host: HostId, fault: FaultId) -> u64 {
        self.0.with(|state| state.net.unbound_fds(host, fault))
    }

    /// Returns a copy of what of a host's disk would survive a power loss now.
    #[must_use]
    pub fn disk_image(&self, host: HostId) -> DiskImage {
        self.0.with(|state| state.hosts[host.0].disk.image(state.core.now))
    }

    /// Cuts a host's power and puts a copy in the place of its disk's files. False when it was off;
    /// the files are replaced all the same.
    pub fn roll_back(&self, host: HostId, image: &DiskImage) -> bool {
        let was_on = self.crash(host);
        self.0.with(|state| {
            state.hosts[host.0].disk.restore(image);
            state.core.note(host, "roll_back", "");
        });
        was_on
    }

    /// Sets the time that each step of a task takes on every host's processor at full speed; none at
    /// first.
    pub fn set_step_cost(&self, cost: Duration) {
        let step_ns = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
        if step_ns > 0 {
            self.0.count_steps();
        }
        self.0.with(|state| state.step_ns = step_ns);
    }

    /// Makes a host slower: each step of its tasks and each job takes so many thousandths of its
    /// time at full speed.
    pub fn slow_down(&self, host: HostId, fault: FaultId, thousandths: u64) {
        self.0.count_steps();
        self.0.with(|state| state.hosts[host.0].cpu.slow_down(fault, thousandths));
    }

    /// Ends that and returns how many steps and jobs it made longer.
    pub fn speed_up(&self, host: HostId, fault: FaultId) -> u64 {
        self.0.with(|state| state.hosts[host.0].cpu.speed_up(fault))
    }

    /// Returns whether a fault makes a host slower.
    #[must_use]
    pub fn is_slow(&self, host: HostId) -> bool {
        self.0.with(|state| state.hosts[host.0].cpu.is_slow())
    }

    /// Begins a fault of a host's disk. The host's name and `label` name the draws: under the same label
    /// and seed they are the same, whatever else is begun.
    pub fn add_disk_fault(&self, host: HostId, fault: FaultId, label: &str, effect: DiskFault) {
        self.0.with(|state| {
            let name = &state.core.names[host.0];
            let rng = state.seed.stream(&format!("faults/disk/{name}/{label}"));
            state.hosts[host.0].disk.faults.add(fault, effect, rng);
        });
    }

    /// Ends a fault of a host's disk and returns how many operations it touched.
    pub fn remove_disk_fault(&self, host: HostId, fault: FaultId) -> u64 {
        self.0.with(|state| state.hosts[host.0].disk.faults.remove(fault))
    }

    /// Returns whether a fault of a host's disk may refuse writes or syncs now.
    #[must_use]
    pub fn disk_may_refuse(&self, host: HostId) -> bool {
        self.0.with(|state| state.hosts[host.0].disk.faults.may_refuse())
    }

    /// Lets a host's clocks run too fast by this many parts per billion.
    pub fn set_drift(&self, host: HostId, ppb: i64) {
        self.0.with(|state| {
            state.change_clock(host, "clock_drift", ppb, |clock, now| clock.set_drift(now, ppb));
        });
    }

    /// Steps a host's clocks by `by_ns`; the monotonic one only forwards.
    pub fn jump_clock(&self, host: HostId, by_ns: i64) {
        self.0.with(|state| {
            state.change_clock(host, "clock_jump", by_ns, |clock, now| clock.jump(now, by_ns));
        });
    }

    /// Steps a host's wall clock alone by `by_ns`.
    pub fn step_wall(&self, host: HostId, by_ns: i64) {
        self.0.with(|state| {
            state.change_clock(host, "clock_offset", by_ns, |clock, _| clock.step_wall(by_ns));
        });
    }

    /// Lets the order of tasks go another way from now on; by an `nth` above
    /// 0. Two of them may choose alike.
    pub fn detour(&self, nth: u32) {
        for _ in 0..nth {
            // The scheduler draws from the same stream.
            let _: u64 = madsim::rand::random();
        }
    }

    /// Calls `act` at each fault point that a node announces, in the middle of the node's step.
    ///
    /// # Panics
    /// When there is a listener already.
    pub fn on_fault_point(&self, act: impl Fn(HostId, &'static str) + Send + Sync + 'static) {
        self.0.on_fault_point(Box::new(act));
    }
}
