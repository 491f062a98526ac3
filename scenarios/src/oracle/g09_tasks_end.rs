//! G9 tasks end: at most `attempts_per_worker` tries on one registration of a worker and
//! `attempts_max` in all. A token names one batch and one registration, so its tries are counted; a
//! batch that is tried again under a higher token is known by its posts.
//!
//! That a task ends in time is judged by what people could not settle (`g03_late`), by sends that timed
//! out (`g09_in_time`) and by the time between two attempts (`g09_next_attempt`).

use std::collections::BTreeMap;

use chatchat::model::{
    event::Event,
    ids::{NodeId, PostId, Registration, Resource, Token},
};

use super::{Evidence, Violation, broken};
use crate::property::Property;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let config = &evidence.plan.cluster.config;
    // Numbers are one master's: another one that gets the posts begins anew.
    type Batch<'a> = (&'a str, &'a Resource, &'a [PostId]);
    let mut tries: BTreeMap<(&Resource, Token), u32> = BTreeMap::new();
    // A try whose number comes again cost nothing: the batch was not taken.
    let mut that_cost: BTreeMap<Batch<'_>, BTreeMap<u32, (NodeId, Registration)>> = BTreeMap::new();
    let mut found = Vec::new();
    for said in evidence.events {
        let Event::Assign { worker, registration, resource, token, posts, attempt, .. } =
            &said.event
        else {
            continue;
        };
        let on_this = tries.entry((resource, *token)).or_insert(0);
        *on_this += 1;
        let batch = that_cost.entry((&said.node, resource, posts)).or_default();
        batch.split_off(attempt);
        let at = (*worker, *registration);
        batch.insert(*attempt, at);
        let here = batch.values().filter(|other| **other == at).count();
        let of_batch = if posts.is_empty() { 0 } else { here };
        let text = if of_batch > config.attempts_per_worker as usize {
            format!("a batch of {resource} was tried {of_batch} times on one registration")
        } else if *on_this > config.attempts_per_worker {
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
    use super::*;
    use crate::oracle::fixtures::{Fixture, assigned};

    /// Try of a batch at worker `n / 2`: two tokens for each.
    fn assign(n: u64, attempt: u32) -> Event {
        assigned(u8::try_from(n / 2).expect("a few"), n, &[1], attempt)
    }

    #[test]
    fn two_attempts_on_each_of_two_workers_are_accepted() {
        let mut made = Fixture::new();
        for (n, attempt) in [(1, 1), (1, 2), (2, 3), (3, 4), (3, 1)] {
            made.said(1, "master:0", assign(n, attempt));
        }
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn attempt_that_cost_nothing_before_another_worker_failed_is_accepted() {
        let mut made = Fixture::new();
        for (n, attempt) in [(2, 1), (4, 1), (3, 2), (3, 3)] {
            made.said(1, "master:0", assign(n, attempt));
        }
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn attempts_of_another_master_in_between_excuse_none() {
        let mut made = Fixture::new();
        for (master, n, attempt) in [(0, 2, 1), (1, 4, 1), (0, 3, 2), (0, 3, 3)] {
            made.said(1, &format!("master:{master}"), assign(n, attempt));
        }
        assert_eq!(made.rules(judge), ["g09.attempts"]);
    }

    #[test]
    fn third_attempt_on_a_worker_and_fifth_in_all_are_reported() {
        let under_two_tokens = &[(2, 1), (3, 2), (3, 3)];
        for one_too_many in [&[(1, 1), (1, 2), (1, 3)][..], &[(1, 1), (2, 5)], under_two_tokens] {
            let mut made = Fixture::new();
            for (n, attempt) in one_too_many {
                made.said(1, "master:0", assign(*n, *attempt));
            }
            assert_eq!(made.rules(judge), ["g09.attempts"], "{one_too_many:?}");
        }
    }
}
