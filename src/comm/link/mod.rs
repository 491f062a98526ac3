//! Link between two nodes: calls, direct messages, publishes and heartbeats over one secured
//! stream.
//!
//! One task per link reads, writes and watches; handles and [`Responder`]s reach it through a
//! `LinkState` under a lock that is never held over an await.
//!
//! 1. One record carries one frame. The first frame sent is a heartbeat.
//! 2. No method of [`Link`] or [`Responder`] waits for room: what does not fit is refused.
//! 3. When the node does not take its events, the reader stops reading, and in the end the
//!    peer's writer stops too. Heartbeats still go out, and the peer does not count as silent
//!    meanwhile.
//! 4. A peer that sends no byte for `silence` is [`LinkEnd::Silent`]; one that takes no byte for
//!    `stall_timeout`, or does not finish a record, is [`LinkEnd::Broken`]. After a standstill of this
//!    side, such as one of the whole machine, these times begin anew, once.
//! 5. A call that is given up before its frame was sent is never sent; a later one is cancelled.
//!    An answer that still arrives is ignored; an answer to a call that was never made is a
//!    violation. At the other end it keeps its place until its handler has ended: a call for which
//!    there is none then does not begin.
//! 6. Heartbeats stop while the task that drives the node makes no progress: see [`DriverStamp`].
//! 7. The side that closes says so in a last record, after all that was queued before it. It
//!    then waits for the peer to end the stream, so that no reset overtakes the close.
//! 8. A link that lives long gets keys of a new handshake, and nothing that is under way notices. A
//!    new handshake that fails, or is not finished within `handshake_timeout`, ends the link.

mod exchange;
mod heartbeat;
mod key_frame;
mod limits;
mod reader;
mod renewal;
mod responder;
mod state;
mod writer;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use self::{
    exchange::Exchange,
    heartbeat::{Heartbeat, watch},
    reader::Reader,
    renewal::Renewal,
    responder::Shared,
    state::{Outgoing, Room},
    writer::Writer,
};
pub use self::{
    heartbeat::DriverStamp, key_frame::KeyFrame, limits::LinkLimits, responder::Responder,
};
use super::{Peer, SecureStream};
pub use crate::model::ids::LinkId;
use crate::{
    env::{Env, Task, TimedOut},
    model::message::{Beat, Close, CloseReason, Direct, Request, Response, Topic},
    wire::frame::{self, FrameError},
};

/// Event of a link, for its node.
#[derive(Debug)]
pub enum Incoming {
    /// The peer called and waits for an answer.
    Request {
        /// Request of the peer.
        request: Request,
        /// Sender of the answer. If it is dropped unused, the peer's own deadline ends its call.
        reply: Responder,
    },
    /// The peer sent a direct message.
    Direct(Direct),
    /// The peer published a sealed envelope, to be opened or relayed unchanged.
    Envelope(Bytes),
    /// The peer subscribed to these topics; they replace the earlier ones.
    Subscribed(Vec<Topic>),
    /// The peer sent its first heartbeat, or one that differs from the one before.
    Beat(Beat),
    /// The link ended. This is its last event.
    Closed(LinkEnd),
}

/// Way in which a link ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// The peer closed it and gave a reason.
    ClosedByPeer(Close),
    /// This side closed it.
    Closed(Close),
    /// The stream ended or failed without a close, or the peer stopped reading or left a record
    /// unfinished.
    Broken(String),
    /// No byte of the peer arrived for too long.
    Silent,
    /// The peer violated the protocol; this side reported it in a close record, if it still read.
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

/// Error of a message that was not queued. The link is as it was.
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
    /// The message does not fit into a frame.
    #[error("cannot be sent: {0}")]
    TooLong(#[from] FrameError),
}

/// Error of a call that got no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CallError {
    /// Too many calls are under way, or too much waits to be sent. The peer did not receive it.
    #[error("the link has no room for another call")]
    Full,
    /// The link ended before the request was sent. The peer did not receive it.
    #[error("the link is closed")]
    Closed,
    /// The request does not fit into a frame. The peer did not receive it.
    #[error("cannot be sent: {0}")]
    TooLong(#[from] FrameError),
    /// No answer arrived within the limit, and the call was cancelled. The peer may have done
    /// the work.
    #[error("no answer in time")]
    TimedOut,
    /// The link ended while the call was under way. The peer may have done the work.
    #[error("the link ended before the answer came")]
    Lost,
}

impl CallError {
    /// Says whether the peer cannot have begun the work.
    #[must_use]
    pub const fn nothing_was_done(&self) -> bool {
        matches!(self, Self::Full | Self::Closed | Self::TooLong(_))
    }
}

/// Cheap handle on a link. Dropping the last handle of an open link cuts the link: without a
/// close record, and without a last event.
#[derive(Clone)]
pub struct Link(Arc<Handle>);

