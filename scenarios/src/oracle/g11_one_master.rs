//! G11, one master each: 15 s after the last fault's end every worker is registered with exactly
//! one live master, and it stays so while no fault touches it, a master or the store, or the lines
//! between them.

use std::{collections::BTreeMap, time::Duration};

use chatchat::model::{
    event::Event,
    ids::{NodeId, Registration, Role},
};

use super::{
    Clue, EventLine, Evidence, Violation, broken, g11_membership::SPREADS_WITHIN, seconds,
    troubles::AFTERMATH,
};
use crate::{plan::Incident, property::Property, target::Place};

/// Time for which a worker that no fault touches may be without a master, or with two: a search may
/// meet some that are gone.
const MOVES_WITHIN: Duration = Duration::from_secs(20);

/// Workers that a master has, by its own lines.
#[derive(Default)]
struct Members<'a>(BTreeMap<NodeId, (Registration, &'a EventLine)>);

/// Registrations by the nodes' lines up to a time.
#[derive(Default)]
pub(super) struct Registered<'a> {
    masters: BTreeMap<Place, Members<'a>>,
    /// Identity of each worker, and when it registered last. A wiped worker comes back under another
    /// id: the newest counts.
    identities: BTreeMap<Place, (NodeId, Duration)>,
}

impl<'a> Registered<'a> {
    /// Takes a line in. Returns whether it may have changed anything.
    pub(super) fn take(&mut self, said: &'a EventLine) -> bool {
        let place = said.place();
        if let Some(worker @ Place::Worker(_)) = place {
            let Event::Join { node, .. } = &said.event else { return false };
            self.identities.insert(worker, (*node, said.at));
            return true;
        }
        let Some(master @ Place::Master(_)) = place else { return false };
        let members = &mut self.masters.entry(master).or_default().0;
        match &said.event {
            Event::Start { .. } => members.clear(),
            Event::Join { node, registration, .. } => {
                members.insert(*node, (*registration, said));
            }
            Event::Leave { node, registration } | Event::Fail { node, registration, .. }
                if members.get(node).is_some_and(|(joined, _)| joined <= registration) =>
            {
                members.remove(node);
            }
            // It hears that the worker is with another master by now.
            Event::Announce { node, registration, role: Role::Worker, .. }
                if members.get(node).is_some_and(|(joined, _)| joined < registration) =>
            {
                members.remove(node);
            }
            _ => return false,
        }
        true
    }

    /// Forgets what a master had: its process ended. Returns whether that may have changed anything.
    pub(super) fn forget(&mut self, master: Place) -> bool {
        self.masters.remove(&master).is_some()
    }

    /// Returns the number of workers that a master has.
    pub(super) fn workers_of(&self, master: Place) -> usize {
        self.masters.get(&master).map_or(0, |members| members.0.len())
    }

    /// Returns the lines of the masters that have a worker, each of them once.
    fn masters_of(&self, worker: Place) -> Vec<&'a EventLine> {
        let Some((node, _)) = self.identities.get(&worker) else { return Vec::new() };
        let has = self.masters.values().filter_map(|members| members.0.get(node));
        has.map(|(_, line)| *line).collect()
    }
}

/// Time for which a worker was not with exactly one master.
struct Astray<'a> {
    worker: Place,
    from: Duration,
    until: Duration,
    /// Lines of the masters that it was with as that began.
    lines: Vec<&'a EventLine>,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let (registered, astray) = follow(evidence);
    let mut found = Vec::new();
    let is_quiet = evidence.last_trouble() + SPREADS_WITHIN <= evidence.ended;
    for worker in (0..evidence.plan.cluster.workers).map(Place::Worker) {
        let at_end = is_quiet.then(|| at_end(evidence, &registered, worker)).flatten();
        found.extend(at_end.or_else(|| between(evidence, worker, &astray)));
    }
    found
}

/// Judges where a worker was at the end of a run that was quiet by then.
fn at_end(evidence: &Evidence<'_>, at: &Registered<'_>, worker: Place) -> Option<Violation> {
    let Some((_, since)) = at.identities.get(&worker) else {
        let text = format!("{worker} was never registered with a master");
        return Some(broken(Property::G11, "one-master", text, []));
    };
    // It just moved: the master before may not know yet.
    if *since + SPREADS_WITHIN > evidence.ended {
        return None;
    }
    let clues: Vec<Clue> = at.masters_of(worker).into_iter().map(EventLine::clue).collect();
    (clues.len() != 1).then(|| {
        let text = format!("{worker} is registered with {} masters", clues.len());
        broken(Property::G11, "one-master", text, clues)
    })
}

