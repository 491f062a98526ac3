//! G15 weak service: what streams say of posts that wait for the store is shown to their authors only,
//! and true.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chatchat::model::{
    ids::{PostId, UserId},
    stream::HeldState,
};

use super::{Evidence, Violation, broken, stream_line};
use crate::{fault::Kind, property::Property};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut first_sent: BTreeMap<(UserId, PostId), Duration> = BTreeMap::new();
    for sent in evidence.history.sent() {
        if let Some(user) = sent.user {
            let first = first_sent.entry((user, sent.id)).or_insert(sent.operation.invoked);
            *first = sent.operation.invoked.min(*first);
        }
    }
    let posts = evidence.store.boards.values().flatten();
    let stored: BTreeSet<_> = posts.map(|post| (post.author.id, post.id)).collect();
    let set_back = evidence.plan.faults.iter().any(|it| it.action.kind() == Kind::Rollback);
    let mut found = Vec::new();
    for told in evidence.history.states_told() {
        let (key, id) = (told.key, told.key.1);
        let why = if first_sent.get(&key).is_none_or(|first| *first > told.at) {
            "which its reader did not send"
        } else if told.state == HeldState::Committed && !stored.contains(&key) && !set_back {
            "which is not in the store, as committed"
        } else {
            continue;
        };
        let text = format!("a stream told of post {id}, {why}");
        found.push(broken(Property::G15, "told", text, [stream_line(told.stream, told.at)]));
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::api::{PendingEvent, StreamEvent};

    use super::*;
    use crate::oracle::fixtures::{Fixture, id};

    fn told(reader: usize, at: u64, n: u8, state: HeldState) -> usize {
        let mut made = Fixture::with_faults(&[]);
        made.acked(0, 1, 1000, 1100, 1).stored(0, 1);
        let answer = Ok(chatchat::client::Answer::Pending { copies: 2 });
        made.did(0, 2000, 2100, Fixture::request(2), answer);
        let event = StreamEvent::Pending(PendingEvent { id: id(n), state });
        made.stream(reader, 0, vec![(at, event)]);
        made.breaks(judge, "g15.told")
    }

    #[test]
    fn state_of_a_post_is_for_its_author_after_it_was_sent() {
        assert_eq!(told(0, 2050, 2, HeldState::Pending), 0);
        assert_eq!(told(1, 2050, 2, HeldState::Pending), 1, "somebody else's post");
        assert_eq!(told(0, 1950, 2, HeldState::Pending), 1, "before it was sent");
        assert_eq!(told(0, 2050, 3, HeldState::Pending), 1, "never sent");
    }

    #[test]
    fn post_that_is_told_as_committed_is_in_the_store() {
        assert_eq!(told(0, 2050, 1, HeldState::Committed), 0);
        assert_eq!(told(0, 2050, 2, HeldState::Committed), 1);
        assert_eq!(told(0, 2050, 2, HeldState::Cancelled), 0);
    }
}
