//! Handle of the front end on its master: commands over a bounded channel, one answer each.

use tokio::sync::{mpsc, oneshot};

pub use crate::model::stream::{ByeReason, Consistency, Delivery, MasterInfo, ResetReason};
use crate::{
    api::{ClusterState, HelloEvent, Readiness},
    model::{
        ids::{BoardName, Cursor, PostId, SessionKey, UserId},
        message::Task,
        outcome::Outcome,
        rows::{ActiveUser, Boards, Found, Page, Range, SessionRow},
    },
};

/// Reason why a read has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The store says that there is no such thing. HTTP 404, or 401 for a session.
    Unknown,
    /// The store is away and no replica here has it. HTTP 503.
    Away,
    /// Too many requests wait. HTTP 429.
    Overloaded,
}

/// Answer to a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    /// The value that was read.
    pub value: T,
    /// How far it may be trusted.
    pub consistency: Consistency,
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

/// Reading end of an open stream.
#[derive(Debug)]
pub struct StreamHandle {
    /// First event.
    pub hello: HelloEvent,
    /// All that follows. The master closes it without a [`Delivery::Bye`] when the reader is too
    /// slow.
    pub deliveries: mpsc::Receiver<Delivery>,
    /// Guard by whose drop the master learns that the reader is gone.
    pub guard: StreamGuard,
}

/// Guard of an open stream: the master notices its drop.
#[derive(Debug)]
pub struct StreamGuard {
    /// Sender that is only dropped, never used.
    pub _gone: oneshot::Sender<()>,
}

/// Command to a master. Dropping the reply's receiver withdraws interest, not the write.
#[derive(Debug)]
#[expect(missing_docs, reason = "each variant is the method of its name on MasterHandle")]
pub enum Command {
    Submit {
        session: Option<SessionKey>,
        task: Task,
        reply: oneshot::Sender<Outcome>,
    },
    Authenticate {
        key: SessionKey,
        reply: oneshot::Sender<Result<SessionRow, ReadError>>,
    },
    Restore {
        key: SessionKey,
        reply: oneshot::Sender<Result<Read<Restored>, ReadError>>,
    },
    Boards {
        reply: oneshot::Sender<Result<Read<Boards>, ReadError>>,
    },
    Posts {
        board: BoardName,
        range: Range,
        limit: u32,
        want: Consistency,
        reply: oneshot::Sender<Result<Read<Page>, ReadError>>,
    },
    FindPost {
        user: UserId,
        id: PostId,
        reply: oneshot::Sender<Result<Found, ReadError>>,
    },
    Users {
        reply: oneshot::Sender<Result<Read<Vec<ActiveUser>>, ReadError>>,
    },
    Stream {
        session: SessionRow,
        boards: Vec<BoardName>,
        cursor: Result<Option<Cursor>, ()>,
        reply: oneshot::Sender<Result<StreamHandle, ReadError>>,
    },
    Alive {
        key: SessionKey,
    },
    Cluster {
        reply: oneshot::Sender<ClusterState>,
    },
    Readiness {
        reply: oneshot::Sender<Readiness>,
    },
    Masters {
        reply: oneshot::Sender<Vec<MasterInfo>>,
    },
    Leave {
        reply: oneshot::Sender<()>,
    },
    ClusterId {
        reply: oneshot::Sender<Option<[u8; 16]>>,
    },
}

/// Handle on a running master; cloning it is cheap.
#[derive(Clone, Debug)]
pub struct MasterHandle {
    commands: mpsc::Sender<Command>,
}

/// The master has stopped; nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the master has stopped")]
pub struct Stopped;

impl MasterHandle {
    /// Returns a handle that puts commands into this channel.
    #[must_use]
    pub const fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { commands }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Queues a write and waits for its outcome, at most `request_timeout`. A post marks the
    /// session that it comes from active, even without an open stream.
    ///
    /// # Errors
    /// [`Stopped`]: the outcome is unknown.
    pub async fn submit(
        &self,
        session: Option<SessionKey>,
        task: Task,
    ) -> Result<Outcome, Stopped> {
        self.ask(|reply| Command::Submit { session, task, reply }).await
    }

    /// Returns the session of a token. Asks the store before it answers that there is none.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn authenticate(
        &self,
        key: SessionKey,
    ) -> Result<Result<SessionRow, ReadError>, Stopped> {
        self.ask(|reply| Command::Authenticate { key, reply }).await
    }

    /// Returns a session with all that it had.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn restore(
        &self,
        key: SessionKey,
    ) -> Result<Result<Read<Restored>, ReadError>, Stopped> {
        self.ask(|reply| Command::Restore { key, reply }).await
    }

    /// Returns all boards.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn boards(&self) -> Result<Result<Read<Boards>, ReadError>, Stopped> {
        self.ask(|reply| Command::Boards { reply }).await
    }

    /// Returns posts of a board. A read that is wanted weak is answered by a worker's node database.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn posts(
        &self,
        board: BoardName,
        range: Range,
        limit: u32,
        want: Consistency,
    ) -> Result<Result<Read<Page>, ReadError>, Stopped> {
        self.ask(|reply| Command::Posts { board, range, limit, want, reply }).await
    }

    /// Returns what the store knows of a user's post.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn find_post(
        &self,
        user: UserId,
        id: PostId,
    ) -> Result<Result<Found, ReadError>, Stopped> {
        self.ask(|reply| Command::FindPost { user, id, reply }).await
    }

    /// Returns the active people of the whole system.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn users(&self) -> Result<Result<Read<Vec<ActiveUser>>, ReadError>, Stopped> {
        self.ask(|reply| Command::Users { reply }).await
    }

    /// Opens a stream. A `cursor` that did not parse is an `Err`; the stream then begins with a
    /// reset.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn stream(
        &self,
        session: SessionRow,
        boards: Vec<BoardName>,
        cursor: Result<Option<Cursor>, ()>,
    ) -> Result<Result<StreamHandle, ReadError>, Stopped> {
        self.ask(|reply| Command::Stream { session, boards, cursor, reply }).await
    }

    /// Notes that the reader of a stream answered a beat.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn alive(&self, key: SessionKey) -> Result<(), Stopped> {
        self.commands.send(Command::Alive { key }).await.map_err(|_| Stopped)
    }

    /// Returns the cluster as this master sees it.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn cluster(&self) -> Result<ClusterState, Stopped> {
        self.ask(|reply| Command::Cluster { reply }).await
    }

    /// Returns whether pages and load balancers are to come to this master.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn readiness(&self) -> Result<Readiness, Stopped> {
        self.ask(|reply| Command::Readiness { reply }).await
    }

    /// Returns all masters that are in.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn masters(&self) -> Result<Vec<MasterInfo>, Stopped> {
        self.ask(|reply| Command::Masters { reply }).await
    }

    /// Makes the master leave: leases are given back, streams and links end with a word.
    /// Returns when it has left.
    ///
    /// # Errors
    /// [`Stopped`]: it had left before.
    pub async fn leave(&self) -> Result<(), Stopped> {
        self.ask(|reply| Command::Leave { reply }).await
    }

    /// Returns the cluster's id, `None` while it has not been read from the store. Cookies carry it.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn cluster_id(&self) -> Result<Option<[u8; 16]>, Stopped> {
        self.ask(|reply| Command::ClusterId { reply }).await
    }
}
