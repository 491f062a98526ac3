//! Observations: time, the event log, probes, disks and the wire.

use std::{collections::BTreeMap, time::Duration};

use dst_env::{rng::Seed, time::Wall};
use serde_json::Value;

use super::World;
use crate::{
    ids::HostId,
    log::{EventRecord, quoted},
    net::Capture,
    panics::Panicked,
};

impl World {
    /// Returns the root seed of the run.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.0.with(|state| state.seed)
    }

    /// Returns virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Returns a host's wall clock.
    #[must_use]
    pub fn wall(&self, host: HostId) -> Wall {
        self.0.with(|state| state.wall(host))
    }

    /// Writes a line of the harness into the event log, with these JSON members.
    pub fn note(&self, host: &str, kind: &str, members: &[(&str, Value)]) {
        let members: Vec<_> =
            members.iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
        self.0.with(|state| state.core.log.note(state.core.now, host, kind, &members.join(",")));
    }

    /// Returns the events that nodes recorded so far.
    #[must_use]
    pub fn events(&self) -> Vec<EventRecord> {
        self.0.with(|state| state.core.log.events().to_vec())
    }

    /// Returns what `read` makes of each event that nodes recorded so far. It must not use the world.
    #[must_use]
    pub fn read_events<T>(&self, read: impl FnMut(&EventRecord) -> T) -> Vec<T> {
        self.0.with(|state| state.core.log.events().iter().map(read).collect())
    }

    /// Returns the newest event of which `select` makes something. It must not use the world.
    pub fn latest<T>(&self, select: impl FnMut(&EventRecord) -> Option<T>) -> Option<T> {
        self.0.with(|state| state.core.log.events().iter().rev().find_map(select))
    }

    /// Returns the lines of the event log so far.
    #[must_use]
    pub fn log_lines(&self) -> Vec<String> {
        self.0.with(|state| state.core.log.lines().to_vec())
    }

    /// Takes out the lines of the event log: for the end of a run. The log is empty afterwards, so its
    /// digest has to be asked for before.
    #[must_use]
    pub fn take_log(&self) -> Vec<String> {
        self.0.with(|state| state.core.log.take_lines())
    }

    /// Returns SHA-256, in hex, over the event log so far.
    #[must_use]
    pub fn digest(&self) -> String {
        self.0.with(|state| state.core.log.digest())
    }

    /// Returns the probes that were reached, and how often.
    #[must_use]
    pub fn probes(&self) -> BTreeMap<&'static str, u64> {
        self.0.with(|state| state.probes.clone())
    }

    /// Returns the panics of hosts' tasks since the last call. Each is a finding; the harness that
    /// asks takes it on itself to report them.
    #[must_use]
    pub fn panics(&self) -> Vec<Panicked> {
        self.0.with(|state| std::mem::take(&mut state.panics))
    }

    /// Keeps, from now on, the bytes that each end of each connection writes, if `wants` its host
    /// and the one of the other end. `wants` must not use the world.
    pub fn capture(&self, wants: impl Fn(HostId, HostId) -> bool + Send + 'static) {
        self.0.with(|state| state.net.capture(Box::new(wants)));
    }

    /// Returns a copy of the bytes that were kept so far, from the beginning of each connection.
    #[must_use]
    pub fn captures(&self) -> Vec<Capture> {
        self.0.with(|state| state.net.captures())
    }

    /// Takes out the bytes that were kept, from the beginning of each connection. None are kept
    /// from now on.
    #[must_use]
    pub fn end_capture(&self) -> Vec<Capture> {
        self.0.with(|state| state.net.end_capture())
    }

    /// Returns how often a host's disk made something durable.
    #[must_use]
    pub fn syncs(&self, host: HostId) -> u64 {
        self.0.with(|state| state.hosts[host.0].disk.syncs())
    }

    /// Returns a file of a host's disk as it is now, whether a process runs or not.
    #[must_use]
    pub fn read_file(&self, host: HostId, name: &str) -> Option<Vec<u8>> {
        self.0.with(|state| state.hosts[host.0].disk.read(name))
    }
}
