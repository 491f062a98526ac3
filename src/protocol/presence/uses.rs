//! Sessions that only send requests: the store hears once an hour that they are in use, so that it does not
//! end them as idle.
//!
//! 1. Uses are gathered for [`USE_INTERVAL`], or until there is no room for more, and then told in bounded
//!    statements. A use that comes meanwhile waits for the next time.
//! 2. A use is not presence: nobody is listed for it.
//! 3. Uses of a statement that failed are told again, as far as there is room, and those that wait are told
//!    when their master ends: a session that is used every day is never taken for idle.

use std::{collections::BTreeSet, time::Duration};

use crate::model::{ids::SessionKey, time::Mono};

/// Maximum number of sessions that are told to be in use in one statement.
const USES_MAX: usize = 256;
/// Time for which uses are gathered.
const USE_INTERVAL: Duration = Duration::from_secs(3600);

/// Uses of sessions that the store has yet to hear of.
#[derive(Clone, Debug)]
pub(super) struct Uses {
    /// Sessions that were used since those before them were gathered.
    gathered: BTreeSet<SessionKey>,
    /// Sessions that are being told.
    told: BTreeSet<SessionKey>,
    /// Time at which those that were gathered are told.
    tell_at: Mono,
    sessions_max: usize,
}

impl Uses {
    pub(super) fn new(now: Mono, sessions_max: usize) -> Self {
        let (gathered, told) = (BTreeSet::new(), BTreeSet::new());
        Self { gathered, told, tell_at: now + USE_INTERVAL, sessions_max }
    }

    /// Adds a use, unless there is no room: then the session's next one may find some.
    pub(super) fn add(&mut self, key: SessionKey) {
        if self.gathered.len() < self.sessions_max {
            self.gathered.insert(key);
        }
    }

    pub(super) fn forget(&mut self, key: &SessionKey) {
        self.gathered.remove(key);
        self.told.remove(key);
    }

    /// Takes the sessions of the next statement; none while it is not time.
    pub(super) fn take(&mut self, now: Mono) -> Vec<SessionKey> {
        let is_time = now >= self.tell_at || self.gathered.len() >= self.sessions_max;
        if is_time && self.told.is_empty() {
            self.tell_at = now + USE_INTERVAL;
            self.told = std::mem::take(&mut self.gathered);
        }
        std::iter::from_fn(|| self.told.pop_first()).take(USES_MAX).collect()
    }

    /// Puts the sessions of a statement that failed back, for the next one.
    pub(super) fn put_back(&mut self, keys: Vec<SessionKey>) {
        let room = self.sessions_max.saturating_sub(self.told.len());
        self.told.extend(keys.into_iter().take(room));
    }

