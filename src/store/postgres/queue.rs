//! Queue of operations that wait for one or more connections.
//!
//! 1. Its places are for callers that still wait. One that gave up holds none, however long the
//!    connections hang.
//! 2. An operation that came first is taken first; one whose caller gave up is not taken at all.
//! 3. It ends with the store, and with the last of its receivers.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    model::{absence::AwayReason, rows::StoreError},
    store::job::{Job, WAITING_MAX},
};

/// Returns the two ends of a new queue.
pub(super) fn queue() -> (JobSender, JobReceiver) {
    let queue = Arc::new(Queue::default());
    (JobSender(Ending(Arc::clone(&queue))), JobReceiver(Arc::new(Ending(queue))))
}

/// Error of an operation whose queue has ended. Nothing was done.
pub(super) fn ended() -> StoreError {
    StoreError::away(AwayReason::Failing, "its connections have ended")
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    /// Wakes one receiver, which wakes the next one if there is more to take.
    changed: Notify,
    /// Wakes all who wait for the end alone.
    ended: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Number of receivers that carry an operation out on an open connection.
    serving: usize,
    has_ended: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a queue when it is dropped.
struct Ending(Arc<Queue>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.has_ended = true;
        // Their callers hear of it as their ways back are dropped.
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
        self.0.changed.notify_one();
        self.0.ended.notify_waiters();
    }
}

/// Callers' end of a queue.
pub(super) struct JobSender(Ending);

impl JobSender {
    /// Adds an operation.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if as many callers wait as there are places, and [`StoreError::Away`] once
    /// the queue has ended. Nothing was done.
    pub(super) fn send(&self, job: Job) -> Result<(), StoreError> {
        let Ending(queue) = &self.0;
        let mut state = queue.lock();
        if state.has_ended {
            return Err(ended());
        }
        if state.waiting.len() >= WAITING_MAX {
            state.waiting.retain(|job| !job.reply.is_closed());
        }
        if state.waiting.len() >= WAITING_MAX {
            return Err(StoreError::Busy);
        }
        state.waiting.push_back(job);
        drop(state);
        queue.changed.notify_one();
        Ok(())
    }
}

/// Connections' end of a queue; its clones share the operations.
#[derive(Clone)]
pub(super) struct JobReceiver(Arc<Ending>);

impl JobReceiver {
    fn queue(&self) -> &Queue {
        &self.0.0
    }

    /// Waits for the next operation whose caller still waits; `None` once the queue has ended. It may
    /// be dropped at any time without loss.
    pub(super) async fn next(&self) -> Option<Job> {
        let queue = self.queue();
        loop {
            if let Some(job) = self.try_next() {
                return Some(job);
            }
            if queue.lock().has_ended {
                // The other receivers have to hear of it, too.
                queue.changed.notify_one();
                return None;
            }
            queue.changed.notified().await;
        }
    }

    /// Waits until the queue has ended, and takes nothing.
    pub(super) async fn end(&self) {
        let queue = self.queue();
        // It hears of an end that comes after the look.
        let ended = queue.ended.notified();
        if !queue.lock().has_ended {
            ended.await;
        }
    }

    /// Takes the next operation whose caller still waits, if there is one.
    pub(super) fn try_next(&self) -> Option<Job> {
        let queue = self.queue();
        let mut state = queue.lock();
        while let Some(job) = state.waiting.pop_front() {
            if job.reply.is_closed() {
                continue;
            }
            let has_more = !state.waiting.is_empty();
            drop(state);
            if has_more {
                queue.changed.notify_one();
            }
            return Some(job);
        }
        None
    }

    /// Says until the guard is dropped that this receiver carries an operation out.
    pub(super) fn serving(&self) -> Serving<'_> {
        let queue = self.queue();
        queue.lock().serving += 1;
        Serving(queue)
    }

    /// Answers all operations that wait with the error of a connection that was not opened, unless
    /// another receiver has one and will take them. Nothing of them was done.
    pub(super) fn fail_waiting(&self, error: &StoreError) {
        let mut state = self.queue().lock();
        if state.serving > 0 {
            return;
        }
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        for job in waiting {
            let _ = job.reply.send(Err(error.clone()));
        }
    }

    /// Returns how many operations wait, those included whose callers gave up.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue().lock().waiting.len()
    }
}

