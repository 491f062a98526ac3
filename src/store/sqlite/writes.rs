//! The write of users' tasks: the fencing check, each task in turn, and the record (G8).
//!
//! 1. A batch passes if `(epoch, lease)` is the lease row's and `n` is not below the last seen.
//! 2. One `n` names one worker and one batch: a second one is refused like an old one.
//! 3. The check, the new `n`, all tasks and the record are one transaction.
//! 4. No time is asked: a lease that ran out still writes until somebody else was granted it.
//! 5. A rule refuses a task before its first row, so a refused task leaves nothing behind.
//! 6. A board that ends before what the writer knows of it takes nothing: this is an older copy of the store.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, params};

use super::{
    Tx,
    sql::{Columns, int, malformed},
};
use crate::{
    model::{
        ids::{BoardName, NodeId, Resource, Seq, StoreEpoch, Token},
        message::Task,
        outcome::TaskResult,
        rows::{Permission, StoreError, WriteRow},
    },
    store::{
        batch::{
            Batch, LastWrite, Written, batch_of, check_known, check_len, fence, not_covered,
            post_of, refusal,
        },
        bounds::WRITES_PAGE_MAX,
    },
};

impl Tx<'_> {
    /// Writes a batch under one permission and returns one result per task, in order.
    pub(super) fn write(&self, batch: Batch<'_>) -> Result<Vec<TaskResult>, StoreError> {
        let Batch { permission, tasks, known } = batch;
        check_len(tasks)?;
        self.fence(permission, batch_of(tasks))?;
        let written = match &permission.resource {
            Resource::Board(board) => {
                if known > Seq::default() {
                    check_known(board, self.last_of(board)?, known)?;
                }
                self.write_to_board(permission, board, tasks)?
            }
            Resource::Sessions(_) => self.write_sessions(permission, tasks)?,
        };
        self.record(
            &permission.resource,
            permission.token,
            permission.worker,
            "write",
            written.rows,
        )?;
        Ok(written.results)
    }

    /// Writes posts of a board, run by run, and its creation.
    fn write_to_board(
        &self,
        permission: &Permission,
        board: &BoardName,
        tasks: &[Task],
    ) -> Result<Written, StoreError> {
        let mut written = Written::default();
        let mut rest = tasks;
        while let Some((task, others)) = rest.split_first() {
            let posts: Vec<_> = rest.iter().map_while(|task| post_of(task, board)).collect();
            if posts.is_empty() {
                written.add(match task {
                    Task::CreateBoard { board: named } if named == board => {
                        self.create_board(board).map(|rows| (TaskResult::Done, rows))
                    }
                    _ => Err(not_covered(permission)),
                })?;
                rest = others;
                continue;
            }
            match self.append(permission, board, &posts) {
                Ok((results, rows)) => {
                    written.results.extend(results);
                    written.rows += rows;
                }
                Err(error) => {
                    let refused = refusal(error)?;
                    written.results.extend(posts.iter().map(|_| refused.clone()));
                }
            }
            rest = &rest[posts.len()..];
        }
        Ok(written)
    }

    /// Writes sessions, read marks, tickets and cancels.
    fn write_sessions(
        &self,
        permission: &Permission,
        tasks: &[Task],
    ) -> Result<Written, StoreError> {
        // All ids at once and sorted, as an append inserts them. No other task reads these rows.
        let cancels: BTreeSet<_> = tasks
            .iter()
            .filter_map(|task| match task {
                Task::CancelPost { user, id } => Some((*user, *id)),
                _ => None,
            })
            .collect();
        let mut written = Written { rows: self.cancel_ids(&cancels)?, ..Written::default() };
        let done = |rows| (TaskResult::Done, rows);
        for task in tasks {
            written.add(match task {
                Task::Post { .. } | Task::CreateBoard { .. } => Err(not_covered(permission)),
                Task::CancelPost { user, id } => {
                    self.cancelled(*user, *id).map(|result| (result, 0))
                }
                Task::OpenSession { key, user } => self.open_session(*key, user).map(done),
                Task::CloseSession { key } => {
                    self.end_session(*key).map(|closed| done(usize::from(closed)))
                }
                Task::SetReadMark { key, board, seq } => {
                    self.set_read_mark(*key, board, *seq).map(done)
                }
                Task::PutTicket { key, ticket_sha256 } => {
                    self.put_ticket(ticket_sha256, *key).map(done)
                }
                Task::RedeemTicket { ticket_sha256, key } => self
                    .redeem_ticket(ticket_sha256, *key)
                    .map(|(session, rows)| (TaskResult::Session(Box::new(session)), rows)),
            })?;
        }
        Ok(written)
    }

    /// Passes or refuses a permission for this batch and remembers its `n`, worker and batch.
    fn fence(&self, permission: &Permission, batch: [u8; 32]) -> Result<(), StoreError> {
        let resource = permission.resource.to_string();
        let last = self.last_write(&resource)?;
        if fence(last.as_ref(), permission, batch)? {
            let mut put = self.db.prepare_cached(
                "UPDATE leases SET n = ?2, worker = ?3, batch = ?4 WHERE resource = ?1",
            )?;
            put.execute(params![resource, int(permission.token.n), permission.worker.0, batch])?;
        }
        Ok(())
    }

    /// Returns the fencing state, if it is of the store's epoch: tokens of an earlier epoch are
    /// never accepted.
    fn last_write(&self, resource: &str) -> Result<Option<LastWrite>, StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT epoch, lease, n, worker, batch FROM leases
             WHERE resource = ?1 AND epoch = (SELECT epoch FROM cluster)",
        )?;
        Ok(find
            .query_row([resource], |row| {
                Ok(LastWrite {
                    token: Token {
                        epoch: StoreEpoch(row.nat(0)?),
                        lease: row.nat(1)?,
                        n: row.nat(2)?,
                    },
                    worker: row.bytes_or_null(3)?.map(NodeId),
                    batch: row.bytes_or_null(4)?,
                })
            })
            .optional()?)
    }

    /// Records an accepted write or a grant.
    pub(super) fn record(
        &self,
        resource: &Resource,
        token: Token,
        node: NodeId,
        kind: &str,
        rows: usize,
    ) -> Result<(), StoreError> {
        let mut put = self.db.prepare_cached(
            "INSERT INTO writes (resource, epoch, lease, n, node, kind, rows, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        put.execute(params![
            resource.to_string(),
            int(token.epoch.0),
            int(token.lease),
            int(token.n),
            node.0,
            kind,
            int(rows as u64),
            int(self.now_ms)
        ])?;
        Ok(())
    }

    pub(super) fn writes(&self, after: u64, limit: u32) -> Result<Vec<WriteRow>, StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT number, resource, epoch, lease, n, node, kind, rows, at FROM writes
             WHERE number > ?1 ORDER BY number LIMIT ?2",
        )?;
        let rows = find.query_map(params![int(after), limit.min(WRITES_PAGE_MAX)], |row| {
            let resource: String = row.get(1)?;
            Ok(WriteRow {
                number: row.nat(0)?,
                resource: resource.parse().map_err(|why| malformed(1, &why))?,
                token: Token { epoch: StoreEpoch(row.nat(2)?), lease: row.nat(3)?, n: row.nat(4)? },
                node: NodeId(row.get(5)?),
                kind: row.get(6)?,
                rows: row.small(7)?,
                at_ms: row.nat(8)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
