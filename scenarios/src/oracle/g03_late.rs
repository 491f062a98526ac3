//! G3 in time: while a master, a worker and the store are whole, a post that its client keeps
//! sending settles within a bound, whatever else is broken. They are whole, too, where some nodes are
//! kept from all others for good, and nothing keeps these from each other.
//!
//! The bound is that of a client which waits for one master as long as a call may take (12 s), asks
//! each other dead one whether it is ready (3 s), and then finds one that works. Where masters stand
//! still or are gone, and nothing else is wrong, a client leaves the first one much sooner, and waits
//! for no second one.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::PostState,
    client::{Answer, Failure, Request},
    model::ids::{PostId, Role},
};

use super::{Evidence, Violation, broken, line, seconds, troubles::AFTERMATH};
use crate::{
    fault::Action,
    history::Operation,
    plan::Incident,
    property::Property,
    target::{Place, Target},
};

/// Longest time for which a client may have to try where there is one master.
const LIMIT: Duration = Duration::from_secs(15);
/// Time that each further master may cost.
const PER_MASTER: Duration = Duration::from_secs(3);
/// The same where masters are silent and nothing else is wrong: 2 s until the client doubts the first
/// one, two questions that it does not answer, and the work that it left.
const SILENT_LIMIT: Duration = Duration::from_secs(6);
/// Time that each further master may cost then: one question that it does not answer.
const PER_SILENT_MASTER: Duration = Duration::from_millis(1500);
/// Longest time between two tries of a client that has not given up for now, as a page does that is
/// reloaded.
const BETWEEN_TRIES: Duration = Duration::from_secs(8);
/// The same for one that goes on by itself, besides its questions to silent masters. One whose page is
/// reloaded knows of no silent master, and restores its session first.
const BETWEEN_TRIES_IN_SILENCE: Duration = Duration::from_secs(1);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut tries: BTreeMap<(usize, PostId), Vec<&Operation>> = BTreeMap::new();
    for operation in &evidence.history.operations {
        if let Request::Post { id, .. } | Request::Cancel { id } | Request::Outcome { id } =
            &operation.request
        {
            tries.entry((operation.who.person, *id)).or_default().push(operation);
        }
    }
    let mut found = Vec::new();
    for ((_, id), tries) in &tries {
        let span = longest(tries, evidence.ended, BETWEEN_TRIES);
        let late = span
            .and_then(|span| late_of(evidence, tries[0], span))
            .or_else(|| late_in_silence(evidence, tries));
        let Some((from, until)) = late else { continue };
        let text = format!(
            "post {id} was sent for {} from {} on, and a master, a worker and the store were whole",
            seconds(until.saturating_sub(from)),
            seconds(from)
        );
        let clues = tries.iter().take(5).map(|operation| line(operation));
        found.push(broken(Property::G3, "late", text, clues));
    }
    found
}

/// Returns the part of a span of tries for which something could settle the post, if it is too long: from the
/// beginning on, or from the aftermath of a fault that ended meanwhile.
fn late_of(
    evidence: &Evidence<'_>,
    operation: &Operation,
    (from, until): (Duration, Duration),
) -> Option<(Duration, Duration)> {
    // At its end a fault still touches what it touched.
    let over = AFTERMATH + Duration::from_nanos(1);
    let ends = evidence.incidents.iter().filter_map(|it| it.until).map(|end| end + over);
    let mut begins: Vec<_> = ends.filter(|end| (from..until).contains(end)).collect();
    begins.push(from);
    begins.sort_unstable();
    let is_late = |from: &Duration| {
        until.saturating_sub(*from) > limit(evidence) && could_settle(evidence, operation, *from)
    };
    begins.into_iter().find(is_late).map(|from| (from, until))
}

fn limit(evidence: &Evidence<'_>) -> Duration {
    LIMIT + PER_MASTER * other_masters(evidence)
}

fn silent_limit(evidence: &Evidence<'_>) -> Duration {
    SILENT_LIMIT + PER_SILENT_MASTER * other_masters(evidence)
}

fn other_masters(evidence: &Evidence<'_>) -> u32 {
    let others = evidence.plan.cluster.masters.saturating_sub(1);
    u32::try_from(others).unwrap_or(u32::MAX)
}

