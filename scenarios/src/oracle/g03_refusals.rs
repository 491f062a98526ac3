//! G3 refusals: a refusal is for good, so that its client never settles what it asked for. A post, a
//! cancel, a mark or a page that merely cannot be served now is put off, whatever is broken.
//!
//! 1. It is fair only for what people did, or of what is not there.
//! 2. A 401 is no break of this rule: a forgotten session is one of G6.
//! 3. Runs in which the store was set back are left out: what people did may be undone in it.

use chatchat::client::Failure;

use super::{Evidence, Violation, broken, line, refusals::is_fair, sessions::Sessions};
use crate::property::Property;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    if evidence.is_set_back() {
        return found;
    }
    let sessions = Sessions::read(evidence.history);
    for operation in &evidence.history.operations {
        let Some((at, Failure::Refused { status, .. })) = operation.failure() else { continue };
        if *status != 401 && !is_fair(evidence.history, &sessions, operation, at, *status) {
            let text = format!("a well-formed request was refused with {status} for no reason");
            found.push(broken(Property::G3, "refused-unfairly", text, [line(operation)]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::{
        client::{Answer, Request},
        model::{
            ids::{BoardName, Seq},
            rows::Range,
            stream::Consistency,
        },
    };

    use super::*;
    use crate::oracle::fixtures::{Fixture, busy, id, located, refused};

    fn page_of(board: &str, wanted: Consistency) -> Request {
        let board = board.parse().unwrap();
        Request::Read { board, range: Range::Last, limit: 50, wanted }
    }

    /// Returns what is reported of a request that is refused while a fault is on.
    fn refused_during(fault: (&str, &str), request: Request, status: u16) -> Vec<String> {
        let (kind, keys) = fault;
        let mut made = Fixture::with_faults(&[(kind, keys, 20_000, 30_000)]);
        made.did(0, 25_000, 25_010, request, refused(status));
        located(&made.judge(judge))
    }

    const STORE: (&str, &str) = ("crash", "target = \"store\"");

    #[test]
    fn refusal_for_no_reason_is_reported_whatever_is_broken() {
        let board = BoardName::lobby();
        for (request, status) in [
            (page_of("lobby", Consistency::Strong), 404),
            (page_of("lobby", Consistency::Weak), 404),
            (Fixture::request(1), 404),
            (Fixture::request(1), 410),
            (Fixture::request(1), 422),
            (Request::Cancel { id: id(1) }, 404),
            (Request::Outcome { id: id(1) }, 404),
            (Request::ReadMark { board: board.clone(), seq: Seq(0) }, 400),
            (Request::ReadMark { board, seq: Seq(0) }, 404),
        ] {
            for fault in [STORE, ("pause", "target = \"master:*\"")] {
                let told = refused_during(fault, request.clone(), status);
                assert_eq!(told, ["g03.refused-unfairly"], "{request:?} {status} {fault:?}");
            }
        }
    }

    #[test]
    fn board_that_is_refused_is_reported_once_somebody_was_told_of_it() {
        let judged = |created: u64| {
            let mut made = Fixture::new();
            let create = Request::CreateBoard { board: "dev".parse().unwrap() };
            made.did(1, created, created + 100, create, Ok(Answer::Done));
            made.did(0, 5000, 5100, page_of("dev", Consistency::Strong), refused(404));
            located(&made.judge(judge))
        };
        assert_eq!(judged(4000), ["g03.refused-unfairly"]);
        assert_eq!(judged(4950), [""; 0], "made meanwhile");
    }

    #[test]
    fn fair_refusal_delay_and_forgotten_session_are_accepted() {
        let mut made = Fixture::with_faults(&[(STORE.0, STORE.1, 20_000, 30_000)]);
        made.did(0, 25_000, 25_010, Request::Cancel { id: id(1) }, busy(503));
        made.did(0, 25_100, 25_110, Fixture::request(1), refused(410));
        made.did(0, 25_200, 25_210, page_of("nowhere", Consistency::Strong), refused(404));
        made.did(0, 25_300, 25_310, page_of("lobby", Consistency::Strong), busy(503));
        made.did(0, 25_400, 25_410, page_of("lobby", Consistency::Strong), busy(429));
        made.did(0, 25_500, 25_510, page_of("lobby", Consistency::Strong), refused(401));
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn refusal_is_accepted_where_the_store_was_set_back_and_reported_where_a_disk_was() {
        let judged = |target: &str| {
            let keys = format!("target = \"{target}\"\nby = \"1s\"");
            refused_during(("rollback", keys.as_str()), Fixture::request(1), 404)
        };
        assert_eq!(judged("store"), [""; 0]);
        assert_eq!(judged("worker:0"), ["g03.refused-unfairly"]);
    }
}
