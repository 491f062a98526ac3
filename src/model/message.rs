//! Messages that nodes exchange, as data.
//!
//! `wire` frames them, `crypto` seals them and `comm` carries them. Variants are appended, never
//! reordered: the codec numbers them.

use std::{fmt, marker::PhantomData, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Visitor},
};
use zeroize::Zeroize;

pub use crate::model::{
    bounds::BATCH_TASKS_MAX,
    member::{Fact, Member, MemberState},
    update::{Topic, Update, Updates},
};
use crate::model::{
    bounds::{POST_HEAD_MAX, POST_LEN_MAX, SESSION_LEN_MAX, WORKER_BATCHES_MAX},
    copies::{CopyDigests, SessionPage},
    held::{HandInReply, HeldPost, HoldReply},
    ids::{
        Author, BoardName, Domain, KeyEpoch, NodeId, PostId, Registration, Resource, Seq,
        SessionKey, UserId,
    },
    lists::{batch, shared_batch},
    outcome::{Outcome, TaskResult},
    rows::{Holder, NewPost, Page, Permission, Range, SessionRow},
};

/// Write that a person asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Write a post to a board.
    Post {
        /// Board to write to.
        board: BoardName,
        /// Post to write.
        post: NewPost,
    },
    /// Create a board.
    CreateBoard {
        /// Name of the board.
        board: BoardName,
    },
    /// Cancel a post that has no outcome yet, at its author's wish.
    CancelPost {
        /// Author of the post.
        user: UserId,
        /// Id of the post.
        id: PostId,
    },
    /// Open a session.
    OpenSession {
        /// Hash of the session's token.
        key: SessionKey,
        /// Person who opens it.
        user: Author,
    },
    /// Close a session (log-out).
    CloseSession {
        /// Session to close.
        key: SessionKey,
    },
    /// Raise the place up to which a session has read a board.
    SetReadMark {
        /// Session that read.
        key: SessionKey,
        /// Board that was read.
        board: BoardName,
        /// Last place that was read.
        seq: Seq,
    },
    /// Keep a handover ticket.
    PutTicket {
        /// Session that the ticket is for.
        key: SessionKey,
        /// SHA-256 of the ticket.
        ticket_sha256: [u8; 32],
    },
    /// Spend a handover ticket.
    RedeemTicket {
        /// SHA-256 of the ticket.
        ticket_sha256: [u8; 32],
        /// Key of the new session.
        key: SessionKey,
    },
}

impl Task {
    /// Returns the resource whose permission covers this task when `master` does it.
    #[must_use]
    pub fn resource(&self, master: NodeId) -> Resource {
        match self {
            Self::Post { board, .. } | Self::CreateBoard { board } => {
                Resource::Board(board.clone())
            }
            _ => Resource::Sessions(master),
        }
    }

    /// Returns how many bytes the task or its result takes at most, for the bounds of batches and
    /// queues.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Post { post, .. } => POST_HEAD_MAX + post.text.as_str().len(),
            // The result may be the post, or the session with its marks.
            Self::CancelPost { .. } => POST_LEN_MAX,
            Self::RedeemTicket { .. } => SESSION_LEN_MAX,
            _ => POST_HEAD_MAX,
        }
    }
}

/// Work for a worker: one batch under one permission, written in one transaction. The tasks of a
/// board are posts only, or one creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assign {
    /// Registration of the worker; a worker with a newer one refuses the batch.
    pub registration: Registration,
    /// Permission to write.
    pub permission: Permission,
    /// Tasks, at least one and at most [`BATCH_TASKS_MAX`]. Shared, so that an attempt copies no
    /// texts.
    #[serde(deserialize_with = "shared_batch")]
    pub tasks: Arc<Vec<Task>>,
}

