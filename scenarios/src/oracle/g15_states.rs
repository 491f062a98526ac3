//! G15 weak service: streams say how it is with the store. A reader is told that its master does not reach
//! the store, and that it does again.
//!
//! 1. A stream of a slow reader says nothing: when it was sent what it takes is not known.
//! 2. What counts is what a stream had said by something that it said later, so that a reader that is gone
//!    says nothing either.

use std::time::Duration;

use chatchat::{api::StreamEvent, client::Delivery, model::stream::Consistency};

use super::{
    Evidence, Violation, broken,
    g04_pages::is_strong,
    g15_weak::{KNOWN_WITHIN, Outage},
    stream_line,
    troubles::AFTERMATH,
};
use crate::{
    history::{Operation, StreamLog},
    property::Property,
    target::Place,
};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    if evidence.is_set_back() {
        return found;
    }
    let away = Outage::all(evidence).filter(|outage| has_no_store(evidence, outage));
    let outages: Vec<_> = away.collect();
    for stream in evidence.history.streams.iter().filter(|stream| !stream.is_slow) {
        let Some(master) = evidence.master_at(&stream.master) else { continue };
        let mut tell = |rule, at, text: &str| {
            found.push(broken(Property::G15, rule, text, [stream_line(stream, at)]));
        };
        if let Some(at) = still_weak(evidence, stream, master) {
            tell("still-weak", at, "a stream stays weak though its master has the store again");
        }
        let untold = outages.iter().filter_map(|outage| untold_by(evidence, stream, outage));
        for at in untold {
            tell("weak-untold", at, "a stream did not say that the store is away");
        }
    }
    found
}

/// Returns when a stream had not said anything better than *weak* for long, while nothing was wrong with its
/// master, the store or the reader.
fn still_weak(evidence: &Evidence<'_>, stream: &StreamLog, master: Place) -> Option<Duration> {
    let limit = AFTERMATH.saturating_add(evidence.calm_limit);
    let needed = [master, Place::Store, evidence.machine_of(stream.who)];
    let mut weak_since = None;
    for (at, delivery) in &stream.deliveries {
        if let Some(state) = state(delivery) {
            weak_since = (state == Consistency::Weak).then_some(*at);
        }
        let from = at.saturating_sub(limit);
        if weak_since.is_some_and(|since| since <= from)
            && !needed.iter().any(|place| evidence.is_touched(*place, from, *at))
        {
            return Some(*at);
        }
    }
    None
}

/// Returns when a stream should have said that the store is away, and had not.
fn untold_by(evidence: &Evidence<'_>, stream: &StreamLog, outage: &Outage<'_>) -> Option<Duration> {
    let (began, _) = stream.deliveries.first()?;
    let due = outage.from.max(*began) + KNOWN_WITHIN + evidence.calm_limit;
    let next = stream.deliveries.partition_point(|(at, _)| *at < due);
    let (at, _) = stream.deliveries.get(next)?;
    let mut said = stream.deliveries.iter().take(next + 1).rev();
    let is_told = said.find_map(|(_, delivery)| state(delivery)) == Some(Consistency::Weak);
    let is_touched = |place| {
        let mut all = evidence.incidents_between(place, outage.from, *at);
        all.any(|incident| incident != outage.incident)
    };
    let is_owed = *at < outage.until
        && !is_touched(Place::Store)
        && !is_touched(evidence.machine_of(stream.who));
    (is_owed && !is_told).then_some(*at)
}

/// Returns what a delivery says of the store, if it does.
const fn state(delivery: &Delivery) -> Option<Consistency> {
    match &delivery.event {
        StreamEvent::State(event) => Some(event.consistency),
        _ => None,
    }
}

/// Returns whether nothing came from the store while it was away: where real machines are judged, it may be
/// back before that is known.
fn has_no_store(evidence: &Evidence<'_>, outage: &Outage<'_>) -> bool {
    let is_of_store = |operation: &Operation| {
        operation.invoked >= outage.from
            && operation.reply().is_some_and(|(at, _)| at < outage.until)
            && (is_strong(operation) || operation.committed().is_some())
    };
    !evidence.history.operations.iter().any(is_of_store)
}

#[cfg(test)]
mod tests {
    use chatchat::api::StateEvent;

    use super::*;
    use crate::oracle::fixtures::{Fixture, located};

    type Faults<'a> = &'a [(&'a str, &'a str, u64, u64)];

    const WEAK: Option<Consistency> = Some(Consistency::Weak);
    const STRONG: Option<Consistency> = Some(Consistency::Strong);
    const BEAT: Option<Consistency> = None;
    const NONE: &[&str] = &[];
    const STORE: (&str, &str, u64, u64) = ("crash", "target = \"store\"", 20_000, 40_000);

    /// Makes a run with a stream of the second person at the first master that said this.
    fn made(faults: Faults<'_>, said: &[(u64, Option<Consistency>)]) -> Fixture {
        let mut made = Fixture::with_faults(faults);
        made.history.masters = vec!["http://m".to_owned()];
        let event = |(at, state): &(u64, Option<Consistency>)| {
            let state = state.map(|consistency| StreamEvent::State(StateEvent { consistency }));
            (*at, state.unwrap_or(StreamEvent::Beat))
        };
        made.stream(1, 0, said.iter().map(event).collect());
        made
    }

