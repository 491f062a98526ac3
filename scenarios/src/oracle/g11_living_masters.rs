//! G11, masters that live: a while after all that troubled either of them or the store, what a master
//! tells its people of the masters names every other one that is alive.
//!
//! 1. What a stream was told last holds until its next delivery that says otherwise, or its last one.
//! 2. A master is alive while it is heard of: by its own lines, or by streams that it serves.
//! 3. Masters of which two processes ran, and stores whose content went back, are not judged.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chatchat::{
    api::StreamEvent,
    config::Config,
    model::{event::Event, ids::NodeId, stream::MasterInfo},
};

use super::{Evidence, Violation, broken, seconds, stream_line, troubles::AFTERMATH};
use crate::{fault::Kind, history::StreamLog, property::Property, target::Place};

/// Time after the last trouble, or the start of the younger one, within which a master lists another:
/// that one touches its row, and this one reads it.
fn listed_within(config: &Config) -> Duration {
    AFTERMATH + 2 * (config.store_poll_interval + config.store_timeout)
}

/// Signs of a master's life.
#[derive(Default)]
struct Life {
    /// Times at which it became ready.
    starts: Vec<Duration>,
    /// Times at which it ended, or began to be drained.
    ends: Vec<Duration>,
    /// Identities that it showed.
    nodes: Vec<(Duration, NodeId)>,
    /// Times at which it was heard of, in order.
    heard: Vec<Duration>,
}

impl Life {
    /// Returns the start of its life at a time; `None` when it had ended, or was ending.
    fn since(&self, at: Duration) -> Option<Duration> {
        let start = self.starts.iter().filter(|start| **start <= at).max();
        let start = start.copied().unwrap_or_default();
        let is_over = self.ends.iter().any(|end| (start..=at).contains(end));
        (!is_over).then_some(start)
    }

    /// Returns its identity from one time to another, if it showed one.
    fn node(&self, from: Duration, to: Duration) -> Option<NodeId> {
        let shown = self.nodes.iter().filter(|(at, _)| (from..=to).contains(at));
        shown.max_by_key(|(at, _)| *at).map(|(_, node)| *node)
    }

    /// Returns the last time up to another at which it was heard of.
    fn heard_by(&self, at: Duration) -> Option<Duration> {
        let count = self.heard.partition_point(|heard| *heard <= at);
        self.heard[..count].last().copied()
    }
}

/// List of the masters that a stream was told.
struct Told<'a> {
    masters: &'a [MasterInfo],
    /// Time at which it was, and last time at which nothing else had been.
    at: Duration,
    until: Duration,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    if went_back(evidence) {
        return Vec::new();
    }
    let lives = lives(evidence);
    let mut found = Vec::new();
    let mut reported: BTreeSet<(Place, Place)> = BTreeSet::new();
    for stream in evidence.history.streams.iter().filter(|it| !it.is_slow && !it.looked_away) {
        let Some(teller) = evidence.master_at(&stream.master) else { continue };
        for told in told(stream) {
            for (master, url) in evidence.history.masters.iter().enumerate() {
                let place = Place::Master(master);
                let is_listed = told.masters.iter().any(|listed| listed.http == *url);
                if place == teller || is_listed || reported.contains(&(teller, place)) {
                    continue;
                }
                if let Some(at) = missing(evidence, &lives, stream, &told, [teller, place]) {
                    reported.insert((teller, place));
                    let text = format!("{teller} did not list {place} at {}", seconds(at));
                    let clues = [stream_line(stream, told.at)];
                    found.push(broken(Property::G11, "master-missing", text, clues));
                }
            }
        }
    }
    found
}

/// Returns whether the store's content may have been replaced by an older one: its rows of masters are
/// not theirs any more.
fn went_back(evidence: &Evidence<'_>) -> bool {
    let mut kinds = evidence.incidents_at(Place::Store).map(|incident| evidence.kind_of(incident));
    kinds.any(|kind| matches!(kind, None | Some(Kind::Wipe | Kind::Rollback | Kind::Clone)))
}

