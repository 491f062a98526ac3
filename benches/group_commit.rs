//! Posts committed per second through the file store, with and without group commit.
//!
//! Each board writes batch after batch, as its coordinator does; all boards write at once. Two
//! stores on the same disk take turns: one lets batches that wait together share a transaction,
//! the other writes each by itself. The table gives medians of rounds, and the ratio of the two.

#![expect(clippy::disallowed_methods, reason = "a bench measures the wall clock")]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use chatchat::{
    env::{
        Env,
        real::{RealWorld, TempDir},
    },
    model::{
        ids::{Author, BoardName, Incarnation, NodeId, PostId, Resource, Token, UserId},
        message::Task,
        outcome::TaskResult,
        rows::{Holder, Lease, NewPost, Permission},
    },
    store::{
        Store,
        sqlite::file::{FileLimits, open_with},
    },
};
use tokio::runtime::Runtime;

const BOARDS: [usize; 3] = [1, 16, 256];
const BATCHES: [usize; 2] = [1, 16];
/// Batches in one round, over all boards.
const ROUND: usize = 1024;
/// Rounds of each row.
const ROUNDS: usize = 7;
const NODE: NodeId = NodeId([1; 16]);
/// Ordinary line of a chat.
const TEXT: &str = "an ordinary line of an ordinary evening, as long as such lines are";

/// One board with its lease, and the counters of its batches and posts.
struct Board {
    name: BoardName,
    token: Token,
    posts: u64,
}

impl Board {
    async fn made(store: &Store, number: usize) -> Self {
        let name: BoardName = format!("board-{number}").parse().expect("a board's name");
        let holder = Holder { node: NODE, incarnation: Incarnation(1) };
        let lease = store.acquire_lease(Resource::Board(name.clone()), holder, 60_000).await;
        let Ok(Lease::Granted { epoch, lease, .. }) = lease else { panic!("{lease:?}") };
        let mut board = Self { name: name.clone(), token: Token { epoch, lease, n: 0 }, posts: 0 };
        board.write(store, vec![Task::CreateBoard { board: name }]).await;
        board
    }

    async fn write(&mut self, store: &Store, tasks: Vec<Task>) {
        self.token.n += 1;
        let resource = Resource::Board(self.name.clone());
        let permission = Permission { resource, token: self.token, after: None, worker: NODE };
        let results = store.write(permission, Arc::new(tasks)).await.expect("written");
        let is_new =
            |result: &TaskResult| matches!(result, TaskResult::Committed { .. } | TaskResult::Done);
        assert!(results.iter().all(is_new), "{results:?}");
    }

    /// Writes batch after batch.
    async fn post(&mut self, store: &Store, batches: usize, batch: usize) {
        for _ in 0..batches {
            let tasks = (0..batch).map(|_| self.next()).collect();
            self.write(store, tasks).await;
        }
    }

    fn next(&mut self) -> Task {
        self.posts += 1;
        let mut user = [0; 16];
        let name = self.name.as_str().as_bytes();
        user[..name.len()].copy_from_slice(name);
        let mut id = [0; 16];
        // Spread over the table, as random ids are.
        let spread = self.posts.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        id[..8].copy_from_slice(&spread.to_be_bytes());
        let author = Author { id: UserId(user), name: "Ada".parse().expect("a name") };
        let text = TEXT.parse().expect("a text");
        Task::Post { board: self.name.clone(), post: NewPost { id: PostId(id), author, text } }
    }
}

/// A store and its boards.
struct Setup {
    store: Store,
    boards: Vec<Board>,
}

impl Setup {
    async fn new(env: &Env, path: &Path, group_batches_max: Option<usize>, boards: usize) -> Self {
        let mut limits = FileLimits::new(Duration::from_secs(30));
        limits.group_batches_max = group_batches_max.unwrap_or(limits.group_batches_max);
        let store = open_with(env, path, limits).expect("a store");
        let mut made = Vec::new();
        for number in 0..boards {
            made.push(Board::made(&store, number).await);
        }
        Self { store, boards: made }
    }

    /// Posts per second of one round.
    async fn round(&mut self, batch: usize) -> f64 {
        let each = ROUND / self.boards.len();
        let posts = each * self.boards.len() * batch;
        let started = Instant::now();
        let store = &self.store;
        let all = self.boards.iter_mut().map(|board| board.post(store, each, batch));
        futures_util::future::join_all(all).await;
        posts as f64 / started.elapsed().as_secs_f64()
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

async fn row(env: &Env, boards: usize, batch: usize) {
    let dir = TempDir::new().expect("a folder");
    let mut grouped = Setup::new(env, &dir.path().join("grouped.db"), None, boards).await;
    let mut single = Setup::new(env, &dir.path().join("single.db"), Some(1), boards).await;
    let (mut of_grouped, mut of_single, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let (with, without) = (grouped.round(batch).await, single.round(batch).await);
        of_grouped.push(with);
        of_single.push(without);
        ratios.push(with / without);
    }
    let (with, without, ratio) = (median(of_grouped), median(of_single), median(ratios));
    println!("{boards:6}  {batch:5}  {with:15.0}  {without:17.0}  {ratio:5.2}");
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let env = Env::new(RealWorld::temporary().expect("a folder"));
    println!("boards  batch  grouped posts/s  ungrouped posts/s  ratio");
    for boards in BOARDS {
        for batch in BATCHES {
            runtime.block_on(row(&env, boards, batch));
        }
    }
}
