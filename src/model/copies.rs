//! Digests and pages by which copies of the store's sessions are compared and repaired.
//!
//! Sessions fall into [`BUCKETS`] by the first byte of their keys. The digest of a bucket is the XOR
//! of its sessions' digests, so that it follows each change without the others being read.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{
    ids::{SessionKey, StoreEpoch, UserId},
    rows::{Boards, SessionRow},
};

/// Number of buckets.
pub const BUCKETS: usize = 256;
/// Maximum number of sessions in a page.
pub const PAGE_SESSIONS_MAX: usize = 256;
/// Number of read marks in a page, give or take one session's.
const PAGE_MARKS_MAX: usize = 4096;

/// Digests of all buckets of one copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionDigests {
    /// Epoch of the store that the sessions are of.
    pub epoch: StoreEpoch,
    /// Digest of the open sessions of each bucket, read marks included.
    pub open: Vec<u64>,
    /// Digest of the closed sessions that are remembered of each bucket; all zero in the store's.
    pub closed: Vec<u64>,
}

impl SessionDigests {
    /// Returns the digests of a copy without sessions.
    #[must_use]
    pub fn empty(epoch: StoreEpoch) -> Self {
        Self { epoch, open: vec![0; BUCKETS], closed: vec![0; BUCKETS] }
    }
}

/// Digests of a node database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyDigests {
    /// Last place of each board.
    pub boards: Boards,
    /// Digests of the sessions.
    pub sessions: SessionDigests,
}

/// Session as a copy holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionEntry {
    /// Open session.
    Open(SessionRow),
    /// Session that is remembered as closed.
    Closed(SessionKey),
}

impl SessionEntry {
    /// Returns the key of the session.
    #[must_use]
    pub const fn key(&self) -> SessionKey {
        match self {
            Self::Open(row) => row.key,
            Self::Closed(key) => *key,
        }
    }
}

/// Numbers of sessions that are new to a copy and have room in it. Closed ones make room for open ones, so
/// that the first number is the greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRoom {
    /// Open sessions that have room.
    pub open: u64,
    /// Closed sessions that have room beside all that is remembered.
    pub closed: u64,
}

impl SessionRoom {
    /// Takes the room of a session, and returns whether there was some.
    pub const fn take(&mut self, entry: &SessionEntry) -> bool {
        let room = match entry {
            SessionEntry::Open(_) => &mut self.open,
            SessionEntry::Closed(_) => &mut self.closed,
        };
        if *room == 0 {
            return false;
        }
        *room -= 1;
        if matches!(entry, SessionEntry::Open(_)) {
            self.closed = self.closed.saturating_sub(1);
        }
        true
    }
}

/// Part of a bucket: all its sessions from where it was asked for up to `next`, in the order of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPage {
    /// The sessions.
    pub entries: Vec<SessionEntry>,
    /// Last key of the page; `None` if the bucket ends with it.
    pub next: Option<SessionKey>,
}

impl SessionPage {
    /// Makes a page of the sessions of a bucket, of which at most [`PAGE_SESSIONS_MAX`] were read.
    #[must_use]
    pub fn of(mut entries: Vec<SessionEntry>) -> Self {
        let (read, mut marks) = (entries.len(), 0);
        let fits = |entry: &&SessionEntry| {
            let fits = marks <= PAGE_MARKS_MAX;
            if let SessionEntry::Open(row) = entry {
                marks += row.read_marks.len();
            }
            fits
        };
        entries.truncate(entries.iter().take_while(fits).count());
        let is_whole = entries.len() == read && read < PAGE_SESSIONS_MAX;
        let next = entries.last().filter(|_| !is_whole).map(SessionEntry::key);
        Self { entries, next }
    }
}

/// Returns the first and the last key that a bucket may hold.
#[must_use]
pub const fn keys_of(bucket: u8) -> (SessionKey, SessionKey) {
    let (mut first, mut last) = ([0; 32], [u8::MAX; 32]);
    (first[0], last[0]) = (bucket, bucket);
    (SessionKey(first), SessionKey(last))
}

fn short(hash: Sha256) -> u64 {
    let hash: [u8; 32] = hash.finalize().into();
    hash.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// Returns the digest of an open session without its read marks.
#[must_use]
pub fn open_digest(key: &SessionKey, user: &UserId, name: &str) -> u64 {
    short(
        Sha256::new().chain_update([0]).chain_update(key.0).chain_update(user.0).chain_update(name),
    )
}

/// Returns what a read mark adds to its session's digest. A mark of 0 is none.
#[must_use]
pub fn mark_digest(key: &SessionKey, board: &str, seq: u64) -> u64 {
    if seq == 0 {
        return 0;
    }
    let hash = Sha256::new().chain_update([1]).chain_update(key.0);
    short(hash.chain_update(seq.to_le_bytes()).chain_update(board))
}

/// Returns the digest of a closed session.
#[must_use]
pub fn closed_digest(key: &SessionKey) -> u64 {
    short(Sha256::new().chain_update([2]).chain_update(key.0))
}

impl SessionRow {
    /// Returns the digest of this session with its read marks.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let marks = self.read_marks.iter();
        marks.fold(
            open_digest(&self.key, &self.user.id, self.user.name.as_str()),
            |digest, (board, seq)| digest ^ mark_digest(&self.key, board.as_str(), seq.0),
        )
    }
}
