//! Deliveries of a master to open streams, and the values in them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{
    ids::{Cursor, NodeId, Post, PostId, UserId},
    rows::ActiveUser,
    shared::Shared,
};

/// The most people in a window of the active list, and the most that one change of it names.
pub const PRESENCE_MAX: usize = 200;

/// Degree to which an answer may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The store was read after the request arrived.
    Strong,
    /// Taken from a replica or from memory; it may be behind.
    Weak,
}

impl Consistency {
    /// Returns the degree for answers of a master that is strong, or is not.
    #[must_use]
    pub const fn of(is_strong: bool) -> Self {
        if is_strong { Self::Strong } else { Self::Weak }
    }
}

/// Master as people's pages know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MasterInfo {
    /// Its id.
    pub id: NodeId,
    /// Its name for people.
    pub name: String,
    /// Address of its front end, `http://host:port`.
    pub http: String,
}

/// Reason why a stream does not go on from its reader's cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResetReason {
    /// The cursor is of another store epoch.
    Epoch,
    /// The cursor is past the board's end.
    Ahead,
    /// The cursor does not parse.
    Malformed,
    /// A reason of a later version, as a client reads it.
    #[serde(other)]
    Other,
}

/// Writes the word that people's pages read.
impl fmt::Display for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Epoch => "epoch",
            Self::Ahead => "ahead",
            Self::Malformed => "malformed",
            Self::Other => "other",
        })
    }
}

/// Reason why a master ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ByeReason {
    /// The reader took nothing for too long; it may come back at once.
    Slow,
    /// The master is being drained.
    Draining,
    /// The session was closed.
    LoggedOut,
    /// The stream cannot be opened: the master cannot read what it begins with.
    Unavailable,
    /// The stream cannot be opened: the master has too many streams or requests.
    Overloaded,
    /// A reason of a later version, as a client reads it.
    #[serde(other)]
    Other,
}

/// Writes the word that people's pages read.
impl fmt::Display for ByeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slow => "slow",
            Self::Draining => "draining",
            Self::LoggedOut => "logged-out",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::Other => "other",
        })
    }
}

/// State of a post that waited, or waits, for the store on workers' disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldState {
    /// It waits.
    Pending,
    /// It has its place in its board.
    Committed,
    /// It was cancelled: it never appears.
    Cancelled,
    /// It could not be written; its author may send it again.
    DeadLetter,
    /// It was refused: its id stands for another post, or its board is gone.
    Refused,
}

/// Beginning of the list of active people at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceWindow {
    /// Version of the list, counted up by its master.
    pub version: u64,
    /// Number of people on the whole list.
    pub count: usize,
    /// The first of them, at most [`PRESENCE_MAX`].
    pub users: Vec<ActiveUser>,
}

/// Difference between a version of the list of active people and the version before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceChange {
    /// Version after it.
    pub version: u64,
    /// Number of people on the whole list after it.
    pub count: usize,
    /// People who came, or of whom something changed.
    pub came: Vec<ActiveUser>,
    /// People who left; some may have come after the version before, unheard of.
    pub left: Vec<UserId>,
}

/// One delivery of a master to an open stream. Beats are the front end's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A post; ascending within its board, without a gap.
    Post(Shared<Post>),
    /// The active people, sent first and whenever the list changes.
    Presence(Shared<Vec<ActiveUser>>),
    /// The active people as far as a window shows them, to a reader of changes: first,
    /// and again when it fell behind.
    PresenceWindow {
        /// The window, the same for all readers.
        window: Shared<PresenceWindow>,
        /// The reader's own person, if the window does not show it.
        own: Option<ActiveUser>,
    },
    /// The change of the active people since the version before, to a reader that asked for it.
    PresenceChange(Shared<PresenceChange>),
    /// Whether the master reaches the store: strong if it does.
    State(Consistency),
    /// A post of the reader's own person that waits for the store, or waited for it.
    Pending {
        /// The post's id.
        id: PostId,
        /// Its state.
        state: HeldState,
    },
    /// The masters that are in, sent whenever the list changes.
    Masters(Vec<MasterInfo>),
    /// There is a gap: the reader drops its list and reads again.
    Reset {
        /// The reason.
        reason: ResetReason,
        /// Cursor from which the stream goes on.
        cursor: Cursor,
    },
    /// The last delivery.
    Bye {
        /// The reason.
        reason: ByeReason,
        /// Masters to go to.
        to: Vec<MasterInfo>,
        /// Time after which the reader may try again.
        retry_ms: u64,
    },
}
