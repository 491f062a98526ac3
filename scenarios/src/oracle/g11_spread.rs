//! G11, even shares: in a quiet time the living masters come to have the same number of workers, but for
//! one, and the workers that move for it do so one at a time.
//!
//! 1. A master lives from its start until it ends or is drained. Who has which workers is told by the
//!    masters' own lines.
//! 2. A quiet time begins some time after the last fault that touched a node or the store. From then on
//!    each move that is needed has its time, once all workers have rested from moves before and the first
//!    of them has its turn.
//! 3. Runs in which a worker may have lost its identity are not judged: what is left of it still counts
//!    for the others.

use std::{collections::BTreeSet, time::Duration};

use chatchat::{
    config::Config,
    model::event::Event,
    protocol::worker::moving::{REST_MAX, REST_MIN, STANDS_FOR, turn},
};

use super::{
    EventLine, Evidence, Violation, broken,
    g11_flapping::{Move, moves},
    g11_one_master::Registered,
    seconds,
    troubles::AFTERMATH,
};
use crate::{fault::Kind, property::Property, target::Place};

/// Time that a move takes, from the line by which it is needed: the worker reads the rows, the reason
/// stands, and it is read again; then the worker finishes what it has and registers.
fn moves_within(config: &Config) -> Duration {
    STANDS_FOR + 2 * (config.store_poll_interval + config.store_timeout) + config.attempt_timeout
}

/// Numbers of workers of the living masters, from a time on.
struct Shares<'a> {
    from: Duration,
    workers: Vec<(Place, usize)>,
    /// Line that made them so; `None` for the end of a process.
    line: Option<&'a EventLine>,
}

impl Shares<'_> {
    fn are_even(&self) -> bool {
        let counts = || self.workers.iter().map(|(_, count)| *count);
        let (least, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
        most < least + 2
    }

    fn is_of_same_masters(&self, other: &Self) -> bool {
        let masters = |it: &Self| it.workers.iter().map(|(master, _)| *master).collect::<Vec<_>>();
        masters(self) == masters(other)
    }

    /// Returns the number of moves after which they are even, wherever those of all `workers` come that
    /// are with no master now.
    fn moves_left(&self, workers: usize) -> u32 {
        let mut counts: Vec<_> = self.workers.iter().map(|(_, count)| *count).collect();
        counts.sort_unstable_by(|one, other| other.cmp(one));
        let (all, masters) = (counts.iter().sum::<usize>(), counts.len().max(1));
        let fair = |nth: usize| all / masters + usize::from(nth < all % masters);
        let more = counts.iter().enumerate().map(|(nth, count)| count.saturating_sub(fair(nth)));
        let moves = more.sum::<usize>() + workers.saturating_sub(all);
        u32::try_from(moves).unwrap_or(u32::MAX)
    }
}

/// Walk through the lines of a run.
#[derive(Default)]
struct Walk<'a> {
    registered: Registered<'a>,
    living: BTreeSet<Place>,
    shares: Vec<Shares<'a>>,
}

