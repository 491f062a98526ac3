//! Oracles: one pure function per property, from the evidence of a run to its violations.
//!
//! They read people's history, the store's final content and the nodes' event lines, never a
//! node's memory. An operation without an answer is unknown: it may have happened or not, but not
//! twice. Each has canaries in its tests: hand-made histories that it must refuse.

mod deaths;
mod epochs;
#[cfg(test)]
mod fixtures;
mod floor;
mod g00_calm;
mod g01_durable_ack;
mod g02_drafts;
mod g02_exactly_once;
mod g02_letters;
mod g03_late;
mod g03_letters;
mod g03_outcomes_settle;
mod g03_refusals;
mod g04_pages;
mod g04_total_order;
mod g05_beginnings;
mod g05_catch_up;
mod g05_gap_free;
mod g05_prompt;
mod g05_unreadable;
mod g06_epochs;
mod g06_handover;
mod g06_own_session;
mod g06_sessions;
mod g07_as_of;
mod g07_fate;
mod g07_session_order;
mod g08_one_permission;
mod g08_writes;
mod g09_crash_cost;
mod g09_cut_off;
mod g09_in_time;
mod g09_letters;
mod g09_next_attempt;
mod g09_tasks_end;
mod g09_waits;
mod g10_failed_stay_out;
mod g11_called_failed;
mod g11_dead_masters;
mod g11_flapping;
mod g11_living_masters;
mod g11_membership;
mod g11_one_master;
mod g11_spread;
mod g12_failover;
mod g12_presence;
mod g12_streams;
mod g12_troubles;
mod g13_fanout;
mod g13_keys;
mod g13_refresh;
mod g14_expelled;
mod g15_needless;
mod g15_stale;
mod g15_states;
mod g15_told;
mod g15_weak;
mod g16_letters;
mod g16_overload;
mod g17_byes;
mod g17_drain;
mod g17_drain_late;
mod g17_failover;
mod g17_stops;
mod g17_worker_restart;
mod holders;
mod joined;
mod refusals;
mod sessions;
mod told;
mod troubles;
mod violation;

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    api::{PostState, StreamEvent},
    client::{Answer, Delivery},
    model::{
        event::Event,
        ids::{BoardName, Post, Seq, StoreEpoch},
        rows::{Range, StoreError, WriteRow},
    },
    store::Store,
};

pub use self::{
    epochs::EpochChange,
    floor::{handled_nothing, shown_nothing},
    g15_weak::shown_weak_service,
    g17_failover::times_to_stream_again,
    violation::{Clue, Point, Rule, Violation},
};
use crate::{
    history::{History, Operation, Sent, StreamLog},
    plan::{Incident, Plan},
    property::Property,
    target::{Place, Target},
};

/// An event line of a node, on the observer's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLine {
    /// Time of the line.
    pub at: Duration,
    /// Node that wrote it, such as `master:0` or `worker:2`.
    pub node: String,
    /// Event of the line.
    pub event: Event,
    /// Number of the line in the run's event log.
    pub number: usize,
}

impl EventLine {
    /// Returns the place of the node that wrote it.
    fn place(&self) -> Option<Place> {
        match self.node.parse() {
            Ok(Target::One(place)) => Some(place),
            _ => None,
        }
    }

    /// Returns the line as evidence.
    #[must_use]
    pub fn clue(&self) -> Clue {
        let text = format!("{} {}: {:?}", seconds(self.at), self.node, self.event);
        Clue { text, point: Some(Point::Line(self.number)) }
    }
}

/// Content of the store at the end of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreDump {
    /// Its epoch.
    pub epoch: StoreEpoch,
    /// Changes of its epoch by restores, in the order of time.
    pub epoch_changes: Vec<EpochChange>,
    /// All posts of every board, as the store lists them.
    pub boards: BTreeMap<BoardName, Vec<Post>>,
    /// Every accepted write and every grant, in the order of commits.
    pub writes: Vec<WriteRow>,
    /// Pages of posts that workers took from the store itself, in the order of time. Empty where nobody
    /// sees them.
    pub pages_taken: Vec<PageTaken>,
}

/// Page with posts that the store gave to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageTaken {
    /// Time at which it was given.
    pub at: Duration,
    /// Worker that asked for it.
    pub by: Place,
}