/// End of an attempt, as its worker reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssignReply {
    /// One result per task, in order.
    Done(#[serde(deserialize_with = "batch")] Vec<TaskResult>),
    /// The store did not answer the worker in time.
    StoreAway {
        /// Symptom, for logs.
        why: String,
    },
    /// The token is too old: this coordinator was replaced, or gave the batch to another.
    Fenced,
    /// Another error of the store: the batch's fault, not the worker's.
    Broken {
        /// Message of the store.
        why: String,
    },
    /// The worker has a newer registration.
    StaleRegistration,
    /// The worker has no room for another batch now; nothing was done.
    Busy,
    /// The batch that this one follows is not written; nothing was done.
    NotNext,
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

/// Call that is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Master to worker: write these batches, each under a permission of its own. At most
    /// [`WORKER_BATCHES_MAX`], and [`BATCH_TASKS_MAX`] tasks in all of them.
    Assign(#[serde(deserialize_with = "call")] Vec<Assign>),
    /// Master to master: coordinate these tasks, at most [`BATCH_TASKS_MAX`].
    Forward(#[serde(deserialize_with = "batch")] Vec<Task>),
    /// Any node to any node: read posts of a board, from memory or the node database. A master passes
    /// what another master asks on to its workers.
    Read {
        /// Board to read.
        board: BoardName,
        /// Range to read.
        range: Range,
        /// Largest number of posts.
        limit: u32,
    },
    /// Master to worker: read a session from the node database. A master passes what another master
    /// asks on to its workers; one of an earlier release does not serve it.
    Session(SessionKey),
    /// Any node to any node: return the bytes, to measure the link.
    Echo(Vec<u8>),
    /// Return the digests of a node database. A master passes it on: from a worker to another worker
    /// or to a master, from a master to a worker.
    CopyDigests {
        /// Number by which those who can answer take turns.
        turn: u32,
    },
    /// Return sessions of a node database; passed on like [`Request::CopyDigests`].
    CopySessions {
        /// Number by which those who can answer take turns.
        turn: u32,
        /// Number of the bucket.
        bucket: u8,
        /// Key after which the page begins.
        after: Option<SessionKey>,
    },
    /// Master to worker: hold this post until the store is back. From another master, and from a worker
    /// that ends, it is passed on to another worker.
    Hold {
        /// Post to hold.
        held: HeldPost,
        /// Number of the copy, 0 or 1: a master passes different ones on to different workers.
        copy: u8,
    },
    /// Holder to its master: have this post written.
    HandIn {
        /// Post that was held.
        held: HeldPost,
        /// Time for which it was held, by the holder's clock.
        age_ms: u64,
    },
    /// Return the ids of this person's posts that wait here. From another master it is passed on to the
    /// workers.
    HeldOf(UserId),
    /// As [`Request::Hold`], of a post that was held before. From a worker that ends: have two other
    /// workers hold it. Known from [`HAND_OVER_VERSION`] on.
    ///
    /// [`HAND_OVER_VERSION`]: crate::model::bounds::HAND_OVER_VERSION
    HandOver {
        /// Post to hold.
        held: HeldPost,
        /// Number of the copy, 0 or 1, as in [`Request::Hold`].
        copy: u8,
        /// Time for which it was held, by the clocks of its holders.
        age_ms: u64,
    },
    /// Master to worker: hand over the posts that wait on the disk, and end. Known as
    /// [`Request::HandOver`] is.
    Drain,
}

/// Answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Answer to [`Request::Assign`]: one for each batch, in order.
    Assign(#[serde(deserialize_with = "call")] Vec<AssignReply>),
    /// Answer to [`Request::Forward`]: one for each task, in order, once all have ended there.
    Forward(#[serde(deserialize_with = "batch")] Vec<ForwardReply>),
    /// Answer to [`Request::Read`]; `None` when the board is not known here.
    Page(Option<Page>),
    /// Answer to [`Request::Session`]; `None` when the session is not known here.
    Session(Option<SessionRow>),
    /// Answer to [`Request::Echo`].
    Echo(Vec<u8>),
    /// Refusal: this role does not serve requests of that kind.
    NotServed,
    /// Answer to [`Request::CopyDigests`]; `None` when the database cannot be read now.
    CopyDigests(Option<CopyDigests>),
    /// Answer to [`Request::CopySessions`]; `None` when the database cannot be read now.
    CopySessions(Option<SessionPage>),
    /// Answer to [`Request::Hold`], and to [`Request::HandOver`] of a master.
    Hold(HoldReply),
    /// Answer to [`Request::HandIn`].
    HandIn(HandInReply),
    /// Answer to [`Request::HeldOf`]: one entry for each copy, so that an id may stand there twice.
    HeldOf(Vec<PostId>),
    /// Answer to [`Request::HandOver`] of a worker.
    HandOver {
        /// Number of other workers that hold the post.
        copies: u32,
    },
    /// Answer to [`Request::Drain`]: the worker ends.
    Draining {
        /// Longest time that this takes, in milliseconds.
        within_ms: u64,
    },
}

/// Message that is not answered, up or down a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direct {
    /// Short form of the sender's directory; a receiver with another one sends
    /// [`Direct::Members`].
    Digest {
        /// SHA-256, cut to 16 bytes, over the sorted facts.
        digest: [u8; 16],
    },
    /// Members that the receiver may not know, or of which it may know an older fact.
    Members(Vec<Member>),
    /// Master to master: updates of the sender's domain, to be sealed again for the receiver's.
    Updates(Updates),
    /// Worker to master: the worker's state.
    WorkerStatus(WorkerStatus),
    /// Master to worker: hold the common key of a new epoch.
    KeyInstall(KeyInstall),
    /// Worker to master: the key of this epoch is held.
    KeyHeld(KeyEpoch),
    /// Master to worker: use the key of this epoch, and erase the one before after the overlap.
    KeyUse(KeyEpoch),
    /// Worker to master: a second key came for this epoch, which is held.
    KeyAlarm(KeyEpoch),
    /// Worker to master: so many posts wait on its disk.
    Holds(u32),
}

/// Common key of one epoch, as its master sends it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInstall {
    /// Common pair, PKCS#8 DER.
    #[serde(serialize_with = "whole")]
    pub pkcs8: Vec<u8>,
    /// Announcement of the master, with its signature. It names the domain and the epoch.
    #[serde(serialize_with = "whole")]
    pub announcement: Vec<u8>,
}

/// Writes bytes at once. One by one, as serde writes a list, they cost a master of many members
/// several times what sealing them does.
fn whole<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

impl fmt::Debug for KeyInstall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyInstall(..)")
    }
}

