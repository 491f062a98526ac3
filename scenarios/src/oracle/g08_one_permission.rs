//! G8 one permission: accepted writes of one resource never go back in token; one token names one
//! worker and one batch; once a newer token has written, an older one never does.
//!
//! A token is of an epoch that the store had, and no write is of an epoch before that of an earlier one.
//!
//! Judged from the store's own record of writes, and from the coordinators' `assign` lines.

use std::collections::BTreeMap;

use chatchat::model::{
    event::Event,
    ids::{NodeId, PostId, Resource, Token},
    rows::WriteRow,
};

use super::{Clue, EventLine, Evidence, Point, Violation, broken, epochs::Epochs};
use crate::property::Property;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let epochs = Epochs::read(evidence);
    let mut found = accepted(evidence, &epochs);
    found.extend(assigned(evidence.events, &epochs));
    found
}

pub(super) fn row(row: &WriteRow) -> Clue {
    let text = format!(
        "write {}: {} of {} under {} by {}",
        row.number, row.kind, row.resource, row.token, row.node
    );
    Clue { text, point: Some(Point::Write(row.number)) }
}

/// Returns writes, and the lines by which they were given out: the store's rows have no time.
fn rows_of(evidence: &Evidence<'_>, writes: &[&WriteRow]) -> Vec<Clue> {
    let line = |write: &WriteRow| {
        evidence.events.iter().find(|said| {
            matches!(&said.event, Event::Assign { worker, resource, token, .. }
                if (*worker, resource, *token) == (write.node, &write.resource, write.token))
        })
    };
    let lines = writes.iter().copied().filter_map(line).map(EventLine::clue);
    writes.iter().copied().map(row).chain(lines).collect()
}

fn accepted(evidence: &Evidence<'_>, epochs: &Epochs) -> Vec<Violation> {
    let mut last: Option<&WriteRow> = None;
    let mut newest: BTreeMap<&Resource, &WriteRow> = BTreeMap::new();
    let mut names: BTreeMap<(&Resource, Token), &WriteRow> = BTreeMap::new();
    let mut found = Vec::new();
    // The store keeps a bounded number of rows: without the first of all, a grant may be gone.
    let has_all = evidence.store.writes.first().is_some_and(|first| first.number <= 1);
    for write in &evidence.store.writes {
        let last = last.replace(write).filter(|last| last.token.epoch > write.token.epoch);
        if last.is_some() || !epochs.is_known(write.token.epoch) {
            let text =
                format!("{} was written in an epoch that is over or never was", write.resource);
            let rows: Vec<_> = last.into_iter().chain([write]).collect();
            found.push(broken(Property::G8, "epoch", text, rows_of(evidence, &rows)));
            continue;
        }
        let is_grant = write.kind == "grant";
        let before = newest.get(&write.resource).copied();
        if let Some(before) = before {
            // A grant begins something new; a write may follow one of its own token.
            let goes_back = write.token < before.token;
            if goes_back || (is_grant && write.token == before.token) {
                let text = format!("{} went back in token", write.resource);
                let rows = rows_of(evidence, &[before, write]);
                found.push(broken(Property::G8, "back", text, rows));
                continue;
            }
        }
        let is_granted = before.map_or(!has_all, |before| {
            (before.token.epoch, before.token.lease) == (write.token.epoch, write.token.lease)
        });
        if !is_grant && !is_granted {
            let text = format!("{} was written under a token never granted", write.resource);
            let rows: Vec<_> = before.into_iter().chain([write]).collect();
            found.push(broken(Property::G8, "never-granted", text, rows_of(evidence, &rows)));
        }
        newest.insert(&write.resource, write);
        if is_grant {
            continue;
        }
        let first = *names.entry((&write.resource, write.token)).or_insert(write);
        if first.node != write.node {
            let text = format!("token {} of {} names two workers", write.token, write.resource);
            let rows = rows_of(evidence, &[first, write]);
            found.push(broken(Property::G8, "two-workers", text, rows));
        }
    }
    found
}

