//! G4, pages: a page is exactly the slice of its board that was asked for, `min(limit, rest)`
//! posts long unless they fill it, and `last_seq` and `truncated` are right. A strong page, list
//! of boards or session goes at least as far as anybody had been told before it was asked for.
//!
//! That each post shown is the one of its place is judged with the order.

use chatchat::{
    api::PostList,
    client::{Answer, Request},
    model::{
        bounds::{PAGE_BYTES_MAX, post_len},
        ids::{BoardName, Seq},
        rows::Range,
        stream::Consistency,
    },
};

use super::{
    Evidence, Violation, broken, line,
    told::{Told, ends, listed},
};
use crate::{history::Operation, property::Property};

/// Most posts in one answer, whatever was asked for.
const LIMIT_MAX: u64 = 200;
/// Bytes of posts above which a weak page may be short: a node database gives less than the store.
const WEAK_BYTES: usize = PAGE_BYTES_MAX / 8;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let told = Told::read(evidence.history);
    let mut found = Vec::new();
    for operation in &evidence.history.operations {
        let mut tell = |rule, text: String| {
            found.push(broken(Property::G4, rule, text, [line(operation)]));
        };
        if let (Request::Read { board, range, limit, .. }, Some((_, Answer::Page(page)))) =
            (&operation.request, operation.reply())
            && let Some((rule, text)) = wrong_page(evidence, board, *range, *limit, page)
        {
            tell(rule, text);
        }
        for (board, end) in ends(operation) {
            let stored = evidence.store.boards.get(board).map_or(0, Vec::len) as u64;
            if end > Seq(stored) {
                tell("last-seq", format!("{board} was said to go to {end}, it goes to {stored}"));
            }
            let is_final = evidence.history.reading_from.is_some_and(|at| at <= operation.invoked);
            if is_strong(operation) && is_final && end < Seq(stored) {
                tell("unread", format!("{board} ended at {end} at last, it goes to {stored}"));
            }
            let floor = told.end_before(board, operation.invoked);
            if is_strong(operation) && end < floor {
                let text = format!("{board} ended at {end}, strong, when {floor} had been shown");
                tell("strong", text);
            }
        }
        if listed(operation).windows(2).any(|pair| pair[0].name >= pair[1].name) {
            tell("boards", "boards are listed twice or out of order".to_owned());
        }
        for board in listed(operation) {
            if !evidence.store.boards.contains_key(&board.name) {
                tell("boards", format!("{} is listed and not there", board.name));
            }
        }
    }
    found
}

/// Returns whether an answer says that the store was read after the request arrived.
pub(super) fn is_strong(operation: &Operation) -> bool {
    let consistency = match operation.reply() {
        Some((_, Answer::Page(page))) => page.consistency,
        Some((_, Answer::Boards(list))) => list.consistency,
        Some((_, Answer::Restored(restored))) => restored.consistency,
        Some((_, Answer::Users(users))) => users.consistency,
        _ => return false,
    };
    consistency == Consistency::Strong
}

/// Returns the rule that a page breaks, and how.
fn wrong_page(
    evidence: &Evidence<'_>,
    board: &BoardName,
    range: Range,
    limit: u32,
    page: &PostList,
) -> Option<(&'static str, String)> {
    let end = page.last_seq.0;
    let limit = u64::from(limit).min(LIMIT_MAX);
    let before = |seq: u64| {
        let last = seq.saturating_sub(1).min(end);
        (last - last.min(limit) + 1, last)
    };
    let (first, last) = match range {
        Range::After(seq) => (seq.0.saturating_add(1), end.min(seq.0.saturating_add(limit))),
        Range::Before(seq) => before(seq.0),
        Range::Last => before(end.saturating_add(1)),
    };
    let want = (last + 1).saturating_sub(first);
    let have = page.posts.len() as u64;
    let wanted = format!("{want} posts from {first} on of {board}, which ended at {end}");
    if have > want {
        return Some(("slice", format!("{have} posts instead of {wanted}")));
    }
    let from_end = !matches!(range, Range::After(_));
    let begins = if from_end { last + 1 - have } else { first };
    if (begins..).zip(&page.posts).any(|(seq, post)| post.seq != Seq(seq)) {
        return Some(("slice", format!("other posts than {wanted}")));
    }
    if have < want
        && !is_full(evidence, board, page, if from_end { begins - 1 } else { first + have })
    {
        return Some(("slice", format!("{have} posts instead of {wanted}")));
    }
    let has_more = match (range, page.posts.first(), page.posts.last()) {
        (Range::After(_), _, Some(last)) => last.seq.0 < end,
        (_, Some(first), _) => first.seq > Seq(1),
        _ => false,
    };
    (page.truncated != has_more)
        .then(|| ("truncated", format!("truncated is {}, wanted {wanted}", page.truncated)))
}

