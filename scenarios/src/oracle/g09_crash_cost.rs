//! G9, cost of a crash: what a worker had when it crashed is acknowledged within `attempt_timeout` ×
//! `attempts_per_worker` + 1 s of the crash. A batch that it was given while nobody knew of the crash
//! counts from then.
//!
//! Judged where the crash is the only thing wrong and costs no more than tries: the master has
//! another worker, its tries are not used up, and no other master took the resource over meanwhile.
//! The author waits at the master that gave the batch out, so that no way between masters counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chatchat::{
    client::Request,
    model::{
        event::Event,
        ids::{NodeId, PostId},
    },
};

use super::{
    EventLine, Evidence, Violation, broken, joined::Joined, line, seconds, troubles::AFTERMATH,
};
use crate::{
    fault::{Action, Kind},
    history::{End, Operation},
    plan::Incident,
    property::Property,
    target::Place,
};

/// Time for all but the tries on the crashed worker, in simulation.
const SPARE: Duration = Duration::from_secs(1);
/// Waits between tries that fit into it.
const SHORT_BACKOFF: Duration = Duration::from_millis(200);
/// Largest difference between a fault's begin and the end of a process that it ended.
const SAME: Duration = Duration::from_millis(100);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let config = &evidence.plan.cluster.config;
    // With fewer tries in all a task is given up, or split, with this worker.
    if config.attempts_max <= config.attempts_per_worker {
        return Vec::new();
    }
    let mut found = Vec::new();
    let cancelled = cancelled(evidence);
    for incident in evidence.incidents.iter().filter(|incident| is_crash(evidence, incident)) {
        for (place, _) in evidence.ends.iter().filter(|(place, at)| {
            matches!(place, Place::Worker(_)) && at.abs_diff(incident.from) <= SAME
        }) {
            found.extend(costs(evidence, &cancelled, incident.from, *place));
        }
    }
    found
}

/// Returns whether a fault is the crash of a worker, and the only thing wrong for long enough.
fn is_crash(evidence: &Evidence<'_>, incident: &Incident) -> bool {
    let fault = evidence.plan.faults.get(incident.fault);
    let ends = fault.is_some_and(|fault| {
        matches!(fault.action, Action::Crash { .. } | Action::Exit { .. } | Action::Wipe { .. })
    });
    let to = incident.from + 2 * bound(evidence);
    // These outlast their incidents: a worker is out for good, or there are two of one.
    let lasts = |other: &Incident| {
        other.from <= to && matches!(evidence.kind_of(other), Some(Kind::Expel | Kind::Clone))
    };
    let Some(before) = incident.from.checked_sub(AFTERMATH) else { return false };
    ends && incident.bit
        && evidence.is_alone(incident, before, to)
        && !evidence.incidents.iter().any(lasts)
}

/// Longest time from a crash to the acknowledgement of what the worker had.
fn bound(evidence: &Evidence<'_>) -> Duration {
    let config = &evidence.plan.cluster.config;
    let waits = config.attempt_backoff * config.attempts_per_worker.saturating_sub(1);
    config.attempt_timeout * config.attempts_per_worker
        + SPARE.max(evidence.calm_limit)
        + waits.saturating_sub(SHORT_BACKOFF)
}

/// Posts that anybody wanted cancelled.
fn cancelled(evidence: &Evidence<'_>) -> BTreeSet<PostId> {
    let ids = evidence.history.operations.iter().filter_map(|operation| match operation.request {
        Request::Cancel { id } => Some(id),
        _ => None,
    });
    ids.chain(evidence.history.drops().map(|(_, (_, id))| id)).collect()
}

