//! Drain: a master that is to end sends its people and its work to the others first.
//!
//! ```text
//!   asked ─► streams end in batches, work is handed over ─► quiet ─► front end closes ─► leave
//! ```
//!
//! 1. Nobody new comes in, and `/readyz` says so; who is here is served to the end.
//! 2. The last master has nobody to hand over to: its streams end at once, no write is taken any
//!    more, and what waits is still done.
//! 3. While nothing can be written, at this master either, its people go to any other that is linked:
//!    service is weak there as it was here. Their posts that came here are held by workers.
//! 4. It takes at most `drain_timeout`.

use std::time::Duration;

use rand_chacha::rand_core::Rng;

use super::Driver;
use crate::{
    model::{event::Event, message::Task, stream::ByeReason, time::Mono},
    node::handle::{DrainError, MasterInfo},
};

/// Time between two batches of streams, more or less by a half of it.
const BATCH_INTERVAL: Duration = Duration::from_millis(100);
/// The least streams of one batch.
const BATCH_MIN: usize = 50;
/// Time without a request after which nobody is expected here any more.
const QUIET: Duration = Duration::from_secs(1);
/// Time for requests that were on their way when the front end closed.
const CLOSING: Duration = Duration::from_millis(200);

/// Time before the end of `drain_timeout` at which the front end closes even if people are here.
const FINISH: Duration = Duration::from_secs(1);

/// Progress of a drain.
pub(super) struct Drain {
    until: Mono,
    /// Whether there is another master to go to; found anew at each look.
    has_others: bool,
    batch: usize,
    batch_at: Mono,
    /// Time since when the front end takes no connection any more.
    closed_at: Option<Mono>,
}

impl Driver {
    /// Begins to drain; does nothing if that began before.
    ///
    /// # Errors
    /// [`DrainError`], unless `force`: nothing has begun.
    pub(super) fn drain(&mut self, force: bool) -> Result<(), DrainError> {
        if self.drain.is_some() {
            return Ok(());
        }
        let now = self.env.now();
        let others = self.other_masters();
        if !force {
            let goes_on = |master: &&MasterInfo| self.core.peer_goes_on(&master.id);
            let writes = |master: &MasterInfo| self.core.peer_can_write(&master.id) == Some(true);
            let has_others = others.iter().any(|master| goes_on(&master));
            let has_successor = others.iter().filter(goes_on).any(writes);
            may_drain(has_successor, self.core.can_write(now), has_others)?;
        }
        let until = now + self.config.drain_timeout;
        let has_others = !others.is_empty();
        let streams = self.streams.table.len();
        // In half of the time that there is.
        let batches = self.config.drain_timeout.as_millis() / BATCH_INTERVAL.as_millis() / 2;
        let batches = usize::try_from(batches).unwrap_or(usize::MAX).max(1);
        let batch = streams.div_ceil(batches).max(BATCH_MIN);
        tracing::info!(streams, has_others, "this master is being drained");
        self.env.event(&Event::Drain { hands_over: has_others });
        self.drain = Some(Drain { until, has_others, batch, batch_at: now, closed_at: None });
        self.signal.begin();
        self.poll.touch_now(now);
        self.core.drain(now, &mut self.out);
        Ok(())
    }

    /// Ends the next batch of streams. Returns whether it is time to leave.
    pub(super) fn go_on_draining(&mut self, now: Mono) -> bool {
        let has_others = !self.other_masters().is_empty();
        let Some(drain) = &mut self.drain else { return false };
        drain.has_others = has_others;
        if (now >= drain.batch_at || !has_others) && !self.streams.table.is_empty() {
            self.end_batch(now);
        }
        let is_done = self.streams.table.is_empty()
            && self.core.is_empty()
            && self.waiters.is_empty()
            && self.reads.is_idle()
            && self.people.marks.is_empty()
            && self.people.sessions.is_idle();
        let Some(drain) = &mut self.drain else { return false };
        let is_quiet = is_done && (now >= self.served_at + QUIET || !has_others);
        if drain.closed_at.is_none() && (is_quiet || now >= drain.until - FINISH) {
            drain.closed_at = Some(now);
            self.signal.close();
        }
        let is_over = is_done && drain.closed_at.is_some_and(|at| now >= at + CLOSING);
        if is_over && has_others {
            self.env.sometimes("a master handed over all that it had");
        }
        is_over || now >= drain.until
    }

