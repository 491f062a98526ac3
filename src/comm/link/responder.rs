//! State that a link's task, its handles and the calls that it serves share; and the handle that
//! answers one call.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{
    LinkId, LinkLimits, SendError,
    exchange::Exchange,
    heartbeat::{DriverStamp, Heartbeat},
    state::{AnswerRoom, LinkState},
};
use crate::{
    comm::Peer,
    model::{message::Response, time::Mono},
    wire::frame::{self, CallId},
};

/// Shared state of a link.
pub(super) struct Shared {
    pub(super) id: LinkId,
    pub(super) peer: Peer,
    pub(super) limits: LinkLimits,
    pub(super) driver: DriverStamp,
    pub(super) heartbeat: Heartbeat,
    /// Signal that something waits to be written.
    pub(super) work: Notify,
    /// Signal that the link is to be closed.
    pub(super) closing: Notify,
    /// Signal that a new handshake goes on.
    pub(super) turn: Notify,
    state: Mutex<LinkState>,
    exchange: Mutex<Exchange>,
}

impl Shared {
    pub(super) fn new(
        id: LinkId,
        peer: Peer,
        limits: LinkLimits,
        driver: DriverStamp,
        heartbeat: Heartbeat,
        exchange: Exchange,
    ) -> Self {
        let state = Mutex::new(LinkState::new(&limits));
        let exchange = Mutex::new(exchange);
        let (work, closing, turn) = (Notify::new(), Notify::new(), Notify::new());
        Self { id, peer, limits, driver, heartbeat, work, closing, turn, state, exchange }
    }

    /// Locks the state; the guard is never held over an await.
    pub(super) fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state of new handshakes; the guard is never held over an await.
    pub(super) fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handle that answers one call of the peer, once. The call keeps its place among those under way
/// until this is dropped, also if the peer gives it up: so hold it for as long as the work goes on.
pub struct Responder {
    shared: Arc<Shared>,
    id: CallId,
    deadline: Mono,
}

impl Responder {
    pub(super) const fn new(shared: Arc<Shared>, id: CallId, deadline: Mono) -> Self {
        Self { shared, id, deadline }
    }

    /// Queues the answer; [`Response::NotServed`] in place of a page for which there is no room, so
    /// that the caller goes on at once.
    ///
    /// # Errors
    /// [`SendError`]: the caller gets nothing, and its own deadline ends the call.
    pub fn send(self, response: &Response) -> Result<(), SendError> {
        let bytes = frame::response(self.id, response)?;
        let room = AnswerRoom::of(response, bytes.len());
        let mut sent = self.shared.state().respond(self.id, bytes, room);
        if sent == Err(SendError::Full) && room == AnswerRoom::Pages {
            let refusal = frame::response(self.id, &Response::NotServed)?;
            sent = self.shared.state().respond(self.id, refusal, AnswerRoom::Short);
        }
        sent?;
        self.shared.work.notify_one();
        Ok(())
    }

    /// Says whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        !self.shared.state().is_serving(self.id)
    }

    /// Returns the time until which the caller waits at most, by this node's clock. A hint.
    #[must_use]
    pub const fn deadline(&self) -> Mono {
        self.deadline
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.shared.state().end_serving(self.id);
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Responder({}, call {})", self.shared.id, self.id)
    }
}