/// Everything that the oracles judge.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Plan that was carried out.
    pub plan: &'a Plan,
    /// Faults as they were carried out.
    pub incidents: &'a [Incident],
    /// History that people recorded.
    pub history: &'a History,
    /// Content of the store at the end.
    pub store: &'a StoreDump,
    /// Event lines of the nodes, in the order of time.
    pub events: &'a [EventLine],
    /// Ends of the nodes' processes, whatever ended them.
    pub ends: &'a [(Place, Duration)],
    /// Time at which the run ended.
    pub ended: Duration,
    /// Bound on every answer in calm: 1 s in simulation, 5 s on real machines.
    pub calm_limit: Duration,
}

/// Returns a violation with its evidence.
fn broken(
    property: Property,
    rule: &'static str,
    text: impl Into<String>,
    evidence: impl IntoIterator<Item = Clue>,
) -> Violation {
    let rule = Rule { property, name: rule };
    Violation { rule, text: text.into(), evidence: evidence.into_iter().collect() }
}

/// Judge of one property.
type Oracle = fn(&Evidence<'_>) -> Vec<Violation>;

/// Properties that have an oracle here. The world that runs a story judges what G14 says of the wire,
/// and G18 by running it twice.
const ORACLES: &[(Property, Oracle)] = &[
    (Property::G0, g00_calm::judge),
    (Property::G1, g01_durable_ack::judge),
    (Property::G2, g02_exactly_once::judge),
    (Property::G2, g02_drafts::judge),
    (Property::G2, g02_letters::judge),
    (Property::G3, g03_outcomes_settle::judge),
    (Property::G3, g03_late::judge),
    (Property::G3, g03_refusals::judge),
    (Property::G3, g03_letters::judge),
    (Property::G4, g04_total_order::judge),
    (Property::G4, g04_pages::judge),
    (Property::G5, g05_gap_free::judge),
    (Property::G5, g05_catch_up::judge),
    (Property::G5, g05_prompt::judge),
    (Property::G5, g05_unreadable::judge),
    (Property::G5, g05_beginnings::judge),
    (Property::G6, g06_sessions::judge),
    (Property::G6, g06_epochs::judge),
    (Property::G6, g06_own_session::judge),
    (Property::G6, g06_handover::judge),
    (Property::G7, g07_session_order::judge),
    (Property::G7, g07_as_of::judge),
    (Property::G7, g07_fate::judge),
    (Property::G8, g08_one_permission::judge),
    (Property::G8, g08_writes::judge),
    (Property::G9, g09_tasks_end::judge),
    (Property::G9, g09_waits::judge),
    (Property::G9, g09_in_time::judge),
    (Property::G9, g09_cut_off::judge),
    (Property::G9, g09_crash_cost::judge),
    (Property::G9, g09_next_attempt::judge),
    (Property::G9, g09_letters::judge),
    (Property::G10, g10_failed_stay_out::judge),
    (Property::G11, g11_membership::judge),
    (Property::G11, g11_one_master::judge),
    (Property::G11, g11_dead_masters::judge),
    (Property::G11, g11_living_masters::judge),
    (Property::G11, g11_spread::judge),
    (Property::G11, g11_flapping::judge),
    (Property::G11, g11_called_failed::judge),
    (Property::G12, g12_presence::judge),
    (Property::G12, g12_failover::judge),
    (Property::G12, g12_streams::judge),
    (Property::G13, g13_keys::judge),
    (Property::G13, g13_refresh::judge),
    (Property::G13, g13_fanout::judge),
    (Property::G14, g14_expelled::judge),
    (Property::G15, g15_weak::judge),
    (Property::G15, g15_needless::judge),
    (Property::G15, g15_told::judge),
    (Property::G15, g15_stale::judge),
    (Property::G15, g15_states::judge),
    (Property::G16, g16_overload::judge),
    (Property::G16, g16_letters::judge),
    (Property::G17, g17_byes::judge),
    (Property::G17, g17_failover::judge),
    (Property::G17, g17_drain::judge),
    (Property::G17, g17_drain_late::judge),
    (Property::G17, g17_worker_restart::judge),
];

/// Bound on the breaks of one rule that are told: the first ones say what is wrong. A flood of one
/// rule hides no other.
const TOLD_MAX: usize = 10;
/// Bound on the evidence that breaks of the same text add to the first of them.
const CLUES_MAX: usize = 10;

/// Returns whether [`judge`] judges a property.
#[must_use]
pub fn is_judged(property: Property) -> bool {
    ORACLES.iter().any(|(judged, _)| *judged == property)
}

/// Judges every property that the plan expects, in the order of their numbers. Of each rule the first
/// breaks are told.
#[must_use]
pub fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let expected = &evidence.plan.expect.properties;
    let asked = ORACLES.iter().filter(|(property, _)| expected.contains(property));
    first_of_each_rule(asked.flat_map(|(_, oracle)| oracle(evidence)))
}

