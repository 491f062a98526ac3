//! Boards and posts: the append, cancels, and reads.
//!
//! 1. An id stands for one post of one board for ever, or for none once it was cancelled (G2). Its
//!    row in `post_ids` orders a cancel against an append.
//! 2. `seq` is 1..n without a hole (G4): numbers are given in turn, to the ids that were new, in the
//!    order of the batch.
//! 3. `posted_at` never falls, whatever the clock does, and is not below what any read before it said.
//! 4. A batch of posts takes a fixed number of statements, however many posts it has.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join;
use tokio_postgres::{Client, Row};

use super::{
    sql::{Columns, Outcome, int},
    tx::{Tx, each},
};
use crate::{
    model::{
        bounds::{POST_HEAD_MAX, post_len},
        ids::{Author, BoardName, Post, PostId, Seq, StoreEpoch, UserId},
        outcome::TaskResult,
        rows::{Boards, Found, NewPost, Page, Permission, Range, StoreError},
    },
    store::{BOARDS_MAX, READ_BYTES_MAX, READ_POSTS_MAX, bounds::CANCELS_MAX, refused, unknown},
};

const PUT_POSTS: &str =
    "INSERT INTO posts (board, seq, author, id, name, text, posted_at, epoch, lease, n, worker)
     SELECT $1, p.seq, p.author, p.id, p.name, p.text, $7, $8, $9, $10, $11
     FROM unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::text[], $6::text[])
          AS p (seq, author, id, name, text)";

const END_BOARD: &str = "UPDATE boards SET last_seq = $2, last_posted_at = $3 WHERE board = $1";

/// Reads a page and what stands around it in one snapshot. `sum` bounds what is sent: the page is
/// cut again when it is read, by exact lengths. Tables of one row are joined by their key: without
/// statistics PostgreSQL takes them for a thousand rows each, and compiles the statement.
pub(super) const AFTER: &str =
    "SELECT b.last_seq, s.epoch, c.at, p.seq, p.author, p.id, p.name, p.text, p.posted_at
     FROM boards b JOIN chatchat_store s ON s.one = 1 JOIN clock c ON c.one = 1
     LEFT JOIN LATERAL (
         SELECT q.*, sum(octet_length(q.text) + $4) OVER (ORDER BY q.seq) AS bytes
         FROM (SELECT * FROM posts WHERE board = b.board AND seq > $2 ORDER BY seq LIMIT $3) q
     ) p ON p.bytes <= $5
     WHERE b.name = $1 ORDER BY p.seq";

pub(super) const BEFORE: &str =
    "SELECT b.last_seq, s.epoch, c.at, p.seq, p.author, p.id, p.name, p.text, p.posted_at
     FROM boards b JOIN chatchat_store s ON s.one = 1 JOIN clock c ON c.one = 1
     LEFT JOIN LATERAL (
         SELECT q.*, sum(octet_length(q.text) + $4) OVER (ORDER BY q.seq DESC) AS bytes
         FROM (SELECT * FROM posts WHERE board = b.board AND seq < $2 ORDER BY seq DESC LIMIT $3) q
     ) p ON p.bytes <= $5
     WHERE b.name = $1 ORDER BY p.seq DESC";

pub(super) const BOARDS: &str = "SELECT b.name, b.last_seq, s.epoch, c.at
     FROM boards b JOIN chatchat_store s ON s.one = 1 JOIN clock c ON c.one = 1
     ORDER BY b.name";

/// Lists the boards over a connection that is no [`Db`](super::connection::Db) yet.
pub(super) async fn boards(client: &Client) -> Outcome<Boards> {
    boards_of(&client.query(BOARDS, &[]).await?)
}

fn boards_of(rows: &[Row]) -> Outcome<Boards> {
    let none = || StoreError::Broken { why: "it has no board".to_owned() };
    let first = rows.first().ok_or_else(none)?;
    let (epoch, as_of_ms) = (StoreEpoch(first.nat(2)?), first.nat(3)?);
    let boards = each(rows, |row| Ok((row.word(0)?, Seq(row.nat(1)?))))?;
    Ok(Boards { boards, epoch, as_of_ms })
}

