//! Append of new posts: all batches of a group that hold nothing else, in two round trips.
//!
//! ```text
//!   BEGIN, take the turn, look at leases and boards ──> decide ──> write all rows, COMMIT
//! ```
//!
//! 1. It decides as `writes.rs` and `posts.rs` do, and leaves to them what a look cannot decide: a
//!    repetition, and a board that is not there or is made by the same group.
//! 2. All ids are taken for new. If one is not, PostgreSQL refuses the rows and nothing is written.
//! 3. Whatever is looked at is changed in turn only: it stays as it is until the commit.

use std::collections::BTreeMap;

use futures_util::future::try_join3;
use tokio_postgres::{Row, types::ToSql};

use super::{
    connection::Db,
    sql::{Columns, Outcome, int},
    tx::{Manner, TURN, Tx, begun},
};
use crate::{
    model::{
        ids::{BoardName, NodeId, Resource, Seq, StoreEpoch, Token},
        outcome::TaskResult,
        rows::{NewPost, Permission},
    },
    store::{
        OpReply,
        batch::{Batch, LastWrite, batch_of, check_known, check_len, fence, post_of},
        job::Answer,
    },
};

/// The store's time, the state of each board's lease and of the board, and the oldest release that may use
/// the store.
const LOOK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint, u.name,
         l.epoch, l.lease, l.n, l.worker, l.batch, b.board, b.last_seq, b.last_posted_at,
         (SELECT min_reader FROM chatchat_store)
     FROM unnest($1::text[], $2::text[]) AS u (resource, name)
     LEFT JOIN leases l
         ON l.resource = u.resource AND l.epoch = (SELECT epoch FROM chatchat_store)
     LEFT JOIN boards b ON b.name = u.name";

/// Writes posts, ends of boards, fencing state and records, and raises the clock. `$1` to `$8` have a
/// place for each batch, `$9` to `$14` for each post, with the number of its batch, and `$15` to `$21`
/// for each board.
const APPEND: &str = "WITH ids AS (
         INSERT INTO post_ids (author, id, board, seq)
         SELECT p.author, p.id, ($2::bigint[])[p.nth], p.seq
         FROM unnest($9::int[], $10::bigint[], $11::bytea[], $12::bytea[])
              AS p (nth, seq, author, id)),
     put AS (
         INSERT INTO posts (board, seq, author, id, name, text, posted_at, epoch, lease, n, worker)
         SELECT ($2::bigint[])[p.nth], p.seq, p.author, p.id, p.name, p.text,
             ($8::bigint[])[p.nth], ($3::bigint[])[p.nth], ($4::bigint[])[p.nth],
             ($5::bigint[])[p.nth], ($6::bytea[])[p.nth]
         FROM unnest($9::int[], $10::bigint[], $11::bytea[], $12::bytea[], $13::text[], $14::text[])
              AS p (nth, seq, author, id, name, text)),
     fenced AS (
         UPDATE leases l SET n = e.n, worker = e.worker, batch = e.batch
         FROM unnest($15::text[], $19::bigint[], $20::bytea[], $21::bytea[])
              AS e (resource, n, worker, batch)
         WHERE l.resource = e.resource),
     ended AS (
         UPDATE boards b SET last_seq = e.last_seq, last_posted_at = e.last_posted_at
         FROM unnest($16::bigint[], $17::bigint[], $18::bigint[])
              AS e (board, last_seq, last_posted_at)
         WHERE b.board = e.board),
     turn AS (
         UPDATE clock SET at = greatest(at, $22), writes = writes + cardinality($1::text[])
         WHERE one = 1 RETURNING writes - cardinality($1::text[]) AS before)
     INSERT INTO writes (number, resource, epoch, lease, n, node, kind, rows, at)
     SELECT turn.before + w.nth, w.resource, w.epoch, w.lease, w.n, w.worker, 'write', w.rows, $22
     FROM turn, unnest($1::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[],
                       $7::bigint[])
          WITH ORDINALITY AS w (resource, epoch, lease, n, worker, rows, nth)";

/// State of a board and of its lease, as the rows have it and then as the batches leave it.
struct State {
    resource: String,
    last: Option<LastWrite>,
    board: Option<Board>,
    is_changed: bool,
}

