//! Moves of a worker to another master while its own is alive.
//!
//! ```text
//!   own master's row stands still, another one's goes on  ──► move: it is cut from the store
//!   own master has the most workers, another one two less ──► the worker moves whose turn it is:
//!
//!   0 s    3 s     9 s     15 s     21 s    27 s          since the list of workers changed
//!   nobody │ first │ nobody │ second │ nobody │ ..        after the last one the first again
//! ```
//!
//! 1. A reason has to stand for a while before the worker moves: what one reading shows may be old.
//! 2. Only the domain with the most workers gives one away, and its workers take turns, so that one
//!    moves at a time. One that cannot move lets its turn pass, and the next one has its own.
//! 3. All workers of a domain count the turns by the same list, its registrations, and from the
//!    moment at which it changed, which they learn within seconds of each other. What only one of
//!    them sees, such as a store that does not answer it, shifts no turn.
//! 4. A worker moves in the first half of its turn. The other half is for those that learnt of the
//!    list or read the rows a little earlier or later: a move shows to all before the next turn begins.
//! 5. The list decides who is first. So another one is when somebody comes back, and one that cannot
//!    move is in nobody's way for long.
//! 6. After a move the next one waits, twice as long each time: a master that takes nobody in
//!    costs its neighbours little.

use std::time::Duration;

use crate::{
    model::{
        ids::{NodeId, Registration},
        time::Mono,
    },
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// The own master does not write to the store, and another one does.
    CutOff,
    /// Another master has two workers less, or more.
    Crowded,
}

/// Turns of the workers of one master.
#[derive(Clone, Debug, Default)]
struct Turns {
    /// Workers with their registrations, the first turn first.
    workers: Vec<(NodeId, Registration)>,
    /// Time from which they are those.
    since: Mono,
}

impl Turns {
    /// Takes the workers of the own master as they are now.
    fn on_members(&mut self, now: Mono, master: &NodeId, registry: &Registry) {
        let facts = registry.facts_of_workers(master);
        let mut workers: Vec<_> = facts.map(|fact| (fact.node, fact.registration)).collect();
        workers.reverse();
        let sum = workers.iter().map(|(_, number)| number.0).fold(0, u64::wrapping_add);
        let first = usize::try_from(sum % workers.len().max(1) as u64).unwrap_or_default();
        workers.rotate_left(first);
        if workers != self.workers {
            *self = Self { workers, since: now };
        }
    }

    /// Returns whether it is the first half of this worker's turn.
    fn is_due(&self, now: Mono, me: NodeId, turn: Duration) -> bool {
        let Some(passed) = now.since(self.since).checked_sub(STANDS_FOR) else { return false };
        let (passed, turn) = (passed.as_nanos(), turn.as_nanos());
        let place = passed / turn % self.workers.len().max(1) as u128;
        let mine = self.workers.iter().position(|(worker, _)| *worker == me);
        mine.is_some_and(|mine| mine as u128 == place) && passed % turn < turn / 2
    }
}

/// Decision whether, when and where to move.
#[derive(Clone, Debug)]
pub(super) struct Moving {
    turn: Duration,
    turns: Turns,
    reason: Option<(Reason, Mono)>,
    not_before: Mono,
    rest: Duration,
}

impl Moving {
    /// Creates the decision of a worker that reads the masters' rows at this interval.
    pub(super) fn new(poll_interval: Duration) -> Self {
        let (turn, rest) = (turn(poll_interval), Duration::ZERO);
        Self { turn, turns: Turns::default(), reason: None, not_before: Mono::ZERO, rest }
    }

    /// Takes the directory after a change, while the worker is registered with this master.
    pub(super) fn on_members(&mut self, now: Mono, master: &NodeId, registry: &Registry) {
        self.turns.on_members(now, master, registry);
    }

    /// Forgets the reason: the worker registered, or could not read the rows.
    pub(super) const fn forget(&mut self) {
        self.reason = None;
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
        let since = match self.reason {
            Some((known, since)) if known == reason => since,
            _ => now,
        };
        self.reason = Some((reason, since));
        let has_turn = reason == Reason::CutOff || self.turns.is_due(now, me, self.turn);
        if !has_turn || now.since(since) < STANDS_FOR || now < self.not_before {
            return None;
        }
        let is_calm = now.since(self.not_before) >= CALM_AFTER;
        self.rest = if is_calm { REST_MIN } else { (self.rest * 2).clamp(REST_MIN, REST_MAX) };
        self.not_before = now + self.rest;
        Some(to)
    }
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
    Some((Reason::Crowded, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_two_workers_that_read_a_little_apart_never_meet() {
        for poll in [1, 5, 15] {
            let turn = turn(Duration::from_secs(poll));
            let (half, round) = (turn.as_secs() / 2, 4 * turn.as_secs());
            let workers = (0..4).map(|n| (NodeId([n; 16]), Registration(1))).collect();
            let turns = Turns { workers, since: Mono::ZERO };
            let due = |place: u8, second: u64| {
                turns.is_due(Mono::ZERO + Duration::from_secs(second), NodeId([place; 16]), turn)
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
