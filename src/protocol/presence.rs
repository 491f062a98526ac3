//! Presence: the sessions with open streams on this master, and the reports of them to the store.
//!
//! ```text
//!   stream opened ─► touched at once, then every 5 s while active ─► last stream closed
//!                                  ▲                                       │ 12 s
//!                                  └────────── opened again ◄──────────────┴─► leave
//! ```
//!
//! 1. A session is touched every `touch_interval` while it has an open stream and was active in
//!    the last [`ALIVE_FOR`]. It is touched at once when a stream opens, and when it posts and was
//!    not touched in this interval.
//! 2. The store is touched every interval even without a session: so it can tell that the master
//!    has no sessions from the master being gone. One touch is on its way at a time; later
//!    sessions go with the next.
//!    A touch that failed is repeated soon: it may have carried a session that nobody else names.
//! 3. A leave is due `leave_delay` after the last stream closed, and after the last touch that named
//!    the session: a post through this master touches it too. It names that touch, so that a session
//!    that is open on another master stays listed: `leave_delay` is longer than `touch_interval`,
//!    within which the other master touches it. One statement of at most [`LEAVE_MAX`] leaves is on
//!    its way at a time: however many leave at once, the store is never busy with them for long.
//! 4. At most `sessions_max` sessions are kept, as many wait for a touch at once, and as many are
//!    noted as touched. One that waits for its leave makes place for one with a stream.
//! 5. The store hears once an hour which sessions sent requests without a stream. They are in use, and
//!    nobody is listed for it.

mod uses;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use self::uses::Uses;
use crate::model::{ids::SessionKey, time::Mono};

/// Time for which a session counts as active after its last request or answer to a beat.
pub const ALIVE_FOR: Duration = Duration::from_secs(15);
/// Maximum number of sessions that leave in one statement.
pub const LEAVE_MAX: usize = 256;
/// Pause after a failed touch before the next one.
pub const TOUCH_RETRY: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
struct Here {
    streams: u32,
    alive_at: Mono,
    /// Time of its leave, while it has no stream.
    leave_at: Option<Mono>,
    /// Store time of its last touch by this master.
    touched_ms: u64,
}

/// Reports to the store that are due now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresenceDue {
    /// Sessions to touch in one statement; `Some` of an empty list is a touch too.
    pub touch: Option<Vec<SessionKey>>,
    /// Sessions to take off the list in one statement, with the store time of their last touch.
    pub leave: Vec<(SessionKey, u64)>,
    /// Sessions to note as in use in one statement.
    pub used: Vec<SessionKey>,
}

/// Sessions of one master.
#[derive(Clone, Debug)]
pub struct Presence {
    sessions: BTreeMap<SessionKey, Here>,
    /// Sessions that wait for their leave, in its order.
    leaves: BTreeSet<(Mono, SessionKey)>,
    /// Whether a statement of leaves is on its way to the store.
    leaving: bool,
    /// Sessions that are touched without waiting for the interval's end.
    at_once: BTreeSet<SessionKey>,
    /// Sessions touched since the interval began.
    touched: BTreeSet<SessionKey>,
    /// Whether a touch is on its way to the store.
    touching: bool,
    touch_at: Mono,
    uses: Uses,
    touch_interval: Duration,
    leave_delay: Duration,
    sessions_max: usize,
}

impl Presence {
    /// Creates the table without sessions; the first touch is due now.
    #[must_use]
    pub fn new(
        now: Mono,
        touch_interval: Duration,
        leave_delay: Duration,
        sessions_max: usize,
    ) -> Self {
        Self {
            sessions: BTreeMap::new(),
            leaves: BTreeSet::new(),
            leaving: false,
            at_once: BTreeSet::new(),
            touched: BTreeSet::new(),
            touching: false,
            touch_at: now,
            uses: Uses::new(now, sessions_max),
            touch_interval,
            leave_delay,
            sessions_max,
        }
    }

