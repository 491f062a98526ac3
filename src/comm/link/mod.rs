//! A link: calls, direct messages, publishes and heartbeats over one secured stream.
//!
//! One task per link reads, writes and watches; handles and [`Responder`]s reach it through a
//! [`LinkState`](state::LinkState) under a lock that is never held over an await.
//!
//! 1. One record carries one frame. The first thing said is a heartbeat.
//! 2. Nothing of [`Link`] or [`Responder`] waits for room: what does not fit is refused.
//! 3. When the node does not take its events the reader stops reading, and so the peer's
//!    writer in the end; heartbeats still go out, and the peer is not called silent meanwhile.
//! 4. A peer of which no byte came for `silence` is [`LinkEnd::Silent`]; one that takes no byte
//!    for `stall_timeout`, or does not finish a record, is [`LinkEnd::Broken`].
//! 5. A call given up before its frame left is never sent; later it is cancelled. An answer
//!    that comes later still is ignored, one to a call that was never made is a violation.
//! 6. Who closes says so in a last record, after all that was queued before it, and then waits
//!    for the peer to end the stream, so that no reset overtakes the close.

mod heartbeat;
mod reader;
mod responder;
mod state;
mod writer;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

pub use self::responder::Responder;
use self::{
    heartbeat::{Heartbeat, watch},
    reader::Reader,
    responder::Shared,
    state::Outgoing,
    writer::Writer,
};
use super::{Peer, SecureStream};
pub use crate::model::ids::LinkId;
use crate::{
    config::Config,
    env::{Env, Task, TimedOut},
    model::message::{Beat, Close, CloseReason, Direct, Request, Response, Topic},
    wire::{
        FRAME_LEN_MAX,
        frame::{self, FrameError},
    },
};

/// The bounds of one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkLimits {
    /// Between two heartbeats of ours.
    pub heartbeat_interval: Duration,
    /// So many intervals without a byte are silence.
    pub heartbeats_missed_max: u32,
    /// Frames that wait to be sent; responses and cancels have room of their own beyond.
    pub outgoing_frames_max: usize,
    /// Bytes that wait to be sent; at least [`FRAME_LEN_MAX`], and twice that for responses.
    pub outgoing_bytes_max: usize,
    /// Calls under way, each way. The same on all nodes: a peer with more breaks the protocol.
    pub in_flight_max: usize,
    /// For how long the peer may take no byte.
    pub stall_timeout: Duration,
    /// For how long a close may take, and then the end of the stream.
    pub close_timeout: Duration,
    /// After how long a direction goes on with its next key.
    pub rekey_interval: Duration,
}

impl LinkLimits {
    /// Calls under way each way, on every node.
    pub const IN_FLIGHT_MAX: usize = 1024;

    /// The limits that go with a node's settings.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            heartbeat_interval: config.heartbeat_interval,
            heartbeats_missed_max: config.heartbeats_missed_max,
            outgoing_frames_max: 4096,
            outgoing_bytes_max: 4 * FRAME_LEN_MAX,
            in_flight_max: Self::IN_FLIGHT_MAX,
            stall_timeout: 2 * config.heartbeat_interval * config.heartbeats_missed_max,
            close_timeout: Duration::from_secs(1),
            rekey_interval: Duration::from_secs(600),
        }
    }

    /// For how long no byte may come.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.heartbeat_interval * self.heartbeats_missed_max
    }
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self::of(&Config::default())
    }
}

/// What a link tells its node.
#[derive(Debug)]
pub enum Incoming {
    /// The peer wants an answer.
    Request {
        /// What it asks.
        request: Request,
        /// Where the answer goes. Dropped without one, the peer's own deadline ends its call.
        reply: Responder,
    },
    /// A direct message.
    Direct(Direct),
    /// A sealed envelope, to be opened, or relayed as it is.
    Envelope(Bytes),
    /// The topics that the peer wants from now on, instead of those before.
    Subscribed(Vec<Topic>),
    /// The peer's first heartbeat, and each one that says other things than the one before.
    Beat(Beat),
    /// The last event of the link.
    Closed(LinkEnd),
}

