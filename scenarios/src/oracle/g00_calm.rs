//! G0 calm: while no fault, start or stop is or was active in the last 15 s, every answer to a
//! well-formed request is strong (unless weak was asked for) and final within the limit: no 202,
//! 429, 503, 504, `weak`, `reset`, `bye` (but for log-out), dead letter or reassignment.
//!
//! It keeps the others honest: always answering *weak* or 503 would satisfy them.

use std::time::Duration;

use chatchat::{
    api::{StateEvent, StreamEvent},
    client::{Answer, Delivery, Failure, Request, StreamEnd},
    model::{event::Event, stream::Consistency},
};

use super::{
    Evidence, Violation, broken, deed, line, refusals::is_fair, sessions::Sessions, stream_line,
};
use crate::{
    history::{End, History, KeptEnd, Operation, ReaderKind, StreamLog},
    property::Property,
};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let is_calm = |from: Duration, to: Duration| evidence.is_calm(from, to);
    let sessions = Sessions::read(evidence.history);
    let mut found = Vec::new();
    for operation in &evidence.history.operations {
        if let Some(why) = complaint(evidence, &sessions, operation, &is_calm) {
            found.push(broken(Property::G0, "unsettled", why, [line(operation)]));
        }
    }
    for stream in &evidence.history.streams {
        for (at, why) in interruptions(evidence.history, &sessions, stream) {
            if is_calm(at, at) {
                let text = format!("in calm a stream {why}");
                found.push(broken(Property::G0, "stream", text, [stream_line(stream, at)]));
            }
        }
    }
    for said in evidence.events.iter().filter(|said| is_calm(said.at, said.at)) {
        let what = match &said.event {
            Event::Assign { attempt: 2.., .. } => "a batch was tried again",
            Event::Fail { .. } => "a worker was declared failed",
            _ => continue,
        };
        found.push(broken(Property::G0, "event", format!("in calm {what}"), [said.clue()]));
    }
    for kept in &evidence.history.kept {
        let limit = evidence.calm_limit;
        // A master may close what was idle for long; it may not leave its reader waiting.
        let is_fair = matches!(kept.end, KeptEnd::Answered(200) | KeptEnd::Closed)
            && kept.ended <= kept.asked + limit;
        if !is_fair && evidence.is_calm(kept.asked, kept.asked + limit) {
            let text = format!("in calm a connection that was kept gave {:?}", kept.end);
            let clue = deed(kept.who.person, kept.asked, &format!("{kept:?}"));
            found.push(broken(Property::G0, "kept", text, [clue]));
        }
    }
    for odd in evidence.history.oddities.iter() {
        let is_refused = odd.status.is_some_and(|status| (400..500).contains(&status));
        if !is_refused && is_calm(odd.sent, odd.sent + evidence.calm_limit) {
            let text =
                format!("{} was answered with {:?}, not with a refusal", odd.what, odd.status);
            let clue = deed(odd.who.person, odd.sent, &format!("{} sent it", odd.who));
            found.push(broken(Property::G0, "odd", text, [clue]));
        }
    }
    found
}

fn complaint(
    evidence: &Evidence<'_>,
    sessions: &Sessions,
    operation: &Operation,
    is_calm: &impl Fn(Duration, Duration) -> bool,
) -> Option<String> {
    let due = operation.invoked + evidence.calm_limit;
    let late = || format!("in calm there was no answer within {:?}", evidence.calm_limit);
    match &operation.end {
        None => is_calm(operation.invoked, due).then(late),
        Some((at, _)) if *at > due && is_calm(operation.invoked, due) => Some(late()),
        Some((_, End::Dropped)) => None,
        Some((at, End::Answered(answer))) => {
            let unsettled = unsettled(evidence.history, sessions, operation, *at, answer)?;
            is_calm(operation.invoked, *at).then(|| format!("in calm {unsettled}"))
        }
    }
}

/// Returns the reason why an answer is not strong and final, if it is not.
fn unsettled(
    history: &History,
    sessions: &Sessions,
    operation: &Operation,
    at: Duration,
    answer: &Result<Answer, Failure>,
) -> Option<&'static str> {
    let wants_weak = matches!(operation.request, Request::Read { wanted: Consistency::Weak, .. });
    let consistency = match answer {
        Ok(Answer::Page(page)) => page.consistency,
        Ok(Answer::Boards(list)) => list.consistency,
        Ok(Answer::Restored(restored)) => restored.consistency,
        Ok(Answer::Users(users)) => users.consistency,
        Ok(Answer::Pending { .. }) => return Some("a post was only held"),
        Ok(_) => return None,
        Err(Failure::Busy { .. }) => return Some("a request was put off"),
        Err(Failure::Unreached { .. }) => return Some("a master could not be reached"),
        Err(Failure::Unknown { .. }) => return Some("an outcome was unknown"),
        Err(Failure::Refused { status, .. }) => {
            let is_fair = is_fair(history, sessions, operation, at, *status);
            return (!is_fair).then_some("a well-formed request was refused");
        }
    };
    (consistency == Consistency::Weak && !wants_weak).then_some("an answer was weak")
}