    /// Adds a stream of a session. Returns `false`, and keeps no presence, when the table is full.
    pub fn on_stream_opened(&mut self, now: Mono, key: SessionKey) -> bool {
        if self.sessions.len() >= self.sessions_max && !self.sessions.contains_key(&key) {
            // Who left long enough ago is off the list soon, unheard of.
            let Some((_, left)) = self.leaves.pop_first() else { return false };
            self.sessions.remove(&left);
        }
        let here = self.sessions.entry(key).or_insert(Here {
            streams: 0,
            alive_at: now,
            leave_at: None,
            touched_ms: 0,
        });
        here.streams = here.streams.saturating_add(1);
        here.alive_at = now;
        if let Some(at) = here.leave_at.take() {
            self.leaves.remove(&(at, key));
        }
        self.touch_at_once(key);
        true
    }

    /// Removes a stream of a session. After the last one the session waits for its leave.
    pub fn on_stream_closed(&mut self, now: Mono, key: &SessionKey) {
        if let Some(here) = self.sessions.get_mut(key) {
            here.streams = here.streams.saturating_sub(1);
            if here.streams == 0 && here.leave_at.is_none() {
                let at = now + self.leave_delay;
                here.leave_at = Some(at);
                self.leaves.insert((at, *key));
            }
        }
    }

    /// Marks the session active: it sent a request or answered a beat.
    pub fn on_alive(&mut self, now: Mono, key: &SessionKey) {
        if let Some(here) = self.sessions.get_mut(key) {
            here.alive_at = now;
        }
    }

    /// Notes that an open session sent a request. One with a stream is touched, which notes its use.
    pub fn on_used(&mut self, key: SessionKey) {
        let is_touched = self.sessions.get(&key).is_some_and(|here| here.streams > 0);
        if !is_touched {
            self.uses.add(key);
        }
    }

    /// Marks the session active even without an open stream: its post was taken.
    pub fn on_post(&mut self, now: Mono, key: SessionKey) {
        self.on_alive(now, &key);
        if !self.touched.contains(&key) {
            self.touch_at_once(key);
        }
    }

    fn touch_at_once(&mut self, key: SessionKey) {
        if self.at_once.len() < self.sessions_max {
            self.at_once.insert(key);
        }
    }

    /// Ends a touch of these sessions, with the store's time; `None` when the touch failed.
    pub fn on_touched(&mut self, now: Mono, keys: &[SessionKey], now_ms: Option<u64>) {
        self.touching = false;
        let Some(now_ms) = now_ms else {
            // The repeated touch names whoever has a stream; a writer without one tries again by
            // the next post.
            self.touched.clear();
            self.touch_at = self.touch_at.min(now + TOUCH_RETRY);
            return;
        };
        for key in keys {
            let Some(here) = self.sessions.get_mut(key) else { continue };
            here.touched_ms = now_ms;
            if let Some(at) = &mut here.leave_at {
                self.leaves.remove(&(*at, *key));
                *at = now + self.leave_delay;
                self.leaves.insert((*at, *key));
            }
        }
    }

    /// Ends a statement of leaves, whether the store took it or not: a row that was not heard of is
    /// out by its age soon.
    pub const fn on_left(&mut self) {
        self.leaving = false;
    }

    /// Makes the next touch due now: the store asks for a touch first.
    pub const fn on_touch_wanted(&mut self, now: Mono) {
        self.touch_at = now;
    }

    /// Forgets a session that was closed for good, without a leave.
    pub fn forget(&mut self, key: &SessionKey) {
        if let Some(at) = self.sessions.remove(key).and_then(|here| here.leave_at) {
            self.leaves.remove(&(at, *key));
        }
        self.at_once.remove(key);
        self.touched.remove(key);
        self.uses.forget(key);
    }

    /// Takes the reports that are due. Answer a touch with [`Presence::on_touched`], leaves with
    /// [`Presence::on_left`], and a note of uses that failed with [`Presence::on_uses_failed`].
    pub fn due(&mut self, now: Mono) -> PresenceDue {
        let is_time = !self.touching && now >= self.touch_at;
        let used = if is_time { self.uses.take(now) } else { Vec::new() };
        let touch = if self.touching { None } else { self.touch(now) };
        self.touching |= touch.is_some();
        let leave = if self.leaving { Vec::new() } else { self.leave(now) };
        self.leaving |= !leave.is_empty();
        PresenceDue { touch, leave, used }
    }

