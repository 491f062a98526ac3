//! G8, writes against assignments: what the store accepted was given out before, under that token
//! and to that worker, every post of a board was in such a batch, and a batch that was sent before
//! the one that it follows was written, was written right after that one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chatchat::model::{
    event::Event,
    ids::{NodeId, PostId, Resource, Token},
    rows::WriteRow,
};

use super::{Clue, Evidence, Violation, broken, g08_one_permission::row, seconds};
use crate::property::Property;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut given: BTreeSet<(&Resource, Token, NodeId)> = BTreeSet::new();
    let mut batches: BTreeMap<(&Resource, Token), BTreeSet<PostId>> = BTreeMap::new();
    for said in evidence.events {
        if let Event::Assign { worker, resource, token, posts, .. } = &said.event {
            given.insert((resource, *token, *worker));
            batches.entry((resource, *token)).or_default().extend(posts);
        }
    }
    let mut found = Vec::new();
    let mut written: BTreeMap<&Resource, BTreeSet<PostId>> = BTreeMap::new();
    for write in evidence.store.writes.iter().filter(|write| write.kind != "grant") {
        if !given.contains(&(&write.resource, write.token, write.node)) {
            let text = format!("{} was written by a worker that was not asked to", write.resource);
            found.push(broken(Property::G8, "not-given", text, [row(write)]));
        }
        let batch = batches.get(&(&write.resource, write.token)).into_iter().flatten();
        written.entry(&write.resource).or_default().extend(batch);
    }
    found.extend(skipped(evidence));
    let first = first_acks(evidence);
    for (board, posts) in &evidence.store.boards {
        let resource = Resource::Board(board.clone());
        let none = BTreeSet::new();
        let of_it = written.get(&resource).unwrap_or(&none);
        for post in posts.iter().filter(|post| !of_it.contains(&post.id)) {
            let text = format!("{board} {} was in no batch that was written", post.seq);
            let acked = first.get(&post.id).map_or_else(|| "never".to_owned(), |at| seconds(*at));
            let clue = Clue::from(format!("{}, acked {acked}", post.id));
            found.push(broken(Property::G8, "no-batch", text, [clue]));
        }
    }
    found
}

/// Returns the writes that do not follow the write that their `assign` line names.
fn skipped(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut follows: BTreeMap<(&Resource, Token), u64> = BTreeMap::new();
    for said in evidence.events {
        if let Event::Assign { resource, token, after: Some(after), .. } = &said.event {
            follows.insert((resource, *token), *after);
        }
    }
    let mut last: BTreeMap<&Resource, &WriteRow> = BTreeMap::new();
    let mut found = Vec::new();
    for write in &evidence.store.writes {
        let before = last.insert(&write.resource, write);
        let Some(after) = follows.get(&(&write.resource, write.token)) else { continue };
        let wanted = Token { n: *after, ..write.token };
        let is_next = before.is_some_and(|before| {
            before.token == write.token || (before.kind != "grant" && before.token == wanted)
        });
        if !is_next {
            let text = format!("{} was written, but not right after n {after}", write.resource);
            let clues = before.into_iter().chain([write]).map(row);
            found.push(broken(Property::G8, "skipped", text, clues));
        }
    }
    found
}

fn first_acks(evidence: &Evidence<'_>) -> BTreeMap<PostId, Duration> {
    let mut acks = BTreeMap::new();
    for operation in &evidence.history.operations {
        if let Some((at, post)) = operation.committed() {
            acks.entry(post.id).or_insert(at);
        }
    }
    acks
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::{BoardName, Registration};

    use super::*;
    use crate::oracle::fixtures::{EPOCH, Fixture, id, node};

    fn given(made: &mut Fixture, worker: u8, n: u64, post: u8) {
        given_after(made, worker, n, None, post);
    }

    fn given_after(made: &mut Fixture, worker: u8, n: u64, after: Option<u64>, post: u8) {
        let assign = Event::Assign {
            worker: node(worker),
            registration: Registration(1),
            resource: Resource::Board(BoardName::lobby()),
            token: Token { epoch: EPOCH, lease: 1, n },
            after,
            posts: vec![id(post)],
            attempt: 1,
        };
        made.said(1, "master:0", assign);
    }

    #[test]
    fn post_in_a_batch_that_was_given_out_and_written_is_accepted() {
        let mut made = Fixture::new();
        given(&mut made, 1, 1, 1);
        given(&mut made, 2, 2, 1);
        made.write("grant", 9, 1, 0).write("write", 2, 1, 2).stored(0, 1);
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn batch_that_was_sent_early_is_written_only_right_after_the_one_that_it_follows() {
        let three = |written: &[u64]| {
            let mut made = Fixture::new();
            given(&mut made, 1, 1, 1);
            given_after(&mut made, 1, 2, Some(1), 2);
            given_after(&mut made, 1, 3, Some(2), 3);
            made.write("grant", 9, 1, 0);
            for n in written {
                made.write("write", 1, 1, *n);
            }
            made.judge(judge).into_iter().map(|told| told.rule.name).collect::<Vec<_>>()
        };
        assert_eq!(three(&[1, 2, 2, 3]), [""; 0]);
        assert_eq!(three(&[1]), [""; 0]);
        assert_eq!(three(&[2]), ["skipped"], "the first was not written");
        assert_eq!(three(&[1, 3]), ["skipped"], "the second was not written");
    }

    #[test]
    fn write_of_another_worker_and_post_without_a_batch_are_reported() {
        let mut made = Fixture::new();
        given(&mut made, 1, 1, 1);
        made.write("grant", 9, 1, 0).write("write", 2, 1, 1).stored(0, 1);
        let told = made.judge(judge);
        assert_eq!((told.len(), told[0].rule.name), (1, "not-given"), "{told:?}");
        let mut made = Fixture::new();
        given(&mut made, 1, 1, 1);
        made.write("grant", 9, 1, 0).write("write", 1, 1, 1).stored(0, 1).stored(0, 2);
        let told = made.judge(judge);
        assert_eq!((told.len(), told[0].rule.name), (1, "no-batch"), "{told:?}");
    }
}
