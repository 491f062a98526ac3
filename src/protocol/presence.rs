//! Who is here: the sessions with streams on this master, and when the store hears of them.
//!
//! ```text
//!   stream opened ─► touched at once, then every 5 s while alive ─► last stream closed
//!                                  ▲                                      │ 12 s
//!                                  └────────── opened again ◄─────────────┴─► leave
//! ```
//!
//! 1. A session is touched every `touch_interval` while it has an open stream and was alive in
//!    the last [`ALIVE_FOR`]; at once when a stream opens or it posts.
//! 2. The store is touched every interval even for nobody: it tells a calm evening from an
//!    absence by that.
//! 3. A leave is due `leave_delay` after the last stream closed and names the last touch that
//!    is known, so that a session that went on elsewhere stays.
//! 4. At most `sessions_max` sessions, and as many waiting to be touched at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{time::Mono, types::SessionKey};

/// A session is alive for this long after its last request or answer to a beat.
pub const ALIVE_FOR: Duration = Duration::from_secs(15);

#[derive(Clone, Debug)]
struct Here {
    streams: u32,
    alive_at: Mono,
    /// When it leaves; only while it has no stream.
    leave_at: Option<Mono>,
    /// Store time of its last touch by this master.
    touched_ms: u64,
}

/// What the store is to be told now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Touch these, in one statement, though they be none.
    pub touch: Option<Vec<SessionKey>>,
    /// These left; with the store time of their last touch.
    pub leave: Vec<(SessionKey, u64)>,
}

/// The sessions of one master.
#[derive(Clone, Debug)]
pub struct Presence {
    sessions: BTreeMap<SessionKey, Here>,
    at_once: BTreeSet<SessionKey>,
    touch_at: Mono,
    touch_interval: Duration,
    leave_delay: Duration,
    sessions_max: usize,
}

impl Presence {
    /// Nobody is here; the first touch is due now.
    #[must_use]
    pub const fn new(
        now: Mono,
        touch_interval: Duration,
        leave_delay: Duration,
        sessions_max: usize,
    ) -> Self {
        Self {
            sessions: BTreeMap::new(),
            at_once: BTreeSet::new(),
            touch_at: now,
            touch_interval,
            leave_delay,
            sessions_max,
        }
    }

    /// A stream of a session opened. `false` when there is no room: its presence is not kept.
    pub fn on_stream_opened(&mut self, now: Mono, key: SessionKey) -> bool {
        if self.sessions.len() >= self.sessions_max && !self.sessions.contains_key(&key) {
            return false;
        }
        let here = self.sessions.entry(key).or_insert(Here {
            streams: 0,
            alive_at: now,
            leave_at: None,
            touched_ms: 0,
        });
        here.streams = here.streams.saturating_add(1);
        here.alive_at = now;
        here.leave_at = None;
        self.touch_at_once(key);
        true
    }

    /// A stream of a session closed.
    pub fn on_stream_closed(&mut self, now: Mono, key: &SessionKey) {
        if let Some(here) = self.sessions.get_mut(key) {
            here.streams = here.streams.saturating_sub(1);
            if here.streams == 0 && here.leave_at.is_none() {
                here.leave_at = Some(now + self.leave_delay);
            }
        }
    }

    /// A session asked something, or answered a beat.
    pub fn on_alive(&mut self, now: Mono, key: &SessionKey) {
        if let Some(here) = self.sessions.get_mut(key) {
            here.alive_at = now;
        }
    }

    /// A session's post was taken; it is active though it have no stream.
    pub fn on_post(&mut self, now: Mono, key: SessionKey) {
        self.on_alive(now, &key);
        self.touch_at_once(key);
    }

    fn touch_at_once(&mut self, key: SessionKey) {
        if self.at_once.len() < self.sessions_max {
            self.at_once.insert(key);
        }
    }

    /// The store was touched for these sessions, at this store time.
    pub fn on_touched(&mut self, keys: &[SessionKey], now_ms: u64) {
        for key in keys {
            if let Some(here) = self.sessions.get_mut(key) {
                here.touched_ms = now_ms;
            }
        }
    }

    /// The store says *touch first*: the next touch is due now.
    pub const fn on_touch_wanted(&mut self, now: Mono) {
        self.touch_at = now;
    }

    /// A session was closed for good: nothing more is said of it.
    pub fn forget(&mut self, key: &SessionKey) {
        self.sessions.remove(key);
        self.at_once.remove(key);
    }

    /// What is due. A touch that the store does not take is made up for by the next.
    pub fn due(&mut self, now: Mono) -> Due {
        let mut due = Due::default();
        let at_once = std::mem::take(&mut self.at_once);
        if now >= self.touch_at {
            self.touch_at = now + self.touch_interval;
            let live = |here: &Here| here.streams > 0 && now.since(here.alive_at) <= ALIVE_FOR;
            let live = self.sessions.iter().filter(|(_, here)| live(here)).map(|(key, _)| *key);
            let all: BTreeSet<_> = live.chain(at_once).collect();
            due.touch = Some(all.into_iter().collect());
        } else if !at_once.is_empty() {
            due.touch = Some(at_once.into_iter().collect());
        }
        self.sessions.retain(|key, here| {
            let leaves = here.leave_at.is_some_and(|at| now >= at);
            if leaves {
                due.leave.push((*key, here.touched_ms));
            }
            !leaves
        });
        due
    }

