//! G9, the next attempt: a batch whose worker does not answer is tried again within `attempt_timeout` and
//! the wait between two tries, whatever became of that worker: it crashed, stands still, is slow or cut off.
//!
//! Judged where that worker and its lines are the only thing wrong: the store and all masters are as ever,
//! so that the lease stays with the master that gives the batch out. A batch that goes on to another
//! worker waits for one, so the master has another one that is as ever.

use std::{collections::BTreeMap, time::Duration};

use chatchat::model::{
    event::Event,
    ids::{NodeId, PostId, Registration, Resource},
};

use super::{EventLine, Evidence, Violation, broken, joined::Joined, seconds, troubles::AFTERMATH};
use crate::{
    plan::Incident,
    property::Property,
    target::{Place, Target},
};

/// Bound on answers in calm in simulation. On real machines a worker that stands still may hold a lock of
/// the store, which then is away from all.
const SIMULATED: Duration = Duration::from_secs(1);
/// Time for all but the attempt and the wait, besides the bound on answers in calm.
const SPARE: Duration = Duration::from_secs(1);

/// Attempt of a batch with posts, as its line tells it.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    said: &'a EventLine,
    worker: NodeId,
    registration: Registration,
    resource: &'a Resource,
    posts: &'a [PostId],
    nth: u32,
}

impl<'a> Attempt<'a> {
    fn read(said: &'a EventLine) -> Option<Self> {
        let Event::Assign { worker, registration, resource, posts, attempt, .. } = &said.event
        else {
            return None;
        };
        let (worker, registration, nth) = (*worker, *registration, *attempt);
        (!posts.is_empty()).then_some(Self { said, worker, registration, resource, posts, nth })
    }

    /// Returns whether it follows another one that failed.
    fn follows(&self, before: &Self) -> bool {
        self.nth == before.nth + 1 && self.posts == before.posts
    }
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    if evidence.calm_limit > SIMULATED {
        return Vec::new();
    }
    let config = &evidence.plan.cluster.config;
    let bound = config.attempt_timeout + config.attempt_backoff + SPARE + evidence.calm_limit;
    // Attempts are one master's. What was done with a post in between, in whatever batch, counts.
    type Given<'a> = (&'a str, &'a Resource, PostId);
    let mut last: BTreeMap<Given<'_>, Attempt<'_>> = BTreeMap::new();
    let mut found = Vec::new();
    for said in evidence.events {
        let Some(attempt) = Attempt::read(said) else { continue };
        let [first, ..] = attempt.posts else { continue };
        if let Some(before) = last.get(&(said.node.as_str(), attempt.resource, *first)) {
            let waited = said.at.saturating_sub(before.said.at);
            if waited > bound && attempt.follows(before) && is_owed(evidence, before, &attempt) {
                let text = format!(
                    "a batch of {} was tried again only {} after its worker did not answer",
                    attempt.resource,
                    seconds(waited)
                );
                let lines = [before.said.clue(), said.clue()];
                found.push(broken(Property::G9, "next-attempt", text, lines));
            }
        }
        for post in attempt.posts {
            last.insert((said.node.as_str(), attempt.resource, *post), attempt);
        }
    }
    found
}

/// Returns whether nothing kept a master from a next attempt but the worker that had the one before.
fn is_owed(evidence: &Evidence<'_>, before: &Attempt<'_>, next: &Attempt<'_>) -> bool {
    let (from, to) = (before.said.at, next.said.at);
    let Some(master @ Place::Master(_)) = before.said.place() else { return false };
    let Some(since) = from.checked_sub(AFTERMATH).filter(|since| !since.is_zero()) else {
        return false;
    };
    let joined = evidence.joined_by(to);
    let mut victims = joined
        .iter()
        .filter(|(place, with)| matches!(place, Place::Worker(_)) && with.node == before.worker);
    let Some((victim, _)) = victims.next() else { return false };
    let masters = (0..evidence.plan.cluster.masters).map(Place::Master);
    let is_disturbed = |place: Place| {
        let mut faults = evidence.incidents_between(place, since, to);
        faults.any(|fault| !is_of_lines_of(evidence, fault, *victim))
    };
    let is_double = evidence.doubled_from(master).is_some_and(|at| at <= to);
    let is_same = (before.worker, before.registration) == (next.worker, next.registration);
    !is_double
        && !masters.chain([Place::Store]).any(is_disturbed)
        && !is_taken_over(evidence, before, to)
        && (is_same || has_another(evidence, &joined, (master, *victim), (since, to)))
}

