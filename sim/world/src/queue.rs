//! What is to happen: one heap of events, ordered by (time, sequence).

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{
    net::{Segment, SocketId},
    world::HostId,
};

/// Something due at a point in virtual time.
#[derive(Debug)]
pub(crate) enum Due {
    /// A node's timer may have come.
    Timer {
        /// Whose.
        host: HostId,
        /// Which.
        timer: u64,
    },
    /// A segment reaches the other end.
    Segment(Box<Segment>),
    /// A socket's retransmission timer.
    Retransmit(SocketId),
}

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

/// The heap. Entries cannot be withdrawn: who handles one checks that it still stands.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
}

impl Queue {
    /// Adds what is due at `at`, virtual ns.
    pub(crate) fn push(&mut self, at: u64, due: Due) {
        let sequence = self.sequence;
        self.sequence += 1;
        self.heap.push(Reverse(Entry { at, sequence, due }));
    }

    /// Takes the first entry that is due by `now`.
    pub(crate) fn pop(&mut self, now: u64) -> Option<Due> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry.due)
    }

    /// When the first entry is due.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }
}
