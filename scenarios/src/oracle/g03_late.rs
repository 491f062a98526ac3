//! G3 in time: while a master, a worker and the store are whole, a post that its client keeps
//! sending settles within a bound, whatever else is broken.
//!
//! The bound is that of a client which loses one master to silence (12 s), asks each other dead one
//! whether it is ready (3 s), and then finds one that works.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::PostState,
    client::{Answer, Failure, Request},
    model::ids::PostId,
};

use super::{Evidence, Violation, broken, line, seconds, troubles::AFTERMATH};
use crate::{history::Operation, property::Property, target::Place};

/// Longest time for which a client may have to try where there is one master.
const LIMIT: Duration = Duration::from_secs(15);
/// Time that each further master may cost.
const PER_MASTER: Duration = Duration::from_secs(3);
/// Longest time between two tries of a client that has not given up for now, as a page does that is
/// reloaded.
const BETWEEN_TRIES: Duration = Duration::from_secs(8);

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
        let Some((from, until)) = longest(evidence, tries) else { continue };
        if until.saturating_sub(from) <= limit(evidence) || !could_settle(evidence, tries[0], from)
        {
            continue;
        }
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

fn limit(evidence: &Evidence<'_>) -> Duration {
    let others = evidence.plan.cluster.masters.saturating_sub(1);
    LIMIT + PER_MASTER * u32::try_from(others).unwrap_or(u32::MAX)
}

/// Returns the longest time for which a post was tried without a pause and did not settle.
fn longest(evidence: &Evidence<'_>, tries: &[&Operation]) -> Option<(Duration, Duration)> {
    let is_put_off =
        |op: &&Operation| matches!(op.failure(), Some((_, Failure::Busy { status: 429, .. })));
    if tries.iter().any(is_put_off) {
        return None;
    }
    let settled = tries.iter().filter(|op| has_settled(op)).filter_map(|op| op.end.as_ref());
    let settled = settled.map(|(at, _)| *at).min().unwrap_or(evidence.ended);
    let mut longest: Option<(Duration, Duration)> = None;
    let mut from = tries.first()?.invoked;
    let mut until = from;
    for operation in tries {
        if operation.invoked > until + BETWEEN_TRIES {
            from = operation.invoked;
        }
        let end = operation.end.as_ref().map_or(evidence.ended, |(at, _)| *at);
        until = until.max(end.min(settled)).max(from);
        let is_longer = |(before, ended): (Duration, Duration)| ended - before < until - from;
        if longest.is_none_or(is_longer) {
            longest = Some((from, until));
        }
    }
    longest
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
    let is_whole = |place| {
        let since = from.saturating_sub(AFTERMATH);
        !evidence.is_touched(place, since, from + limit(evidence))
    };
    let cluster = &evidence.plan.cluster;
    from > AFTERMATH
        && is_whole(Place::Store)
        && is_whole(evidence.machine_of(operation.who))
        && is_whole(Place::Person(operation.who.person))
        && (0..cluster.masters).any(|nth| is_whole(Place::Master(nth)))
        && (0..cluster.workers).any(|nth| is_whole(Place::Worker(nth)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{Fixture, busy};

    /// A master is gone from 10 s on; a person's post is put off twice, and committed so late.
    fn settled_after(seconds: u64, target: &str) -> Vec<Violation> {
        let faults = [("crash", target, 10_000, 90_000)];
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
    fn pause_of_the_client_does_not_count() {
        let mut made = Fixture::with_faults(&[("crash", "target = \"master:0\"", 10_000, 90_000)]);
        made.did(0, 30_000, 42_000, Fixture::request(1), busy(503));
        made.acked(0, 1, 60_000, 60_100, 1);
        assert_eq!(made.judge(judge), []);
    }
}
