//! Posts that a worker holds until the store is back, and when each is handed in to its master.
//!
//! 1. Nothing is handed in while the master is not strong.
//! 2. At most [`HAND_INS_MAX`] posts are handed in at a time, in turn: one that could not be written goes
//!    behind all others, and waits for half a second. All others wait with it if the master did not answer,
//!    or has put off many in a row: where nothing is written at all, it is not to be asked often.
//! 3. A post stays until its master says that it ended. One that became a dead letter waits for the
//!    next registration.
//! 4. The age of a post grows by the monotonic clock from when this life first heard of it: a wall
//!    clock that is set meanwhile makes no post old.

use std::{collections::BTreeMap, time::Duration};

use crate::model::{
    bounds::{HAND_INS_MAX, HELD_MAX},
    held::{HandInReply, HeldKey},
    ids::{PostId, UserId},
    time::Mono,
};

/// Pause after a post that could not be written.
const PAUSE: Duration = Duration::from_millis(500);
/// Posts that are put off in a row before all others wait too: posts of a board that cannot be written are
/// put off at once, before those of others that were handed in with them are written.
const PUT_OFF_MAX: usize = 4 * HAND_INS_MAX;

/// State of one post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waits,
    InFlight,
    DeadLetter,
}

/// Post on the disk.
#[derive(Clone, Copy, Debug)]
struct Held {
    state: State,
    /// Time at which this life first heard of it, and its age then.
    known: (Mono, Duration),
}

/// Posts on this worker's disk.
#[derive(Clone, Debug, Default)]
pub struct HandIn {
    posts: BTreeMap<HeldKey, Held>,
    /// Posts in [`State::Waits`], each with the end of its own pause, in turn.
    waiting: BTreeMap<(Mono, u64), HeldKey>,
    /// Number of the next turn.
    turn: u64,
    in_flight: usize,
    is_strong: bool,
    /// Posts that were put off since one ended.
    put_off: usize,
    /// End of the pause of all posts.
    not_before: Mono,
}

impl HandIn {
    /// Returns the number of posts on the disk.
    #[must_use]
    pub fn len(&self) -> usize {
        self.posts.len()
    }