/// Judges where a worker was in the times in which no fault could keep it from its master.
fn between(evidence: &Evidence<'_>, worker: Place, astray: &[Astray<'_>]) -> Option<Violation> {
    let quiet = quiet_times(evidence, worker);
    let mut astray = astray.iter().filter(|astray| astray.worker == worker);
    astray.find_map(|astray| {
        let (from, until) = quiet.iter().find_map(|(from, until)| {
            let (from, until) = ((*from).max(astray.from), (*until).min(astray.until));
            let is_long = until.saturating_sub(from) > MOVES_WITHIN;
            // A process that ended although no fault touched it is told of by what it did.
            let lived = evidence.deaths(worker).all(|at| at < from || at > until);
            (is_long && lived).then_some((from, until))
        })?;
        let count = astray.lines.len();
        let (from, until) = (seconds(from), seconds(until));
        let text = format!("{worker} was with {count} masters from {from} to {until}");
        let clues = astray.lines.iter().map(|line| line.clue());
        Some(broken(Property::G11, "one-master", text, clues))
    })
}

/// Returns the times in which no fault touched a worker, a master or the store, or the lines between
/// them. The start of the cluster is no such time.
fn quiet_times(evidence: &Evidence<'_>, worker: Place) -> Vec<(Duration, Duration)> {
    let masters = || (0..evidence.plan.cluster.masters).map(Place::Master);
    // Nobody knows which of two processes wrote the lines of a place.
    if masters().chain([worker]).any(|place| evidence.doubled_from(place).is_some()) {
        return Vec::new();
    }
    let places: Vec<Place> = masters().chain([Place::Store, worker]).collect();
    let matters = |incident: &&Incident| {
        let pair = |one: &Place| {
            let mut others = places.iter().filter(|other| *other != one);
            others.any(|other| evidence.may_part(incident, *one, *other))
        };
        places.iter().any(pair)
    };
    let faults = evidence.incidents.iter().filter(matters);
    let mut faults: Vec<_> = faults.map(|it| (it.from, evidence.end_of(it))).collect();
    faults.sort_unstable();
    let (mut times, mut from) = (Vec::new(), AFTERMATH);
    for (begin, end) in faults.into_iter().chain([(evidence.ended, evidence.ended)]) {
        if begin > from {
            times.push((from, begin));
        }
        from = from.max(end);
    }
    times
}

/// Follows the registrations through a run. Returns them at its end, and the times in which a worker
/// was not with exactly one master.
fn follow<'a>(evidence: &Evidence<'a>) -> (Registered<'a>, Vec<Astray<'a>>) {
    let workers = (0..evidence.plan.cluster.workers).map(Place::Worker);
    let mut at = Registered::default();
    let mut open: BTreeMap<Place, (Duration, Vec<&EventLine>)> = BTreeMap::new();
    open.extend(workers.clone().map(|worker| (worker, (Duration::ZERO, Vec::new()))));
    let mut astray = Vec::new();
    let mut look = |now: Duration, at: &Registered<'a>| {
        for worker in workers.clone() {
            let lines = at.masters_of(worker);
            if lines.len() != 1 {
                open.entry(worker).or_insert((now, lines));
            } else if let Some((from, lines)) = open.remove(&worker) {
                astray.push(Astray { worker, from, until: now, lines });
            }
        }
    };
    // Of two processes of a place the one that ended may be the one that had nobody.
    let is_one = |(place, at): &(Place, Duration)| {
        evidence.doubled_from(*place).is_none_or(|from| *at < from)
    };
    let mut ends: Vec<_> = evidence.ends.iter().copied().filter(is_one).collect();
    ends.sort_unstable_by_key(|(_, at)| *at);
    let mut ends = ends.into_iter().peekable();
    for said in evidence.events {
        // What a master had is gone with its process, also before its next one is ready.
        while let Some((place, end)) = ends.next_if(|(_, end)| *end < said.at) {
            if at.forget(place) {
                look(end, &at);
            }
        }
        if at.take(said) {
            look(said.at, &at);
        }
    }
    for (place, end) in ends {
        if at.forget(place) {
            look(end, &at);
        }
    }
    let until = evidence.ended;
    let open = open.into_iter();
    astray.extend(open.map(|(worker, (from, lines))| Astray { worker, from, until, lines }));
    (at, astray)
}

#[cfg(test)]
mod tests {
    use chatchat::model::message::MemberState;

    use super::*;
    use crate::oracle::fixtures::{Fixture, node};

    fn join(of: u8, registration: u64) -> Event {
        Event::Join { node: node(of), registration: Registration(registration), master: node(9) }
    }

    /// Makes a run in which two workers join master 0.
    fn joined() -> Fixture {
        let mut made = Fixture::new();
        for (worker, of) in [("worker:0", 1), ("worker:1", 2)] {
            made.said(1000, "master:0", join(of, 1)).said(1001, worker, join(of, 1));
        }
        made
    }

    fn fail(of: u8, registration: u64) -> Event {
        let why = String::new();
        Event::Fail { node: node(of), registration: Registration(registration), why }
    }

