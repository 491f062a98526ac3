//! G16 overload is explicit: 429 and 503 carry `Retry-After`, and each of them, as every refusal,
//! means that this very request did nothing, whatever came later.
//!
//! A post was there before its first try that may have done something, or was given to the worker
//! that wrote it: then one of the tries that were said to have done nothing made it. The same goes
//! for a cancel, a board and a log-out. A stranger at a plain front end says what people said there before
//! it came, with their tokens: what it may have done is nobody's fault. Nor is what an operator cancelled
//! that dropped a dead letter.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::PostState,
    client::{Answer, Failure, Request},
    model::{
        event::Event,
        ids::{BoardName, PostId, Resource, Token, UserId},
    },
};

use super::{EventLine, Evidence, Violation, broken, line, told::Told, told::listed};
use crate::{
    fault::Kind,
    history::{Operation, Sent},
    property::Property,
};

/// How far apart the times of an event line and of an operation may be on real machines.
pub(super) const SLACK: Duration = Duration::from_millis(50);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = posts(evidence);
    found.extend(others(evidence));
    for operation in &evidence.history.operations {
        if let Some((_, Failure::Busy { retry_after: None, .. })) = operation.failure() {
            let text = "a request was put off without Retry-After";
            found.push(broken(Property::G16, "retry-after", text, [line(operation)]));
        }
    }
    found
}

fn posts(evidence: &Evidence<'_>) -> Vec<Violation> {
    let told = Told::read(evidence.history);
    let mut tries: BTreeMap<(UserId, PostId), Vec<Sent<'_>>> = BTreeMap::new();
    for sent in evidence.history.sent() {
        if let Some(user) = sent.user {
            tries.entry((user, sent.id)).or_default().push(sent);
        }
    }
    let given = given(evidence);
    let mut found = Vec::new();
    for post in evidence.store.boards.values().flatten() {
        let Some(sent) = tries.get(&(post.author.id, post.id)) else { continue };
        let acting = sent.iter().filter(|one| !one.operation.did_nothing());
        let given = given.get(&(&post.board, post.id)).map(|said| said.at + SLACK);
        let since = told.since(&post.board, post.seq).into_iter().chain(given).min();
        if sent.iter().any(|one| may_be_repeated(evidence, one.operation, since)) {
            continue;
        }
        let text = match (acting.map(|one| one.operation.invoked).min(), since) {
            (None, _) => format!(
                "post {} is {} {}, and every try was said to have done nothing",
                post.id, post.board, post.seq
            ),
            (Some(first), Some(since)) if since < first => format!(
                "post {} was {} {} by {since:?}; all tries before {first:?} were said to have \
                 done nothing",
                post.id, post.board, post.seq
            ),
            _ => continue,
        };
        let clues = sent.iter().map(|one| line(one.operation));
        found.push(broken(Property::G16, "did-something", text, clues));
    }
    found
}

/// Returns whether a stranger may have said an operation's request again before a time: it knows what was
/// said until it came, and says it at the front ends that heard it, if any takes its connections.
pub(super) fn may_be_repeated(
    evidence: &Evidence<'_>,
    of: &Operation,
    by: Option<Duration>,
) -> bool {
    // One that is unknown may be any.
    let master = evidence.master_at(&of.master);
    evidence.incidents.iter().any(|incident| {
        evidence.kind_of(incident) == Some(Kind::Stranger)
            // Whether it was heard is known once it is gone.
            && (incident.bit || incident.until.is_none())
            && of.invoked <= incident.from + SLACK
            && by.is_none_or(|by| incident.from <= by)
            && master.is_none_or(|at| evidence.incidents_at(at).any(|it| it == incident))
    })
}