/// Sends that waited for too long because of the crash of a worker.
fn costs(
    evidence: &Evidence<'_>,
    cancelled: &BTreeSet<PostId>,
    crash: Duration,
    place: Place,
) -> Vec<Violation> {
    let joined = evidence.joined_by(crash);
    let Some(victim) = joined.get(&place).map(|joined| joined.node) else { return Vec::new() };
    let given = given(evidence, victim, crash);
    let mut found = Vec::new();
    for operation in &evidence.history.operations {
        let Request::Post { id, .. } = &operation.request else { continue };
        let (Some(said), Some(master)) = (given.get(id), evidence.master_at(&operation.master))
        else {
            continue;
        };
        let from = said.at.max(crash);
        let due = from + bound(evidence);
        if operation.invoked <= said.at
            && due <= evidence.ended
            && is_late(operation, due)
            && said.place() == Some(master)
            && has_another(&joined, master, place, crash)
            && !cancelled.contains(id)
            && !is_taken_over(evidence, said, due)
        {
            let text = format!(
                "a send waited for more than {:?} after {place}, which had it, crashed at {}",
                bound(evidence),
                seconds(crash)
            );
            found.push(broken(Property::G9, "crash-cost", text, [line(operation), said.clue()]));
        }
    }
    found
}

/// Returns the line that first gave a post to a worker, of all posts that it was given shortly before
/// or after its crash.
fn given<'a>(
    evidence: &'a Evidence<'_>,
    victim: NodeId,
    crash: Duration,
) -> BTreeMap<PostId, &'a EventLine> {
    let from = crash.saturating_sub(evidence.plan.cluster.config.request_timeout);
    let to = crash + bound(evidence);
    let mut given = BTreeMap::new();
    for said in evidence.events.iter().filter(|said| said.at >= from && said.at <= to) {
        if let Event::Assign { worker, posts, .. } = &said.event
            && *worker == victim
        {
            for post in posts {
                given.entry(*post).or_insert(said);
            }
        }
    }
    given
}

/// Returns whether a send was still without an answer at a time, and had one later, or its author gave
/// up then.
fn is_late(operation: &Operation, due: Duration) -> bool {
    matches!(&operation.end, Some((at, End::Answered(_) | End::Dropped)) if *at > due)
}

/// Returns whether a master had another worker than the one that crashed.
fn has_another(
    joined: &BTreeMap<Place, Joined<'_>>,
    master: Place,
    crashed: Place,
    crash: Duration,
) -> bool {
    let Some(own) = joined.get(&master) else { return false };
    joined.iter().any(|(place, with)| {
        matches!(place, Place::Worker(_))
            && *place != crashed
            && with.master == own.master
            && with.line.at + AFTERMATH <= crash
    })
}