struct Handle {
    env: Env,
    shared: Arc<Shared>,
    task: Option<Task>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A requested close goes on without a handle; its time is bounded.
        if !self.shared.state().cut() {
            return;
        }
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Link {
    /// Starts a link on a secured stream. Its events go to `incoming`, tagged with `id`, to the task
    /// that sets `driver`.
    #[must_use]
    pub fn start(
        env: &Env,
        id: LinkId,
        secured: SecureStream,
        limits: LinkLimits,
        driver: DriverStamp,
        incoming: mpsc::Sender<(LinkId, Incoming)>,
    ) -> Self {
        let SecureStream { stream, sealer, opener, peer, renewal } = secured;
        let renewal = Renewal::new(renewal, sealer.session().clone());
        let exchange = Exchange::new(renewal.answers());
        let (read, write) = tokio::io::split(stream);
        let now = env.now();
        let shared =
            Arc::new(Shared::new(id, peer, limits, driver, Heartbeat::beginning(now), exchange));
        let reader = Reader::new(read, opener);
        let writer = Writer::new(write, sealer, now);
        let run = run(env.clone(), Arc::clone(&shared), reader, writer, renewal, incoming);
        let task = env.spawn("link", run);
        Self(Arc::new(Handle { env: env.clone(), shared, task: Some(task) }))
    }

    /// Returns the link's id.
    #[must_use]
    pub fn id(&self) -> LinkId {
        self.0.shared.id
    }

    /// Returns the node at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.0.shared.peer
    }

    /// Says whether the link still takes messages.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.shared.state().is_open()
    }

    /// Says whether the peer subscribed to this topic.
    #[must_use]
    pub fn wants(&self, topic: Topic) -> bool {
        self.0.shared.state().wants(topic)
    }

    /// Calls the peer and waits for its answer, at most for `limit`. Dropping the future cancels
    /// the call.
    ///
    /// # Errors
    /// Any [`CallError`]; [`CallError::nothing_was_done`] tells the harmless ones apart.
    pub async fn call(&self, request: Request, limit: Duration) -> Result<Response, CallError> {
        let deadline_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        let bytes = frame::request(0, deadline_ms, &request)?;
        let room = Room::of(&request);
        drop(request);
        let shared = &self.0.shared;
        let (answer, answered) = oneshot::channel();
        let id = shared.state().call(bytes, room, answer)?;
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
        let out = Outgoing::Frame(frame::direct(message)?);
        match message {
            // The answer that one more post is held must not overtake it.
            Direct::Holds(_) => self.push_urgent(out),
            _ => self.push(out),
        }
    }

    /// Queues a message about keys. It overtakes messages and envelopes, but no other message about
    /// keys; its bytes are shared with other links, not copied.
    ///
    /// # Errors
    /// [`SendError`]: it was not queued.
    pub fn send_key(&self, message: KeyFrame) -> Result<(), SendError> {
        self.push_urgent(Outgoing::Secret(message))
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

    /// Tells the peer which topics this side wants from now on; they replace the earlier ones.
    ///
    /// # Errors
    /// [`SendError`]: it was not queued.
    pub fn subscribe(&self, topics: &[Topic]) -> Result<(), SendError> {
        self.push(Outgoing::Frame(frame::subscribe(topics)?))
    }

    /// Sets the content of the heartbeats; a change is sent at once.
    pub fn beat(&self, beat: Beat) {
        if self.0.shared.state().set_beat(beat) {
            self.0.shared.work.notify_one();
        }
    }

    /// Closes the link with a reason, after all that is queued. The link takes nothing more.
    /// Only the first close has an effect.
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

    fn push_urgent(&self, out: Outgoing) -> Result<(), SendError> {
        self.0.shared.state().push_urgent(out)?;
        self.0.shared.work.notify_one();
        Ok(())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} {}", self.id(), self.peer().role, self.peer().node.short())
    }
}

/// Call whose caller waits for the answer; dropping it cancels the call.
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

/// Runs the link: reads, writes and watches until it ends, then reports the end.
async fn run(
    env: Env,
    shared: Arc<Shared>,
    mut reader: Reader,
    mut writer: Writer,
    renewal: Renewal,
    incoming: mpsc::Sender<(LinkId, Incoming)>,
) {
    let end = tokio::select! {
        biased;
        end = reader.run(&env, &shared, &incoming) => end,
        end = writer.run(&env, &shared) => end,
        end = watch(&env, &shared.heartbeat, &shared.limits) => end,
        end = renewal.run(&env, &shared) => end,
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
    let last_record = match &end {
        LinkEnd::Closed(close) => Some(*close),
        LinkEnd::Violation(_) => Some(Close { reason: CloseReason::Violation, retry_ms: 0 }),
        _ => None,
    };
    if let Some(close) = last_record {
        let send_close = async {
            if writer.finish(close).await.is_ok() {
                reader.linger().await;
            }
        };
        // A peer that does not take it, or does not end the stream, is cut off.
        let _ = env.timeout(shared.limits.close_timeout, send_close).await;
    }
    drop((reader, writer));
    // The node may be gone; then nobody needs the event.
    let _ = incoming.send((shared.id, Incoming::Closed(end))).await;
}

/// Waits until a close takes too long to send what is queued before it.
async fn overdue(env: &Env, shared: &Shared) -> LinkEnd {
    loop {
        // Notified once, at the first close.
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