    fn told(faults: Faults<'_>, said: &[(u64, Option<Consistency>)]) -> Vec<String> {
        located(&made(faults, said).judge(judge))
    }

    #[test]
    fn stream_that_stays_weak_is_reported() {
        const STILL: &[&str] = &["g15.still-weak"];
        assert_eq!(told(&[], &[(20_000, WEAK), (36_000, BEAT)]), STILL);
        assert_eq!(told(&[], &[(20_000, WEAK), (36_000, BEAT), (50_000, BEAT)]), STILL, "once");
        assert_eq!(told(&[], &[(20_000, WEAK), (35_999, BEAT)]), NONE, "then it was gone");
        assert_eq!(told(&[], &[(20_000, WEAK), (36_000, STRONG), (50_000, BEAT)]), NONE);
        assert_eq!(told(&[], &[(20_000, WEAK), (25_000, WEAK), (40_999, BEAT)]), NONE, "again");
    }

    #[test]
    fn stream_may_be_weak_after_a_fault_of_its_master_the_store_or_its_reader() {
        let weak = [(15_000, WEAK), (41_000, BEAT)];
        for target in ["master:0", "store", "person:1"] {
            let keys = format!("target = \"{target}\"");
            let until = |until| told(&[("pause", keys.as_str(), 14_000, until)], &weak);
            assert_eq!(until(25_000), NONE, "{target}");
            assert_eq!(until(24_999), ["g15.still-weak"], "{target}");
        }
        for target in ["master:1", "worker:*", "person:2"] {
            let keys = format!("target = \"{target}\"");
            let faults = [("pause", keys.as_str(), 14_000, 40_000)];
            assert_eq!(told(&faults, &weak), ["g15.still-weak"], "{target} is of no account");
        }
        let cut = ("loss", "from = \"person:1\"\nto = \"master:0\"\nrate = 0.5", 14_000, 30_000);
        assert_eq!(told(&[cut], &weak), NONE, "a line that loses what is said");
    }

    #[test]
    fn stream_that_does_not_say_that_the_store_is_away_is_reported() {
        const UNTOLD: &[&str] = &["g15.weak-untold"];
        let away = |said: &[_]| told(&[STORE], said);
        assert_eq!(away(&[(19_000, STRONG), (26_000, BEAT)]), UNTOLD);
        assert_eq!(away(&[(19_000, BEAT), (26_000, BEAT), (30_000, BEAT)]), UNTOLD, "nor before");
        assert_eq!(away(&[(19_000, STRONG), (25_999, BEAT)]), NONE, "not yet");
        assert_eq!(away(&[(19_000, STRONG), (24_000, WEAK), (26_000, BEAT)]), NONE);
        assert_eq!(away(&[(19_000, STRONG), (26_000, WEAK)]), NONE, "right then");
        assert_eq!(away(&[(19_000, STRONG), (40_000, BEAT)]), NONE, "the store is back");
        assert_eq!(away(&[(21_000, STRONG), (26_999, BEAT)]), NONE, "it has just begun");
        assert_eq!(away(&[(21_000, STRONG), (27_000, BEAT)]), UNTOLD);
    }

    #[test]
    fn stream_need_not_say_so_while_more_is_wrong_or_the_store_is_there_after_all() {
        let said = [(19_000, STRONG), (26_000, BEAT)];
        for (target, from, until) in [
            ("person:1", 21_000, 22_000),
            ("store", 21_000, 22_000),
            ("master:0", 6000, 7000),
            ("worker:1", 30_000, 31_000),
        ] {
            let keys = format!("target = \"{target}\"");
            let faults = [STORE, ("pause", keys.as_str(), from, until)];
            assert_eq!(told(&faults, &said), NONE, "{target}");
        }
        let mut back = made(&[STORE], &said);
        back.acked(0, 1, 38_000, 38_100, 1);
        assert_eq!(back.judge(judge), [], "a post was committed meanwhile");
        let mut back = made(&[STORE], &said);
        back.read(0, 38_000, 38_100, Consistency::Strong, &[(0, 1, 1)]);
        assert_eq!(back.judge(judge), [], "a page came from the store");
    }

    #[test]
    fn slow_reader_and_a_master_that_is_not_known_are_left_out() {
        for said in [[(20_000, WEAK), (36_000, BEAT)], [(19_000, STRONG), (26_000, BEAT)]] {
            let faults: Faults<'_> = if said[0].1 == WEAK { &[] } else { &[STORE] };
            let mut slow = made(faults, &said);
            assert_eq!(slow.judge(judge).len(), 1);
            slow.history.streams[0].is_slow = true;
            assert_eq!(slow.judge(judge), []);
            let mut unknown = made(faults, &said);
            unknown.history.masters.clear();
            assert_eq!(unknown.judge(judge), []);
        }
    }
}
