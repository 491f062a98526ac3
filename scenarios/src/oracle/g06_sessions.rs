//! G6 sessions survive: a session id is valid on every master until log-out, and restores who
//! one is, from a worker's node database while the store is away.

use std::time::Duration;

use chatchat::{
    client::{Answer, Failure, Request},
    config::Config,
    model::stream::Consistency,
};

use super::{Evidence, Violation, broken, line, sessions::Sessions, stream_line};
use crate::{
    fault::{Action, Links},
    plan::Incident,
    property::Property,
    target::{Place, Target},
};

/// Time without a fault after which every node database holds what the store does.
const REPAIRED: Duration = Duration::from_secs(15);
/// Time within which a master hears of a log-out, beyond one reading of the store.
const LOG_OUT_SPREADS: Duration = Duration::from_secs(1);
/// The same, beyond the above, where masters tell each other and rarely read the store.
const TOLD_IN: Duration = Duration::from_secs(1);
/// Time after a fault in which a master finds the store again.
const RECOVERS: Duration = Duration::from_secs(10);
/// Time after a reading of the store in which masters that it names are linked.
const LINKS_IN: Duration = Duration::from_secs(2);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let history = evidence.history;
    let sessions = Sessions::read(history);
    let cuts = store_cuts(evidence);
    // Returns whether the store was away from the first time to the second, and every node database
    // had been repaired since `known`.
    let is_repaired = |known: Duration, from: Duration, to: Duration| {
        cuts.iter().any(|(cut, heal)| known + REPAIRED <= *cut && *cut <= from && to <= *heal)
    };
    let mut found = Vec::new();
    for operation in &history.operations {
        let (who, from) = (operation.who, operation.invoked);
        let left = sessions.leaves(who);
        if let Some((at, failure)) = operation.failure() {
            let is_open = left.is_none_or(|left| at < left);
            let is_forgotten = match failure {
                Failure::Refused { status: 401, .. } => true,
                Failure::Busy { status: 503, .. } if operation.request == Request::Restore => {
                    let opened = sessions.get(who).and_then(|times| times.opened);
                    opened.is_some_and(|opened| is_repaired(opened, from, at))
                }
                _ => false,
            };
            if is_open && is_forgotten {
                let text = "a session was forgotten";
                found.push(broken(Property::G6, "forgotten", text, [line(operation)]));
            }
        }
        if let Some((_, Answer::Restored(restored))) = operation.reply()
            && history.users.get(&who).is_some_and(|user| *user != restored.user.id)
        {
            let text = "a session is somebody else's";
            found.push(broken(Property::G6, "other", text, [line(operation)]));
        }
        if let Some(closed) = sessions.left(who).filter(|closed| *closed < from)
            && match (operation.reply(), operation.failure()) {
                (Some((at, Answer::Restored(restored))), _) => {
                    restored.consistency == Consistency::Strong || is_repaired(closed, from, at)
                }
                (Some((_, Answer::Opened(_))), _) => false,
                (Some((at, _)), _) => has_heard(evidence, &operation.master, closed, from, at),
                // Who is told this was taken for somebody whose session is open.
                (_, Some((at, Failure::Refused { status: 404 | 410 | 422, .. }))) => {
                    has_heard(evidence, &operation.master, closed, from, at)
                }
                _ => false,
            }
        {
            let text = "a log-out was forgotten";
            found.push(broken(Property::G6, "log-out", text, [line(operation)]));
        }
    }
    for stream in &history.streams {
        let closed = sessions.left(stream.who);
        let began = stream.deliveries.first().map(|(at, _)| *at);
        if let (Some(closed), Some(began)) = (closed, began)
            && has_heard(evidence, &stream.master, closed, stream.asked, began)
        {
            let text = "a stream of a session that was logged out began";
            found.push(broken(Property::G6, "log-out", text, [stream_line(stream, began)]));
        }
        if let Some((at, Failure::Refused { status: 401, .. })) = &stream.refused
            && sessions.leaves(stream.who).is_none_or(|left| *at < left)
        {
            let text = "a session was forgotten";
            found.push(broken(Property::G6, "forgotten", text, [stream_line(stream, *at)]));
        }
    }
    found
}

/// Returns whether a master must have heard of a log-out: nothing kept it from reading the store.
fn has_heard(
    evidence: &Evidence<'_>,
    master: &str,
    closed: Duration,
    from: Duration,
    at: Duration,
) -> bool {
    let since = closed.saturating_sub(RECOVERS);
    let cluster = &evidence.plan.cluster;
    let read = cluster.config.store_poll_interval;
    // Masters may find each other by the store only.
    let linked_since = closed.checked_sub(RECOVERS.max(read + LINKS_IN));
    let hears = |from: Duration, nth| {
        let mut faults = evidence.incidents_between(Place::Master(nth), from, at);
        faults.all(|fault| evidence.is_short_delay(fault))
    };
    // A link without room drops what masters tell each other.
    let is_told = cluster.config.link_frames_max >= Config::default().link_frames_max
        && linked_since.is_some_and(|from| (0..cluster.masters).all(|nth| hears(from, nth)));
    let spreads = LOG_OUT_SPREADS + if is_told { read.min(TOLD_IN) } else { read };
    closed + spreads < from
        && closed > RECOVERS
        && evidence.is_connected(Place::Store, since, at)
        && evidence.master_at(master).is_some_and(|it| evidence.is_connected(it, since, at))
}

