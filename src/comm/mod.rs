//! Communication between two nodes over one secured link: calls that are answered, direct
//! messages, publish and subscribe, and fanout, an envelope sealed once for a whole domain.
//!
//! ```text
//! node   <---- Incoming, one bounded channel for all links ----.   Link::call, send, publish ..
//!                                                              |        |
//! link     reader: record -> frame -> state -> event ----------'   state: queue of frames
//!          writer: frames and heartbeats -> records -> stream  <--------'
//! stream   one TCP connection per pair of nodes
//! ```
//!
//! A link has no client and no server: masters and workers run the same code, and each end can
//! do what the other can (`testing::comm` checks both, with the roles swapped).
//!
//! 1. Everything is bounded: a frame, the frames that wait, the calls in flight each way, the
//!    events that wait for the node. What does not fit is refused at once, with a typed error.
//! 2. The peer's bytes are never trusted: a violation of the protocol ends this link, with a
//!    reason in the log, and nothing else.
//! 3. Every link that is not dropped by its node ends with exactly one [`Incoming::Closed`], its
//!    last event.
//! 4. An end without a close record is abnormal.

pub mod connection_limit;
pub mod fanout;
pub mod handshake;
pub mod key_source;
pub mod link;
mod secure_stream;
pub mod seldom;

pub use self::{
    link::{
        CallError, DriverStamp, Incoming, Link, LinkEnd, LinkId, LinkLimits, Responder, SendError,
    },
    secure_stream::{Peer, RenewalKeys, SecureStream},
};
