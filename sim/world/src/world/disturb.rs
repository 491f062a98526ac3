//! Disturbances of links and clocks. Those of machines are ends of their processes.

use super::World;
use crate::{
    ids::HostId,
    net::{FaultId, Link},
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

    /// Resets every connection between two hosts and returns how many ends there were.
    pub fn reset_between(&self, one: HostId, other: HostId) -> usize {
        self.0.with(|state| state.net.reset_between(&mut state.core, one, other))
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

    /// Calls `act` at each fault point that a node announces, in the middle of the node's step.
    ///
    /// # Panics
    /// When there is a listener already.
    pub fn on_fault_point(&self, act: impl Fn(HostId, &'static str) + Send + Sync + 'static) {
        self.0.on_fault_point(Box::new(act));
    }
}
