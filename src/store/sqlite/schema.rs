//! Tables of the store, creation of a new one, and the check whether this release may use it.
//!
//! 1. Schema steps only add. `user_version` counts them; `min_reader` is the oldest release (by its own
//!    count of steps) that may still use the file.
//! 2. No default and no statement takes time or random numbers from SQLite: both are parameters, so
//!    that a simulated store is the same in every run.
//! 3. What an append locks (`leases`) and what a renewal locks (`lease_terms`) are two rows.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{
    Tx,
    sql::{Columns, int},
};
pub use crate::store::history::NewCluster;
use crate::{
    model::{ids::BoardName, rows::StoreError},
    store::{self, refused},
};

/// Schema steps that this release knows, in order.
const STEPS: [&str; 5] = [TABLES, INDEXES, CLOCK, CANCELS, DIGESTS];

/// Oldest release, by its number of steps, that may use what this one writes.
const MIN_READER: u32 = 1;

/// SQLite application id of a store: `CHAT`.
const APPLICATION_ID: u32 = 0x4348_4154;

/// First schema step.
const TABLES: &str = "
CREATE TABLE cluster (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    cluster BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    min_reader INTEGER NOT NULL
) STRICT;

-- Single numbers: when presence was last touched, what the clock said, the greatest time of a write.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE masters (
    node BLOB PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    beat INTEGER NOT NULL,
    http TEXT NOT NULL,
    link TEXT NOT NULL,
    spki BLOB NOT NULL,
    name TEXT NOT NULL,
    draining INTEGER NOT NULL,
    guard BLOB NOT NULL,
    listed INTEGER NOT NULL,
    touched_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Fencing state of a resource: the newest token seen, and the worker and batch that its n named.
CREATE TABLE leases (
    resource TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    n INTEGER NOT NULL,
    worker BLOB,
    batch BLOB
) STRICT, WITHOUT ROWID;

-- Holder and end of each lease; node is NULL once it was released.
CREATE TABLE lease_terms (
    resource TEXT PRIMARY KEY,
    lease INTEGER NOT NULL,
    node BLOB,
    incarnation INTEGER NOT NULL,
    ttl INTEGER NOT NULL,
    ends_at INTEGER NOT NULL,
    wisher BLOB,
    wisher_incarnation INTEGER NOT NULL,
    wished_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE boards (
    board INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    last_seq INTEGER NOT NULL,
    last_posted_at INTEGER NOT NULL
) STRICT;

CREATE TABLE posts (
    board INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    user BLOB NOT NULL,
    id BLOB NOT NULL,
    name TEXT NOT NULL,
    text TEXT NOT NULL,
    posted_at INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    n INTEGER NOT NULL,
    worker BLOB NOT NULL,
    PRIMARY KEY (board, seq)
) STRICT, WITHOUT ROWID;

-- Every id that was ever used; board and seq are NULL once it was cancelled.
CREATE TABLE post_ids (
    user BLOB NOT NULL,
    id BLOB NOT NULL,
    board INTEGER,
    seq INTEGER,
    PRIMARY KEY (user, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    key BLOB PRIMARY KEY,
    user BLOB NOT NULL,
    name TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_user ON sessions (user);

CREATE TABLE closed_sessions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL UNIQUE,
    closed_at INTEGER NOT NULL
) STRICT;

CREATE TABLE read_marks (
    user BLOB NOT NULL,
    board INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (user, board)
) STRICT, WITHOUT ROWID;

-- new_key is set once it was redeemed.
CREATE TABLE tickets (
    ticket BLOB PRIMARY KEY,
    key BLOB NOT NULL,
    ends_at INTEGER NOT NULL,
    new_key BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX tickets_key ON tickets (key, ends_at);

CREATE TABLE presence (
    key BLOB PRIMARY KEY,
    master BLOB NOT NULL,
    since INTEGER NOT NULL,
    last_seen INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    resource TEXT NOT NULL,
    user BLOB,
    id BLOB,
    name TEXT,
    text TEXT,
    why TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX dead_letters_post ON dead_letters (user, id);

CREATE TABLE join_tokens (
    id BLOB PRIMARY KEY,
    guard BLOB NOT NULL,
    bearer_sha256 BLOB NOT NULL,
    role TEXT NOT NULL,
    uses_left INTEGER NOT NULL,
    ends_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE enrolled (
    node BLOB PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    role TEXT NOT NULL,
    guard BLOB NOT NULL,
    token BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE denied (
    node BLOB PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE writes (
    number INTEGER PRIMARY KEY,
    resource TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    n INTEGER NOT NULL,
    node BLOB NOT NULL,
    kind TEXT NOT NULL,
    rows INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;
";

/// Second schema step: what upkeep looks for.
const INDEXES: &str = "
CREATE INDEX sessions_used ON sessions (used_at);
CREATE INDEX closed_sessions_at ON closed_sessions (closed_at);
CREATE INDEX tickets_end ON tickets (ends_at);
CREATE INDEX presence_seen ON presence (last_seen);
CREATE INDEX lease_terms_end ON lease_terms (ends_at);
";

/// Third schema step: the greatest time of any write, as reads tell it.
const CLOCK: &str = "
INSERT INTO meta SELECT 'clock', coalesce(max(last_posted_at), 0) FROM boards;
";

/// Fourth schema step: when ids were cancelled and nodes last used, so that they are forgotten one
/// day.
const CANCELS: &str = "
CREATE TABLE cancels (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    user BLOB NOT NULL,
    id BLOB NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX cancels_user ON cancels (user, number);
CREATE INDEX cancels_at ON cancels (at);
INSERT INTO cancels (user, id, at)
    SELECT user, id, (SELECT value FROM meta WHERE name = 'clock') FROM post_ids
    WHERE board IS NULL;
ALTER TABLE enrolled ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
";

/// Fifth schema step: digests of the open sessions, by the first byte of their keys.
const DIGESTS: &str = "
CREATE TABLE session_digests (bucket INTEGER PRIMARY KEY, digest INTEGER NOT NULL) STRICT;
";

/// State of a database file before anything in it was changed.
pub(super) enum FileState {
    /// The file has no tables.
    Empty,
    /// The file is a store that this release may use.
    Store {
        /// Number of schema steps that it has.
        steps: usize,
    },
}

impl FileState {
    /// Refuses an empty file where no store may be made.
    pub(super) fn usable(self, new: Option<&NewCluster>) -> Result<Self, StoreError> {
        match self {
            Self::Empty if new.is_none() => Err(refused("the file is empty, it holds no store")),
            state => Ok(state),
        }
    }
}

/// Returns whether a store of this number of steps may hold tables that this release does not know.
pub(super) const fn is_newer(steps: usize) -> bool {
    steps > STEPS.len()
}

/// Inspects a database file, and changes nothing.
///
/// # Errors
/// [`StoreError::Refused`] for a database of another program or of a release too new.
pub(super) fn recognise(db: &Connection) -> Result<FileState, StoreError> {
    let number =
        |name| -> rusqlite::Result<u32> { db.pragma_query_value(None, name, |row| row.get(0)) };
    let tables: u32 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.small(0))?;
    if tables == 0 {
        return Ok(FileState::Empty);
    }
    let steps = number("user_version")? as usize;
    if number("application_id")? != APPLICATION_ID || steps == 0 {
        return Err(refused("the file is another program's database"));
    }
    let min_reader = db.query_row("SELECT min_reader FROM cluster", [], |row| row.small(0));
    match min_reader.optional()? {
        None => Err(refused("the store has no cluster row")),
        Some(min) => allowed(min).map(|()| FileState::Store { steps }),
    }
}

/// Refuses a store that wants a release which knows more steps than this one.
///
/// # Errors
/// [`StoreError::Refused`] with the remedy.
pub(super) fn allowed(min_reader: u32) -> Result<(), StoreError> {
    store::allowed(min_reader.into(), STEPS.len())
}

/// Creates the tables if there are none, and adds the schema steps that an older release did not
/// know. Repeating it is safe; `new` is used only the first time, and without it no table is made.
///
/// # Errors
/// As [`recognise`]; [`StoreError::Away`] while another process holds the file.
pub(super) fn prepare(db: &mut Connection, new: Option<&NewCluster>) -> Result<(), StoreError> {
    let is_complete = |state| matches!(state, FileState::Store { steps } if steps >= STEPS.len());
    if is_complete(recognise(db)?) {
        return Ok(());
    }
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it since.
    match recognise(&tx)? {
        FileState::Store { steps } => add_steps(&tx, steps)?,
        FileState::Empty => match new {
            Some(new) => create(&tx, new)?,
            None => return FileState::Empty.usable(None).map(drop),
        },
    }
    Ok(tx.commit()?)
}

/// Adds the schema steps behind the first `from`. A newer release may have added more.
fn add_steps(db: &Connection, from: usize) -> Result<(), StoreError> {
    if from < STEPS.len() {
        for step in &STEPS[from..] {
            db.execute_batch(step)?;
        }
        // An older store has sessions.
        Tx { db, now_ms: 0 }.count_digests()?;
        db.pragma_update(None, "user_version", STEPS.len() as u32)?;
    }
    Ok(())
}

fn create(db: &Connection, new: &NewCluster) -> Result<(), StoreError> {
    add_steps(db, 0)?;
    db.execute(
        "INSERT INTO cluster (one, cluster, epoch, min_reader) VALUES (1, ?1, ?2, ?3)",
        params![new.cluster, int(new.epoch.0), MIN_READER],
    )?;
    db.execute(
        "INSERT INTO boards (name, last_seq, last_posted_at) VALUES (?1, 0, 0)",
        params![BoardName::lobby().as_str()],
    )?;
    for name in ["clock_at", "jumped_at"] {
        db.execute(
            "INSERT INTO meta (name, value) VALUES (?1, ?2)",
            params![name, int(new.now_ms)],
        )?;
    }
    db.pragma_update(None, "application_id", APPLICATION_ID)?;
    Ok(())
}