/// Row of `boards`.
struct Board {
    number: i64,
    last_seq: u64,
    last_posted_at_ms: u64,
}

/// Post that has an id which was used before, as it is stored.
struct Stored {
    board: Option<i64>,
    seq: u64,
    text: String,
    posted_at_ms: u64,
}

type Id = (UserId, PostId);

impl Tx<'_> {
    /// Appends a run of posts and returns one result per post, and the number of new posts. An
    /// unknown board is an error before anything was written.
    pub(super) async fn append(
        &self,
        permission: &Permission,
        name: &BoardName,
        posts: &[&NewPost],
    ) -> Outcome<(Vec<TaskResult>, usize)> {
        let board = self.board(name).await?;
        let numbers = self.number(&board, posts).await?;
        let posted_at_ms = self.clock_ms.max(board.last_posted_at_ms).max(self.now_ms);
        let new: Vec<_> = posts
            .iter()
            .zip(&numbers)
            .filter_map(|(post, seq)| seq.map(|seq| (*post, seq)))
            .collect();
        if !new.is_empty() {
            self.put_posts(permission, &board, &new, posted_at_ms).await?;
        }
        let old = posts.iter().zip(&numbers).filter(|(_, seq)| seq.is_none());
        let old: BTreeSet<_> = old.map(|(post, _)| (post.author.id, post.id)).collect();
        let stored = if old.is_empty() { BTreeMap::new() } else { self.stored(&old).await? };
        let result = |(post, seq): (&&NewPost, &Option<Seq>)| match seq {
            Some(seq) => Ok(TaskResult::Committed { seq: *seq, posted_at_ms }),
            None => repeated(board.number, post, &stored),
        };
        let results = posts.iter().zip(&numbers).map(result).collect::<Outcome<_>>()?;
        Ok((results, new.len()))
    }

    async fn put_posts(
        &self,
        permission: &Permission,
        board: &Board,
        new: &[(&NewPost, Seq)],
        posted_at_ms: u64,
    ) -> Outcome<()> {
        let seqs: Vec<_> = new.iter().map(|(_, seq)| int(seq.0)).collect();
        let authors: Vec<_> = new.iter().map(|(post, _)| &post.author.id.0[..]).collect();
        let ids: Vec<_> = new.iter().map(|(post, _)| &post.id.0[..]).collect();
        let names: Vec<_> = new.iter().map(|(post, _)| post.author.name.as_str()).collect();
        let texts: Vec<_> = new.iter().map(|(post, _)| post.text.as_str()).collect();
        let token = permission.token;
        let (epoch, lease, n) = (int(token.epoch.0), int(token.lease), int(token.n));
        let (at, worker) = (int(posted_at_ms), &permission.worker.0[..]);
        let last_seq = int(board.last_seq + new.len() as u64);
        self.db.prepare(&[PUT_POSTS, END_BOARD]).await?;
        try_join(
            self.db.run(
                PUT_POSTS,
                &[
                    &board.number,
                    &seqs,
                    &authors,
                    &ids,
                    &names,
                    &texts,
                    &at,
                    &epoch,
                    &lease,
                    &n,
                    &worker,
                ],
            ),
            self.db.run(END_BOARD, &[&board.number, &last_seq, &at]),
        )
        .await?;
        Ok(())
    }

    /// Inserts the ids that are new and returns their places, `None` for all others. Of an id that
    /// the batch holds twice the first is inserted.
    async fn number(&self, board: &Board, posts: &[&NewPost]) -> Outcome<Vec<Option<Seq>>> {
        let mut firsts: BTreeMap<Id, (usize, u64)> = BTreeMap::new();
        // As if all were new: then the rows need no second touch.
        let mut guess = board.last_seq;
        for (nth, post) in posts.iter().enumerate() {
            firsts.entry((post.author.id, post.id)).or_insert_with(|| {
                guess += 1;
                (nth, guess)
            });
        }
        let users: Vec<_> = firsts.keys().map(|(user, _)| &user.0[..]).collect();
        let ids: Vec<_> = firsts.keys().map(|(_, id)| &id.0[..]).collect();
        let seqs: Vec<_> = firsts.values().map(|(_, seq)| int(*seq)).collect();
        let sql = "INSERT INTO post_ids (author, id, board, seq)
             SELECT p.author, p.id, $1, p.seq
             FROM unnest($2::bytea[], $3::bytea[], $4::bigint[]) AS p (author, id, seq)
             ON CONFLICT DO NOTHING RETURNING author, id";
        let made = self.db.rows(sql, &[&board.number, &users, &ids, &seqs]).await?;
        let made = each(&made, |row| Ok((UserId(row.bytes(0)?), PostId(row.bytes(1)?))))?;
        let made: BTreeSet<Id> = made.into_iter().collect();
        let mut numbers = vec![None; posts.len()];
        let (mut next, mut moved) = (board.last_seq, Vec::new());
        for ((nth, post), number) in posts.iter().enumerate().zip(&mut numbers) {
            let id = (post.author.id, post.id);
            let Some((first, guess)) = firsts.get(&id) else { continue };
            if *first == nth && made.contains(&id) {
                next += 1;
                *number = Some(Seq(next));
                if *guess != next {
                    moved.push((post, int(next)));
                }
            }
        }
        if !moved.is_empty() {
            let users: Vec<_> = moved.iter().map(|(post, _)| &post.author.id.0[..]).collect();
            let ids: Vec<_> = moved.iter().map(|(post, _)| &post.id.0[..]).collect();
            let seqs: Vec<_> = moved.iter().map(|(_, seq)| *seq).collect();
            let sql = "UPDATE post_ids i SET seq = p.seq
                 FROM unnest($1::bytea[], $2::bytea[], $3::bigint[]) AS p (author, id, seq)
                 WHERE i.author = p.author AND i.id = p.id";
            self.db.run(sql, &[&users, &ids, &seqs]).await?;
        }
        Ok(numbers)
    }

    /// Returns what ids stand for that were used before.
    async fn stored(&self, ids: &BTreeSet<Id>) -> Outcome<BTreeMap<Id, Stored>> {
        let users: Vec<_> = ids.iter().map(|(user, _)| &user.0[..]).collect();
        let posts: Vec<_> = ids.iter().map(|(_, id)| &id.0[..]).collect();
        let sql = "SELECT i.author, i.id, i.board, i.seq, p.text, p.posted_at
             FROM unnest($1::bytea[], $2::bytea[]) AS u (author, id)
             JOIN post_ids i ON i.author = u.author AND i.id = u.id
             LEFT JOIN posts p ON p.board = i.board AND p.seq = i.seq";
        let rows = each(&self.db.rows(sql, &[&users, &posts]).await?, |row| {
            let id = (UserId(row.bytes(0)?), PostId(row.bytes(1)?));
            let board: Option<i64> = row.try_get(2)?;
            Ok((
                id,
                match board {
                    None => Stored { board, seq: 0, text: String::new(), posted_at_ms: 0 },
                    Some(_) => Stored {
                        board,
                        seq: row.nat(3)?,
                        text: row.try_get(4)?,
                        posted_at_ms: row.nat(5)?,
                    },
                },
            ))
        })?;
        Ok(rows.into_iter().collect())
    }

    /// Cancels those of the ids that were not used before, and returns their number.
    pub(super) async fn cancel_ids(&self, ids: &BTreeSet<Id>) -> Outcome<usize> {
        if ids.is_empty() {
            return Ok(0);
        }
        let users: Vec<_> = ids.iter().map(|(user, _)| &user.0[..]).collect();
        let posts: Vec<_> = ids.iter().map(|(_, id)| &id.0[..]).collect();
        let sql = "WITH made AS (
                 INSERT INTO post_ids (author, id, board, seq)
                 SELECT u.author, u.id, NULL, NULL
                 FROM unnest($1::bytea[], $2::bytea[]) AS u (author, id)
                 ON CONFLICT DO NOTHING RETURNING author, id)
             INSERT INTO cancels (author, id, at) SELECT author, id, $3 FROM made
             RETURNING author";
        let made = self.db.rows(sql, &[&users, &posts, &int(self.now_ms)]).await?;
        let users: BTreeSet<_> =
            each(&made, |row| Ok(UserId(row.bytes(0)?)))?.into_iter().collect();
        for user in users {
            self.forget_cancels_of(user).await?;
        }
        Ok(made.len())
    }

    /// Forgets the oldest cancelled ids of a person above [`CANCELS_MAX`].
    async fn forget_cancels_of(&self, user: UserId) -> Outcome<()> {
        let find = "SELECT number FROM cancels WHERE author = $1
             ORDER BY number DESC LIMIT 1 OFFSET $2";
        let user = &user.0[..];
        let last = self.db.row(find, &[&user, &int(CANCELS_MAX as u64)]).await?;
        let Some(last) = last else { return Ok(()) };
        let last: i64 = last.try_get(0)?;
        for sql in [
            "DELETE FROM post_ids WHERE author = $1 AND board IS NULL AND id IN
                 (SELECT id FROM cancels WHERE author = $1 AND number <= $2)",
            "DELETE FROM cancels WHERE author = $1 AND number <= $2",
        ] {
            self.db.run(sql, &[&user, &last]).await?;
        }
        Ok(())
    }

    /// Forgets ids that were cancelled before a time, and changes about so many rows; returns how
    /// many.
    pub(super) async fn forget_cancels(&self, before: i64, rows: u64) -> Outcome<u64> {
        let limit = int(rows / 2);
        let mut changed = 0;
        for sql in [
            "DELETE FROM post_ids WHERE board IS NULL AND (author, id) IN
                 (SELECT author, id FROM cancels WHERE at < $1 ORDER BY at, number LIMIT $2)",
            "DELETE FROM cancels WHERE number IN
                 (SELECT number FROM cancels WHERE at < $1 ORDER BY at, number LIMIT $2)",
        ] {
            changed += self.db.run(sql, &[&before, &limit]).await?;
        }
        Ok(changed)
    }

    /// Returns the result of a cancel, after [`Self::cancel_ids`].
    pub(super) async fn cancelled(&self, user: UserId, id: PostId) -> Outcome<TaskResult> {
        match self.find_post(user, id).await? {
            Found::Cancelled => Ok(TaskResult::Cancelled),
            Found::Committed(post) => Ok(TaskResult::AlreadyCommitted(Box::new(post))),
            Found::Nothing => Err(no_row(id).into()),
        }
    }

    pub(super) async fn find_post(&self, user: UserId, id: PostId) -> Outcome<Found> {
        let sql = "SELECT i.seq, p.author, p.id, p.name, p.text, p.posted_at, b.name
             FROM post_ids i
             LEFT JOIN posts p ON p.board = i.board AND p.seq = i.seq
             LEFT JOIN boards b ON b.board = i.board
             WHERE i.author = $1 AND i.id = $2";
        let row = self.db.row(sql, &[&&user.0[..], &&id.0[..]]).await?;
        let Some(row) = row else { return Ok(Found::Nothing) };
        if row.is_null(0)? {
            return Ok(Found::Cancelled);
        }
        let board = row.word(6)?;
        Ok(Found::Committed(post(&row, 0, &board)?))
    }

    pub(super) async fn read(&self, name: &BoardName, range: Range, limit: u32) -> Outcome<Page> {
        let (sql, from) = match range {
            Range::After(seq) => (AFTER, int(seq.0)),
            Range::Before(seq) => (BEFORE, int(seq.0)),
            Range::Last => (BEFORE, i64::MAX),
        };
        let limit = i64::from(limit.min(READ_POSTS_MAX));
        let head = i32::try_from(POST_HEAD_MAX).unwrap_or(i32::MAX);
        // The longest post fits, so that a page is never cut to nothing.
        let bytes = int(READ_BYTES_MAX as u64);
        let rows = self.db.rows(sql, &[&name.as_str(), &from, &limit, &head, &bytes]).await?;
        let around = rows.first().ok_or_else(|| unknown(format!("board {name}")))?;
        let (last_seq, epoch, as_of_ms) = (around.nat(0)?, around.nat(1)?, around.nat(2)?);
        let (mut posts, mut bytes) = (Vec::new(), 0);
        for row in &rows {
            if row.is_null(3)? {
                break;
            }
            let post = post(row, 3, name)?;
            bytes += post_len(&post);
            if bytes > READ_BYTES_MAX && !posts.is_empty() {
                break;
            }
            posts.push(post);
        }
        if !matches!(range, Range::After(_)) {
            posts.reverse();
        }
        Ok(Page { posts, last_seq: Seq(last_seq), epoch: StoreEpoch(epoch), as_of_ms })
    }

    pub(super) async fn boards(&self) -> Outcome<Boards> {
        boards_of(&self.db.rows(BOARDS, &[]).await?)
    }

    /// Creates a board unless it exists, and returns the number of new rows.
    pub(super) async fn create_board(&self, name: &BoardName) -> Outcome<usize> {
        if self.find_board(name).await?.is_some() {
            return Ok(0);
        }
        if self.count("SELECT count(*) FROM boards").await? >= BOARDS_MAX as u64 {
            return Err(refused(format!("{BOARDS_MAX} boards are the most")).into());
        }
        let sql = "INSERT INTO boards (name, last_seq, last_posted_at) VALUES ($1, 0, 0)";
        Ok(self.db.run(sql, &[&name.as_str()]).await? as usize)
    }

    async fn find_board(&self, name: &BoardName) -> Outcome<Option<Board>> {
        let sql = "SELECT board, last_seq, last_posted_at FROM boards WHERE name = $1";
        let row = self.db.row(sql, &[&name.as_str()]).await?;
        let read = |row: Row| -> Outcome<Board> {
            Ok(Board {
                number: row.try_get(0)?,
                last_seq: row.nat(1)?,
                last_posted_at_ms: row.nat(2)?,
            })
        };
        row.map(read).transpose()
    }

    async fn board(&self, name: &BoardName) -> Outcome<Board> {
        let found = self.find_board(name).await?;
        Ok(found.ok_or_else(|| unknown(format!("board {name}")))?)
    }

    /// Returns the last place of a board, 0 if there is none.
    pub(super) async fn last_of(&self, name: &BoardName) -> Outcome<Seq> {
        Ok(self.find_board(name).await?.map(|board| Seq(board.last_seq)).unwrap_or_default())
    }

    /// Returns the number and the last place of a board.
    pub(super) async fn board_end(&self, name: &BoardName) -> Outcome<(i64, Seq)> {
        let board = self.board(name).await?;
        Ok((board.number, Seq(board.last_seq)))
    }
}

/// Returns the result of a post whose id was used before.
fn repeated(board: i64, post: &NewPost, stored: &BTreeMap<Id, Stored>) -> Outcome<TaskResult> {
    let stored = stored.get(&(post.author.id, post.id)).ok_or_else(|| no_row(post.id))?;
    Ok(match stored.board {
        None => TaskResult::Cancelled,
        Some(of) if of == board && stored.text == post.text.as_str() => {
            TaskResult::Duplicate { seq: Seq(stored.seq), posted_at_ms: stored.posted_at_ms }
        }
        Some(_) => TaskResult::Conflict,
    })
}

fn no_row(id: PostId) -> StoreError {
    StoreError::Broken { why: format!("id {id} has no row") }
}

/// Reads a post from the columns `seq, author, id, name, text, posted_at` from this one on.
fn post(row: &Row, from: usize, board: &BoardName) -> Outcome<Post> {
    Ok(Post {
        id: PostId(row.bytes(from + 2)?),
        board: board.clone(),
        seq: Seq(row.nat(from)?),
        author: Author { id: UserId(row.bytes(from + 1)?), name: row.word(from + 3)? },
        text: row.word(from + 4)?,
        posted_at_ms: row.nat(from + 5)?,
    })
}
