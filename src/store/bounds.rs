//! Bounds of the store's rows and of their ages, the same for every backend.

use crate::model::{
    bounds::{JOIN_LIFE_MAX_MS, NODES_MAX},
    message::BATCH_TASKS_MAX,
};

const HOUR_MS: u64 = 60 * 60 * 1000;
/// A day, ms.
pub(super) const DAY_MS: u64 = 24 * HOUR_MS;

/// Maximum number of rows in one reply to [`Op::Writes`](super::Op::Writes).
pub(super) const WRITES_PAGE_MAX: u32 = 10_000;

/// Maximum term, ms.
pub(super) const TTL_MAX_MS: u64 = 60_000;

/// Age above which a wish gives way to another, ms.
pub(super) const WISH_STANDS_MS: u64 = 3000;

/// Time for which a released lease is reserved for its wisher, ms.
pub(super) const KEPT_MS: u64 = 1000;

/// Maximum number of resources that were ever leased and not forgotten since.
pub(super) const LEASES_MAX: u64 = 16_384;

/// Age of a touch up to which its master counts as alive, ms.
pub(super) const FRESH_MS: u64 = 5000;

/// Age of a touch from which on a master's place on a full list may be given away, ms.
pub(super) const LONG_SILENT_MS: u64 = 60 * 60 * 1000;

/// Maximum life of a join token, ms.
pub(super) const TOKEN_TTL_MAX_MS: u64 = JOIN_LIFE_MAX_MS;

/// Maximum number of join tokens that have not ended.
pub(super) const TOKENS_MAX: u64 = 4096;

/// Maximum number of enrolled nodes.
pub(super) const ENROLLED_MAX: u64 = NODES_MAX as u64;

/// Time without a use after which a node's row may be let go, ms.
pub(super) const UNUSED_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Age of a use that is noted again, ms.
pub(super) const USE_AGAIN_MS: u64 = 30 * 60 * 1000;

/// Maximum number of letters; above it the oldest is dropped.
pub(super) const LETTERS_MAX: u64 = 10_000;

/// Maximum length of a reason, characters; the rest is cut.
pub(super) const WHY_LEN_MAX: usize = 1000;

/// Age above which a row is not active, ms.
pub(super) const ACTIVE_MS: u64 = 25_000;

/// Silence of all masters above which the rows' ages cannot be trusted, ms.
pub(super) const SILENCE_MAX_MS: u64 = 10_000;

/// Time by which the last touch may lie ahead, ms: a reader takes its time just before a writer
/// commits with a later one.
pub(super) const AHEAD_MAX_MS: u64 = 1000;

/// Interval between notes that a session is in use, ms.
pub(super) const USE_NOTED_MS: u64 = 60 * 60 * 1000;

/// Maximum number of users on the list.
pub(super) const USERS_MAX: u32 = 100_000;

/// Life of a ticket, ms.
pub(super) const TICKET_TTL_MS: u64 = 5 * 60 * 1000;

/// Maximum number of tickets of one session; above it the one that ends first is dropped.
pub(super) const TICKETS_MAX: u64 = 8;

/// Cancelled ids of one person that are kept: at least those of one batch.
pub(super) const CANCELS_MAX: usize = BATCH_TASKS_MAX;

/// Step back of the clock between two pieces above which it has jumped, ms.
pub(super) const BACK_MAX_MS: u64 = 5000;

/// Life of an idle session, ms (G6).
pub(super) const SESSION_IDLE_MS: u64 = 30 * DAY_MS;

/// Time for which closed sessions stay listed, ms: longer than any cached copy could live.
pub(super) const CLOSED_KEPT_MS: u64 = 40 * DAY_MS;

/// Time for which a cancelled id is kept, ms: a master that was stopped may bring the post for as long
/// as its author's session can be known to it.
pub(super) const CANCELLED_KEPT_MS: u64 = 40 * DAY_MS;

/// Time for which a spent or expired ticket answers repeats, ms.
pub(super) const TICKET_KEPT_MS: u64 = 10 * 60 * 1000;

/// Number of rows that the record of writes keeps.
pub(super) const WRITES_KEPT: u64 = 1_000_000;

/// Rows of a piece. The last drop of a piece may exceed it by what belongs to one session.
pub(super) const PIECE_ROWS_MAX: u64 = 512;

/// Rows that the end of one session changes at least: its own, and its line on the closed list.
pub(super) const SESSION_ROWS: u64 = 2;
