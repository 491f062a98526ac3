//! Leases: the master that coordinates a resource, the end of its term, and wishes of others.
//!
//! 1. Every grant raises the lease number, so tokens of earlier grants are refused from then on.
//! 2. The end of a term never lies further ahead than the term is long: after the store's clock
//!    went back it is cut, in the row.
//! 3. A wish is answered by the holder's release; for 1 s after it the wisher alone is granted.
//! 4. A grant is a write in turn. A renewal is not, and changes no row that an append changes.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use super::{
    sql::{Columns, Outcome, int},
    tx::{Tx, each},
};
use crate::{
    model::{
        ids::{Incarnation, NodeId, Resource, Token},
        rows::{Holder, Lease, Renewed},
    },
    store::{
        bounds::{KEPT_MS, LEASES_MAX, TTL_MAX_MS},
        refused,
        term::Term,
    },
};

impl Tx<'_> {
    pub(super) async fn acquire_lease(
        &self,
        resource: &Resource,
        asker: Holder,
        ttl_ms: u64,
    ) -> Outcome<Lease> {
        self.newest_life(asker).await?;
        let key = resource.to_string();
        if let Some(term) = self.term(&key).await? {
            if let Some(end_ms) = term.cut_end(self.now_ms) {
                let sql = "UPDATE lease_terms SET ends_at = $2 WHERE resource = $1";
                self.db.run(sql, &[&key, &int(end_ms)]).await?;
            }
            if let Some(refusal) = term.refuse(asker, self.now_ms)? {
                return Ok(refusal);
            }
        }
        self.grant(resource, &key, asker, ttl_ms.clamp(1, TTL_MAX_MS)).await
    }

    async fn grant(
        &self,
        resource: &Resource,
        key: &str,
        holder: Holder,
        ttl_ms: u64,
    ) -> Outcome<Lease> {
        let epoch = self.cluster().await?.epoch;
        let last = self.db.row("SELECT lease FROM leases WHERE resource = $1", &[&key]).await?;
        let last = match last {
            Some(row) => row.nat(0)?,
            None if self.count("SELECT count(*) FROM leases").await? >= LEASES_MAX
                && !self.forget_oldest_lease().await? =>
            {
                return Err(refused(format!("{LEASES_MAX} leased resources are the most")).into());
            }
            // Rows of forgotten resources are deleted: none of their tokens may come to life.
            None => self.meta("lease_floor").await?.unwrap_or(0),
        };
        let lease = last.saturating_add(1);
        let sql = "INSERT INTO leases (resource, epoch, lease, n, worker, batch)
             VALUES ($1, $2, $3, 0, NULL, NULL)
             ON CONFLICT (resource) DO UPDATE SET
                 epoch = excluded.epoch, lease = excluded.lease, n = 0, worker = NULL, batch = NULL";
        self.db.run(sql, &[&key, &int(epoch.0), &int(lease)]).await?;
        let sql = "INSERT INTO lease_terms (resource, lease, node, incarnation, ttl, ends_at,
                                      wisher, wisher_incarnation, wished_at)
             VALUES ($1, $2, $3, $4, $5, $6, NULL, 0, 0)
             ON CONFLICT (resource) DO UPDATE SET
                 lease = excluded.lease, node = excluded.node, incarnation = excluded.incarnation,
                 ttl = excluded.ttl, ends_at = excluded.ends_at,
                 wisher = NULL, wisher_incarnation = 0, wished_at = 0";
        let (node, life) = (&holder.node.0[..], int(holder.incarnation.0));
        let ends_at = int(self.now_ms.saturating_add(ttl_ms));
        self.db.run(sql, &[&key, &int(lease), &node, &life, &int(ttl_ms), &ends_at]).await?;
        self.record(resource, Token { epoch, lease, n: 0 }, holder.node, "grant", 0).await?;
        Ok(Lease::Granted { epoch, lease, n: 0 })
    }

    pub(super) async fn renew_leases(
        &self,
        holder: Holder,
        leases: &[(Resource, u64)],
        ttl_ms: u64,
    ) -> Outcome<Vec<(Resource, Renewed)>> {
        self.newest_life(holder).await?;
        let ttl_ms = ttl_ms.clamp(1, TTL_MAX_MS);
        let keys: Vec<_> = leases.iter().map(|(resource, _)| resource.to_string()).collect();
        let numbers: Vec<_> = leases.iter().map(|(_, lease)| int(*lease)).collect();
        // Rows are locked in the order of names, as every statement that locks several does.
        let sql = "WITH kept AS (
                 SELECT t.resource FROM lease_terms t
                 JOIN (SELECT DISTINCT * FROM unnest($1::text[], $2::bigint[])
                       AS u (resource, lease)) u
                 ON t.resource = u.resource AND t.lease = u.lease
                 WHERE t.node = $3 AND t.incarnation = $4
                 ORDER BY t.resource FOR UPDATE OF t)
             UPDATE lease_terms t SET ttl = $5, ends_at = $6 FROM kept
             WHERE t.resource = kept.resource AND t.node = $3 AND t.incarnation = $4
             RETURNING t.resource, t.lease, t.wisher";
        let (node, life) = (&holder.node.0[..], int(holder.incarnation.0));
        let ends_at = int(self.now_ms.saturating_add(ttl_ms));
        let rows =
            self.db.rows(sql, &[&keys, &numbers, &node, &life, &int(ttl_ms), &ends_at]).await?;
        let kept = each(&rows, |row| {
            let resource: String = row.try_get(0)?;
            Ok(((resource, row.nat(1)?), row.bytes_or_null(2)?.map(NodeId)))
        })?;
        let kept: BTreeMap<_, _> = kept.into_iter().collect();
        let renewed = |((resource, lease), key): (&(Resource, u64), String)| {
            let renewed = match kept.get(&(key, *lease)) {
                None => Renewed::Lost,
                Some(Some(wisher)) if *wisher != holder.node => Renewed::Wanted,
                Some(_) => Renewed::Kept,
            };
            (resource.clone(), renewed)
        };
        Ok(leases.iter().zip(keys).map(renewed).collect())
    }

    pub(super) async fn release_lease(
        &self,
        resource: &Resource,
        holder: Holder,
        lease: u64,
    ) -> Outcome<()> {
        let sql = "UPDATE lease_terms SET node = NULL, ends_at = $5
             WHERE resource = $1 AND lease = $2 AND node = $3 AND incarnation = $4";
        let (node, life) = (&holder.node.0[..], int(holder.incarnation.0));
        let ends_at = int(self.now_ms.saturating_add(KEPT_MS));
        let key = resource.to_string();
        self.db.run(sql, &[&key, &int(lease), &node, &life, &ends_at]).await.map(drop)
    }

    /// Gives back all leases of a master.
    pub(super) async fn release_all(&self, holder: Holder) -> Outcome<()> {
        let sql = "UPDATE lease_terms SET node = NULL, ends_at = $3
             WHERE node = $1 AND incarnation = $2";
        let (node, life) = (&holder.node.0[..], int(holder.incarnation.0));
        let ends_at = int(self.now_ms.saturating_add(KEPT_MS));
        self.db.run(sql, &[&node, &life, &ends_at]).await.map(drop)
    }

    pub(super) async fn wish(&self, resource: &Resource, wisher: Holder) -> Outcome<()> {
        self.newest_life(wisher).await?;
        let key = resource.to_string();
        let Some(term) = self.term(&key).await? else { return Ok(()) };
        if term.takes_wish(wisher, self.now_ms) {
            let sql = "UPDATE lease_terms
                 SET wisher = $2, wisher_incarnation = $3, wished_at = $4 WHERE resource = $1";
            let (node, life) = (&wisher.node.0[..], int(wisher.incarnation.0));
            self.db.run(sql, &[&key, &node, &life, &int(self.now_ms)]).await?;
        }
        Ok(())
    }

    /// Forgets the resource whose lease ended first. Returns whether any has ended.
    async fn forget_oldest_lease(&self) -> Outcome<bool> {
        let sql = "SELECT t.resource, l.lease FROM lease_terms t JOIN leases l USING (resource)
             WHERE t.ends_at < $1 ORDER BY t.ends_at LIMIT 1";
        let oldest = self.db.row(sql, &[&int(self.now_ms)]).await?;
        if let Some(row) = &oldest {
            self.forget_lease(row.try_get(0)?, row.nat(1)?).await?;
        }
        Ok(oldest.is_some())
    }

    /// Forgets a resource. Its next lease is numbered above this one, so that no old token may come
    /// to life. Returns the number of rows that changed.
    pub(super) async fn forget_lease(&self, key: &str, lease: u64) -> Outcome<u64> {
        let floor = self.meta("lease_floor").await?.unwrap_or(0);
        self.set_meta("lease_floor", floor.max(lease)).await?;
        let mut changed = 1;
        for sql in [
            "DELETE FROM leases WHERE resource = $1",
            "DELETE FROM lease_terms WHERE resource = $1",
        ] {
            changed += self.db.run(sql, &[&key]).await?;
        }
        Ok(changed)
    }

    /// Reads a term and locks its row: renewals run beside a write in turn.
    async fn term(&self, key: &str) -> Outcome<Option<Term>> {
        let sql = "SELECT node, incarnation, ttl, ends_at, wisher, wisher_incarnation, wished_at
             FROM lease_terms WHERE resource = $1 FOR UPDATE";
        let life = |row: &Row, node, incarnation| -> Outcome<Option<Holder>> {
            let incarnation = Incarnation(row.nat(incarnation)?);
            let node = row.bytes_or_null(node)?;
            Ok(node.map(|node| Holder { node: NodeId(node), incarnation }))
        };
        let read = |row: Row| -> Outcome<Term> {
            Ok(Term {
                holder: life(&row, 0, 1)?,
                ttl_ms: row.nat(2)?,
                ends_at_ms: row.nat(3)?,
                wisher: life(&row, 4, 5)?,
                wished_at_ms: row.nat(6)?,
            })
        };
        self.db.row(sql, &[&key]).await?.map(read).transpose()
    }
}