    /// Has the uses of a note that failed go with a later one.
    pub fn on_uses_failed(&mut self, keys: Vec<SessionKey>) {
        self.uses.put_back(keys);
    }

    /// Takes all uses that wait, each page for one statement: this master ends.
    pub fn take_uses(&mut self) -> Vec<Vec<SessionKey>> {
        self.uses.take_all()
    }

    fn leave(&mut self, now: Mono) -> Vec<(SessionKey, u64)> {
        let mut leave = Vec::new();
        while leave.len() < LEAVE_MAX
            && let Some((_, key)) = self.leaves.first().copied().filter(|(at, _)| *at <= now)
        {
            self.leaves.pop_first();
            self.touched.remove(&key);
            leave.extend(self.sessions.remove(&key).map(|here| (key, here.touched_ms)));
        }
        leave
    }

    fn touch(&mut self, now: Mono) -> Option<Vec<SessionKey>> {
        let mut keys = std::mem::take(&mut self.at_once);
        if now >= self.touch_at {
            self.touch_at = now + self.touch_interval;
            let live = |here: &Here| here.streams > 0 && now.since(here.alive_at) <= ALIVE_FOR;
            keys.extend(self.sessions.iter().filter(|(_, here)| live(here)).map(|(key, _)| *key));
            self.touched.clear();
        } else if keys.is_empty() {
            return None;
        }
        let room = self.sessions_max.saturating_sub(self.touched.len());
        self.touched.extend(keys.iter().take(room));
        Some(keys.into_iter().collect())
    }

