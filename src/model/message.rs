//! Every message that nodes exchange, as data. How they are framed is `wire`'s, how they are
//! sealed `crypto`'s, how they travel `comm`'s.
//!
//! Variants are appended, never reordered: the codec numbers them.

use std::{fmt, marker::PhantomData, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor},
};

use crate::model::{
    ids::{
        Author, BoardName, Domain, NodeId, Post, PostId, Registration, Resource, Role, Seq,
        SessionKey, StoreEpoch, UserId,
    },
    outcome::Outcome,
    rows::{Holder, NewPost, Page, Permission, Range, SessionRow, StoreError},
};

/// The most tasks that one batch may hold, on any node. Received lists over this are refused:
/// a result may be one byte on the wire and a hundred in memory.
pub const BATCH_TASKS_MAX: usize = 4096;

/// Where a member stands. Ordered: of two facts of one registration the greater wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Registered with a master.
    In,
    /// Its master lost it.
    Failed,
    /// It said goodbye.
    Left,
}

/// A membership fact. The higher `(registration, state)` of one node wins everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Whom it is about.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// A worker's registration; a master's incarnation as a number.
    pub registration: Registration,
    /// Where it stands.
    pub state: MemberState,
    /// Whom a worker is registered with; a master itself.
    pub master: NodeId,
}

/// A node as the directory lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The newest fact of it.
    pub fact: Fact,
    /// A name for people.
    pub name: String,
    /// `host:port` for links; workers have none, they dial.
    pub link: Option<String>,
    /// `http://host:port`; masters only.
    pub http: Option<String>,
    /// Its identity's public key, SPKI DER.
    pub spki: Vec<u8>,
}

/// A write that a person asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// A post to a board.
    Post {
        /// Where.
        board: BoardName,
        /// What.
        post: NewPost,
    },
    /// A new board.
    CreateBoard {
        /// Its name.
        board: BoardName,
    },
    /// The author's cancelling of a post that has no outcome.
    CancelPost {
        /// Whose.
        user: UserId,
        /// Which.
        id: PostId,
    },
    /// A new session.
    OpenSession {
        /// The hash of its token.
        key: SessionKey,
        /// Who.
        user: Author,
    },
    /// Log-out.
    CloseSession {
        /// Which.
        key: SessionKey,
    },
    /// Up to where a board was read.
    SetReadMark {
        /// Whose.
        key: SessionKey,
        /// Of which board.
        board: BoardName,
        /// Up to where.
        seq: Seq,
    },
    /// A handover ticket to keep.
    PutTicket {
        /// Whose session.
        key: SessionKey,
        /// SHA-256 of the ticket.
        ticket_sha256: [u8; 32],
    },
    /// A handover ticket to spend.
    RedeemTicket {
        /// SHA-256 of the ticket.
        ticket_sha256: [u8; 32],
        /// The new session's key.
        key: SessionKey,
    },
}

impl Task {
    /// The resource whose permission covers this task when `master` does it.
    #[must_use]
    pub fn resource(&self, master: NodeId) -> Resource {
        match self {
            Self::Post { board, .. } | Self::CreateBoard { board } => {
                Resource::Board(board.clone())
            }
            _ => Resource::Sessions(master),
        }
    }

    /// About how many bytes it holds, for the bounds of batches and queues.
    #[must_use]
    pub fn weight(&self) -> usize {
        const FIXED: usize = 128;
        match self {
            Self::Post { post, .. } => FIXED + post.text.as_str().len(),
            _ => FIXED,
        }
    }
}

/// Outcome of one task of a batch that the store accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskResult {
    /// The post is in its board by this write.
    Committed {
        /// Its place in the board.
        seq: Seq,
        /// Store time of the commit, ms since the Unix epoch.
        posted_at_ms: u64,
    },
    /// The post was in its board already.
    Duplicate {
        /// Its place in the board.
        seq: Seq,
        /// Store time of the first commit, ms since the Unix epoch.
        posted_at_ms: u64,
    },
    /// The post's id stands for another text or board; nothing changed.
    Conflict,
    /// The post never appears: this task cancelled it, or it is a post that was cancelled before.
    Cancelled,
    /// The post that was to be cancelled is in its board.
    AlreadyCommitted(Box<Post>),
    /// The ticket is spent for this session.
    Session(Box<SessionRow>),
    /// Any other task is done.
    Done,
    /// A rule of the store refused the task ([`StoreError::Unknown`] or [`StoreError::Refused`]);
    /// the other tasks of its batch stand.
    Refused(Box<StoreError>),
}

/// Work for a worker: one batch under one permission, written in one transaction. The tasks of a
/// board are posts only, or one creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assign {
    /// The registration it was given to; an older one is refused.
    pub registration: Registration,
    /// Leave to write.
    pub permission: Permission,
    /// At least one, at most [`BATCH_TASKS_MAX`]. Shared: an attempt costs no copy of what
    /// people wrote.
    #[serde(deserialize_with = "shared_batch")]
    pub tasks: Arc<Vec<Task>>,
}

/// How an attempt ended, as its worker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssignReply {
    /// One result per task, in order.
    Done(#[serde(deserialize_with = "batch")] Vec<TaskResult>),
    /// The store did not answer the worker in time.
    StoreAway {
        /// What was seen.
        why: String,
    },
    /// The token is too old: this coordinator was replaced, or gave the batch to another.
    Fenced,
    /// Another error of the store: the batch's fault, not the worker's.
    Broken {
        /// What it said.
        why: String,
    },
    /// The worker has a newer registration.
    StaleRegistration,
}