    /// Sends the readers of some streams elsewhere, each batch to all other masters in turn.
    fn end_batch(&mut self, now: Mono) {
        let mut others = self.other_masters();
        let share = f64::from(self.env.rng("drain").next_u32()) / f64::from(u32::MAX);
        let Some(drain) = &mut self.drain else { return };
        drain.batch_at = now + pause(share);
        self.served_at = now;
        let batch = if drain.has_others { drain.batch } else { usize::MAX };
        for id in self.streams.table.ids().into_iter().take(batch) {
            self.streams.end_with_bye(id, ByeReason::Draining, &others);
            if !others.is_empty() {
                others.rotate_left(1);
            }
        }
    }

    /// Returns the masters that are in and not being drained, without this one.
    pub(super) fn other_masters(&self) -> Vec<MasterInfo> {
        let me = self.me.info.id;
        // Of one that is being drained the store may not have told yet.
        let goes_on = |master: &&MasterInfo| master.id != me && !self.core.peer_drains(&master.id);
        self.poll.masters().iter().filter(goes_on).cloned().collect()
    }

    /// When [`Driver::go_on_draining`] is to be called next.
    pub(super) fn next_of_drain(&self) -> Option<Mono> {
        let drain = self.drain.as_ref()?;
        let now = self.env.now();
        let batch_at = (!self.streams.table.is_empty()).then_some(drain.batch_at);
        // What waits for work to end is looked at when it does.
        let times = match drain.closed_at {
            None => [self.served_at + QUIET, drain.until - FINISH],
            Some(closed_at) => [closed_at + CLOSING, drain.until],
        };
        let ahead = times.into_iter().filter(|at| *at > now);
        ahead.chain(batch_at).min().or(Some(drain.until))
    }

    /// Whether a task is refused because this master is to end.
    pub(super) fn refuses(&self, task: &Task) -> bool {
        let Some(drain) = &self.drain else { return false };
        let is_newcomer = matches!(task, Task::OpenSession { .. } | Task::RedeemTicket { .. });
        is_newcomer || !drain.has_others
    }
}

/// Returns the time until the next batch: `share`, from 0 to 1, of what it may be.
fn pause(share: f64) -> Duration {
    BATCH_INTERVAL / 2 + BATCH_INTERVAL.mul_f64(share)
}

/// Checks that people and work have somewhere to go: a linked master that can have things written or, when
/// this one cannot either, any that is linked and goes on.
const fn may_drain(
    has_successor: bool,
    can_write: bool,
    has_others: bool,
) -> Result<(), DrainError> {
    match (has_successor, can_write, has_others) {
        (true, _, _) | (_, false, true) => Ok(()),
        (false, true, true) => Err(DrainError::OnlyWriter),
        (false, _, false) => Err(DrainError::LastMaster),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_follow_each_other_by_half_to_one_and_a_half_of_the_interval() {
        let pauses = [0.0, 0.5, 1.0].map(|share| pause(share).as_millis());
        assert_eq!(pauses, [50, 100, 150]);
    }

    #[test]
    fn master_goes_when_another_can_go_on_as_well_as_itself() {
        let (only_writer, last) = (Err(DrainError::OnlyWriter), Err(DrainError::LastMaster));
        for (has_successor, can_write, has_others, may) in [
            (true, true, true, Ok(())),
            (true, false, true, Ok(())),
            // The store is away for all of them.
            (false, false, true, Ok(())),
            // The other one has no worker.
            (false, true, true, only_writer),
            (false, true, false, last),
            (false, false, false, last),
        ] {
            let said = may_drain(has_successor, can_write, has_others);
            assert_eq!(said, may, "{has_successor} {can_write} {has_others}");
        }
    }
}
