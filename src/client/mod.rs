//! The chat client: what a person's machine does, over HTTP and over [`Env`](crate::env::Env).
//!
//! [`Api`] makes one call to one master and says how it ended. [`ChatClient`] behaves as the page
//! does: it knows all masters, moves on when one dies, sends a post again under the same id until
//! it is settled, and follows boards across masters. A [`Observer`] may look on.
//!
//! 1. Every wait has a bound, every answer a largest size.
//! 2. [`Failure`] says whether anything was done; only [`Failure::Unknown`] leaves that open.
//! 3. A client has at most one unsettled post per board, and posts stand in the order it wrote.
//! 4. What a stream delivers is gapless from its cursor on, or a reset says otherwise first.

use std::time::Duration;

pub use hyper::Method;
use thiserror::Error;

use crate::api::Problem;

mod api;
mod chat;
mod exchange;
mod follow;
mod master_list;
mod request;
mod sse;
mod stream;
#[cfg(test)]
mod tests;

pub use api::Api;
pub use chat::{ChatClient, NoObserver, Observer, Unsettled};
pub use exchange::RawAnswer;
pub use follow::{Follow, FollowEvent};
pub use master_list::MasterList;
pub use request::{Answer, Request};
pub use stream::{Delivery, EventStream, StreamEnd};

/// How long a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a connection.
    pub connect: Duration,
    /// For the answer to what only reads.
    pub read: Duration,
    /// For the answer to what writes; above the masters' `request_timeout`.
    pub write: Duration,
    /// Between two tries, at most.
    pub backoff_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { connect: ms(1500), read: ms(5000), write: ms(12_000), backoff_max: ms(2000) }
    }
}

/// Why a call has no good answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// The master said no, and will again: nothing was done.
    #[error("refused ({status}): {problem}")]
    Refused {
        /// The HTTP status, 4xx.
        status: u16,
        /// What it said.
        problem: Problem,
    },
    /// Not now (429, 503): nothing was done.
    #[error("the master cannot do it now ({status}): {problem}")]
    Busy {
        /// The HTTP status.
        status: u16,
        /// What it said.
        problem: Problem,
        /// When to try again; `None` when it did not say.
        retry_after: Option<Duration>,
    },
    /// The request never left: nothing was done.
    #[error("{master} cannot be reached: {why}")]
    Unreached {
        /// Which master.
        master: String,
        /// What was seen.
        why: String,
    },
    /// It may have been done, or may still be.
    #[error("the outcome is unknown: {why}")]
    Unknown {
        /// The HTTP status, when there was an answer.
        status: Option<u16>,
        /// What was seen.
        why: String,
    },
}

impl Failure {
    /// Whether it is certain that the call did nothing.
    #[must_use]
    pub const fn did_nothing(&self) -> bool {
        !matches!(self, Self::Unknown { .. })
    }

    /// Whether another master may do better: this one did not answer at all.
    #[must_use]
    pub const fn is_silence(&self) -> bool {
        matches!(self, Self::Unreached { .. } | Self::Unknown { status: None, .. })
    }

    /// The HTTP status, when there was an answer.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Busy { status, .. } => Some(*status),
            Self::Unknown { status, .. } => *status,
            Self::Unreached { .. } => None,
        }
    }
}
