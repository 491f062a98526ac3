//! G16, dead letters: a retry or a drop that is put off, by 429 or 503, as one that is refused, has done nothing
//! with its post.
//!
//! 1. A post was made by a retry if the batch that wrote it was given out when no send of it was under way any
//!    more. Once its author was told that it is a dead letter, the master that was asked has no task for it, so
//!    a batch that this master gives out later comes of a retry.
//! 2. So judged are posts all of whose sends were made at the master that gave the batch out, and ended as dead
//!    letters, but for those that did nothing. What another master has of a post, or a worker on its disk, may be
//!    written at any time.
//! 3. A retry that is told that its post is cancelled shows that somebody cancelled it: its author, or an operator
//!    by a drop.
//! 4. Runs in which the store was set back are left out: what it said before is not its last word. What a
//!    stranger may have said again is nobody's fault.

use chatchat::{
    client::{Failure, Request},
    model::ids::{Post, PostId},
};

use super::{
    Clue, EventLine, Evidence, Violation, broken,
    g09_letters::given_up,
    g16_overload::{SLACK, given, may_be_repeated},
};
use crate::{
    history::{Operation, OperatorCall},
    property::Property,
};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    if evidence.is_set_back() {
        return Vec::new();
    }
    let mut found = retried(evidence);
    found.extend(cancelled(evidence));
    found
}

/// Posts that a retry made that was said to have done nothing.
fn retried(evidence: &Evidence<'_>) -> Vec<Violation> {
    let given = given(evidence);
    let mut found = Vec::new();
    for post in evidence.store.boards.values().flatten() {
        let Some(said) = given.get(&(&post.board, post.id)) else { continue };
        let is_it = |call: &&OperatorCall| {
            matches!(call.request, Request::RetryDeadLetter { .. })
                && call.post() == Some((post.author.id, post.id))
                && call.invoked <= said.at + SLACK
        };
        let retries: Vec<_> = evidence.history.operator.iter().filter(is_it).collect();
        if !retries.is_empty()
            && retries.iter().all(|call| call.did_nothing())
            && is_given_up(evidence, post, said)
        {
            let Post { id, board, seq, .. } = post;
            let text = format!(
                "post {id} of a dead letter was written as {board} {seq}, and every retry was said to \
                 have done nothing"
            );
            let told = retries.iter().map(|call| Clue::from(call.to_string()));
            found.push(broken(Property::G16, "retried", text, told.chain([said.clue()])));
        }
    }
    found
}

/// Returns whether all sends of a post that may have done something were made at the master of a line, and had
/// ended as dead letters before it.
fn is_given_up(evidence: &Evidence<'_>, post: &Post, said: &EventLine) -> bool {
    let Some(master) = said.place() else { return false };
    let id = post.id;
    let sends = || calls(evidence).filter(move |op| is_send_of(op, id));
    let is_over = |op: &Operation| {
        given_up(op).is_some_and(|(at, _)| at + SLACK < said.at)
            && evidence.master_at(&op.master) == Some(master)
    };
    evidence.doubled_from(master).is_none_or(|from| from > said.at)
        && !sends().any(|op| may_be_repeated(evidence, op, Some(said.at)))
        && sends().any(is_over)
        && sends().all(|op| op.did_nothing() || is_over(op))
}

/// Calls of people, also of sessions that were moved.
fn calls<'a>(evidence: &Evidence<'a>) -> impl Iterator<Item = &'a Operation> {
    evidence.history.operations.iter().chain(evidence.history.moved())
}

fn is_send_of(operation: &Operation, post: PostId) -> bool {
    matches!(&operation.request, Request::Post { id, .. } if *id == post)
}

