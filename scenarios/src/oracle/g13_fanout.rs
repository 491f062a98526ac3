//! G13 keys, fanout: no member lacks an envelope because the common key was refreshed.
//!
//! Envelopes are numbered, and a link keeps their order, so that a member which finds a number missing
//! has lost an envelope for good: its key was erased too early or came too late, or it waited for
//! its key and was dropped. Judged where nothing else loses any: no fault may have touched the member
//! or its master since the member joined, its link was never too full for a publish, and no key was
//! installed shortly before right after another one, which erases the one before its time.

use std::{collections::BTreeMap, time::Duration};

use chatchat::model::{
    event::Event,
    ids::{Domain, NodeId},
};

use super::{EventLine, Evidence, Violation, broken, seconds};
use crate::property::Property;

/// Shortest time for which a replaced key has to be held, so that what was sealed under it arrives.
const HELD_MIN: Duration = Duration::from_secs(1);

/// Refreshes of one domain, in order.
type Installs<'a> = BTreeMap<Domain, Vec<&'a EventLine>>;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let overlap = evidence.plan.cluster.config.key_overlap;
    let mut installs = Installs::new();
    // By the place of a member: its name and the time of its last join.
    let mut joined: BTreeMap<&str, (NodeId, Duration)> = BTreeMap::new();
    let mut full: BTreeMap<NodeId, Duration> = BTreeMap::new();
    let mut found = Vec::new();
    for said in evidence.events {
        match &said.event {
            Event::Join { node, .. } if said.node.starts_with("worker:") => {
                joined.insert(&said.node, (*node, said.at));
            }
            Event::FanoutFull { node } => {
                full.insert(*node, said.at);
            }
            Event::KeyRefresh { domain, .. } => installs.entry(*domain).or_default().push(said),
            Event::FanoutLost { domain, missed, .. } if overlap >= HELD_MIN => {
                let Some((node, since)) = joined.get(said.node.as_str()).copied() else { continue };
                let of_domain = installs.get(domain).map_or(&[][..], Vec::as_slice);
                // One that began before the join may be installed at the newcomer.
                let Some(install) = of_domain.last().filter(|it| it.at + overlap >= since) else {
                    continue;
                };
                // An older pair's keys were erased before this loss.
                let is_hasty = of_domain.windows(2).any(|pair| {
                    pair[1].at + overlap >= said.at && pair[1].at < pair[0].at + HELD_MIN
                });
                let was_full = full.get(&node).is_some_and(|at| *at >= since);
                let places = [*install, said];
                if is_hasty
                    || was_full
                    || places.iter().any(|it| is_touched(evidence, it, since, said.at))
                {
                    continue;
                }
                let text = format!(
                    "{} lacks {missed} envelopes, and nothing but a refresh of the key since {}",
                    said.node,
                    seconds(since)
                );
                found.push(broken(Property::G13, "lost", text, [install.clue(), said.clue()]));
            }
            _ => {}
        }
    }
    found
}

/// Returns whether a fault may have touched the node that wrote a line, or a second one speaks under
/// its name.
fn is_touched(evidence: &Evidence<'_>, line: &EventLine, from: Duration, to: Duration) -> bool {
    line.place().is_none_or(|place| {
        evidence.doubled_from(place).is_some_and(|at| at <= to)
            || evidence.is_touched(place, from, to)
    })
}

#[cfg(test)]
mod tests {
    use chatchat::model::{
        event::RefreshReason,
        ids::{Incarnation, KeyEpoch, Registration},
    };

    use super::*;
    use crate::oracle::fixtures::{Fixture, ms, node};

    const DOMAIN: Domain = Domain { master: NodeId([9; 16]), incarnation: Incarnation(1) };

    fn join() -> Event {
        Event::Join { node: node(1), registration: Registration(1), master: node(9) }
    }

    fn install(epoch: u64) -> Event {
        let why = RefreshReason::Interval;
        Event::KeyRefresh { domain: DOMAIN, epoch: KeyEpoch(epoch), why }
    }

    fn lost() -> Event {
        Event::FanoutLost { domain: DOMAIN, epoch: KeyEpoch(2), missed: 3 }
    }

    /// Adds a worker that joins at 10 s, a refresh at 20 s, and a loss right after it.
    fn fill(mut made: Fixture) -> Fixture {
        made.said(10_000, "worker:0", join());
        made.said(20_000, "master:0", install(2)).said(20_100, "worker:0", lost());
        made
    }

    #[test]
    fn envelope_lost_by_a_refresh_is_reported() {
        assert_eq!(fill(Fixture::new()).rules(judge), ["g13.lost"]);
        let mut made = Fixture::new();
        made.said(19_000, "master:0", install(2)).said(19_100, "worker:0", join());
        made.said(19_200, "worker:0", lost());
        assert_eq!(made.rules(judge), ["g13.lost"], "it joined while the key was installed");
    }

    #[test]
    fn loss_without_a_refresh_of_the_members_domain_is_accepted() {
        let mut made = Fixture::new();
        made.said(10_000, "worker:0", join()).said(20_100, "worker:0", lost());
        assert_eq!(made.rules(judge), [""; 0]);
        let mut made = fill(Fixture::new());
        let other = Domain { incarnation: Incarnation(2), ..DOMAIN };
        let (epoch, why) = (KeyEpoch(2), RefreshReason::Interval);
        made.events[1].event = Event::KeyRefresh { domain: other, epoch, why };
        assert_eq!(made.rules(judge), [""; 0], "another life of its master");
    }

    #[test]
    fn full_link_hasty_refresh_and_short_overlap_are_excuses() {
        let mut made = fill(Fixture::new());
        let full = made.events[0].clone();
        let full = EventLine { at: ms(15_000), event: Event::FanoutFull { node: node(1) }, ..full };
        made.events.insert(1, full);
        assert_eq!(made.rules(judge), [""; 0], "full");
        made.events[1].event = Event::FanoutFull { node: node(2) };
        assert_eq!(made.rules(judge), ["g13.lost"], "another link was full");
        let mut made = fill(Fixture::new());
        let mut first = made.events[1].clone();
        first.at = ms(19_500);
        made.events.insert(1, first);
        assert_eq!(made.rules(judge), [""; 0], "hasty");
        let overlap = made.plan.cluster.config.key_overlap;
        (made.events[1].at, made.events[2].at) = (ms(11_000), ms(11_500));
        let late = ms(11_501) + overlap;
        made.events.last_mut().unwrap().at = late;
        assert_eq!(made.rules(judge), ["g13.lost"], "the hasty ones were long before");
        let mut made = fill(Fixture::new());
        made.plan.cluster.config.key_overlap = ms(900);
        assert_eq!(made.rules(judge), [""; 0], "short");
    }

    #[test]
    fn fault_at_the_member_or_its_master_is_an_excuse_and_one_elsewhere_or_before_is_none() {
        for (target, from, until, expected) in [
            ("worker:0", 12_000, 13_000, 0),
            ("master:0", 12_000, 13_000, 0),
            ("worker:1", 12_000, 21_000, 1),
            ("master:1", 12_000, 21_000, 1),
            ("worker:0", 8_000, 9_000, 1),
        ] {
            let keys = format!("target = \"{target}\"");
            let made = Fixture::with_faults(&[("pause", keys.as_str(), from, until)]);
            assert_eq!(fill(made).breaks(judge, "g13.lost"), expected, "{target} at {from}");
        }
        let made = Fixture::with_faults(&[("clone", "target = \"worker:0\"", 8_000, 9_000)]);
        assert_eq!(fill(made).rules(judge), [""; 0], "two speak under one name");
    }
}
