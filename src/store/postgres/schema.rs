//! Tables of the store, creation of a new one, and the check whether this release may use it.
//!
//! 1. Schema steps only add. `steps` of `chatchat_store` counts them; `min_reader` is the oldest release
//!    (by its own count of steps) that may still use the store.
//! 2. Creation and upgrade happen under an advisory lock, in one transaction: of two that come at
//!    once the second finds the work done.
//! 3. What an append changes (`leases`) and what a renewal changes (`lease_terms`) are two rows.
//! 4. Texts sort by their bytes, whatever the database's language is.
//! 5. A change takes [`CHANGE_MAX`] at most: then its client gives up, and it is undone. PostgreSQL 14 and
//!    later end the running statement within a second after that, on systems that report a closed connection.
//!    Elsewhere each statement ends by itself after [`CHANGE_MAX`], and those of one step may add up, except
//!    on PostgreSQL 17 and later, which bound the whole transaction.

use std::time::Duration;

use tokio_postgres::Client;

use super::sql::{Columns, NOW, Outcome, int};
use crate::{
    model::{
        absence::AwayReason,
        ids::{BoardName, StoreEpoch},
        rows::StoreError,
    },
    store::{allowed, history::Mark, refused},
};

/// Schema that a release knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Release {
    /// Schema steps in order. One that adds what workers use grants it to their group, and adds it to the
    /// rights in `login.rs`.
    pub(super) steps: &'static [&'static str],
    /// Oldest release, by its number of steps, that may use a store that this one makes. A step that older
    /// ones cannot read past raises the number of a store that is there. It begins with `LOCK TABLE chatchat_store
    /// IN ACCESS EXCLUSIVE MODE`: each write reads the number in its transaction, and one that has read the old one
    /// is over then.
    pub(super) min_reader: i64,
}

/// Schema that this release knows.
pub(super) const THIS_RELEASE: Release = Release { steps: &[TABLES], min_reader: 1 };

/// Key of the advisory lock under which the schema is changed: `CHATCHAT` in ASCII.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(4848196829026206036)";

/// First schema step.
const TABLES: &str = "
CREATE TABLE chatchat_store (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    steps BIGINT NOT NULL,
    min_reader BIGINT NOT NULL,
    cluster BYTEA NOT NULL,
    epoch BIGINT NOT NULL
);

-- The row that every write in turn locks: the greatest time of a write, and the last numbers that
-- were given in the order of commits.
CREATE TABLE clock (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    at BIGINT NOT NULL,
    writes BIGINT NOT NULL,
    closed BIGINT NOT NULL
);

-- Single numbers: when presence was last touched, what the clock said.
CREATE TABLE meta (
    name TEXT COLLATE \"C\" PRIMARY KEY,
    value BIGINT NOT NULL
);

CREATE TABLE masters (
    node BYTEA PRIMARY KEY,
    incarnation BIGINT NOT NULL,
    beat BIGINT NOT NULL,
    http TEXT NOT NULL,
    link TEXT NOT NULL,
    spki BYTEA NOT NULL,
    name TEXT NOT NULL,
    draining BOOLEAN NOT NULL,
    guard BYTEA NOT NULL,
    listed BOOLEAN NOT NULL,
    touched_at BIGINT NOT NULL
);

-- Fencing state of a resource: the newest token seen, and the worker and batch that its n named.
CREATE TABLE leases (
    resource TEXT COLLATE \"C\" PRIMARY KEY,
    epoch BIGINT NOT NULL,
    lease BIGINT NOT NULL,
    n BIGINT NOT NULL,
    worker BYTEA,
    batch BYTEA
);

-- Holder and end of each lease; node is NULL once it was released.
CREATE TABLE lease_terms (
    resource TEXT COLLATE \"C\" PRIMARY KEY,
    lease BIGINT NOT NULL,
    node BYTEA,
    incarnation BIGINT NOT NULL,
    ttl BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    wisher BYTEA,
    wisher_incarnation BIGINT NOT NULL,
    wished_at BIGINT NOT NULL
);
CREATE INDEX lease_terms_end ON lease_terms (ends_at);

CREATE TABLE boards (
    board BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT COLLATE \"C\" NOT NULL UNIQUE,
    last_seq BIGINT NOT NULL,
    last_posted_at BIGINT NOT NULL
);

