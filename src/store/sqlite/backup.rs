//! Backup of a store's file while nodes use it, and restore of one while none does.
//!
//! 1. A backup is the store as it was at one moment, in a file of its own (mode 0600): a store like
//!    any other. A name that was asked for stands for a whole file or for none.
//! 2. A restore begins a new epoch, so that what nodes and pages have of the store before counts
//!    no more.
//! 3. It lets nobody in who was shut out: nodes that the store before had denied stay denied,
//!    sessions that were closed in it stay closed, and tokens and tickets that were open at the time
//!    of the backup are void.
//! 4. Masters go on counting their lives above all that they can have had since the backup.
//! 5. The store before is kept beside the restored one, and its name always stands for one of them.
//!    Logs that lie beside it never get beside the restored one.
//! 6. The restored store belongs to the user of the store before, so that its nodes can open it; where
//!    none was, root leaves it to the user of the directory.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use super::{
    Tx, connect,
    new_file::{LOGS, NewFile, failing, length, of_file},
    owner::Owner,
    schema::{self, FileState},
    sql::{Columns, int},
    write_lock::{WriteLock, beside, other_user},
};
use crate::{
    model::{
        absence::AwayReason,
        ids::{NodeId, SessionKey, StoreEpoch},
        rows::StoreError,
    },
    store::refused,
};

/// Contents of a store's file, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Number of boards.
    pub boards: u64,
    /// Number of posts.
    pub posts: u64,
    /// Epoch of the store.
    pub epoch: StoreEpoch,
    /// Size of the file, bytes.
    pub bytes: u64,
}

/// Report of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Contents of the restored store, in its new epoch.
    pub contents: Contents,
    /// Epoch of the backup.
    pub from_epoch: StoreEpoch,
    /// Name that the store before has now; `None` if there was none.
    pub replaced: Option<PathBuf>,
    /// Whether the store before was unreadable, so that its deny list is lost.
    pub lost_deny_list: bool,
}

/// Writes the store at `path` to a new file `to`, as it is at one moment. Nodes may use the store
/// meanwhile; writers do not wait.
///
/// # Errors
/// [`StoreError::Refused`] when `to` is there already or `path` is no store; [`StoreError::Away`]
/// and [`StoreError::Broken`] of the files. No file of the name `to` was made.
pub fn back_up(path: &Path, to: &Path, busy: Duration) -> Result<Contents, StoreError> {
    check_new(to)?;
    let from = open_store(path, busy).map_err(|e| of_file(path, e))?;
    let part = NewFile::beside(to, "part")?;
    let name = part.path().to_str().ok_or_else(|| refused("its name is not in UTF-8"))?;
    from.execute("VACUUM INTO ?1", [name]).map_err(|e| of_file(path, e.into()))?;
    let copy = connect(part.path(), OpenFlags::empty(), busy)?;
    let contents = Contents { bytes: length(part.path())?, ..contents(&copy)? };
    drop(copy);
    part.sync()?;
    part.name(to)?;
    Ok(contents)
}

/// Puts the backup `from` in the place of the store at `path`, whose nodes have to be stopped.
/// `now_ms` is Unix time.
///
/// # Errors
/// [`StoreError::Refused`] when `from` is no whole store or of another cluster, or when `path` holds
/// something else; [`StoreError::Away`] when a node still uses the store, when the restored one
/// cannot be given to its owner, and for errors of the files. The store at `path` is as it was.
pub fn restore(
    from: &Path,
    path: &Path,
    now_ms: u64,
    busy: Duration,
) -> Result<Restored, StoreError> {
    // A link in the store's place stays.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if from.canonicalize().is_ok_and(|from| from == *path) {
        return Err(refused(format!("{} is the store itself", from.display())));
    }
    let part = copied(from, path)?;
    let owner = Owner::of_store(path).map_err(|e| failing(path, &e))?;
    part.give_to(owner).map_err(|e| failing(path, &e))?;
    if let Some(pid) = other_user(path) {
        return Err(in_use(path, &format!("process {pid}")));
    }
    let lock = WriteLock::of_owner(path, owner).map_err(|e| failing(path, &e))?;
    let _held = lock.acquire().map_err(|e| failing(path, &e))?;
    let before = Before::of(path, busy)?;
    let renewed = prove(part.path(), busy).and_then(|()| renew(part.path(), &before, now_ms, busy));
    let (from_epoch, contents) = renewed.map_err(|e| of_file(from, e))?;
    part.sync()?;
    let replaced = set_aside(path, contents.epoch)?;
    part.name(path)?;
    let lost_deny_list = matches!(before, Before::Unreadable);
    Ok(Restored { contents, from_epoch, replaced, lost_deny_list })
}

