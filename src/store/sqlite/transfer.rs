//! Rows on their way between a store's file and another engine.
//!
//! 1. No more than a page of rows is in memory, and none is read or written that the list of tables
//!    does not name.
//! 2. A value that is not of its column's type is an error, never a guess.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{
    Connection, OpenFlags, Row, ToSql, params, params_from_iter,
    types::{ToSqlOutput, ValueRef},
};

pub(in crate::store) use super::new_file::NewFile;
use super::{
    backup::{self, Before, Contents, check_new, copied, identity, open_store, prove, renew},
    connect,
    new_file::{length, of_file},
    schema::{self, FileState, NewCluster},
    sql::{Columns, int, malformed},
    write_lock::beside,
};
use crate::{
    model::{ids::StoreEpoch, rows::StoreError},
    store::{
        refused,
        tables::{Column, Kind, Numbers, PAGE_ROWS, Table, Value},
    },
};

/// New file of a store that is filled with the rows of another engine.
pub(in crate::store) struct Filling {
    db: Connection,
    part: NewFile,
    to: PathBuf,
}

impl Filling {
    /// Begins a file that will have the name `to`, for a store of this cluster and epoch.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when `to` is there already; [`StoreError::Away`] for errors of the
    /// files. No file of the name `to` was made.
    pub(in crate::store) fn begin(
        to: &Path,
        new: &NewCluster,
        busy: Duration,
    ) -> Result<Self, StoreError> {
        check_new(to)?;
        let part = NewFile::beside(to, "part")?;
        let mut db = connect(part.path(), OpenFlags::empty(), busy)?;
        // It is synced once, as a whole.
        db.pragma_update(None, "synchronous", "OFF")?;
        schema::prepare(&mut db, Some(new)).map_err(|e| of_file(to, e))?;
        // What a new store begins with.
        db.execute_batch("DELETE FROM boards; DELETE FROM meta; DELETE FROM session_digests")?;
        Ok(Self { db, part, to: to.to_owned() })
    }

    /// Adds rows, in a transaction of their own.
    ///
    /// # Errors
    /// [`StoreError::Away`] and [`StoreError::Broken`] of the file, which is of no use then.
    pub(in crate::store) fn put(
        &mut self,
        table: &Table,
        rows: &[Vec<Value>],
    ) -> Result<(), StoreError> {
        put(&mut self.db, table, rows).map_err(|e| of_file(&self.to, e.into()))
    }

    /// Sets the numbers that rows do not show, and syncs the file, which has no name yet.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(in crate::store) fn end(
        self,
        numbers: &Numbers,
    ) -> Result<(NewFile, Contents), StoreError> {
        let Self { mut db, part, to } = self;
        set_numbers(&mut db, numbers).map_err(|e| of_file(&to, e.into()))?;
        let found = backup::contents(&db)?;
        drop(db);
        part.sync()?;
        let contents = Contents { bytes: length(part.path())?, ..found };
        Ok((part, contents))
    }
}

fn put(db: &mut Connection, table: &Table, rows: &[Vec<Value>]) -> rusqlite::Result<()> {
    let places = vec!["?"; table.columns.len()].join(", ");
    let sql = format!("INSERT INTO {} ({}) VALUES ({places})", table.name, table.names_in_sqlite());
    let tx = db.transaction()?;
    {
        let mut put = tx.prepare_cached(&sql)?;
        for row in rows {
            put.execute(params_from_iter(row))?;
        }
    }
    tx.commit()
}

fn set_numbers(db: &mut Connection, numbers: &Numbers) -> rusqlite::Result<()> {
    let tx = db.transaction()?;
    let clock = int(numbers.clock_ms);
    tx.execute("INSERT INTO meta (name, value) VALUES ('clock', ?1)", [clock])?;
    // The numbers of boards and writes go on from their rows.
    for (table, last) in [
        ("closed_sessions", numbers.closed_sessions),
        ("cancels", numbers.cancels),
        ("dead_letters", numbers.dead_letters),
    ] {
        tx.execute("DELETE FROM sqlite_sequence WHERE name = ?1", [table])?;
        if last > 0 {
            let put = "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)";
            tx.execute(put, params![table, int(last)])?;
        }
    }
    tx.commit()
}

/// Private copy of a backup whose rows another engine gets.
pub(in crate::store) struct Staged {
    part: NewFile,
    from: PathBuf,
    busy: Duration,
}

impl Staged {
    /// Copies a backup, beside it, and checks the copy.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when `from` is no whole store, or of a release that may keep what this
    /// one does not know; [`StoreError::Away`] and [`StoreError::Broken`] of the files.
    pub(in crate::store) fn of(from: &Path, busy: Duration) -> Result<Self, StoreError> {
        let part = copied(from, from)?;
        let steps = prove(part.path(), busy)
            .and_then(|()| schema::recognise(&open_store(part.path(), busy)?))
            .map_err(|e| of_file(from, e))?;
        if matches!(steps, FileState::Store { steps } if schema::is_newer(steps)) {
            let why = "it is of a newer release; restore it with the chatctl of that release";
            return Err(of_file(from, refused(why)));
        }
        Ok(Self { part, from: from.to_owned(), busy })
    }

