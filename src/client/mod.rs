//! Chat client over HTTP, running on [`Env`](crate::env::Env) and so in simulation too.
//!
//! [`Api`] makes one call to one master and says how it ended. [`ChatClient`] behaves as the page
//! does: it knows all masters, moves on when one dies, sends a post again under the same id until
//! it is settled, and follows boards across masters. An [`Observer`] sees every
//! call and every stream.
//!
//! 1. Every wait has a bound, every answer a largest size.
//! 2. [`Failure`] says whether anything was done; only [`Failure::Unknown`] leaves that open.
//! 3. A client has at most one unsettled post per board, and posts stand in the order it wrote.
//! 4. A master at `https://` is asked only if a [`Trust`] believes it; nothing is sent to another.
//! 5. What a stream delivers is gapless from its cursor on, or a reset says otherwise first.
//!
//! `examples/post_and_follow.rs` is a whole program. In short:
//!
//! ```no_run
//! # async fn example(env: chatchat::env::Env) -> Result<(), Box<dyn std::error::Error>> {
//! use std::{sync::Arc, time::Duration};
//!
//! use chatchat::{
//!     client::{ChatClient, Limits, MasterList, NoObserver},
//!     model::ids::BoardName,
//! };
//!
//! let masters = MasterList::new(&["http://127.0.0.1:8080".to_owned()], 0).ok_or("no master")?;
//! let client = ChatClient::new(&env, masters, None, Limits::default(), Arc::new(NoObserver));
//! client.open_session("Ann".parse()?, Duration::from_secs(10)).await?;
//! let post = client.send(&BoardName::lobby(), client.new_post_id(), "hello".parse()?).await?;
//! println!("number {}", post.seq);
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

pub use hyper::Method;
use thiserror::Error;

use crate::api::Problem;

mod api;
mod chat;
mod exchange;
mod follow;
mod master_list;
mod people;
mod request;
mod sse;
mod stream;
#[cfg(test)]
mod tests;
mod trust;

pub use api::Api;
pub use chat::{ChatClient, NoObserver, Observer, Unsettled};
pub use exchange::RawAnswer;
pub use follow::{Follow, FollowEvent};
pub use master_list::MasterList;
pub use people::PeopleList;
pub use request::{Answer, Request};
pub use stream::{Delivery, EventStream, StreamEnd};
pub use trust::{Trust, TrustError};

/// Time-outs of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time-out of connecting.
    pub connect: Duration,
    /// Time-out of an answer to a request that only reads.
    pub read: Duration,
    /// Time-out of an answer to a request that writes; above the masters' `request_timeout`.
    pub write: Duration,
    /// Longest wait between two tries.
    pub backoff_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { connect: ms(1500), read: ms(5000), write: ms(12_000), backoff_max: ms(2000) }
    }
}

/// Failure of a call; each variant says whether anything was done.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// The master refused the request and would refuse it again: nothing was done.
    #[error("refused ({status}): {problem}")]
    Refused {
        /// HTTP status, 4xx.
        status: u16,
        /// Problem in the answer.
        problem: Problem,
    },
    /// The master cannot serve the request now (408, 429, 503): nothing was done.
    #[error("the master cannot do it now ({status}): {problem}")]
    Busy {
        /// HTTP status.
        status: u16,
        /// Problem in the answer.
        problem: Problem,
        /// Wait that the master asks for, if it does.
        retry_after: Option<Duration>,
    },
    /// The request never left: nothing was done.
    #[error("{master} cannot be reached: {why}")]
    Unreached {
        /// Address of the master.
        master: String,
        /// Reason, for people.
        why: String,
    },
    /// The request may have been carried out, or may be later.
    #[error("the outcome is unknown: {why}")]
    Unknown {
        /// HTTP status, if there was an answer.
        status: Option<u16>,
        /// Reason, for people.
        why: String,
    },
}

impl Failure {
    /// Whether the call certainly did nothing.
    #[must_use]
    pub const fn did_nothing(&self) -> bool {
        !matches!(self, Self::Unknown { .. })
    }

    /// Whether the master did not answer at all, so that another one may.
    #[must_use]
    pub const fn is_silence(&self) -> bool {
        matches!(self, Self::Unreached { .. } | Self::Unknown { status: None, .. })
    }

    /// Returns the HTTP status, if there was an answer.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Busy { status, .. } => Some(*status),
            Self::Unknown { status, .. } => *status,
            Self::Unreached { .. } => None,
        }
    }
}