/// Returns whether nothing is wrong from shortly before a time on, for as long as it may take, but that
/// masters are silent, each of them all the time from then on.
fn only_silence(evidence: &Evidence<'_>, from: Duration) -> bool {
    let (since, to) = (from.saturating_sub(AFTERMATH), from + silent_limit(evidence));
    let is_then = |incident: &&Incident| incident.from <= to && evidence.end_of(incident) >= since;
    let is_master = |target: &Target| {
        matches!(target, Target::One(Place::Master(_)) | Target::Role(Role::Master))
    };
    evidence.incidents.iter().filter(is_then).all(|incident| {
        let fault = evidence.plan.faults.get(incident.fault);
        let is_silence = fault.is_some_and(|fault| match &fault.action {
            Action::Pause { target } | Action::Crash { target } => is_master(target),
            _ => false,
        });
        is_silence && incident.from <= from && incident.until.is_none_or(|until| until > to)
    })
}

/// Returns the longest time of tries, if it is too long for masters that are merely silent.
fn late_in_silence(evidence: &Evidence<'_>, tries: &[&Operation]) -> Option<(Duration, Duration)> {
    let between = BETWEEN_TRIES_IN_SILENCE + PER_SILENT_MASTER * other_masters(evidence);
    longest(tries, evidence.ended, between).filter(|(from, until)| {
        let is_late = until.saturating_sub(*from) > silent_limit(evidence);
        is_late && only_silence(evidence, *from) && could_settle(evidence, tries[0], *from)
    })
}

/// Returns the longest time for which a post was tried without a pause and did not settle. A try that was
/// put off for overload excuses itself and the next one that was not, which waits behind what filled the
/// queue; what comes after that counts from its own beginning.
fn longest(
    tries: &[&Operation],
    ended: Duration,
    between: Duration,
) -> Option<(Duration, Duration)> {
    let settled = tries.iter().filter(|op| has_settled(op)).filter_map(|op| op.end.as_ref());
    let settled = settled.map(|(at, _)| *at).min().unwrap_or(ended);
    let mut longest: Option<(Duration, Duration)> = None;
    let mut span: Option<(Duration, Duration)> = None;
    let mut follows_put_off = false;
    for operation in tries {
        let is_put_off = is_put_off(operation);
        if is_put_off || follows_put_off {
            follows_put_off = is_put_off;
            span = None;
            continue;
        }
        let begun = operation.invoked;
        let (from, until) =
            span.filter(|(_, until)| begun <= *until + between).unwrap_or((begun, begun));
        let end = operation.end.as_ref().map_or(ended, |(at, _)| *at);
        let until = until.max(end.min(settled)).max(from);
        span = Some((from, until));
        if longest.is_none_or(|(begun, over)| over - begun < until - from) {
            longest = Some((from, until));
        }
    }
    longest
}

/// Returns whether an operation was put off because its queue was full.
fn is_put_off(operation: &Operation) -> bool {
    matches!(operation.failure(), Some((_, Failure::Busy { status: 429, .. })))
}

/// Returns whether an answer says for good what became of the post.
fn has_settled(operation: &Operation) -> bool {
    let is_cancelled =
        matches!(operation.reply(), Some((_, Answer::Fate(Some(PostState::Cancelled { .. })))));
    let is_refused = matches!(operation.failure(), Some((_, Failure::Refused { .. })));
    is_cancelled || is_refused || operation.committed().is_some()
}

/// Returns whether something that can settle a post was whole from shortly before a time for as
/// long as it may take, and so was the person's machine.
fn could_settle(evidence: &Evidence<'_>, operation: &Operation, from: Duration) -> bool {
    from > AFTERMATH
        && (are_whole(evidence, operation, from) || rest_is_whole(evidence, operation, from))
}

/// Returns whether no fault touched the store, some master and some worker.
fn are_whole(evidence: &Evidence<'_>, operation: &Operation, from: Duration) -> bool {
    let is_whole = |place| {
        let since = from.saturating_sub(AFTERMATH);
        !evidence.is_touched(place, since, from + limit(evidence))
    };
    let cluster = &evidence.plan.cluster;
    is_whole(Place::Store)
        && is_whole(evidence.machine_of(operation.who))
        && is_whole(Place::Person(operation.who.person))
        && (0..cluster.masters).any(|nth| is_whole(Place::Master(nth)))
        && (0..cluster.workers).any(|nth| is_whole(Place::Worker(nth)))
}

