//! Inputs of the master's driver that come from its own tasks.

use tokio::sync::oneshot;

use super::{NodeError, key_maker::MadeKeys};
use crate::{
    comm::{Responder, SecureStream, handshake::Ready},
    model::{
        ids::{
            BoardName, KeyEpoch, LinkId, NodeId, PostId, Resource, SessionKey, StoreEpoch, UserId,
        },
        message::ForwardReply,
        read_order::ReadNumber,
        rows::{
            Active, Admission, Boards, Lease, MasterRow, Page, Renewed, SessionRow, StoreError,
        },
        stream::HeldState,
        time::Mono,
    },
    node::{
        handle::{Read, Reply, Restored, WorkerDrainError},
        inbox::DriverInput,
    },
    protocol::{
        master::{AttemptEnd, CallFailed, ForwardId, HoldEnd},
        streams::StoreRead,
        task_queue::{Slot, TaskId},
        tries::Assignee,
    },
    store::closings::{ClosingsPage, ClosingsPlace},
};

/// Way back to the operator who has a worker drained.
pub(super) type DrainReply = oneshot::Sender<Result<u64, WorkerDrainError>>;

/// Number of a stream, unique within one life of a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64);

/// Place in the list of closed sessions of the store of this epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ClosingsMark {
    pub(super) epoch: StoreEpoch,
    pub(super) place: ClosingsPlace,
}

/// Answers of one round of reads; `None` where the store did not answer.
pub(super) struct Polled {
    pub(super) boards: Option<Boards>,
    pub(super) masters: Option<Vec<MasterRow>>,
    pub(super) admission: Option<(ReadNumber, Admission)>,
    pub(super) closed: Option<(ClosingsMark, ClosingsPage)>,
}

impl Polled {
    /// Returns whether it is of a store that was replaced by the one of this epoch. The boards are read first:
    /// if they are not, nothing is.
    pub(super) fn is_outdated(&self, epoch: StoreEpoch) -> bool {
        self.boards.as_ref().is_some_and(|boards| boards.epoch < epoch)
    }
}

/// Secured stream that is ready to become a link.
pub(super) struct Arrival {
    pub(super) secured: SecureStream,
    pub(super) ready: Ready,
}

