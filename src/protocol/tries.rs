//! Failed tries of a task, and the step that follows one.
//!
//! 1. One registration of a worker gets at most `per_worker` tries; then the worker has failed.
//! 2. A batch that two workers failed is split, and its tasks begin again, each alone.
//! 3. After `max` tries in all a single task is given up.

use std::time::Duration;

use crate::model::ids::{NodeId, Registration};

/// A worker under one of its registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assignee {
    /// The worker.
    pub node: NodeId,
    /// Its registration.
    pub registration: Registration,
}

/// Bounds on the tries of a batch.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Most tries on one registration of a worker.
    pub per_worker: u32,
    /// Most tries in all.
    pub max: u32,
    /// Wait between two tries on the same worker.
    pub backoff: Duration,
}

/// Next step after a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try the same worker again after the backoff, with the same token.
    Retry,
    /// The worker has failed: assign another one, with a higher token.
    Reassign,
    /// A second worker has failed: queue each task alone.
    Split,
    /// The worker has failed and no tries are left: make the task a dead letter.
    GiveUp,
}

/// Tries that failed. They stay with a task when it goes back to the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailedTries {
    /// Failed tries by registration; at most `max` entries.
    tries: Vec<(Assignee, u32)>,
    /// Workers that failed.
    workers: u32,
}

impl FailedTries {
    /// Returns the number of failed tries.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.tries.iter().map(|(_, tries)| tries).sum()
    }

    /// Counts a failed try of so many tasks: the worker did not answer, or is gone (`lost`).
    pub fn add(&mut self, policy: RetryPolicy, on: Assignee, lost: bool, tasks: usize) -> Next {
        let at = self.tries.iter().position(|(assignee, _)| *assignee == on).unwrap_or_else(|| {
            self.tries.push((on, 0));
            self.tries.len() - 1
        });
        let (_, here) = &mut self.tries[at];
        *here += 1;
        let here = *here;
        let has_tries = self.total() < policy.max;
        if !lost && here < policy.per_worker && has_tries {
            return Next::Retry;
        }
        self.workers += 1;
        match (tasks > 1, has_tries) {
            (true, false) => Next::Split,
            (true, true) if self.workers > 1 => Next::Split,
            (_, true) => Next::Reassign,
            (false, false) => Next::GiveUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy =
        RetryPolicy { per_worker: 2, max: 4, backoff: Duration::from_millis(100) };

    /// Fails one try after another on workers `on`; returns each next step.
    fn steps(on: &[u8], lost: bool, tasks: usize) -> Vec<Next> {
        let mut failed = FailedTries::default();
        let assignee = |n: u8| Assignee { node: NodeId([n; 16]), registration: Registration(1) };
        on.iter().map(|n| failed.add(POLICY, assignee(*n), lost, tasks)).collect()
    }

    #[test]
    fn single_task_is_given_up_after_two_tries_on_each_of_two_workers() {
        use Next::{GiveUp, Reassign, Retry};
        assert_eq!(steps(&[1, 1, 2, 2], false, 1), [Retry, Reassign, Retry, GiveUp]);
    }

    #[test]
    fn batch_is_split_after_two_workers_failed_it() {
        use Next::{Reassign, Retry, Split};
        assert_eq!(steps(&[1, 1, 2, 2], false, 3), [Retry, Reassign, Retry, Split]);
    }

    #[test]
    fn lost_worker_gets_no_second_try() {
        use Next::{GiveUp, Reassign, Split};
        assert_eq!(steps(&[1, 2, 3, 4], true, 1), [Reassign, Reassign, Reassign, GiveUp]);
        assert_eq!(steps(&[1, 2], true, 2), [Reassign, Split]);
    }

    #[test]
    fn tries_on_a_worker_are_counted_across_tries_on_others() {
        use Next::{Reassign, Retry};
        assert_eq!(steps(&[1, 2, 1], false, 1), [Retry, Retry, Reassign]);
    }
}