    /// When something is due next: the next touch at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        if !self.at_once.is_empty() {
            return Mono::ZERO;
        }
        let leave = self.sessions.values().filter_map(|here| here.leave_at).min();
        leave.map_or(self.touch_at, |leave| leave.min(self.touch_at))
    }

    /// How many sessions are here, the leaving ones too.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether nobody is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(s: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(s)
    }

    fn key(n: u8) -> SessionKey {
        SessionKey([n; 32])
    }

    fn presence() -> Presence {
        Presence::new(at(0), Duration::from_secs(5), Duration::from_secs(12), 8)
    }

    fn touch(keys: &[u8]) -> Due {
        Due { touch: Some(keys.iter().map(|n| key(*n)).collect()), leave: vec![] }
    }

    #[test]
    fn nobody_is_touched_every_interval_too() {
        let mut presence = presence();
        assert_eq!(presence.due(at(0)), touch(&[]));
        assert_eq!(presence.next_deadline(), at(5));
        assert_eq!(presence.due(at(4)), Due::default());
        presence.on_touch_wanted(at(4));
        assert_eq!(presence.due(at(4)), touch(&[]));
        assert_eq!(presence.next_deadline(), at(9));
    }

    #[test]
    fn streams_and_posts_touch_at_once_and_the_silent_not_at_all() {
        let mut presence = presence();
        presence.due(at(0));
        presence.on_stream_opened(at(1), key(1));
        presence.on_post(at(1), key(2));
        assert!(presence.next_deadline() <= at(1));
        assert_eq!(presence.due(at(1)), touch(&[1, 2]));
        assert_eq!(presence.due(at(5)), touch(&[1]));
        assert_eq!(presence.due(at(16)), touch(&[1]));
        assert_eq!(presence.due(at(21)), touch(&[]));
        presence.on_alive(at(22), &key(1));
        assert_eq!(presence.due(at(26)), touch(&[1]));
    }

    #[test]
    fn a_leave_waits_and_names_the_last_touch() {
        let mut presence = presence();
        presence.on_stream_opened(at(0), key(1));
        presence.on_stream_opened(at(0), key(1));
        presence.due(at(0));
        presence.on_touched(&[key(1)], 77);
        presence.on_stream_closed(at(1), &key(1));
        presence.on_stream_closed(at(2), &key(1));
        assert_eq!(presence.due(at(13)).leave, []);
        assert_eq!(presence.due(at(14)).leave, [(key(1), 77)]);
        assert!(presence.is_empty());
    }

    #[test]
    fn a_full_house_keeps_those_who_are_in() {
        let mut presence = Presence::new(at(0), Duration::from_secs(5), Duration::ZERO, 1);
        assert!(presence.on_stream_opened(at(0), key(1)));
        assert!(!presence.on_stream_opened(at(0), key(2)));
        assert!(presence.on_stream_opened(at(0), key(1)));
    }

    proptest! {
        /// Against each session's own history of opened and closed streams.
        #[test]
        fn who_has_no_stream_for_the_delay_leaves_once(
            steps in proptest::collection::vec((0..8_u64, 0..3_u8, any::<bool>()), 0..80),
        ) {
            let mut presence = presence();
            let mut model: BTreeMap<u8, (u32, Option<u64>)> = BTreeMap::new();
            let mut now = 0;
            for (pass, n, opens) in steps {
                now += pass;
                let left: Vec<_> = model
                    .iter()
                    .filter(|(_, (_, leave))| leave.is_some_and(|at| at <= now))
                    .map(|(n, _)| *n)
                    .collect();
                let due = presence.due(at(now));
                prop_assert_eq!(due.leave.iter().map(|(key, _)| key.0[0]).collect::<Vec<_>>(), left.clone());
                for n in left {
                    model.remove(&n);
                }
                if opens {
                    presence.on_stream_opened(at(now), key(n));
                    let streams = model.get(&n).map_or(0, |m| m.0);
                    model.insert(n, (streams + 1, None));
                } else {
                    presence.on_stream_closed(at(now), &key(n));
                    if let Some((streams, leave)) = model.get_mut(&n) {
                        *streams = streams.saturating_sub(1);
                        if *streams == 0 && leave.is_none() {
                            *leave = Some(now + 12);
                        }
                    }
                }
                let leave = model.values().filter_map(|m| m.1).min();
                if let Some(leave) = leave {
                    prop_assert!(presence.next_deadline() <= at(leave));
                }
            }
        }
    }
}
