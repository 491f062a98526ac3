//! Groups of batches that share a transaction, and how long it may become.
//!
//! 1. A transaction that takes longer than `store_timeout` is undone, and its batches come again as they
//!    were. So a group has a bound in statements that follow each other, as it has one in bytes.
//! 2. New posts take a few round trips, however many batches they are of, and count nothing. A group
//!    that has to be written batch by batch is divided if it is too long for that.
//! 3. At most one batch of a group is of sessions.

use super::queue::JobReceiver;
use crate::{
    model::{ids::Resource, message::Task},
    store::{
        batch::Batch,
        job::{GROUP_BYTES_MAX, Job},
    },
};

/// Maximum number of statements that follow each other in one transaction, by estimate, unless one
/// batch has more: at 3 ms each they fit into the usual time-out.
pub(super) const STATEMENTS_MAX: usize = 200;

/// Returns about how many statements a batch takes at most that is not appended, without those that end
/// sessions of people who have too many.
pub(super) fn statements(tasks: &[Task]) -> usize {
    // Of the fencing check, and of the record.
    let mut statements = 3;
    let mut is_run = false;
    for task in tasks {
        statements += match task {
            // A run of posts takes as many as one.
            Task::Post { .. } if is_run => 0,
            Task::Post { .. } => 5,
            Task::CreateBoard { .. } => 3,
            Task::CancelPost { .. } | Task::PutTicket { .. } => 4,
            Task::OpenSession { .. } | Task::SetReadMark { .. } => 6,
            Task::CloseSession { .. } => 8,
            Task::RedeemTicket { .. } => 10,
        };
        is_run = matches!(task, Task::Post { .. });
    }
    statements
}

/// Size of a batch, or of a group.
#[derive(Clone, Copy)]
struct Size {
    bytes: usize,
    /// Statements beside an append.
    statements: usize,
    has_sessions: bool,
}

impl Size {
    /// Returns the size of a batch; `None` for any other operation.
    fn of(job: &Job) -> Option<Self> {
        let Batch { permission, tasks, .. } = Batch::of(&job.op)?;
        let is_posts = tasks.iter().all(|task| matches!(task, Task::Post { .. }));
        Some(Self {
            bytes: job.task_bytes()?,
            statements: if is_posts { 0 } else { statements(tasks) },
            has_sessions: matches!(permission.resource, Resource::Sessions(_)),
        })
    }

    /// Returns the size of both, if they may share a transaction.
    fn and(self, more: Self) -> Option<Self> {
        let both = Self {
            bytes: self.bytes + more.bytes,
            statements: self.statements + more.statements,
            has_sessions: self.has_sessions || more.has_sessions,
        };
        let is_fit = both.statements <= STATEMENTS_MAX && !(self.has_sessions && more.has_sessions);
        is_fit.then_some(both)
    }
}

/// Adds the batches that wait behind a batch, up to the bounds. Returns the operation that ended the
/// group, which is carried out next.
pub(super) fn gather(group: &mut Vec<Job>, queue: &JobReceiver, batches_max: usize) -> Option<Job> {
    let mut size = Size::of(group.first()?)?;
    while group.len() < batches_max && size.bytes < GROUP_BYTES_MAX {
        let job = queue.try_next()?;
        let Some(both) = Size::of(&job).and_then(|more| size.and(more)) else { return Some(job) };
        size = both;
        group.push(job);
    }
    None
}

