//! Group commit: batches of users' tasks that wait together are written in one transaction, behind
//! what a master lives by.

use super::SqliteCore;
pub use crate::store::job::{Answer, GROUP_BATCHES_MAX, Job};
use crate::{
    env::lanes::LaneReceiver,
    store::{Lane, OpReply, batch::Batch, job::GROUP_BYTES_MAX},
};

/// Receiving end of the lanes in front of a thread of the store.
pub type Jobs = LaneReceiver<Job, { Lane::COUNT }>;

/// Adds the batches that wait behind the first, up to the bounds. Returns the operation that ended
/// the group, which is carried out next: the order of a lane is kept. If something more urgent
/// came meanwhile, it takes the place of the first, which is returned.
pub fn gather(group: &mut Vec<Job>, jobs: &mut Jobs, batches_max: usize) -> Option<Job> {
    let first = group.first_mut()?;
    let lane = first.op.lane() as usize;
    if let Some(urgent) = jobs.try_recv_before(lane) {
        return Some(std::mem::replace(first, urgent));
    }
    let mut bytes = first.task_bytes()?;
    while group.len() < batches_max && bytes < GROUP_BYTES_MAX {
        let job = jobs.try_recv_of(lane)?;
        match job.task_bytes() {
            Some(more) => {
                bytes += more;
                group.push(job);
            }
            None => return Some(job),
        }
    }
    None
}

/// Carries out one operation, or a group of batches in one transaction; one answer each. A group of which
/// nobody is left is no transaction.
#[must_use]
pub fn carry_out(core: &mut SqliteCore, group: &[Job], now_ms: u64) -> Vec<Answer> {
    if group.is_empty() {
        return Vec::new();
    }
    if let [job] = group {
        return vec![core.apply(&job.op, now_ms)];
    }
    let batches: Vec<_> = group.iter().filter_map(|job| Batch::of(&job.op)).collect();
    debug_assert_eq!(batches.len(), group.len(), "a group is of batches only");
    let answers = core.write_group(&batches, now_ms);
    answers.into_iter().map(|answer| answer.map(OpReply::Written)).collect()
}
