//! G11, masters that are gone: a while after a master's end no other one lists it, and the workers
//! that it had are with another.

use std::time::Duration;

use chatchat::{api::StreamEvent, model::ids::NodeId};

use super::{Evidence, Violation, broken, seconds, stream_line};
use crate::{property::Property, target::Place};

/// Time after which a master that is gone is listed no more, and has no worker any more, even if
/// the search of each meets three others that are gone.
const KNOWN_WITHIN: Duration = Duration::from_secs(20);

/// Master that was away for longer than [`KNOWN_WITHIN`].
struct Gone {
    place: Place,
    node: NodeId,
    /// Time from which it must be known, and time at which it may have come back.
    known: Duration,
    back: Duration,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for gone in gone(evidence) {
        found.extend(listed(evidence, &gone));
        found.extend(orphans(evidence, &gone));
    }
    found
}

fn gone(evidence: &Evidence<'_>) -> Vec<Gone> {
    let masters = (0..evidence.plan.cluster.masters).map(Place::Master);
    masters
        .flat_map(|place| {
            let away = evidence.away(place).into_iter();
            away.filter_map(move |(from, back)| {
                let node = evidence.joined_by(from).get(&place)?.master;
                let known = from + KNOWN_WITHIN;
                (known < back).then_some(Gone { place, node, known, back })
            })
        })
        .collect()
}

/// Returns whether a place was whole from shortly before a master's end to a time.
fn is_whole(evidence: &Evidence<'_>, place: Place, gone: &Gone, until: Duration) -> bool {
    !evidence.is_touched(place, gone.known.saturating_sub(2 * KNOWN_WITHIN), until)
}

/// Streams that tell of a master that is gone.
fn listed(evidence: &Evidence<'_>, gone: &Gone) -> Vec<Violation> {
    let id = gone.node;
    let mut found = Vec::new();
    for stream in &evidence.history.streams {
        let Some(teller) = evidence.master_at(&stream.master) else { continue };
        let told = stream.deliveries.iter().find(|(at, delivery)| {
            let masters = match &delivery.event {
                StreamEvent::Hello(hello) => &hello.masters,
                StreamEvent::Masters(list) => &list.masters,
                _ => return false,
            };
            (gone.known..gone.back).contains(at) && masters.iter().any(|master| master.id == id)
        });
        let Some((at, _)) = told else { continue };
        let reader = evidence.machine_of(stream.who);
        let whole = |place| is_whole(evidence, place, gone, *at);
        if !stream.is_slow && whole(Place::Store) && whole(teller) && whole(reader) {
            let text = format!("{} was listed at {}, long after its end", gone.place, seconds(*at));
            found.push(broken(Property::G11, "listed", text, [stream_line(stream, *at)]));
        }
    }
    found
}

/// Workers that stayed with a master that is gone, though another one was whole.
fn orphans(evidence: &Evidence<'_>, gone: &Gone) -> Vec<Violation> {
    let at = gone.known;
    let whole = |place| is_whole(evidence, place, gone, at);
    let mut others = (0..evidence.plan.cluster.masters).map(Place::Master);
    if !whole(Place::Store) || !others.any(whole) {
        return Vec::new();
    }
    let joined = evidence.joined_by(at);
    let workers = (0..evidence.plan.cluster.workers).map(Place::Worker);
    let orphans = workers.filter(|worker| whole(*worker)).filter_map(|worker| {
        let joined = joined.get(&worker).filter(|joined| joined.master == gone.node)?;
        let text = format!("{worker} was still with {} at {}", gone.place, seconds(at));
        Some(broken(Property::G11, "orphan", text, [joined.line.clue()]))
    });
    orphans.collect()
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::MastersEvent,
        model::{event::Event, ids::Registration, stream::MasterInfo},
    };

    use super::*;
    use crate::oracle::fixtures::{Fixture, node};

    const DEAD: u8 = 8;
    const OTHER: u8 = 9;

    fn join(worker: u8, master: u8) -> Event {
        Event::Join { node: node(worker), registration: Registration(1), master: node(master) }
    }

    /// `master:0` dies at 10 s; its worker joins the other master so late, if at all.
    fn moved(at: Option<u64>, until: u64) -> Vec<&'static str> {
        let faults = [("crash", "target = \"master:0\"", 10_000, until)];
        let mut made = Fixture::with_faults(&faults);
        made.said(1000, "master:0", join(1, DEAD)).said(1000, "worker:0", join(1, DEAD));
        if let Some(at) = at {
            made.said(at, "worker:0", join(1, OTHER)).said(at, "master:1", join(1, OTHER));
        }
        made.judge(judge).iter().map(|broken| broken.rule.name).collect()
    }

    #[test]
    fn worker_that_moves_is_accepted_and_one_that_stays_is_reported() {
        assert_eq!(moved(Some(14_000), 50_000), [""; 0]);
        assert_eq!(moved(Some(35_000), 50_000), ["orphan"]);
        assert_eq!(moved(None, 50_000), ["orphan"]);
        assert_eq!(moved(None, 20_000), [""; 0], "it was back before");
    }

    #[test]
    fn master_that_is_listed_long_after_its_end_is_reported() {
        let listed = |at: u64| {
            let faults = [("crash", "target = \"master:0\"", 10_000, 50_000)];
            let mut made = Fixture::with_faults(&faults);
            made.history.masters = vec!["http://n".to_owned(), "http://m".to_owned()];
            made.said(1000, "master:0", join(1, DEAD)).said(1000, "worker:0", join(1, DEAD));
            made.said(14_000, "worker:0", join(1, OTHER));
            let masters = vec![MasterInfo {
                id: node(DEAD),
                name: "m".to_owned(),
                http: "http://n".to_owned(),
            }];
            made.stream(0, 0, vec![(at, StreamEvent::Masters(MastersEvent { masters }))]);
            made.judge(judge).iter().map(|broken| broken.rule.name).collect::<Vec<_>>()
        };
        assert_eq!(listed(20_000), [""; 0], "it may not be known yet");
        assert_eq!(listed(40_000), ["listed"]);
    }
}
