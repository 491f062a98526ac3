//! Requests of sessions to a master: each carries the session's key and comes as one message. The
//! master finds the session before it serves the request.

use tokio::sync::oneshot;

use crate::{
    api::{ClusterState, HelloEvent},
    model::{
        ids::{Author, BoardName, Cursor, PostId, PostText, Seq, SessionKey},
        message::Task,
        outcome::Outcome,
        rows::{ActiveUser, Boards, Found, NewPost, Page, Range, SessionRow},
        shared::Shared,
        stream::{Consistency, Delivery, ResetReason},
    },
};

/// Reason why a request is not served; nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The session was closed, or never was. HTTP 401.
    Unauthorised,
    /// The session is another user's than the one named. HTTP 401.
    OtherUser,
    /// The store says that there is no such thing. HTTP 404.
    Unknown,
    /// The store is away and no replica here has it. HTTP 503.
    Away,
    /// Too many requests wait. HTTP 429.
    Overloaded,
}

/// Way back for the answer to a request.
pub type Reply<T> = oneshot::Sender<Result<T, RequestError>>;

/// Answer to a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    /// The value that was read.
    pub value: T,
    /// How far it may be trusted.
    pub consistency: Consistency,
}

/// Active people of the whole system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct People {
    /// Version that streams were told last; the list may be newer, and goes on with the next.
    pub version: u64,
    /// The people, ordered by name, then id.
    pub users: Shared<Vec<ActiveUser>>,
}

/// Form in which a stream tells who is active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PresenceForm {
    /// A window first, then each version's changes.
    #[default]
    Changes,
    /// The whole list, at each change.
    Lists,
}

/// Restored session, with all that its page begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The session.
    pub session: SessionRow,
    /// All boards.
    pub boards: Boards,
    /// Posts of this user that are not in the store yet.
    pub pending: Vec<PostId>,
}

/// Fate of a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The store's answer.
    Stored(Found),
    /// The post waits for the store.
    Pending {
        /// Number of disks on which it waits.
        copies: u32,
    },
}

impl Read<Boards> {
    /// Returns the answer for a session that was read no later than these boards.
    #[must_use]
    pub fn restored(self, session: SessionRow, pending: Vec<PostId>) -> Read<Restored> {
        let value = Restored { session, boards: self.value, pending };
        Read { value, consistency: self.consistency }
    }
}

/// End of a session's write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Person whose session wrote.
    pub author: Author,
    /// Outcome of the write.
    pub outcome: Outcome,
}

/// Reading end of an open stream.
#[derive(Debug)]
pub struct StreamHandle {
    /// First event.
    pub hello: HelloEvent,
    /// Reset that comes second, and before all else.
    pub reset: Option<FirstReset>,
    /// All that follows. The master closes it without a [`Delivery::Bye`] when the reader is too
    /// slow.
    pub deliveries: tokio::sync::mpsc::Receiver<Delivery>,
    /// Guard by whose drop the master learns that the reader is gone.
    pub guard: StreamGuard,
}

/// Reset with which a stream begins: its cursor names places that this store does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstReset {
    /// The reason.
    pub reason: ResetReason,
    /// Cursor that was asked with, unless it did not parse.
    pub asked: Option<Cursor>,
}

/// Guard of an open stream: the master notices its drop.
#[derive(Debug)]
pub struct StreamGuard {
    /// Sender that is only dropped, never used.
    pub _gone: oneshot::Sender<()>,
}

/// Write that a session asks for. The master adds whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the task of its name without its session")]
pub enum Write {
    Post { board: BoardName, id: PostId, text: PostText },
    CancelPost { id: PostId },
    CreateBoard { board: BoardName },
    CloseSession,
    SetReadMark { board: BoardName, seq: Seq },
    PutTicket { ticket_sha256: [u8; 32] },
}

impl Write {
    /// Returns the task of this write for a session of `author`.
    #[must_use]
    pub fn into_task(self, key: SessionKey, author: &Author) -> Task {
        match self {
            Self::Post { board, id, text } => {
                Task::Post { board, post: NewPost { id, author: author.clone(), text } }
            }
            Self::CancelPost { id } => Task::CancelPost { user: author.id, id },
            Self::CreateBoard { board } => Task::CreateBoard { board },
            Self::CloseSession => Task::CloseSession { key },
            Self::SetReadMark { board, seq } => Task::SetReadMark { key, board, seq },
            Self::PutTicket { ticket_sha256 } => Task::PutTicket { key, ticket_sha256 },
        }
    }
}

/// Request of a session. Dropping the reply's receiver withdraws interest, not a write, unless its session
/// has yet to be looked up.
#[derive(Debug)]
pub enum SessionRequest {
    /// Note that the session's page is there.
    Alive {
        /// Way back.
        reply: Reply<()>,
    },
    /// Queue a write; answer with its outcome, at most `request_timeout` later. A post marks its
    /// session active even without an open stream.
    Write {
        /// Content of the write.
        write: Write,
        /// Way back.
        reply: Reply<Written>,
    },
    /// Read the session and all boards.
    Restore {
        /// Way back.
        reply: Reply<Read<Restored>>,
    },
    /// Read posts of a board. A read that is wanted weak is answered by a worker's node database.
    Posts {
        /// Board to read.
        board: BoardName,
        /// Range to read.
        range: Range,
        /// Largest number of posts.
        limit: u32,
        /// Strong asks the store.
        want: Consistency,
        /// Way back.
        reply: Reply<Read<Page>>,
    },
    /// Read what became of a post of the session's person.
    FindPost {
        /// Id of the post.
        id: PostId,
        /// Way back.
        reply: Reply<Fate>,
    },
    /// Read the active people of the whole system.
    Users {
        /// Way back.
        reply: Reply<Read<People>>,
    },
    /// Open a stream.
    Stream {
        /// Boards to follow.
        boards: Vec<BoardName>,
        /// Place to go on from. `Err` is one that did not parse; the stream then begins with a
        /// reset.
        cursor: Result<Option<Cursor>, ()>,
        /// How it tells who is active.
        presence: PresenceForm,
        /// Way back.
        reply: Reply<StreamHandle>,
    },
    /// Show the cluster as this master sees it.
    Cluster {
        /// Way back.
        reply: Reply<ClusterState>,
    },
}

impl SessionRequest {
    /// Returns whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        match self {
            Self::Alive { reply } => reply.is_closed(),
            Self::Write { reply, .. } => reply.is_closed(),
            Self::Restore { reply } => reply.is_closed(),
            Self::Posts { reply, .. } => reply.is_closed(),
            Self::FindPost { reply, .. } => reply.is_closed(),
            Self::Users { reply } => reply.is_closed(),
            Self::Stream { reply, .. } => reply.is_closed(),
            Self::Cluster { reply } => reply.is_closed(),
        }
    }

    /// Answers that the request is not served.
    pub fn refuse(self, why: RequestError) {
        // A requester may be gone.
        match self {
            Self::Alive { reply } => drop(reply.send(Err(why))),
            Self::Write { reply, .. } => drop(reply.send(Err(why))),
            Self::Restore { reply } => drop(reply.send(Err(why))),
            Self::Posts { reply, .. } => drop(reply.send(Err(why))),
            Self::FindPost { reply, .. } => drop(reply.send(Err(why))),
            Self::Users { reply } => drop(reply.send(Err(why))),
            Self::Stream { reply, .. } => drop(reply.send(Err(why))),
            Self::Cluster { reply } => drop(reply.send(Err(why))),
        }
    }
}