/// Returns the times in which the store was away after [`REPAIRED`] without a fault; nothing else is
/// wrong in them.
fn store_cuts(evidence: &Evidence<'_>) -> Vec<(Duration, Duration)> {
    let store = Target::One(Place::Store);
    let is_cut = |fault: usize| match evidence.plan.faults.get(fault).map(|fault| &fault.action) {
        Some(Action::Crash { target } | Action::Exit { target } | Action::Pause { target }) => {
            *target == store
        }
        Some(Action::Partition { links: Links { to, .. } }) => to[..] == [store.clone()],
        _ => false,
    };
    let end = |incident: &Incident| evidence.end_of(incident);
    let cut_of = |cut: &Incident| {
        let others = || evidence.incidents.iter().filter(|other| other.from != cut.from);
        let is_quiet =
            |other: &Incident| other.from > cut.from || end(other) + REPAIRED <= cut.from;
        let next = others().map(|other| other.from).filter(|from| *from > cut.from).min();
        let heal = end(cut).min(next.unwrap_or(evidence.ended));
        others().all(is_quiet).then_some((cut.from, heal))
    };
    evidence.incidents.iter().filter(|cut| is_cut(cut.fault)).filter_map(cut_of).collect()
}

#[cfg(test)]
mod tests {
    use chatchat::api::Problem;

    use super::*;
    use crate::{
        oracle::fixtures::{Fixture, busy, ms, opened, refused, restored},
        plan::Plan,
        story::Story,
    };

    /// Makes a run in which the store is cut off from 40 s to 50 s, after a fault that ended at `calm`.
    fn cut_after(calm: u64) -> Fixture {
        let text = "about = \"\"\nduration = \"60s\"\n[cluster]\nmasters = 2\nworkers = 2\n[[fault]]\nat = \"5s\"\nkind = \"wipe\"\ntarget = \"worker:*\"\n[[fault]]\nat = \"40s\"\nkind = \"partition\"\nfrom = \"master:*\"\nto = \"store\"\n";
        let plan = Plan::expand(&Story::parse("made", text).unwrap(), 1);
        let mut made = Fixture { plan, ..Fixture::new() };
        made.trouble(5000, calm).trouble(40_000, 50_000);
        made
    }

    fn open(made: &mut Fixture, person: usize, at: u64) {
        let request = Request::OpenSession { name: "Ada".parse().unwrap() };
        made.did(person, at, at + 50, request, Ok(Answer::Opened(opened(person, "Ada"))));
    }

    fn restores(person: usize, consistency: Consistency) -> Result<Answer, Failure> {
        Ok(Answer::Restored(restored(person, consistency)))
    }

    #[test]
    fn refusal_after_log_out_is_accepted_and_earlier_one_reported() {
        let mut made = Fixture::new();
        made.did(0, 100, 200, Request::Leave, Ok(Answer::Done));
        made.did(0, 90, 210, Request::Users, refused(401));
        assert_eq!(made.judge(judge), []);
        made.did(1, 90, 210, Request::Users, refused(401));
        assert_eq!(made.rules(judge), ["g06.forgotten"]);
    }

    #[test]
    fn stream_that_is_refused_before_a_log_out_is_reported() {
        let refused_at = |at: u64| {
            let mut made = Fixture::new();
            made.did(0, 20_100, 20_150, Request::Leave, Ok(Answer::Done)).stream(0, 0, Vec::new());
            let failure = Failure::Refused { status: 401, problem: Problem::default() };
            made.history.streams[0].refused = Some((ms(at), failure));
            made.rules(judge)
        };
        assert_eq!(refused_at(20_100), [""; 0]);
        assert_eq!(refused_at(20_099), ["g06.forgotten"]);
    }

    #[test]
    fn session_that_restores_somebody_else_is_reported() {
        let mut made = Fixture::new();
        made.did(0, 20_000, 20_100, Request::Restore, restores(0, Consistency::Strong));
        assert_eq!(made.judge(judge), []);
        made.did(0, 20_000, 20_100, Request::Restore, restores(1, Consistency::Strong));
        assert_eq!(made.rules(judge), ["g06.other"]);
    }

