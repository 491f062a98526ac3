//! G6, handovers: a ticket opens a session of the same person on another master, once.

use std::iter;

use super::{Clue, Evidence, Violation, broken, deed, sessions::Sessions};
use crate::{
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
        let user = evidence.history.users.get(&handover.who);
        if opened.iter().any(|it| it.user.as_ref() != user) {
            let text = "a ticket opened a session of somebody else";
            found.push(broken(Property::G6, "ticket", text, clues(handover, &opened)));
        }
        let left = sessions.leaves(handover.who);
        let limit = evidence.calm_limit;
        for (at, status) in [(handover.issued_at, handover.status)]
            .into_iter()
            .chain(handover.redeemed.first().map(|it| (it.at, it.status)))
        {
            let is_calm =
                evidence.is_calm(at, at + limit) && left.is_none_or(|left| left > at + limit);
            if is_calm && status != Some(201) {
                let text = format!("in calm a handover was answered with {status:?}");
                found.push(broken(Property::G0, "handover", text, clues(handover, &[])));
            }
        }
    }
    found
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
    use chatchat::model::ids::UserId;

    use super::*;
    use crate::oracle::fixtures::{Fixture, located, ms, user, who};

    fn moved(redeemed: &[(Option<u16>, Option<UserId>)]) -> Vec<String> {
        let mut made = Fixture::new();
        let tries = redeemed.iter().map(|(status, user)| Redeemed {
            at: ms(20_100),
            master: "http://m".to_owned(),
            status: *status,
            user: *user,
        });
        let redeemed = tries.collect();
        let (who, issued_at, status) = (who(0), ms(20_000), Some(201));
        made.history.handovers.push(Handover { who, issued_at, status, redeemed });
        located(&made.judge(judge))
    }

    #[test]
    fn ticket_that_opens_one_session_of_its_person_is_accepted() {
        assert_eq!(moved(&[(Some(201), Some(user(0))), (Some(404), None)]), [""; 0]);
        assert_eq!(moved(&[]), [""; 0]);
    }

    #[test]
    fn ticket_for_two_for_another_or_refused_in_calm_is_reported() {
        let twice = [(Some(201), Some(user(0))), (Some(201), Some(user(0)))];
        assert_eq!(moved(&twice), ["g06.ticket"]);
        assert_eq!(moved(&[(Some(201), Some(user(1)))]), ["g06.ticket"]);
        assert_eq!(moved(&[(Some(503), None)]), ["g00.handover"]);
    }
}
