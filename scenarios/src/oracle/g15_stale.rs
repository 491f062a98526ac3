//! G15 weak service: what a weak page shows may be old, and never stays so. It goes at least as far as
//! anybody was told of its board a few seconds before, or before the store went away.
//!
//! 1. It is judged while nothing is wrong with a master, a worker or the store, or with the store alone, and
//!    only once copies had the time to be filled after anything else.
//! 2. Judged are pages, whoever gave them: a node database, a master's memory, or another master.

use std::time::Duration;

use chatchat::{
    client::{Answer, Request},
    model::{
        event::Event,
        ids::{BoardName, Seq},
        stream::Consistency,
    },
};

use super::{
    Evidence, Violation, broken, epochs::Epochs, g15_weak::Outage, holders::places, line, seconds,
    told::Told, troubles::AFTERMATH,
};
use crate::{fault::Kind, history::Operation, plan::Incident, property::Property};

/// Time within which all copies have what was told of a board, beside one reading of the store's boards and
/// one answer.
const COPIED_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    if evidence.is_set_back() || is_of_several_stores(evidence) {
        return found;
    }
    let (told, copies) = (Told::read(evidence.history), Copies::read(evidence));
    for operation in &evidence.history.operations {
        let Some((board, end, at)) = weak_page(operation) else { continue };
        let Some(by) = copies.whole_by(evidence, operation.invoked, at) else { continue };
        let floor = told.end_before(board, by);
        if end < floor {
            let by = seconds(by);
            let text =
                format!("a weak page of {board} ended at {end}, {floor} was told before {by}");
            found.push(broken(Property::G15, "stale", text, [line(operation)]));
        }
    }
    found
}

/// Returns the board of a weak page, the end that it tells of it, and when it was answered.
fn weak_page(operation: &Operation) -> Option<(&BoardName, Seq, Duration)> {
    match (&operation.request, operation.reply()?) {
        (Request::Read { board, .. }, (at, Answer::Page(page)))
            if page.consistency == Consistency::Weak =>
        {
            Some((board, page.last_seq, at))
        }
        _ => None,
    }
}

/// Returns whether a page is of an epoch that the store did not have: places of one store say nothing of
/// another.
fn is_of_several_stores(evidence: &Evidence<'_>) -> bool {
    let epochs = Epochs::read(evidence);
    let mut replies = evidence.history.operations.iter().filter_map(Operation::reply);
    replies.any(|(_, answer)| matches!(answer, Answer::Page(page) if !epochs.is_known(page.epoch)))
}

/// Copies of boards, at workers and in masters' memory, and what may keep them from being whole.
struct Copies<'a> {
    /// Faults that may have touched a master, a worker or the store.
    faults: Vec<&'a Incident>,
    /// Times in which the store was away and nothing else was wrong.
    outages: Vec<Outage<'a>>,
    /// Times at which a worker came, whose copy may be an old one, or a link had no room for an update.
    upsets: Vec<Duration>,
    /// Time from which what is on a disk may be damaged: it may be read at any time.
    rotten_from: Option<Duration>,
}

impl<'a> Copies<'a> {
    fn read(evidence: &'a Evidence<'_>) -> Self {
        let is_near = |it: &&Incident| places(evidence).any(|place| evidence.may_touch(it, place));
        let faults: Vec<&Incident> = evidence.incidents.iter().filter(is_near).collect();
        let is_rot = |it: &&&Incident| evidence.kind_of(it) == Some(Kind::BitRot);
        let rotten_from = faults.iter().filter(is_rot).map(|it| it.from).min();
        let is_upset =
            |event: &Event| matches!(event, Event::Join { .. } | Event::FanoutFull { .. });
        let upsets = evidence.events.iter().filter(|said| is_upset(&said.event));
        Self {
            rotten_from,
            faults,
            outages: Outage::all(evidence).collect(),
            upsets: upsets.map(|said| said.at).collect(),
        }
    }

    /// Returns the time by which what was told has to be in a page that was asked for at one time and
    /// answered at another; `None` where a copy may lack more.
    fn whole_by(&self, evidence: &Evidence<'_>, from: Duration, to: Duration) -> Option<Duration> {
        let poll = evidence.plan.cluster.config.store_poll_interval;
        let outage = self.outages.iter().find(|it| it.from <= from && to <= it.until);
        // What was copied before the store went away is not lost meanwhile, and there is nothing new.
        let seen = outage.map_or(from, |it| it.from);
        let since = seen.checked_sub(AFTERMATH.saturating_add(poll))?;
        let is_other = |it: &Incident| outage.is_none_or(|outage| outage.incident != it);
        let is_on = |it: &Incident| it.from <= to && evidence.end_of(it) >= since;
        let is_rotten = self.rotten_from.is_some_and(|rotten| rotten <= to);
        let is_hurt = self.faults.iter().any(|it| is_other(it) && is_on(it));
        let is_upset = self.upsets.iter().any(|at| (since..=to).contains(at));
        if is_rotten || is_hurt || is_upset {
            return None;
        }
        seen.checked_sub(COPIED_WITHIN.saturating_add(poll).saturating_add(evidence.calm_limit))
    }
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::{Registration, StoreEpoch};

    use super::*;
    use crate::oracle::fixtures::{Fixture, located, ms, node};

    const STALE: &[&str] = &["g15.stale"];
    const NONE: &[&str] = &[];