/// Refuses the name of a new backup that is taken.
pub(super) fn check_new(to: &Path) -> Result<(), StoreError> {
    if to.symlink_metadata().is_ok() {
        return Err(refused(format!("{} is there already; name a new file", to.display())));
    }
    Ok(())
}

/// Returns a copy of a backup, beside `name`. Refuses a file that is no backup of its own.
pub(super) fn copied(from: &Path, name: &Path) -> Result<NewFile, StoreError> {
    if !from.is_file() {
        return Err(refused(format!("{} is no file", from.display())));
    }
    let logs = ["-wal", "-journal"].map(|end| beside(from, end));
    if let Some(log) = logs.into_iter().find(|log| log.exists()) {
        return Err(refused(format!(
            "{} lies beside it: the file alone is no whole store; make a backup of it first",
            log.display()
        )));
    }
    let part = NewFile::beside(name, "restoring")?;
    let write = OpenOptions::new().write(true).open(part.path());
    let copied = write.and_then(|mut to| io::copy(&mut File::open(from)?, &mut to));
    copied.map_err(|e| failing(from, &e))?;
    Ok(part)
}

/// Store that a restore replaces.
pub(in crate::store) enum Before {
    Nothing,
    Unreadable,
    Store(Kept),
}

/// Parts of the store before that outlive it.
pub(in crate::store) struct Kept {
    pub(in crate::store) cluster: [u8; 16],
    pub(in crate::store) epoch: u64,
    /// Denied nodes, and when.
    pub(in crate::store) denied: Vec<(NodeId, u64)>,
    /// Masters, and their lives.
    pub(in crate::store) lives: Vec<(NodeId, u64)>,
    pub(in crate::store) closed: Vec<SessionKey>,
}

impl Before {
    /// Reads what has to be kept of the store, and makes its one file the whole of it, which
    /// works only while nobody else has it open.
    fn of(path: &Path, busy: Duration) -> Result<Self, StoreError> {
        match path.symlink_metadata() {
            Err(_) => return Ok(Self::Nothing),
            Ok(meta) if meta.len() == 0 && meta.is_file() => return Ok(Self::Unreadable),
            Ok(_) => {}
        }
        match Self::read(path, busy) {
            Ok(kept) => Ok(Self::Store(kept)),
            Err(StoreError::Away { reason: AwayReason::Locked, .. }) => {
                Err(in_use(path, "another process"))
            }
            // What is damaged is what a restore is for.
            Err(StoreError::Broken { .. }) => Ok(Self::Unreadable),
            Err(other) => Err(of_file(path, other)),
        }
    }

    fn read(path: &Path, busy: Duration) -> Result<Kept, StoreError> {
        let db = open_store(path, busy)?;
        in_one_file(&db)?;
        let (cluster, epoch) = identity(&db)?;
        let mut find = db.prepare("SELECT key FROM closed_sessions")?;
        let closed = find.query_map([], |row| Ok(SessionKey(row.get(0)?)))?;
        Ok(Kept {
            cluster,
            epoch,
            denied: pairs(&db, "SELECT node, at FROM denied")?,
            lives: pairs(&db, "SELECT node, incarnation FROM masters")?,
            closed: closed.collect::<Result<_, _>>()?,
        })
    }
}

/// Copies the log back into the file and switches it off.
fn in_one_file(db: &Connection) -> Result<(), StoreError> {
    let mode: String =
        db.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0))?;
    if mode == "delete" {
        Ok(())
    } else {
        Err(StoreError::away(AwayReason::Locked, "its log is in use"))
    }
}

fn in_use(path: &Path, by: &str) -> StoreError {
    let why = format!(
        "{} is in use by {by}; stop all nodes of the cluster first, workers too",
        path.display()
    );
    StoreError::away(AwayReason::Locked, why)
}

/// Refuses the copy of a backup that is no whole store, and brings its tables up to this release.
pub(super) fn prove(copy: &Path, busy: Duration) -> Result<(), StoreError> {
    let mut db = open_store(copy, busy)?;
    in_one_file(&db)?;
    let sound: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(refused(format!("it is damaged: {sound}")));
    }
    schema::prepare(&mut db, None)
}