impl<'a> Walk<'a> {
    /// Returns the shares through a run, in the order of time.
    fn through(evidence: &Evidence<'a>) -> Vec<Shares<'a>> {
        let mut walk = Self::default();
        let mut ends = evidence.ends.to_vec();
        ends.sort_unstable_by_key(|(_, at)| *at);
        let mut ends = ends.into_iter().peekable();
        for said in evidence.events {
            while let Some((place, at)) = ends.next_if(|(_, at)| *at < said.at) {
                walk.end(place, at);
            }
            walk.hear(said);
        }
        for (place, at) in ends {
            walk.end(place, at);
        }
        walk.shares
    }

    fn hear(&mut self, said: &'a EventLine) {
        let is_other = match (said.place(), &said.event) {
            (Some(master @ Place::Master(_)), Event::Start { .. }) => self.living.insert(master),
            (Some(master), Event::Drain { .. }) => self.living.remove(&master),
            _ => false,
        };
        if self.registered.take(said) || is_other {
            self.look(said.at, Some(said));
        }
    }

    fn end(&mut self, place: Place, at: Duration) {
        self.registered.forget(place);
        if self.living.remove(&place) {
            self.look(at, None);
        }
    }

    fn look(&mut self, from: Duration, line: Option<&'a EventLine>) {
        let share = |master: &Place| (*master, self.registered.workers_of(*master));
        let workers = self.living.iter().map(share).collect();
        self.shares.push(Shares { from, workers, line });
    }
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let quiet = quiet_times(evidence);
    if quiet.is_empty() {
        return Vec::new();
    }
    let (shares, moves) = (Walk::through(evidence), moves(evidence));
    let mut found = Vec::new();
    for time in quiet {
        found.extend(uneven(evidence, &shares, time));
        found.extend(together(&moves, time));
    }
    found
}

/// Returns the times in which each node is settled: the effects of faults are over.
fn quiet_times(evidence: &Evidence<'_>) -> Vec<(Duration, Duration)> {
    let cluster = &evidence.plan.cluster;
    let is_unclear = |kind: Option<Kind>| {
        matches!(kind, None | Some(Kind::Wipe | Kind::Rollback | Kind::Clone | Kind::Expel))
    };
    let mut drawn = evidence.incidents.iter().filter(|incident| !evidence.is_core(incident));
    // A directory without room for all counts those that it has.
    let is_small = cluster.config.directory_max < 2 * (cluster.masters + cluster.workers);
    if is_small || drawn.any(|incident| is_unclear(evidence.kind_of(incident))) {
        return Vec::new();
    }
    let places = (0..cluster.masters).map(Place::Master).chain([Place::Store]);
    let places: Vec<_> = places.chain((0..cluster.workers).map(Place::Worker)).collect();
    let faults = evidence.incidents.iter();
    let faults = faults.filter(|it| places.iter().any(|place| evidence.may_touch(it, *place)));
    let mut faults: Vec<_> = faults.map(|it| (it.from, evidence.end_of(it))).collect();
    faults.sort_unstable();
    let (mut times, mut from) = (Vec::new(), AFTERMATH);
    for (begin, end) in faults.into_iter().chain([(evidence.ended, evidence.ended)]) {
        if begin > from {
            times.push((from, begin));
        }
        from = from.max(end.saturating_add(AFTERMATH));
    }
    times
}

/// Judges whether the shares of the masters came to be even in a quiet time.
fn uneven(
    evidence: &Evidence<'_>,
    shares: &[Shares<'_>],
    (from, until): (Duration, Duration),
) -> Option<Violation> {
    let mut settled = from;
    let mut due: Option<Duration> = None;
    let mut before: Option<&Shares<'_>> = None;
    for (nth, now) in shares.iter().enumerate() {
        let end = shares.get(nth + 1).map_or(until, |next| next.from.min(until));
        if before.is_none_or(|before| !before.is_of_same_masters(now)) {
            settled = settled.max(now.from + AFTERMATH);
            due = None;
        }
        before = Some(now);
        let begin = now.from.max(settled);
        if now.are_even() {
            due = None;
        } else if begin < end {
            let due = *due.get_or_insert_with(|| due_from(evidence, now, begin));
            if end > due {
                let each =
                    now.workers.iter().map(|(master, count)| format!("{master} has {count}"));
                let each = each.collect::<Vec<_>>().join(", ");
                let text = format!("{each}, by {} they should be even", seconds(due));
                let clue = now.line.map(EventLine::clue);
                return Some(broken(Property::G11, "uneven", text, clue));
            }
        }
    }
    None
}

/// Returns the time by which shares that were not even at a time are.
fn due_from(evidence: &Evidence<'_>, shares: &Shares<'_>, at: Duration) -> Duration {
    let cluster = &evidence.plan.cluster;
    let each = moves_within(&cluster.config);
    let workers = (0..cluster.workers).map(Place::Worker);
    let rested = workers.map(|worker| rested(evidence, worker, at)).max().unwrap_or_default();
    // Nobody moves in the second half of a turn.
    let between = turn(cluster.config.store_poll_interval) / 2;
    at.max(rested) + between + each.saturating_mul(shares.moves_left(cluster.workers))
}

/// Returns the time from which a worker may move again, if all that it did by a time but its first
/// registration were moves.
fn rested(evidence: &Evidence<'_>, worker: Place, at: Duration) -> Duration {
    let born = evidence.deaths(worker).filter(|died| *died <= at).max().unwrap_or_default();
    let name = worker.to_string();
    let lines = evidence.events.iter().filter(|said| said.node == name);
    let joins = lines.filter(|said| matches!(said.event, Event::Join { .. }));
    let joins: Vec<_> = joins.map(|said| said.at).filter(|it| (born..=at).contains(it)).collect();
    let Some((last, before)) = joins.split_last() else { return Duration::ZERO };
    let rest = before.iter().fold(Duration::ZERO, |rest, _| (rest * 2).clamp(REST_MIN, REST_MAX));
    *last + rest
}

/// Judges whether two workers left a master together in a quiet time: when one leaves, the others
/// count their turns from then, and nobody's begins before [`STANDS_FOR`] has passed.
fn together(moves: &[Move<'_>], (from, until): (Duration, Duration)) -> Option<Violation> {
    let mut quiet = moves.iter().filter(|it| it.left.at >= from && it.left.at < until);
    let mut before: Vec<&Move<'_>> = Vec::new();
    let (one, other) = quiet.find_map(|it| {
        before.retain(|one| it.left.at - one.left.at < STANDS_FOR / 2);
        let mut near = before.iter().copied();
        let one = near.find(|one| one.left.node == it.left.node && one.worker != it.worker);
        before.push(it);
        one.map(|one| (one, it))
    })?;
    let (master, at) = (&one.left.node, seconds(other.left.at));
    let text = format!("{} and {} left {master} together at {at}", one.worker, other.worker);
    Some(broken(Property::G11, "together", text, [one.left.clue(), other.left.clue()]))
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::{Incarnation, Registration};

    use super::*;
    use crate::oracle::fixtures::{Fixture, node};

    type Faults<'a> = &'a [(&'a str, &'a str, u64, u64)];

    fn starts(made: &mut Fixture, at: u64, master: usize) {
        made.said(at, &format!("master:{master}"), Event::Start { incarnation: Incarnation(at) });
    }

    /// Has a worker come to a master under a number.
    fn joins(made: &mut Fixture, at: u64, worker: usize, master: usize, number: u64) {
        let (registration, of) = (Registration(number), node(8 + master as u8));
        let join = Event::Join { node: node(worker as u8), registration, master: of };
        made.said(at, &format!("master:{master}"), join.clone());
        made.said(at, &format!("worker:{worker}"), join);
    }

    /// Has a worker go from the first master to the second of its own accord.
    fn moves_over(made: &mut Fixture, at: u64, worker: usize) {
        let leave = Event::Leave { node: node(worker as u8), registration: Registration(1) };
        made.said(at, "master:0", leave);
        joins(made, at + 100, worker, 1, 2);
    }

    /// Makes a run in which both workers are with the first master, and the second one starts at a time.
    fn both_at_one(faults: Faults<'_>, second: u64) -> Fixture {
        let mut made = Fixture::with_faults(faults);
        starts(&mut made, 500, 0);
        joins(&mut made, 1000, 0, 0, 1);
        joins(&mut made, 1000, 1, 0, 1);
        starts(&mut made, second, 1);
        made
    }

    #[test]
    fn shares_that_come_to_be_even_in_time_are_accepted() {
        for at in [5000, 16_000, 22_000] {
            let mut made = both_at_one(&[], 2000);
            moves_over(&mut made, at, 1);
            assert_eq!(made.judge(judge), [], "at {at}");
        }
        let mut alone = both_at_one(&[], 2000);
        alone.events.retain(|said| said.node != "master:1");
        assert_eq!(alone.judge(judge), [], "there is no other master");
    }

    #[test]
    fn shares_that_are_uneven_for_long_in_a_quiet_time_are_reported() {
        assert_eq!(both_at_one(&[], 2000).rules(judge), ["g11.uneven"]);
        let mut late = both_at_one(&[], 2000);
        moves_over(&mut late, 40_000, 1);
        assert_eq!(late.rules(judge), ["g11.uneven"]);
        let person = ("pause", "target = \"person:0\"", 20_000, 55_000);
        assert_eq!(both_at_one(&[person], 2000).rules(judge), ["g11.uneven"], "a reader");
        let crash = ("crash", "target = \"master:1\"", 10_000, 20_000);
        assert_eq!(both_at_one(&[crash], 21_000).rules(judge), ["g11.uneven"], "it came back");
    }

    #[test]
    fn nothing_is_expected_soon_after_a_fault_or_a_start_or_of_a_master_that_is_gone() {
        for target in ["master:0", "worker:0", "store"] {
            let target = format!("target = \"{target}\"");
            let pause = ("pause", target.as_str(), 18_000, 38_000);
            assert_eq!(both_at_one(&[pause], 2000).judge(judge), [], "{target}");
        }
        assert_eq!(both_at_one(&[], 40_000).judge(judge), [], "it just started");
        let mut drains = both_at_one(&[], 2000);
        drains.said(16_000, "master:1", Event::Drain { hands_over: true });
        assert_eq!(drains.judge(judge), []);
        let crash = ("crash", "target = \"master:1\"", 5000, 10_000);
        assert_eq!(both_at_one(&[crash], 2000).judge(judge), [], "it is not back");
        let wipe = ("wipe", "target = \"worker:1\"", 5000, 10_000);
        assert_eq!(both_at_one(&[wipe], 2000).judge(judge), [], "which worker is left");
    }

    #[test]
    fn worker_that_rests_from_moves_before_has_its_time() {
        let mut made = both_at_one(&[], 2000);
        for number in 2..=5 {
            joins(&mut made, 4000 + number, 1, 0, number);
        }
        assert_eq!(made.rules(judge), ["g11.uneven"], "it rested at 36 s");
        joins(&mut made, 5000, 1, 0, 6);
        assert_eq!(made.judge(judge), [], "it rests until 69 s");
    }

    #[test]
    fn workers_that_leave_a_master_together_are_reported() {
        let mut made = both_at_one(&[], 24_000);
        moves_over(&mut made, 40_000, 0);
        moves_over(&mut made, 40_500, 1);
        assert_eq!(made.rules(judge), ["g11.uneven", "g11.together"]);
        let mut made = both_at_one(&[], 30_000);
        moves_over(&mut made, 46_000, 0);
        moves_over(&mut made, 50_000, 1);
        assert_eq!(made.judge(judge), [], "one after the other");
        let stops = ("stop", "target = \"worker:1\"", 46_200, 46_550);
        let mut made = both_at_one(&[stops], 30_000);
        moves_over(&mut made, 46_000, 0);
        moves_over(&mut made, 46_500, 1);
        assert_eq!(made.judge(judge), [], "one of them ended");
    }
}
