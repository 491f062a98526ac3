//! Room for long answers that wait to be read: who asks for much and reads little fills no memory.
//!
//! 1. A long answer holds its room until its last byte is with the system or its connection has ended.
//! 2. While less than its share is held, an address is given one more answer, however long. The same goes
//!    for the room of all.
//! 3. A short answer holds none: the buffers of its connection may take as much.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::body::Bytes;

use super::connection::PeerHost;

/// Length up to which an answer is short, in bytes.
const SHORT_BYTES_MAX: usize = 64 * 1024;

/// Room that unread answers hold. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub(super) struct Unread {
    held: Arc<Mutex<Held>>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    by_host: BTreeMap<Arc<str>, usize>,
}

impl Unread {
    /// Returns room of so many bytes for the answers to all addresses.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { held: Arc::default(), bytes_max }
    }

    /// Returns whether an address holds less than its share.
    pub(super) fn has_room(&self, host: &PeerHost, share: usize) -> bool {
        self.held().by_host.get(&host.0).is_none_or(|bytes| *bytes < share)
    }

    /// Returns an answer, which holds its room if it is long; `None` when the share of its address or the
    /// room of all is held by others.
    pub(super) fn hold(&self, host: &PeerHost, share: usize, mut answer: Vec<u8>) -> Option<Bytes> {
        if answer.len() <= SHORT_BYTES_MAX {
            return Some(answer.into());
        }
        // What is counted is what is kept.
        answer.shrink_to_fit();
        let mut held = self.held();
        let here = held.by_host.get(&host.0).copied().unwrap_or(0);
        if here >= share || held.bytes >= self.bytes_max {
            return None;
        }
        held.bytes += answer.len();
        held.by_host.insert(Arc::clone(&host.0), here + answer.len());
        drop(held);
        let host = Arc::clone(&host.0);
        Some(Bytes::from_owner(LongAnswer { answer, host, of: self.clone() }))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Long answer; dropping it frees its room.
struct LongAnswer {
    answer: Vec<u8>,
    host: Arc<str>,
    of: Unread,
}

impl AsRef<[u8]> for LongAnswer {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

impl Drop for LongAnswer {
    fn drop(&mut self) {
        let mut held = self.of.held();
        held.bytes = held.bytes.saturating_sub(self.answer.len());
        if let Some(here) = held.by_host.get_mut(&self.host) {
            *here = here.saturating_sub(self.answer.len());
            if *here == 0 {
                held.by_host.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: usize = SHORT_BYTES_MAX + 1;

    fn host(name: &str) -> PeerHost {
        PeerHost(name.into())
    }

    #[test]
    fn long_answers_hold_room_of_their_address_and_of_all_until_they_are_dropped() {
        let unread = Unread::new(3 * LONG);
        let hold = |name, len| unread.hold(&host(name), LONG + 1, vec![b'x'; len]);
        let first = hold("a", LONG).expect("room");
        assert!(unread.has_room(&host("a"), LONG + 1));
        let last = hold("a", LONG).expect("less than its share is held");
        assert!(!unread.has_room(&host("a"), LONG + 1));
        assert_eq!(hold("a", LONG), None, "its share is held");
        assert_eq!(hold("a", SHORT_BYTES_MAX).map(|bytes| bytes.len()), Some(SHORT_BYTES_MAX));
        let other = hold("b", LONG).expect("another address has a share of its own");
        assert_eq!(hold("c", LONG), None, "the room of all is held");
        let part = first.slice(LONG - 1..);
        drop(first);
        assert_eq!(hold("c", LONG), None, "a part of it is still to be read");
        drop(part);
        assert!(hold("c", LONG).is_some(), "given back");
        assert!(hold("a", LONG).is_some(), "to its address as well");
        drop((last, other));
        let held = unread.held();
        assert_eq!((held.bytes, held.by_host.len()), (0, 0));
    }
}