/// Turns the copy of a backup into the store that follows the one before. Returns the backup's
/// epoch and the new contents.
pub(super) fn renew(
    copy: &Path,
    before: &Before,
    now_ms: u64,
    busy: Duration,
) -> Result<(StoreEpoch, Contents), StoreError> {
    let mut db = open_store(copy, busy)?;
    let (cluster, epoch) = identity(&db)?;
    let mut next = (now_ms / 1000).max(epoch + 1);
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if let Before::Store(kept) = before {
        if kept.cluster != cluster {
            return Err(refused("it is of another cluster than the store in its place"));
        }
        next = next.max(kept.epoch + 1);
    }
    tx.execute("UPDATE cluster SET epoch = ?1", [int(next)])?;
    tx.execute_batch(
        "DELETE FROM tickets; DELETE FROM join_tokens; DELETE FROM presence;
         UPDATE lease_terms SET node = NULL, ends_at = 0;",
    )?;
    // No master begins more than one life a second, and the first epoch is a time in seconds.
    tx.execute(
        "UPDATE masters SET listed = 0, touched_at = 0, incarnation = incarnation + ?1",
        [int(next - epoch)],
    )?;
    let own = Tx { db: &tx, now_ms };
    if let Before::Store(kept) = before {
        own.carry_over(kept)?;
    }
    own.count_digests()?;
    tx.commit()?;
    let contents = Contents { bytes: length(copy)?, ..contents(&db)? };
    Ok((StoreEpoch(epoch), contents))
}

impl Tx<'_> {
    /// Adds what outlives the store before.
    fn carry_over(&self, kept: &Kept) -> Result<(), StoreError> {
        let mut deny = self
            .db
            .prepare("INSERT INTO denied (node, at) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
        for (node, at) in &kept.denied {
            deny.execute(params![node.0, int(*at)])?;
        }
        self.db.execute("DELETE FROM enrolled WHERE node IN (SELECT node FROM denied)", [])?;
        let mut raise = self.db.prepare(
            "INSERT INTO masters (node, incarnation, beat, http, link, spki, name, draining, guard,
                                  listed, touched_at)
             VALUES (?1, ?2, 0, '', '', x'', '', 0, zeroblob(32), 0, 0)
             ON CONFLICT (node)
             DO UPDATE SET incarnation = max(masters.incarnation, excluded.incarnation)",
        )?;
        for (node, life) in &kept.lives {
            raise.execute(params![node.0, int(*life)])?;
        }
        kept.closed.iter().try_for_each(|key| self.end_session(*key).map(drop))
    }
}

/// Opens a store's file; never makes one.
pub(super) fn open_store(path: &Path, busy: Duration) -> Result<Connection, StoreError> {
    if !path.is_file() {
        return Err(refused("it is no file"));
    }
    let db = connect(path, OpenFlags::empty(), busy)?;
    match schema::recognise(&db)?.usable(None)? {
        FileState::Store { .. } => Ok(db),
        FileState::Empty => Err(refused("the file holds no store")),
    }
}

pub(super) fn identity(db: &Connection) -> Result<([u8; 16], u64), StoreError> {
    Ok(db.query_row("SELECT cluster, epoch FROM cluster", [], |row| {
        Ok((row.get(0)?, row.nat(1)?))
    })?)
}

fn pairs(db: &Connection, select: &str) -> Result<Vec<(NodeId, u64)>, StoreError> {
    let mut find = db.prepare(select)?;
    let rows = find.query_map([], |row| Ok((NodeId(row.get(0)?), row.nat(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn contents(db: &Connection) -> Result<Contents, StoreError> {
    let (_, epoch) = identity(db)?;
    let count = "SELECT (SELECT count(*) FROM boards), (SELECT count(*) FROM posts)";
    let (boards, posts) = db.query_row(count, [], |row| Ok((row.nat(0)?, row.nat(1)?)))?;
    Ok(Contents { boards, posts, epoch: StoreEpoch(epoch), bytes: 0 })
}

/// Gives the store's file, if there is one, a second name, and logs beside it new names. Returns
/// the second name.
fn set_aside(path: &Path, epoch: StoreEpoch) -> Result<Option<PathBuf>, StoreError> {
    let aside = beside(path, &format!(".before-{}", epoch.0));
    let kept = match fs::hard_link(path, &aside) {
        Ok(()) => Some(aside.clone()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(failing(&aside, &e)),
        // A file system without such names.
        Err(_) => {
            fs::copy(path, &aside).map_err(|e| failing(&aside, &e))?;
            Some(aside.clone())
        }
    };
    // Beside the restored store they would be taken for its own.
    for end in LOGS {
        match fs::rename(beside(path, end), beside(&aside, end)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failing(path, &e)),
            _ => {}
        }
    }
    Ok(kept)
}