    #[test]
    fn old_session_that_is_put_off_while_the_store_is_away_is_reported() {
        for (calm, opened, from, found) in [
            (10_000, 20_000, 41_000, 1),
            // Younger than a repair, asked before the cut, or too soon after another fault.
            (10_000, 30_000, 41_000, 0),
            (10_000, 20_000, 39_000, 0),
            (30_000, 20_000, 41_000, 0),
        ] {
            let mut made = cut_after(calm);
            open(&mut made, 0, opened);
            made.did(0, from, from + 500, Request::Restore, busy(503));
            assert_eq!(made.breaks(judge, "g06.forgotten"), found, "{calm} {opened} {from}");
        }
    }

    #[test]
    fn session_that_is_valid_after_its_log_out_is_reported() {
        for (left, from, consistency, found) in [
            (20_000, 21_000, Consistency::Strong, 1),
            (20_000, 41_000, Consistency::Weak, 1),
            // Asked before the log-out was known, or while it may still be on its way.
            (20_000, 20_010, Consistency::Strong, 0),
            (30_000, 41_000, Consistency::Weak, 0),
        ] {
            let mut made = cut_after(10_000);
            made.did(0, left, left + 50, Request::Leave, Ok(Answer::Done));
            made.did(0, from, from + 500, Request::Restore, restores(0, consistency));
            let told = made.breaks(judge, "g06.log-out");
            assert_eq!(told, found, "{left} {from} {consistency:?}");
        }
    }

    #[test]
    fn anything_but_a_refusal_after_a_log_out_is_reported() {
        for (fault, from, found) in [
            ("target = \"worker:0\"", 21_000, 0),
            ("target = \"worker:0\"", 23_000, 1),
            ("target = \"master:1\"", 23_000, 1),
            ("target = \"master:0\"", 23_000, 0),
            ("target = \"store\"", 23_000, 0),
        ] {
            let mut made = Fixture::with_faults(&[("pause", fault, 21_000, 22_000)]);
            made.history.masters = vec!["http://m".to_owned(), "http://n".to_owned()];
            made.did(0, 20_000, 20_100, Request::Leave, Ok(Answer::Done));
            made.did(0, from, from + 100, Request::Alive, Ok(Answer::Done));
            made.did(0, from, from + 100, Request::Alive, refused(401));
            assert_eq!(made.breaks(judge, "g06.log-out"), found, "{fault} {from}");
            for status in [404, 410, 422] {
                made.did(0, from, from + 100, Fixture::request(1), refused(status));
            }
            made.did(0, from, from + 100, Fixture::request(1), refused(413));
            assert_eq!(made.breaks(judge, "g06.log-out"), 4 * found, "{fault} {from}");
        }
        let mut made = Fixture::new();
        made.history.masters = vec!["http://m".to_owned()];
        made.did(0, 11_000, 11_100, Request::Leave, Ok(Answer::Done));
        made.stream(0, 0, vec![(20_100, chatchat::api::StreamEvent::Beat)]);
        assert_eq!(made.rules(judge), ["g06.log-out"], "asked for at 20 s");
    }

    #[test]
    fn log_out_that_masters_tell_each_other_waits_for_no_reading_of_the_store() {
        let between = "from = [\"master:0\"]\nto = [\"master:1\"]";
        for (kind, fault, (from, to), link_frames_max, found) in [
            ("pause", "target = \"person:3\"", (21_000, 22_000), 4096, 1),
            ("pause", "target = \"master:1\"", (21_000, 22_000), 4096, 0),
            ("pause", "target = \"person:3\"", (21_000, 22_000), 1, 0),
            ("partition", between, (19_000, 22_000), 4096, 0),
            // Long before, but within one reading of the store, by which they find each other.
            ("partition", between, (5000, 6000), 4096, 0),
            ("partition", between, (1000, 2000), 4096, 1),
        ] {
            let mut made = Fixture::with_faults(&[(kind, fault, from, to)]);
            let config = &mut made.plan.cluster.config;
            config.store_poll_interval = Duration::from_secs(15);
            config.link_frames_max = link_frames_max;
            made.history.masters = vec!["http://m".to_owned(), "http://n".to_owned()];
            made.did(0, 20_000, 20_100, Request::Leave, Ok(Answer::Done));
            made.did(0, 23_000, 23_100, Request::Alive, Ok(Answer::Done));
            assert_eq!(made.judge(judge).len(), found, "{fault} {link_frames_max} {from}");
        }
        // Masters that start are not linked before they read of each other.
        let mut made = Fixture::new();
        made.plan.cluster.config.store_poll_interval = Duration::from_secs(15);
        made.history.masters = vec!["http://m".to_owned(), "http://n".to_owned()];
        made.did(0, 12_000, 12_100, Request::Leave, Ok(Answer::Done));
        made.did(0, 15_000, 15_100, Request::Alive, Ok(Answer::Done));
        assert_eq!(made.judge(judge), []);
    }
}
