//! The fencing check and the record of what passed it (G8).
//!
//! 1. A write passes if `(epoch, lease)` is the lease row's and `n` is not below the last seen.
//! 2. One `n` names one worker and, on a board, one batch: a second one is refused like an old one.
//! 3. The check, the new `n` and the write itself are one transaction.
//! 4. No time is asked: a lease that ran out still writes until somebody else was granted it.

use rusqlite::{OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::{
    Tx, refused,
    sql::{Columns, int, malformed},
};
use crate::model::{
    ids::{NodeId, Resource, StoreEpoch, Token},
    rows::{NewPost, Permission, StoreError, WriteRow},
};

/// Rows in one answer at most.
const WRITES_PAGE_MAX: u32 = 10_000;

/// The last check of a resource, as its row has it.
struct Seen {
    token: Token,
    worker: Option<NodeId>,
    batch: Option<[u8; 32]>,
}

/// What tells one batch of posts from another: their ids, in order.
pub(super) fn batch_of(posts: &[NewPost]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for post in posts {
        hash.update(post.author.id.0);
        hash.update(post.id.0);
    }
    hash.finalize().into()
}

impl Tx<'_> {
    /// Passes or refuses a permission and remembers its `n`, worker and batch. `batch` is `None`
    /// where the tasks of one assignment are written one by one.
    pub(super) fn fence(
        &self,
        permission: &Permission,
        batch: Option<[u8; 32]>,
    ) -> Result<(), StoreError> {
        let token = permission.token;
        let resource = permission.resource.to_string();
        let seen = self.seen(&resource)?;
        let current = seen
            .as_ref()
            .is_some_and(|seen| (token.epoch, token.lease) == (seen.token.epoch, seen.token.lease));
        let same = |seen: &Seen| {
            token.n == seen.token.n
                && seen.worker == Some(permission.worker)
                && (seen.batch.is_none() || seen.batch == batch)
        };
        let seen = match seen {
            // A grant is seen as n = 0, so a write's n begins at 1.
            Some(seen) if current && (token.n > seen.token.n || same(&seen)) => seen,
            seen => {
                let seen = seen.map_or_else(Token::default, |seen| seen.token);
                return Err(StoreError::Fenced { token, seen });
            }
        };
        if i64::try_from(token.n).is_err() {
            return Err(refused("no coordinator counts that far"));
        }
        if token.n > seen.token.n {
            let mut put = self.db.prepare_cached(
                "UPDATE leases SET n = ?2, worker = ?3, batch = ?4 WHERE resource = ?1",
            )?;
            put.execute(params![resource, int(token.n), permission.worker.0, batch])?;
        }
        Ok(())
    }

    /// The lease row, if it is of the store's epoch: tokens of an earlier one are good for nothing.
    fn seen(&self, resource: &str) -> Result<Option<Seen>, StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT epoch, lease, n, worker, batch FROM leases
             WHERE resource = ?1 AND epoch = (SELECT epoch FROM cluster)",
        )?;
        Ok(find
            .query_row([resource], |row| {
                Ok(Seen {
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

    /// [`Self::fence`] for what people's sessions write.
    pub(super) fn fence_session(&self, permission: &Permission) -> Result<(), StoreError> {
        match permission.resource {
            Resource::Sessions(_) => self.fence(permission, None),
            Resource::Board(_) => Err(refused("a board's permission covers posts only")),
        }
    }

    /// Records what was accepted under a permission.
    pub(super) fn record(
        &self,
        permission: &Permission,
        kind: &str,
        rows: usize,
    ) -> Result<(), StoreError> {
        self.record_as(&permission.resource, permission.token, permission.worker, kind, rows)
    }

    /// Records an accepted write or a grant.
    pub(super) fn record_as(
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