/// Returns the times and kinds of a stream's interruptions.
fn interruptions(
    history: &History,
    sessions: &Sessions,
    stream: &StreamLog,
) -> Vec<(Duration, &'static str)> {
    let left = sessions.leaves(stream.who);
    let is_own_doing = |at: Duration| left.is_some_and(|left| left <= at);
    let reader = stream.reader.and_then(|reader| history.readers.get(reader));
    let is_strange = reader.is_some_and(|reader| reader.kind == ReaderKind::Stranger);
    let mut found = Vec::new();
    // A slow reader takes events long after they were sent: when is not known.
    let timely = stream.deliveries.iter().filter(|_| !stream.is_slow);
    for (at, delivery) in timely {
        match &delivery.event {
            StreamEvent::Reset(_) if !is_strange && !is_of_another_epoch(stream, delivery) => {
                found.push((*at, "was reset"));
            }
            StreamEvent::State(StateEvent { consistency: Consistency::Weak }) => {
                found.push((*at, "went weak"))
            }
            StreamEvent::Bye(_) if !is_own_doing(*at) => {
                found.push((*at, "was sent away"));
            }
            _ => {}
        }
    }
    match &stream.end {
        Some((at, why)) if *why != StreamEnd::Left && !stream.is_slow && !is_own_doing(*at) => {
            found.push((*at, "ended"));
        }
        _ => {}
    }
    if let Some((at, _)) = &stream.refused
        && !is_own_doing(*at)
    {
        found.push((*at, "was refused"));
    }
    found
}

