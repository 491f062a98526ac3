//! Boards and posts: the append, cancels, and reads.
//!
//! 1. An id stands for one post of one board for ever, or for none once it was cancelled (G2): for
//!    as long as a late post may come, of the last [`CANCELS_MAX`] that a person cancelled.
//!    Its row in `post_ids` orders a cancel against an append.
//! 2. `seq` is 1..n without a hole (G4): numbers are given inside the transaction, to the ids
//!    that were new, in the order of the batch.
//! 3. `posted_at` never falls, whatever the clock does, and is not below what any read before it said.
//! 4. Ids are inserted in sorted order, so that two batches never wait for each other in a ring
//!    where rows are locked one by one.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, Row, params};

use super::{
    Tx, refused,
    sql::{Columns, int},
    unknown,
};
use crate::{
    model::{
        bounds::post_len,
        ids::{Author, BoardName, Post, PostId, Seq, UserId},
        outcome::TaskResult,
        rows::{Boards, Found, NewPost, Page, Permission, Range, StoreError},
    },
    store::{BOARDS_MAX, READ_BYTES_MAX, READ_POSTS_MAX, bounds::CANCELS_MAX},
};

/// Row of `boards`.
struct Board {
    number: i64,
    last_seq: u64,
    last_posted_at_ms: u64,
}

/// Meaning of a post id that was used.
enum Stands {
    For { board: i64, seq: u64 },
    Cancelled,
}