/// Answer to a forwarded task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardReply {
    /// The task ended at the master that answers.
    Ended(Outcome),
    /// The master that answers does not coordinate the task's resource; nothing was done. Names
    /// the holder of its lease, if known.
    HeldBy(Option<Holder>),
}

/// A call that is answered: the S15 way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Master to worker: write this.
    Assign(Assign),
    /// Master to master: coordinate this.
    Forward(Task),
    /// Anyone to anyone: posts of a board, from memory or the node database.
    Read {
        /// Which.
        board: BoardName,
        /// What of it.
        range: Range,
        /// At most so many posts.
        limit: u32,
    },
    /// Master to worker: a session from the node database.
    Session(SessionKey),
    /// Anyone to anyone: comes back as it is; measures the way.
    Echo(Vec<u8>),
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Assign`].
    Assign(AssignReply),
    /// To [`Request::Forward`].
    Forward(ForwardReply),
    /// To [`Request::Read`]; `None` when the board is not known here.
    Page(Option<Page>),
    /// To [`Request::Session`]; `None` when it is not known here.
    Session(Option<SessionRow>),
    /// To [`Request::Echo`].
    Echo(Vec<u8>),
    /// The request is of a kind that this role does not serve.
    NotServed,
}

/// What a publish is about; nodes subscribe to topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Joins, leaves, failures.
    Membership,
    /// Posts that were committed.
    Board,
    /// Sessions opened, closed, marked.
    Session,
    /// Someone came or went.
    Presence,
    /// Announcements of common keys.
    Keys,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Membership, Self::Board, Self::Session, Self::Presence, Self::Keys];
}

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Update {
    /// Newer facts of members, with all that the directory keeps of them.
    Members(Vec<Member>),
    /// Posts that were committed, ascending and gapless.
    Posts {
        /// The store epoch that the numbers are of.
        epoch: StoreEpoch,
        /// Where.
        board: BoardName,
        /// Which.
        posts: Vec<Post>,
        /// Store time of the commit.
        as_of_ms: u64,
    },
    /// A board was created.
    BoardCreated(BoardName),
    /// A session was opened or marked.
    Session(SessionRow),
    /// A session was closed.
    SessionClosed(SessionKey),
    /// Ask for the active people again.
    PresenceChanged,
    /// A session read a board up to here.
    ReadMark {
        /// Whose.
        key: SessionKey,
        /// Which board.
        board: BoardName,
        /// Up to where; only rises.
        seq: Seq,
    },
}

impl Update {
    /// The topic that it is published on.
    #[must_use]
    pub const fn topic(&self) -> Topic {
        match self {
            Self::Members(_) => Topic::Membership,
            Self::Posts { .. } | Self::BoardCreated(_) => Topic::Board,
            Self::Session(_) | Self::SessionClosed(_) | Self::ReadMark { .. } => Topic::Session,
            Self::PresenceChanged => Topic::Presence,
        }
    }
}

/// A message that is not answered, up or down a link: the S17 way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direct {
    /// What the sender's directory holds, in short; who differs sends [`Direct::Members`].
    Digest {
        /// SHA-256, cut to 16 bytes, over the sorted facts.
        digest: [u8; 16],
    },
    /// Members that the receiver may not know, or know less of.
    Members(Vec<Member>),
    /// Master to master: news of the sender's domain, to be sealed again for the receiver's.
    Update(Update),
    /// Worker to master: how it is.
    WorkerStatus(WorkerStatus),
}

/// How a worker is, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The last place that its node database has of each board.
    pub boards: Vec<(BoardName, Seq)>,
    /// Sessions in its node database.
    pub sessions: u64,
    /// Batches it is writing.
    pub in_flight: u32,
    /// Resident memory, if the world tells.
    pub resident_bytes: u64,
}

/// Said every 500 ms on each link, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Whether the sender reaches the store.
    pub reaches_store: bool,
}

/// Why a link is being closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseReason {
    /// The sender is going away for good; this registration has left.
    Leaving,
    /// The receiver is in the sender's failed list; it may register again.
    Listed,
    /// A newer link of the same pair replaces this one.
    Replaced,
    /// The receiver broke the protocol.
    Violation,
    /// The sender has no room; try another master.
    Full,
    /// The sender is being drained or restarted; try another master.
    Draining,
    /// The receiver is denied.
    Expelled,
}

/// The last message of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// Why.
    pub reason: CloseReason,
    /// When the receiver may come back.
    pub retry_ms: u64,
}

/// What a master tells a node that it took in, besides keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The domain that the node is in now, or the other master's.
    pub domain: Domain,
    /// The directory, in pages if it is long; more follow as [`Direct::Members`].
    pub directory: Vec<Member>,
}

/// Reads a list of at most [`BATCH_TASKS_MAX`], refusing a longer one when it gets there.
fn batch<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct Batch<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Batch<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {BATCH_TASKS_MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = list.next_element()? {
                if items.len() == BATCH_TASKS_MAX {
                    return Err(A::Error::invalid_length(items.len() + 1, &self));
                }
                items.push(item);
            }
            Ok(items)
        }
    }

    from.deserialize_seq(Batch(PhantomData))
}

/// As [`batch`], shared.
fn shared_batch<'de, D, T>(from: D) -> Result<Arc<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    batch(from).map(Arc::new)
}
