//! G9 tasks end: at most `attempts_per_worker` tries on one registration of a worker and
//! `attempts_max` in all. A token names one batch and one registration, so its tries are counted.
//!
//! That a task ends in time is judged by what people could not settle (`g03_late`) and by sends
//! that timed out (`g09_in_time`).

use std::collections::BTreeMap;

use chatchat::model::{
    event::Event,
    ids::{Resource, Token},
};

use super::{Evidence, Violation, broken};
use crate::property::Property;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let config = &evidence.plan.cluster.config;
    let mut tries: BTreeMap<(&Resource, Token), u32> = BTreeMap::new();
    let mut found = Vec::new();
    for said in evidence.events {
        let Event::Assign { resource, token, attempt, .. } = &said.event else { continue };
        let on_this = tries.entry((resource, *token)).or_insert(0);
        *on_this += 1;
        let text = if *on_this > config.attempts_per_worker {
            format!("a batch of {resource} was tried {on_this} times under {token}")
        } else if *attempt > config.attempts_max {
            format!("a batch of {resource} was tried {attempt} times in all")
        } else {
            continue;
        };
        found.push(broken(Property::G9, "attempts", text, [said.clue()]));
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::{BoardName, Registration};

    use super::*;
    use crate::oracle::fixtures::{EPOCH, Fixture, id, node};

    fn assign(n: u64, attempt: u32) -> Event {
        Event::Assign {
            worker: node(1),
            registration: Registration(1),
            resource: Resource::Board(BoardName::lobby()),
            token: Token { epoch: EPOCH, lease: 1, n },
            posts: vec![id(1)],
            attempt,
        }
    }

    #[test]
    fn two_attempts_on_each_of_two_workers_are_accepted() {
        let mut made = Fixture::new();
        for (n, attempt) in [(1, 1), (1, 2), (2, 3), (2, 4), (3, 1)] {
            made.said(1, "master:0", assign(n, attempt));
        }
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn third_attempt_on_a_worker_and_fifth_in_all_are_reported() {
        for one_too_many in [&[(1, 1), (1, 2), (1, 3)][..], &[(1, 1), (2, 5)]] {
            let mut made = Fixture::new();
            for (n, attempt) in one_too_many {
                made.said(1, "master:0", assign(*n, *attempt));
            }
            assert_eq!(made.judge(judge).len(), 1, "{one_too_many:?}");
        }
    }
}
