//! Queue of coming events, ordered by (time, sequence).

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{
    ids::{HostId, SocketId},
    segment::Segment,
    timers::TimerId,
};

/// Event that is due at a point in virtual time.
#[derive(Debug)]
pub(crate) enum Due {
    /// A node's timer may be due.
    Timer {
        /// Number of the node's machine.
        host: u32,
        /// Timer of the machine.
        timer: TimerId,
    },
    /// A segment reaches the other end.
    Segment(Box<Segment>),
    /// Acknowledgements have come for which a socket waits.
    Acks(SocketId),
    /// The retransmission timer of a socket is due.
    Retransmit(SocketId),
}

impl Due {
    /// Returns that a timer of a machine may be due.
    pub(crate) fn timer(host: HostId, timer: TimerId) -> Self {
        Self::Timer { host: u32::try_from(host.0).expect("fewer than 2^32 machines"), timer }
    }
}

/// Event in the heap.
#[derive(Debug)]
struct Entry {
    at: u64,
    sequence: u64,
    due: Due,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// Heap of events. They cannot be withdrawn: whoever handles one checks that it still matters.
#[derive(Debug)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
}

impl Queue {
    /// Returns an empty queue.
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), sequence: 0 }
    }

    /// Adds an event that is due at `at`, virtual ns.
    pub(crate) fn push(&mut self, at: u64, due: Due) {
        let sequence = self.sequence;
        self.sequence += 1;
        self.heap.push(Reverse(Entry { at, sequence, due }));
    }

    /// Takes the first entry that is due by `now`.
    pub(crate) fn pop(&mut self, now: u64) -> Option<Due> {
        if self.first()?.0 > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry.due)
    }

    /// Drops the first entry.
    pub(crate) fn drop_first(&mut self) {
        self.heap.pop();
    }

    /// Returns the first entry and when it is due, virtual ns.
    pub(crate) fn first(&self) -> Option<(u64, &Due)> {
        self.heap.peek().map(|Reverse(entry)| (entry.at, &entry.due))
    }
}