/// Returns whether a stream was asked for from a cursor of another epoch than that of a delivery: its
/// reader was away while the store was restored. Whether it was is judged with the streams (G5).
fn is_of_another_epoch(stream: &StreamLog, delivery: &Delivery) -> bool {
    match (&stream.cursor, &delivery.cursor) {
        (Some(asked), Some(given)) => asked.epoch != given.epoch,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::{ByeEvent, Problem, ResetEvent},
        model::{
            ids::{BoardName, Registration, Resource, Token},
            stream::{ByeReason, ResetReason},
        },
    };

    use super::*;
    use crate::{
        history::{Kept, Oddity},
        oracle::fixtures::{Fixture, busy, id, located, ms, node, refused, who},
    };

    #[test]
    fn calm_final_answers_and_trouble_near_a_fault_are_accepted() {
        let mut made = Fixture::new();
        made.trouble(30_000, 32_000);
        made.acked(0, 1, 20_000, 20_400, 1);
        made.did(0, 5000, 14_000, Fixture::request(2), busy(503));
        made.did(0, 29_500, 31_000, Fixture::request(3), busy(503));
        made.did(0, 46_000, 46_900, Fixture::request(4), busy(429));
        made.unknown(0, 5, 59_500);
        made.read(0, 20_500, 20_600, Consistency::Strong, &[(0, 1, 1)]);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn unsettled_late_weak_or_missing_answer_is_reported() {
        for (status, answer) in [
            (202, Ok(Answer::Pending { copies: 2 })),
            (429, busy(429)),
            (401, refused(401)),
            (404, refused(404)),
            (504, Err(Failure::Unknown { status: Some(504), why: Problem::default().to_string() })),
        ] {
            let mut made = Fixture::new();
            made.did(0, 20_000, 20_100, Fixture::request(1), answer);
            assert_eq!(made.breaks(judge, "g00.unsettled"), 1, "{status}");
        }
        let mut made = Fixture::new();
        made.acked(0, 1, 20_000, 21_001, 1).unknown(1, 2, 30_000);
        made.read(0, 40_000, 40_001, Consistency::Weak, &[(0, 1, 1)]);
        assert_eq!(made.breaks(judge, "g00.unsettled"), 3);
    }

    #[test]
    fn kept_connection_without_an_answer_or_a_close_is_reported() {
        for (end, took, found) in [
            (KeptEnd::Answered(200), 20, 0),
            (KeptEnd::Closed, 20, 0),
            (KeptEnd::Answered(400), 20, 1),
            (KeptEnd::Answered(200), 1001, 1),
            (KeptEnd::Silent, 5000, 1),
        ] {
            let mut made = Fixture::new();
            let (who, idle) = (who(0), ms(9000));
            let (asked, ended) = (ms(20_000), ms(20_000 + took));
            let master = "http://m".to_owned();
            made.history.kept.push(Kept { who, master, idle, asked, ended, end });
            assert_eq!(located(&made.judge(judge)), vec!["g00.kept"; found], "{end:?} {took}");
        }
    }

    #[test]
    fn malformed_request_without_a_refusal_is_reported() {
        for (status, found) in [(Some(400), 0), (Some(413), 0), (Some(200), 1), (None, 1)] {
            let mut made = Fixture::new();
            let (who, what, sent) = (who(0), "a bad id", ms(20_000));
            made.history.oddities.push(Oddity { who, what, sent, status });
            assert_eq!(located(&made.judge(judge)), vec!["g00.odd"; found], "{status:?}");
        }
    }

    #[test]
    fn unanswered_weak_read_is_reported() {
        let weak = || Request::Read {
            board: BoardName::lobby(),
            range: chatchat::model::rows::Range::Last,
            limit: 50,
            wanted: Consistency::Weak,
        };
        let mut made = Fixture::new();
        made.did(0, 20_000, 20_100, weak(), busy(503));
        made.did(0, 20_000, 20_100, weak(), busy(429)).asked(0, 30_000, weak(), None);
        assert_eq!(made.judge(judge).len(), 3);
    }

    #[test]
    fn effects_of_a_persons_own_actions_are_accepted() {
        let mut made = Fixture::new();
        made.did(0, 20_000, 20_100, Request::Leave, Ok(Answer::Done));
        made.did(0, 20_050, 20_200, Request::Alive, refused(401));
        made.did(1, 20_000, 20_100, Request::Cancel { id: id(1) }, Ok(Answer::Fate(None)));
        made.did(1, 20_100, 20_300, Fixture::request(1), refused(410));
        let bye = StreamEvent::Bye(ByeEvent {
            reason: ByeReason::LoggedOut,
            to: Vec::new(),
            retry_ms: 0,
        });
        made.stream(0, 0, vec![(20_100, bye.clone())]);
        assert_eq!(made.judge(judge), []);
        made.stream(1, 0, vec![(20_100, bye)]);
        assert_eq!(made.judge(judge).len(), 1, "nobody logged person 1 out");
    }

    #[test]
    fn weak_state_in_calm_is_reported_unless_a_slow_reader_takes_it_late() {
        let mut made = Fixture::new();
        let weak = StreamEvent::State(StateEvent { consistency: Consistency::Weak });
        made.stream(0, 0, vec![(20_100, weak.clone())]).stream(1, 0, vec![(20_100, weak)]);
        assert_eq!(made.breaks(judge, "g00.stream"), 2);
        made.history.streams[0].is_slow = true;
        assert_eq!(made.breaks(judge, "g00.stream"), 1);
    }

    #[test]
    fn reset_in_calm_is_reported_unless_the_cursor_is_of_the_epoch_before() {
        let mut made = Fixture::new();
        let reset = StreamEvent::Reset(ResetEvent { reason: ResetReason::Epoch });
        made.stream(1, 3, vec![(20_100, reset)]);
        assert_eq!(made.breaks(judge, "g00.stream"), 1);
        let cursor = made.history.streams[0].cursor.as_mut().expect("it has one");
        cursor.epoch.0 -= 1;
        assert_eq!(made.judge(judge), []);
        made.history.streams[0].cursor = None;
        assert_eq!(made.breaks(judge, "g00.stream"), 1, "it was there when the epoch began");
    }

    #[test]
    fn reassignment_or_ended_stream_in_calm_is_reported() {
        let mut made = Fixture::new();
        let assign = |attempt| Event::Assign {
            worker: node(1),
            registration: Registration(1),
            resource: Resource::Board(BoardName::lobby()),
            token: Token::default(),
            after: None,
            posts: Vec::new(),
            attempt,
        };
        made.said(20_000, "master:0", assign(1)).said(3000, "master:0", assign(2));
        assert_eq!(made.judge(judge), []);
        made.said(20_000, "master:0", assign(2));
        made.stream(1, 0, Vec::new());
        made.history.streams[0].end = Some((ms(25_000), StreamEnd::Ended));
        assert_eq!(made.rules(judge), ["g00.stream", "g00.event"]);
    }

    #[test]
    fn worker_that_is_declared_failed_in_calm_is_reported() {
        let fail = || {
            let why = String::new();
            Event::Fail { node: node(1), registration: Registration(1), why }
        };
        let mut made = Fixture::new();
        made.trouble(30_000, 32_000);
        made.said(3000, "master:0", fail()).said(33_000, "master:0", fail());
        assert_eq!(made.judge(judge), []);
        made.said(20_000, "master:0", fail());
        assert_eq!(made.rules(judge), ["g00.event"]);
    }
}
