//! G6 and G7, what a session restores: its name, its read marks and all boards, never older than
//! what it was acked or shown before unless the answer is weak; and of its posts only such as it
//! sent. The same goes for a session that a ticket gave.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    client::{Answer, Request},
    model::ids::{BoardName, PostId, Seq, UserName},
};

use super::{
    Clue, Evidence, Violation, broken, g04_pages::is_strong, line, moved_line, told::listed,
};
use crate::{
    history::{History, Operation, Who},
    property::Property,
};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let history = evidence.history;
    let names = names(history);
    let marks = Marks::read(history);
    let boards = since(history);
    let mut found = Vec::new();
    let own = history.operations.iter().map(|it| (it, line as fn(&Operation) -> Clue));
    // A session that a ticket gave is its user's too.
    let moved = history.moved().map(|it| (it, moved_line as fn(&Operation) -> Clue));
    for (operation, show) in own.chain(moved) {
        let Some((at, reply)) = operation.reply() else { continue };
        let mut tell = |property, rule, text: String| {
            found.push(broken(property, rule, text, [show(operation)]));
        };
        if let Answer::Restored(restored) = reply {
            let name = names.get(&operation.who).copied();
            if name.is_some_and(|name| *name != restored.user.name) {
                tell(Property::G6, "name", format!("it is called {}", restored.user.name));
            }
            let is_own = |id: &PostId| {
                history.sent().any(|sent| sent.id == *id && sent.operation.who == operation.who)
            };
            for id in restored.pending.iter().filter(|id| !is_own(id)) {
                tell(Property::G6, "pending", format!("{id} is pending, and was never sent"));
            }
        }
        if matches!(reply, Answer::Opened(_)) {
            continue;
        }
        for board in listed(operation) {
            let of_it = marks.of(operation.who, &board.name);
            let mark = board.read_mark;
            if mark > Seq(0) && !of_it.iter().any(|set| set.seq == mark && set.invoked <= at) {
                let text = format!("{} is marked as read to {mark}, which nobody set", board.name);
                tell(Property::G6, "mark-invented", text);
            }
            let known =
                of_it.iter().filter(|set| set.known.is_some_and(|at| at < operation.invoked));
            let floor = known.map(|set| set.seq).max().unwrap_or_default();
            if is_strong(operation) && mark < floor {
                let text = format!("{} is marked as read to {mark} after {floor}", board.name);
                tell(Property::G7, "mark", text);
            }
        }
        if is_strong(operation) && matches!(reply, Answer::Boards(_) | Answer::Restored(_)) {
            for (name, _) in boards.iter().filter(|(_, since)| **since < operation.invoked) {
                if !listed(operation).iter().any(|board| board.name == **name) {
                    let text = format!("{name} is missing in a strong list of boards");
                    tell(Property::G7, "board-missing", text);
                }
            }
        }
    }
    found
}

fn names(history: &History) -> BTreeMap<Who, &UserName> {
    let opened = |operation: &'_ Operation| match operation.reply() {
        Some((_, Answer::Opened(_))) => Some(operation.who),
        _ => None,
    };
    let mut names = BTreeMap::new();
    for operation in history.operations.iter().filter(|op| opened(op).is_some()) {
        if let Request::OpenSession { name } = &operation.request {
            names.insert(operation.who, name);
        }
    }
    names
}

/// Returns since when each board was known to somebody.
fn since(history: &History) -> BTreeMap<&BoardName, Duration> {
    let mut since: BTreeMap<&BoardName, Duration> = BTreeMap::new();
    for operation in &history.operations {
        let Some((at, reply)) = operation.reply() else { continue };
        let created = match (&operation.request, reply) {
            (Request::CreateBoard { board }, Answer::Done) => Some(board),
            _ => None,
        };
        for board in created.into_iter().chain(listed(operation).iter().map(|board| &board.name)) {
            let first = since.entry(board).or_insert(at);
            *first = at.min(*first);
        }
    }
    since
}

/// Read mark that a session asked for.
struct Set {
    seq: Seq,
    invoked: Duration,
    /// Since when the session knows that it is set: by an ack, or because it was shown.
    known: Option<Duration>,
}

#[derive(Default)]
struct Marks<'a>(BTreeMap<(Who, &'a BoardName), Vec<Set>>);

impl<'a> Marks<'a> {
    fn read(history: &'a History) -> Self {
        let mut marks = Self::default();
        for operation in history.operations.iter().filter(|op| !op.did_nothing()) {
            let Request::ReadMark { board, seq } = &operation.request else { continue };
            let set = Set {
                seq: *seq,
                invoked: operation.invoked,
                known: operation.reply().map(|(at, _)| at),
            };
            marks.0.entry((operation.who, board)).or_default().push(set);
        }
        for operation in &history.operations {
            let Some((at, _)) = operation.reply() else { continue };
            for board in listed(operation) {
                let Some(sets) = marks.0.get_mut(&(operation.who, &board.name)) else { continue };
                for set in sets.iter_mut().filter(|set| set.seq == board.read_mark) {
                    set.known = Some(set.known.map_or(at, |known| known.min(at)));
                }
            }
        }
        marks
    }