CREATE TABLE posts (
    board BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    author BYTEA NOT NULL,
    id BYTEA NOT NULL,
    name TEXT NOT NULL,
    text TEXT NOT NULL,
    posted_at BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    lease BIGINT NOT NULL,
    n BIGINT NOT NULL,
    worker BYTEA NOT NULL,
    PRIMARY KEY (board, seq)
);

-- Every id that was ever used; board and seq are NULL once it was cancelled.
CREATE TABLE post_ids (
    author BYTEA NOT NULL,
    id BYTEA NOT NULL,
    board BIGINT,
    seq BIGINT,
    PRIMARY KEY (author, id)
);

-- When ids were cancelled, so that they are forgotten one day.
CREATE TABLE cancels (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    author BYTEA NOT NULL,
    id BYTEA NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX cancels_author ON cancels (author, number);
CREATE INDEX cancels_at ON cancels (at);

CREATE TABLE sessions (
    key BYTEA PRIMARY KEY,
    author BYTEA NOT NULL,
    name TEXT COLLATE \"C\" NOT NULL,
    opened_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL
);
CREATE INDEX sessions_author ON sessions (author);
CREATE INDEX sessions_used ON sessions (used_at);

-- Digests of the open sessions, by the first byte of their keys.
CREATE TABLE session_digests (
    bucket BIGINT PRIMARY KEY,
    digest BIGINT NOT NULL
);

CREATE TABLE closed_sessions (
    number BIGINT PRIMARY KEY,
    key BYTEA NOT NULL UNIQUE,
    closed_at BIGINT NOT NULL
);
CREATE INDEX closed_sessions_at ON closed_sessions (closed_at);

CREATE TABLE read_marks (
    author BYTEA NOT NULL,
    board BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (author, board)
);

-- new_key is set once it was redeemed.
CREATE TABLE tickets (
    ticket BYTEA PRIMARY KEY,
    key BYTEA NOT NULL,
    ends_at BIGINT NOT NULL,
    new_key BYTEA
);
CREATE INDEX tickets_key ON tickets (key, ends_at);
CREATE INDEX tickets_end ON tickets (ends_at);

CREATE TABLE presence (
    key BYTEA PRIMARY KEY,
    master BYTEA NOT NULL,
    since BIGINT NOT NULL,
    last_seen BIGINT NOT NULL
);
CREATE INDEX presence_seen ON presence (last_seen);

CREATE TABLE dead_letters (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    resource TEXT NOT NULL,
    author BYTEA,
    id BYTEA,
    name TEXT,
    text TEXT,
    why TEXT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX dead_letters_post ON dead_letters (author, id);

CREATE TABLE join_tokens (
    id BYTEA PRIMARY KEY,
    guard BYTEA NOT NULL,
    bearer_sha256 BYTEA NOT NULL,
    role TEXT NOT NULL,
    uses_left BIGINT NOT NULL,
    ends_at BIGINT NOT NULL
);

CREATE TABLE enrolled (
    node BYTEA PRIMARY KEY,
    fingerprint BYTEA NOT NULL,
    role TEXT NOT NULL,
    guard BYTEA NOT NULL,
    token BYTEA NOT NULL,
    used_at BIGINT NOT NULL
);

CREATE TABLE denied (
    node BYTEA PRIMARY KEY,
    at BIGINT NOT NULL
);

CREATE TABLE writes (
    number BIGINT PRIMARY KEY,
    resource TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    lease BIGINT NOT NULL,
    n BIGINT NOT NULL,
    node BYTEA NOT NULL,
    kind TEXT NOT NULL,
    rows BIGINT NOT NULL,
    at BIGINT NOT NULL
);
";

/// Rights of an opener over the tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    /// Id of the cluster that is made where there is none; `None` makes none.
    pub(super) create: Option<[u8; 16]>,
    /// Whether steps that are missing may be added.
    pub(super) upgrade: bool,
}

/// State of the tables before anything was changed.
enum Found {
    Nothing,
    Store { steps: usize, mark: Mark },
}

/// Tables as an opener finds them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tables {
    /// Those that the release needs.
    Ready(Mark),
    /// None: they are to be made for this cluster, unless another opener does.
    Missing { cluster: [u8; 16] },
    /// Those of an earlier release: steps are to be added.
    Outdated,
}

/// Longest time of the creation or upgrade of the tables: a step may go over every post.
pub(super) const CHANGE_MAX: Duration = Duration::from_secs(600);

