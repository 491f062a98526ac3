//! Operations on their way to a backend, and the bounds of a group of batches that share a
//! transaction.

use tokio::sync::oneshot;

use super::{Op, OpReply};
use crate::model::{message::Task, rows::StoreError};

/// Maximum number of operations of each lane that wait to be written, and of those that wait to be
/// read.
pub(super) const WAITING_MAX: usize = 1024;

/// Maximum number of batches in one transaction: bounds how long other processes wait.
pub const GROUP_BATCHES_MAX: usize = 64;

/// Bytes of tasks in one transaction, give or take one batch.
pub(super) const GROUP_BYTES_MAX: usize = 1024 * 1024;

/// Answer to an operation.
pub type Answer = Result<OpReply, StoreError>;

/// Operation on its way to a thread of the store.
#[derive(Debug)]
pub struct Job {
    /// Operation to carry out.
    pub op: Op,
    /// Way back to the caller.
    pub reply: oneshot::Sender<Answer>,
}

impl Job {
    /// Returns about how many bytes of users' tasks it writes; `None` for any other operation.
    pub(super) fn task_bytes(&self) -> Option<usize> {
        match &self.op {
            Op::Write { tasks, .. } => Some(tasks.iter().map(Task::weight).sum()),
            _ => None,
        }
    }
}