    /// Takes all sessions that wait, in statements, whether it is time or not.
    pub(super) fn take_all(&mut self) -> Vec<Vec<SessionKey>> {
        let mut keys = std::mem::take(&mut self.told);
        keys.append(&mut self.gathered);
        let keys: Vec<_> = keys.into_iter().collect();
        keys.chunks(USES_MAX).map(<[_]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Presence, *};

    /// Interval of touches, s.
    const INTERVAL: u64 = 5;

    fn at(s: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(s)
    }

    fn key(n: u16) -> SessionKey {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        SessionKey(key)
    }

    fn presence(sessions_max: usize) -> Presence {
        Presence::new(at(0), Duration::from_secs(INTERVAL), Duration::ZERO, sessions_max)
    }

    /// Takes what is due at the end of an interval, and lets the store take the touch at once. Returns
    /// the sessions that are touched, and those that are told to be in use.
    fn due(presence: &mut Presence, now: Mono) -> (Vec<SessionKey>, Vec<SessionKey>) {
        let due = presence.due(now);
        let touched = due.touch.expect("the store is touched every interval");
        presence.on_touched(now, &touched, Some(77));
        (touched, due.used)
    }

    #[test]
    fn sessions_that_only_ask_are_told_once_an_hour_and_are_not_touched() {
        let mut presence = presence(8);
        let hour = USE_INTERVAL.as_secs();
        presence.on_stream_opened(at(0), key(1));
        due(&mut presence, at(0));
        for s in (INTERVAL..hour).step_by(5) {
            for n in [1, 2, 3] {
                presence.on_used(key(n));
            }
            assert_eq!(due(&mut presence, at(s)).1, [], "at {s} s");
        }
        presence.forget(&key(3));
        // The first one has a stream, by which it is touched while it is active.
        assert_eq!(due(&mut presence, at(hour)), (vec![], vec![key(2)]));
        presence.on_used(key(2));
        for s in [hour + INTERVAL, 2 * hour - INTERVAL] {
            assert_eq!(due(&mut presence, at(s)).1, [], "at {s} s");
        }
        assert_eq!(due(&mut presence, at(2 * hour)).1, [key(2)]);
        assert_eq!(due(&mut presence, at(3 * hour)).1, [], "it was not used any more");
    }

    #[test]
    fn many_uses_go_in_bounded_statements_and_each_session_has_its_turn() {
        let mut presence = presence(600);
        // There is room for 600: they are told at once, before the hour is over.
        for n in 0..700 {
            presence.on_used(key(n));
        }
        let mut told = Vec::new();
        for (s, count) in [(0, USES_MAX), (5, USES_MAX), (10, 600 - 2 * USES_MAX), (15, 0)] {
            let (touched, used) = due(&mut presence, at(s));
            assert_eq!((touched, used.len()), (vec![], count), "at {s} s");
            told.extend(used);
            // The first ones go on, and wait for the next time.
            for n in 0..300 {
                presence.on_used(key(n));
            }
        }
        assert_eq!(told, (0..600).map(key).collect::<Vec<_>>());
    }

    #[test]
    fn uses_wait_for_the_touch_that_is_on_its_way() {
        let mut presence = presence(1);
        let first = presence.due(at(0));
        presence.on_used(key(1));
        assert_eq!(presence.due(at(INTERVAL)).used, []);
        presence.on_touched(at(6), &first.touch.expect("a touch"), Some(77));
        assert_eq!(presence.due(at(6)).used, [key(1)]);
    }

    #[test]
    fn uses_that_were_not_heard_are_told_with_the_next_touch_as_far_as_there_is_room() {
        let mut presence = presence(300);
        for n in 0..300 {
            presence.on_used(key(n));
        }
        let (_, first) = due(&mut presence, at(0));
        assert_eq!(first.len(), USES_MAX);
        presence.on_uses_failed(first);
        let (_, again) = due(&mut presence, at(INTERVAL));
        assert_eq!(again, (0..256).map(key).collect::<Vec<_>>());
        // Others wait by now.
        for n in 300..600 {
            presence.on_used(key(n));
        }
        assert_eq!(due(&mut presence, at(10)).1.len(), 44);
        let (_, third) = due(&mut presence, at(15));
        assert_eq!(third.len(), USES_MAX);
        for failed in [third, again] {
            presence.on_uses_failed(failed);
        }
        let left: usize = presence.take_uses().iter().map(Vec::len).sum();
        assert_eq!(left, 300);
    }

    #[test]
    fn uses_that_wait_when_a_master_ends_are_taken_in_bounded_statements() {
        let mut presence = presence(600);
        for n in 0..600 {
            presence.on_used(key(n));
        }
        // The first statement is on its way.
        assert_eq!(due(&mut presence, at(0)).1.len(), USES_MAX);
        presence.on_used(key(0));
        let pages = presence.take_uses();
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [USES_MAX, 345 - USES_MAX]);
        let all = pages.concat();
        assert_eq!(all[..2], [key(0), key(256)]);
        assert!(presence.take_uses().is_empty());
    }
}
