//! G5, unreadable cursors: a stream from a cursor that does not parse says so by `reset` before it
//! shows a post, and in calm it does so at once.
//!
//! A stream that goes on from the board's end without a word leaves a hole that nobody knows of. A
//! session that ended meanwhile is refused with 401, and a plain 400 says as much as a reset.

use chatchat::model::stream::ResetReason;

use super::{Evidence, Violation, broken, deed};
use crate::{history::UnreadableTold, property::Property};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for asked in &evidence.history.unreadable {
        let is_broken = match &asked.told {
            UnreadableTold::Reset(ResetReason::Malformed)
            | UnreadableTold::Refused(Some(400 | 401)) => false,
            // It shows the end without a word, or says something else of the cursor.
            UnreadableTold::Post | UnreadableTold::Reset(_) => true,
            UnreadableTold::Refused(_) | UnreadableTold::Nothing => {
                evidence.is_calm(asked.asked, asked.ended.max(asked.asked + evidence.calm_limit))
            }
        };
        if is_broken {
            let text =
                format!("a stream from the cursor {:?} was told {:?}", asked.cursor, asked.told);
            let what = format!("{} asked {} for it", asked.who, asked.master);
            let clue = deed(asked.who.person, asked.asked, &what);
            found.push(broken(Property::G5, "unreadable", text, [clue]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::Unreadable,
        oracle::fixtures::{Fixture, located, ms, who},
    };

    fn told(told: UnreadableTold) -> Fixture {
        let mut made = Fixture::new();
        let (master, cursor) = ("http://m".to_owned(), "7;lobby".to_owned());
        let (asked, ended) = (ms(20_000), ms(20_100));
        made.history.unreadable.push(Unreadable {
            who: who(1),
            master,
            cursor,
            asked,
            ended,
            told,
        });
        made
    }

    #[test]
    fn reset_for_the_cursor_and_a_refusal_of_it_or_of_the_session_are_accepted() {
        for fair in [
            UnreadableTold::Reset(ResetReason::Malformed),
            UnreadableTold::Refused(Some(400)),
            UnreadableTold::Refused(Some(401)),
        ] {
            assert_eq!(told(fair).judge(judge), []);
        }
    }

    #[test]
    fn post_without_reset_and_another_reason_are_reported_also_under_faults() {
        for foul in [UnreadableTold::Post, UnreadableTold::Reset(ResetReason::Ahead)] {
            let mut made = told(foul);
            made.trouble(18_000, 38_000);
            assert_eq!(located(&made.judge(judge)), ["g05.unreadable"]);
        }
    }

    #[test]
    fn silence_and_another_refusal_are_reported_in_calm_alone() {
        for foul in [
            UnreadableTold::Nothing,
            UnreadableTold::Refused(None),
            UnreadableTold::Refused(Some(503)),
        ] {
            let mut made = told(foul);
            assert_eq!(located(&made.judge(judge)), ["g05.unreadable"]);
            made.trouble(18_000, 38_000);
            assert_eq!(made.judge(judge), []);
        }
    }
}