/// Returns the first line by which each post was given to a worker in the batch that wrote it.
pub(super) fn given<'a>(
    evidence: &Evidence<'a>,
) -> BTreeMap<(&'a BoardName, PostId), &'a EventLine> {
    let mut batches: BTreeMap<(&BoardName, Token), (&EventLine, &[PostId])> = BTreeMap::new();
    for said in evidence.events {
        if let Event::Assign { resource: Resource::Board(board), token, posts, .. } = &said.event {
            batches.entry((board, *token)).or_insert((said, posts));
        }
    }
    let mut given = BTreeMap::new();
    // A later write of the same post found it there.
    for write in evidence.store.writes.iter().filter(|write| write.kind != "grant") {
        let Resource::Board(board) = &write.resource else { continue };
        let Some((said, posts)) = batches.get(&(board, write.token)) else { continue };
        for post in *posts {
            given.entry((board, *post)).or_insert(*said);
        }
    }
    given
}

/// Cancels, boards and log-outs that only requests can have made that did nothing.
fn others(evidence: &Evidence<'_>) -> Vec<Violation> {
    let operations = &evidence.history.operations;
    let may_have = |by: Duration, is_it: &dyn Fn(&Operation) -> bool| {
        let may_have = |op: &Operation| {
            op.invoked <= by && !op.did_nothing() || may_be_repeated(evidence, op, Some(by))
        };
        operations.iter().any(|op| is_it(op) && may_have(op))
    };
    let mut created: BTreeMap<&BoardName, Duration> = BTreeMap::new();
    for operation in operations.iter().filter(|op| !op.did_nothing()) {
        if let Request::CreateBoard { board } = &operation.request {
            let first = created.entry(board).or_insert(operation.invoked);
            *first = operation.invoked.min(*first);
        }
    }
    let mut found = Vec::new();
    for operation in operations {
        let cancelled = match (&operation.request, &operation.reply(), operation.failure()) {
            (_, Some((at, Answer::Fate(Some(PostState::Cancelled { id })))), _) => Some((*at, *id)),
            (Request::Post { id, .. }, _, Some((at, Failure::Refused { status: 410, .. }))) => {
                Some((at, *id))
            }
            _ => None,
        };
        if let Some((at, id)) = cancelled
            && !may_have(at, &|op| {
                op.who.person == operation.who.person && op.request == Request::Cancel { id }
            })
            && !evidence.history.may_be_dropped(operation.who, id, at)
        {
            let text = format!("post {id} is cancelled, and no cancel may have done that");
            found.push(broken(Property::G16, "cancelled", text, [line(operation)]));
        }
        let Some((at, _)) = operation.reply() else { continue };
        for board in listed(operation).iter().filter(|board| board.name != BoardName::lobby()) {
            let is_creation =
                |op: &Operation| op.request == Request::CreateBoard { board: board.name.clone() };
            if created.get(&board.name).is_none_or(|first| *first > at)
                && !may_have(at, &is_creation)
            {
                let text = format!("{} is there, and no request may have made it", board.name);
                found.push(broken(Property::G16, "board", text, [line(operation)]));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::{Board, BoardList, Problem},
        model::{ids::Seq, stream::Consistency},
    };

    use super::*;
    use crate::{
        oracle::fixtures::{
            EPOCH, Fixture, assigned, busy, delivered, id, letter, refused, unsettled,
        },
        plan::Incident,
    };

    #[test]
    fn post_refused_for_overload_and_sent_again_is_accepted() {
        let mut made = Fixture::new();
        made.did(0, 100, 200, Fixture::request(1), busy(503));
        assert_eq!(made.judge(judge), []);
        made.acked(0, 1, 300, 400, 1).stored(0, 1);
        made.stream(1, 0, vec![(350, delivered(0, 1, 1))]);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn post_that_was_only_refused_and_is_stored_is_reported() {
        let mut made = Fixture::new();
        made.did(0, 100, 200, Fixture::request(1), busy(503)).stored(0, 1);
        assert_eq!(made.rules(judge), ["g16.did-something"]);
        let rude = Failure::Busy { status: 429, problem: Problem::default(), retry_after: None };
        made.did(0, 100, 200, Fixture::request(2), Err(rude));
        assert_eq!(made.rules(judge), ["g16.did-something", "g16.retry-after"]);
    }

    #[test]
    fn post_that_was_there_before_it_was_sent_again_is_reported() {
        let mut made = Fixture::new();
        made.did(0, 100, 200, Fixture::request(1), busy(503)).stored(0, 1);
        made.stream(1, 0, vec![(250, delivered(0, 1, 1))]);
        made.acked(0, 1, 300, 400, 1);
        assert_eq!(made.judge(judge).len(), 1, "shown before");
        let mut made = Fixture::new();
        made.did(0, 100, 200, Fixture::request(1), busy(503)).stored(0, 1).stored(1, 2);
        made.acked(1, 2, 210, 250, 2).acked(0, 1, 300, 400, 1);
        assert_eq!(made.judge(judge).len(), 1, "what stands after it was acked before");
    }

    #[test]
    fn what_a_stranger_may_have_said_again_is_accepted() {
        let judged = |from: u64, until: u64| {
            let stranger = ("stranger", "to = \"master:0\"", from, until);
            let mut made = Fixture::with_faults(&[stranger]);
            made.did(0, 5000, 5100, Fixture::request(1), busy(503)).stored(0, 1);
            made.stream(1, 0, vec![(5150, delivered(0, 1, 1))]);
            made.acked(0, 1, 5200, 5300, 1);
            made.rules(judge)
        };
        assert!(judged(5050, 9000).is_empty());
        assert_eq!(judged(1000, 4000), ["g16.did-something"], "it was gone before");
        assert_eq!(judged(5160, 9000), ["g16.did-something"], "it came later");
    }

    /// A cancel and a board that were put off at a front end are there at 5.3 s, and a stranger came.
    fn there(to: &str, from: u64, change: fn(&mut Incident)) -> Vec<String> {
        let keys = format!("to = \"{to}\"");
        let mut made = Fixture::with_faults(&[("stranger", keys.as_str(), from, 9000)]);
        made.incidents.iter_mut().for_each(change);
        made.history.masters = ["http://m", "http://n"].map(str::to_owned).to_vec();
        let board: BoardName = "dev".parse().unwrap();
        made.did(0, 5000, 5100, Request::Cancel { id: id(1) }, busy(503));
        made.did(0, 5000, 5100, Request::CreateBoard { board: board.clone() }, busy(503));
        made.did(0, 5200, 5300, Fixture::request(1), refused(410));
        let boards = vec![Board { name: board, last_seq: Seq(0), read_mark: Seq(0) }];
        let list = BoardList { boards, epoch: EPOCH, consistency: Consistency::Strong, as_of: 9 };
        made.did(1, 5200, 5300, Request::Boards, Ok(Answer::Boards(list)));
        made.rules(judge)
    }

    #[test]
    fn stranger_excuses_only_what_a_front_end_heard_before_that_hears_the_stranger() {
        let (same, both) = (|_: &mut Incident| (), ["g16.cancelled", "g16.board"]);
        assert_eq!(there("master:0", 5060, same), [""; 0]);
        assert_eq!(there("master:*", 5060, same), [""; 0]);
        assert_eq!(there("master:0", 5060, |stranger| stranger.until = None), [""; 0]);
        assert_eq!(there("master:1", 5060, same), both, "it speaks to another one");
        assert_eq!(there("master:0", 4000, same), both, "it did not hear of that");
        assert_eq!(there("master:0", 5310, same), both, "it came later");
        assert_eq!(there("master:0", 5060, |stranger| stranger.bit = false), both, "never taken");
    }

    #[test]
    fn post_that_was_written_from_a_try_that_was_put_off_is_reported() {
        let judged = |given: u64| {
            let mut made = Fixture::new();
            made.did(0, 100, 200, Fixture::request(1), busy(503)).stored(0, 1);
            made.acked(0, 1, 300, 400, 1);
            made.said(given, "master:0", assigned(1, 1, &[1], 1)).write("write", 1, 1, 1);
            made.judge(judge).len()
        };
        assert_eq!(judged(150), 1, "written from the first try");
        assert_eq!(judged(310), 0, "written from the second one");
    }

    #[test]
    fn cancel_that_was_put_off_and_is_there_is_reported() {
        let mut made = Fixture::new();
        made.did(0, 100, 200, Request::Cancel { id: id(1) }, busy(503));
        made.did(0, 300, 400, Fixture::request(1), refused(410));
        assert_eq!(made.rules(judge), ["g16.cancelled"]);
        let dropped = |by: u64, answer: Result<Answer, Failure>| {
            let mut other = Fixture::new();
            other.history = made.history.clone();
            other.dropped(letter(0, 1), by, answer).rules(judge)
        };
        for answer in [Ok(Answer::Done), unsettled()] {
            assert_eq!(dropped(390, answer.clone()), [""; 0], "an operator may have done it");
            assert_eq!(dropped(410, answer), ["g16.cancelled"], "no operator had asked");
        }
        for answer in [busy(503), busy(429), refused(404)] {
            assert_eq!(dropped(290, answer), ["g16.cancelled"], "it was said to have done nothing");
        }
        made.asked(0, 290, Request::Cancel { id: id(1) }, None);
        assert_eq!(made.judge(judge), [], "this one may have done it");
    }

    #[test]
    fn board_that_was_put_off_and_is_there_is_reported() {
        let create = || Request::CreateBoard { board: "dev".parse().unwrap() };
        let boards = [BoardName::lobby(), "dev".parse().unwrap()];
        let boards = boards.map(|name| Board { name, last_seq: Seq(0), read_mark: Seq(0) });
        let (boards, epoch, consistency) = (boards.to_vec(), EPOCH, Consistency::Weak);
        let list = BoardList { boards, epoch, consistency, as_of: 9 };
        let mut made = Fixture::new();
        made.did(0, 100, 200, create(), busy(503));
        made.did(1, 300, 400, Request::Boards, Ok(Answer::Boards(list)));
        made.asked(0, 410, create(), None);
        assert_eq!(made.rules(judge), ["g16.board"], "nobody asked again before it was there");
        made.asked(0, 390, create(), None);
        assert_eq!(made.judge(judge), [], "this one may have done it");
    }
}