/// Returns the first breaks of each rule, in the order in which they were found. What says the same as one
/// of them adds its evidence to it.
fn first_of_each_rule(found: impl Iterator<Item = Violation>) -> Vec<Violation> {
    let mut told: Vec<Violation> = Vec::new();
    let mut places: BTreeMap<Rule, BTreeMap<String, usize>> = BTreeMap::new();
    for violation in found {
        let of_rule = places.entry(violation.rule).or_default();
        if let Some(nth) = of_rule.get(&violation.text) {
            let evidence = &mut told[*nth].evidence;
            let room = CLUES_MAX.saturating_sub(evidence.len());
            let more = violation.evidence.into_iter().filter(|clue| !evidence.contains(clue));
            let more: Vec<_> = more.take(room).collect();
            evidence.extend(more);
        } else if of_rule.len() < TOLD_MAX {
            of_rule.insert(violation.text.clone(), told.len());
            told.push(violation);
        }
    }
    told
}

impl StoreDump {
    /// Reads it all.
    ///
    /// # Errors
    /// The store's; nothing is kept of what was read.
    pub async fn read(store: &Store) -> Result<Self, StoreError> {
        const PAGE: u32 = 1000;
        let listed = store.boards().await?;
        let mut dump = Self { epoch: listed.epoch, ..Self::default() };
        for (board, _) in listed.boards {
            let posts = dump.boards.entry(board.clone()).or_default();
            loop {
                let after = posts.last().map_or(Seq(0), |post: &Post| post.seq);
                let page = store.read(board.clone(), Range::After(after), PAGE).await?;
                let advances = page.posts.last().is_some_and(|post| post.seq > after);
                posts.extend(page.posts);
                // A page that goes back is kept: the oracle of order refuses it.
                if !advances {
                    break;
                }
            }
        }
        loop {
            let after = dump.writes.last().map_or(0, |row| row.number);
            let rows = store.writes(after, PAGE).await?;
            if rows.is_empty() {
                return Ok(dump);
            }
            dump.writes.extend(rows);
        }
    }

    /// Returns the post at a place of a board.
    fn post_at(&self, board: &BoardName, seq: Seq) -> Option<&Post> {
        let posts = self.boards.get(board)?;
        let nth = usize::try_from(seq.0.checked_sub(1)?).ok()?;
        // Places without holes: the usual case. Else the oracle of order complains anyway.
        posts
            .get(nth)
            .filter(|post| post.seq == seq)
            .or_else(|| posts.iter().find(|p| p.seq == seq))
    }
}

/// An operation in one line.
fn line(operation: &Operation) -> Clue {
    let end = match &operation.end {
        None => "never ended".to_owned(),
        Some((at, end)) => {
            let end: String = format!("{end:?}").chars().take(300).collect();
            format!("{} {end}", seconds(*at))
        }
    };
    let request: String = format!("{:?}", operation.request).chars().take(200).collect();
    let from = seconds(operation.invoked);
    let text = format!("{from} {} at {}: {request} -> {end}", operation.who, operation.master);
    Clue { text, point: Some(Point::Operation(operation.number)) }
}

/// An operation of a session that a ticket gave, in one line.
fn moved_line(operation: &Operation) -> Clue {
    deed(operation.who.person, operation.invoked, &line(operation).text)
}

/// Something else that a person did or saw, in one line.
fn deed(person: usize, at: Duration, what: &str) -> Clue {
    let what: String = what.chars().take(400).collect();
    Clue { text: format!("{} {what}", seconds(at)), point: Some(Point::Person(person, at)) }
}

