//! Active people, and the cluster as people and as operators see it.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::model::{
    absence::AwayReason,
    ids::{
        BoardName, Domain, Fingerprint, KeyEpoch, NodeId, Registration, Role, Seq, StoreEpoch,
        Token, TokenId, UserId, UserName,
    },
    message::MemberState,
    names,
    refusal::Refusal,
    rows::ActiveUser,
    stream::Consistency,
};

/// An active person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Public id.
    pub id: UserId,
    /// Name for people; not unique.
    pub name: UserName,
    /// The same for all names that look like this one; left out where it is the name itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look: Option<String>,
    /// Store time since which the person is active.
    pub since: u64,
    /// Store time at which the person was last seen.
    pub last_seen: u64,
}

impl From<&ActiveUser> for User {
    fn from(active: &ActiveUser) -> Self {
        let look = names::look(active.user.name.as_str());
        Self {
            id: active.user.id,
            name: active.user.name.clone(),
            look: (look != active.user.name.as_str()).then_some(look),
            since: active.since_ms,
            last_seen: active.last_seen_ms,
        }
    }
}

/// Answer of `GET /api/v1/users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserList {
    /// Active people, ordered by name, then id; the first of them if a limit was asked for.
    pub users: Vec<User>,
    /// `after` of the question for the next people; absent at the end of the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Number of all active people; 0 from a master of an earlier version.
    #[serde(default)]
    pub total: u64,
    /// Version of which a stream's next change goes on; 0 from a master of an earlier version.
    #[serde(default)]
    pub version: u64,
    /// How much the answer may be trusted.
    pub consistency: Consistency,
}

/// Whether a master reaches the shared store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreReach {
    /// The store answers.
    Here,
    /// The store does not answer.
    Away,
}

impl From<Consistency> for StoreReach {
    fn from(of_reads: Consistency) -> Self {
        match of_reads {
            Consistency::Strong => Self::Here,
            Consistency::Weak => Self::Away,
        }
    }
}

impl fmt::Display for StoreReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here => "here",
            Self::Away => "away",
        })
    }
}

/// Absence of the shared store, for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreAbsence {
    /// Reason.
    pub reason: AwayReason,
    /// Symptom, such as the process that holds the lock.
    pub why: String,
}

/// Answer of `GET /api/v1/cluster`: the cluster as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The master asked.
    pub node: NodeId,
    /// Whether it reaches the store.
    pub store: StoreReach,
    /// Reason why it is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_reason: Option<AwayReason>,
    /// Number of the common key of the master's domain; 0 from a master of an earlier version.
    #[serde(default)]
    pub key_epoch: KeyEpoch,
    /// Time since which that key is in use, in milliseconds.
    #[serde(default)]
    pub key_age_ms: u64,
    /// Masters first, then by id.
    pub nodes: Vec<Node>,
}

/// A node as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its name for people.
    pub name: String,
    /// Master or worker.
    pub role: Role,
    /// In, failed or left.
    pub state: MemberState,
    /// Master that a worker is registered with; a master itself.
    pub master: NodeId,
    /// Address of its front end, masters only.
    pub http: Option<String>,
    /// Whether it reaches the store, by its last report; `None` without a link to the master asked.
    pub reaches_store: Option<bool>,
    /// Why and how often it failed, while it is on the failed list of the master asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<NodeFailure>,
}

/// Failure of a node as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFailure {
    /// Reason, for people.
    pub why: String,
    /// How often the node has been listed.
    pub times: u32,
}

impl Node {
    /// Returns a node as people see it, with what a master's failed list says of this registration.
    #[must_use]
    pub fn new(node: NodeState, failed: &[FailedNode]) -> Self {
        let is_it = |entry: &&FailedNode| {
            (entry.id, entry.registration) == (node.id, node.registration)
                && node.state == MemberState::Failed
        };
        let failed = failed.iter().find(is_it);
        let failed = failed.map(|entry| NodeFailure { why: entry.why.clone(), times: entry.times });
        let NodeState { id, name, role, state, master, http, reaches_store, .. } = node;
        Self { id, name, role, state, master, http, reaches_store, failed }
    }
}

/// Answer of `GET /api/v1/admin/cluster`: the cluster as one master sees it, for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// The master asked.
    pub node: NodeId,
    /// Its domain.
    pub domain: Domain,
    /// Number of its common key.
    pub key_epoch: KeyEpoch,
    /// State of its common key.
    #[serde(default)]
    pub keys: KeyState,
    /// The store's epoch, as last read.
    pub store_epoch: StoreEpoch,
    /// Strong if the master reaches the store.
    pub store: Consistency,
    /// Absence of the store that lasts now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_away: Option<StoreAbsence>,
    /// How often the store went in this life of the master, by reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub store_absences: Vec<(AwayReason, u64)>,
    /// Refusals of strangers and faulty nodes in this life of the master, by kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<(Refusal, u64)>,
    /// All nodes, masters first, then by id.
    pub nodes: Vec<NodeState>,
    /// Its failed list.
    pub failed: Vec<FailedNode>,
    /// Its queues.
    pub queues: Vec<QueueState>,
    /// Boards and the places of their last posts, as the master knows them.
    #[serde(default)]
    pub boards: Vec<(BoardName, Seq)>,
    /// Number of open streams.
    pub streams: usize,
}