/// How a link ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// The peer closed it and said why.
    ClosedByPeer(Close),
    /// This side closed it.
    Closed(Close),
    /// The stream ended or failed without a close, or the peer stopped taking or finishing.
    Broken(String),
    /// Nothing was heard for too long.
    Silent,
    /// The peer broke the protocol; it was told so if it still listens.
    Violation(String),
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedByPeer(close) => write!(f, "closed by the peer: {:?}", close.reason),
            Self::Closed(close) => write!(f, "closed: {:?}", close.reason),
            Self::Broken(why) => write!(f, "broken: {why}"),
            Self::Silent => f.write_str("silent"),
            Self::Violation(why) => write!(f, "violation: {why}"),
        }
    }
}

/// A message was not queued. The link is as it was.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SendError {
    /// Too much waits to be sent already.
    #[error("the link's outgoing queue is full")]
    Full,
    /// The link has ended or is being closed.
    #[error("the link is closed")]
    Closed,
    /// The call was cancelled, answered or lost before: nobody waits for this response.
    #[error("nobody waits for this response")]
    Unwanted,
    /// It does not fit into a frame.
    #[error("cannot be sent: {0}")]
    TooLong(#[from] FrameError),
}

/// A call has no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CallError {
    /// Too many calls are under way, or too much waits to be sent. The peer heard nothing of it.
    #[error("the link has no room for another call")]
    Full,
    /// The link ended before the call left. The peer heard nothing of it.
    #[error("the link is closed")]
    Closed,
    /// The request does not fit into a frame. The peer heard nothing of it.
    #[error("cannot be sent: {0}")]
    TooLong(#[from] FrameError),
    /// No answer in the time given; the peer is told not to bother. It may have done it.
    #[error("no answer in time")]
    TimedOut,
    /// The link ended while the call was under way. The peer may have done it.
    #[error("the link ended before the answer came")]
    Lost,
}

impl CallError {
    /// Whether the peer cannot have begun what was asked.
    #[must_use]
    pub const fn nothing_was_done(&self) -> bool {
        matches!(self, Self::Full | Self::Closed | Self::TooLong(_))
    }
}

/// A cheap handle on a link. When the last one of an open link is dropped, the link is cut:
/// without a close record, and without a last event.
#[derive(Clone)]
pub struct Link(Arc<Handle>);

struct Handle {
    env: Env,
    shared: Arc<Shared>,
    task: Option<Task>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A close that was asked for, or is under way, goes on by itself; its time is bounded.
        if !self.shared.state().cut() {
            return;
        }
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Link {
    /// Starts talking on a secured stream. Events go to `incoming`, tagged with `id`.
    #[must_use]
    pub fn start(
        env: &Env,
        id: LinkId,
        secured: SecureStream,
        limits: LinkLimits,
        incoming: mpsc::Sender<(LinkId, Incoming)>,
    ) -> Self {
        let SecureStream { stream, sealer, opener, peer } = secured;
        let (read, write) = tokio::io::split(stream);
        let now = env.now();
        let shared = Arc::new(Shared::new(id, peer, limits, Heartbeat::beginning(now)));
        let reader = Reader::new(read, opener);
        let writer = Writer::new(write, sealer, now);
        let run = run(env.clone(), Arc::clone(&shared), reader, writer, incoming);
        let task = env.spawn("link", run);
        Self(Arc::new(Handle { env: env.clone(), shared, task: Some(task) }))
    }

    /// Which link this is.
    #[must_use]
    pub fn id(&self) -> LinkId {
        self.0.shared.id
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.0.shared.peer
    }

    /// Whether messages are still taken.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.shared.state().is_open()
    }

    /// Whether the peer subscribed to this topic.
    #[must_use]
    pub fn wants(&self, topic: Topic) -> bool {
        self.0.shared.state().wants(topic)
    }