#[derive(Clone, Copy)]
struct Board {
    number: i64,
    last_seq: u64,
    last_posted_at_ms: u64,
}

/// Batch that passed the fencing check, and the places of its posts.
struct Passed<'a> {
    permission: &'a Permission,
    board: Board,
    posts: Vec<&'a NewPost>,
}

/// Batches that can be appended at once: what was looked at for them, and what is to be written.
#[derive(Default)]
pub(super) struct Append<'a> {
    states: BTreeMap<&'a BoardName, State>,
    passed: Vec<Passed<'a>>,
}

impl<'a> Append<'a> {
    /// Returns the append of a group's boards that get nothing but posts.
    pub(super) fn of(batches: impl Iterator<Item = Batch<'a>>) -> Self {
        let mut boards: BTreeMap<_, bool> = BTreeMap::new();
        for Batch { permission, tasks, .. } in batches {
            let Resource::Board(board) = &permission.resource else { continue };
            let is_posts =
                check_len(tasks).is_ok() && tasks.iter().all(|task| post_of(task, board).is_some());
            *boards.entry(board).or_insert(true) &= is_posts;
        }
        let empty = |board: &BoardName| State {
            resource: Resource::Board(board.clone()).to_string(),
            last: None,
            board: None,
            is_changed: false,
        };
        let boards = boards.into_iter().filter(|(_, is_posts)| *is_posts);
        let states = boards.map(|(board, _)| (board, empty(board))).collect();
        Self { states, passed: Vec::new() }
    }

