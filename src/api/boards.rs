//! Boards and read marks.

use serde::{Deserialize, Serialize};

use crate::model::{
    ids::{BoardName, Seq, StoreEpoch},
    rows::{Boards, SessionRow},
    stream::Consistency,
};

/// A board as one session sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// Its name.
    pub name: BoardName,
    /// Place of its last post; 0 when it is empty.
    pub last_seq: Seq,
    /// Place up to which the session has read; 0 at first.
    pub read_mark: Seq,
}

/// Returns all boards with the read marks of a session, 0 where it has none.
#[must_use]
pub fn boards_of(boards: &Boards, session: Option<&SessionRow>) -> Vec<Board> {
    let mark = |name: &BoardName| {
        let marks = session.map_or(&[][..], |session| &session.read_marks);
        marks.iter().find(|(board, _)| board == name).map_or(Seq(0), |(_, seq)| *seq)
    };
    let board = |(name, last_seq): &(BoardName, Seq)| Board {
        name: name.clone(),
        last_seq: *last_seq,
        read_mark: mark(name),
    };
    boards.boards.iter().map(board).collect()
}

/// Answer of `GET /api/v1/boards`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardList {
    /// All boards, in the order of names.
    pub boards: Vec<Board>,
    /// The store's epoch.
    pub epoch: StoreEpoch,
    /// How much the answer may be trusted.
    pub consistency: Consistency,
    /// Store time up to which the answer is complete.
    pub as_of: u64,
}

/// Body of `PUT /api/v1/boards/{board}/read-mark`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ReadMark {
    /// Place up to which the session has read; at most the board's last.
    pub seq: Seq,
}