    /// Turns the copy into the store that follows the one before, as a restore of a file does. Returns
    /// the backup's epoch and the new contents.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when it is of another cluster.
    pub(in crate::store) fn renew(
        &self,
        before: &Before,
        now_ms: u64,
    ) -> Result<(StoreEpoch, Contents), StoreError> {
        renew(self.part.path(), before, now_ms, self.busy).map_err(|e| of_file(&self.from, e))
    }

    /// Opens the copy to read its rows.
    ///
    /// # Errors
    /// [`StoreError::Away`] and [`StoreError::Broken`] of the file.
    pub(in crate::store) fn open(&self) -> Result<Rows<'_>, StoreError> {
        let db = open_store(self.part.path(), self.busy).map_err(|e| of_file(&self.from, e))?;
        Ok(Rows { db, from: &self.from })
    }
}

/// Rows of a copied backup.
pub(in crate::store) struct Rows<'a> {
    db: Connection,
    from: &'a Path,
}

impl Rows<'_> {
    /// Returns the id of the cluster.
    ///
    /// # Errors
    /// [`StoreError::Broken`] for a damaged file.
    pub(in crate::store) fn cluster(&self) -> Result<[u8; 16], StoreError> {
        let (cluster, _) = identity(&self.db).map_err(|e| of_file(self.from, e))?;
        Ok(cluster)
    }

    /// Returns the numbers that rows alone do not show.
    ///
    /// # Errors
    /// [`StoreError::Broken`] for a damaged file.
    pub(in crate::store) fn numbers(&self) -> Result<Numbers, StoreError> {
        let last = |table: &str| {
            let sql = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = ?1), 0)";
            self.db.query_row(sql, [table], |row| row.nat(0))
        };
        let of_rows = "SELECT coalesce((SELECT value FROM meta WHERE name = 'clock'), 0),
                              (SELECT coalesce(max(number), 0) FROM writes),
                              (SELECT coalesce(max(board), 0) FROM boards)";
        let read = || -> rusqlite::Result<Numbers> {
            let (clock_ms, writes, boards) = self
                .db
                .query_row(of_rows, [], |row| Ok((row.nat(0)?, row.nat(1)?, row.nat(2)?)))?;
            Ok(Numbers {
                clock_ms,
                writes,
                boards,
                closed_sessions: last("closed_sessions")?,
                cancels: last("cancels")?,
                dead_letters: last("dead_letters")?,
            })
        };
        read().map_err(|e| of_file(self.from, e.into()))
    }

    /// Hands the rows of a table on, page by page.
    ///
    /// # Errors
    /// [`StoreError::Broken`] for a damaged file, and the errors of `take`.
    pub(in crate::store) async fn pages(
        &self,
        table: &Table,
        mut take: impl AsyncFnMut(&[Vec<Value>]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let broken = |e: rusqlite::Error| of_file(self.from, e.into());
        let mut find = self.db.prepare(&table.select_in_sqlite()).map_err(broken)?;
        let mut rows = find.query([]).map_err(broken)?;
        let mut page = Vec::new();
        while let Some(row) = rows.next().map_err(broken)? {
            page.push(values(table.columns, row).map_err(broken)?);
            if page.len() == PAGE_ROWS {
                take(&page).await?;
                page.clear();
            }
        }
        if page.is_empty() { Ok(()) } else { take(&page).await }
    }
}

/// Returns the name of the file that keeps the store which a restore from `from` replaces.
pub(in crate::store) fn kept_beside(from: &Path, epoch: StoreEpoch) -> PathBuf {
    beside(from, &format!(".before-{}", epoch.0))
}

fn values(columns: &[Column], row: &Row<'_>) -> rusqlite::Result<Vec<Value>> {
    let value = |(nth, column): (usize, &Column)| {
        Ok(match (column.kind, row.get_ref(nth)?) {
            (_, ValueRef::Null) => Value::Null,
            (Kind::Int | Kind::Flag, ValueRef::Integer(number)) => Value::Int(number),
            (Kind::Text, ValueRef::Text(text)) => {
                let text = std::str::from_utf8(text).map_err(|why| malformed(nth, &why))?;
                Value::Text(text.to_owned())
            }
            (Kind::Bytes, ValueRef::Blob(bytes)) => Value::Bytes(bytes.to_owned()),
            (kind, other) => {
                let why = format!("{} where {kind:?} is meant", other.data_type());
                return Err(malformed(nth, &why));
            }
        })
    };
    columns.iter().enumerate().map(value).collect()
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

#[cfg(test)]
mod tests;