    /// Adds an ack of the second post at a time, and a page with the first one alone that is asked for at
    /// another. Returns what is reported.
    fn shown(mut made: Fixture, acked: u64, asked: u64, consistency: Consistency) -> Vec<String> {
        made.stored(0, 1).stored(0, 2).acked(0, 2, acked - 100, acked, 2);
        made.read(1, asked, asked + 20, consistency, &[(0, 1, 1)]);
        located(&made.judge(judge))
    }

    fn weak(made: Fixture, acked: u64, asked: u64) -> Vec<String> {
        shown(made, acked, asked, Consistency::Weak)
    }

    /// Makes a run in which the store is away for 20 s, with other faults.
    fn with_outage(others: &[(&str, &str, u64, u64)]) -> Fixture {
        let outage = ("crash", "target = \"store\"", 30_000, 50_000);
        Fixture::with_faults(&[&[outage], others].concat())
    }

    #[test]
    fn weak_page_that_lacks_what_was_told_long_before_in_calm_is_reported() {
        assert_eq!(weak(Fixture::new(), 20_000, 27_001), STALE);
        assert_eq!(weak(Fixture::new(), 20_000, 27_000), NONE, "not so long before");
        assert_eq!(weak(Fixture::new(), 8000, 15_999), NONE, "the cluster starts");
        let strong = shown(Fixture::new(), 20_000, 40_000, Consistency::Strong);
        assert_eq!(strong, NONE, "another rule's");
        let mut whole = Fixture::new();
        whole.stored(0, 1).stored(0, 2).acked(0, 2, 19_900, 20_000, 2);
        whole.read(1, 40_000, 40_020, Consistency::Weak, &[(0, 1, 1), (0, 2, 2)]);
        assert_eq!(whole.judge(judge), []);
    }

    #[test]
    fn weak_page_that_lacks_what_was_told_before_the_store_went_away_is_reported() {
        assert_eq!(weak(with_outage(&[]), 22_999, 40_000), STALE);
        assert_eq!(weak(with_outage(&[]), 23_000, 40_000), NONE, "right before, or meanwhile");
        assert_eq!(weak(with_outage(&[]), 20_000, 49_990), NONE, "answered when it was back");
        assert_eq!(weak(with_outage(&[]), 20_000, 29_990), NONE, "asked before, answered then");
    }

    #[test]
    fn copies_have_time_to_be_filled_after_a_fault_of_a_node_or_the_store() {
        for target in ["master:1", "worker:0", "store"] {
            let keys = format!("target = \"{target}\"");
            let after = |until| Fixture::with_faults(&[("pause", keys.as_str(), 5000, until)]);
            assert_eq!(weak(after(24_000), 30_000, 40_000), NONE, "{target}");
            assert_eq!(weak(after(23_999), 30_000, 40_000), STALE, "{target}");
        }
        let mut unknown = Fixture::new();
        unknown.trouble(5000, 24_000);
        assert_eq!(weak(unknown, 30_000, 40_000), NONE, "whatever it was");
        let person = Fixture::with_faults(&[("pause", "target = \"person:1\"", 5000, 39_000)]);
        assert_eq!(weak(person, 30_000, 40_000), STALE, "a person holds no copy");
        let wiped = |until| with_outage(&[("wipe", "target = \"worker:0\"", 5000, until)]);
        assert_eq!(weak(wiped(14_000), 20_000, 40_000), NONE);
        assert_eq!(weak(wiped(13_999), 20_000, 40_000), STALE);
    }

    #[test]
    fn copies_are_filled_anew_after_a_restore_of_the_store() {
        for (at, found) in [(18_999, STALE), (19_000, NONE)] {
            let restore = ("restore", "target = \"store\"", at, at);
            let mut made = Fixture::with_faults(&[restore]);
            made.restored_at(at);
            assert_eq!(weak(made, 30_000, 40_000), found, "{at}");
        }
    }

    #[test]
    fn copies_may_be_older_where_the_store_is_read_seldom() {
        let seldom = |acked, asked| {
            let mut made = Fixture::new();
            made.plan.cluster.config.store_poll_interval = ms(15_000);
            weak(made, acked, asked)
        };
        assert_eq!(seldom(20_000, 41_000), NONE);
        assert_eq!(seldom(20_000, 41_001), STALE);
    }

    #[test]
    fn worker_that_came_or_a_link_without_room_excuses_what_a_copy_lacks() {
        let (registration, master) = (Registration(1), node(9));
        let join = Event::Join { node: node(1), registration, master };
        for event in [join, Event::FanoutFull { node: node(1) }] {
            for (at, found) in [(23_999, STALE), (24_000, NONE), (40_020, NONE), (40_021, STALE)] {
                let mut made = Fixture::new();
                made.said(at, "master:0", event.clone());
                assert_eq!(weak(made, 30_000, 40_000), found, "{event:?} {at}");
            }
        }
    }

    #[test]
    fn rotten_disk_is_excused_for_good_and_so_is_a_store_of_another_life() {
        let rotten = ("bit_rot", "target = \"worker:0\"\nrate = 0.1", 2000, 3000);
        assert_eq!(weak(Fixture::with_faults(&[rotten]), 30_000, 50_000), NONE);
        let back = ("rollback", "target = \"store\"\nby = \"1s\"", 2000, 3000);
        assert_eq!(weak(Fixture::with_faults(&[back]), 30_000, 50_000), NONE);
        let mut restored = Fixture::new();
        restored.store.epoch = StoreEpoch(6);
        assert_eq!(weak(restored, 30_000, 50_000), NONE);
    }
}