/// Has the server end a statement once its client has closed the connection.
const END_WITH_CLIENT: &str = "SELECT set_config(name, '1s', false) FROM pg_settings
     WHERE name = 'client_connection_check_interval'";

/// Finds out whether the tables are there, and whether this opener has to make or upgrade them. Changes
/// nothing.
///
/// # Errors
/// [`StoreError::Refused`] for tables of another program, for a store of a release too new, and if
/// there is no store and none may be made; [`StoreError::Away`] while a step is missing that others
/// have to add.
pub(super) async fn find(client: &Client, rights: Rights, release: Release) -> Outcome<Tables> {
    Ok(match recognise(client, release).await? {
        Found::Store { steps, mark } if steps >= release.steps.len() => Tables::Ready(mark),
        Found::Store { steps, .. } if !rights.upgrade => {
            let why = format!(
                "it has {steps} of the {} steps that this release needs; start a master or \
                 chatchat-cluster of this release first",
                release.steps.len()
            );
            return Err(StoreError::away(AwayReason::Failing, why).into());
        }
        Found::Store { .. } => Tables::Outdated,
        Found::Nothing => match rights.create {
            Some(cluster) => Tables::Missing { cluster },
            None => return Err(refused("no store was made in it yet").into()),
        },
    })
}

/// Creates the tables for the cluster `new` if there are none, or adds the steps that are missing, in one
/// transaction, and returns the store's mark. The server gives each statement `most`. Repeating it is safe.
///
/// # Errors
/// Those of [`find`]; nothing was changed then.
pub(super) async fn change(
    client: &Client,
    new: Option<[u8; 16]>,
    release: Release,
    most: Duration,
) -> Outcome<Mark> {
    // A server that cannot see this on its system refuses the setting, and the change goes on without it.
    drop(client.batch_execute(END_WITH_CLIENT).await);
    client.batch_execute("BEGIN").await?;
    let done = change_locked(client, new, release, most).await;
    match &done {
        Ok(_) => client.batch_execute("COMMIT").await?,
        // An error of the rollback would hide the first one, and ends the connection all the same.
        Err(_) => drop(client.batch_execute("ROLLBACK").await),
    }
    done
}

async fn change_locked(
    client: &Client,
    new: Option<[u8; 16]>,
    release: Release,
    most: Duration,
) -> Outcome<Mark> {
    let ms = most.as_millis();
    // Another one may be at it, so the wait for its lock is longer than others are.
    let limits = format!(
        "SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = {ms};
         SELECT set_config(name, '{ms}', true) FROM pg_settings WHERE name = 'transaction_timeout'"
    );
    client.batch_execute(&limits).await?;
    client.batch_execute(LOCK).await?;
    match (recognise(client, release).await?, new) {
        (Found::Store { steps, mark }, _) => {
            if steps < release.steps.len() {
                add_steps(client, steps, release).await?;
                let sql = "UPDATE chatchat_store SET steps = $1";
                client.execute(sql, &[&(release.steps.len() as i64)]).await?;
            }
            Ok(mark)
        }
        (Found::Nothing, Some(cluster)) => create(client, cluster, release).await,
        (Found::Nothing, None) => Err(refused("no store was made in it yet").into()),
    }
}

/// Returns the mark of a store whose tables are those that this release knows, and changes nothing.
///
/// # Errors
/// [`StoreError::Refused`] for any other store, and if there is none.
pub(super) async fn known(client: &Client) -> Outcome<Mark> {
    match recognise(client, THIS_RELEASE).await? {
        Found::Store { steps, mark } if steps == THIS_RELEASE.steps.len() => Ok(mark),
        Found::Store { steps, .. } => Err(of_other_release(steps).into()),
        Found::Nothing => Err(refused("no store was made in it yet").into()),
    }
}

/// Keeps all others from changing the schema until the transaction ends, and returns the mark of the
/// store if there is one. Tables that are missing are made, without rows.
///
/// # Errors
/// [`StoreError::Refused`] for tables of another program, and for a store of a newer release.
pub(super) async fn take_over(client: &Client) -> Outcome<Option<Mark>> {
    client.batch_execute(LOCK).await?;
    let release = THIS_RELEASE;
    match recognise(client, release).await? {
        Found::Nothing => add_steps(client, 0, release).await.map(|()| None),
        Found::Store { steps, .. } if steps > release.steps.len() => {
            Err(of_other_release(steps).into())
        }
        Found::Store { steps, mark } => {
            add_steps(client, steps, release).await.map(|()| Some(mark))
        }
    }
}

