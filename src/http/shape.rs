//! The JSON that travels between people's programs and a master. Times are milliseconds of the
//! store's clock since the Unix epoch.

use serde::{Deserialize, Serialize};

use crate::{
    model::{
        ids::{
            Author, BoardName, NodeId, Post, PostId, PostText, Role, Seq, StoreEpoch, UserId,
            UserName,
        },
        rows::{ActiveUser, Boards, Page, SessionRow},
    },
    node::handle::{Consistency, MasterInfo},
};

/// `POST /api/v1/sessions`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenSession {
    /// 1 to 40 code points.
    pub name: String,
    /// The token in a cookie instead of the answer.
    #[serde(default)]
    pub cookie: bool,
}

/// The answer to opening a session, and to redeeming a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpened {
    /// The secret; not there when it went into a cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Who one is now.
    pub user: Author,
    /// All boards.
    pub boards: Vec<BoardShape>,
    /// All masters.
    pub masters: Vec<MasterInfo>,
    /// The store's epoch.
    pub epoch: StoreEpoch,
    /// The cluster's id, 32 hex digits.
    pub cluster: String,
}

/// A restored session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRestored {
    /// Who one is.
    pub user: Author,
    /// All boards.
    pub boards: Vec<BoardShape>,
    /// Posts of one's own that are taken but not in the store yet.
    pub pending: Vec<PostId>,
    /// All masters.
    pub masters: Vec<MasterInfo>,
    /// The store's epoch.
    pub epoch: StoreEpoch,
    /// How much to trust it.
    pub consistency: Consistency,
    /// Up to when it is known to be complete.
    pub as_of: u64,
    /// The cluster's id, 32 hex digits.
    pub cluster: String,
}

/// A board in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardShape {
    /// Its name.
    pub name: BoardName,
    /// Its last post's place; 0 when it is empty.
    pub last_seq: Seq,
    /// Up to where the asker read it.
    pub read_mark: Seq,
}

/// Boards with the read marks of whoever asks.
#[must_use]
pub fn boards_of(boards: &Boards, session: Option<&SessionRow>) -> Vec<BoardShape> {
    let mark = |name: &BoardName| {
        let marks = session.map_or(&[][..], |session| &session.read_marks);
        marks.iter().find(|(board, _)| board == name).map_or(Seq(0), |(_, seq)| *seq)
    };
    let shape = |(name, last_seq): &(BoardName, Seq)| BoardShape {
        name: name.clone(),
        last_seq: *last_seq,
        read_mark: mark(name),
    };
    boards.boards.iter().map(shape).collect()
}

/// `GET /api/v1/boards`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardList {
    /// In the order of names.
    pub boards: Vec<BoardShape>,
    /// The store's epoch.
    pub epoch: StoreEpoch,
    /// How much to trust it.
    pub consistency: Consistency,
    /// Up to when it is known to be complete.
    pub as_of: u64,
}

/// `POST /api/v1/boards/{board}/posts`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WritePost {
    /// A UUID of the client's.
    pub id: String,
    /// 1 byte to 8 KiB without U+0000.
    pub text: String,
}

/// A post that is in its board for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostShape {
    /// Its author's id of it.
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

impl From<Post> for PostShape {
    fn from(post: Post) -> Self {
        let Post { id, board, seq, author, text, posted_at_ms } = post;
        Self { id, board, seq, author, text, posted_at: posted_at_ms }
    }
}

/// `GET /api/v1/boards/{board}/posts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostList {
    /// Ascending, gapless.
    pub posts: Vec<PostShape>,
    /// The board's last place.
    pub last_seq: Seq,
    /// The store's epoch.
    pub epoch: StoreEpoch,
    /// How much to trust it.
    pub consistency: Consistency,
    /// Up to when it is known to be complete.
    pub as_of: u64,
    /// Whether there are more in the direction asked for.
    pub truncated: bool,
}

impl PostList {
    /// A page as an answer.
    #[must_use]
    pub fn new(page: Page, consistency: Consistency, truncated: bool) -> Self {
        Self {
            posts: page.posts.into_iter().map(PostShape::from).collect(),
            last_seq: page.last_seq,
            epoch: page.epoch,
            consistency,
            as_of: page.as_of_ms,
            truncated,
        }
    }
}

/// What became of a post id: `GET` and `DELETE /api/v1/posts/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum PostState {
    /// In its board.
    Committed(PostShape),
    /// Taken, and not in the store yet; also the 202 of a post.
    Pending {
        /// Which.
        id: PostId,
        /// On how many disks it waits.
        copies: u32,
    },
    /// It never appears.
    Cancelled {
        /// Which.
        id: PostId,
    },
}

/// `PUT /api/v1/boards/{board}/read-mark`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ReadMark {
    /// Up to where.
    pub seq: Seq,
}

/// `POST /api/v1/handover`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TicketIssued {
    /// Good once, for five minutes.
    pub ticket: String,
}

/// `POST /api/v1/handover/redeem`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RedeemTicket {
    /// As issued.
    pub ticket: String,
}

/// An active person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserShape {
    /// The public id.
    pub id: UserId,
    /// Not unique.
    pub name: UserName,
    /// Active since.
    pub since: u64,
    /// Last seen.
    pub last_seen: u64,
}

impl From<&ActiveUser> for UserShape {
    fn from(active: &ActiveUser) -> Self {
        Self {
            id: active.user.id,
            name: active.user.name.clone(),
            since: active.since_ms,
            last_seen: active.last_seen_ms,
        }
    }
}

/// `GET /api/v1/users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserList {
    /// Ordered by name, then id.
    pub users: Vec<UserShape>,
    /// How much to trust it.
    pub consistency: Consistency,
}

/// `GET /api/v1/cluster`: what people may know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterShape {
    /// The master asked.
    pub node: NodeId,
    /// `here` or `away`.
    pub store: String,
    /// Masters first, then by id.
    pub nodes: Vec<NodeShape>,
}

/// A node as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeShape {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Master or worker.
    pub role: Role,
    /// `in`, `failed` or `left`.
    pub state: crate::model::message::MemberState,
    /// Whom it is registered with.
    pub master: NodeId,
    /// A master's front end.
    pub http: Option<String>,
    /// What it last said; null when it is not linked to the master asked.
    pub reaches_store: Option<bool>,
}

/// `hello` of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HelloEvent {
    /// The master that serves it.
    pub node: MasterInfo,
    /// All masters.
    pub masters: Vec<MasterInfo>,
    /// From where each followed board is delivered: `EPOCH;board:seq,..`.
    pub cursor: String,
    /// Between two beats; after two missed ones move on.
    pub beat_ms: u64,
}

/// `pending` of a stream: the fate of a post of the reader's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingEvent {
    /// Which.
    pub id: PostId,
    /// `pending`, `committed`, `cancelled`, `rejected`, `dead-letter`.
    pub state: String,
}

/// `presence` of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PresenceEvent {
    /// Ordered by name, then id.
    pub users: Vec<UserShape>,
}

/// `state` of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateEvent {
    /// Whether the master reaches the store.
    pub consistency: Consistency,
}

/// `masters` of a stream: the list changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MastersEvent {
    /// All masters.
    pub masters: Vec<MasterInfo>,
}

/// `reset` of a stream: drop the list, read again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResetEvent {
    /// `epoch`, `ahead` or `malformed`.
    pub reason: String,
}

/// `bye` of a stream, its last event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ByeEvent {
    /// `slow`, `draining`, `logged-out`, `unavailable`, `overloaded`.
    pub reason: String,
    /// Masters to go to.
    pub to: Vec<MasterInfo>,
    /// When.
    pub retry_ms: u64,
}
