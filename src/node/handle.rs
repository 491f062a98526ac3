//! Handle of the front end on its master: commands over a bounded channel, one answer each.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{Notify, mpsc, oneshot};

pub use super::request::{
    Fate, FirstReset, People, PresenceForm, Read, Reply, RequestError, Restored, SessionRequest,
    StreamGuard, StreamHandle, Write, Written,
};
pub use crate::model::stream::{ByeReason, Consistency, Delivery, MasterInfo, ResetReason};
use crate::{
    api::{ClusterState, JoinInvitation, JoinTerms, JoinTokenList, Readiness},
    model::{
        ids::{NodeId, SessionKey, TokenId, UserId},
        message::Task,
        outcome::Outcome,
        rows::{Boards, DeadLetter},
    },
};

/// Command to a master. Dropping the reply's receiver withdraws interest, not the write, but for what
/// [`SessionRequest`] says.
#[derive(Debug)]
#[expect(missing_docs, reason = "each variant is the method of its name on MasterHandle")]
pub enum Command {
    Request { key: SessionKey, user: Option<UserId>, request: SessionRequest },
    Submit { task: Task, reply: oneshot::Sender<Outcome> },
    Boards { reply: Reply<Read<Boards>> },
    Cluster { reply: oneshot::Sender<ClusterState> },
    Readiness { reply: oneshot::Sender<Readiness> },
    Masters { reply: oneshot::Sender<Vec<MasterInfo>> },
    Leave { reply: oneshot::Sender<()> },
    Drain { force: bool, reply: oneshot::Sender<Result<(), DrainError>> },
    DrainWorker { node: NodeId, force: bool, reply: oneshot::Sender<Result<u64, WorkerDrainError>> },
    ClusterId { reply: oneshot::Sender<Option<[u8; 16]>> },
    NewJoinToken { terms: JoinTerms, reply: Reply<JoinInvitation> },
    JoinTokens { reply: Reply<JoinTokenList> },
    RevokeJoinToken { id: TokenId, reply: Reply<()> },
    Expel { node: NodeId, reply: Reply<()> },
    DeadLetters { before: Option<u64>, limit: u32, reply: Reply<Vec<DeadLetter>> },
    DropDeadLetter { number: u64, reply: Reply<()> },
}

/// Handle on a running master; cloning it is cheap.
#[derive(Clone, Debug)]
pub struct MasterHandle {
    commands: mpsc::Sender<Command>,
    drain: DrainSignal,
}

/// Word of a master to its front end on how far its drain has come. It is never taken back.
#[derive(Clone, Debug, Default)]
pub struct DrainSignal(Arc<DrainFlags>);

#[derive(Debug, Default)]
struct DrainFlags {
    has_begun: AtomicBool,
    is_closing: AtomicBool,
    told: Notify,
}

impl DrainSignal {
    /// Says that the master hands over, and serves who is still here.
    pub fn begin(&self) {
        self.0.has_begun.store(true, Ordering::Relaxed);
    }

    /// Returns whether the master hands over, or did.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.has_begun.load(Ordering::Relaxed)
    }

    /// Says that nobody is here any more: the front end is to close, then the master leaves.
    pub fn close(&self) {
        self.0.is_closing.store(true, Ordering::Relaxed);
        self.0.told.notify_waiters();
    }
}

/// Receiving end of a handle.
#[derive(Debug)]
pub struct Commands {
    /// Commands, in the order in which they were given.
    pub receiver: mpsc::Receiver<Command>,
    /// Word that the handle's holders hear.
    pub drain: DrainSignal,
}

/// Reason why a master is not drained. Nothing has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    /// No other master could go on.
    #[error("no other master that goes on is linked to this one")]
    LastMaster,
    /// This master can have things written, and no other one that is linked to it can.
    #[error("no other master that can have things written is linked to this one")]
    OnlyWriter,
}

/// Reason why a worker is not drained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkerDrainError {
    /// No worker of this id is in. Nothing has begun.
    #[error("no worker with this id is in")]
    Unknown,
    /// The worker has no link to this master. Nothing has begun.
    #[error("the worker is registered with the master {master}: ask that one")]
    Elsewhere {
        /// Name of the worker's master, or its id.
        master: String,
    },
    /// No other worker could go on. Nothing has begun.
    #[error("no other worker is in that goes on")]
    LastWorker,
    /// The worker's release is older than this request. Nothing has begun.
    #[error("the worker runs a release that cannot be asked to end: stop it with SIGTERM")]
    OldRelease,
    /// The worker did not answer: it may be ending.
    #[error("the worker did not answer; it may be ending")]
    NoAnswer,
}

/// The master has stopped before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the master has stopped")]
pub struct Stopped;

impl MasterHandle {
    /// Returns a handle and its receiving end, which holds so many commands.
    #[must_use]
    pub fn channel(commands_max: usize) -> (Self, Commands) {
        let (commands, receiver) = mpsc::channel(commands_max);
        let drain = DrainSignal::default();
        (Self { commands, drain: drain.clone() }, Commands { receiver, drain })
    }

