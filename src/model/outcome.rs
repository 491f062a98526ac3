//! Result of a task in the store, and outcome of a write for the person who waits.

use serde::{Deserialize, Serialize};

use crate::model::{
    ids::{Post, Seq},
    rows::{SessionRow, StoreError},
};

/// Outcome of a person's write. The same value travels from the protocol to the front end, and
/// between masters inside an answer to a forwarded task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The store decided.
    Settled(TaskResult),
    /// A queue is full; nothing was done.
    Overloaded {
        /// Time after which another try makes sense.
        retry_ms: u64,
    },
    /// No store or no worker can be reached; nothing was done.
    Unavailable {
        /// Time after which another try makes sense.
        retry_ms: u64,
    },
    /// Every attempt failed; the task is kept as a dead letter.
    DeadLetter,
    /// No outcome in the time allowed; the write may still be committed.
    Unknown,
    /// The post is on the disks of so many workers, which have it written when the store is back.
    Pending {
        /// Number of disks, at least 1.
        copies: u32,
    },
}

/// Outcome of one task of a batch that the store accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskResult {
    /// The post is in its board by this write.
    Committed {
        /// Its place in the board.
        seq: Seq,
        /// Store time of the commit, ms since the Unix epoch.
        posted_at_ms: u64,
    },
    /// The post was in its board already.
    Duplicate {
        /// Its place in the board.
        seq: Seq,
        /// Store time of the first commit, ms since the Unix epoch.
        posted_at_ms: u64,
    },
    /// The post's id stands for another text or board; nothing changed.
    Conflict,
    /// The post never appears: this task cancelled it, or it is a post that was cancelled before.
    Cancelled,
    /// The post that was to be cancelled is in its board.
    AlreadyCommitted(Box<Post>),
    /// The ticket is spent for this session.
    Session(Box<SessionRow>),
    /// Any other task is done.
    Done,
    /// A rule of the store refused the task ([`StoreError::Unknown`] or [`StoreError::Refused`]);
    /// the other tasks of its batch stand.
    Refused(Box<StoreError>),
}