/// State of a domain's common key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyState {
    /// Time since which the key is in use, in milliseconds.
    pub age_ms: u64,
    /// Number of the key that is being installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installing: Option<KeyEpoch>,
    /// Workers that do not hold the newest key yet.
    pub lacking: Vec<NodeId>,
    /// How often the key was refreshed in this life of the master.
    pub refreshes: u64,
    /// How often a worker was sent a second key for an epoch. Above 0, somebody forges keys or a
    /// master is faulty.
    pub alarms: u64,
}

/// A node as operators see it: a [`Node`] and its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its id.
    pub id: NodeId,
    /// Its name for people.
    pub name: String,
    /// Master or worker.
    pub role: Role,
    /// Registration of a worker, incarnation of a master.
    pub registration: Registration,
    /// In, failed or left.
    pub state: MemberState,
    /// Master that a worker is registered with; a master itself.
    pub master: NodeId,
    /// Address of its front end, masters only.
    pub http: Option<String>,
    /// Whether it reaches the store, by its last report; `None` without a link to the master asked.
    pub reaches_store: Option<bool>,
    /// Number of batches that it is writing for the master asked.
    pub in_flight: u32,
    /// Resident memory in bytes, by its last report to the master asked.
    #[serde(default)]
    pub resident_bytes: Option<u64>,
    /// Number of posts that wait for the store on its disk, by its last report to the master asked.
    #[serde(default)]
    pub held_posts: u32,
    /// Release that it runs; absent without a link to the master asked, or from an earlier release
    /// that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
}

/// An entry of a master's failed list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedNode {
    /// The worker.
    pub id: NodeId,
    /// Its registration at that time.
    pub registration: Registration,
    /// Reason, for people.
    pub why: String,
    /// Time since it was listed, in milliseconds.
    pub for_ms: u64,
    /// How often it has been listed.
    pub times: u32,
}

/// Holder of a resource's lease, as the master asked knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseOwner {
    /// The master asked holds it.
    Mine,
    /// Another master holds it.
    Other,
    /// No master is known to hold it.
    Nobody,
}

impl fmt::Display for LeaseOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mine => "mine",
            Self::Other => "other",
            Self::Nobody => "nobody",
        })
    }
}

/// Queue of one resource at the master asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// The resource, such as `board:lobby`.
    pub resource: String,
    /// Holder of its lease, relative to the master asked.
    pub held: LeaseOwner,
    /// The master that holds its lease, if known.
    pub holder: Option<NodeId>,
    /// Newest token, if it is the asked master's.
    pub token: Option<Token>,
    /// Number of waiting tasks.
    pub waiting: usize,
    /// Number of tasks in the batch that is being written.
    pub in_flight: usize,
}

/// Answer of `POST /api/v1/admin/tokens`: the lines of a new worker's settings. As secret as its
/// token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinInvitation {
    /// Join token, for as many workers as its terms say.
    pub token: String,
    /// Addresses at which masters take nodes, `host:port`.
    pub masters: Vec<String>,
    /// Fingerprints of the masters' keys.
    pub pins: Vec<Fingerprint>,
}

impl Drop for JoinInvitation {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

impl fmt::Debug for JoinInvitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinInvitation").field("masters", &self.masters).finish_non_exhaustive()
    }
}

/// Answer of `GET /api/v1/admin/tokens`: the join tokens that have not ended, by id. Nothing of it
/// lets its reader join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenList {
    /// Store time of the answer, ms.
    pub now: u64,
    /// The tokens.
    pub tokens: Vec<JoinTokenState>,
}

/// A join token that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenState {
    /// Its public id.
    pub id: TokenId,
    /// Role that it enrols.
    pub role: Role,
    /// Number of nodes that it still enrols; 0: those that it enrolled may still come back with it.
    pub uses_left: u32,
    /// Store time at which it ends, ms.
    pub ends_at: u64,
}

/// Stage of a master's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MasterState {
    /// The master registers in the store, or has never read there which boards there are: it could
    /// open no stream.
    Starting,
    /// The master serves requests.
    Serving,
    /// The master hands its work to others.
    Draining,
    /// The master does not answer its own front end any more.
    Stopped,
}

/// Answer of `POST /api/v1/admin/drain` and `POST /api/v1/admin/nodes/{id}/drain`: the node hands over its
/// people, its work and the posts that it holds, then ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// Longest time that this takes, in milliseconds.
    pub within_ms: u64,
}

/// Answer of `GET /readyz`: whether a page or a load balancer should use this master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether it should be used: a 200 if so, else a 503.
    pub ready: bool,
    /// Stage of its life.
    pub state: MasterState,
    /// Whether it reaches the store.
    pub store: StoreReach,
    /// Reason why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_reason: Option<AwayReason>,
}
