//! Masters: their incarnations, and the list that every node reads.

use super::{
    sql::{Columns, Outcome, int},
    tx::{Tx, each},
};
use crate::{
    model::{
        ids::{Incarnation, NodeId},
        rows::{Holder, MASTERS_MAX, MasterRow, StoreError},
    },
    store::{
        bounds::{FRESH_MS, LONG_SILENT_MS},
        refused, unknown,
    },
};

impl Tx<'_> {
    pub(super) async fn register_master(&self, new: &MasterRow) -> Outcome<Incarnation> {
        if self.is_denied(new.node).await? {
            return Err(refused("this node was expelled").into());
        }
        let sql = "SELECT incarnation, link, listed, touched_at, guard = $2 FROM masters
             WHERE node = $1 FOR UPDATE";
        let (node, guard) = (&new.node.0[..], &new.guard[..]);
        let last = self.db.row(sql, &[&node, &guard]).await?;
        let mut listed = false;
        let incarnation = match last {
            None => Incarnation(1),
            Some(row) => {
                let life = Incarnation(row.nat(0)?);
                let (link, same): (String, bool) = (row.try_get(1)?, row.try_get(4)?);
                listed = row.try_get(2)?;
                match (listed, same) {
                    // The same life again: its answer was lost, or an earlier request of it came
                    // late.
                    (true, true) => return Ok(life),
                    (false, true) => return Err(StoreError::Stale.into()),
                    _ => {}
                }
                if listed && link != new.link && self.now_ms.abs_diff(row.nat(3)?) < FRESH_MS {
                    return Err(StoreError::InUse { at: link }.into());
                }
                // An older life's request, which comes late over a connection given up.
                if listed && life != new.incarnation {
                    return Err(StoreError::Stale.into());
                }
                life.next()
            }
        };
        if !listed {
            let count = self.count("SELECT count(*) FROM masters WHERE listed").await?;
            if count >= MASTERS_MAX as u64 && !self.unlist_long_silent().await? {
                return Err(refused(format!("{MASTERS_MAX} masters are the most")).into());
            }
        }
        // The beat goes on over lives, so that a reader never takes a restart for silence.
        let sql = "INSERT INTO masters (node, incarnation, beat, http, link, spki, name, draining,
                                  guard, listed, touched_at)
             VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, TRUE, $9)
             ON CONFLICT (node) DO UPDATE SET
                 incarnation = excluded.incarnation, beat = masters.beat + 1,
                 http = excluded.http, link = excluded.link, spki = excluded.spki,
                 name = excluded.name, draining = excluded.draining, guard = excluded.guard,
                 listed = TRUE, touched_at = excluded.touched_at";
        self.db
            .run(
                sql,
                &[
                    &node,
                    &int(incarnation.0),
                    &new.http,
                    &new.link,
                    &new.spki,
                    &new.name,
                    &new.draining,
                    &guard,
                    &int(self.now_ms),
                ],
            )
            .await?;
        Ok(incarnation)
    }

    /// Takes the master that was silent for the longest off the list, if that is long enough.
    async fn unlist_long_silent(&self) -> Outcome<bool> {
        let sql = "UPDATE masters SET listed = FALSE WHERE node = (
                 SELECT node FROM masters WHERE listed AND touched_at < $1
                 ORDER BY touched_at, node LIMIT 1)";
        let before = int(self.now_ms.saturating_sub(LONG_SILENT_MS));
        Ok(self.db.run(sql, &[&before]).await? > 0)
    }

    pub(super) async fn touch_master(&self, holder: Holder, draining: bool) -> Outcome<()> {
        let sql = "UPDATE masters SET beat = beat + 1, draining = $3, touched_at = $4
             WHERE node = $1 AND incarnation = $2 AND listed";
        let (node, life) = (&holder.node.0[..], int(holder.incarnation.0));
        let touched = self.db.run(sql, &[&node, &life, &draining, &int(self.now_ms)]).await?;
        if touched > 0 {
            return Ok(());
        }
        if self.is_off_for_silence(holder).await? {
            return Err(unknown("master on the list").into());
        }
        Err(StoreError::Stale.into())
    }

    /// Returns whether this life of a master is off the list for its silence, and for nothing else.
    async fn is_off_for_silence(&self, holder: Holder) -> Outcome<bool> {
        let sql = "SELECT node FROM masters
             WHERE node = $1 AND incarnation = $2 AND NOT listed AND touched_at > 0";
        let (node, life) = (&holder.node.0[..], int(holder.incarnation.0));
        let is_off = self.db.row(sql, &[&node, &life]).await?.is_some();
        Ok(is_off && !self.is_denied(holder.node).await?)
    }

    pub(super) async fn leave_master(&self, holder: Holder) -> Outcome<()> {
        // Without a time it is known from one that was taken off for its silence.
        let sql = "UPDATE masters SET listed = FALSE, touched_at = 0
             WHERE node = $1 AND incarnation = $2";
        let (node, life) = (&holder.node.0[..], int(holder.incarnation.0));
        self.db.run(sql, &[&node, &life]).await?;
        self.release_all(holder).await
    }

    pub(super) async fn masters(&self) -> Outcome<Vec<MasterRow>> {
        let sql = if self.db.reads_guards {
            "SELECT node, incarnation, beat, http, link, spki, name, draining, guard
             FROM masters WHERE listed ORDER BY node"
        } else {
            // A guard of zeros, in the place of one that a worker has no right to read.
            "SELECT node, incarnation, beat, http, link, spki, name, draining,
                 decode(repeat('00', 32), 'hex')
             FROM masters WHERE listed ORDER BY node"
        };
        each(&self.db.rows(sql, &[]).await?, |row| {
            Ok(MasterRow {
                node: NodeId(row.bytes(0)?),
                incarnation: Incarnation(row.nat(1)?),
                beat: row.nat(2)?,
                http: row.try_get(3)?,
                link: row.try_get(4)?,
                spki: row.try_get(5)?,
                name: row.try_get(6)?,
                draining: row.try_get(7)?,
                guard: row.bytes(8)?,
            })
        })
    }

    /// Refuses a master of which a newer incarnation is registered: [`StoreError::Stale`].
    pub(super) async fn newest_life(&self, holder: Holder) -> Outcome<()> {
        let sql = "SELECT incarnation FROM masters WHERE node = $1";
        match self.db.row(sql, &[&&holder.node.0[..]]).await? {
            Some(row) if row.nat(0)? > holder.incarnation.0 => Err(StoreError::Stale.into()),
            _ => Ok(()),
        }
    }
}