fn assigned(events: &[EventLine], epochs: &Epochs) -> Vec<Violation> {
    type Named<'a> = (NodeId, &'a [PostId], &'a EventLine);
    let mut names: BTreeMap<(&Resource, Token), Named<'_>> = BTreeMap::new();
    let mut found = Vec::new();
    for said in events {
        let Event::Assign { worker, resource, token, posts, .. } = &said.event else { continue };
        if !epochs.has_begun(token.epoch, said.at) {
            let text = format!("token {token} of {resource} is of an epoch that had not begun");
            found.push(broken(Property::G8, "epoch", text, [said.clue()]));
        }
        let (first, batch, line) =
            *names.entry((resource, *token)).or_insert((*worker, posts, said));
        let what = if first != *worker {
            "two workers"
        } else if batch != posts.as_slice() {
            "two batches"
        } else {
            continue;
        };
        let text = format!("token {token} of {resource} names {what}");
        found.push(broken(Property::G8, "named", text, [line.clue(), said.clue()]));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{EPOCH, Fixture, assigned, node};

    const WRONG: &[&str] = &["g08.epoch"];
    const NONE: &[&str] = &[];

    fn assign(worker: u8, n: u64, post: u8, attempt: u32) -> Event {
        assigned(worker, n, &[post], attempt)
    }

    #[test]
    fn rising_tokens_and_retry_under_the_same_are_accepted() {
        let mut made = Fixture::new();
        made.write("grant", 100, 1, 0).write("write", 1, 1, 1).write("write", 1, 1, 1);
        made.write("write", 2, 1, 2).write("grant", 101, 2, 0).write("write", 1, 2, 1);
        made.said(1, "master:0", assign(1, 1, 1, 1)).said(2, "master:0", assign(1, 1, 1, 2));
        made.said(3, "master:0", assign(2, 2, 1, 3));
        assert_eq!(made.judge(judge), []);
    }

    #[test]
    fn late_write_under_older_token_is_reported() {
        let mut made = Fixture::new();
        made.write("grant", 100, 1, 0).write("write", 2, 1, 2).write("write", 1, 1, 1);
        made.said(5, "master:0", assign(2, 2, 1, 1)).said(6, "master:1", assign(1, 1, 1, 1));
        let told = made.judge(judge);
        assert_eq!((told.len(), told[0].rule.name), (1, "back"), "an older n");
        let lines =
            told[0].evidence.iter().filter(|clue| matches!(clue.point, Some(Point::Line(_))));
        assert_eq!(lines.count(), 2, "rows have no time, the lines that gave them out have");
        let mut made = Fixture::new();
        made.write("grant", 100, 1, 0).write("grant", 101, 2, 0).write("write", 1, 1, 1);
        assert_eq!(made.rules(judge), ["g08.back"], "an older lease");
        let mut made = Fixture::new();
        made.write("grant", 100, 1, 0).write("write", 1, 2, 1);
        assert_eq!(made.rules(judge), ["g08.never-granted"], "a lease that nobody has");
    }

    /// Makes the token of a row of the store one of an epoch.
    fn in_epoch(made: &mut Fixture, row: usize, epoch: u64) {
        made.store.writes[row].token.epoch.0 = epoch;
    }

    #[test]
    fn write_in_an_epoch_that_is_over_or_never_was_is_reported() {
        let written = || {
            let mut made = Fixture::new();
            made.restored_at(20_000);
            made.write("grant", 100, 1, 0).write("write", 1, 1, 1);
            made.write("grant", 100, 2, 0).write("write", 1, 2, 1);
            (2..4).for_each(|row| in_epoch(&mut made, row, EPOCH.0 + 1));
            made
        };
        assert_eq!(written().judge(judge), []);
        let mut made = written();
        made.write("write", 1, 1, 2);
        made.store.writes[4].resource = Resource::Sessions(node(9));
        assert_eq!(made.rules(judge), ["g08.epoch"], "it is over, for other resources too");
        let mut made = written();
        in_epoch(&mut made, 3, EPOCH.0 + 2);
        assert_eq!(made.rules(judge), ["g08.epoch"], "it never was");
    }

    #[test]
    fn batch_under_a_token_of_an_epoch_that_had_not_begun_is_reported() {
        for (epoch, at, found) in [
            (5, 20, NONE),
            (5, 30_000, NONE),
            (6, 20_000, NONE),
            (6, 19_999, WRONG),
            (7, 30_000, WRONG),
        ] {
            let mut given = assign(1, 1, 1, 1);
            if let Event::Assign { token, .. } = &mut given {
                token.epoch.0 = epoch;
            }
            let mut made = Fixture::new();
            made.restored_at(20_000);
            made.said(at, "master:0", given);
            assert_eq!(made.rules(judge), found, "{epoch} at {at}");
        }
    }

    #[test]
    fn first_write_of_a_resource_without_a_grant_is_reported_unless_rows_are_gone() {
        let first = |number: u64| {
            let mut made = Fixture::new();
            made.said(1, "master:0", assign(1, 1, 1, 1)).write("write", 1, 1, 1);
            made.store.writes[0].number = number;
            made.rules(judge)
        };
        assert_eq!(first(1), ["g08.never-granted"], "it was given out, under no lease");
        assert_eq!(first(2), [""; 0], "the row before may have been its grant");
        let mut made = Fixture::new();
        made.write("grant", 100, 1, 0).write("write", 1, 1, 1);
        assert_eq!(made.judge(judge), []);
        made.store.writes[0].resource = Resource::Sessions(node(9));
        assert_eq!(made.rules(judge), ["g08.never-granted"], "another resource was granted");
    }

    #[test]
    fn token_with_two_workers_or_two_batches_is_reported() {
        let mut made = Fixture::new();
        made.write("grant", 100, 1, 0).write("write", 1, 1, 1).write("write", 2, 1, 1);
        assert_eq!(made.rules(judge), ["g08.two-workers"]);
        let mut made = Fixture::new();
        made.said(1, "master:0", assign(1, 1, 1, 1)).said(2, "master:0", assign(2, 1, 1, 2));
        assert_eq!(made.rules(judge), ["g08.named"]);
        let mut made = Fixture::new();
        made.said(1, "master:0", assign(1, 1, 1, 1)).said(2, "master:0", assign(1, 1, 2, 1));
        assert_eq!(made.rules(judge), ["g08.named"]);
    }
}
