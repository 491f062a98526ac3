//! G6, handovers: a ticket opens a session of the same person on another master, once.

use super::{Clue, Evidence, Violation, broken, seconds, sessions::Sessions};
use crate::{history::Handover, property::Property};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let sessions = Sessions::read(evidence.history);
    let mut found = Vec::new();
    for handover in &evidence.history.handovers {
        let opened: Vec<_> = handover.redeemed.iter().filter(|it| it.status == Some(201)).collect();
        if opened.len() > 1 {
            found.push(broken(
                Property::G6,
                "ticket",
                "a ticket was taken twice",
                [clue(handover)],
            ));
        }
        let user = evidence.history.users.get(&handover.who);
        if opened.iter().any(|it| it.user.as_ref() != user) {
            let text = "a ticket opened a session of somebody else";
            found.push(broken(Property::G6, "ticket", text, [clue(handover)]));
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
                found.push(broken(Property::G0, "handover", text, [clue(handover)]));
            }
        }
    }
    found
}

fn clue(handover: &Handover) -> Clue {
    let text = format!("{} {handover:?}", seconds(handover.issued_at));
    Clue::from(text.chars().take(400).collect::<String>())
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::UserId;

    use super::*;
    use crate::{
        history::Redeemed,
        oracle::fixtures::{Fixture, ms, user, who},
    };

    fn moved(redeemed: &[(Option<u16>, Option<UserId>)]) -> usize {
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
        made.judge(judge).len()
    }

    #[test]
    fn ticket_that_opens_one_session_of_its_person_is_accepted() {
        assert_eq!(moved(&[(Some(201), Some(user(0))), (Some(404), None)]), 0);
        assert_eq!(moved(&[]), 0);
    }

    #[test]
    fn ticket_for_two_for_another_or_refused_in_calm_is_reported() {
        assert_eq!(moved(&[(Some(201), Some(user(0))), (Some(201), Some(user(0)))]), 1);
        assert_eq!(moved(&[(Some(201), Some(user(1)))]), 1);
        assert_eq!(moved(&[(Some(503), None)]), 1);
    }
}