/// Returns whether the post that is next would not fit into a page, or may be one that node databases
/// have dropped.
fn is_full(evidence: &Evidence<'_>, board: &BoardName, page: &PostList, next: u64) -> bool {
    let bytes_max = match page.consistency {
        Consistency::Strong => PAGE_BYTES_MAX,
        Consistency::Weak => WEAK_BYTES,
    };
    let stored = evidence.store.boards.values().map(Vec::len).sum::<usize>();
    let is_older = page.posts.first().is_some_and(|first| first.seq > Seq(next));
    if page.consistency == Consistency::Weak
        && is_older
        && stored > evidence.plan.cluster.config.replica_posts_max
    {
        return true;
    }
    let shown = page.posts.iter().map(post_len).sum::<usize>();
    let next = evidence.store.post_at(board, Seq(next));
    !page.posts.is_empty() && next.is_some_and(|next| shown + post_len(next) > bytes_max)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chatchat::api::{Board, BoardList};

    use super::*;
    use crate::oracle::fixtures::{EPOCH, Fixture, posted};

    fn five() -> Fixture {
        Fixture::with_posts(5)
    }

    /// Makes a run of five posts with a page of these places.
    fn page(range: Range, limit: u32, shown: &[u64], last_seq: u64, truncated: bool) -> Fixture {
        let mut made = five();
        let board = BoardName::lobby();
        let request = Request::Read { board, range, limit, wanted: Consistency::Strong };
        let posts = shown.iter().map(|seq| posted(0, *seq as u8, *seq)).collect();
        let (last_seq, consistency) = (Seq(last_seq), Consistency::Strong);
        let page = PostList { posts, last_seq, epoch: EPOCH, consistency, as_of: 9, truncated };
        made.did(0, 20_000, 20_100, request, Ok(Answer::Page(page)));
        made
    }

    #[test]
    fn exact_slice_of_any_range_is_accepted() {
        for (range, limit, shown, truncated) in [
            (Range::Last, 3, &[3, 4, 5][..], true),
            (Range::Last, 50, &[1, 2, 3, 4, 5], false),
            (Range::After(Seq(2)), 2, &[3, 4], true),
            (Range::After(Seq(3)), 2, &[4, 5], false),
            (Range::After(Seq(9)), 2, &[], false),
            (Range::Before(Seq(4)), 2, &[2, 3], true),
            (Range::Before(Seq(3)), 2, &[1, 2], false),
            (Range::Before(Seq(1)), 2, &[], false),
            (Range::Before(Seq(90)), 2, &[4, 5], true),
        ] {
            let made = page(range, limit, shown, 5, truncated);
            assert_eq!(made.judge(judge), [], "{range:?} {limit}");
        }
    }

    #[test]
    fn page_that_is_shifted_short_long_or_mislabelled_is_reported() {
        for (range, limit, shown, last_seq, truncated, rule) in [
            (Range::Last, 3, &[2, 3, 4][..], 5, true, "slice"),
            (Range::Last, 3, &[4, 5], 5, true, "slice"),
            (Range::After(Seq(2)), 1, &[3, 4], 5, true, "slice"),
            (Range::After(Seq(2)), 2, &[4, 5], 5, false, "slice"),
            (Range::Before(Seq(4)), 2, &[3, 4], 5, true, "slice"),
            (Range::After(Seq(3)), 2, &[4, 5], 5, true, "truncated"),
            (Range::Last, 2, &[4, 5], 5, false, "truncated"),
            (Range::Last, 2, &[5, 6], 6, true, "last-seq"),
        ] {
            let told = page(range, limit, shown, last_seq, truncated).judge(judge);
            assert_eq!(told.len(), 1, "{range:?} {limit} {shown:?}: {told:?}");
            assert_eq!(told[0].rule.name, rule, "{told:?}");
        }
    }

    #[test]
    fn strong_page_behind_what_another_session_was_acked_is_reported() {
        let mut made = five();
        made.acked(1, 5, 100, 200, 5);
        made.read(0, 150, 300, Consistency::Strong, &[(0, 1, 1)]);
        made.read(0, 300, 400, Consistency::Weak, &[(0, 1, 1)]);
        assert_eq!(made.judge(judge), [], "asked before the ack, or weak");
        made.read(0, 300, 400, Consistency::Strong, &[(0, 1, 1)]);
        let told = made.judge(judge);
        assert_eq!((told.len(), told[0].rule.name), (1, "strong"), "{told:?}");
    }

    #[test]
    fn last_reading_that_lacks_what_nobody_was_told_of_is_reported() {
        for (last_seq, found) in [(4, &["unread"][..]), (5, &[])] {
            let mut made =
                page(Range::After(Seq(3)), 50, &[4, 5][..last_seq - 3], last_seq as u64, false);
            assert_eq!(made.judge(judge), [], "others are posting");
            made.history.reading_from = Some(Duration::from_secs(20));
            let told: Vec<_> = made.judge(judge).iter().map(|it| it.rule.name).collect();
            assert_eq!(told, found);
        }
    }

    #[test]
    fn list_of_boards_that_is_out_of_order_or_names_a_missing_one_is_reported() {
        let listed = |names: [&str; 2]| {
            let mut made = five();
            made.store.boards.insert("dev".parse().unwrap(), Vec::new());
            let boards = names.map(|name| Board {
                name: name.parse().unwrap(),
                last_seq: Seq(0),
                read_mark: Seq(0),
            });
            let (boards, epoch, consistency) = (boards.to_vec(), EPOCH, Consistency::Weak);
            let list = BoardList { boards, epoch, consistency, as_of: 9 };
            made.did(0, 20_000, 20_100, Request::Boards, Ok(Answer::Boards(list)));
            made.rules(judge)
        };
        assert_eq!(listed(["dev", "lobby"]), [""; 0]);
        assert_eq!(listed(["lobby", "dev"]), ["g04.boards"], "out of order");
        assert_eq!(listed(["dev", "dev"]), ["g04.boards"], "twice");
        assert_eq!(listed(["dev", "gone"]), ["g04.boards"], "not there");
    }
}