    fn of(&self, who: Who, board: &'a BoardName) -> &[Set] {
        self.0.get(&(who, board)).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::{Board, SessionRestored},
        model::{ids::Author, stream::Consistency},
    };

    use super::*;
    use crate::oracle::fixtures::{self, Fixture, busy, id, located, moved, user};

    const WEAK: Consistency = Consistency::Weak;
    const STRONG: Consistency = Consistency::Strong;

    fn opened(made: &mut Fixture, name: &str) {
        let name: UserName = name.parse().unwrap();
        let answer = fixtures::opened(0, name.as_str());
        made.did(0, 10, 20, Request::OpenSession { name }, Ok(Answer::Opened(answer)));
    }

    fn restored(mark: u64, consistency: Consistency) -> SessionRestored {
        let lobby = Board { name: BoardName::lobby(), last_seq: Seq(9), read_mark: Seq(mark) };
        SessionRestored { boards: vec![lobby], ..fixtures::restored(0, consistency) }
    }

    fn marked() -> Fixture {
        let mut made = Fixture::new();
        opened(&mut made, "Ada");
        let mark = |seq| Request::ReadMark { board: BoardName::lobby(), seq: Seq(seq) };
        made.did(0, 100, 200, mark(4), Ok(Answer::Done));
        made.did(0, 210, 220, mark(5), busy(503)).asked(0, 230, mark(6), None);
        made
    }

    fn shown(restored: SessionRestored) -> Vec<&'static str> {
        let mut made = marked();
        made.did(0, 300, 400, Request::Restore, Ok(Answer::Restored(restored)));
        made.judge(judge).into_iter().map(|told| told.rule.name).collect()
    }

    #[test]
    fn acked_or_unknown_mark_and_weak_older_one_are_accepted() {
        for (mark, consistency) in [(4, STRONG), (6, STRONG), (0, WEAK), (4, WEAK)] {
            assert_eq!(shown(restored(mark, consistency)), [""; 0], "{mark}");
        }
    }

    #[test]
    fn mark_that_is_lost_or_was_never_set_is_reported() {
        assert_eq!(shown(restored(0, STRONG)), ["mark"]);
        assert_eq!(shown(restored(3, STRONG)), ["mark-invented", "mark"]);
        assert_eq!(shown(restored(5, WEAK)), ["mark-invented"], "said to have done nothing");
    }

    #[test]
    fn mark_that_was_shown_and_is_gone_is_reported() {
        let mut made = marked();
        made.did(0, 300, 400, Request::Restore, Ok(Answer::Restored(restored(6, WEAK))));
        made.did(0, 500, 600, Request::Restore, Ok(Answer::Restored(restored(4, STRONG))));
        assert_eq!(made.judge(judge).len(), 1);
    }

    #[test]
    fn session_that_a_ticket_gave_restores_what_its_user_was_acked() {
        for (restored, found) in [
            (restored(4, STRONG), None),
            (restored(0, WEAK), None),
            (restored(0, STRONG), Some("g07.mark")),
            (SessionRestored { pending: vec![id(7)], ..restored(4, WEAK) }, Some("g06.pending")),
        ] {
            let mut made = marked();
            made.did(0, 300, 400, Request::Restore, Ok(Answer::Restored(restored)));
            let used = made.history.operations.split_off(4);
            made.history.handovers.push(moved(used));
            assert_eq!(located(&made.judge(judge)), found.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn other_name_pending_post_or_missing_board_is_reported() {
        let other = Author { id: user(0), name: "Bob".parse().unwrap() };
        assert_eq!(shown(SessionRestored { user: other, ..restored(4, WEAK) }), ["name"]);
        let pending = vec![id(7)];
        assert_eq!(shown(SessionRestored { pending, ..restored(4, WEAK) }), ["pending"]);
        let mut made = marked();
        let dev = Request::CreateBoard { board: "dev".parse().unwrap() };
        made.did(1, 100, 200, dev, Ok(Answer::Done));
        made.did(0, 250, 400, Request::Restore, Ok(Answer::Restored(restored(4, WEAK))));
        assert_eq!(made.judge(judge), []);
        made.did(0, 250, 400, Request::Restore, Ok(Answer::Restored(restored(4, STRONG))));
        assert_eq!(made.rules(judge), ["g07.board-missing"]);
    }
}