impl Tx<'_> {
    /// Appends a run of posts and returns one result per post, and the number of new posts. An
    /// unknown board is an error before anything was written.
    pub(super) fn append(
        &self,
        permission: &Permission,
        name: &BoardName,
        posts: &[&NewPost],
    ) -> Result<(Vec<TaskResult>, usize), StoreError> {
        let board = self.board(name)?;
        let numbers = self.number(&board, posts)?;
        let posted_at_ms = self.clock()?.max(board.last_posted_at_ms).max(self.now_ms);
        let mut put = self.db.prepare_cached(
            "INSERT INTO posts (board, seq, user, id, name, text, posted_at,
                                epoch, lease, n, worker)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        let token = permission.token;
        for (post, seq) in posts.iter().zip(&numbers) {
            let Some(seq) = seq else { continue };
            put.execute(params![
                board.number,
                int(seq.0),
                post.author.id.0,
                post.id.0,
                post.author.name.as_str(),
                post.text.as_str(),
                int(posted_at_ms),
                int(token.epoch.0),
                int(token.lease),
                int(token.n),
                permission.worker.0
            ])?;
        }
        let made = numbers.iter().flatten().count();
        if made > 0 {
            let mut put = self.db.prepare_cached(
                "UPDATE boards SET last_seq = ?2, last_posted_at = ?3 WHERE board = ?1",
            )?;
            let last_seq = board.last_seq + made as u64;
            put.execute(params![board.number, int(last_seq), int(posted_at_ms)])?;
        }
        let result = |(post, seq): (&&NewPost, &Option<Seq>)| match seq {
            Some(seq) => Ok(TaskResult::Committed { seq: *seq, posted_at_ms }),
            None => self.repeated(board.number, post),
        };
        let results = posts.iter().zip(&numbers).map(result).collect::<Result<_, StoreError>>()?;
        Ok((results, made))
    }

    /// Inserts the ids that are new and returns their places, `None` for all others. Of an id that
    /// the batch holds twice the first is inserted.
    fn number(&self, board: &Board, posts: &[&NewPost]) -> Result<Vec<Option<Seq>>, StoreError> {
        let mut firsts = BTreeMap::new();
        for (nth, post) in posts.iter().enumerate() {
            firsts.entry((post.author.id, post.id)).or_insert(nth);
        }
        let mut numbers = vec![None; posts.len()];
        // As if all were new: then the rows need no second touch.
        let mut guess = vec![0; posts.len()];
        let mut next = board.last_seq;
        for (nth, post) in posts.iter().enumerate() {
            if firsts.get(&(post.author.id, post.id)) == Some(&nth) {
                next += 1;
                guess[nth] = next;
            }
        }
        let mut put = self.db.prepare_cached(
            "INSERT INTO post_ids (user, id, board, seq) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO NOTHING",
        )?;
        for ((user, id), nth) in &firsts {
            if put.execute(params![user.0, id.0, board.number, int(guess[*nth])])? == 1 {
                numbers[*nth] = Some(Seq(guess[*nth]));
            }
        }
        let mut put =
            self.db.prepare_cached("UPDATE post_ids SET seq = ?3 WHERE user = ?1 AND id = ?2")?;
        let mut next = board.last_seq;
        for (seq, post) in numbers.iter_mut().zip(posts) {
            let Some(seq) = seq else { continue };
            next += 1;
            if seq.0 != next {
                *seq = Seq(next);
                put.execute(params![post.author.id.0, post.id.0, int(next)])?;
            }
        }
        Ok(numbers)
    }

    /// Returns the result of a post whose id was used before.
    fn repeated(&self, board: i64, post: &NewPost) -> Result<TaskResult, StoreError> {
        let (stands, seq) = match self.stands(post.author.id, post.id)? {
            Some(Stands::For { board, seq }) => (board, seq),
            Some(Stands::Cancelled) => return Ok(TaskResult::Cancelled),
            None => return Err(StoreError::Broken { why: format!("id {} has no row", post.id) }),
        };
        if stands != board {
            return Ok(TaskResult::Conflict);
        }
        let mut find = self
            .db
            .prepare_cached("SELECT text, posted_at FROM posts WHERE board = ?1 AND seq = ?2")?;
        let (text, posted_at_ms) = find.query_row(params![board, int(seq)], |row| {
            let text: String = row.get(0)?;
            Ok((text, row.nat(1)?))
        })?;
        Ok(if text == post.text.as_str() {
            TaskResult::Duplicate { seq: Seq(seq), posted_at_ms }
        } else {
            TaskResult::Conflict
        })
    }

    /// Cancels those of the ids that were not used before, and returns their number.
    pub(super) fn cancel_ids(&self, ids: &BTreeSet<(UserId, PostId)>) -> Result<usize, StoreError> {
        let mut put = self.db.prepare_cached(
            "INSERT INTO post_ids (user, id, board, seq) VALUES (?1, ?2, NULL, NULL)
             ON CONFLICT DO NOTHING",
        )?;
        let mut note =
            self.db.prepare_cached("INSERT INTO cancels (user, id, at) VALUES (?1, ?2, ?3)")?;
        let mut made = 0;
        let mut users = BTreeSet::new();
        for (user, id) in ids {
            if put.execute(params![user.0, id.0])? == 1 {
                note.execute(params![user.0, id.0, int(self.now_ms)])?;
                made += 1;
                users.insert(*user);
            }
        }
        for user in users {
            self.forget_cancels_of(user)?;
        }
        Ok(made)
    }

    /// Forgets the oldest cancelled ids of a person above [`CANCELS_MAX`].
    fn forget_cancels_of(&self, user: UserId) -> Result<(), StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT number FROM cancels WHERE user = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2",
        )?;
        let last: Option<i64> =
            find.query_row(params![user.0, CANCELS_MAX as u32], |row| row.get(0)).optional()?;
        let Some(last) = last else { return Ok(()) };
        for sql in [
            "DELETE FROM post_ids WHERE user = ?1 AND board IS NULL AND id IN
                 (SELECT id FROM cancels WHERE user = ?1 AND number <= ?2)",
            "DELETE FROM cancels WHERE user = ?1 AND number <= ?2",
        ] {
            self.db.prepare_cached(sql)?.execute(params![user.0, last])?;
        }
        Ok(())
    }

    /// Forgets ids that were cancelled before a time, and changes about so many rows.
    pub(super) fn forget_cancels(&self, before: i64, rows: u64) -> Result<(), StoreError> {
        let limit = int(rows / 2);
        for sql in [
            "DELETE FROM post_ids WHERE board IS NULL AND (user, id) IN
                 (SELECT user, id FROM cancels WHERE at < ?1 ORDER BY at, number LIMIT ?2)",
            "DELETE FROM cancels WHERE number IN
                 (SELECT number FROM cancels WHERE at < ?1 ORDER BY at, number LIMIT ?2)",
        ] {
            self.db.prepare_cached(sql)?.execute(params![before, limit])?;
        }
        Ok(())
    }

    /// Returns the result of a cancel, after [`Self::cancel_ids`].
    pub(super) fn cancelled(&self, user: UserId, id: PostId) -> Result<TaskResult, StoreError> {
        match self.find_post(user, id)? {
            Found::Cancelled => Ok(TaskResult::Cancelled),
            Found::Committed(post) => Ok(TaskResult::AlreadyCommitted(Box::new(post))),
            Found::Nothing => Err(StoreError::Broken { why: format!("id {id} has no row") }),
        }
    }

    pub(super) fn find_post(&self, user: UserId, id: PostId) -> Result<Found, StoreError> {
        let (board, seq) = match self.stands(user, id)? {
            None => return Ok(Found::Nothing),
            Some(Stands::Cancelled) => return Ok(Found::Cancelled),
            Some(Stands::For { board, seq }) => (board, seq),
        };
        let mut find = self.db.prepare_cached(
            "SELECT p.seq, p.user, p.id, p.name, p.text, p.posted_at, b.name
             FROM posts p JOIN boards b ON b.board = p.board
             WHERE p.board = ?1 AND p.seq = ?2",
        )?;
        Ok(Found::Committed(find.query_row(params![board, int(seq)], |row| {
            let board = row.word(6)?;
            post(row, &board)
        })?))
    }

    fn stands(&self, user: UserId, id: PostId) -> Result<Option<Stands>, StoreError> {
        let mut find = self
            .db
            .prepare_cached("SELECT board, seq FROM post_ids WHERE user = ?1 AND id = ?2")?;
        Ok(find
            .query_row(params![user.0, id.0], |row| {
                let board: Option<i64> = row.get(0)?;
                Ok(match board {
                    Some(board) => Stands::For { board, seq: row.nat(1)? },
                    None => Stands::Cancelled,
                })
            })
            .optional()?)
    }

    pub(super) fn read(
        &self,
        name: &BoardName,
        range: Range,
        limit: u32,
    ) -> Result<Page, StoreError> {
        let board = self.board(name)?;
        let (sql, from) = match range {
            Range::After(seq) => (
                "SELECT seq, user, id, name, text, posted_at FROM posts
                 WHERE board = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
                int(seq.0),
            ),
            Range::Before(_) | Range::Last => (
                "SELECT seq, user, id, name, text, posted_at FROM posts
                 WHERE board = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
                if let Range::Before(seq) = range { int(seq.0) } else { i64::MAX },
            ),
        };
        let mut find = self.db.prepare_cached(sql)?;
        let limit = limit.min(READ_POSTS_MAX);
        let rows = find.query_map(params![board.number, from, limit], |row| post(row, name))?;
        let (mut posts, mut bytes) = (Vec::new(), 0);
        for row in rows {
            let post = row?;
            bytes += post_len(&post);
            if bytes > READ_BYTES_MAX && !posts.is_empty() {
                break;
            }
            posts.push(post);
        }
        if !matches!(range, Range::After(_)) {
            posts.reverse();
        }
        Ok(Page {
            posts,
            last_seq: Seq(board.last_seq),
            epoch: self.epoch()?,
            as_of_ms: self.clock()?,
        })
    }

    pub(super) fn boards(&self) -> Result<Boards, StoreError> {
        let mut find = self.db.prepare_cached("SELECT name, last_seq FROM boards ORDER BY name")?;
        let rows = find.query_map([], |row| Ok((row.word(0)?, Seq(row.nat(1)?))))?;
        let boards = rows.collect::<Result<_, _>>()?;
        Ok(Boards { boards, epoch: self.epoch()?, as_of_ms: self.clock()? })
    }

    /// Creates a board unless it exists, and returns the number of new rows.
    pub(super) fn create_board(&self, name: &BoardName) -> Result<usize, StoreError> {
        match self.board(name) {
            Ok(_) => return Ok(0),
            Err(StoreError::Unknown { .. }) => {}
            Err(error) => return Err(error),
        }
        if self.count("boards")? >= BOARDS_MAX as u64 {
            return Err(refused(format!("{BOARDS_MAX} boards are the most")));
        }
        let mut put = self.db.prepare_cached(
            "INSERT INTO boards (name, last_seq, last_posted_at) VALUES (?1, 0, 0)",
        )?;
        Ok(put.execute([name.as_str()])?)
    }

    fn board(&self, name: &BoardName) -> Result<Board, StoreError> {
        let mut find = self
            .db
            .prepare_cached("SELECT board, last_seq, last_posted_at FROM boards WHERE name = ?1")?;
        find.query_row([name.as_str()], |row| {
            Ok(Board { number: row.get(0)?, last_seq: row.nat(1)?, last_posted_at_ms: row.nat(2)? })
        })
        .optional()?
        .ok_or_else(|| unknown(format!("board {name}")))
    }

    /// Returns the last place of a board, 0 if there is none.
    pub(super) fn last_of(&self, name: &BoardName) -> Result<Seq, StoreError> {
        match self.board_end(name) {
            Ok((_, last)) => Ok(last),
            Err(StoreError::Unknown { .. }) => Ok(Seq::default()),
            Err(error) => Err(error),
        }
    }

    /// Returns the number and the last place of a board.
    pub(super) fn board_end(&self, name: &BoardName) -> Result<(i64, Seq), StoreError> {
        self.board(name).map(|board| (board.number, Seq(board.last_seq)))
    }
}

/// Reads a post from the columns `seq, user, id, name, text, posted_at`.
fn post(row: &Row<'_>, board: &BoardName) -> rusqlite::Result<Post> {
    Ok(Post {
        id: PostId(row.get(2)?),
        board: board.clone(),
        seq: Seq(row.nat(0)?),
        author: Author { id: UserId(row.get(1)?), name: row.word(3)? },
        text: row.word(4)?,
        posted_at_ms: row.nat(5)?,
    })
}
