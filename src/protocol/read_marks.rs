//! Read marks that are gathered for a moment, so that many of them share one transaction of the store.
//!
//! ```text
//!   add ──► gathered ──due──► written by one task for each session and board ──► answered
//!              ▲                                        │
//!              └────────── lower marks of a refused one ┘
//! ```
//!
//! 1. A mark is answered by a write that began after it came: what was answered is in the store.
//! 2. Marks of one session in one board become one task with the highest of them.
//! 3. A refusal counts for the marks that asked for that place; lower ones are written again.
//! 4. At most [`WAITING_MAX`] wait; more are refused.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    model::{
        ids::{BoardName, Seq, SessionKey},
        time::Mono,
    },
    protocol::reads::{TooMany, WAITING_MAX},
};

/// Time for which marks are gathered: pages set one every 2 s, and an answer is to come within 1 s.
pub const GATHER_FOR: Duration = Duration::from_millis(200);

/// Marks of one session in one board, with those who wait for them.
#[derive(Debug, PartialEq, Eq)]
pub struct Gathered<W> {
    /// Session that read.
    pub key: SessionKey,
    /// Board that was read.
    pub board: BoardName,
    /// Highest place of all.
    pub seq: Seq,
    waiters: Vec<(Seq, W)>,
}

impl<W> Gathered<W> {
    /// Returns all who wait.
    pub fn into_waiters(self) -> impl Iterator<Item = W> {
        self.waiters.into_iter().map(|(_, waiter)| waiter)
    }

    /// Removes and returns the waiters for lower places than the one that was refused.
    pub fn take_lower(&mut self) -> Vec<(Seq, W)> {
        self.waiters.extract_if(.., |(seq, _)| *seq < self.seq).collect()
    }
}

/// Table of gathered marks, generic over what waits.
#[derive(Debug)]
pub struct ReadMarks<W> {
    places: BTreeMap<(SessionKey, BoardName), Vec<(Seq, W)>>,
    waiting: usize,
    due_at: Option<Mono>,
}

impl<W> Default for ReadMarks<W> {
    fn default() -> Self {
        Self { places: BTreeMap::new(), waiting: 0, due_at: None }
    }
}

impl<W> ReadMarks<W> {
    /// Adds a mark and what waits for it.
    ///
    /// # Errors
    /// [`TooMany`] wait already; the waiter comes back.
    pub fn add(
        &mut self,
        now: Mono,
        key: SessionKey,
        board: BoardName,
        seq: Seq,
        waiter: W,
    ) -> Result<(), TooMany<W>> {
        if self.waiting >= WAITING_MAX {
            return Err(TooMany(waiter));
        }
        self.waiting += 1;
        self.due_at.get_or_insert(now + GATHER_FOR);
        self.places.entry((key, board)).or_default().push((seq, waiter));
        Ok(())
    }

    /// Removes and returns all marks, if it is time to write them.
    pub fn due(&mut self, now: Mono) -> Vec<Gathered<W>> {
        if self.due_at.is_some_and(|at| now >= at) { self.take() } else { Vec::new() }
    }

    /// Removes and returns all marks.
    pub fn take(&mut self) -> Vec<Gathered<W>> {
        self.due_at = None;
        self.waiting = 0;
        let gathered = |((key, board), waiters): ((SessionKey, BoardName), Vec<(Seq, W)>)| {
            let seq = waiters.iter().map(|(seq, _)| *seq).max().unwrap_or_default();
            Gathered { key, board, seq, waiters }
        };
        std::mem::take(&mut self.places).into_iter().map(gathered).collect()
    }

    /// Whether no mark waits to be written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Returns the time at which marks are to be written.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Mono> {
        self.due_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    fn key(n: u8) -> SessionKey {
        SessionKey([n; 32])
    }

    fn add(marks: &mut ReadMarks<u64>, ms: u64, n: u8, board: &str, seq: u64) {
        let board = board.parse().expect("a name");
        marks.add(at(ms), key(n), board, Seq(seq), seq).expect("room");
    }

    #[test]
    fn marks_of_one_session_and_board_become_one_task() {
        let mut marks = ReadMarks::default();
        for (ms, seq) in [(0, 3), (50, 9), (150, 5)] {
            add(&mut marks, ms, 1, "lobby", seq);
        }
        add(&mut marks, 10, 1, "dev", 2);
        add(&mut marks, 10, 2, "lobby", 4);
        assert_eq!((marks.next_deadline(), marks.due(at(199))), (Some(at(200)), vec![]));
        let due: Vec<_> = marks
            .due(at(200))
            .into_iter()
            .map(|mark| (mark.key, mark.board.to_string(), mark.seq, mark.into_waiters().collect()))
            .collect();
        let expected = [
            (key(1), "dev".to_owned(), Seq(2), vec![2]),
            (key(1), "lobby".to_owned(), Seq(9), vec![3, 9, 5]),
            (key(2), "lobby".to_owned(), Seq(4), vec![4]),
        ];
        assert_eq!(due, expected);
        assert_eq!((marks.next_deadline(), marks.due(at(500))), (None, vec![]));
    }

    #[test]
    fn refusal_counts_for_the_highest_place_only() {
        let mut marks = ReadMarks::default();
        for seq in [3, 9, 9, 5] {
            add(&mut marks, 0, 1, "lobby", seq);
        }
        let mut mark = marks.take().pop().expect("one place");
        assert_eq!(mark.take_lower(), [(Seq(3), 3), (Seq(5), 5)]);
        assert_eq!(mark.into_waiters().collect::<Vec<_>>(), [9, 9]);
    }

    #[test]
    fn too_many_marks_are_refused_until_some_are_written() {
        let mut marks = ReadMarks::default();
        for seq in 0..WAITING_MAX as u64 {
            add(&mut marks, 0, 1, "lobby", seq);
        }
        let refused = marks.add(at(0), key(2), BoardName::lobby(), Seq(1), 7);
        assert_eq!(refused, Err(TooMany(7)));
        assert_eq!(marks.due(at(200)).len(), 1);
        add(&mut marks, 300, 2, "lobby", 1);
    }
}