/// Posts that a retry showed to be cancelled, and that only drops and cancels can have cancelled that were said
/// to have done nothing.
fn cancelled(evidence: &Evidence<'_>) -> Vec<Violation> {
    let history = evidence.history;
    let mut found = Vec::new();
    for call in &history.operator {
        let Some((at, Err(Failure::Refused { status: 410, .. }))) = &call.end else { continue };
        if !matches!(call.request, Request::RetryDeadLetter { .. }) {
            continue;
        }
        let Some(key @ (_, id)) = call.post() else { continue };
        let is_dropped = history.drops().any(|(drop, post)| post == key && drop.invoked <= *at);
        let mut cancels = calls(evidence).filter(|op| op.request == Request::Cancel { id });
        let is_cancelled = cancels.any(|op| {
            op.invoked <= *at && !op.did_nothing() || may_be_repeated(evidence, op, Some(*at))
        });
        if !is_dropped && !is_cancelled {
            let text =
                format!("post {id} of a dead letter is cancelled, and no call may have done that");
            let of_post = history.operator.iter().filter(|call| call.post() == Some(key));
            let told = of_post.map(|call| Clue::from(call.to_string()));
            found.push(broken(Property::G16, "dropped", text, told));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::{api::DeadLetter, client::Answer};

    use super::*;
    use crate::oracle::fixtures::{
        Fixture, assigned, busy, dead_letter, id, letter, ms, posted, refused, unsettled,
    };

    /// Answer to a call.
    type Told = Result<Answer, Failure>;

    /// The first person is told at 200 ms, by the first master, that its post is a dead letter.
    fn given_up_post() -> Fixture {
        let mut made = Fixture::new();
        made.history.masters = ["http://m", "http://n"].map(str::to_owned).to_vec();
        made.did(0, 100, 200, Fixture::request(1), dead_letter());
        made
    }

    /// Has the post written from a batch that a master gave out at a time.
    fn written(made: &mut Fixture, at: u64, by: &str) -> Vec<String> {
        made.said(at, by, assigned(1, 1, &[1], 1)).write("write", 1, 1, 1).stored(0, 1);
        made.rules(judge)
    }

    /// The letter is retried from 900 ms on, with this answer.
    fn retried(answer: Told) -> Fixture {
        let mut made = given_up_post();
        made.operated(Some(letter(0, 1)), 900, answer);
        made
    }

    #[test]
    fn post_that_a_retry_made_that_was_put_off_or_refused_is_reported() {
        for answer in [busy(503), busy(429), refused(404)] {
            assert_eq!(written(&mut retried(answer), 950, "master:0"), ["g16.retried"]);
        }
        let mut twice = retried(busy(503));
        twice.operated(Some(letter(0, 1)), 3000, Ok(Answer::Posted(posted(0, 1, 1))));
        assert_eq!(written(&mut twice, 950, "master:0"), ["g16.retried"], "the other came later");
        let mut put_off = retried(busy(503));
        put_off.did(0, 500, 600, Fixture::request(1), busy(503));
        assert_eq!(written(&mut put_off, 950, "master:0"), ["g16.retried"], "so did this");
    }

    #[test]
    fn post_that_another_call_may_have_made_is_accepted() {
        for answer in [Ok(Answer::Posted(posted(0, 1, 1))), unsettled()] {
            assert_eq!(written(&mut retried(answer), 950, "master:0"), [""; 0]);
        }
        assert_eq!(written(&mut retried(busy(503)), 950, "master:1"), [""; 0], "it had it, too");
        assert_eq!(written(&mut retried(busy(503)), 500, "master:0"), [""; 0], "before the retry");
        let others: [fn(&mut Fixture); 6] = [
            |made| {
                // Its author is told so late that the batch may be of its send.
                let end = made.history.operations[0].end.as_mut().expect("it ended");
                end.0 = ms(940);
            },
            |made| {
                made.unknown(0, 1, 300);
            },
            |made| {
                made.did(0, 300, 400, Fixture::request(1), unsettled());
            },
            |made| {
                let held = Ok(Answer::Pending { copies: 2 });
                made.did(0, 300, 400, Fixture::request(1), held);
            },
            |made| {
                made.did(0, 300, 400, Fixture::request(1), dead_letter());
                let last = made.history.operations.last_mut().expect("just added");
                last.master = "http://n".to_owned();
            },
            |made| {
                made.operated(Some(letter(0, 1)), 700, unsettled());
            },
        ];
        for (nth, other) in others.into_iter().enumerate() {
            let mut made = retried(busy(503));
            other(&mut made);
            assert_eq!(written(&mut made, 950, "master:0"), [""; 0], "{nth}");
        }
        let mut moved = retried(busy(503));
        moved.unknown(0, 1, 300);
        let used = moved.history.operations.pop().expect("just added");
        moved.history.handovers.push(crate::oracle::fixtures::moved(vec![used]));
        assert_eq!(written(&mut moved, 950, "master:0"), [""; 0], "of a session that was moved");
    }

    /// The post is given up, something happens, and a retry from 900 ms to 1 s is told that it is cancelled.
    fn cancelled(change: impl FnOnce(&mut Fixture)) -> Vec<String> {
        let mut made = given_up_post();
        change(&mut made);
        made.operated(Some(letter(0, 1)), 900, refused(410)).rules(judge)
    }

    fn dropped(letter: DeadLetter, at: u64, answer: Told) -> impl FnOnce(&mut Fixture) {
        move |made: &mut Fixture| {
            made.dropped(letter, at, answer);
        }
    }

    #[test]
    fn cancel_by_a_drop_that_was_put_off_or_by_nobody_is_reported() {
        assert_eq!(cancelled(|_| ()), ["g16.dropped"]);
        for answer in [busy(503), busy(429), refused(404)] {
            assert_eq!(cancelled(dropped(letter(0, 1), 500, answer)), ["g16.dropped"]);
        }
        let done: Told = Ok(Answer::Done);
        for (of, at) in [(letter(0, 2), 500), (letter(1, 1), 500), (letter(0, 1), 1001)] {
            let text = format!("{of:?} at {at}");
            assert_eq!(cancelled(dropped(of, at, done.clone())), ["g16.dropped"], "{text}");
        }
        let put_off = |made: &mut Fixture| {
            made.did(0, 500, 600, Request::Cancel { id: id(1) }, busy(503));
        };
        assert_eq!(cancelled(put_off), ["g16.dropped"]);
    }

    #[test]
    fn cancel_that_a_drop_or_its_author_may_have_asked_for_is_accepted() {
        for answer in [Ok(Answer::Done), unsettled()] {
            assert_eq!(cancelled(dropped(letter(0, 1), 500, answer)), [""; 0]);
        }
        let asked = |made: &mut Fixture| {
            made.asked(0, 500, Request::Cancel { id: id(1) }, None);
        };
        assert_eq!(cancelled(asked), [""; 0]);
    }

    #[test]
    fn what_a_stranger_may_have_said_again_and_stores_that_were_set_back_are_accepted() {
        let judged = |kind: &str, keys: &str| {
            let mut made = Fixture::with_faults(&[(kind, keys, 350, 9000)]);
            made.history = given_up_post().history;
            made.did(0, 300, 400, Request::Cancel { id: id(1) }, busy(503));
            made.did(0, 300, 400, Fixture::request(1), busy(503));
            made.operated(Some(letter(0, 1)), 700, refused(410));
            made.operated(Some(letter(0, 1)), 900, busy(503));
            written(&mut made, 950, "master:0")
        };
        assert_eq!(judged("stranger", "to = \"master:0\""), [""; 0]);
        assert_eq!(judged("rollback", "target = \"store\"\nby = \"1s\""), [""; 0]);
        let both = ["g16.retried", "g16.dropped"];
        assert_eq!(judged("stranger", "to = \"master:1\""), both, "it speaks to another one");
        assert_eq!(judged("rollback", "target = \"worker:0\"\nby = \"1s\""), both);
    }
}
