//! Moves of a worker to another master while its own is alive.
//!
//! ```text
//!   own master's row stands still, another one's goes on  ──► move: it is cut from the store
//!   own master has the most workers, another one two less ──► the worker moves whose turn it is:
//!
//!   0 s    3 s          9 s     15 s            21 s    27 s
//!   stands │ highest id │ nobody │ second highest │ nobody │ ..   after the lowest id the highest again
//! ```
//!
//! 1. A reason has to stand for a while before the worker moves: what one reading shows may be old.
//! 2. Only the domain with the most workers gives one away, and its workers take turns, so that one
//!    moves at a time. One that cannot move lets its turn pass, and the next one has its own. When a
//!    worker comes or goes, the turns begin anew for all: each counts them by the same list.
//! 3. A worker moves in the first half of its turn. The other half is for those that read the rows a
//!    little earlier or later: a move shows to all before the next turn begins.
//! 4. After a move the next one waits, twice as long each time: a master that takes nobody in
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
/// Turn of a worker, at least.
const TURN_MIN: Duration = Duration::from_secs(12);

/// Returns the turn of each worker of a crowded master, where workers read the masters' rows at this
/// interval: each reads them in either half.
#[must_use]
pub fn turn(poll_interval: Duration) -> Duration {
    TURN_MIN.max(poll_interval.saturating_mul(4))
}

/// Reason for a move.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    /// The own master does not write to the store, and another one does.
    CutOff,
    /// Another master has two workers less, or more.
    Crowded {
        /// All workers of the own master, in the order of their turns.
        turns: Vec<NodeId>,
    },
}

/// Decision whether, when and where to move.
#[derive(Clone, Debug)]
pub(super) struct Moving {
    turn: Duration,
    reason: Option<(Reason, Mono)>,
    not_before: Mono,
    rest: Duration,
}

impl Moving {
    /// Creates the decision of a worker that reads the masters' rows at this interval.
    pub(super) fn new(poll_interval: Duration) -> Self {
        let (turn, rest) = (turn(poll_interval), Duration::ZERO);
        Self { turn, reason: None, not_before: Mono::ZERO, rest }
    }

    /// Returns the master to move to, by a fresh reading of the masters' rows. Call it after each.
    pub(super) fn on_rows(
        &mut self,
        now: Mono,
        (me, master): (NodeId, NodeId),
        watch: &MasterWatch,
        registry: &Registry,
    ) -> Option<NodeId> {
        let Some((reason, to)) = reason(master, watch, registry) else {
            self.reason = None;
            return None;
        };
        let since = match &self.reason {
            Some((known, since)) if *known == reason => *since,
            _ => now,
        };
        let is_due = is_due(me, now.since(since), &reason, self.turn);
        self.reason = Some((reason, since));
        if !is_due || now < self.not_before {
            return None;
        }
        let is_calm = now.since(self.not_before) >= CALM_AFTER;
        self.rest = if is_calm { REST_MIN } else { (self.rest * 2).clamp(REST_MIN, REST_MAX) };
        self.not_before = now + self.rest;
        self.reason = None;
        Some(to)
    }
}

/// Returns whether this worker may move, whose reason stands for so long.
fn is_due(me: NodeId, stands_for: Duration, reason: &Reason, turn: Duration) -> bool {
    let Some(passed) = stands_for.checked_sub(STANDS_FOR) else { return false };
    let Reason::Crowded { turns } = reason else { return true };
    let (passed, turn) = (passed.as_nanos(), turn.as_nanos());
    let place = passed / turn % turns.len().max(1) as u128;
    let has_turn = turns.iter().zip(0..).any(|(worker, at)| *worker == me && at == place);
    has_turn && passed % turn < turn / 2
}

/// Returns the reason for a move now, if there is one, and the emptiest master that writes.
fn reason(master: NodeId, watch: &MasterWatch, registry: &Registry) -> Option<(Reason, NodeId)> {
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
    if own < least + 2 || !is_fullest {
        return None;
    }
    let mut turns: Vec<_> = registry.workers_of(&master).copied().collect();
    turns.reverse();
    Some((Reason::Crowded { turns }, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_two_workers_that_read_a_little_apart_never_meet() {
        for poll in [1, 5, 15] {
            let turn = turn(Duration::from_secs(poll));
            let (half, round) = (turn.as_secs() / 2, 4 * turn.as_secs());
            let reason = Reason::Crowded { turns: (0..4).map(|n| NodeId([n; 16])).collect() };
            let due = |place: u8, second: u64| {
                is_due(NodeId([place; 16]), Duration::from_secs(second), &reason, turn)
            };
            for place in 0..4 {
                let seconds: Vec<_> = (0..2 * round).filter(|second| due(place, *second)).collect();
                assert!(seconds.len() as u64 >= half, "each has its turn: {seconds:?}");
                let near = |second: &u64| *second..=second + half;
                let is_due_to_others =
                    |second: u64| (0..4).any(|other| other != place && due(other, second));
                assert!(!seconds.iter().flat_map(near).any(is_due_to_others), "of {place}");
            }
        }
    }
}
