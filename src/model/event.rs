//! What a node says of itself: event lines, the same in both worlds, and moments.
//!
//! Event lines are what the oracles of G8 to G11 and G13 read, and what an operator's log
//! shows. The world adds the node, its role and the time.

use serde::{Deserialize, Serialize};

use crate::model::{
    ids::{Domain, Incarnation, KeyEpoch, NodeId, PostId, Registration, Resource, Role, Token},
    message::MemberState,
};

/// One line. JSON: `{"event":"join", ..}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// This master took a worker in, or this worker was taken in by `master`.
    Join {
        /// The worker.
        node: NodeId,
        /// Its registration.
        registration: Registration,
        /// The master.
        master: NodeId,
    },
    /// A worker said goodbye to this master.
    Leave {
        /// The worker.
        node: NodeId,
        /// The registration that ended.
        registration: Registration,
    },
    /// This master declared a worker failed.
    Fail {
        /// The worker.
        node: NodeId,
        /// The registration that ended.
        registration: Registration,
        /// What was seen.
        why: String,
    },
    /// A worker entered this master's failed list.
    List {
        /// The worker.
        node: NodeId,
        /// The registration it was listed under.
        registration: Registration,
    },
    /// This master swept its failed list.
    Sweep {
        /// Who was in it.
        nodes: Vec<NodeId>,
    },
    /// This node learnt a newer fact of another.
    Announce {
        /// Whom the fact is about.
        node: NodeId,
        /// What it is.
        role: Role,
        /// A worker's registration; a master's incarnation.
        registration: Registration,
        /// In, failed or left.
        state: MemberState,
        /// Whom a worker is registered with; a master itself.
        master: NodeId,
    },
    /// This master sent a batch to a worker.
    Assign {
        /// The worker.
        worker: NodeId,
        /// Its registration.
        registration: Registration,
        /// What the permission covers.
        resource: Resource,
        /// The permission's token.
        token: Token,
        /// The posts' ids; empty for other tasks.
        posts: Vec<PostId>,
        /// Which attempt of this batch, from 1.
        attempt: u32,
    },
    /// This node uses a common key.
    Epoch {
        /// Whose key.
        domain: Domain,
        /// Its number.
        epoch: KeyEpoch,
    },
    /// This master became ready with this incarnation.
    Start {
        /// Issued by the store.
        incarnation: Incarnation,
    },
}

/// A point at which a fault is most instructive. Stories name them in `when`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultPoint {
    /// A batch left for a worker.
    AssignSent,
    /// The store committed an append; its worker has not answered yet. Announced where the store
    /// is, and again by the worker when it hears of it: two of a kind per append.
    AppendCommitted,
    /// A client was told that its post is in.
    AckSent,
    /// A master took a lease.
    LeaseGranted,
    /// A batch went to a further worker under a higher token.
    TokenRaised,
    /// A new common key left for the members.
    KeyInstallSent,
    /// A pending post is on a worker's disk.
    PendingHeld,
    /// A worker lost its master and searches for another.
    WorkerMigrating,
}

impl FaultPoint {
    /// The name that a world hears and that stories use, such as `assign_sent`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AssignSent => "assign_sent",
            Self::AppendCommitted => "append_committed",
            Self::AckSent => "ack_sent",
            Self::LeaseGranted => "lease_granted",
            Self::TokenRaised => "token_raised",
            Self::KeyInstallSent => "key_install_sent",
            Self::PendingHeld => "pending_held",
            Self::WorkerMigrating => "worker_migrating",
        }
    }
}