/// Result that a task brings back to the driver that started it.
pub(super) enum Input {
    /// The store answered to a request for a lease.
    LeaseAnswered { slot: Slot, sent_at: Mono, answer: Result<Lease, StoreError> },
    /// The store answered to a renewal of leases.
    LeasesRenewed {
        sent_at: Mono,
        asked: Vec<(Resource, u64)>,
        answers: Result<Vec<(Resource, Renewed)>, StoreError>,
    },
    /// A worker answered to a call with batches, or did not.
    CallEnded { worker: Assignee, ends: Vec<AttemptEnd> },
    /// Another master answered to forwarded tasks, or did not.
    ForwardEnded { call: ForwardId, ends: Vec<(TaskId, Result<ForwardReply, CallFailed>)> },
    /// Workers that were asked to hold a post answered, or did not.
    HoldEnded { id: TaskId, end: HoldEnd },
    /// The store ended a post that a worker held for too long, or did not.
    OldHeldEnded { author: (UserId, PostId), reply: Responder, state: Option<HeldState> },
    /// The store kept a dead letter, or did not.
    LetterWritten(Result<(), StoreError>),
    /// This master's row was touched, or was not.
    MasterTouched(Result<(), StoreError>),
    /// The active sessions of this master were touched, or were not.
    SessionsTouched { keys: Vec<SessionKey>, answer: Result<u64, StoreError> },
    /// Sessions that only send requests were noted as in use, or were not.
    SessionsUsed { keys: Vec<SessionKey>, answer: Result<(), StoreError> },
    /// Sessions of this master were taken off the list, or were not.
    SessionsLeft,
    /// The store denied a node that an operator expels; `false` if there is no such node.
    Denied { node: NodeId, answer: Result<bool, StoreError>, reply: Reply<()> },
    /// A worker answered to the request to end, or did not.
    WorkerAnsweredDrain { link: LinkId, answer: Result<u64, WorkerDrainError>, reply: DrainReply },
    /// The store was polled.
    StorePolled(Box<Polled>),
    /// A further page of closed sessions was read; `None` when the store did not answer.
    ClosingsRead { from: ClosingsMark, page: Option<ClosingsPage> },
    /// The boards were read for requests that wait.
    BoardsRead(Result<Boards, StoreError>),
    /// The active people were read, for requests that wait or because it was time.
    UsersRead(Result<Active, StoreError>),
    /// A session was looked up for requests that wait, or to check it; `is_copied` if a copy answered in the
    /// store's place.
    SessionLookedUp {
        key: SessionKey,
        answer: Result<Option<SessionRow>, StoreError>,
        is_copied: bool,
    },
    /// A session was read for one request.
    SessionRead {
        key: SessionKey,
        answer: Result<Option<SessionRow>, StoreError>,
        reply: Reply<Read<Restored>>,
    },
    /// A session was looked for in copies, for one request.
    SessionRestored { session: Option<SessionRow>, reply: Reply<Read<Restored>> },
    /// Posts that a board's tail lacks were read.
    TailRead { board: BoardName, answer: Result<Page, StoreError> },
    /// A page of posts was read for streams.
    StreamPage { page: StoreRead, answer: Result<Page, StoreError> },
    /// A stream's reader made room, or was too slow.
    StreamRoom { id: StreamId, has_room: bool },
    /// A stream's reader is gone.
    StreamGone { id: StreamId },
    /// The key of an epoch was made, or was not; with a random number.
    KeyMade { epoch: KeyEpoch, draw: u64, made: Result<Box<MadeKeys>, NodeError> },
    /// A node dialled this master and was admitted.
    LinkAccepted(Box<Arrival>),
    /// A dial of another master, with its number, ended; `None` if it was not reached.
    MasterDialed { node: NodeId, number: u64, arrival: Option<Box<Arrival>> },
}

impl DriverInput for Input {
    fn is_urgent(&self) -> bool {
        match self {
            Self::LeaseAnswered { .. }
            | Self::LeasesRenewed { .. }
            | Self::CallEnded { .. }
            | Self::LetterWritten(_)
            | Self::MasterTouched(_)
            | Self::SessionsTouched { .. }
            | Self::SessionsUsed { .. }
            | Self::SessionsLeft
            | Self::Denied { .. }
            | Self::WorkerAnsweredDrain { .. }
            | Self::StorePolled(_)
            | Self::ClosingsRead { .. }
            | Self::KeyMade { .. }
            | Self::LinkAccepted(_)
            | Self::MasterDialed { .. } => true,
            // As many as people's requests and streams.
            Self::ForwardEnded { .. }
            | Self::HoldEnded { .. }
            | Self::OldHeldEnded { .. }
            | Self::BoardsRead(_)
            | Self::UsersRead(_)
            | Self::SessionLookedUp { .. }
            | Self::SessionRead { .. }
            | Self::SessionRestored { .. }
            | Self::TailRead { .. }
            | Self::StreamPage { .. }
            | Self::StreamRoom { .. }
            | Self::StreamGone { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_is_outdated_once_its_boards_are_of_an_earlier_epoch() {
        let of = |boards| Polled { boards, masters: None, admission: None, closed: None };
        let read = |epoch| of(Some(Boards { epoch: StoreEpoch(epoch), ..Boards::default() }));
        let outdated = [6, 7, 8].map(|epoch| read(epoch).is_outdated(StoreEpoch(7)));
        assert_eq!(outdated, [true, false, false]);
        assert!(!of(None).is_outdated(StoreEpoch(7)), "the store did not answer");
    }
}
