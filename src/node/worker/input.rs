//! Inputs of the worker's driver that come from its own tasks.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    assign::{BatchId, Written},
    session_repair::Round,
};
use crate::{
    comm::{
        LinkId, Responder, SecureStream,
        handshake::{HandshakeError, ReceivedWelcome},
    },
    crypto::epoch::{EpochError, EpochKeys},
    model::{
        held::{HandInReply, HeldKey, HoldReply},
        ids::{BoardName, Registration},
        message::{Member, Welcome},
        rows::{Boards, MasterRow, StoreError},
    },
    node::inbox::DriverInput,
    replica::ApplyReport,
};

/// Message from a task to the driver that started it.
pub(super) enum Input {
    /// The node database is open, and holds these members of an earlier life's directory.
    Kept(Vec<Member>),
    /// The node database was opened, and holds these posts that wait for the store, each since this time by
    /// the wall clock, in milliseconds; `None` if they could not be read.
    HeldFound(Option<Vec<(HeldKey, u64)>>),
    /// A master asked to hold a post of this age, and is to be answered.
    Held { key: HeldKey, age_ms: u64, answer: HoldReply, reply: Responder },
    /// The master answered about a post that was handed in, or did not.
    HandedIn { key: HeldKey, answer: Option<HandInReply> },
    /// A post that was to be handed in is not on the disk any more.
    HeldLost(HeldKey),
    /// A master welcomes this worker; the reply is the number to say in Ready, if the attempt is
    /// still wanted.
    Welcomed { attempt: u64, welcome: Welcome, reply: oneshot::Sender<Option<Registration>> },
    /// An attempt to register ended.
    Dialed { attempt: u64, result: Result<Box<(SecureStream, ReceivedWelcome)>, HandshakeError> },
    /// The store was polled, or was not.
    StorePolled(Result<StoreView, StoreError>),
    /// These boards of the node database lack posts, or may.
    GapsFound(Vec<BoardName>),
    /// A group of updates was written to the node database; `None` if it was lost.
    Applied(Option<ApplyReport>),
    /// A repair of a board ended: whether it brought posts, and whether the board still lacks
    /// some.
    Repaired { board: BoardName, progress: bool, lacks: bool },
    /// A round of repairs of sessions ended; `None` if it could not be made.
    SessionsRepaired(Option<Round>),
    /// A common key that came over this link was verified, or refused.
    KeyVerified { link: LinkId, result: Result<Arc<EpochKeys>, EpochError> },
    /// The batches of a call ended.
    Assigned(Vec<(BatchId, Written)>),
}

impl DriverInput for Input {
    fn is_urgent(&self) -> bool {
        match self {
            Self::Welcomed { .. }
            | Self::Dialed { .. }
            | Self::StorePolled(_)
            | Self::KeyVerified { .. }
            | Self::Assigned(_) => true,
            Self::Kept(_)
            | Self::HeldFound(_)
            | Self::Held { .. }
            | Self::HandedIn { .. }
            | Self::HeldLost(_)
            | Self::GapsFound(_)
            | Self::Applied(_)
            | Self::Repaired { .. }
            | Self::SessionsRepaired(_) => false,
        }
    }
}

/// Result of one poll of the store.
#[derive(Debug)]
pub(super) struct StoreView {
    /// All masters.
    pub masters: Vec<MasterRow>,
    /// Last place of every board.
    pub boards: Boards,
}