fn lives(evidence: &Evidence<'_>) -> BTreeMap<Place, Life> {
    let masters = (0..evidence.plan.cluster.masters).map(Place::Master);
    let ended = |place| Life { ends: evidence.deaths(place).collect(), ..Life::default() };
    let mut lives: BTreeMap<Place, Life> = masters.map(|place| (place, ended(place))).collect();
    for said in evidence.events {
        let Some(life) = said.place().and_then(|place| lives.get_mut(&place)) else { continue };
        life.heard.push(said.at);
        match &said.event {
            Event::Start { .. } => life.starts.push(said.at),
            Event::Drain { .. } => life.ends.push(said.at),
            Event::Join { master, .. } => life.nodes.push((said.at, *master)),
            _ => {}
        }
    }
    for stream in &evidence.history.streams {
        let place = evidence.master_at(&stream.master);
        let Some(life) = place.and_then(|place| lives.get_mut(&place)) else { continue };
        for (at, delivery) in &stream.deliveries {
            match &delivery.event {
                StreamEvent::Hello(hello) => life.nodes.push((*at, hello.node.id)),
                StreamEvent::Beat => {}
                _ => continue,
            }
            life.heard.push(*at);
        }
    }
    for life in lives.values_mut() {
        life.heard.sort_unstable();
    }
    lives
}

/// Returns what a stream was told of the masters, in the order of time.
fn told(stream: &StreamLog) -> Vec<Told<'_>> {
    let mut told: Vec<Told<'_>> = Vec::new();
    for (at, delivery) in &stream.deliveries {
        let masters = match &delivery.event {
            StreamEvent::Hello(hello) => &hello.masters,
            StreamEvent::Masters(list) => &list.masters,
            _ => {
                if let Some(last) = told.last_mut() {
                    last.until = *at;
                }
                continue;
            }
        };
        told.push(Told { masters, at: *at, until: *at });
    }
    told
}

/// Returns a time at which a teller had long known that a master is alive, and had said otherwise.
fn missing(
    evidence: &Evidence<'_>,
    lives: &BTreeMap<Place, Life>,
    stream: &StreamLog,
    told: &Told<'_>,
    [teller, master]: [Place; 2],
) -> Option<Duration> {
    let reader = evidence.machine_of(stream.who);
    let (own, other) = (lives.get(&teller)?, lives.get(&master)?);
    let begun = evidence.incidents.iter().map(|it| it.from.saturating_sub(Duration::from_nanos(1)));
    let latest = begun.filter(|at| (told.at..told.until).contains(at)).chain([told.until]);
    let is_missing = |at: &Duration| {
        let at = *at;
        let (Some(own), Some(since)) = (own.since(at), other.since(at)) else { return false };
        let places = [teller, master, Place::Store, reader];
        let Some(quiet) = quiet_since(evidence, places, at) else { return false };
        let settled = quiet.max(own).max(since) + listed_within(&evidence.plan.cluster.config);
        // A master that shows no identity may stand in the list under another address.
        let Some(node) = other.node(since, at) else { return false };
        at >= told.at.max(settled) && told.masters.iter().all(|listed| listed.id != node)
    };
    latest.filter_map(|at| other.heard_by(at)).find(is_missing)
}