/// Marks a receiver as one that carries an operation out, until it is dropped.
pub(super) struct Serving<'a>(&'a Queue);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.serving = state.serving.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;
    use crate::store::{Op, OpReply, job::Answer};

    /// Adds an operation that is told from others by a number.
    fn send(to: &JobSender, n: u64) -> Result<oneshot::Receiver<Answer>, StoreError> {
        let (reply, answer) = oneshot::channel();
        to.send(Job { op: Op::ClosedSince(n), reply })?;
        Ok(answer)
    }

    fn numbers(from: &JobReceiver) -> Vec<u64> {
        let number = |job: Job| match job.op {
            Op::ClosedSince(n) => n,
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| from.try_next().map(number)).collect()
    }

    #[test]
    fn callers_that_gave_up_hold_no_places_and_are_not_served() {
        let (to, from) = queue();
        for n in 0..3 * WAITING_MAX as u64 {
            drop(send(&to, n).expect("the others gave up"));
        }
        assert!(from.len() <= WAITING_MAX);
        let (one, two) = (send(&to, 1).expect("room"), send(&to, 2).expect("room"));
        assert_eq!(numbers(&from), [1, 2], "in the order in which they came");
        drop((one, two));
        assert_eq!(from.len(), 0);
    }

    #[test]
    fn queue_is_full_while_as_many_callers_wait_as_there_are_places() {
        let (to, _from) = queue();
        let waiting: Result<Vec<_>, _> = (0..WAITING_MAX as u64).map(|n| send(&to, n)).collect();
        let mut waiting = waiting.expect("room");
        assert_eq!(send(&to, 0).expect_err("full"), StoreError::Busy);
        drop(waiting.pop());
        let _last = send(&to, 0).expect("one gave up");
        assert_eq!(send(&to, 0).expect_err("full"), StoreError::Busy);
    }

    #[test]
    fn failure_to_connect_answers_all_unless_another_connection_serves_them() {
        let (to, from) = queue();
        let mut answers = [1, 2].map(|n| send(&to, n).expect("room"));
        let other = from.clone();
        let serving = other.serving();
        from.fail_waiting(&ended());
        assert_eq!(from.len(), 2, "the other one takes them");
        drop(serving);
        from.fail_waiting(&ended());
        assert_eq!(from.len(), 0);
        for answer in &mut answers {
            assert_eq!(answer.try_recv().expect("answered"), Err(ended()));
        }
    }

    #[test]
    fn each_of_two_receivers_is_woken_for_one_of_two_operations() {
        let (to, from) = queue();
        let other = from.clone();
        let mut answers = [1, 2].map(|n| send(&to, n).expect("room"));
        for from in [&from, &other] {
            let job = from.next().now_or_never().flatten().expect("one for each");
            job.reply.send(Ok(OpReply::Done)).expect("its caller waits");
        }
        for answer in &mut answers {
            assert_eq!(answer.try_recv().expect("answered"), Ok(OpReply::Done));
        }
        assert!(from.next().now_or_never().is_none(), "nothing is left");
    }

    #[test]
    fn queue_ends_with_the_store_and_with_its_last_receiver() {
        let (to, from) = queue();
        let other = from.clone();
        let mut end = std::pin::pin!(other.end());
        assert_eq!(end.as_mut().now_or_never(), None, "the store is there");
        drop(to);
        assert_eq!(end.now_or_never(), Some(()));
        for from in [&from, &other] {
            assert!(matches!(from.next().now_or_never(), Some(None)));
            assert_eq!(from.end().now_or_never(), Some(()));
        }

        let (to, from) = queue();
        let other = from.clone();
        drop(from);
        let mut answer = send(&to, 1).expect("one receiver is left");
        drop(other);
        let closed = oneshot::error::TryRecvError::Closed;
        assert_eq!(answer.try_recv().expect_err("nobody will"), closed);
        assert_eq!(send(&to, 2).expect_err("it has ended"), ended());
    }
}