/// Returns where a post shows: its first tries, its first answer and stream, its first batches. It
/// looks through all that people saw, so it gives nothing for a break that will not be told.
fn traces(evidence: &Evidence<'_>, found: &[Violation], post: &Post) -> Vec<Clue> {
    if found.len() >= TOLD_MAX {
        return Vec::new();
    }
    let history = evidence.history;
    let is_it = |shown: &Post| (shown.author.id, shown.id) == (post.author.id, post.id);
    let is_try = |sent: &Sent<'_>| sent.id == post.id && sent.user == Some(post.author.id);
    let tries = history.sent().filter(is_try).take(3).map(|sent| line(sent.operation));
    let shows = |operation: &&Operation| match operation.reply() {
        Some((_, Answer::Page(page))) => page.posts.iter().any(is_it),
        Some((_, Answer::Fate(Some(PostState::Committed(shown))))) => is_it(shown),
        _ => false,
    };
    let answer = history.operations.iter().find(shows).map(line);
    let delivered = history.streams.iter().find_map(|stream| {
        let is_here = |delivery: &Delivery| match &delivery.event {
            StreamEvent::Post(shown) => is_it(shown),
            _ => false,
        };
        let (at, _) = stream.deliveries.iter().find(|(_, delivery)| is_here(delivery))?;
        Some(stream_line(stream, *at))
    });
    let is_batch = |said: &&EventLine| match &said.event {
        Event::Assign { posts, .. } => posts.contains(&post.id),
        _ => false,
    };
    let batches = evidence.events.iter().filter(is_batch).take(2).map(EventLine::clue);
    tries.chain(answer).chain(delivered).chain(batches).collect()
}

/// A stream at a time, in one line.
fn stream_line(stream: &StreamLog, at: Duration) -> Clue {
    let number = stream.number;
    let text = format!("{} stream {number} of {} at {}", seconds(at), stream.who, stream.master);
    Clue { text, point: Some(Point::Stream { number, at }) }
}

/// Formats a time on the observer's clock.
fn seconds(at: Duration) -> String {
    format!("{:.3}s", at.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fixtures::{Fixture, delivered};

    /// Makes a run whose store lacks so many posts that were shown, and has two others in a wrong order.
    fn shown(lacking: u8) -> Fixture {
        let mut made = Fixture::new();
        made.plan.expect.properties = vec![Property::G4];
        made.acked(0, 1, 100, 200, 2).acked(1, 2, 300, 400, 1).stored(1, 2).stored(0, 1);
        let posts = (3..3 + lacking).map(|n| (25_000, delivered(0, n, u64::from(n))));
        made.stream(2, 2, posts.collect());
        made
    }

    #[test]
    fn flood_of_one_rule_does_not_hide_another_of_its_oracle() {
        let told = shown(50).rules(judge);
        assert_eq!(told, [&["g04.shown"; TOLD_MAX][..], &["g04.real-time"]].concat());
    }

    #[test]
    fn breaks_up_to_the_bound_are_all_told() {
        let bound = u8::try_from(TOLD_MAX).unwrap();
        for lacking in [1, bound - 1, bound, bound + 1] {
            let told = shown(lacking).rules(judge);
            let shown = told.iter().filter(|rule| *rule == "g04.shown").count();
            assert_eq!(shown, usize::from(lacking.min(bound)), "{told:?}");
        }
    }

    #[test]
    fn breaks_that_say_the_same_are_told_once_with_the_evidence_of_each() {
        let at = |text: &str, clue: usize| {
            let clue = Clue { text: String::new(), point: Some(Point::Operation(clue)) };
            broken(Property::G4, "shown", text.to_owned(), [clue])
        };
        let said = [at("one", 1), at("other", 2), at("one", 3), at("one", 1)];
        let told = first_of_each_rule(said.into_iter());
        let told: Vec<_> = told.iter().map(|it| (it.text.as_str(), it.evidence.len())).collect();
        assert_eq!(told, [("one", 2), ("other", 1)]);
        let flood = first_of_each_rule((0..100).map(|clue| at("one", clue)));
        assert_eq!(flood[0].evidence.len(), CLUES_MAX);
    }

    #[test]
    fn property_that_is_not_expected_is_not_judged() {
        let mut made = shown(1);
        made.plan.expect.properties = vec![Property::G3];
        assert_eq!(made.judge(judge), []);
    }
}
