//! G6, epochs: what people are told of the store is of an epoch that it had. Only a restore begins a new one,
//! nobody is told of that before, and none but nodes that may not have heard of it tell of the one before.
//!
//! 1. A strong answer is of an epoch that the store had while it was asked for.
//! 2. A slow reader takes what a stream said long before: of it only the beginning of an epoch is judged.

use chatchat::{api::StreamEvent, client::Delivery, model::ids::StoreEpoch};

use super::{
    Clue, Evidence, Violation, broken, epochs::Epochs, g04_pages::is_strong, line, moved_line,
    stream_line, told::epoch_of,
};
use crate::{history::Operation, property::Property};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let (history, epochs) = (evidence.history, Epochs::read(evidence));
    let mut found = Vec::new();
    let mut tell = |text: String, clue: Clue| {
        found.push(broken(Property::G6, "epoch", text, [clue]));
    };
    let last = evidence.store.epoch;
    if epochs.ids().last() != Some(last) {
        let why = "no restore began it";
        tell(format!("the store ends in epoch {last}"), Clue::from(why.to_owned()));
    }
    let own = history.operations.iter().map(|it| (it, line as fn(&Operation) -> Clue));
    // A session that a ticket gave is its user's too.
    let moved = history.moved().map(|it| (it, moved_line as fn(&Operation) -> Clue));
    for (operation, show) in own.chain(moved) {
        let Some((at, reply)) = operation.reply() else { continue };
        let Some(epoch) = epoch_of(reply) else { continue };
        let is_right = if is_strong(operation) {
            epochs.was(epoch, operation.invoked, at)
        } else {
            epochs.may_be_told(epoch, at)
        };
        if !is_right {
            tell(format!("an answer is of epoch {epoch}"), show(operation));
        }
    }
    for stream in &history.streams {
        for (at, delivery) in &stream.deliveries {
            let Some(epoch) = begins_in(delivery) else { continue };
            let is_right = match stream.is_slow {
                true => epochs.has_begun(epoch, *at),
                false => epochs.may_be_told(epoch, *at),
            };
            if !is_right {
                tell(format!("a stream goes on in epoch {epoch}"), stream_line(stream, *at));
            }
        }
    }
    found
}

/// Returns the epoch in which a stream begins, or goes on after a reset, with a delivery.
fn begins_in(delivery: &Delivery) -> Option<StoreEpoch> {
    match &delivery.event {
        StreamEvent::Hello(hello) => Some(hello.cursor.epoch),
        StreamEvent::Reset(_) => delivery.cursor.as_ref().map(|cursor| cursor.epoch),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::{ResetEvent, SessionRestored},
        client::{Answer, Request},
        model::{
            ids::Cursor,
            stream::{Consistency, ResetReason},
        },
    };

    use super::*;
    use crate::oracle::fixtures::{
        EPOCH, Fixture, hello, lobby_cursor, located, moved, opened, restored,
    };

    const NEXT: StoreEpoch = StoreEpoch(EPOCH.0 + 1);
    const WRONG: &[&str] = &["g06.epoch"];
    const NONE: &[&str] = &[];

    /// Makes a run in which the store is restored at 20 s, so that all nodes have heard of it by 36 s.
    fn with_a_restore() -> Fixture {
        let mut made = Fixture::new();
        made.restored_at(20_000);
        made
    }

    /// Judges an answer of an epoch, which was asked for at a time and came 100 ms later.
    fn answered(
        mut made: Fixture,
        at: u64,
        epoch: StoreEpoch,
        consistency: Consistency,
    ) -> Vec<String> {
        let answer = SessionRestored { epoch, ..restored(0, consistency) };
        made.did(0, at, at + 100, Request::Restore, Ok(Answer::Restored(answer)));
        located(&made.judge(judge))
    }

    #[test]
    fn strong_answer_is_of_an_epoch_that_the_store_had_meanwhile() {
        let strong = |at, epoch| answered(with_a_restore(), at, epoch, Consistency::Strong);
        for at in [10_000, 19_950, 20_000] {
            assert_eq!(strong(at, EPOCH), NONE, "{at}");
        }
        assert_eq!(strong(20_001, EPOCH), WRONG, "it was over when it was asked for");
        for at in [19_900, 19_950, 30_000] {
            assert_eq!(strong(at, NEXT), NONE, "{at}");
        }
        assert_eq!(strong(19_899, NEXT), WRONG, "it had not begun when it was answered");
    }

    #[test]
    fn other_answers_may_be_of_the_epoch_before_until_all_have_heard_of_the_restore() {
        let weak = |at, epoch| answered(with_a_restore(), at, epoch, Consistency::Weak);
        for (at, epoch, found) in [
            (19_899, NEXT, WRONG),
            (19_900, NEXT, NONE),
            (35_900, EPOCH, NONE),
            (35_901, EPOCH, WRONG),
            (50_000, NEXT, NONE),
        ] {
            assert_eq!(weak(at, epoch), found, "{at} {epoch}");
        }
        let mut made = with_a_restore();
        let name = "Ada".parse().expect("a name");
        made.did(0, 21_000, 21_100, Request::OpenSession { name }, Ok(opened_in(EPOCH)));
        assert_eq!(made.judge(judge), [], "its surroundings were read before");
    }

    fn opened_in(epoch: StoreEpoch) -> Answer {
        let mut answer = opened(0, "Ada");
        answer.epoch = epoch;
        Answer::Opened(answer)
    }

    #[test]
    fn epoch_that_no_restore_began_is_reported() {
        for consistency in [Consistency::Strong, Consistency::Weak] {
            assert_eq!(answered(Fixture::new(), 20_000, EPOCH, consistency), NONE);
            assert_eq!(answered(Fixture::new(), 20_000, NEXT, consistency), WRONG);
        }
        let mut made = Fixture::new();
        let answer = SessionRestored { epoch: NEXT, ..restored(0, Consistency::Weak) };
        made.did(0, 300, 400, Request::Restore, Ok(Answer::Restored(answer)));
        let used = made.history.operations.split_off(0);
        made.history.handovers.push(moved(used));
        assert_eq!(located(&made.judge(judge)), WRONG, "of a session that a ticket gave");
        let mut made = with_a_restore();
        made.store.epoch = StoreEpoch(NEXT.0 + 1);
        assert_eq!(made.rules(judge), WRONG, "the store itself");
    }

    #[test]
    fn stream_begins_and_goes_on_in_an_epoch_that_may_be_told() {
        let reset = StreamEvent::Reset(ResetEvent { reason: ResetReason::Epoch });
        for (at, epoch, found) in [
            (19_999, NEXT, WRONG),
            (20_000, NEXT, NONE),
            (36_000, EPOCH, NONE),
            (36_001, EPOCH, WRONG),
        ] {
            let mut made = with_a_restore();
            made.stream(1, 3, vec![(at, hello(3))]).stream(1, 3, vec![(at, reset.clone())]);
            let [first, second] = &mut made.history.streams[..] else { panic!("two streams") };
            let StreamEvent::Hello(hello) = &mut first.deliveries[0].1.event else {
                panic!("a hello");
            };
            hello.cursor.epoch = epoch;
            second.deliveries[0].1.cursor = Some(Cursor { epoch, ..lobby_cursor(3) });
            let both = found.repeat(2);
            assert_eq!(located(&made.judge(judge)), both, "{at} {epoch}");
            made.history.streams.iter_mut().for_each(|stream| stream.is_slow = true);
            let late = if epoch == EPOCH { Vec::new() } else { both };
            assert_eq!(located(&made.judge(judge)), late, "{at} {epoch}, taken late");
        }
    }
}