    /// Whether the master is being drained.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.has_begun()
    }

    /// Waits until the front end is to close; for ever if the master ends in another way.
    pub async fn closing(&self) {
        loop {
            // It hears what is told from here on, so nothing is missed between question and wait.
            let told = self.drain.0.told.notified();
            if self.drain.0.is_closing.load(Ordering::Relaxed) {
                return;
            }
            told.await;
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Sends a request of a session and waits for its answer: one message to the master, which
    /// finds the session and asks the store before it answers that there is none. With a `user` the
    /// session must be theirs.
    ///
    /// # Errors
    /// [`Stopped`]: the outcome of a write is unknown. A master that stopped before it took the
    /// request is [`RequestError::Away`].
    pub async fn request<T>(
        &self,
        key: SessionKey,
        user: Option<UserId>,
        request: impl FnOnce(Reply<T>) -> SessionRequest,
    ) -> Result<Result<T, RequestError>, Stopped> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Request { key, user, request: request(reply) };
        if self.commands.send(command).await.is_err() {
            return Ok(Err(RequestError::Away));
        }
        answer.await.map_err(|_| Stopped)
    }

    /// Queues a write that comes from no session, such as the opening of one, and waits for its
    /// outcome, at most `request_timeout`.
    ///
    /// # Errors
    /// [`Stopped`]: the outcome is unknown.
    pub async fn submit(&self, task: Task) -> Result<Outcome, Stopped> {
        self.ask(|reply| Command::Submit { task, reply }).await
    }

    /// Returns all boards.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn boards(&self) -> Result<Result<Read<Boards>, RequestError>, Stopped> {
        self.ask(|reply| Command::Boards { reply }).await
    }

    /// Returns the cluster as this master sees it.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn cluster(&self) -> Result<ClusterState, Stopped> {
        self.ask(|reply| Command::Cluster { reply }).await
    }

    /// Makes a join token on these terms.
    ///
    /// # Errors
    /// [`Stopped`]: a token may have been made that nobody knows, and that ends by itself.
    pub async fn new_join_token(
        &self,
        terms: JoinTerms,
    ) -> Result<Result<JoinInvitation, RequestError>, Stopped> {
        self.ask(|reply| Command::NewJoinToken { terms, reply }).await
    }

    /// Lists the join tokens that have not ended.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn join_tokens(&self) -> Result<Result<JoinTokenList, RequestError>, Stopped> {
        self.ask(|reply| Command::JoinTokens { reply }).await
    }

    /// Revokes a join token; [`RequestError::Unknown`] if there is none of this id.
    ///
    /// # Errors
    /// [`Stopped`]: it may have been revoked; asking again is safe.
    pub async fn revoke_join_token(
        &self,
        id: TokenId,
    ) -> Result<Result<(), RequestError>, Stopped> {
        self.ask(|reply| Command::RevokeJoinToken { id, reply }).await
    }

    /// Expels a node for good; [`RequestError::Unknown`] if there is none of this id.
    ///
    /// # Errors
    /// [`Stopped`]: it may have been expelled; asking again is safe.
    pub async fn expel(&self, node: NodeId) -> Result<Result<(), RequestError>, Stopped> {
        self.ask(|reply| Command::Expel { node, reply }).await
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

    /// Lists the latest dead letters whose numbers are below `before`, newest first.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn dead_letters(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Result<Vec<DeadLetter>, RequestError>, Stopped> {
        self.ask(|reply| Command::DeadLetters { before, limit, reply }).await
    }

    /// Drops a dead letter; fine if it is gone.
    ///
    /// # Errors
    /// [`Stopped`]: it may have been dropped; asking again is safe.
    pub async fn drop_dead_letter(&self, number: u64) -> Result<Result<(), RequestError>, Stopped> {
        self.ask(|reply| Command::DropDeadLetter { number, reply }).await
    }

    /// Begins to drain the master: its people and its work go to the other masters, and it leaves
    /// when nothing is left, at most `drain_timeout` later. Returns as soon as that has begun.
    ///
    /// # Errors
    /// [`Stopped`]: it had left before. [`DrainError`], unless `force`.
    pub async fn drain(&self, force: bool) -> Result<Result<(), DrainError>, Stopped> {
        self.ask(|reply| Command::Drain { force, reply }).await
    }

    /// Has a worker of this master hand its held posts over and end. Returns as soon as that has begun,
    /// with the longest time that it takes, in milliseconds.
    ///
    /// # Errors
    /// [`Stopped`]: it may have begun. [`WorkerDrainError`]; with `force` the last worker ends too.
    pub async fn drain_worker(
        &self,
        node: NodeId,
        force: bool,
    ) -> Result<Result<u64, WorkerDrainError>, Stopped> {
        self.ask(|reply| Command::DrainWorker { node, force, reply }).await
    }

    /// Makes the master leave at once: leases are given back, streams and links end with a word.
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