impl Drop for KeyInstall {
    fn drop(&mut self) {
        self.pkcs8.zeroize();
    }
}

/// State of a worker, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Last place of each board in its node database.
    pub boards: Vec<(BoardName, Seq)>,
    /// Number of sessions in its node database.
    pub sessions: u64,
    /// Number of batches that it is writing.
    pub in_flight: u32,
    /// Resident memory in bytes, 0 if the world cannot tell.
    pub resident_bytes: u64,
}

/// Heartbeat, sent every 500 ms on each link, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Whether the sender reaches the store.
    pub reaches_store: bool,
}

/// Reason for closing a link on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseReason {
    /// The sender leaves for good; this registration has ended.
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
    /// The receiver is denied by the admission lists.
    Expelled,
}

/// Last message of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// Reason for closing.
    pub reason: CloseReason,
    /// Time after which the receiver may come back.
    pub retry_ms: u64,
}

/// Content of a master's welcome to a node, besides keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Domain of the master: the node's own from now on, if it is a worker.
    pub domain: Domain,
    /// Directory, in pages if it is long; more follow as [`Direct::Members`].
    pub directory: Vec<Member>,
}

/// Part of a call that holds tasks, or their results.
trait Batched {
    /// Returns how many it holds.
    fn tasks(&self) -> usize;
}

impl Batched for Assign {
    fn tasks(&self) -> usize {
        self.tasks.len()
    }
}

impl Batched for AssignReply {
    fn tasks(&self) -> usize {
        match self {
            Self::Done(results) => results.len(),
            _ => 0,
        }
    }
}

/// Reads the parts of a call, refusing more of them, or of tasks in them, than a call may have.
fn call<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Batched,
{
    struct Call<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de> + Batched> Visitor<'de> for Call<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(
                f,
                "at most {WORKER_BATCHES_MAX} batches with at most {BATCH_TASKS_MAX} tasks in all"
            )
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let (mut parts, mut tasks) = (Vec::new(), 0);
            while let Some(part) = list.next_element::<T>()? {
                tasks += part.tasks();
                if parts.len() == WORKER_BATCHES_MAX || tasks > BATCH_TASKS_MAX {
                    return Err(A::Error::invalid_length(parts.len() + 1, &self));
                }
                parts.push(part);
            }
            Ok(parts)
        }
    }

    from.deserialize_seq(Call(PhantomData))
}
