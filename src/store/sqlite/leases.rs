//! Leases: the master that coordinates a resource, the end of its term, and wishes of others.
//!
//! 1. Every grant raises the lease number, so tokens of earlier grants are refused from then on.
//! 2. The end of a term never lies further ahead than the term is long: after the store's clock
//!    went back it is cut, in the row.
//! 3. A wish is answered by the holder's release; for 1 s after it the wisher alone is granted.

use rusqlite::{OptionalExtension, params};

use super::{
    Tx, refused,
    sql::{Columns, int},
};
use crate::{
    model::{
        ids::{Incarnation, NodeId, Resource, Token},
        rows::{Holder, Lease, Renewed, StoreError},
    },
    store::{
        bounds::{KEPT_MS, LEASES_MAX, TTL_MAX_MS},
        term::Term,
    },
};

impl Tx<'_> {
    pub(super) fn acquire_lease(
        &self,
        resource: &Resource,
        asker: Holder,
        ttl_ms: u64,
    ) -> Result<Lease, StoreError> {
        self.newest_life(asker)?;
        let key = resource.to_string();
        let term = self.term(&key)?;
        if let Some(term) = &term {
            if let Some(end_ms) = term.cut_end(self.now_ms) {
                self.set_end(&key, end_ms)?;
            }
            if let Some(refusal) = term.refuse(asker, self.now_ms)? {
                return Ok(refusal);
            }
        }
        self.grant(resource, &key, asker, ttl_ms.clamp(1, TTL_MAX_MS))
    }

    fn grant(
        &self,
        resource: &Resource,
        key: &str,
        holder: Holder,
        ttl_ms: u64,
    ) -> Result<Lease, StoreError> {
        let epoch = self.epoch()?;
        let mut find = self.db.prepare_cached("SELECT lease FROM leases WHERE resource = ?1")?;
        let last = find.query_row([key], |row| row.nat(0)).optional()?;
        let last = match last {
            Some(last) => last,
            None if self.count("leases")? >= LEASES_MAX && !self.forget_oldest_lease()? => {
                return Err(refused(format!("{LEASES_MAX} leased resources are the most")));
            }
            // Rows of forgotten resources are deleted: none of their tokens may come to life.
            None => self.meta("lease_floor")?.unwrap_or(0),
        };
        let lease = last.saturating_add(1);
        let mut put = self.db.prepare_cached(
            "INSERT OR REPLACE INTO leases (resource, epoch, lease, n, worker, batch)
             VALUES (?1, ?2, ?3, 0, NULL, NULL)",
        )?;
        put.execute(params![key, int(epoch.0), int(lease)])?;
        let mut put = self.db.prepare_cached(
            "INSERT OR REPLACE INTO lease_terms (resource, lease, node, incarnation, ttl, ends_at,
                                                 wisher, wisher_incarnation, wished_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, 0, 0)",
        )?;
        put.execute(params![
            key,
            int(lease),
            holder.node.0,
            int(holder.incarnation.0),
            int(ttl_ms),
            int(self.now_ms.saturating_add(ttl_ms))
        ])?;
        self.record(resource, Token { epoch, lease, n: 0 }, holder.node, "grant", 0)?;
        Ok(Lease::Granted { epoch, lease, n: 0 })
    }

    pub(super) fn renew_leases(
        &self,
        holder: Holder,
        leases: &[(Resource, u64)],
        ttl_ms: u64,
    ) -> Result<Vec<(Resource, Renewed)>, StoreError> {
        self.newest_life(holder)?;
        let ttl_ms = ttl_ms.clamp(1, TTL_MAX_MS);
        let mut put = self.db.prepare_cached(
            "UPDATE lease_terms SET ttl = ?5, ends_at = ?6
             WHERE resource = ?1 AND lease = ?2 AND node = ?3 AND incarnation = ?4
             RETURNING wisher",
        )?;
        let mut answers = Vec::with_capacity(leases.len());
        for (resource, lease) in leases {
            let wisher = put
                .query_row(
                    params![
                        resource.to_string(),
                        int(*lease),
                        holder.node.0,
                        int(holder.incarnation.0),
                        int(ttl_ms),
                        int(self.now_ms.saturating_add(ttl_ms))
                    ],
                    |row| row.bytes_or_null(0),
                )
                .optional()?;
            let renewed = match wisher.map(|wisher| wisher.map(NodeId)) {
                None => Renewed::Lost,
                Some(Some(wisher)) if wisher != holder.node => Renewed::Wanted,
                Some(_) => Renewed::Kept,
            };
            answers.push((resource.clone(), renewed));
        }
        Ok(answers)
    }

    pub(super) fn release_lease(
        &self,
        resource: &Resource,
        holder: Holder,
        lease: u64,
    ) -> Result<(), StoreError> {
        let mut put = self.db.prepare_cached(
            "UPDATE lease_terms SET node = NULL, ends_at = ?5
             WHERE resource = ?1 AND lease = ?2 AND node = ?3 AND incarnation = ?4",
        )?;
        put.execute(params![
            resource.to_string(),
            int(lease),
            holder.node.0,
            int(holder.incarnation.0),
            int(self.now_ms.saturating_add(KEPT_MS))
        ])?;
        Ok(())
    }

    /// Gives back all leases of a master.
    pub(super) fn release_all(&self, holder: Holder) -> Result<(), StoreError> {
        let mut put = self.db.prepare_cached(
            "UPDATE lease_terms SET node = NULL, ends_at = ?3 WHERE node = ?1 AND incarnation = ?2",
        )?;
        put.execute(params![
            holder.node.0,
            int(holder.incarnation.0),
            int(self.now_ms.saturating_add(KEPT_MS))
        ])?;
        Ok(())
    }

    pub(super) fn wish(&self, resource: &Resource, wisher: Holder) -> Result<(), StoreError> {
        self.newest_life(wisher)?;
        let key = resource.to_string();
        let Some(term) = self.term(&key)? else { return Ok(()) };
        if term.takes_wish(wisher, self.now_ms) {
            let mut put = self.db.prepare_cached(
                "UPDATE lease_terms SET wisher = ?2, wisher_incarnation = ?3, wished_at = ?4
                 WHERE resource = ?1",
            )?;
            put.execute(params![key, wisher.node.0, int(wisher.incarnation.0), int(self.now_ms)])?;
        }
        Ok(())
    }

    /// Forgets the resource whose lease ended first. Returns whether any has ended.
    fn forget_oldest_lease(&self) -> Result<bool, StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT t.resource, l.lease FROM lease_terms t JOIN leases l USING (resource)
             WHERE t.ends_at < ?1 ORDER BY t.ends_at LIMIT 1",
        )?;
        let oldest = find
            .query_row([int(self.now_ms)], |row| {
                let key: String = row.get(0)?;
                Ok((key, row.nat(1)?))
            })
            .optional()?;
        if let Some((key, lease)) = &oldest {
            self.forget_lease(key, *lease)?;
        }
        Ok(oldest.is_some())
    }

    /// Forgets a resource. Its next lease is numbered above this one, so that no old token may come
    /// to life.
    pub(super) fn forget_lease(&self, key: &str, lease: u64) -> Result<(), StoreError> {
        let floor = self.meta("lease_floor")?.unwrap_or(0);
        self.set_meta("lease_floor", floor.max(lease))?;
        for sql in [
            "DELETE FROM leases WHERE resource = ?1",
            "DELETE FROM lease_terms WHERE resource = ?1",
        ] {
            self.db.prepare_cached(sql)?.execute([key])?;
        }
        Ok(())
    }

    fn set_end(&self, key: &str, ends_at_ms: u64) -> Result<(), StoreError> {
        let mut put =
            self.db.prepare_cached("UPDATE lease_terms SET ends_at = ?2 WHERE resource = ?1")?;
        put.execute(params![key, int(ends_at_ms)])?;
        Ok(())
    }

    fn term(&self, key: &str) -> Result<Option<Term>, StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT node, incarnation, ttl, ends_at, wisher, wisher_incarnation, wished_at
             FROM lease_terms WHERE resource = ?1",
        )?;
        Ok(find
            .query_row([key], |row| {
                let life = |node: Option<[u8; 16]>, incarnation| {
                    node.map(|node| Holder {
                        node: NodeId(node),
                        incarnation: Incarnation(incarnation),
                    })
                };
                Ok(Term {
                    holder: life(row.bytes_or_null(0)?, row.nat(1)?),
                    ttl_ms: row.nat(2)?,
                    ends_at_ms: row.nat(3)?,
                    wisher: life(row.bytes_or_null(4)?, row.nat(5)?),
                    wished_at_ms: row.nat(6)?,
                })
            })
            .optional()?)
    }
}