/// Returns whether some nodes were out all the time, kept from all others and from the store, and
/// nothing kept the rest of the cluster and the person from each other.
fn rest_is_whole(evidence: &Evidence<'_>, operation: &Operation, from: Duration) -> bool {
    let (since, to) = (from.saturating_sub(AFTERMATH), from + limit(evidence));
    let during = evidence.incidents.iter();
    let during = during.filter(|it| it.from <= to && evidence.end_of(it) >= since);
    let during: Vec<_> = during.collect();
    let cluster = &evidence.plan.cluster;
    let masters = (0..cluster.masters).map(Place::Master);
    let all = masters.chain((0..cluster.workers).map(Place::Worker)).chain([Place::Store]);
    let all: Vec<_> = all.collect();
    let is_out = |place: Place| {
        let keeps_away = |it: &Incident| {
            let mut others = all.iter().filter(|other| **other != place);
            it.from <= since
                && it.until.is_none_or(|until| until > to)
                && others.all(|other| evidence.surely_parts(it, place, *other))
        };
        place != Place::Store && during.iter().copied().any(keeps_away)
    };
    let mut rest: Vec<_> = all.iter().copied().filter(|place| !is_out(*place)).collect();
    let is_served = rest.iter().any(|place| matches!(place, Place::Master(_)))
        && rest.iter().any(|place| matches!(place, Place::Worker(_)));
    rest.extend([evidence.machine_of(operation.who), Place::Person(operation.who.person)]);
    let are_parted = |one: Place, other: Place| {
        one != other && during.iter().any(|it| evidence.may_part(it, one, other))
    };
    is_served && !rest.iter().any(|one| rest.iter().any(|other| are_parted(*one, *other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{Fixture, busy};

    /// A master is gone from 10 s on; a person's post is put off twice, and committed so late.
    fn settled_after(seconds: u64, target: &str) -> Vec<Violation> {
        let faults = [("exit", target, 10_000, 90_000)];
        let mut made = Fixture::with_faults(&faults);
        made.did(0, 30_000, 42_000, Fixture::request(1), busy(503));
        made.did(0, 42_100, 30_000 + seconds * 1000 - 100, Fixture::request(1), busy(503));
        made.acked(0, 1, 30_000 + seconds * 1000 - 50, 30_000 + seconds * 1000, 1);
        made.judge(judge)
    }

    #[test]
    fn post_that_settles_within_the_bound_is_accepted() {
        assert_eq!(settled_after(15, "target = \"master:0\""), []);
    }

    #[test]
    fn post_that_takes_longer_is_reported_if_a_master_a_worker_and_the_store_were_whole() {
        let told = settled_after(25, "target = \"master:0\"");
        assert_eq!((told.len(), told[0].rule.name), (1, "late"), "{told:?}");
        assert_eq!(settled_after(25, "target = \"store\""), []);
        assert_eq!(settled_after(25, "target = \"master:*\""), []);
    }

    #[test]
    fn post_that_does_not_settle_long_after_a_fault_ended_is_reported() {
        let settled_at = |end: u64| {
            let mut made = Fixture::with_faults(&[("exit", "target = \"store\"", 29_000, 40_000)]);
            let mut from = 30_000;
            while from < end {
                made.did(0, from, end.min(from + 11_900), Fixture::request(1), busy(503));
                from += 12_000;
            }
            made.acked(0, 1, end, end + 50, 1);
            made.breaks(judge, "g03.late")
        };
        assert_eq!(settled_at(72_000), 0, "within the bound, once the store is back and in use");
        assert_eq!(settled_at(75_000), 1);
    }

    #[test]
    fn post_that_takes_longer_is_reported_if_all_but_a_master_that_is_cut_off_were_whole() {
        let late = |keys: &str, until: u64, more: &[(&str, &str, u64, u64)]| {
            let mut made =
                Fixture::with_faults(&[&[("partition", keys, 10_000, until)], more].concat());
            made.did(0, 30_000, 42_000, Fixture::request(1), busy(503));
            made.did(0, 42_100, 52_000, Fixture::request(1), busy(503));
            made.acked(0, 1, 52_100, 52_200, 1);
            made.breaks(judge, "g03.late")
        };
        let keys = |to: &str| format!("from = \"master:0\"\nto = [{to}]");
        let all = keys("\"master:1\", \"worker:*\", \"store\"");
        assert_eq!(late(&all, 90_000, &[]), 1);
        assert_eq!(late(&all, 40_000, &[]), 0, "it came back meanwhile");
        assert_eq!(late(&format!("{all}\ndirection = \"back\""), 90_000, &[]), 0, "it may speak");
        assert_eq!(late(&keys("\"worker:*\", \"store\""), 90_000, &[]), 0, "it is not alone");
        let worker = |from, until| ("exit", "target = \"worker:0\"", from, until);
        assert_eq!(late(&all, 90_000, &[worker(12_000, 90_000)]), 1, "a worker is left");
        assert_eq!(late(&all, 90_000, &[worker(35_000, 90_000)]), 0, "it died meanwhile");
        let store = ("delay", "from = \"worker:1\"\nto = \"store\"\nby = \"1s\"", 35_000, 36_000);
        assert_eq!(late(&all, 90_000, &[store]), 0, "a line to the store was slow");
        let person = ("crash", "target = \"person:0\"", 35_000, 36_000);
        assert_eq!(late(&all, 90_000, &[person]), 0, "it was the person's machine");
    }

    /// A master is silent, or out of reach, for a time, and a post takes so long meanwhile.
    fn settled_while(kind: &str, (from, until): (u64, u64), took: u64) -> Vec<String> {
        let keys = match kind {
            "partition" => "from = \"master:0\"\nto = \"worker:0\"",
            _ => "target = \"master:0\"",
        };
        let mut made = Fixture::with_faults(&[(kind, keys, from, until)]);
        made.did(0, 30_000, 35_000, Fixture::request(1), busy(503));
        made.acked(0, 1, 35_100, 30_000 + took, 1);
        made.rules(judge)
    }

    #[test]
    fn post_that_waits_for_two_silent_masters_in_turn_is_reported() {
        for kind in ["pause", "crash"] {
            assert_eq!(settled_while(kind, (20_000, 90_000), 9_000), ["g03.late"], "{kind}");
            assert_eq!(settled_while(kind, (20_000, 90_000), 7_400), [""; 0], "{kind}");
        }
    }

    #[test]
    fn post_is_given_more_time_if_a_master_falls_silent_meanwhile_comes_back_or_is_cut_off() {
        for at in [(31_000, 90_000), (20_000, 36_000), (10_000, 20_000)] {
            assert_eq!(settled_while("pause", at, 9_000), [""; 0], "{at:?}");
        }
        assert_eq!(settled_while("partition", (20_000, 90_000), 9_000), [""; 0]);
    }

    #[test]
    fn page_that_is_reloaded_begins_anew_with_the_silent_master() {
        let mut made = Fixture::with_faults(&[("pause", "target = \"master:0\"", 20_000, 90_000)]);
        made.did(0, 30_000, 34_500, Fixture::request(1), busy(503));
        made.acked(0, 1, 39_900, 40_000, 1);
        assert_eq!(made.judge(judge), []);
    }

    /// A person's post is tried at these times until others, answered so, and a master is gone.
    fn tried(tries: &[(u64, u64, u16)]) -> usize {
        let mut made = Fixture::with_faults(&[("exit", "target = \"master:0\"", 10_000, 90_000)]);
        for (from, to, status) in tries {
            made.did(0, *from, *to, Fixture::request(1), busy(*status));
        }
        made.breaks(judge, "g03.late")
    }

    #[test]
    fn try_that_was_put_off_excuses_itself_and_the_next_one_only() {
        let (a, b) = ((28_200, 38_200, 503), (38_300, 48_300, 503));
        assert_eq!(tried(&[a, b]), 1, "nobody was put off");
        assert_eq!(tried(&[(26_000, 26_100, 429), (27_000, 28_000, 503), a, b]), 1, "long before");
        assert_eq!(tried(&[a, b, (48_400, 48_500, 429)]), 1, "long after");
        assert_eq!(
            tried(&[(26_000, 28_100, 429), a, b]),
            0,
            "it waits behind what filled the queue"
        );
        assert_eq!(tried(&[a, (38_250, 38_280, 429), b]), 0, "in between");
    }

    #[test]
    fn post_that_is_put_off_all_the_time_is_accepted() {
        let tries: Vec<_> = (0..20).map(|n| (28_000 + n * 1100, 28_050 + n * 1100, 429)).collect();
        assert_eq!(tried(&tries), 0);
        let turns: Vec<_> = (0..20)
            .map(|n| (28_000 + n * 1100, 29_000 + n * 1100, if n % 3 == 0 { 429 } else { 503 }))
            .collect();
        assert_eq!(tried(&turns), 0, "again and again");
    }

    #[test]
    fn pause_of_the_client_does_not_count() {
        let mut made = Fixture::with_faults(&[("exit", "target = \"master:0\"", 10_000, 90_000)]);
        made.did(0, 30_000, 42_000, Fixture::request(1), busy(503));
        made.acked(0, 1, 60_000, 60_100, 1);
        assert_eq!(made.judge(judge), []);
    }
}