    #[test]
    fn worker_that_moved_to_another_master_is_accepted() {
        let mut made = joined();
        assert_eq!(made.judge(judge), []);
        made.said(2000, "master:0", fail(1, 1));
        made.said(2000, "master:1", join(1, 2)).said(2001, "worker:0", join(1, 2));
        made.said(2002, "master:0", fail(1, 1));
        assert_eq!(made.judge(judge), []);
        let mut made = joined();
        made.said(2000, "master:1", join(1, 2)).said(2001, "worker:0", join(1, 2));
        let (registration, role) = (Registration(2), Role::Worker);
        let (state, master) = (MemberState::In, node(8));
        let moved = Event::Announce { node: node(1), role, registration, state, master };
        made.said(2003, "master:0", moved);
        assert_eq!(made.judge(judge), [], "it hears of the move only");
    }

    #[test]
    fn worker_of_two_masters_of_none_or_unheard_of_is_reported() {
        let mut made = joined();
        made.said(2000, "master:1", join(1, 2)).said(2001, "worker:0", join(1, 2));
        assert_eq!(made.rules(judge), ["g11.one-master"], "two");
        let mut made = joined();
        made.said(2000, "master:0", fail(1, 1));
        assert_eq!(made.rules(judge), ["g11.one-master"], "none");
        made.trouble(1000, 50_000);
        assert_eq!(made.judge(judge), [], "too soon after a fault");
        assert_eq!(Fixture::new().judge(judge).len(), 2, "unheard of");
    }

    /// Returns the times at which `worker:0` is found without its one master: master 0 calls it failed
    /// at 27 s, and master 1 takes it in at a time, if at all. The last fault ends at 55 s.
    fn away(faults: &[(&str, &str, u64, u64)], again: Option<u64>) -> usize {
        let last = ("crash", "target = \"worker:1\"", 51_000, 55_000);
        let mut all = faults.to_vec();
        all.push(last);
        let mut made = Fixture::with_faults(&all);
        for (worker, of) in [("worker:0", 1), ("worker:1", 2)] {
            made.said(1000, "master:0", join(of, 1)).said(1001, worker, join(of, 1));
        }
        made.said(27_000, "master:0", fail(1, 1));
        if let Some(at) = again {
            made.said(at, "master:1", join(1, 2)).said(at, "worker:0", join(1, 2));
        }
        made.breaks(judge, "g11.one-master")
    }

    #[test]
    fn worker_that_no_fault_touches_is_judged_between_faults_of_others() {
        let other = ("crash", "target = \"worker:1\"", 20_000, 26_000);
        assert_eq!(away(&[other], Some(50_000)), 1);
        assert_eq!(away(&[other], None), 1, "until the end");
        assert_eq!(away(&[other], Some(46_000)), 0, "it searched");
        let cut = ("partition", "from = \"worker:1\"\nto = \"master:0\"", 30_000, 45_000);
        assert_eq!(away(&[cut], Some(50_000)), 1, "the line of another one");
        let person = ("pause", "target = \"person:0\"", 30_000, 45_000);
        assert_eq!(away(&[person], Some(50_000)), 1, "a reader");
    }

    #[test]
    fn worker_is_not_judged_soon_after_a_fault_of_its_own_of_a_master_or_of_the_store() {
        for target in ["worker:0", "master:0", "master:1", "store", "assigned(board:lobby)"] {
            let target = format!("target = \"{target}\"");
            let pause = ("pause", target.as_str(), 32_000, 38_000);
            assert_eq!(away(&[pause], Some(50_000)), 0, "{target}");
        }
        let cut = ("partition", "from = \"master:0\"\nto = \"master:1\"", 32_000, 38_000);
        assert_eq!(away(&[cut], Some(50_000)), 0, "who has it is not told");
        let clone = ("clone", "target = \"master:1\"", 5000, 6000);
        assert_eq!(away(&[clone], Some(50_000)), 0, "which of the two had it");
    }

    #[test]
    fn what_a_master_had_is_gone_with_its_process() {
        let mut made = Fixture::with_faults(&[("crash", "target = \"master:0\"", 10_000, 12_000)]);
        for (worker, of) in [("worker:0", 1), ("worker:1", 2)] {
            made.said(1000, "master:0", join(of, 1)).said(1001, worker, join(of, 1));
            made.said(14_000, "master:1", join(of, 2)).said(14_001, worker, join(of, 2));
        }
        made.events.sort_by_key(|said| said.at);
        assert_eq!(made.judge(judge), [], "the dead one says nothing more");
        made.events.retain(|said| said.node != "master:1");
        assert_eq!(made.breaks(judge, "g11.one-master"), 2, "nobody has them");
        let clone = ("clone", "target = \"master:0\"", 5000, 6000);
        let crash = ("crash", "target = \"master:0\"", 10_000, 12_000);
        let doubled = Fixture::with_faults(&[clone, crash]);
        (made.plan, made.incidents) = (doubled.plan, doubled.incidents);
        assert_eq!(made.judge(judge), [], "the copy ended, it may be");
    }
}
