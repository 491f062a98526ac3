//! Events that a node records about itself, the same in both worlds, and fault points.
//!
//! The oracles of G8 to G11, G13 and G14 read the event lines, and an operator's log shows them. The
//! world adds the node, its role and the time.

use serde::{Deserialize, Serialize};

use crate::model::{
    ids::{
        Domain, Fingerprint, Incarnation, KeyEpoch, NodeId, PostId, Registration, Resource, Role,
        Token,
    },
    message::MemberState,
};

/// Reason why a master refreshes its domain's common key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshReason {
    /// The key in use has reached its age.
    Interval,
    /// A member left or failed.
    MemberGone,
    /// A member was expelled.
    MemberExpelled,
}

/// One event line. JSON: `{"event":"join", ..}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A worker registered with this master, or this worker registered with `master`.
    Join {
        /// The worker.
        node: NodeId,
        /// Its registration.
        registration: Registration,
        /// The master.
        master: NodeId,
    },
    /// This master is being drained: it was asked to end.
    Drain {
        /// Whether there is another master that its work goes to.
        hands_over: bool,
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
        /// Symptom, for logs.
        why: String,
    },
    /// This master denies a node from now on: it was expelled.
    Expel {
        /// The node.
        node: NodeId,
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
        /// Workers that were in it.
        nodes: Vec<NodeId>,
    },
    /// This node learnt a newer fact about another.
    Announce {
        /// Subject of the fact.
        node: NodeId,
        /// Its role.
        role: Role,
        /// Registration of a worker, incarnation of a master.
        registration: Registration,
        /// In, failed or left.
        state: MemberState,
        /// Master that a worker is registered with; the master itself for a master.
        master: NodeId,
    },
    /// This master sent a batch to a worker.
    Assign {
        /// The worker.
        worker: NodeId,
        /// Its registration.
        registration: Registration,
        /// Resource that the permission covers.
        resource: Resource,
        /// The permission's token.
        token: Token,
        /// `n` of the batch that must be written right before it, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
        /// The posts' ids; empty for other tasks.
        posts: Vec<PostId>,
        /// Number of the attempt of this batch, from 1.
        attempt: u32,
    },
    /// This master began to install a new common key at its members.
    KeyRefresh {
        /// Domain of the key.
        domain: Domain,
        /// Number of the key.
        epoch: KeyEpoch,
        /// Reason of the refresh.
        why: RefreshReason,
    },
    /// This node holds a common key from now on.
    KeyHeld {
        /// Domain of the key.
        domain: Domain,
        /// Number of the key.
        epoch: KeyEpoch,
        /// Fingerprint of the key's announcement.
        print: Fingerprint,
    },
    /// This node erased a common key.
    KeyErased {
        /// Domain of the key.
        domain: Domain,
        /// Number of the key.
        epoch: KeyEpoch,
    },
    /// This node was sent another key for an epoch that it holds. Its master is faulty, or the key
    /// is forged.
    KeyAlarm {
        /// Domain of the key.
        domain: Domain,
        /// Number of the key.
        epoch: KeyEpoch,
    },
    /// This node refused an envelope that was forged, or that came twice; said once while an epoch
    /// is in use. A member is faulty, or somebody sends again what it recorded.
    EnvelopeAlarm {
        /// Domain of the key in use.
        domain: Domain,
        /// Number of the key in use.
        epoch: KeyEpoch,
    },
    /// This node lacks envelopes of its master that were published before one that arrived; said once
    /// while an epoch is in use. It looks for the posts that were in them.
    FanoutLost {
        /// Domain of the key in use.
        domain: Domain,
        /// Number of the key in use.
        epoch: KeyEpoch,
        /// Number of the envelopes that are lacking so far.
        missed: u64,
    },
    /// This master left a member out of a publish, since too much waits for it already; said once for
    /// a link while an epoch is in use.
    FanoutFull {
        /// The member.
        node: NodeId,
    },
    /// This node uses a common key from now on.
    Epoch {
        /// Domain of the key.
        domain: Domain,
        /// Number of the key.
        epoch: KeyEpoch,
    },
    /// This master became ready.
    Start {
        /// Incarnation that the store issued.
        incarnation: Incarnation,
    },
}

/// Point where a fault is likely to matter. Stories name them in `when`.
///
/// Each is announced once for each batch, post, lease or worker that it tells of. Stories may
/// name all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultPoint {
    /// A master sent a batch to a worker.
    AssignSent,
    /// The store committed a batch with at least one new post; its worker has not answered yet.
    /// Announced by the store's host.
    AppendCommitted,
    /// A master told a client that its post is committed.
    AckSent,
    /// A master took a lease.
    LeaseGranted,
    /// A batch went to a further worker under a higher token.
    TokenRaised,
    /// A master sent a new common key to its members.
    KeyInstallSent,
    /// A pending post is durable on a worker's disk.
    PendingHeld,
    /// A worker lost its master and began to search for another.
    WorkerMigrating,
}

impl FaultPoint {
    /// Returns the name that a world hears and that stories use, such as `assign_sent`.
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