    /// Returns whether no post is on the disk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.posts.is_empty()
    }

    /// Returns whether the worker may take a post: it has room, or holds the post already.
    #[must_use]
    pub fn has_room(&self, key: &HeldKey) -> bool {
        self.posts.len() < HELD_MAX || self.posts.contains_key(key)
    }

    /// Returns the posts on the disk.
    pub fn keys(&self) -> impl Iterator<Item = HeldKey> {
        self.posts.keys().copied()
    }

    /// Returns the ids of a person's posts.
    pub fn of(&self, user: UserId) -> impl Iterator<Item = PostId> {
        let (first, last) = (PostId([0; 16]), PostId([255; 16]));
        let range = HeldKey { user, id: first }..=HeldKey { user, id: last };
        self.posts.range(range).map(|(key, _)| key.id)
    }

    /// Returns for how long a post has been held, here and elsewhere; zero for one that is not on the disk.
    #[must_use]
    pub fn age(&self, now: Mono, key: &HeldKey) -> Duration {
        self.posts.get(key).map_or(Duration::ZERO, |post| {
            let (at, age) = post.known;
            age.saturating_add(now.since(at))
        })
    }

    /// Takes a post that is on the disk now, and its age: one that was known keeps its own. A dead letter
    /// that its author sent once more is handed in once more.
    pub fn on_held(&mut self, now: Mono, key: HeldKey, age: Duration) {
        let post = Held { state: State::DeadLetter, known: (now, age) };
        if self.posts.entry(key).or_insert(post).state == State::DeadLetter {
            self.wait(key, Mono::ZERO);
        }
    }

    /// Takes the beat of the master: whether it, or one that it knows, can have posts written.
    pub fn on_beat(&mut self, is_strong: bool) {
        self.is_strong = is_strong;
    }

    /// Begins a registration: dead letters are handed in again. The master has not said yet that it
    /// is strong.
    pub fn on_registered(&mut self) {
        self.is_strong = false;
        let is_letter = |(_, post): &(&HeldKey, &Held)| post.state == State::DeadLetter;
        let letters: Vec<_> = self.posts.iter().filter(is_letter).map(|(key, _)| *key).collect();
        for key in letters {
            self.wait(key, Mono::ZERO);
        }
    }

    /// Returns the next post to hand in, if it is time for one. It is in flight from now on.
    pub fn next(&mut self, now: Mono) -> Option<HeldKey> {
        if self.next_deadline().is_none_or(|at| at > now) {
            return None;
        }
        let (_, key) = self.waiting.pop_first()?;
        self.set(&key, State::InFlight);
        self.in_flight += 1;
        Some(key)
    }

    /// Returns when [`HandIn::next`] has a post, as far as is known.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let ((due, _), _) = self.waiting.first_key_value()?;
        let may = self.is_strong && self.in_flight < HAND_INS_MAX;
        may.then_some(self.not_before.max(*due))
    }

    /// Takes the master's answer about a post in flight; `None` if there was none. Returns whether the
    /// post is to be deleted.
    pub fn on_answer(&mut self, now: Mono, key: HeldKey, answer: Option<HandInReply>) -> bool {
        if !self.is_in_flight(&key) {
            return false;
        }
        if matches!(answer, Some(HandInReply::Ended | HandInReply::DeadLetter)) {
            self.put_off = 0;
        }
        self.in_flight -= 1;
        match answer {
            Some(HandInReply::Ended) => {
                self.posts.remove(&key);
                return true;
            }
            Some(HandInReply::DeadLetter) => self.set(&key, State::DeadLetter),
            Some(HandInReply::Later) | None => {
                self.put_off += usize::from(answer.is_some());
                if answer.is_none() || self.put_off >= PUT_OFF_MAX {
                    self.not_before = now + PAUSE;
                }
                self.wait(key, now + PAUSE);
            }
        }
        false
    }

    /// Forgets a post in flight that is not on the disk any more.
    pub fn on_lost(&mut self, key: HeldKey) {
        if self.is_in_flight(&key) {
            self.in_flight -= 1;
            self.posts.remove(&key);
        }
    }

    /// Gives a post its turn behind all that wait until the same time.
    fn wait(&mut self, key: HeldKey, not_before: Mono) {
        self.set(&key, State::Waits);
        self.waiting.insert((not_before, self.turn), key);
        self.turn += 1;
    }

    fn is_in_flight(&self, key: &HeldKey) -> bool {
        self.posts.get(key).is_some_and(|post| post.state == State::InFlight)
    }

    fn set(&mut self, key: &HeldKey, state: State) {
        if let Some(post) = self.posts.get_mut(key) {
            post.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> HeldKey {
        HeldKey { user: UserId([n / 16; 16]), id: PostId([n; 16]) }
    }

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    fn holding(posts: u8) -> HandIn {
        let mut held = HandIn::default();
        (0..posts).for_each(|n| held.on_held(at(0), key(n), Duration::ZERO));
        held
    }

    fn all_due(held: &mut HandIn, now: Mono) -> Vec<HeldKey> {
        std::iter::from_fn(|| held.next(now)).collect()
    }

    #[test]
    fn posts_are_handed_in_to_a_strong_master_alone_and_some_at_a_time() {
        let mut held = holding(40);
        assert_eq!(held.next(at(0)), None, "nothing is known of the master");
        held.on_beat(true);
        assert_eq!(all_due(&mut held, at(0)).len(), HAND_INS_MAX);
        assert!(held.on_answer(at(1), key(0), Some(HandInReply::Ended)));
        assert!(!held.on_answer(at(1), key(0), Some(HandInReply::Ended)), "it is gone");
        assert_eq!(all_due(&mut held, at(1)), [key(32)]);
        held.on_beat(false);
        assert!(held.on_answer(at(2), key(1), Some(HandInReply::Ended)));
        assert_eq!(held.next(at(2)), None);
        assert_eq!(held.len(), 38);
    }

    #[test]
    fn post_that_could_not_be_written_waits_behind_the_others() {
        let mut held = holding(3);
        held.on_beat(true);
        assert_eq!(all_due(&mut held, at(0)), [key(0), key(1), key(2)]);
        for (n, answer) in [(0, None), (1, Some(HandInReply::Later))] {
            assert!(!held.on_answer(at(10), key(n), answer));
        }
        assert_eq!(held.next(at(509)), None);
        assert_eq!(held.next_deadline(), Some(at(510)));
        assert_eq!(all_due(&mut held, at(510)), [key(0), key(1)]);
        held.on_lost(key(0));
        assert_eq!(held.len(), 2);
    }

    #[test]
    fn post_that_is_put_off_holds_up_no_other() {
        let mut held = holding(200);
        held.on_beat(true);
        // Of two boards, one of which cannot be written; what is put off is said at once.
        let is_good = |key: &HeldKey| key.id.0[0].is_multiple_of(2);
        let mut written = Vec::new();
        while written.len() < 100 {
            let keys = all_due(&mut held, at(10));
            assert!(!keys.is_empty(), "{} are written", written.len());
            let (good, bad): (Vec<_>, Vec<_>) = keys.into_iter().partition(is_good);
            for key in bad {
                assert!(!held.on_answer(at(10), key, Some(HandInReply::Later)));
            }
            for key in good {
                assert!(held.on_answer(at(10), key, Some(HandInReply::Ended)));
                written.push(key);
            }
        }
        assert_eq!(held.len(), 100);
        assert_eq!((held.next(at(509)), held.next_deadline()), (None, Some(at(510))));
        held.on_held(at(509), key(250), Duration::ZERO);
        assert_eq!(held.next(at(509)), Some(key(250)), "a new one does not wait for them");
    }

    #[test]
    fn all_wait_where_nothing_is_written_and_where_nothing_is_answered() {
        let mut held = holding(200);
        held.on_beat(true);
        let (mut asked, mut put_off) = (all_due(&mut held, at(0)), 0);
        while let Some(key) = asked.pop() {
            assert!(!held.on_answer(at(1), key, Some(HandInReply::Later)));
            put_off += 1;
            asked.extend(all_due(&mut held, at(1)));
        }
        assert_eq!(put_off, PUT_OFF_MAX + HAND_INS_MAX - 1, "those in flight were asked before");
        assert_eq!(all_due(&mut held, at(501)).len(), HAND_INS_MAX);

        let mut held = holding(40);
        held.on_beat(true);
        let asked = all_due(&mut held, at(0));
        assert!(!held.on_answer(at(1), asked[0], None));
        assert_eq!((held.next(at(500)), held.next_deadline()), (None, Some(at(501))));
        assert_eq!(all_due(&mut held, at(501)), [key(32)]);
    }

    #[test]
    fn dead_letter_is_handed_in_again_after_the_next_registration() {
        let mut held = holding(1);
        held.on_beat(true);
        assert_eq!(held.next(at(0)), Some(key(0)));
        assert!(!held.on_answer(at(1), key(0), Some(HandInReply::DeadLetter)));
        assert_eq!(held.next(at(9000)), None);
        held.on_held(at(9000), key(0), Duration::ZERO);
        assert_eq!(held.next(at(9000)), Some(key(0)), "its author sent it again");
        assert!(!held.on_answer(at(9000), key(0), Some(HandInReply::DeadLetter)));
        held.on_registered();
        assert_eq!(held.next(at(9000)), None, "the new master has not said anything");
        held.on_beat(true);
        assert_eq!(held.next(at(9000)), Some(key(0)));
    }

    #[test]
    fn age_goes_on_from_what_it_was_when_the_post_was_first_heard_of() {
        let (mut held, hour) = (HandIn::default(), Duration::from_secs(3600));
        held.on_held(at(1000), key(1), hour);
        assert_eq!(held.age(at(1000), &key(1)), hour);
        // Found on the disk by a clock that was set meanwhile, or handed over by another holder.
        for other in [Duration::ZERO, 30 * hour] {
            held.on_held(at(2000), key(1), other);
            assert_eq!(held.age(at(3000), &key(1)), hour + Duration::from_secs(2));
        }
        held.on_beat(true);
        assert_eq!(held.next(at(3000)), Some(key(1)));
        assert!(!held.on_answer(at(3000), key(1), Some(HandInReply::DeadLetter)));
        held.on_held(at(4000), key(1), Duration::ZERO);
        assert_eq!(held.age(at(5000), &key(1)), hour + Duration::from_secs(4));
        assert_eq!(held.next(at(5000)), Some(key(1)));
        held.on_lost(key(1));
        assert_eq!(held.age(at(5000), &key(1)), Duration::ZERO);
    }

    #[test]
    fn posts_of_one_person_are_found_and_room_is_bounded() {
        let mut held = holding(40);
        let ids: Vec<_> = held.of(UserId([1; 16])).collect();
        assert_eq!(ids, (16..32).map(|n| PostId([n; 16])).collect::<Vec<_>>());
        for n in 0..HELD_MAX as u64 {
            let mut id = [7; 16];
            id[..8].copy_from_slice(&n.to_le_bytes());
            let key = HeldKey { user: UserId([9; 16]), id: PostId(id) };
            if held.has_room(&key) {
                held.on_held(at(0), key, Duration::ZERO);
            }
        }
        assert_eq!(held.len(), HELD_MAX);
        assert!(held.has_room(&key(1)), "it is held already");
        assert!(!held.has_room(&key(250)));
    }
}