/// Writes the row that tells which store this is.
pub(super) async fn identify(client: &Client, cluster: [u8; 16], epoch: StoreEpoch) -> Outcome<()> {
    identify_of(client, cluster, epoch, THIS_RELEASE).await
}

async fn identify_of(
    client: &Client,
    cluster: [u8; 16],
    epoch: StoreEpoch,
    release: Release,
) -> Outcome<()> {
    let steps = release.steps.len() as i64;
    client
        .execute(
            "INSERT INTO chatchat_store (one, steps, min_reader, cluster, epoch)
             VALUES (1, $1, $2, $3, $4)
             ON CONFLICT (one) DO UPDATE SET
                 steps = excluded.steps, min_reader = excluded.min_reader,
                 cluster = excluded.cluster, epoch = excluded.epoch",
            &[&steps, &release.min_reader, &&cluster[..], &int(epoch.0)],
        )
        .await?;
    Ok(())
}

fn of_other_release(steps: usize) -> StoreError {
    refused(format!(
        "its tables have {steps} steps, and this release knows {}; take the chatctl of the release \
         that the masters run",
        THIS_RELEASE.steps.len()
    ))
}

/// Inspects the tables, and changes nothing.
async fn recognise(client: &Client, release: Release) -> Outcome<Found> {
    // A statement on a table that is not there would end the transaction. One statement asks both,
    // so that a store that is made meanwhile is never taken for another program's tables.
    let sql = "SELECT current_schema(), count(t.table_name),
                      to_regclass('chatchat_store') IS NOT NULL
               FROM (SELECT 1) one
               LEFT JOIN information_schema.tables t ON t.table_schema = current_schema()";
    let row = client.query_one(sql, &[]).await?;
    let is_there: bool = row.try_get(2)?;
    if !is_there {
        return no_store(row.try_get(0)?, row.nat(1)?);
    }
    let sql = "SELECT steps, min_reader, cluster, epoch, (SELECT at FROM clock)
               FROM chatchat_store";
    let row = client.query_opt(sql, &[]).await?;
    let Some(row) = row else { return Err(refused("its table chatchat_store is empty").into()) };
    let min_reader = row.nat(1)?;
    allowed(min_reader, release.steps.len())?;
    let clock_ms = if row.is_null(4)? { 0 } else { row.nat(4)? };
    let mark = Mark { cluster: row.bytes(2)?, epoch: StoreEpoch(row.nat(3)?), clock_ms };
    Ok(Found::Store { steps: usize::try_from(row.nat(0)?).unwrap_or(usize::MAX), mark })
}

/// Refuses a schema without a store that is not there, or holds anything else.
fn no_store(schema: Option<&str>, tables: u64) -> Outcome<Found> {
    match (schema, tables) {
        (Some(_), 0) => Ok(Found::Nothing),
        (Some(schema), _) => {
            let why = format!(
                "its schema {schema} holds tables of another program; name an empty database, or \
                 another schema by options=-csearch_path%3DNAME"
            );
            Err(refused(why).into())
        }
        (None, _) => Err(refused("the schema that its search_path names is not there").into()),
    }
}

async fn add_steps(client: &Client, from: usize, release: Release) -> Outcome<()> {
    for step in release.steps.iter().skip(from) {
        client.batch_execute(step).await?;
    }
    Ok(())
}

async fn create(client: &Client, cluster: [u8; 16], release: Release) -> Outcome<Mark> {
    add_steps(client, 0, release).await?;
    let now_ms = client.query_one(NOW, &[]).await?.nat(0)?;
    let epoch = StoreEpoch(now_ms / 1000);
    identify_of(client, cluster, epoch, release).await?;
    client.batch_execute("INSERT INTO clock (one, at, writes, closed) VALUES (1, 0, 0, 0)").await?;
    client
        .execute(
            "INSERT INTO boards (name, last_seq, last_posted_at) VALUES ($1, 0, 0)",
            &[&BoardName::lobby().as_str()],
        )
        .await?;
    client
        .execute(
            "INSERT INTO meta (name, value) VALUES ('clock_at', $1), ('jumped_at', $1)",
            &[&int(now_ms)],
        )
        .await?;
    Ok(Mark { cluster, epoch, clock_ms: 0 })
}
