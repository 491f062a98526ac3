//! Dead letters on their way to the store: each is written again until the store has answered.
//!
//! 1. One write is under way at a time, in the order of the letters.
//! 2. A letter is lost only if the store refuses it for good, or if more than [`LETTERS_MAX`] wait.

use std::{collections::VecDeque, time::Duration};

use crate::model::{
    rows::{DeadLetter, StoreError},
    time::Mono,
};

/// The most letters that wait; above it the oldest that is not being written is dropped.
pub const LETTERS_MAX: usize = 1000;
/// Pause before a write that the store did not take is repeated.
pub const RETRY: Duration = Duration::from_secs(1);

/// Queue of the letters that are not in the store yet.
#[derive(Debug, Default)]
pub struct DeadLetters {
    waiting: VecDeque<DeadLetter>,
    is_writing: bool,
    /// Time of the next write; `None` for at once.
    again_at: Option<Mono>,
}

impl DeadLetters {
    /// Adds a letter. Returns the one that is dropped for it, if there is no room.
    pub fn push(&mut self, letter: DeadLetter) -> Option<DeadLetter> {
        let oldest = usize::from(self.is_writing);
        let dropped =
            if self.waiting.len() < LETTERS_MAX { None } else { self.waiting.remove(oldest) };
        self.waiting.push_back(letter);
        dropped
    }

    /// Returns the letter that is to be written now. Answer with
    /// [`on_written`](Self::on_written).
    #[must_use]
    pub fn due(&mut self, now: Mono) -> Option<DeadLetter> {
        if self.is_writing || self.again_at.is_some_and(|at| now < at) {
            return None;
        }
        let letter = self.waiting.front()?.clone();
        self.is_writing = true;
        Some(letter)
    }

    /// Ends a write. Returns the letter if the store refused it for good.
    pub fn on_written(&mut self, now: Mono, answer: &Result<(), StoreError>) -> Option<DeadLetter> {
        self.is_writing = false;
        self.again_at = None;
        match answer {
            Err(StoreError::Away { .. } | StoreError::Busy) => {
                self.again_at = Some(now + RETRY);
                None
            }
            Ok(()) => {
                self.waiting.pop_front();
                None
            }
            Err(_) => self.waiting.pop_front(),
        }
    }

    /// Removes and returns all letters.
    pub fn take(&mut self) -> impl Iterator<Item = DeadLetter> + use<> {
        std::mem::take(&mut self.waiting).into_iter()
    }

    /// Returns the time of the next write; `None` while none is to come.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        (!self.is_writing && !self.waiting.is_empty()).then(|| self.again_at.unwrap_or(Mono::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        absence::AwayReason,
        ids::{BoardName, Resource},
    };

    fn letter(number: u64) -> DeadLetter {
        let resource = Resource::Board(BoardName::lobby());
        DeadLetter { number, resource, post: None, why: String::new(), at_ms: 0 }
    }

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    fn due(letters: &mut DeadLetters, ms: u64) -> Option<u64> {
        letters.due(at(ms)).map(|letter| letter.number)
    }

    const AWAY: &str = "no answer";

    #[test]
    fn letter_is_written_again_until_the_store_answers() {
        let away = Err(StoreError::away(AwayReason::NoAnswer, AWAY));
        let mut letters = DeadLetters::default();
        assert_eq!(letters.next_deadline(), None);
        letters.push(letter(1));
        letters.push(letter(2));
        for ms in [0, 1000, 2000] {
            assert_eq!(letters.next_deadline(), Some(at(ms)));
            assert_eq!((due(&mut letters, ms), due(&mut letters, ms)), (Some(1), None));
            assert_eq!(letters.next_deadline(), None);
            assert_eq!(letters.on_written(at(ms), &away), None);
            assert_eq!(due(&mut letters, ms + 999), None);
        }
        assert_eq!(due(&mut letters, 3000), Some(1));
        assert_eq!(letters.on_written(at(3000), &Ok(())), None);
        assert_eq!(due(&mut letters, 3000), Some(2));
    }

    #[test]
    fn letter_that_found_the_stores_queue_full_is_written_again() {
        let mut letters = DeadLetters::default();
        letters.push(letter(1));
        assert_eq!(due(&mut letters, 0), Some(1));
        assert_eq!(letters.on_written(at(0), &Err(StoreError::Busy)), None);
        assert_eq!((due(&mut letters, 999), due(&mut letters, 1000)), (None, Some(1)));
    }

    #[test]
    fn letter_that_is_refused_for_good_makes_way_for_the_next() {
        let mut letters = DeadLetters::default();
        letters.push(letter(1));
        letters.push(letter(2));
        assert_eq!(due(&mut letters, 0), Some(1));
        assert_eq!(letters.on_written(at(0), &Err(StoreError::Stale)), Some(letter(1)));
        assert_eq!(due(&mut letters, 0), Some(2));
    }

    #[test]
    fn full_queue_drops_the_oldest_that_is_not_being_written() {
        let mut letters = DeadLetters::default();
        for number in 0..LETTERS_MAX as u64 {
            assert_eq!(letters.push(letter(number)), None);
        }
        assert_eq!(due(&mut letters, 0), Some(0));
        assert_eq!(letters.push(letter(7777)), Some(letter(1)));
        assert_eq!(letters.take().count(), LETTERS_MAX);
    }
}
