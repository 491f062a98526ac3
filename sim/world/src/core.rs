//! Core of the world: time, queue, log and names, which the host and network parts act on.

use crate::{
    ids::HostId,
    log::{Detail, Log},
    queue::Queue,
    wakes::Wakes,
};

/// State that every part of the world shares.
pub(crate) struct Core {
    /// Virtual time, ns, set whenever the world is entered.
    pub(crate) now: u64,
    /// Events that are still to come.
    pub(crate) queue: Queue,
    /// Wakers to call once the world is unlocked.
    pub(crate) wakes: Wakes,
    /// Event log of the run.
    pub(crate) log: Log,
    /// Names of the hosts, by their numbers.
    pub(crate) names: Vec<String>,
}

impl Core {
    /// Returns an empty core at virtual time 0.
    pub(crate) const fn new(detail: Detail) -> Self {
        Self {
            now: 0,
            queue: Queue::new(),
            wakes: Wakes::new(),
            log: Log::new(detail),
            names: Vec::new(),
        }
    }

    /// Returns the name of a host.
    pub(crate) fn name(&self, host: HostId) -> &str {
        &self.names[host.0]
    }

    /// Returns whether segments, and what nodes say they received, have lines.
    pub(crate) fn keeps_segments(&self) -> bool {
        self.log.keeps_segments()
    }

    /// Writes a line about a host; `members` holds JSON members without braces.
    pub(crate) fn note(&mut self, host: HostId, kind: &str, members: &str) {
        self.log.note(self.now, &self.names[host.0], kind, members);
    }
}
