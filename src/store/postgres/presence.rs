//! Presence of users: rows of `(session, by master, last seen)` in store time.
//!
//! 1. Every list is computed from these rows alone, so it is the same on every master (G12).
//! 2. A row not touched for 25 s is not active; upkeep drops it, and a touch after a silence drops
//!    it before it could come back.
//! 3. When no master touched for over 10 s, or the last touch lies ahead, the rows' ages cannot be
//!    trusted: lists wait for a touch, and that touch sets every row that was active then to now.
//! 4. Touches of several masters follow each other: each locks the time of the last one first.

use super::{
    sql::{Columns, Outcome, int},
    tx::{Tx, each},
};
use crate::{
    model::{
        ids::{Author, NodeId, SessionKey, UserId},
        rows::{Active, ActiveUser},
    },
    store::bounds::{ACTIVE_MS, AHEAD_MAX_MS, SILENCE_MAX_MS, USE_NOTED_MS, USERS_MAX},
};

impl Tx<'_> {
    pub(super) async fn touch_sessions(&self, master: NodeId, keys: &[SessionKey]) -> Outcome<()> {
        match self.last_touch().await? {
            Some(last_ms) if !self.long_ago(last_ms) => {}
            last_ms => self.revive(last_ms.unwrap_or(0)).await?,
        }
        self.set_meta("touched_at", self.now_ms).await?;
        if keys.is_empty() {
            return Ok(());
        }
        let (master, now) = (&master.0[..], int(self.now_ms));
        let oldest = int(self.now_ms.saturating_sub(ACTIVE_MS));
        let touched: Vec<_> = keys.iter().map(|key| &key.0[..]).collect();
        let sql = "INSERT INTO presence (key, master, since, last_seen)
             SELECT s.key, $2, $3, $3 FROM sessions s WHERE s.key = ANY($1::bytea[])
             ORDER BY s.key
             ON CONFLICT (key) DO UPDATE SET
                 master = excluded.master, last_seen = excluded.last_seen,
                 since = CASE WHEN presence.last_seen < $4 THEN excluded.since
                              ELSE least(presence.since, excluded.since) END";
        self.db.run(sql, &[&touched, &master, &now, &oldest]).await?;
        self.use_sessions(keys).await
    }

    /// Notes that sessions are in use, unless that was noted within the hour. Lists nobody.
    pub(super) async fn use_sessions(&self, keys: &[SessionKey]) -> Outcome<()> {
        let keys: Vec<_> = keys.iter().map(|key| &key.0[..]).collect();
        // A row that somebody is changing can be noted the next time.
        let note = "UPDATE sessions SET used_at = $2 WHERE key IN (
                 SELECT key FROM sessions
                 WHERE key = ANY($1::bytea[]) AND abs(used_at - $2) > $3
                 ORDER BY key FOR UPDATE SKIP LOCKED)";
        self.db.run(note, &[&keys, &int(self.now_ms), &int(USE_NOTED_MS)]).await.map(drop)
    }

    /// Returns the time of the last touch and locks it until the commit.
    async fn last_touch(&self) -> Outcome<Option<u64>> {
        let sql = "SELECT value FROM meta WHERE name = 'touched_at' FOR UPDATE";
        self.db.row(sql, &[]).await?.map(|row| row.nat(0)).transpose()
    }

    /// Returns whether the last touch of any master is too long ago, or lies ahead.
    const fn long_ago(&self, touched_at_ms: u64) -> bool {
        touched_at_ms > self.now_ms.saturating_add(AHEAD_MAX_MS)
            || self.now_ms.saturating_sub(touched_at_ms) > SILENCE_MAX_MS
    }

    /// Drops at most `rows` rows that are not active any more, unless their ages cannot be trusted;
    /// returns how many.
    pub(super) async fn purge_presence(&self, rows: u64) -> Outcome<u64> {
        if self.last_touch().await?.is_none_or(|at_ms| self.long_ago(at_ms)) {
            return Ok(0);
        }
        let sql = "DELETE FROM presence WHERE key IN
             (SELECT key FROM presence WHERE last_seen < $1 LIMIT $2)";
        let before = int(self.now_ms.saturating_sub(ACTIVE_MS));
        self.db.run(sql, &[&before, &int(rows)]).await
    }

    /// Sets every row that was active at the last touch to now.
    async fn revive(&self, last_touch_ms: u64) -> Outcome<()> {
        let before = int(last_touch_ms.saturating_sub(ACTIVE_MS));
        self.db.run("DELETE FROM presence WHERE last_seen < $1", &[&before]).await?;
        let sql = "UPDATE presence SET last_seen = $1, since = least(since, $1)";
        self.db.run(sql, &[&int(self.now_ms)]).await.map(drop)
    }

    pub(super) async fn leave_sessions(
        &self,
        master: NodeId,
        sessions: &[(SessionKey, u64)],
    ) -> Outcome<()> {
        let keys: Vec<_> = sessions.iter().map(|(key, _)| &key.0[..]).collect();
        let seen: Vec<_> = sessions.iter().map(|(_, seen_ms)| int(*seen_ms)).collect();
        let sql = "DELETE FROM presence p
             USING unnest($1::bytea[], $3::bigint[]) AS u (key, seen)
             WHERE p.key = u.key AND p.master = $2 AND p.last_seen <= u.seen";
        self.db.run(sql, &[&keys, &&master.0[..], &seen]).await.map(drop)
    }

    pub(super) async fn active_users(&self) -> Outcome<Active> {
        let snapshot = self.snapshot().await?;
        let touched = snapshot.meta("touched_at").await?;
        if touched.is_none_or(|at_ms| snapshot.long_ago(at_ms)) {
            snapshot.end_snapshot().await?;
            return Ok(Active::TouchFirst);
        }
        let sql = "SELECT s.author, min(s.name) AS name, min(p.since), max(p.last_seen)
             FROM presence p JOIN sessions s ON s.key = p.key
             WHERE p.last_seen >= $1
             GROUP BY s.author ORDER BY 2, 1 LIMIT $2";
        let oldest = int(snapshot.now_ms.saturating_sub(ACTIVE_MS));
        let rows = snapshot.db.rows(sql, &[&oldest, &i64::from(USERS_MAX)]).await?;
        snapshot.end_snapshot().await?;
        Ok(Active::Users(each(&rows, |row| {
            Ok(ActiveUser {
                user: Author { id: UserId(row.bytes(0)?), name: row.word(1)? },
                since_ms: row.nat(2)?,
                last_seen_ms: row.nat(3)?,
            })
        })?))
    }
}
