//! The write of users' tasks: the fencing check, each task in turn, and the record (G8).
//!
//! 1. A batch passes if `(epoch, lease)` is the lease row's and `n` is not below the last seen.
//! 2. One `n` names one worker and one batch: a second one is refused like an old one.
//! 3. The check, the new `n`, all tasks and the record are one transaction.
//! 4. No time is asked: a lease that ran out still writes until somebody else was granted it.
//! 5. A rule refuses a batch or a task before its first row, so that it leaves nothing behind.
//! 6. A board that ends before what the writer knows of it takes nothing: this is an older copy of the store.

use std::collections::BTreeSet;

use super::{
    sql::{Columns, Failure, Outcome, int},
    tx::{Tx, each, parsed},
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
    pub(super) async fn write(&self, batch: Batch<'_>) -> Outcome<Vec<TaskResult>> {
        let Batch { permission, tasks, known } = batch;
        check_len(tasks)?;
        self.fence(permission, batch_of(tasks)).await?;
        let written = match &permission.resource {
            Resource::Board(board) => {
                if known > Seq::default() {
                    check_known(board, self.last_of(board).await?, known)?;
                }
                self.write_to_board(permission, board, tasks).await?
            }
            Resource::Sessions(_) => self.write_sessions(permission, tasks).await?,
        };
        let (token, worker) = (permission.token, permission.worker);
        self.record(&permission.resource, token, worker, "write", written.rows).await?;
        Ok(written.results)
    }

    /// Writes posts of a board, run by run, and its creation.
    async fn write_to_board(
        &self,
        permission: &Permission,
        board: &BoardName,
        tasks: &[Task],
    ) -> Outcome<Written> {
        let mut written = Written::default();
        let mut rest = tasks;
        while let Some((task, others)) = rest.split_first() {
            let posts: Vec<_> = rest.iter().map_while(|task| post_of(task, board)).collect();
            if posts.is_empty() {
                let outcome = match task {
                    Task::CreateBoard { board: named } if named == board => {
                        self.create_board(board).await.map(|rows| (TaskResult::Done, rows))
                    }
                    _ => Err(not_covered(permission).into()),
                };
                written.add(ruled(outcome)?)?;
                rest = others;
                continue;
            }
            match ruled(self.append(permission, board, &posts).await)? {
                Ok((results, rows)) => {
                    written.results.extend(results);
                    written.rows += rows;
                }
                Err(error) => {
                    let refused = refusal(error)?;
                    written.results.extend(posts.iter().map(|_| refused.clone()));
                }
            }
            rest = rest.get(posts.len()..).unwrap_or_default();
        }
        Ok(written)
    }

    /// Writes sessions, read marks, tickets and cancels.
    async fn write_sessions(&self, permission: &Permission, tasks: &[Task]) -> Outcome<Written> {
        // All ids at once, as an append inserts them. No other task reads these rows.
        let cancels: BTreeSet<_> = tasks
            .iter()
            .filter_map(|task| match task {
                Task::CancelPost { user, id } => Some((*user, *id)),
                _ => None,
            })
            .collect();
        let mut written = Written { rows: self.cancel_ids(&cancels).await?, ..Written::default() };
        let done = |rows| (TaskResult::Done, rows);
        for task in tasks {
            let outcome = match task {
                Task::Post { .. } | Task::CreateBoard { .. } => Err(not_covered(permission).into()),
                Task::CancelPost { user, id } => {
                    self.cancelled(*user, *id).await.map(|result| (result, 0))
                }
                Task::OpenSession { key, user } => self.open_session(*key, user).await.map(done),
                Task::CloseSession { key } => {
                    self.end_session(*key).await.map(|closed| done(usize::from(closed)))
                }
                Task::SetReadMark { key, board, seq } => {
                    self.set_read_mark(*key, board, *seq).await.map(done)
                }
                Task::PutTicket { key, ticket_sha256 } => {
                    self.put_ticket(ticket_sha256, *key).await.map(done)
                }
                Task::RedeemTicket { ticket_sha256, key } => self
                    .redeem_ticket(ticket_sha256, *key)
                    .await
                    .map(|(session, rows)| (TaskResult::Session(Box::new(session)), rows)),
            };
            written.add(ruled(outcome)?)?;
        }
        Ok(written)
    }

    /// Passes or refuses a permission for this batch and remembers its `n`, worker and batch.
    async fn fence(&self, permission: &Permission, batch: [u8; 32]) -> Outcome<()> {
        let resource = permission.resource.to_string();
        let last = self.last_write(&resource).await?;
        if fence(last.as_ref(), permission, batch)? {
            let sql = "UPDATE leases SET n = $2, worker = $3, batch = $4 WHERE resource = $1";
            let worker = &permission.worker.0[..];
            self.db.run(sql, &[&resource, &int(permission.token.n), &worker, &&batch[..]]).await?;
        }
        Ok(())
    }

    /// Returns the fencing state, if it is of the store's epoch: tokens of an earlier epoch are
    /// never accepted.
    async fn last_write(&self, resource: &str) -> Outcome<Option<LastWrite>> {
        let sql = "SELECT epoch, lease, n, worker, batch FROM leases
             WHERE resource = $1 AND epoch = (SELECT epoch FROM chatchat_store) FOR UPDATE";
        let row = self.db.row(sql, &[&resource]).await?;
        let read = |row: tokio_postgres::Row| -> Outcome<LastWrite> {
            Ok(LastWrite {
                token: Token { epoch: StoreEpoch(row.nat(0)?), lease: row.nat(1)?, n: row.nat(2)? },
                worker: row.bytes_or_null(3)?.map(NodeId),
                batch: row.bytes_or_null(4)?,
            })
        };
        row.map(read).transpose()
    }

    /// Records an accepted write or a grant. Only a write in turn may: its number is in the order of
    /// commits.
    pub(super) async fn record(
        &self,
        resource: &Resource,
        token: Token,
        node: NodeId,
        kind: &str,
        rows: usize,
    ) -> Outcome<()> {
        let sql =
            "WITH last AS (UPDATE clock SET writes = writes + 1 WHERE one = 1 RETURNING writes)
             INSERT INTO writes (number, resource, epoch, lease, n, node, kind, rows, at)
             SELECT writes, $1, $2, $3, $4, $5, $6, $7, $8 FROM last";
        let (epoch, lease, n) = (int(token.epoch.0), int(token.lease), int(token.n));
        let (rows, at, node) = (int(rows as u64), int(self.now_ms), &node.0[..]);
        let resource = resource.to_string();
        self.db.run(sql, &[&resource, &epoch, &lease, &n, &node, &kind, &rows, &at]).await.map(drop)
    }

    pub(super) async fn writes(&self, after: u64, limit: u32) -> Outcome<Vec<WriteRow>> {
        let sql = "SELECT number, resource, epoch, lease, n, node, kind, rows, at FROM writes
             WHERE number > $1 ORDER BY number LIMIT $2";
        let limit = i64::from(limit.min(WRITES_PAGE_MAX));
        each(&self.db.rows(sql, &[&int(after), &limit]).await?, |row| {
            Ok(WriteRow {
                number: row.nat(0)?,
                resource: parsed(row, 1)?,
                token: Token { epoch: StoreEpoch(row.nat(2)?), lease: row.nat(3)?, n: row.nat(4)? },
                node: NodeId(row.bytes(5)?),
                kind: row.try_get(6)?,
                rows: row.small(7)?,
                at_ms: row.nat(8)?,
            })
        })
    }
}

/// Takes the store's own answers out of an outcome; what PostgreSQL reports fails the batch.
fn ruled<T>(outcome: Outcome<T>) -> Outcome<Result<T, StoreError>> {
    match outcome {
        Ok(done) => Ok(Ok(done)),
        Err(Failure::Rule(error)) => Ok(Err(error)),
        Err(failure) => Err(failure),
    }
}
