//! The JSON of the front end, as its clients read it.
//!
//! Fields that are not listed are ignored, so that an older client lives with a newer master.
//! Times are milliseconds since the Unix epoch, store time.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    message::MemberState,
    types::{
        Author, BoardName, Domain, KeyEpoch, NodeId, PostId, PostText, Registration, Role, Seq,
        StoreEpoch, Token,
    },
};

/// How much an answer may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The store was asked after the request arrived.
    Strong,
    /// From a replica; it may be behind.
    Weak,
}

/// A master as clients know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Master {
    /// Its id.
    pub id: NodeId,
    /// A name for people.
    pub name: String,
    /// `http://host:port`.
    pub http: String,
}

/// A board as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardEnd {
    /// Its name.
    pub name: BoardName,
    /// Its last place.
    pub last_seq: Seq,
    /// Up to where this session read it.
    #[serde(default)]
    pub read_mark: Seq,
}

/// `POST /api/v1/sessions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The session's secret; absent when it went into a cookie.
    #[serde(default)]
    pub token: Option<String>,
    /// Who one is now.
    pub user: Author,
    /// All boards.
    pub boards: Vec<BoardEnd>,
    /// All masters.
    pub masters: Vec<Master>,
    /// The store's epoch.
    pub epoch: StoreEpoch,
}

/// `GET /api/v1/session`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Who one is.
    pub user: Author,
    /// All boards.
    pub boards: Vec<BoardEnd>,
    /// Posts that are not in the store yet.
    pub pending: Vec<PostId>,
    /// The store's epoch.
    pub epoch: StoreEpoch,
    /// How much to trust it.
    pub consistency: Consistency,
}

/// `GET /api/v1/boards`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardList {
    /// All boards.
    pub boards: Vec<BoardEnd>,
    /// The store's epoch.
    pub epoch: StoreEpoch,
    /// How much to trust it.
    pub consistency: Consistency,
}

/// A post that is in its board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// The client's id of it.
    pub id: PostId,
    /// Where it stands.
    pub board: BoardName,
    /// Its place there.
    pub seq: Seq,
    /// Who wrote it.
    pub author: Author,
    /// What it says.
    pub text: PostText,
    /// When it was committed.
    pub posted_at: u64,
}

/// `GET /api/v1/boards/{board}/posts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Ascending, gapless.
    pub posts: Vec<Posted>,
    /// The board's last place.
    pub last_seq: Seq,
    /// The store's epoch.
    pub epoch: StoreEpoch,
    /// How much to trust it.
    pub consistency: Consistency,
    /// Up to when the answering node has all of the board.
    pub as_of: u64,
    /// Whether there is more.
    pub truncated: bool,
}

/// `GET` and `DELETE /api/v1/posts/{id}`, and the 202 of a post.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    /// `committed`, `pending`, `cancelled`.
    pub state: String,
    /// Its place, when it is committed.
    #[serde(default)]
    pub seq: Option<Seq>,
    /// On how many disks it waits, when it is pending.
    #[serde(default)]
    pub copies: Option<u32>,
}

/// One active person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivePerson {
    /// The public id.
    pub id: crate::types::UserId,
    /// The name, not unique.
    pub name: crate::types::UserName,
    /// Active since.
    pub since: u64,
    /// Last seen.
    pub last_seen: u64,
}

/// `GET /api/v1/users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// Active people across the system.
    pub users: Vec<ActivePerson>,
    /// How much to trust it.
    pub consistency: Consistency,
}

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

/// `GET /api/v1/cluster`: what people may know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The master asked.
    pub node: NodeId,
    /// `here` or `away`.
    pub store: String,
    /// Everyone, masters first.
    pub nodes: Vec<NodeSeen>,
}

/// A node as people may know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSeen {
    /// Its id.
    pub id: NodeId,
    /// A name for people.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// In, failed or left.
    pub state: MemberState,
    /// Whom it is registered with.
    pub master: NodeId,
    /// Front end, masters only.
    pub http: Option<String>,
    /// What it last said of the store; `None` when it is not linked to the master asked.
    pub reaches_store: Option<bool>,
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
        let parts = [&self.title, &self.detail, &self.kind];
        let text = parts.iter().find(|part| !part.is_empty());
        match (text, self.detail.is_empty()) {
            (Some(title), false) if **title != self.detail => {
                write!(f, "{title}: {}", self.detail)
            }
            (Some(text), _) => f.write_str(text),
            (None, _) => f.write_str("no reason given"),
        }
    }
}
