//! Decisions about a batch of users' tasks, which every backend takes alike: its identity, the
//! fencing check, and what a rule's refusal means for the batch.

use sha2::{Digest, Sha256};

use super::{Op, own_ends::ends_early, refused};
use crate::model::{
    absence::AwayReason,
    ids::{BoardName, NodeId, Seq, Token},
    message::{BATCH_TASKS_MAX, Task},
    outcome::TaskResult,
    rows::{NewPost, Permission, StoreError},
};

/// Fencing state of a resource, as its row has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastWrite {
    pub(super) token: Token,
    pub(super) worker: Option<NodeId>,
    pub(super) batch: Option<[u8; 32]>,
}

/// Batch of users' tasks that is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Permission to write it.
    pub permission: &'a Permission,
    /// Its tasks, in order.
    pub tasks: &'a [Task],
    /// Last post of the board that the writer knows, 0 for none.
    pub known: Seq,
}

impl<'a> Batch<'a> {
    /// Returns the batch of an operation; `None` for any other one.
    pub(super) fn of(op: &'a Op) -> Option<Self> {
        match op {
            Op::Write { permission, tasks, known } => {
                Some(Self { permission, tasks, known: *known })
            }
            _ => None,
        }
    }
}

/// Refuses to write to a board that ends before what the writer knows of it: the store is an older
/// copy. Nothing may have been written yet.
pub(super) fn check_known(board: &BoardName, last: Seq, known: Seq) -> Result<(), StoreError> {
    if last >= known {
        return Ok(());
    }
    Err(StoreError::away(AwayReason::RolledBack, ends_early(board, last, known)))
}

/// Refuses a batch that is empty or too long.
pub(super) fn check_len(tasks: &[Task]) -> Result<(), StoreError> {
    if tasks.is_empty() || tasks.len() > BATCH_TASKS_MAX {
        return Err(refused(format!("a batch has 1 to {BATCH_TASKS_MAX} tasks")));
    }
    Ok(())
}

/// Passes or refuses a permission for this batch, and returns whether its `n` is to be noted with
/// its worker and batch. `last` is the state of the store's epoch: tokens of an earlier epoch are
/// never accepted.
pub(super) fn fence(
    last: Option<&LastWrite>,
    permission: &Permission,
    batch: [u8; 32],
) -> Result<bool, StoreError> {
    let token = permission.token;
    let current =
        last.is_some_and(|last| (token.epoch, token.lease) == (last.token.epoch, last.token.lease));
    let same = |last: &LastWrite| {
        token.n == last.token.n
            && last.worker == Some(permission.worker)
            && last.batch == Some(batch)
    };
    let last = match last {
        // A grant is seen as n = 0, so a write's n begins at 1.
        Some(last) if current && (token.n > last.token.n || same(last)) => last,
        last => {
            let seen = last.map_or_else(Token::default, |last| last.token);
            return Err(StoreError::Fenced { token, seen });
        }
    };
    if i64::try_from(token.n).is_err() {
        return Err(refused("no coordinator counts that far"));
    }
    if let Some(after) = permission.after
        && last.token.n != after
        && !same(last)
    {
        return Err(StoreError::NotNext { after, seen: last.token });
    }
    Ok(token.n > last.token.n)
}

/// Identity of a batch: a hash over its tasks' kinds and keys, in order. Texts and names are left
/// out: the rows of a key show whether they differ.
pub(super) fn batch_of(tasks: &[Task]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for task in tasks {
        match task {
            Task::Post { board, post } => {
                hash.update([0]);
                hash_name(&mut hash, board);
                hash.update(post.author.id.0);
                hash.update(post.id.0);
            }
            Task::CreateBoard { board } => {
                hash.update([1]);
                hash_name(&mut hash, board);
            }
            Task::CancelPost { user, id } => {
                hash.update([2]);
                hash.update(user.0);
                hash.update(id.0);
            }
            Task::OpenSession { key, user } => {
                hash.update([3]);
                hash.update(key.0);
                hash.update(user.id.0);
            }
            Task::CloseSession { key } => {
                hash.update([4]);
                hash.update(key.0);
            }
            Task::SetReadMark { key, board, seq } => {
                hash.update([5]);
                hash.update(key.0);
                hash_name(&mut hash, board);
                hash.update(seq.0.to_le_bytes());
            }
            Task::PutTicket { key, ticket_sha256 } => {
                hash.update([6]);
                hash.update(key.0);
                hash.update(ticket_sha256);
            }
            Task::RedeemTicket { ticket_sha256, key } => {
                hash.update([7]);
                hash.update(ticket_sha256);
                hash.update(key.0);
            }
        }
    }
    hash.finalize().into()
}

/// Hashes a name with its length before it, so that no two lists of fields hash alike.
fn hash_name(hash: &mut Sha256, board: &BoardName) {
    hash.update((board.as_str().len() as u64).to_le_bytes());
    hash.update(board.as_str());
}

/// Results of a batch so far, and the rows that they made.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) results: Vec<TaskResult>,
    pub(super) rows: usize,
}

impl Written {
    /// Adds the outcome of one task. A rule's refusal is its result.
    ///
    /// # Errors
    /// The error, if it fails the whole batch.
    pub(super) fn add(
        &mut self,
        outcome: Result<(TaskResult, usize), StoreError>,
    ) -> Result<(), StoreError> {
        let (result, rows) = match outcome {
            Ok(done) => done,
            Err(error) => (refusal(error)?, 0),
        };
        self.results.push(result);
        self.rows += rows;
        Ok(())
    }
}

/// Turns a rule's refusal into a task's result; any other error fails the whole batch.
pub(super) fn refusal(error: StoreError) -> Result<TaskResult, StoreError> {
    match error {
        StoreError::Unknown { .. } | StoreError::Refused { .. } => {
            Ok(TaskResult::Refused(Box::new(error)))
        }
        StoreError::Away { .. }
        | StoreError::Busy
        | StoreError::Fenced { .. }
        | StoreError::NotNext { .. }
        | StoreError::Stale
        | StoreError::InUse { .. }
        | StoreError::Broken { .. } => Err(error),
    }
}

/// Returns the post of a task that posts to this board.
pub(super) fn post_of<'a>(task: &'a Task, covered: &BoardName) -> Option<&'a NewPost> {
    match task {
        Task::Post { board, post } if board == covered => Some(post),
        _ => None,
    }
}

/// Error of a task that the permission does not cover.
pub(super) fn not_covered(permission: &Permission) -> StoreError {
    refused(format!("not covered by the permission of {}", permission.resource))
}
