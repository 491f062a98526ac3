//! Random operations against a model of one page: G1, G2, G4, G8.
//!
//! Two cores get the same operations, and must give the same answers.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    model::{
        ids::{PostId, Seq},
        rows::{NewPost, Page, Range},
    },
    store::batch,
};

/// Boards `b0` and `b1`, and the people of master 1.
const BOARDS: usize = 2;
const PEOPLE: usize = 2;

#[derive(Clone, Debug)]
enum Move {
    /// A master acquires a lease.
    Ask { resource: usize, master: u8 },
    /// The latest holder, or the one before it, writes a batch.
    Append { board: usize, earlier: bool, n: u64, worker: u8, posts: Vec<(u8, u8, u8)> },
    /// A person cancels a post.
    Cancel { n: u64, worker: u8, post: (u8, u8) },
    /// Time passes.
    Wait { ms: u64 },
}

fn moves() -> impl Strategy<Value = Move> {
    let post = (0..2_u8, 0..6_u8, 0..2_u8);
    prop_oneof![
        2 => (0..3_usize, 1..4_u8).prop_map(|(resource, master)| Move::Ask { resource, master }),
        8 => (0..BOARDS, prop::bool::weighted(0.1), 0..12_u64, 0..2_u8,
              prop::collection::vec(post, 1..4))
            .prop_map(|(board, earlier, n, worker, posts)| {
                Move::Append { board, earlier, n, worker, posts }
            }),
        2 => (0..12_u64, 0..2_u8, (0..2_u8, 0..6_u8))
            .prop_map(|(n, worker, post)| Move::Cancel { n, worker, post }),
        2 => (0..4000_u64).prop_map(|ms| Move::Wait { ms }),
    ]
}

/// Identity of a batch, as the fencing check remembers it: ids only.
type Batch = Vec<(u8, u8)>;

/// Lease in the model.
#[derive(Default)]
struct Held {
    lease: u64,
    n: u64,
    seen: Option<(u8, Batch)>,
    master: u8,
    ends_at_ms: u64,
}

impl Held {
    fn passes(&self, lease: u64, n: u64, worker: u8, batch: &Batch) -> bool {
        let same = || match &self.seen {
            None => false,
            Some((by, seen)) => *by == worker && seen == batch,
        };
        lease == self.lease && lease > 0 && (n > self.n || n == self.n && same())
    }

