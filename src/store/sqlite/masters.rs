//! Masters: their incarnations, and the list that every node reads.

use rusqlite::{OptionalExtension, params};

use super::{
    Tx, refused,
    sql::{Columns, int},
    unknown,
};
use crate::{
    model::{
        ids::{Incarnation, NodeId},
        rows::{Holder, MASTERS_MAX, MasterRow, StoreError},
    },
    store::bounds::{FRESH_MS, LONG_SILENT_MS},
};

/// Masters on the list, as a table with its condition.
const LISTED: &str = "masters WHERE listed = 1";

impl Tx<'_> {
    pub(super) fn register_master(&self, new: &MasterRow) -> Result<Incarnation, StoreError> {
        if self.is_denied(new.node)? {
            return Err(refused("this node was expelled"));
        }
        let mut find = self.db.prepare_cached(
            "SELECT incarnation, link, listed, touched_at, guard = ?2 FROM masters WHERE node = ?1",
        )?;
        let last = find
            .query_row(params![new.node.0, new.guard], |row| {
                let (link, listed): (String, bool) = (row.get(1)?, row.get(2)?);
                let life = Incarnation(row.nat(0)?);
                Ok(((life, link, listed, row.nat(3)?), row.get::<_, bool>(4)?))
            })
            .optional()?;
        let last = match last {
            // The same life again: its answer was lost, or an earlier request of it came late.
            Some(((life, _, true, _), true)) => return Ok(life),
            Some(((_, _, false, _), true)) => return Err(StoreError::Stale),
            last => last.map(|(row, _)| row),
        };
        let listed = matches!(last, Some((_, _, true, _)));
        let incarnation = match last {
            Some((_, link, true, touched_at_ms))
                if link != new.link && self.now_ms.abs_diff(touched_at_ms) < FRESH_MS =>
            {
                return Err(StoreError::InUse { at: link });
            }
            // An older life's request, which comes late over a connection given up.
            Some((last, _, true, _)) if last != new.incarnation => {
                return Err(StoreError::Stale);
            }
            Some((last, ..)) => last.next(),
            None => Incarnation(1),
        };
        let is_full = || Ok::<_, StoreError>(self.count(LISTED)? >= MASTERS_MAX as u64);
        if !listed && is_full()? && !self.unlist_long_silent()? {
            return Err(refused(format!("{MASTERS_MAX} masters are the most")));
        }
        // The beat goes on over lives, so that a reader never takes a restart for silence.
        let mut put = self.db.prepare_cached(
            "INSERT INTO masters (node, incarnation, beat, http, link, spki, name, draining, guard,
                                  listed, touched_at)
             VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?9)
             ON CONFLICT (node) DO UPDATE SET
                 incarnation = excluded.incarnation, beat = masters.beat + 1,
                 http = excluded.http, link = excluded.link, spki = excluded.spki,
                 name = excluded.name, draining = excluded.draining, guard = excluded.guard,
                 listed = 1, touched_at = excluded.touched_at",
        )?;
        put.execute(params![
            new.node.0,
            int(incarnation.0),
            new.http,
            new.link,
            new.spki,
            new.name,
            new.draining,
            new.guard,
            int(self.now_ms)
        ])?;
        Ok(incarnation)
    }

    /// Takes the master that was silent for the longest off the list, if that is long enough.
    fn unlist_long_silent(&self) -> Result<bool, StoreError> {
        let mut unlist = self.db.prepare_cached(
            "UPDATE masters SET listed = 0 WHERE node = (
                 SELECT node FROM masters WHERE listed = 1 AND touched_at < ?1
                 ORDER BY touched_at, node LIMIT 1)",
        )?;
        Ok(unlist.execute([int(self.now_ms.saturating_sub(LONG_SILENT_MS))])? > 0)
    }

    pub(super) fn touch_master(&self, holder: Holder, draining: bool) -> Result<(), StoreError> {
        let mut put = self.db.prepare_cached(
            "UPDATE masters SET beat = beat + 1, draining = ?3, touched_at = ?4
             WHERE node = ?1 AND incarnation = ?2 AND listed = 1",
        )?;
        let touched = put.execute(params![
            holder.node.0,
            int(holder.incarnation.0),
            draining,
            int(self.now_ms)
        ])?;
        if touched > 0 {
            return Ok(());
        }
        let is_silent = self.is_off_for_silence(holder)?;
        Err(if is_silent { unknown("master on the list") } else { StoreError::Stale })
    }

    /// Returns whether this life of a master is off the list for its silence, and for nothing else.
    fn is_off_for_silence(&self, holder: Holder) -> Result<bool, StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT 1 FROM masters
             WHERE node = ?1 AND incarnation = ?2 AND listed = 0 AND touched_at > 0",
        )?;
        let is_off = find.exists(params![holder.node.0, int(holder.incarnation.0)])?;
        Ok(is_off && !self.is_denied(holder.node)?)
    }

    pub(super) fn leave_master(&self, holder: Holder) -> Result<(), StoreError> {
        // Without a time it is known from one that was taken off for its silence.
        let mut put = self.db.prepare_cached(
            "UPDATE masters SET listed = 0, touched_at = 0 WHERE node = ?1 AND incarnation = ?2",
        )?;
        put.execute(params![holder.node.0, int(holder.incarnation.0)])?;
        self.release_all(holder)
    }

    pub(super) fn masters(&self) -> Result<Vec<MasterRow>, StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT node, incarnation, beat, http, link, spki, name, draining, guard
             FROM masters WHERE listed = 1 ORDER BY node",
        )?;
        let rows = find.query_map([], |row| {
            Ok(MasterRow {
                node: NodeId(row.get(0)?),
                incarnation: Incarnation(row.nat(1)?),
                beat: row.nat(2)?,
                http: row.get(3)?,
                link: row.get(4)?,
                spki: row.get(5)?,
                name: row.get(6)?,
                draining: row.get(7)?,
                guard: row.get(8)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Refuses a master of which a newer incarnation is registered: [`StoreError::Stale`].
    pub(super) fn newest_life(&self, holder: Holder) -> Result<(), StoreError> {
        let mut find = self.db.prepare_cached("SELECT incarnation FROM masters WHERE node = ?1")?;
        let newest = find.query_row([holder.node.0], |row| row.nat(0)).optional()?;
        match newest {
            Some(newest) if newest > holder.incarnation.0 => Err(StoreError::Stale),
            _ => Ok(()),
        }
    }
}
