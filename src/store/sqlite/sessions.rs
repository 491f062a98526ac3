//! Sessions, read marks and handover tickets.
//!
//! 1. Only hashes of session tokens and tickets are kept.
//! 2. A key that was closed never opens again; it is listed as closed for 40 days, under numbers
//!    that only grow.
//! 3. Read marks belong to the user: a session that was handed over has those of the first one.
//! 4. A ticket opens one session; spending it again for the same key gives the same session.
//! 5. A user has a bounded number of open sessions: one more ends the one unused for the longest time.

use rusqlite::{OptionalExtension, params};

use super::{
    Tx, refused,
    sql::{Columns, int},
    unknown,
};
use crate::{
    model::{
        bounds::{SESSIONS_ENDED_MAX, SESSIONS_OF_USER_MAX},
        ids::{Author, BoardName, Seq, SessionKey, UserId},
        rows::{SessionRow, StoreError},
    },
    store::{
        CLOSED_PAGE_MAX,
        bounds::{TICKET_TTL_MS, TICKETS_MAX},
    },
};

impl Tx<'_> {
    /// Opens a session unless this key is open for this user, and returns the number of new rows.
    pub(super) fn open_session(&self, key: SessionKey, user: &Author) -> Result<usize, StoreError> {
        match self.user_of(key)? {
            Some(open) if open.id == user.id => Ok(0),
            Some(_) => Err(refused("this session is another user's")),
            None => {
                Ok(self.insert_session(key, user)? + self.end_beyond_max(&user.id, [key, key])?)
            }
        }
    }

    fn insert_session(&self, key: SessionKey, user: &Author) -> Result<usize, StoreError> {
        let mut find = self.db.prepare_cached("SELECT 1 FROM closed_sessions WHERE key = ?1")?;
        if find.exists([key.0])? {
            return Err(refused("this session was closed"));
        }
        let mut put = self.db.prepare_cached(
            "INSERT INTO sessions (key, user, name, opened_at, used_at)
             VALUES (?1, ?2, ?3, ?4, ?4)",
        )?;
        let made = put.execute(params![key.0, user.id.0, user.name.as_str(), int(self.now_ms)])?;
        self.change_digest(&key, self.digest_of(key)?)?;
        Ok(made)
    }

    /// Ends the sessions of a user that are too many, first the one that was unused for the longest
    /// time, and returns how many. The two that are named stay: the new one, and the one that it comes
    /// from.
    fn end_beyond_max(&self, user: &UserId, stay: [SessionKey; 2]) -> Result<usize, StoreError> {
        let [new, from] = stay;
        // A note of use may be an hour old: who has a stream was seen later.
        let mut find = self.db.prepare_cached(
            "SELECT s.key FROM sessions s LEFT JOIN presence p ON p.key = s.key
             WHERE s.user = ?1 AND s.key NOT IN (?2, ?3)
             ORDER BY max(s.used_at, coalesce(p.last_seen, 0)), s.opened_at, s.key
             LIMIT (SELECT min(max(count(*) - ?4, 0), ?5) FROM sessions WHERE user = ?1)",
        )?;
        let (max, ended_max) = (int(SESSIONS_OF_USER_MAX), int(SESSIONS_ENDED_MAX));
        let keys = find
            .query_map(params![user.0, new.0, from.0, max, ended_max], |row| {
                Ok(SessionKey(row.get(0)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        for key in &keys {
            self.end_session(*key)?;
        }
        Ok(keys.len())
    }

    fn user_of(&self, key: SessionKey) -> Result<Option<Author>, StoreError> {
        let mut find = self.db.prepare_cached("SELECT user, name FROM sessions WHERE key = ?1")?;
        Ok(find
            .query_row([key.0], |row| Ok(Author { id: UserId(row.get(0)?), name: row.word(1)? }))
            .optional()?)
    }

    pub(super) fn find_session(&self, key: SessionKey) -> Result<Option<SessionRow>, StoreError> {
        let Some(user) = self.user_of(key)? else { return Ok(None) };
        let mut find = self.db.prepare_cached(
            "SELECT b.name, m.seq FROM read_marks m JOIN boards b ON b.board = m.board
             WHERE m.user = ?1 ORDER BY b.name",
        )?;
        let rows = find.query_map([user.id.0], |row| Ok((row.word(0)?, Seq(row.nat(1)?))))?;
        let read_marks = rows.collect::<Result<_, _>>()?;
        Ok(Some(SessionRow { key, user, read_marks }))
    }

    /// Returns the digest of a session with the read marks of its user; 0 if it is not open.
    fn digest_of(&self, key: SessionKey) -> Result<u64, StoreError> {
        Ok(self.find_session(key)?.map_or(0, |row| row.digest()))
    }

    /// Closes a session and drops its presence and tickets; false if it was not open.
    pub(super) fn end_session(&self, key: SessionKey) -> Result<bool, StoreError> {
        let Some(user) = self.user_of(key)? else { return Ok(false) };
        self.change_digest(&key, self.digest_of(key)?)?;
        for sql in [
            "DELETE FROM sessions WHERE key = ?1",
            "DELETE FROM presence WHERE key = ?1",
            "DELETE FROM tickets WHERE key = ?1",
        ] {
            self.db.prepare_cached(sql)?.execute([key.0])?;
        }
        let mut drop_marks = self.db.prepare_cached(
            "DELETE FROM read_marks WHERE user = ?1
             AND NOT EXISTS (SELECT 1 FROM sessions WHERE user = ?1)",
        )?;
        drop_marks.execute([user.id.0])?;
        let mut put = self
            .db
            .prepare_cached("INSERT INTO closed_sessions (key, closed_at) VALUES (?1, ?2)")?;
        put.execute(params![key.0, int(self.now_ms)])?;
        Ok(true)
    }

    pub(super) fn closed_since(&self, mark: u64) -> Result<(Vec<SessionKey>, u64), StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT number, key FROM closed_sessions WHERE number > ?1 ORDER BY number LIMIT ?2",
        )?;
        let rows = find.query_map(params![int(mark), CLOSED_PAGE_MAX], |row| {
            Ok((row.nat(0)?, SessionKey(row.get(1)?)))
        })?;
        let rows: Vec<(u64, SessionKey)> = rows.collect::<Result<_, _>>()?;
        let mark = rows.last().map_or(mark, |(number, _)| *number);
        Ok((rows.into_iter().map(|(_, key)| key).collect(), mark))
    }

    /// Raises a read mark, never lowers it, and returns the number of rows changed.
    pub(super) fn set_read_mark(
        &self,
        key: SessionKey,
        board: &BoardName,
        seq: Seq,
    ) -> Result<usize, StoreError> {
        let user = self.user_of(key)?.ok_or_else(|| unknown("session"))?;
        let (number, end) = self.board_end(board)?;
        if seq > end {
            return Err(refused(format!("board {board} ends at {end}")));
        }
        let mut find =
            self.db.prepare_cached("SELECT seq FROM read_marks WHERE user = ?1 AND board = ?2")?;
        let known = find.query_row(params![user.id.0, number], |row| row.nat(0)).optional()?;
        let known = known.unwrap_or(0);
        self.change_mark(&user.id, board, (known, seq.0.max(known)))?;
        let mut put = self.db.prepare_cached(
            "INSERT INTO read_marks (user, board, seq) VALUES (?1, ?2, ?3)
             ON CONFLICT (user, board) DO UPDATE SET seq = excluded.seq
             WHERE excluded.seq > read_marks.seq",
        )?;
        Ok(put.execute(params![user.id.0, number, int(seq.0)])?)
    }

    /// Keeps a handover ticket of an open session, and returns the number of new rows.
    pub(super) fn put_ticket(
        &self,
        ticket: &[u8; 32],
        key: SessionKey,
    ) -> Result<usize, StoreError> {
        if self.user_of(key)?.is_none() {
            return Err(unknown("session"));
        }
        let mut find = self.db.prepare_cached("SELECT key FROM tickets WHERE ticket = ?1")?;
        let holder = find.query_row([ticket], |row| row.get(0)).optional()?;
        let made = match holder.map(SessionKey) {
            Some(holder) if holder == key => 0,
            Some(_) => return Err(refused("this ticket is another session's")),
            None => {
                let mut put = self.db.prepare_cached(
                    "INSERT INTO tickets (ticket, key, ends_at, new_key) VALUES (?1, ?2, ?3, NULL)",
                )?;
                let ends_at_ms = self.latest_ms()?.saturating_add(TICKET_TTL_MS);
                put.execute(params![ticket, key.0, int(ends_at_ms)])?
            }
        };
        // This one stays, also among those that end with it: after the clock went back, all do.
        let mut trim = self.db.prepare_cached(
            "DELETE FROM tickets WHERE ticket IN (
                 SELECT ticket FROM tickets WHERE key = ?1 AND ticket <> ?2
                 ORDER BY ends_at DESC, ticket LIMIT -1 OFFSET ?3)",
        )?;
        trim.execute(params![key.0, ticket, int(TICKETS_MAX - 1)])?;
        Ok(made)
    }

    /// Spends a ticket for a new session of the same user. Returns the session and the number of new
    /// rows.
    pub(super) fn redeem_ticket(
        &self,
        ticket: &[u8; 32],
        key: SessionKey,
    ) -> Result<(SessionRow, usize), StoreError> {
        let mut find = self
            .db
            .prepare_cached("SELECT key, ends_at, new_key FROM tickets WHERE ticket = ?1")?;
        let (first, ends_at_ms, spent_for) = find
            .query_row([ticket], |row| {
                let spent_for: Option<[u8; 32]> = row.bytes_or_null(2)?;
                Ok((SessionKey(row.get(0)?), row.nat(1)?, spent_for.map(SessionKey)))
            })
            .optional()?
            .ok_or_else(|| unknown("ticket"))?;
        let made = match spent_for {
            Some(spent_for) if spent_for == key => 0,
            Some(_) => return Err(unknown("ticket")),
            None if ends_at_ms <= self.latest_ms()? => return Err(unknown("ticket")),
            None => {
                let user = self.user_of(first)?.ok_or_else(|| unknown("ticket"))?;
                if self.user_of(key)?.is_some() {
                    return Err(refused("this session is open"));
                }
                // First, because a rule may refuse it: a refused task leaves nothing behind.
                let made = self.insert_session(key, &user)?;
                let mut spend =
                    self.db.prepare_cached("UPDATE tickets SET new_key = ?2 WHERE ticket = ?1")?;
                spend.execute(params![ticket, key.0])?;
                made + self.end_beyond_max(&user.id, [key, first])?
            }
        };
        let session = self.find_session(key)?.ok_or_else(|| unknown("session"))?;
        Ok((session, made))
    }
}
