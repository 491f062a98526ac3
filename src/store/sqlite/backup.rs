//! Backup of a store's file while nodes use it, and restore of one while none does.
//!
//! 1. A backup is the store as it was at one moment, in a file of its own (mode 0600): a store like
//!    any other. A name that was asked for stands for a whole file or for none.
//! 2. A restore begins a new epoch, so that what nodes and pages have of the store before counts
//!    no more.
//! 3. It lets nobody in who was shut out: nodes that the store before had denied stay denied, and
//!    tokens and tickets that were open at the time of the backup are void.
//! 4. Masters go on counting their lives above all that they can have had since the backup.
//! 5. The store before is kept beside the restored one.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use super::{
    Tx, connect,
    schema::{self, FileState},
    sql::{Columns, int},
    write_lock::{WriteLock, beside},
};
use crate::{
    env::real::open_private,
    model::{
        absence::AwayReason,
        ids::{NodeId, StoreEpoch},
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
    if to.symlink_metadata().is_ok() {
        return Err(refused(format!("{} is there already; name a new file", to.display())));
    }
    let from = open_store(path, busy)?;
    let part = NewFile::beside(to, ".part")?;
    let name = part.0.to_str().ok_or_else(|| refused("its name is not in UTF-8"))?;
    from.execute("VACUUM INTO ?1", [name])?;
    let copy = connect(&part.0, OpenFlags::empty(), busy)?;
    let contents = Contents { bytes: length(&part.0)?, ..contents(&copy)? };
    drop(copy);
    part.rename(to)?;
    Ok(contents)
}

/// Puts the backup `from` in the place of the store at `path`, whose nodes have to be stopped.
/// `now_ms` is Unix time.
///
/// # Errors
/// [`StoreError::Refused`] when `from` is no whole store or of another cluster;
/// [`StoreError::Away`] when a node still uses the store, and for errors of the files. The store at
/// `path` is as it was; if a crash comes between its renaming and the new one's, it has its new name.
pub fn restore(
    from: &Path,
    path: &Path,
    now_ms: u64,
    busy: Duration,
) -> Result<Restored, StoreError> {
    if !from.is_file() {
        return Err(refused(format!("{} is no file", from.display())));
    }
    let part = NewFile::beside(path, ".restoring")?;
    let write = OpenOptions::new().write(true).open(&part.0);
    let copied = write.and_then(|mut to| io::copy(&mut File::open(from)?, &mut to));
    copied.map_err(|e| failing(from, &e))?;
    let lock = WriteLock::of(path).map_err(|e| failing(path, &e))?;
    let before = Before::of(path, busy)?;
    // Free: no node has the store open any more.
    let _held = lock.acquire().map_err(|e| failing(path, &e))?;
    let (from_epoch, contents) = renew(&part.0, &before, now_ms, busy)?;
    let replaced = match before {
        Before::Nothing => None,
        Before::Unreadable | Before::Store { .. } => Some(set_aside(path, contents.epoch)?),
    };
    part.rename(path)?;
    let lost_deny_list = matches!(before, Before::Unreadable);
    Ok(Restored { contents, from_epoch, replaced, lost_deny_list })
}

/// Store that a restore replaces.
enum Before {
    Nothing,
    Unreadable,
    Store { cluster: [u8; 16], epoch: u64, denied: Vec<(NodeId, u64)>, lives: Vec<(NodeId, u64)> },
}

impl Before {
    /// Reads what has to be kept of the store, and makes its one file the whole of it, which
    /// works only while nobody else has it open.
    fn of(path: &Path, busy: Duration) -> Result<Self, StoreError> {
        if path.symlink_metadata().is_err() {
            return Ok(Self::Nothing);
        }
        let read = || {
            let db = open_store(path, busy)?;
            let mode = db.pragma_update_and_check(None, "journal_mode", "DELETE", |row| {
                row.get::<_, String>(0)
            })?;
            if mode != "delete" {
                return Err(StoreError::away(AwayReason::Locked, "it is in use"));
            }
            let (cluster, epoch) = identity(&db)?;
            let denied = pairs(&db, "SELECT node, at FROM denied")?;
            let lives = pairs(&db, "SELECT node, incarnation FROM masters")?;
            Ok(Self::Store { cluster, epoch, denied, lives })
        };
        match read() {
            Err(StoreError::Away { reason: AwayReason::Locked, .. }) => {
                let why = format!(
                    "{} is in use; stop all nodes of the cluster first, workers too",
                    path.display()
                );
                Err(StoreError::away(AwayReason::Locked, why))
            }
            // What is damaged is what a restore is for.
            Err(StoreError::Broken { .. } | StoreError::Refused { .. }) => Ok(Self::Unreadable),
            read => read,
        }
    }
}

/// Turns the copy of a backup into the store that follows the one before. Returns the backup's
/// epoch and the new contents.
fn renew(
    copy: &Path,
    before: &Before,
    now_ms: u64,
    busy: Duration,
) -> Result<(StoreEpoch, Contents), StoreError> {
    let mut db = open_store(copy, busy)?;
    let sound: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(refused(format!("the backup is damaged: {sound}")));
    }
    schema::prepare(&mut db, None)?;
    let (cluster, epoch) = identity(&db)?;
    let (mut next, mut denied, mut lives) = (now_ms / 1000, &[][..], &[][..]);
    next = next.max(epoch + 1);
    if let Before::Store { cluster: theirs, epoch, denied: listed, lives: known } = before {
        if *theirs != cluster {
            return Err(refused("the backup is of another cluster than the store in its place"));
        }
        (next, denied, lives) = (next.max(epoch + 1), listed, known);
    }
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute("UPDATE cluster SET epoch = ?1", [int(next)])?;
    tx.execute_batch(
        "DELETE FROM tickets; DELETE FROM join_tokens; DELETE FROM presence;
         UPDATE lease_terms SET node = NULL, ends_at = 0;",
    )?;
    for (node, at) in denied {
        tx.execute(
            "INSERT INTO denied (node, at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![node.0, int(*at)],
        )?;
    }
    tx.execute("DELETE FROM enrolled WHERE node IN (SELECT node FROM denied)", [])?;
    // No master begins more than one life a second, and the first epoch is a time in seconds.
    tx.execute(
        "UPDATE masters SET listed = 0, incarnation = incarnation + ?1",
        [int(next - epoch)],
    )?;
    for (node, life) in lives {
        tx.execute(
            "UPDATE masters SET incarnation = max(incarnation, ?2) WHERE node = ?1",
            params![node.0, int(*life)],
        )?;
    }
    Tx { db: &tx, now_ms }.count_digests()?;
    tx.commit()?;
    let contents = Contents { bytes: length(copy)?, ..contents(&db)? };
    Ok((StoreEpoch(epoch), contents))
}

