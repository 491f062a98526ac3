//! Outcome of a write, from the master that decided it to the person who waits.

use serde::{Deserialize, Serialize};

use crate::model::message::TaskResult;

/// Outcome of a person's write. The same value travels from the protocol to the front end, and
/// between masters inside a [`ForwardReply`](crate::model::message::ForwardReply).
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
}
