//! The JSON of the front end, as its clients read it: the front end's own shapes, and what only
//! a reader needs.
//!
//! Fields that are not listed are ignored, so that an older client lives with a newer master.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{
    ids::{Domain, KeyEpoch, NodeId, Registration, Role, StoreEpoch, Token},
    message::MemberState,
};
pub use crate::{
    http::shape::{
        BoardList, BoardShape, ClusterShape, NodeShape, PostList, PostShape, PostState,
        SessionOpened, SessionRestored, UserList, UserShape,
    },
    node::handle::{Consistency, MasterInfo},
};

/// One node of the cluster, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// A name for people.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// A worker's registration, a master's incarnation.
    pub registration: Registration,
    /// In, failed or left.
    pub state: MemberState,
    /// Whom it is registered with.
    pub master: NodeId,
    /// Front end, masters only.
    pub http: Option<String>,
    /// What it last said of the store; `None` when it is not linked to the master asked.
    pub reaches_store: Option<bool>,
    /// Batches it is writing for the master asked.
    pub in_flight: u32,
    /// Its resident memory, as it last told the master asked.
    #[serde(default)]
    pub resident_bytes: Option<u64>,
}

/// One failed worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Who.
    pub id: NodeId,
    /// Its registration then.
    pub registration: Registration,
    /// What was seen.
    pub why: String,
    /// How long ago.
    pub for_ms: u64,
    /// How often so far.
    pub times: u32,
}

/// One resource in the asked master's hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Which.
    pub resource: String,
    /// `mine`, `other` or `nobody`.
    pub held: String,
    /// Who holds its lease, if known.
    pub holder: Option<NodeId>,
    /// The newest token, if it is the asked master's.
    pub token: Option<Token>,
    /// Tasks waiting.
    pub waiting: usize,
    /// Tasks in the batch being written.
    pub in_flight: usize,
}

/// `GET /api/v1/admin/cluster`: what operators may know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// The master asked.
    pub node: NodeId,
    /// Its domain.
    pub domain: Domain,
    /// Its common key's number.
    pub key_epoch: KeyEpoch,
    /// The store's epoch.
    pub store_epoch: StoreEpoch,
    /// Whether it reaches the store.
    pub store: Consistency,
    /// Everyone.
    pub nodes: Vec<Node>,
    /// Its failed list.
    pub failed: Vec<Failed>,
    /// Its queues.
    pub queues: Vec<Queue>,
    /// Open streams.
    pub streams: usize,
}

/// `application/problem+json`. What is not one is shown as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The stable name, such as `outcome-unknown`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// For people.
    #[serde(default)]
    pub title: String,
    /// What was wrong.
    #[serde(default)]
    pub detail: String,
}

impl Problem {
    /// Reads a body, whatever it is.
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_else(|_| {
            let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
            Self { detail: text, ..Self::default() }
        })
    }

    /// The last part of the type: problem types may be URLs.
    #[must_use]
    pub fn name(&self) -> &str {
        self.kind.rsplit(['/', ':', '#']).next().unwrap_or_default()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [self.detail.as_str(), &self.title, &self.kind, "no reason given"];
        // The most telling one that there is.
        f.write_str(parts.into_iter().find(|part| !part.is_empty()).unwrap_or_default())
    }
}
