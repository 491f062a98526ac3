//! Who is here: the sessions with streams on this master, and when the store hears of them.
//!
//! ```text
//!   stream opened ─► touched at once, then every 5 s while alive ─► last stream closed
//!                                  ▲                                      │ 12 s
//!                                  └────────── opened again ◄─────────────┴─► leave
//! ```
//!
//! 1. A session is touched every `touch_interval` while it has an open stream and was alive in
//!    the last [`ALIVE_FOR`]; at once when a stream opens, and when it posts and was not touched
//!    in this interval.
//! 2. The store is touched every interval even for nobody: it tells a calm evening from an
//!    absence by that. One touch is on its way at a time; who comes meanwhile goes with the next.
//! 3. A leave is due `leave_delay` after the last stream closed and names the last touch that
//!    is known, so that a session that went on elsewhere stays.
//! 4. At most `sessions_max` sessions, as many waiting to be touched at once, and as many touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::model::{ids::SessionKey, time::Mono};

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
pub struct PresenceDue {
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
    /// Those that the store was told of since the interval began.
    told: BTreeSet<SessionKey>,
    on_its_way: bool,
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
            told: BTreeSet::new(),
            on_its_way: false,
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
        if !self.told.contains(&key) {
            self.touch_at_once(key);
        }
    }

    fn touch_at_once(&mut self, key: SessionKey) {
        if self.at_once.len() < self.sessions_max {
            self.at_once.insert(key);
        }
    }

    /// The store was touched for these sessions, at this store time; `None` when it was not.
    pub fn on_touched(&mut self, keys: &[SessionKey], now_ms: Option<u64>) {
        self.on_its_way = false;
        let Some(now_ms) = now_ms else {
            // Their next post tries again.
            self.told.clear();
            return;
        };
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
        self.told.remove(key);
    }

    /// What is due; a touch is answered with [`Presence::on_touched`]. One that the store does not
    /// take is made up for by the next.
    pub fn due(&mut self, now: Mono) -> PresenceDue {
        let touch = if self.on_its_way { None } else { self.touch(now) };
        self.on_its_way |= touch.is_some();
        let mut leave = Vec::new();
        self.sessions.retain(|key, here| {
            let leaves = here.leave_at.is_some_and(|at| now >= at);
            if leaves {
                leave.push((*key, here.touched_ms));
                self.told.remove(key);
            }
            !leaves
        });
        PresenceDue { touch, leave }
    }

    fn touch(&mut self, now: Mono) -> Option<Vec<SessionKey>> {
        let mut keys = std::mem::take(&mut self.at_once);
        if now >= self.touch_at {
            self.touch_at = now + self.touch_interval;
            let live = |here: &Here| here.streams > 0 && now.since(here.alive_at) <= ALIVE_FOR;
            keys.extend(self.sessions.iter().filter(|(_, here)| live(here)).map(|(key, _)| *key));
            self.told.clear();
        } else if keys.is_empty() {
            return None;
        }
        let room = self.sessions_max.saturating_sub(self.told.len());
        self.told.extend(keys.iter().take(room));
        Some(keys.into_iter().collect())
    }

    /// When something is due next; `None` while that is not for time to say.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let touch = match (self.on_its_way, self.at_once.is_empty()) {
            (true, _) => None,
            (false, true) => Some(self.touch_at),
            (false, false) => Some(Mono::ZERO),
        };
        let leave = self.sessions.values().filter_map(|here| here.leave_at).min();
        touch.into_iter().chain(leave).min()
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

    /// What is touched now, by a store that takes it at once.
    fn touched(presence: &mut Presence, now: Mono) -> Option<Vec<u8>> {
        let keys = presence.due(now).touch?;
        presence.on_touched(&keys, Some(77));
        Some(keys.iter().map(|key| key.0[0]).collect())
    }

    #[test]
    fn nobody_is_touched_every_interval_too() {
        let mut presence = presence();
        assert_eq!(touched(&mut presence, at(0)), Some(vec![]));
        assert_eq!(presence.next_deadline(), Some(at(5)));
        assert_eq!(presence.due(at(4)), PresenceDue::default());
        presence.on_touch_wanted(at(4));
        assert_eq!(touched(&mut presence, at(4)), Some(vec![]));
        assert_eq!(presence.next_deadline(), Some(at(9)));
    }

    #[test]
    fn streams_and_posts_touch_at_once_and_the_silent_not_at_all() {
        let mut presence = presence();
        touched(&mut presence, at(0));
        presence.on_stream_opened(at(1), key(1));
        presence.on_post(at(1), key(2));
        assert!(presence.next_deadline() <= Some(at(1)));
        assert_eq!(touched(&mut presence, at(1)), Some(vec![1, 2]));
        assert_eq!(touched(&mut presence, at(5)), Some(vec![1]));
        assert_eq!(touched(&mut presence, at(16)), Some(vec![1]));
        assert_eq!(touched(&mut presence, at(21)), Some(vec![]));
        presence.on_alive(at(22), &key(1));
        assert_eq!(touched(&mut presence, at(26)), Some(vec![1]));
    }

    #[test]
    fn who_posts_much_is_touched_once_an_interval() {
        let mut presence = presence();
        touched(&mut presence, at(0));
        let posts = (1..12).map(|s| {
            presence.on_post(at(s), key(1));
            touched(&mut presence, at(s)).map_or(0, |keys| keys.len())
        });
        assert_eq!(posts.collect::<Vec<_>>(), [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn one_touch_is_on_its_way_at_a_time() {
        let mut presence = presence();
        presence.on_post(at(0), key(1));
        assert_eq!(presence.due(at(0)).touch, Some(vec![key(1)]));
        presence.on_post(at(1), key(2));
        presence.on_post(at(1), key(1));
        assert_eq!((presence.next_deadline(), presence.due(at(9))), (None, PresenceDue::default()));
        presence.on_touched(&[key(1)], None);
        presence.on_post(at(9), key(1));
        assert_eq!(touched(&mut presence, at(9)), Some(vec![1, 2]), "the first was not heard");
    }

    #[test]
    fn a_leave_waits_and_names_the_last_touch() {
        let mut presence = presence();
        presence.on_stream_opened(at(0), key(1));
        presence.on_stream_opened(at(0), key(1));
        touched(&mut presence, at(0));
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
                    prop_assert!(presence.next_deadline().is_some_and(|next| next <= at(leave)));
                }
            }
        }
    }
}
