//! Sessions, read marks and handover tickets.
//!
//! 1. Only hashes of session tokens and tickets are kept.
//! 2. A key that was closed never opens again; it is listed as closed for 40 days, under numbers
//!    that grow in the order of commits.
//! 3. Read marks belong to the user: a session that was handed over has those of the first one.
//! 4. A ticket opens one session; spending it again for the same key gives the same session.
//! 5. A session's row of presence is locked before its own, as a touch locks them.
//! 6. A user has a bounded number of open sessions: one more ends the one unused for the longest time.

use tokio_postgres::Row;

use super::{
    sql::{Columns, Outcome, int},
    tx::{Tx, each},
};
use crate::{
    model::{
        bounds::{SESSIONS_ENDED_MAX, SESSIONS_OF_USER_MAX},
        ids::{Author, BoardName, Seq, SessionKey, UserId},
        rows::SessionRow,
    },
    store::{
        CLOSED_PAGE_MAX,
        bounds::{TICKET_TTL_MS, TICKETS_MAX},
        refused, unknown,
    },
};

impl Tx<'_> {
    /// Opens a session unless this key is open for this user, and returns the number of new rows.
    pub(super) async fn open_session(&self, key: SessionKey, user: &Author) -> Outcome<usize> {
        match self.user_of(key).await? {
            Some(open) if open.id == user.id => Ok(0),
            Some(_) => Err(refused("this session is another user's").into()),
            None => {
                let made = self.insert_session(key, user).await?;
                Ok(made + self.end_beyond_max(&user.id, [key, key]).await?)
            }
        }
    }

    async fn insert_session(&self, key: SessionKey, user: &Author) -> Outcome<usize> {
        let bytes = &key.0[..];
        let find = "SELECT 1::bigint FROM closed_sessions WHERE key = $1";
        if self.db.row(find, &[&bytes]).await?.is_some() {
            return Err(refused("this session was closed").into());
        }
        let sql = "INSERT INTO sessions (key, author, name, opened_at, used_at)
             VALUES ($1, $2, $3, $4, $4)";
        let (author, now) = (&user.id.0[..], int(self.now_ms));
        let made = self.db.run(sql, &[&bytes, &author, &user.name.as_str(), &now]).await?;
        self.change_digest(&key, self.digest_of(key).await?).await?;
        Ok(made as usize)
    }

    /// Ends the sessions of a user that are too many, first the one that was unused for the longest
    /// time, and returns how many. The two that are named stay: the new one, and the one that it comes
    /// from.
    async fn end_beyond_max(&self, user: &UserId, stay: [SessionKey; 2]) -> Outcome<usize> {
        // A note of use may be an hour old: who has a stream was seen later.
        let sql = "SELECT s.key FROM sessions s LEFT JOIN presence p ON p.key = s.key
             WHERE s.author = $1 AND s.key <> ALL($2::bytea[])
             ORDER BY greatest(s.used_at, p.last_seen), s.opened_at, s.key
             LIMIT (SELECT least(greatest(count(*) - $3::bigint, 0), $4::bigint)
                    FROM sessions WHERE author = $1)";
        let (author, stay) = (&user.0[..], stay.each_ref().map(|key| &key.0[..]).to_vec());
        let (max, ended_max) = (int(SESSIONS_OF_USER_MAX), int(SESSIONS_ENDED_MAX));
        let rows = self.db.rows(sql, &[&author, &stay, &max, &ended_max]).await?;
        let mut keys = each(&rows, |row| Ok(SessionKey(row.bytes(0)?)))?;
        // Rows of presence are locked in the order in which a touch locks them.
        keys.sort_unstable();
        for key in &keys {
            self.end_session(*key).await?;
        }
        Ok(keys.len())
    }

    async fn user_of(&self, key: SessionKey) -> Outcome<Option<Author>> {
        let sql = "SELECT author, name FROM sessions WHERE key = $1";
        let read = |row: Row| -> Outcome<Author> {
            Ok(Author { id: UserId(row.bytes(0)?), name: row.word(1)? })
        };
        self.db.row(sql, &[&&key.0[..]]).await?.map(read).transpose()
    }

    pub(super) async fn find_session(&self, key: SessionKey) -> Outcome<Option<SessionRow>> {
        let sql = "SELECT s.key, s.author, s.name, b.name, m.seq FROM sessions s
             LEFT JOIN read_marks m ON m.author = s.author
             LEFT JOIN boards b ON b.board = m.board
             WHERE s.key = $1 ORDER BY b.name";
        Ok(session_rows(&self.db.rows(sql, &[&&key.0[..]]).await?)?.pop())
    }

    /// Returns the digest of a session with the read marks of its user; 0 if it is not open.
    async fn digest_of(&self, key: SessionKey) -> Outcome<u64> {
        Ok(self.find_session(key).await?.map_or(0, |row| row.digest()))
    }

    /// Closes a session and drops its presence and tickets; false if it was not open.
    pub(super) async fn end_session(&self, key: SessionKey) -> Outcome<bool> {
        let Some(user) = self.user_of(key).await? else { return Ok(false) };
        self.change_digest(&key, self.digest_of(key).await?).await?;
        let bytes = &key.0[..];
        for sql in [
            "DELETE FROM presence WHERE key = $1",
            "DELETE FROM sessions WHERE key = $1",
            "DELETE FROM tickets WHERE key = $1",
        ] {
            self.db.run(sql, &[&bytes]).await?;
        }
        let sql = "DELETE FROM read_marks WHERE author = $1
             AND NOT EXISTS (SELECT 1 FROM sessions WHERE author = $1)";
        self.db.run(sql, &[&&user.id.0[..]]).await?;
        let sql =
            "WITH last AS (UPDATE clock SET closed = closed + 1 WHERE one = 1 RETURNING closed)
             INSERT INTO closed_sessions (number, key, closed_at) SELECT closed, $1, $2 FROM last";
        self.db.run(sql, &[&bytes, &int(self.now_ms)]).await?;
        Ok(true)
    }

    pub(super) async fn closed_since(&self, mark: u64) -> Outcome<(Vec<SessionKey>, u64)> {
        let sql = "SELECT number, key FROM closed_sessions
             WHERE number > $1 ORDER BY number LIMIT $2";
        let rows = self.db.rows(sql, &[&int(mark), &i64::from(CLOSED_PAGE_MAX)]).await?;
        let rows = each(&rows, |row| Ok((row.nat(0)?, SessionKey(row.bytes(1)?))))?;
        let mark = rows.last().map_or(mark, |(number, _)| *number);
        Ok((rows.into_iter().map(|(_, key)| key).collect(), mark))
    }

    /// Raises a read mark, never lowers it, and returns the number of rows changed.
    pub(super) async fn set_read_mark(
        &self,
        key: SessionKey,
        board: &BoardName,
        seq: Seq,
    ) -> Outcome<usize> {
        let user = self.user_of(key).await?.ok_or_else(|| unknown("session"))?;
        let (number, end) = self.board_end(board).await?;
        if seq > end {
            return Err(refused(format!("board {board} ends at {end}")).into());
        }
        let author = &user.id.0[..];
        let find = "SELECT seq FROM read_marks WHERE author = $1 AND board = $2";
        let known = self.db.row(find, &[&author, &number]).await?;
        let known = known.map_or(Ok(0), |row| row.nat(0))?;
        self.change_mark(&user.id, board, (known, seq.0.max(known))).await?;
        let sql = "INSERT INTO read_marks (author, board, seq) VALUES ($1, $2, $3)
             ON CONFLICT (author, board) DO UPDATE SET seq = excluded.seq
             WHERE excluded.seq > read_marks.seq";
        Ok(self.db.run(sql, &[&author, &number, &int(seq.0)]).await? as usize)
    }

    /// Keeps a handover ticket of an open session, and returns the number of new rows.
    pub(super) async fn put_ticket(&self, ticket: &[u8; 32], key: SessionKey) -> Outcome<usize> {
        if self.user_of(key).await?.is_none() {
            return Err(unknown("session").into());
        }
        let (ticket, bytes) = (&ticket[..], &key.0[..]);
        let find = "SELECT key FROM tickets WHERE ticket = $1";
        let holder = self.db.row(find, &[&ticket]).await?;
        let made = match holder.map(|row| row.bytes(0)).transpose()?.map(SessionKey) {
            Some(holder) if holder == key => 0,
            Some(_) => return Err(refused("this ticket is another session's").into()),
            None => {
                let sql = "INSERT INTO tickets (ticket, key, ends_at, new_key)
                     VALUES ($1, $2, $3, NULL)";
                let ends_at = int(self.latest_ms().saturating_add(TICKET_TTL_MS));
                self.db.run(sql, &[&ticket, &bytes, &ends_at]).await? as usize
            }
        };
        // This one stays, also among those that end with it: after the clock went back, all do.
        let trim = "DELETE FROM tickets WHERE ticket IN (
                 SELECT ticket FROM tickets WHERE key = $1 AND ticket <> $2
                 ORDER BY ends_at DESC, ticket OFFSET $3)";
        self.db.run(trim, &[&bytes, &ticket, &int(TICKETS_MAX - 1)]).await?;
        Ok(made)
    }

    /// Spends a ticket for a new session of the same user. Returns the session and the number of new
    /// rows.
    pub(super) async fn redeem_ticket(
        &self,
        ticket: &[u8; 32],
        key: SessionKey,
    ) -> Outcome<(SessionRow, usize)> {
        let ticket = &ticket[..];
        let find = "SELECT key, ends_at, new_key FROM tickets WHERE ticket = $1";
        let row = self.db.row(find, &[&ticket]).await?.ok_or_else(|| unknown("ticket"))?;
        let (first, ends_at_ms) = (SessionKey(row.bytes(0)?), row.nat(1)?);
        let made = match row.bytes_or_null(2)?.map(SessionKey) {
            Some(spent_for) if spent_for == key => 0,
            Some(_) => return Err(unknown("ticket").into()),
            None if ends_at_ms <= self.latest_ms() => return Err(unknown("ticket").into()),
            None => {
                let user = self.user_of(first).await?.ok_or_else(|| unknown("ticket"))?;
                if self.user_of(key).await?.is_some() {
                    return Err(refused("this session is open").into());
                }
                // First, because a rule may refuse it: a refused task leaves nothing behind.
                let made = self.insert_session(key, &user).await?;
                let sql = "UPDATE tickets SET new_key = $2 WHERE ticket = $1";
                self.db.run(sql, &[&ticket, &&key.0[..]]).await?;
                made + self.end_beyond_max(&user.id, [key, first]).await?
            }
        };
        let session = self.find_session(key).await?.ok_or_else(|| unknown("session"))?;
        Ok((session, made))
    }
}

/// Reads sessions from rows `key, author, name, board's name, seq`, one row per read mark, sorted by
/// key and board.
pub(super) fn session_rows(rows: &[Row]) -> Outcome<Vec<SessionRow>> {
    let mut sessions: Vec<SessionRow> = Vec::new();
    for row in rows {
        let key = SessionKey(row.bytes(0)?);
        if sessions.last().is_none_or(|last| last.key != key) {
            let user = Author { id: UserId(row.bytes(1)?), name: row.word(2)? };
            sessions.push(SessionRow { key, user, read_marks: Vec::new() });
        }
        if let Some(last) = sessions.last_mut()
            && !row.is_null(4)?
        {
            last.read_marks.push((row.word(3)?, Seq(row.nat(4)?)));
        }
    }
    Ok(sessions)
}