/// Returns whether another master gave out batches of the same resource meanwhile: it had been wished
/// for, and what waited here went there.
fn is_taken_over(evidence: &Evidence<'_>, given: &EventLine, due: Duration) -> bool {
    let Event::Assign { resource: wanted, .. } = &given.event else { return false };
    let mut meanwhile = evidence.events.iter().filter(|said| said.at >= given.at && said.at <= due);
    meanwhile.any(|said| match &said.event {
        Event::Assign { resource, .. } => resource == wanted && said.node != given.node,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use chatchat::{
        client::Answer,
        model::ids::{BoardName, Registration, Resource, Token},
    };

    use super::*;
    use crate::oracle::fixtures::{EPOCH, Fixture, busy, id, letter, located, ms, node, posted};

    const CRASH: u64 = 30_000;

    fn join(worker: u8, master: u8) -> Event {
        let registration = Registration(1);
        Event::Join { node: node(worker), registration, master: node(master) }
    }

    fn assign(worker: u8, attempt: u32) -> Event {
        Event::Assign {
            worker: node(worker),
            registration: Registration(1),
            resource: Resource::Board(BoardName::lobby()),
            token: Token { epoch: EPOCH, lease: 1, n: 1 },
            after: None,
            posts: vec![id(7)],
            attempt,
        }
    }

    /// `worker:0` crashes with a post that it was given at a time; it is acknowledged at another one.
    fn crashed(kind: &str, given: u64, acked: u64) -> Fixture {
        let mut made = Fixture::with_faults(&[(kind, "target = \"worker:0\"", CRASH, 50_000)]);
        made.history.masters = vec!["http://m".to_owned(), "http://n".to_owned()];
        for worker in [1, 2] {
            made.said(1000, "master:0", join(worker, 9));
            made.said(1000, &format!("worker:{}", worker - 1), join(worker, 9));
        }
        made.said(given, "master:0", assign(1, 1));
        made.said(given + 1100, "master:0", assign(1, 2));
        made.said(given + 2100, "master:0", assign(2, 3));
        made.acked(0, 7, given - 10, acked, 1);
        made
    }

    fn rules(made: &Fixture) -> Vec<String> {
        located(&made.judge(judge))
    }

    #[test]
    fn send_that_is_acknowledged_after_the_tries_on_a_crashed_worker_is_accepted() {
        for (given, acked) in [(29_990, 33_000), (29_990, 29_999), (31_500, 34_500)] {
            assert_eq!(rules(&crashed("crash", given, acked)), [""; 0], "{given} {acked}");
        }
        assert_eq!(rules(&crashed("pause", 29_990, 36_000)), [""; 0], "it lives");
    }

    #[test]
    fn send_that_waits_longer_for_a_crashed_worker_is_reported() {
        for kind in ["crash", "exit", "wipe"] {
            let rule = ["g09.crash-cost"];
            assert_eq!(rules(&crashed(kind, 29_990, 33_001)), rule, "{kind}");
            assert_eq!(rules(&crashed(kind, 31_500, 34_501)), rule, "{kind}, not known yet");
        }
        let mut refused = crashed("crash", 29_990, 33_001);
        refused.history.operations[0].end = Some((ms(34_000), End::Answered(busy(503))));
        assert_eq!(rules(&refused), ["g09.crash-cost"]);
        refused.history.operations[0].end = Some((ms(34_000), End::Dropped));
        assert_eq!(rules(&refused), ["g09.crash-cost"]);
        refused.history.operations[0].end = Some((ms(32_000), End::Dropped));
        assert_eq!(rules(&refused), [""; 0], "its author did not wait");
    }

    #[test]
    fn longer_tries_take_longer() {
        let mut made = crashed("crash", 29_990, 34_900);
        let config = &mut made.plan.cluster.config;
        (config.attempts_per_worker, config.attempt_backoff) = (3, ms(600));
        assert_eq!(rules(&made), [""; 0], "3 × 1 s, 2 × 0.6 s and 1 s");
        made.history.operations[0].end =
            Some((ms(35_001), End::Answered(Ok(Answer::Posted(posted(0, 7, 1))))));
        assert_eq!(rules(&made), ["g09.crash-cost"]);
        made.plan.cluster.config.attempts_max = 3;
        assert_eq!(rules(&made), [""; 0], "it is given up");
    }

    #[test]
    fn whatever_else_is_wrong_excuses_the_wait() {
        let late = || crashed("crash", 29_990, 36_000);
        let mut soon_before = late();
        soon_before.trouble(14_000, 15_000);
        let mut after = late();
        after.trouble(35_000, 35_500);
        let mut moved = late();
        moved.said(32_500, "master:1", assign(3, 1));
        let mut elsewhere = late();
        elsewhere.history.operations[0].master = "http://n".to_owned();
        let mut alone = late();
        alone.said(2000, "worker:1", join(2, 8));
        alone.events.sort_by_key(|said| said.at);
        let mut cancelled = late();
        cancelled.asked(0, 40_000, Request::Cancel { id: id(7) }, None);
        let mut dropped = late();
        dropped.dropped(letter(0, 7), 40_000, Ok(Answer::Done));
        let mut expelled = Fixture::with_faults(&[
            ("crash", "target = \"worker:0\"", CRASH, 50_000),
            ("expel", "target = \"worker:1\"", 6000, 6000),
        ]);
        (expelled.history, expelled.events) = (late().history, late().events);
        let all = [soon_before, after, moved, elsewhere, alone, cancelled, dropped, expelled];
        for (nth, made) in all.iter().enumerate() {
            assert_eq!(rules(made), [""; 0], "{nth}");
        }
        assert_eq!(rules(&late()), ["g09.crash-cost"]);
    }
}
