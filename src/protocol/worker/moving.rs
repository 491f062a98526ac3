//! Moves of a worker to another master while its own is alive.
//!
//! ```text
//!   own master's row stands still, another one's goes on  ──► move: it is cut from the store
//!   own master has the most workers, another one two less ──► the worker of highest id moves
//! ```
//!
//! 1. A reason has to stand for a while before the worker moves: what one reading shows may be old.
//! 2. Only the domain with the most workers gives one away, so that one worker moves at a time.
//! 3. After a move the next one waits, twice as long each time: a master that takes nobody in
//!    costs its neighbours little.

use std::time::Duration;

use crate::{
    model::{ids::NodeId, time::Mono},
    protocol::{master_watch::MasterWatch, registry::Registry},
};

/// Time for which a reason has to stand.
pub const STANDS_FOR: Duration = Duration::from_secs(3);
/// Wait between two moves, at least.
pub const REST_MIN: Duration = Duration::from_secs(4);
/// Wait between two moves, at most.
pub const REST_MAX: Duration = Duration::from_secs(600);
/// Time without a move after which the wait is short again.
pub const CALM_AFTER: Duration = Duration::from_secs(1200);

/// Reason for a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// The own master does not write to the store, and another one does.
    CutOff,
    /// Another master has two workers less, or more.
    Crowded,
}

/// Decision whether, when and where to move.
#[derive(Clone, Debug, Default)]
pub(super) struct Moving {
    reason: Option<(Reason, Mono)>,
    not_before: Mono,
    rest: Duration,
}

impl Moving {
    /// Returns the master to move to, by a fresh reading of the masters' rows. Call it after each.
    pub(super) fn on_rows(
        &mut self,
        now: Mono,
        (me, master): (NodeId, NodeId),
        watch: &MasterWatch,
        registry: &Registry,
    ) -> Option<NodeId> {
        let Some((reason, to)) = reason(me, master, watch, registry) else {
            self.reason = None;
            return None;
        };
        let since = match self.reason {
            Some((known, since)) if known == reason => since,
            _ => now,
        };
        self.reason = Some((reason, since));
        if now.since(since) < STANDS_FOR || now < self.not_before {
            return None;
        }
        let is_calm = now.since(self.not_before) >= CALM_AFTER;
        self.rest = if is_calm { REST_MIN } else { (self.rest * 2).clamp(REST_MIN, REST_MAX) };
        self.not_before = now + self.rest;
        self.reason = None;
        Some(to)
    }
}

/// Returns the reason for a move now, if there is one, and the emptiest master that writes.
fn reason(
    me: NodeId,
    master: NodeId,
    watch: &MasterWatch,
    registry: &Registry,
) -> Option<(Reason, NodeId)> {
    let others = watch.rows().filter(|(row, is_in)| {
        *is_in && !row.draining && row.node != master && watch.is_fresh(&row.node)
    });
    let workers = |master: &NodeId| registry.workers_of(master).count();
    let counted = others.map(|(row, _)| (workers(&row.node), row.node));
    let counted: Vec<_> = counted.collect();
    let (least, to) = counted.iter().min().copied()?;
    watch.get(&master)?;
    if !watch.is_in(&master) {
        return Some((Reason::CutOff, to));
    }
    let own = workers(&master);
    let is_fullest = counted.iter().all(|other| *other < (own, master));
    let is_last = registry.workers_of(&master).last() == Some(&me);
    (own >= least + 2 && is_fullest && is_last).then_some((Reason::Crowded, to))
}