/// Returns the end of the last fault that may have touched any of some places; `None` when one does at
/// that time, or two processes ran as one of them.
fn quiet_since(evidence: &Evidence<'_>, places: [Place; 4], at: Duration) -> Option<Duration> {
    let mut since = Duration::ZERO;
    for place in places {
        if evidence.doubled_from(place).is_some_and(|from| from <= at) {
            return None;
        }
        for incident in evidence.incidents_between(place, Duration::ZERO, at) {
            let end = evidence.end_of(incident);
            if end >= at {
                return None;
            }
            since = since.max(end);
        }
    }
    Some(since)
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::{HelloEvent, MastersEvent},
        model::ids::Incarnation,
    };

    use super::*;
    use crate::oracle::fixtures::{Fixture, lobby_cursor, node};

    const TELLER: u8 = 8;
    const OTHER: u8 = 9;
    const CUT: (&str, &str, u64, u64) =
        ("partition", "from = \"master:1\"\nto = \"store\"", 10_000, 20_000);

    fn info(n: u8) -> MasterInfo {
        let http = if n == TELLER { "http://m" } else { "http://n" };
        MasterInfo { id: node(n), name: "m".to_owned(), http: http.to_owned() }
    }

    fn hello(of: u8, masters: &[u8]) -> StreamEvent {
        StreamEvent::Hello(HelloEvent {
            node: info(of),
            masters: masters.iter().map(|n| info(*n)).collect(),
            cursor: lobby_cursor(1),
            beat_ms: 4000,
        })
    }

    fn beats(until: u64) -> impl Iterator<Item = (u64, StreamEvent)> {
        (4_u64..)
            .map(|n| n * 1000)
            .take_while(move |at| *at <= until)
            .map(|at| (at, StreamEvent::Beat))
    }

    /// Master 0 drops the other one at 16 s, and lists it again at a time, if at all; streams of both
    /// are heard of until these times.
    fn made(faults: &[(&str, &str, u64, u64)], again: Option<u64>, heard: [u64; 2]) -> Fixture {
        let mut made = Fixture::with_faults(faults);
        made.history.masters = vec!["http://m".to_owned(), "http://n".to_owned()];
        for place in ["master:0", "master:1"] {
            made.said(0, place, Event::Start { incarnation: Incarnation(1) });
        }
        let alone = StreamEvent::Masters(MastersEvent { masters: vec![info(TELLER)] });
        let both = MastersEvent { masters: vec![info(TELLER), info(OTHER)] };
        let again = again.map(|at| (at, StreamEvent::Masters(both)));
        let mut told = vec![(1000, hello(TELLER, &[TELLER, OTHER])), (16_000, alone)];
        told.extend(beats(heard[0]).chain(again));
        told.sort_by_key(|(at, _)| *at);
        made.stream(0, 0, told);
        let mut told = vec![(1000, hello(OTHER, &[TELLER, OTHER]))];
        told.extend(beats(heard[1]));
        made.stream(1, 0, told);
        made.history.streams[1].master = "http://n".to_owned();
        made
    }

    const END: [u64; 2] = [60_000, 60_000];

    #[test]
    fn living_master_that_is_listed_again_in_time_is_accepted() {
        for at in [21_000, 30_000, 38_000] {
            assert_eq!(made(&[CUT], Some(at), END).judge(judge), [], "at {at}");
        }
    }

    #[test]
    fn living_master_that_is_not_listed_long_after_a_cut_is_reported_once() {
        assert_eq!(made(&[CUT], None, END).rules(judge), ["g11.master-missing"]);
        assert_eq!(made(&[CUT], Some(55_000), END).rules(judge), ["g11.master-missing"], "late");
        let next = ("crash", "target = \"master:1\"", 50_000, 59_000);
        let told = made(&[CUT, next], None, END).rules(judge);
        assert_eq!(told, ["g11.master-missing"], "long before the next fault");
    }

    #[test]
    fn nothing_is_expected_soon_after_a_fault_or_of_a_master_that_is_not_heard_of() {
        assert_eq!(made(&[CUT], None, [38_000; 2]).judge(judge), [], "too soon");
        assert_eq!(made(&[CUT], None, [60_000, 38_000]).judge(judge), [], "it is not heard of");
        for target in ["master:0", "master:1", "store", "person:0"] {
            let target = format!("target = \"{target}\"");
            let pause = ("pause", target.as_str(), 37_000, 45_000);
            assert_eq!(made(&[CUT, pause], None, END).judge(judge), [], "{target}");
        }
        let other = ("pause", "target = \"worker:0\"", 37_000, 45_000);
        assert_eq!(made(&[CUT, other], None, END).judge(judge).len(), 1, "that one has no part");
        let clone = ("clone", "target = \"master:1\"", 10_000, 12_000);
        assert_eq!(made(&[CUT, clone], None, END).judge(judge), [], "which of the two");
        let back = ("rollback", "target = \"store\"\nby = \"5s\"", 10_000, 12_000);
        assert_eq!(made(&[back], None, END).judge(judge), [], "its rows went back");
    }

    #[test]
    fn master_that_drains_or_just_started_or_has_another_address_is_not_expected() {
        let mut drains = made(&[CUT], None, END);
        drains.said(21_000, "master:1", Event::Drain { hands_over: true });
        assert_eq!(drains.judge(judge), []);
        let mut starts = made(&[CUT], None, END);
        starts.said(42_000, "master:1", Event::Start { incarnation: Incarnation(2) });
        assert_eq!(starts.judge(judge), [], "it may be new");
        let mut moved = made(&[CUT], None, END);
        let elsewhere = MasterInfo { http: "http://public".to_owned(), ..info(OTHER) };
        let masters = MastersEvent { masters: vec![info(TELLER), elsewhere] };
        let deliveries = &mut moved.history.streams[0].deliveries;
        let is_list = |event: &StreamEvent| matches!(event, StreamEvent::Masters(_));
        for (_, delivery) in deliveries.iter_mut().filter(|(_, it)| is_list(&it.event)) {
            delivery.event = StreamEvent::Masters(masters.clone());
        }
        assert_eq!(moved.judge(judge), [], "its identity is listed");
    }
}
