//! G9 in time: no send runs into a time-out at a master that is connected to the store and to a
//! worker of its own, whatever becomes of other masters and of the lines to them.
//!
//! Judged while no worker is touched: a task that workers failed may be given up, which is told as
//! a time-out too.

use std::time::Duration;

use chatchat::client::{Failure, Request};

use super::{Evidence, Violation, broken, line, troubles::AFTERMATH};
use crate::{property::Property, target::Place};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for operation in &evidence.history.operations {
        let Some((at, Failure::Unknown { status: Some(504), .. })) = operation.failure() else {
            continue;
        };
        let (Request::Post { .. }, Some(master)) =
            (&operation.request, evidence.master_at(&operation.master))
        else {
            continue;
        };
        let from = operation.invoked.saturating_sub(AFTERMATH);
        if operation.invoked > AFTERMATH
            && evidence.is_connected(Place::Store, from, at)
            && evidence.is_connected(master, from, at)
            && has_worker(evidence, master, from, at)
        {
            let text = format!("a send timed out at {master}, which had the store and a worker");
            found.push(broken(Property::G9, "timed-out", text, [line(operation)]));
        }
    }
    found
}

/// Returns whether a master had a worker all the time, and no fault touched any worker.
fn has_worker(evidence: &Evidence<'_>, master: Place, from: Duration, at: Duration) -> bool {
    let joined = evidence.joined_by(at);
    let Some(own) = joined.get(&master) else { return false };
    let mut workers = (0..evidence.plan.cluster.workers).map(Place::Worker);
    let is_with = |worker| {
        let with = joined.get(&worker);
        with.is_some_and(|with| with.master == own.master && with.line.at <= from)
    };
    workers.clone().any(is_with) && workers.all(|it| !evidence.is_touched(it, from, at))
}

#[cfg(test)]
mod tests {
    use chatchat::model::{event::Event, ids::Registration};

    use super::*;
    use crate::oracle::fixtures::{Fixture, node};

    /// A send to `master:0` times out; its worker is `worker:0`.
    fn timed_out(kind: &str, target: &str) -> usize {
        let mut made = Fixture::with_faults(&[(kind, target, 20_000, 50_000)]);
        made.history.masters = vec!["http://m".to_owned(), "http://n".to_owned()];
        let join = || Event::Join { node: node(1), registration: Registration(1), master: node(9) };
        made.said(1000, "master:0", join()).said(1000, "worker:0", join());
        let failure = Failure::Unknown { status: Some(504), why: "late".to_owned() };
        made.did(0, 30_000, 40_000, Fixture::request(1), Err(failure));
        made.breaks(judge, "g09.timed-out")
    }

    #[test]
    fn send_that_times_out_at_a_connected_master_is_reported() {
        assert_eq!(timed_out("partition", "from = \"master:0\"\nto = \"master:1\""), 1);
        assert_eq!(timed_out("crash", "target = \"master:1\""), 1);
    }

    #[test]
    fn send_that_times_out_where_the_master_its_worker_or_the_store_is_touched_is_accepted() {
        assert_eq!(timed_out("pause", "target = \"master:0\""), 0);
        assert_eq!(timed_out("crash", "target = \"worker:0\""), 0);
        assert_eq!(timed_out("crash", "target = \"worker:1\""), 0, "it may be a dead letter");
        assert_eq!(timed_out("partition", "from = \"master:1\"\nto = \"store\""), 0);
        assert_eq!(timed_out("delay", "from = \"master:0\"\nto = \"master:1\"\nby = \"1s\""), 0);
    }
}