    /// Returns whether no board can be appended to.
    pub(super) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Begins a write in turn, and looks at the boards and their leases.
    pub(super) async fn begin<'b>(&mut self, db: &'b Db) -> Outcome<Tx<'b>> {
        if self.is_empty() {
            return Tx::in_turn(db).await;
        }
        let places = self.states.iter().map(|(board, it)| (it.resource.as_str(), board.as_str()));
        let (resources, names): (Vec<_>, Vec<_>) = places.unzip();
        db.prepare(&[TURN, LOOK, APPEND]).await?;
        // The look is a statement of its own, after the wait for the turn.
        let (_, clock, found) =
            try_join3(db.begin("BEGIN"), db.one(TURN, &[]), db.rows(LOOK, &[&resources, &names]))
                .await?;
        self.on_found(&found)?;
        let now_ms = found.first().map_or(Ok(0), |row| begun(db, row, 10))?;
        Ok(Tx { db, now_ms, clock_ms: clock.nat(0)? })
    }

    fn on_found(&mut self, rows: &[Row]) -> Outcome<()> {
        for row in rows {
            let board: BoardName = row.word(1)?;
            let Some(state) = self.states.get_mut(&board) else { continue };
            if !row.is_null(2)? {
                let (epoch, lease, n) = (StoreEpoch(row.nat(2)?), row.nat(3)?, row.nat(4)?);
                state.last = Some(LastWrite {
                    token: Token { epoch, lease, n },
                    worker: row.bytes_or_null(5)?.map(NodeId),
                    batch: row.bytes_or_null(6)?,
                });
            }
            if !row.is_null(7)? {
                state.board = Some(Board {
                    number: row.try_get(7)?,
                    last_seq: row.nat(8)?,
                    last_posted_at_ms: row.nat(9)?,
                });
            }
        }
        Ok(())
    }

    /// Decides about a batch, as if all its posts were new. `None` if its board is none of these;
    /// [`NotDecided`] if rows have to be asked.
    pub(super) fn add(
        &mut self,
        to_write: Batch<'a>,
        tx: &Tx<'_>,
    ) -> Result<Option<Answer>, NotDecided> {
        let Batch { permission, tasks, known } = to_write;
        let Resource::Board(name) = &permission.resource else { return Ok(None) };
        let Some(state) = self.states.get_mut(name) else { return Ok(None) };
        let batch = batch_of(tasks);
        match fence(state.last.as_ref(), permission, batch) {
            Ok(true) => {}
            Ok(false) => return Err(NotDecided),
            Err(refusal) => return Ok(Some(Err(refusal))),
        }
        let board = state.board.as_mut().ok_or(NotDecided)?;
        if let Err(older) = check_known(name, Seq(board.last_seq), known) {
            return Ok(Some(Err(older)));
        }
        board.last_posted_at_ms = tx.clock_ms.max(board.last_posted_at_ms).max(tx.now_ms);
        let before = *board;
        let posts: Vec<_> = tasks.iter().filter_map(|task| post_of(task, name)).collect();
        board.last_seq += posts.len() as u64;
        state.is_changed = true;
        state.last = Some(LastWrite {
            token: permission.token,
            worker: Some(permission.worker),
            batch: Some(batch),
        });
        let results = (before.last_seq + 1..=board.last_seq).map(|seq| TaskResult::Committed {
            seq: Seq(seq),
            posted_at_ms: before.last_posted_at_ms,
        });
        let answer = Ok(OpReply::Written(results.collect()));
        self.passed.push(Passed { permission, board: before, posts });
        Ok(Some(answer))
    }

    /// Writes what passed and commits; without any it commits what the transaction did beside it.
    pub(super) async fn commit(&self, tx: Tx<'_>) -> Outcome<()> {
        if self.passed.is_empty() {
            return tx.commit(Manner::InTurn).await;
        }
        let token = |of: fn(&Token) -> u64| -> Vec<i64> {
            self.passed.iter().map(|batch| int(of(&batch.permission.token))).collect()
        };
        let of_batch =
            |of: fn(&Passed<'_>) -> i64| -> Vec<i64> { self.passed.iter().map(of).collect() };
        let resource = |batch: &Passed<'_>| batch.permission.resource.to_string();
        let resources: Vec<_> = self.passed.iter().map(resource).collect();
        let boards = of_batch(|batch| batch.board.number);
        let (epochs, leases, ns) = (token(|it| it.epoch.0), token(|it| it.lease), token(|it| it.n));
        let workers: Vec<_> = self.passed.iter().map(|it| &it.permission.worker.0[..]).collect();
        let rows = of_batch(|batch| int(batch.posts.len() as u64));
        let posted_at = of_batch(|batch| int(batch.board.last_posted_at_ms));

        let (mut nths, mut seqs, mut authors) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ids, mut names, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for (nth, batch) in (1_i32..).zip(&self.passed) {
            for (seq, post) in (batch.board.last_seq + 1..).zip(&batch.posts) {
                nths.push(nth);
                seqs.push(int(seq));
                authors.push(&post.author.id.0[..]);
                ids.push(&post.id.0[..]);
                names.push(post.author.name.as_str());
                texts.push(post.text.as_str());
            }
        }

        let mut ends = Ends::default();
        for state in self.states.values().filter(|state| state.is_changed) {
            let (Some(last), Some(board)) = (&state.last, &state.board) else { continue };
            ends.resources.push(&state.resource);
            ends.boards.push(board.number);
            ends.last_seqs.push(int(board.last_seq));
            ends.last_posted_at.push(int(board.last_posted_at_ms));
            ends.ns.push(int(last.token.n));
            ends.workers.push(last.worker.as_ref().map(|worker| &worker.0[..]));
            ends.batches.push(last.batch.as_ref().map(|batch| &batch[..]));
        }
        let values: [&(dyn ToSql + Sync); 22] = [
            &resources,
            &boards,
            &epochs,
            &leases,
            &ns,
            &workers,
            &rows,
            &posted_at,
            &nths,
            &seqs,
            &authors,
            &ids,
            &names,
            &texts,
            &ends.resources,
            &ends.boards,
            &ends.last_seqs,
            &ends.last_posted_at,
            &ends.ns,
            &ends.workers,
            &ends.batches,
            &int(tx.now_ms),
        ];
        tx.commit_with(APPEND, &values).await
    }
}

/// A batch cannot be decided about by a look at its board and lease.
#[derive(Debug)]
pub(super) struct NotDecided;

/// Places of boards and their leases after all batches, column by column.
#[derive(Default)]
struct Ends<'a> {
    resources: Vec<&'a str>,
    boards: Vec<i64>,
    last_seqs: Vec<i64>,
    last_posted_at: Vec<i64>,
    ns: Vec<i64>,
    workers: Vec<Option<&'a [u8]>>,
    batches: Vec<Option<&'a [u8]>>,
}