/// Opens a store's file; never makes one.
fn open_store(path: &Path, busy: Duration) -> Result<Connection, StoreError> {
    if !path.is_file() {
        return Err(refused(format!("{} is no file", path.display())));
    }
    let db = connect(path, OpenFlags::empty(), busy)?;
    match schema::recognise(&db)?.usable(None)? {
        FileState::Store { .. } => Ok(db),
        FileState::Empty => Err(refused("the file holds no store")),
    }
}

fn identity(db: &Connection) -> Result<([u8; 16], u64), StoreError> {
    Ok(db.query_row("SELECT cluster, epoch FROM cluster", [], |row| {
        Ok((row.get(0)?, row.nat(1)?))
    })?)
}

fn pairs(db: &Connection, select: &str) -> Result<Vec<(NodeId, u64)>, StoreError> {
    let mut find = db.prepare(select)?;
    let rows = find.query_map([], |row| Ok((NodeId(row.get(0)?), row.nat(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn contents(db: &Connection) -> Result<Contents, StoreError> {
    let (_, epoch) = identity(db)?;
    let count = "SELECT (SELECT count(*) FROM boards), (SELECT count(*) FROM posts)";
    let (boards, posts) = db.query_row(count, [], |row| Ok((row.nat(0)?, row.nat(1)?)))?;
    Ok(Contents { boards, posts, epoch: StoreEpoch(epoch), bytes: 0 })
}

/// Gives the store's file another name, and removes what lay beside it. Returns the name.
fn set_aside(path: &Path, epoch: StoreEpoch) -> Result<PathBuf, StoreError> {
    let aside = beside(path, &format!(".before-{}", epoch.0));
    let moved = fs::rename(path, &aside).and_then(|()| {
        // They belong to the file that has another name now; of a readable store there are none.
        for end in ["-wal", "-shm"] {
            match fs::rename(beside(path, end), beside(&aside, end)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    });
    moved.map_err(|e| failing(path, &e))?;
    Ok(aside)
}

/// File that gets its name when it is whole; else it is removed.
struct NewFile(PathBuf);

impl NewFile {
    /// Makes it, empty, beside the file whose name it will get.
    fn beside(name: &Path, suffix: &str) -> Result<Self, StoreError> {
        let path = beside(name, suffix);
        let removed = match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        let create = || open_private(OpenOptions::new().write(true).create_new(true), &path);
        removed.and_then(|()| create()).map_err(|e| failing(&path, &e))?;
        Ok(Self(path))
    }

    /// Gives it its name; durable when it returns.
    fn rename(self, name: &Path) -> Result<(), StoreError> {
        let named = File::open(&self.0).and_then(|file| {
            file.sync_all()?;
            fs::rename(&self.0, name)?;
            let dir = name.parent().filter(|dir| !dir.as_os_str().is_empty());
            File::open(dir.unwrap_or_else(|| Path::new(".")))?.sync_all()
        });
        named.map_err(|e| failing(name, &e))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // It is not there any more if it has its name.
        let _ = fs::remove_file(&self.0);
        for end in ["-journal", "-wal", "-shm"] {
            let mut name = OsString::from(&self.0);
            name.push(end);
            let _ = fs::remove_file(name);
        }
    }
}

fn length(path: &Path) -> Result<u64, StoreError> {
    Ok(fs::metadata(path).map_err(|e| failing(path, &e))?.len())
}

fn failing(path: &Path, error: &io::Error) -> StoreError {
    StoreError::away(AwayReason::Failing, format!("{}: {error}", path.display()))
}
