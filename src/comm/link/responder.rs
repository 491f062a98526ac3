//! What a link's task, its handles and the calls that it serves share.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{LinkId, LinkLimits, SendError, heartbeat::Heartbeat, state::Table};
use crate::{
    comm::Peer,
    model::{message::Response, time::Mono},
    wire::frame::{self, CallId},
};

/// The parts of a link that outlive a poll.
pub(super) struct Shared {
    pub(super) id: LinkId,
    pub(super) peer: Peer,
    pub(super) limits: LinkLimits,
    pub(super) heartbeat: Heartbeat,
    /// Something is to be written.
    pub(super) work: Notify,
    /// A close was asked for.
    pub(super) closing: Notify,
    table: Mutex<Table>,
}

impl Shared {
    pub(super) fn new(id: LinkId, peer: Peer, limits: LinkLimits, heartbeat: Heartbeat) -> Self {
        let table = Mutex::new(Table::new(&limits));
        Self { id, peer, limits, heartbeat, work: Notify::new(), closing: Notify::new(), table }
    }

    /// The table, for a moment: nobody waits while holding it.
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers one call of the peer, once.
pub struct Responder {
    shared: Arc<Shared>,
    id: CallId,
    deadline: Mono,
}

impl Responder {
    pub(super) const fn new(shared: Arc<Shared>, id: CallId, deadline: Mono) -> Self {
        Self { shared, id, deadline }
    }

    /// Queues the answer.
    ///
    /// # Errors
    /// [`SendError`]: the caller gets nothing, and its own deadline ends the call.
    pub fn send(self, response: &Response) -> Result<(), SendError> {
        let bytes = frame::response(self.id, response)?;
        self.shared.table().respond(self.id, bytes)?;
        self.shared.work.notify_one();
        Ok(())
    }

    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        !self.shared.table().is_serving(self.id)
    }

    /// Until when the caller waits at most, by this node's clock. A hint.
    #[must_use]
    pub const fn deadline(&self) -> Mono {
        self.deadline
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.shared.table().abandon(self.id);
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Responder({}, call {})", self.shared.id, self.id)
    }
}