    fn pass(&mut self, n: u64, worker: u8, batch: &Batch) {
        if n > self.n {
            self.n = n;
            self.seen = Some((worker, batch.clone()));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    Cancelled,
    For { board: usize, seq: usize, text: u8 },
}

#[derive(Default)]
struct Model {
    held: [Held; 3],
    ids: BTreeMap<(u8, u8), Stands>,
    boards: [Vec<(u8, u8, u8)>; BOARDS],
}

/// Result of a post without its time.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Committed(u64),
    Duplicate(u64),
    Conflict,
    Cancelled,
}

impl Model {
    fn append(&mut self, board: usize, posts: &[(u8, u8, u8)]) -> Vec<Said> {
        let mut said = Vec::new();
        for (user, id, text) in posts {
            said.push(match self.ids.get(&(*user, *id)) {
                None => {
                    self.boards[board].push((*user, *id, *text));
                    let seq = self.boards[board].len();
                    self.ids.insert((*user, *id), Stands::For { board, seq, text: *text });
                    Said::Committed(seq as u64)
                }
                Some(Stands::Cancelled) => Said::Cancelled,
                Some(Stands::For { board: at, seq, text: was }) => {
                    if (*at, *was) == (board, *text) {
                        Said::Duplicate(*seq as u64)
                    } else {
                        Said::Conflict
                    }
                }
            });
        }
        said
    }
}

fn resource(nth: usize) -> Resource {
    match nth {
        PEOPLE => Resource::Sessions(MASTER),
        board => Resource::Board(format!("b{board}").parse().expect("a name")),
    }
}

fn user(n: u8) -> UserId {
    UserId([n; 16])
}

fn new_post((by, id, text): (u8, u8, u8)) -> NewPost {
    let name = "Ada".parse().expect("a name");
    let text = format!("text {text}").parse().expect("a text");
    NewPost { id: PostId([id; 16]), author: Author { id: user(by), name }, text }
}

/// Two cores that must always give the same answer.
struct Twins(SqliteCore, SqliteCore);

impl Twins {
    fn apply(&mut self, op: &Op, now_ms: u64) -> Result<OpReply, StoreError> {
        let (one, other) = (self.0.apply(op, now_ms), self.1.apply(op, now_ms));
        assert_eq!(one, other);
        one
    }
}

fn permission(nth: usize, lease: u64, n: u64, worker: u8) -> Permission {
    let token = Token { epoch: NEW.epoch, lease, n };
    Permission { resource: resource(nth), token, after: None, worker: NodeId([100 + worker; 16]) }
}

fn write(permission: Permission, tasks: Vec<Task>) -> Op {
    Op::Write { permission, tasks: Arc::new(tasks), known: Seq::default() }
}

fn run(moves: &[Move]) {
    let core = || SqliteCore::open_in_memory(&NEW).expect("a store in memory");
    let (mut twins, mut model, mut now_ms) = (Twins(core(), core()), Model::default(), START_MS);
    for board in 0..BOARDS {
        let op = Op::AcquireLease { resource: resource(board), holder: LIFE, ttl_ms: 3000 };
        twins.apply(&op, now_ms).expect("granted");
        let Resource::Board(name) = resource(board) else { panic!("a board") };
        let op = write(permission(board, 1, 1, 0), vec![Task::CreateBoard { board: name }]);
        assert_eq!(twins.apply(&op, now_ms), Ok(OpReply::Written(vec![TaskResult::Done])));
        let seen = Some((0, Vec::new()));
        model.held[board] = Held { lease: 1, n: 1, seen, master: 1, ends_at_ms: now_ms + 3000 };
    }
    for step in moves {
        match step {
            Move::Wait { ms } => now_ms += ms,
            Move::Ask { resource: nth, master } => {
                let holder = Holder { node: NodeId([*master; 16]), incarnation: Incarnation(1) };
                let op = Op::AcquireLease { resource: resource(*nth), holder, ttl_ms: 3000 };
                let granted = matches!(
                    twins.apply(&op, now_ms).expect("an answer"),
                    OpReply::Lease(Lease::Granted { .. })
                );
                let held = &mut model.held[*nth];
                let free = held.master == *master || held.ends_at_ms <= now_ms;
                assert_eq!(granted, free, "{step:?}");
                if granted {
                    let (lease, ends_at_ms) = (held.lease + 1, now_ms + 3000);
                    *held = Held { lease, master: *master, ends_at_ms, ..Held::default() };
                }
            }
            Move::Append { board, earlier, n, worker, posts } => {
                let lease = model.held[*board].lease.saturating_sub(u64::from(*earlier));
                let batch: Batch = posts.iter().map(|(user, id, _)| (*user, *id)).collect();
                let Resource::Board(name) = resource(*board) else { panic!("a board") };
                let task = |post| Task::Post { board: name.clone(), post: new_post(post) };
                let tasks = posts.iter().copied().map(task).collect();
                let op = write(permission(*board, lease, *n, *worker), tasks);
                let answer = twins.apply(&op, now_ms);
                if !model.held[*board].passes(lease, *n, *worker, &batch) {
                    assert!(matches!(answer, Err(StoreError::Fenced { .. })), "{step:?}");
                    continue;
                }
                model.held[*board].pass(*n, *worker, &batch);
                let Ok(OpReply::Written(answers)) = answer else { panic!("{step:?}: {answer:?}") };
                let said = answers.iter().map(|answer| match answer {
                    TaskResult::Committed { seq, .. } => Said::Committed(seq.0),
                    TaskResult::Duplicate { seq, .. } => Said::Duplicate(seq.0),
                    TaskResult::Conflict => Said::Conflict,
                    TaskResult::Cancelled => Said::Cancelled,
                    other => panic!("{step:?}: {other:?}"),
                });
                assert_eq!(said.collect::<Vec<_>>(), model.append(*board, posts), "{step:?}");
            }
            Move::Cancel { n, worker, post: (by, id) } => {
                let lease = model.held[PEOPLE].lease;
                let permission = permission(PEOPLE, lease, *n, *worker);
                let cancel = Task::CancelPost { user: user(*by), id: PostId([*id; 16]) };
                let answer = twins.apply(&write(permission, vec![cancel]), now_ms);
                let batch = vec![(*by, *id)];
                if !model.held[PEOPLE].passes(lease, *n, *worker, &batch) {
                    assert!(matches!(answer, Err(StoreError::Fenced { .. })), "{step:?}");
                    continue;
                }
                model.held[PEOPLE].pass(*n, *worker, &batch);
                let stands = *model.ids.entry((*by, *id)).or_insert(Stands::Cancelled);
                let Ok(OpReply::Written(results)) = answer else { panic!("{step:?}: {answer:?}") };
                match (&results[..], stands) {
                    ([TaskResult::Cancelled], Stands::Cancelled) => {}
                    ([TaskResult::AlreadyCommitted(post)], Stands::For { seq, .. }) => {
                        assert_eq!(post.seq, Seq(seq as u64));
                    }
                    (answer, _) => panic!("{step:?}: {answer:?}"),
                }
            }
        }
    }
    the_boards_are_the_models(&mut twins, &model, now_ms);
    tokens_never_go_back_and_name_one_worker(&mut twins, now_ms);
}

fn the_boards_are_the_models(twins: &mut Twins, model: &Model, now_ms: u64) {
    for (nth, want) in model.boards.iter().enumerate() {
        let Resource::Board(board) = resource(nth) else { panic!("a board") };
        let op = Op::Read { board, range: Range::After(Seq(0)), limit: 1000 };
        let Ok(OpReply::Page(Page { posts, last_seq, .. })) = twins.apply(&op, now_ms) else {
            panic!("no page")
        };
        assert_eq!(last_seq, Seq(want.len() as u64));
        let have: Vec<_> = posts.iter().map(|post| (post.seq.0, post.author.id, post.id)).collect();
        let want: Vec<_> =
            (1..).zip(want).map(|(seq, (by, id, _))| (seq, user(*by), PostId([*id; 16]))).collect();
        assert_eq!(have, want);
        assert!(posts.is_sorted_by_key(|post| post.posted_at_ms));
    }
}

fn tokens_never_go_back_and_name_one_worker(twins: &mut Twins, now_ms: u64) {
    let op = Op::Writes { after: 0, limit: 10_000 };
    let Ok(OpReply::Writes(rows)) = twins.apply(&op, now_ms) else { panic!("no record") };
    let mut newest: BTreeMap<Resource, (Token, NodeId)> = BTreeMap::new();
    for row in rows {
        if let Some((token, node)) = newest.get(&row.resource) {
            assert!(row.token >= *token, "{row:?} after {token}");
            assert!(row.token > *token || row.node == *node, "{row:?} after {node}");
        }
        newest.insert(row.resource, (row.token, row.node));
    }
}

/// The batch of a move, under lease 1.
fn batch_of(step: &Move) -> Option<(Permission, Vec<Task>)> {
    match step {
        Move::Append { board, n, worker, posts, .. } => {
            let Resource::Board(name) = resource(*board) else { panic!("a board") };
            let task = |post| Task::Post { board: name.clone(), post: new_post(post) };
            let tasks = posts.iter().copied().map(task).collect();
            Some((permission(*board, 1, *n, *worker), tasks))
        }
        Move::Cancel { n, worker, post: (by, id) } => {
            let cancel = Task::CancelPost { user: user(*by), id: PostId([*id; 16]) };
            Some((permission(PEOPLE, 1, *n, *worker), vec![cancel]))
        }
        Move::Ask { .. } | Move::Wait { .. } => None,
    }
}

/// Writes the same batches in groups to one store and one by one to another.
fn write_grouped_and_single(moves: &[Move], group: usize) {
    let core = || SqliteCore::open_in_memory(&NEW).expect("a store in memory");
    let mut twins = Twins(core(), core());
    for nth in 0..=PEOPLE {
        let op = Op::AcquireLease { resource: resource(nth), holder: LIFE, ttl_ms: 3000 };
        twins.apply(&op, START_MS).expect("granted");
        if let Resource::Board(board) = resource(nth) {
            let create = write(permission(nth, 1, 1, 0), vec![Task::CreateBoard { board }]);
            twins.apply(&create, START_MS).expect("created");
        }
    }
    let batches: Vec<_> = moves.iter().filter_map(batch_of).collect();
    let Twins(grouped, single) = &mut twins;
    for group in batches.chunks(group) {
        let refs: Vec<_> = group
            .iter()
            .map(|(permission, tasks)| batch::Batch { permission, tasks, known: Seq::default() })
            .collect();
        let answers = grouped.write_group(&refs, START_MS);
        let one_by_one: Vec<_> = group
            .iter()
            .map(|(by, tasks)| match single.apply(&write(by.clone(), tasks.clone()), START_MS) {
                Ok(OpReply::Written(results)) => Ok(results),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error),
            })
            .collect();
        assert_eq!(answers, one_by_one);
    }
    // The twins compare the records and the boards.
    twins.apply(&Op::Writes { after: 0, limit: 10_000 }, START_MS).expect("the record");
    twins.apply(&Op::Boards, START_MS).expect("boards");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn group_gives_the_same_answers_and_rows_as_single_writes(
        moves in prop::collection::vec(moves(), 1..40),
        group in 2..8_usize,
    ) {
        write_grouped_and_single(&moves, group);
    }

    #[test]
    fn store_agrees_with_the_model(moves in prop::collection::vec(moves(), 1..60)) {
        run(&moves);
    }
}
