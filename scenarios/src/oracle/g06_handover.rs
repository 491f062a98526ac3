//! G6, handovers: a ticket opens a session of the same person on another master, once, however many
//! masters are asked at the same time; and that session is valid. G16: a try that was put off spent
//! nothing.

use std::{iter, time::Duration};

use chatchat::client::{Answer, Failure};

use super::{
    Clue, Evidence, Violation, broken, deed, g04_pages::is_strong, moved_line, sessions::Sessions,
};
use crate::{
    fault::Kind,
    history::{Handover, Redeemed},
    property::Property,
};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let sessions = Sessions::read(evidence.history);
    let mut found = Vec::new();
    for handover in &evidence.history.handovers {
        let opened: Vec<_> = handover.redeemed.iter().filter(|it| it.status == Some(201)).collect();
        if opened.len() > 1 {
            let text = "a ticket was taken twice";
            found.push(broken(Property::G6, "ticket", text, clues(handover, &opened)));
        }
        found.extend(lost(evidence, &sessions, handover));
        let user = evidence.history.users.get(&handover.who);
        if opened.iter().any(|it| it.user.as_ref() != user) {
            let text = "a ticket opened a session of somebody else";
            found.push(broken(Property::G6, "ticket", text, clues(handover, &opened)));
        }
        for used in &handover.used {
            let is_other = match used.reply() {
                Some((_, Answer::Restored(restored))) => Some(&restored.user.id) != user,
                _ => false,
            };
            let is_forgotten =
                matches!(used.failure(), Some((_, Failure::Refused { status: 401, .. })));
            if is_other || is_forgotten {
                let rule = if is_other { "other" } else { "forgotten" };
                let text = "a session that a ticket gave was forgotten, or is somebody else's";
                found.push(broken(Property::G6, rule, text, [moved_line(used)]));
            }
        }
        let left = sessions.leaves(handover.who);
        let limit = evidence.calm_limit;
        let is_calm = |at: Duration| {
            evidence.is_calm(at, at + limit) && left.is_none_or(|left| left > at + limit)
        };
        for used in handover.used.iter().filter(|used| is_calm(used.invoked)) {
            let is_prompt = used.reply().is_some_and(|(at, _)| at <= used.invoked + limit);
            if !is_prompt || !is_strong(used) {
                let text = "in calm a session that a ticket gave was not served";
                found.push(broken(Property::G0, "handover", text, [moved_line(used)]));
            }
        }
        // Of two that were asked at once either may give the session.
        let tried = match (handover.at_once, opened.first()) {
            (true, Some(opened)) => Some(*opened),
            _ => handover.redeemed.first(),
        };
        for (at, status) in [(handover.issued_at, handover.status)]
            .into_iter()
            .chain(tried.map(|it| (it.at, it.status)))
        {
            if is_calm(at) && status != Some(201) {
                let text = format!("in calm a handover was answered with {status:?}");
                found.push(broken(Property::G0, "handover", text, clues(handover, &[])));
            }
        }
    }
    found
}

/// Reports a ticket that was issued and is unknown, although no try can have spent it.
fn lost(evidence: &Evidence<'_>, sessions: &Sessions, handover: &Handover) -> Option<Violation> {
    let tries = &handover.redeemed;
    let spent = |one: &Redeemed| !one.is_put_off && one.status != Some(404);
    let (nth, refused) = tries.iter().enumerate().find(|(_, it)| it.status == Some(404))?;
    // Of two that were asked at once either may have come first.
    let others = || tries.iter().enumerate().filter(|(n, _)| *n < nth || handover.at_once);
    let has_left = sessions.leaves(handover.who).is_some_and(|left| left <= refused.at);
    if handover.status != Some(201)
        || others().any(|(_, one)| spent(one))
        || has_left
        || may_forget_tickets(evidence)
    {
        return None;
    }
    let (property, rule, text) = if others().any(|(_, one)| one.is_put_off) {
        (Property::G16, "ticket", "a try was put off, and spent its ticket")
    } else {
        (Property::G6, "ticket-lost", "a ticket is unknown that nobody used")
    };
    Some(broken(property, rule, text, clues(handover, &tries.iter().collect::<Vec<_>>())))
}

/// Returns whether a ticket may be gone: a store that was set back or restored has others, by another
/// clock it may be over, and a stranger says again what it heard.
fn may_forget_tickets(evidence: &Evidence<'_>) -> bool {
    let is_other = |kind| matches!(kind, Some(Kind::Restore | Kind::Stranger));
    evidence.is_set_back()
        || evidence.is_store_clock_touched()
        || evidence.incidents.iter().any(|incident| is_other(evidence.kind_of(incident)))
}

/// Returns a handover and some of its tries as evidence.
fn clues(handover: &Handover, tries: &[&Redeemed]) -> Vec<Clue> {
    let person = handover.who.person;
    let issued = deed(person, handover.issued_at, &format!("{handover:?}"));
    let tries = tries.iter().map(|it| deed(person, it.at, &format!("{it:?}")));
    iter::once(issued).chain(tries).collect()
}