    /// Asks the peer and waits for its answer, no longer than `limit`. Dropping the future
    /// gives the call up.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::nothing_was_done`] tells those apart that left nothing behind.
    pub async fn call(&self, request: Request, limit: Duration) -> Result<Response, CallError> {
        let deadline_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        let bytes = frame::request(0, deadline_ms, &request)?;
        drop(request);
        let shared = &self.0.shared;
        let (answer, answered) = oneshot::channel();
        let id = shared.state().call(bytes, answer)?;
        shared.work.notify_one();
        let _pending = PendingCall { shared, id };
        match self.0.env.timeout(limit, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CallError::Lost),
            Err(TimedOut) => Err(CallError::TimedOut),
        }
    }

    /// Queues a message that is not answered.
    ///
    /// # Errors
    /// [`SendError`]: it was not queued.
    pub fn send(&self, message: &Direct) -> Result<(), SendError> {
        self.push(Outgoing::Frame(frame::direct(message)?))
    }

    /// Queues a sealed envelope; its bytes are shared, not copied, until they are sealed for
    /// this link.
    ///
    /// # Errors
    /// [`SendError`]: it was not queued.
    pub fn publish(&self, envelope: Bytes) -> Result<(), SendError> {
        frame::check_envelope(&envelope)?;
        self.push(Outgoing::Envelope(envelope))
    }

    /// Tells the peer which topics are wanted from now on, instead of those before.
    ///
    /// # Errors
    /// [`SendError`]: it was not queued.
    pub fn subscribe(&self, topics: &[Topic]) -> Result<(), SendError> {
        self.push(Outgoing::Frame(frame::subscribe(topics)?))
    }

    /// Sets what the heartbeats say; a change is said at once.
    pub fn beat(&self, beat: Beat) {
        if self.0.shared.state().set_beat(beat) {
            self.0.shared.work.notify_one();
        }
    }

    /// Ends the link with a word, after all that is queued. Nothing more is taken. The first
    /// close counts.
    pub fn close(&self, close: Close) {
        if self.0.shared.state().close(close) {
            self.0.shared.work.notify_one();
            self.0.shared.closing.notify_one();
        }
    }

    fn push(&self, out: Outgoing) -> Result<(), SendError> {
        self.0.shared.state().push(out)?;
        self.0.shared.work.notify_one();
        Ok(())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} {}", self.id(), self.peer().role, self.peer().node.short())
    }
}

/// A call that its caller waits for.
struct PendingCall<'a> {
    shared: &'a Shared,
    id: frame::CallId,
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        if self.shared.state().give_up(self.id) {
            self.shared.work.notify_one();
        }
    }
}

/// The link's one task.
async fn run(
    env: Env,
    shared: Arc<Shared>,
    mut reader: Reader,
    mut writer: Writer,
    incoming: mpsc::Sender<(LinkId, Incoming)>,
) {
    let end = tokio::select! {
        biased;
        end = reader.run(&env, &shared, &incoming) => end,
        end = writer.run(&env, &shared) => end,
        end = watch(&env, &shared.heartbeat, &shared.limits) => end,
        end = overdue(&env, &shared) => end,
    };
    shared.state().end();
    match &end {
        LinkEnd::Violation(why) => {
            tracing::warn!(link = shared.id.0, peer = %shared.peer.node, %why, "the peer broke the protocol");
        }
        other => {
            tracing::debug!(link = shared.id.0, peer = %shared.peer.node, end = %other, "link ended");
        }
    }
    let last_word = match &end {
        LinkEnd::Closed(close) => Some(*close),
        LinkEnd::Violation(_) => Some(Close { reason: CloseReason::Violation, retry_ms: 0 }),
        _ => None,
    };
    if let Some(close) = last_word {
        let say = async {
            if writer.finish(close).await.is_ok() {
                reader.linger().await;
            }
        };
        // The peer that does not take it, or does not end the stream, is cut.
        let _ = env.timeout(shared.limits.close_timeout, say).await;
    }
    drop((reader, writer));
    // The node may be gone; then nobody wants to know.
    let _ = incoming.send((shared.id, Incoming::Closed(end))).await;
}

/// A close that takes too long with what is queued before it.
async fn overdue(env: &Env, shared: &Shared) -> LinkEnd {
    loop {
        // Told once, when there is a close to find.
        shared.closing.notified().await;
        let close = shared.state().closing();
        if let Some(close) = close {
            env.sleep(shared.limits.close_timeout).await;
            return LinkEnd::Closed(close);
        }
    }
}

#[cfg(test)]
mod tests;
