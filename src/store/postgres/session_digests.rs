//! Digests of the open sessions, kept beside the rows, and pages of the sessions of a bucket: what
//! copies are repaired by.
//!
//! 1. Whatever changes a session or its read marks changes the digest in the same transaction.
//! 2. A digest that another release let go wrong costs reads, never a session: pages are read from
//!    the rows. Upkeep counts one bucket after another again.

use std::collections::BTreeMap;

use super::{
    sessions::session_rows,
    sql::{Columns, Outcome, int},
    tx::Tx,
};
use crate::model::{
    copies::{
        BUCKETS, PAGE_SESSIONS_MAX, SessionDigests, SessionEntry, SessionPage, keys_of, mark_digest,
    },
    ids::{BoardName, SessionKey, StoreEpoch, UserId},
};

pub(super) const DIGESTS: &str = "SELECT s.epoch, d.bucket, d.digest
     FROM chatchat_store s LEFT JOIN session_digests d ON TRUE WHERE s.one = 1";

impl Tx<'_> {
    /// Adds a change to the digest of a key's bucket.
    pub(super) async fn change_digest(&self, key: &SessionKey, by: u64) -> Outcome<()> {
        let [bucket, ..] = key.0;
        self.change_digests(&BTreeMap::from([(bucket, by)])).await
    }

    /// Adds changes to the digests of buckets, in one statement.
    async fn change_digests(&self, changes: &BTreeMap<u8, u64>) -> Outcome<()> {
        let buckets: Vec<_> = changes.keys().map(|bucket| i64::from(*bucket)).collect();
        let by: Vec<_> = changes.values().map(|by| by.cast_signed()).collect();
        let sql = "INSERT INTO session_digests (bucket, digest)
             SELECT c.bucket, c.digest FROM unnest($1::bigint[], $2::bigint[]) AS c (bucket, digest)
             ON CONFLICT (bucket) DO UPDATE
             SET digest = (session_digests.digest | excluded.digest)
                        - (session_digests.digest & excluded.digest)";
        self.db.run(sql, &[&buckets, &by]).await.map(drop)
    }

    /// Adds a raised read mark to the digests of all sessions of its user, however many there are.
    pub(super) async fn change_mark(
        &self,
        user: &UserId,
        board: &BoardName,
        (from, to): (u64, u64),
    ) -> Outcome<()> {
        if from == to {
            return Ok(());
        }
        let sql = "SELECT key FROM sessions WHERE author = $1";
        let mut changes: BTreeMap<u8, u64> = BTreeMap::new();
        for row in &self.db.rows(sql, &[&&user.0[..]]).await? {
            let key = SessionKey(row.bytes(0)?);
            let [bucket, ..] = key.0;
            let mark = |seq| mark_digest(&key, board.as_str(), seq);
            *changes.entry(bucket).or_default() ^= mark(from) ^ mark(to);
        }
        self.change_digests(&changes).await
    }

    pub(super) async fn session_digests(&self) -> Outcome<SessionDigests> {
        let rows = self.db.rows(DIGESTS, &[]).await?;
        let epoch = rows.first().map_or(Ok(0), |row| row.nat(0))?;
        let mut digests = SessionDigests::empty(StoreEpoch(epoch));
        for row in &rows {
            if row.is_null(1)? {
                continue;
            }
            let digest: i64 = row.try_get(2)?;
            if let Some(open) = digests.open.get_mut(row.small(1)? as usize) {
                *open = digest.cast_unsigned();
            }
        }
        Ok(digests)
    }

    pub(super) async fn sessions(
        &self,
        bucket: u8,
        after: Option<&SessionKey>,
    ) -> Outcome<SessionPage> {
        let (first, last) = keys_of(bucket);
        let sql = "SELECT s.key, s.author, s.name, b.name, m.seq FROM (
                 SELECT key, author, name FROM sessions
                 WHERE key > $1 AND key BETWEEN $2 AND $3 ORDER BY key LIMIT $4) s
             LEFT JOIN read_marks m ON m.author = s.author
             LEFT JOIN boards b ON b.board = m.board
             ORDER BY s.key, b.name";
        let after: &[u8] = after.map_or(&[], |after| &after.0[..]);
        let (first, last) = (&first.0[..], &last.0[..]);
        let limit = int(PAGE_SESSIONS_MAX as u64);
        let rows = session_rows(&self.db.rows(sql, &[&after, &first, &last, &limit]).await?)?;
        Ok(SessionPage::of(rows.into_iter().map(SessionEntry::Open).collect()))
    }

    /// Counts the digest of a bucket again, and returns the number of rows that changed.
    async fn count_digest(&self, bucket: u8) -> Outcome<u64> {
        let (mut digest, mut after) = (0, None);
        loop {
            let page = self.sessions(bucket, after.as_ref()).await?;
            for entry in &page.entries {
                if let SessionEntry::Open(row) = entry {
                    digest ^= row.digest();
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let sql = "INSERT INTO session_digests (bucket, digest) VALUES ($1, $2)
             ON CONFLICT (bucket) DO UPDATE SET digest = excluded.digest
             WHERE session_digests.digest <> excluded.digest";
        self.db.run(sql, &[&i64::from(bucket), &digest.cast_signed()]).await
    }

    /// Counts the digest of the bucket whose turn it is; returns the number of rows that changed.
    pub(super) async fn check_digest(&self) -> Outcome<u64> {
        let turn = self.meta("digest_turn").await?.unwrap_or(0) % BUCKETS as u64;
        let changed = self.count_digest(u8::try_from(turn).unwrap_or_default()).await?;
        self.set_meta("digest_turn", turn + 1).await?;
        Ok(changed + 1)
    }
}