#[cfg(test)]
mod tests {
    use chatchat::{
        client::Request,
        model::{ids::UserId, stream::Consistency},
    };

    use super::*;
    use crate::oracle::fixtures::{Fixture, busy, located, moved, ms, refused, restored, user};

    fn tried(at_once: bool, redeemed: &[(Option<u16>, Option<UserId>)]) -> Vec<String> {
        tried_in(Fixture::new(), at_once, redeemed)
    }

    fn tried_in(
        mut made: Fixture,
        at_once: bool,
        redeemed: &[(Option<u16>, Option<UserId>)],
    ) -> Vec<String> {
        let tries = redeemed.iter().map(|(status, user)| Redeemed {
            at: ms(20_100),
            master: "http://m".to_owned(),
            status: *status,
            user: *user,
            token: None,
            is_put_off: *status == Some(503),
        });
        let redeemed = tries.collect();
        made.history.handovers.push(Handover { at_once, redeemed, ..moved(Vec::new()) });
        located(&made.judge(judge))
    }

    /// A session that a ticket gave is restored at this time.
    fn used(at: u64, took: u64, answer: Result<Answer, Failure>) -> Vec<String> {
        let mut made = Fixture::with_faults(&[("pause", "target = \"store\"", 40_000, 42_000)]);
        made.did(0, at, at + took, Request::Restore, answer);
        let used = std::mem::take(&mut made.history.operations);
        made.history.handovers.push(moved(used));
        located(&made.judge(judge))
    }

    #[test]
    fn ticket_that_opens_one_session_of_its_person_is_accepted() {
        assert_eq!(tried(false, &[(Some(201), Some(user(0))), (Some(404), None)]), [""; 0]);
        assert_eq!(tried(false, &[]), [""; 0]);
        assert_eq!(tried(true, &[(Some(404), None), (Some(201), Some(user(0)))]), [""; 0]);
    }

    #[test]
    fn ticket_that_is_tried_at_two_masters_at_once_opens_one_session() {
        let one = (Some(201), Some(user(0)));
        assert_eq!(tried(true, &[one, one]), ["g06.ticket"]);
        let lost = ["g06.ticket-lost", "g00.handover"];
        assert_eq!(tried(true, &[(Some(404), None), (Some(404), None)]), lost);
        assert_eq!(tried(false, &[(Some(404), None), one]), lost, "one after another");
    }

    /// A ticket is redeemed while the store is paused.
    fn tried_amid(fault: (&str, &str), at_once: bool, statuses: &[Option<u16>]) -> Vec<String> {
        let tries: Vec<_> = statuses.iter().map(|status| (*status, None)).collect();
        let made = Fixture::with_faults(&[(fault.0, fault.1, 19_000, 22_000)]);
        tried_in(made, at_once, &tries)
    }

    #[test]
    fn try_that_was_put_off_and_spent_its_ticket_is_reported() {
        let pause = ("pause", "target = \"store\"");
        let (unknown, off, gone) = (None, Some(503), Some(404));
        assert_eq!(tried_amid(pause, false, &[off, gone]), ["g16.ticket"]);
        assert_eq!(tried_amid(pause, true, &[gone, off]), ["g16.ticket"]);
        assert_eq!(tried_amid(pause, false, &[gone]), ["g06.ticket-lost"]);
        assert_eq!(tried_amid(pause, false, &[unknown, gone]), [""; 0], "it may have been heard");
        assert_eq!(tried_amid(pause, true, &[gone, unknown]), [""; 0]);
        let back = ("rollback", "target = \"store\"\nby = \"1s\"");
        assert_eq!(tried_amid(back, false, &[off, gone]), [""; 0], "the copy has no tickets");
    }

    #[test]
    fn session_that_a_ticket_gave_is_valid_and_its_users() {
        let answer = |person, consistency| Ok(Answer::Restored(restored(person, consistency)));
        assert_eq!(used(20_000, 100, answer(0, Consistency::Strong)), [""; 0]);
        assert_eq!(used(41_000, 100, answer(0, Consistency::Weak)), [""; 0], "the store is away");
        assert_eq!(used(41_000, 5000, busy(503)), [""; 0]);
        assert_eq!(used(41_000, 100, refused(401)), ["g06.forgotten"]);
        assert_eq!(used(41_000, 100, answer(1, Consistency::Strong)), ["g06.other"]);
        for (took, answer) in [
            (100, answer(0, Consistency::Weak)),
            (100, busy(503)),
            (1001, answer(0, Consistency::Strong)),
        ] {
            assert_eq!(used(20_000, took, answer), ["g00.handover"]);
        }
    }

    #[test]
    fn ticket_for_two_for_another_or_refused_in_calm_is_reported() {
        let twice = [(Some(201), Some(user(0))), (Some(201), Some(user(0)))];
        assert_eq!(tried(false, &twice), ["g06.ticket"]);
        assert_eq!(tried(false, &[(Some(201), Some(user(1)))]), ["g06.ticket"]);
        assert_eq!(tried(false, &[(Some(503), None)]), ["g00.handover"]);
    }
}