    /// Returns the time of the next report; `None` while nothing is due by time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let touch = match (self.touching, self.at_once.is_empty()) {
            (true, _) => None,
            (false, true) => Some(self.touch_at),
            (false, false) => Some(Mono::ZERO),
        };
        let leave = self.leaves.first().filter(|_| !self.leaving).map(|(at, _)| *at);
        touch.into_iter().chain(leave).min()
    }

    /// Returns the number of sessions, those that wait for their leave included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Returns whether there are no sessions.
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

    /// Takes the touch that is due, and lets the store take it at once.
    fn touched(presence: &mut Presence, now: Mono) -> Option<Vec<u8>> {
        let keys = presence.due(now).touch?;
        presence.on_touched(now, &keys, Some(77));
        Some(keys.iter().map(|key| key.0[0]).collect())
    }

    #[test]
    fn store_is_touched_every_interval_without_sessions() {
        let mut presence = presence();
        assert_eq!(touched(&mut presence, at(0)), Some(vec![]));
        assert_eq!(presence.next_deadline(), Some(at(5)));
        assert_eq!(presence.due(at(4)), PresenceDue::default());
        presence.on_touch_wanted(at(4));
        assert_eq!(touched(&mut presence, at(4)), Some(vec![]));
        assert_eq!(presence.next_deadline(), Some(at(9)));
    }

    #[test]
    fn opened_streams_and_posts_touch_at_once_and_silent_sessions_are_not_touched() {
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
    fn busy_writer_is_touched_once_an_interval() {
        let mut presence = presence();
        touched(&mut presence, at(0));
        let posts = (1..12).map(|s| {
            presence.on_post(at(s), key(1));
            touched(&mut presence, at(s)).map_or(0, |keys| keys.len())
        });
        assert_eq!(posts.collect::<Vec<_>>(), [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn only_one_touch_is_on_its_way_at_a_time() {
        let mut presence = presence();
        presence.on_post(at(0), key(1));
        assert_eq!(presence.due(at(0)).touch, Some(vec![key(1)]));
        presence.on_post(at(1), key(2));
        presence.on_post(at(1), key(1));
        assert_eq!((presence.next_deadline(), presence.due(at(9))), (None, PresenceDue::default()));
        presence.on_touched(at(9), &[key(1)], None);
        presence.on_post(at(9), key(1));
        assert_eq!(touched(&mut presence, at(9)), Some(vec![1, 2]), "the first was not heard");
    }

    #[test]
    fn leave_waits_for_its_delay_and_names_the_last_touch() {
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
    fn leave_is_put_off_by_a_touch_so_that_another_master_can_touch_the_session_first() {
        let mut presence = presence();
        presence.on_stream_opened(at(0), key(1));
        touched(&mut presence, at(0));
        presence.on_stream_closed(at(1), &key(1));
        assert_eq!(touched(&mut presence, at(5)), Some(vec![]));
        presence.on_post(at(9), key(1));
        assert_eq!(touched(&mut presence, at(9)), Some(vec![1]));
        assert_eq!(presence.due(at(20)).leave, []);
        assert_eq!(presence.due(at(21)).leave, [(key(1), 77)]);
    }

    #[test]
    fn failed_touch_is_repeated_soon_with_all_who_have_a_stream() {
        let mut presence = presence();
        touched(&mut presence, at(0));
        presence.on_stream_opened(at(1), key(1));
        assert_eq!(presence.due(at(1)).touch, Some(vec![key(1)]));
        presence.on_touched(at(2), &[key(1)], None);
        let again = at(2) + TOUCH_RETRY;
        assert_eq!(presence.next_deadline(), Some(again));
        assert_eq!(touched(&mut presence, again), Some(vec![1]));
    }

    #[test]
    fn many_leaves_go_in_bounded_statements_one_at_a_time() {
        let mut presence = Presence::new(at(0), Duration::from_secs(5), Duration::ZERO, 2000);
        for n in 0..600_u16 {
            let mut key = key(0);
            key.0[..2].copy_from_slice(&n.to_be_bytes());
            presence.on_stream_opened(at(0), key);
            presence.on_stream_closed(at(0), &key);
        }
        let first = presence.due(at(1));
        assert_eq!(first.leave.len(), LEAVE_MAX);
        assert_eq!(presence.due(at(1)).leave, [], "one is on its way");
        presence.on_touched(at(1), &first.touch.expect("a touch"), Some(77));
        assert!(presence.next_deadline() > Some(at(1)), "nothing is due until it ends");
        presence.on_left();
        assert_eq!(presence.next_deadline(), Some(at(1)));
        assert_eq!(presence.due(at(1)).leave.len(), LEAVE_MAX);
        presence.on_left();
        assert_eq!(presence.due(at(1)).leave.len(), 600 - 2 * LEAVE_MAX);
        assert!(presence.is_empty());
    }

    #[test]
    fn session_that_left_makes_place_for_one_with_a_stream() {
        let mut presence = Presence::new(at(0), Duration::from_secs(5), Duration::from_secs(12), 1);
        presence.on_stream_opened(at(0), key(1));
        touched(&mut presence, at(0));
        presence.on_stream_closed(at(1), &key(1));
        assert!(presence.on_stream_opened(at(2), key(2)), "whoever has a stream is listed");
        assert_eq!(touched(&mut presence, at(2)), Some(vec![2]));
        assert_eq!((presence.len(), presence.due(at(20)).leave), (1, vec![]));
    }

    #[test]
    fn full_table_keeps_its_sessions_and_refuses_new_ones() {
        let mut presence = Presence::new(at(0), Duration::from_secs(5), Duration::ZERO, 1);
        assert!(presence.on_stream_opened(at(0), key(1)));
        assert!(!presence.on_stream_opened(at(0), key(2)));
        assert!(presence.on_stream_opened(at(0), key(1)));
    }

    proptest! {
        /// Compares with a model of each session's opened and closed streams.
        #[test]
        fn session_without_a_stream_for_the_delay_leaves_once(
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
                presence.on_left();
                let leave: BTreeSet<_> = due.leave.iter().map(|(key, _)| key.0[0]).collect();
                prop_assert_eq!(leave, left.iter().copied().collect());
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