/// Returns whether a fault is of lines that all end at one place.
fn is_of_lines_of(evidence: &Evidence<'_>, incident: &Incident, place: Place) -> bool {
    let is_it = |side: &[Target]| side == [Target::One(place)];
    let fault = evidence.plan.faults.get(incident.fault);
    let links = fault.and_then(|fault| fault.action.links());
    links.is_some_and(|links| is_it(&links.from) || is_it(&links.to))
}

/// Returns whether another master gave out batches of the same resource meanwhile: the lease was there.
fn is_taken_over(evidence: &Evidence<'_>, before: &Attempt<'_>, to: Duration) -> bool {
    let from = before.said.at;
    let mut meanwhile = evidence.events.iter().filter(|said| said.at >= from && said.at <= to);
    meanwhile.any(|said| match &said.event {
        Event::Assign { resource, .. } => {
            resource == before.resource && said.node != before.said.node
        }
        _ => false,
    })
}

/// Returns whether a master had another worker all the time, which no fault touched.
fn has_another(
    evidence: &Evidence<'_>,
    joined: &BTreeMap<Place, Joined<'_>>,
    (master, victim): (Place, Place),
    (since, to): (Duration, Duration),
) -> bool {
    let Some(own) = joined.get(&master) else { return false };
    let was_gone = |with: &Joined<'_>| {
        let name = master.to_string();
        evidence.events.iter().any(|said| match &said.event {
            Event::Fail { node, .. } | Event::Leave { node, .. } | Event::Expel { node } => {
                *node == with.node && said.node == name && said.at >= with.line.at && said.at <= to
            }
            _ => false,
        })
    };
    joined.iter().any(|(place, with)| {
        matches!(place, Place::Worker(_))
            && *place != victim
            && with.master == own.master
            && with.line.at <= since
            && !evidence.is_touched(*place, since, to)
            && !was_gone(with)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{Fixture, assigned, located, ms, node};

    fn join(worker: u8, master: u8) -> Event {
        let registration = Registration(1);
        Event::Join { node: node(worker), registration, master: node(master) }
    }

    fn assign(worker: u8, attempt: u32, posts: &[u8]) -> Event {
        assigned(worker, 1, posts, attempt)
    }

    /// `worker:0` stands still from 30 s on with a batch that `master:0` gave it; the next attempt is at
    /// a worker, after so long.
    fn waits(faults: &[(&str, &str, u64, u64)], to: u8, after: u64) -> Fixture {
        let mut made = Fixture::with_faults(faults);
        for worker in [1, 2] {
            made.said(1000, "master:0", join(worker, 9));
            made.said(1000, &format!("worker:{}", worker - 1), join(worker, 9));
        }
        made.said(30_500, "master:0", assign(1, 1, &[7]));
        made.said(30_500 + after, "master:0", assign(to, 2, &[7]));
        made
    }

    const PAUSE: (&str, &str, u64, u64) = ("pause", "target = \"worker:0\"", 30_000, 44_000);

    fn rules(made: &Fixture) -> Vec<String> {
        located(&made.judge(judge))
    }

    #[test]
    fn attempt_that_follows_in_time_is_accepted_and_a_later_one_reported() {
        for to in [1, 2] {
            assert_eq!(rules(&waits(&[PAUSE], to, 1100)), [""; 0]);
            assert_eq!(rules(&waits(&[PAUSE], to, 3100)), [""; 0], "within the bound");
            assert_eq!(rules(&waits(&[PAUSE], to, 3101)), ["g09.next-attempt"]);
            assert_eq!(rules(&waits(&[PAUSE], to, 8000)), ["g09.next-attempt"]);
        }
    }

    #[test]
    fn worker_may_be_slow_cut_off_or_gone_and_tries_may_last_longer() {
        for (kind, keys) in [
            ("slow", "target = \"worker:0\"\nfactor = 9.0"),
            ("crash", "target = \"worker:0\""),
            ("stop", "target = \"worker:0\""),
            ("partition", "from = \"worker:0\"\nto = [\"master:*\", \"worker:*\", \"store\"]"),
            ("delay", "from = \"master:0\"\nto = \"worker:0\"\nby = \"3s\""),
        ] {
            let made = waits(&[(kind, keys, 30_000, 44_000)], 1, 8000);
            assert_eq!(rules(&made), ["g09.next-attempt"], "{kind}");
        }
        let mut made = waits(&[PAUSE], 2, 4000);
        made.plan.cluster.config.attempt_timeout = ms(1900);
        assert_eq!(rules(&made), [""; 0], "1.9 s, 0.1 s and 2 s");
    }

    #[test]
    fn whatever_else_may_keep_a_master_from_it_is_accepted() {
        for (kind, keys, until) in [
            ("pause", "target = \"master:0\"", 32_000),
            ("slow", "target = \"master:0\"\nfactor = 9.0", 16_000),
            ("stop", "target = \"master:1\"", 40_000),
            ("partition", "from = \"master:0\"\nto = \"master:1\"", 32_000),
            ("partition", "from = [\"worker:0\", \"worker:1\"]\nto = \"master:0\"", 32_000),
            ("pause", "target = \"store\"", 20_000),
            ("lost_ack", "count = 1", 32_000),
            ("pause", "target = \"coordinator(board:lobby)\"", 32_000),
            ("pause", "target = \"worker:*\"", 32_000),
            ("pause", "target = \"worker:1\"", 32_000),
        ] {
            let made = waits(&[PAUSE, (kind, keys, 14_000, until)], 2, 8000);
            assert_eq!(rules(&made), [""; 0], "{kind} {keys}");
        }
        let lone = waits(&[PAUSE, ("pause", "target = \"worker:1\"", 14_000, 32_000)], 1, 8000);
        assert_eq!(rules(&lone), ["g09.next-attempt"], "the same one needs no other");
    }

    #[test]
    fn master_without_another_worker_and_lease_that_was_elsewhere_are_accepted() {
        let mut made = waits(&[PAUSE], 2, 8000);
        assert_eq!(rules(&made), ["g09.next-attempt"]);
        made.said(32_000, "master:1", assign(4, 1, &[9]));
        assert_eq!(rules(&made), [""; 0], "the lease was with another master");
        let gone = Event::Fail { node: node(2), registration: Registration(1), why: String::new() };
        for event in [gone, join(2, 8)] {
            let mut made = waits(&[PAUSE], 2, 8000);
            let at = match event {
                Event::Fail { .. } => "master:0",
                _ => "worker:1",
            };
            made.said(29_000, at, event);
            made.events.sort_by_key(|said| said.at);
            assert_eq!(rules(&made), [""; 0], "its other worker was gone");
        }
        let late = waits(&[PAUSE], 2, 8000);
        let real = late.with(|it| judge(&Evidence { calm_limit: ms(5000), ..*it }));
        assert_eq!(real, [], "the worker may hold the store's lock");
        let mut early = waits(&[PAUSE], 2, 8000);
        early.events.iter_mut().for_each(|said| said.at = said.at.saturating_sub(ms(16_000)));
        assert_eq!(rules(&early), [""; 0], "the cluster has just begun");
    }

    #[test]
    fn only_the_next_attempt_of_the_very_batch_is_judged() {
        let with = |between: Option<Event>, next: Event| {
            let mut made = Fixture::with_faults(&[PAUSE]);
            for worker in [1, 2] {
                made.said(1000, "master:0", join(worker, 9));
                made.said(1000, &format!("worker:{}", worker - 1), join(worker, 9));
            }
            made.said(30_500, "master:0", assign(1, 1, &[7]));
            if let Some(between) = between {
                made.said(36_500, "master:0", between);
            }
            made.said(38_500, "master:0", next);
            rules(&made)
        };
        assert_eq!(with(None, assign(2, 2, &[7])), ["g09.next-attempt"]);
        assert_eq!(with(None, assign(2, 1, &[7])), [""; 0], "sent again, or not taken before");
        assert_eq!(with(None, assign(2, 3, &[7])), [""; 0], "another one is between them");
        assert_eq!(with(None, assign(2, 2, &[7, 8])), [""; 0], "another batch");
        assert_eq!(with(Some(assign(1, 1, &[6, 7])), assign(2, 2, &[7])), [""; 0]);
        assert_eq!(with(Some(assign(1, 1, &[7])), assign(2, 2, &[7])), [""; 0]);
    }
}