/// Divides a group of which nothing was written into smaller ones, in order: parts that can be written
/// batch by batch, or single batches if it is no longer than such a part.
pub(super) fn divide(group: Vec<Job>) -> Vec<Vec<Job>> {
    let length = |job: &Job| Batch::of(&job.op).map_or(0, |batch| statements(batch.tasks));
    let is_long = group.iter().map(length).sum::<usize>() > STATEMENTS_MAX;
    let mut parts: Vec<Vec<Job>> = Vec::new();
    let mut statements = 0;
    for job in group {
        let more = length(&job);
        statements += more;
        match parts.last_mut() {
            Some(part) if is_long && statements <= STATEMENTS_MAX => part.push(job),
            _ => {
                statements = more;
                parts.push(vec![job]);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::{super::queue::queue, *};
    use crate::{
        model::{
            ids::{Author, BoardName, NodeId, PostId, Seq, SessionKey, Token, UserId},
            rows::{NewPost, Permission},
        },
        store::{Op, job::GROUP_BATCHES_MAX},
    };

    fn batch(resource: Resource, tasks: Vec<Task>) -> Op {
        let (token, worker) = (Token::default(), NodeId([9; 16]));
        let permission = Permission { resource, token, after: None, worker };
        Op::Write { permission, tasks: Arc::new(tasks), known: Seq::default() }
    }

    fn board(n: usize) -> BoardName {
        format!("board-{n}").parse().expect("a name")
    }

    /// Batch of three posts to a board.
    fn posts(n: usize) -> Op {
        let author = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
        let post = NewPost { id: PostId([1; 16]), author, text: "x".parse().expect("a text") };
        batch(Resource::Board(board(n)), vec![Task::Post { board: board(n), post }; 3])
    }

    fn creation(n: usize) -> Op {
        batch(Resource::Board(board(n)), vec![Task::CreateBoard { board: board(n) }])
    }

    fn redemptions(tasks: usize) -> Op {
        let task = Task::RedeemTicket { ticket_sha256: [1; 32], key: SessionKey([1; 32]) };
        batch(Resource::Sessions(NodeId([1; 16])), vec![task; tasks])
    }

    /// Sizes of the groups in which operations that wait are carried out.
    fn groups(ops: Vec<Op>) -> Vec<usize> {
        let (to, from) = queue();
        let mut callers = Vec::new();
        for op in ops {
            let (reply, answer) = oneshot::channel();
            to.send(Job { op, reply }).expect("room");
            callers.push(answer);
        }
        let (mut sizes, mut next) = (Vec::new(), None);
        while let Some(first) = next.take().or_else(|| from.try_next()) {
            let mut group = vec![first];
            next = gather(&mut group, &from, GROUP_BATCHES_MAX);
            sizes.push(group.len());
        }
        sizes
    }

    /// Sizes of the parts of a group.
    fn parts(ops: Vec<Op>) -> Vec<usize> {
        let job = |op| Job { op, reply: oneshot::channel().0 };
        divide(ops.into_iter().map(job).collect()).iter().map(Vec::len).collect()
    }

    #[test]
    fn posts_share_a_transaction_however_many_boards_they_are_of() {
        assert_eq!(groups((0..70).map(posts).collect()), [64, 6]);
        assert_eq!(groups(vec![posts(1), posts(2), Op::Boards, posts(3)]), [2, 1, 1]);
    }

    #[test]
    fn two_batches_of_sessions_share_no_transaction() {
        let ops =
            vec![redemptions(16), posts(1), redemptions(1), redemptions(1), posts(2), posts(3)];
        assert_eq!(groups(ops), [2, 1, 3]);
    }

    #[test]
    fn group_is_bounded_by_its_statements() {
        assert_eq!(groups((0..40).map(creation).collect()), [33, 7]);
        assert_eq!(groups(vec![redemptions(16), creation(1), posts(1)]), [3]);
        assert_eq!(groups(vec![redemptions(64), posts(1), posts(2)]), [1, 2], "it is long alone");
    }

    #[test]
    fn long_group_is_divided_into_parts_and_a_short_one_into_batches() {
        assert_eq!(parts((0..64).map(posts).collect()), [25, 25, 14]);
        assert_eq!(parts((0..25).map(posts).collect()), [1; 25]);
        assert_eq!(parts(vec![posts(1), redemptions(64), posts(2), posts(3)]), [1, 1, 2]);
    }
}
