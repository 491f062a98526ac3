//! G13 keys, what must happen in time: a key is replaced at its age and after a member went, members
//! use it within 5 s, and every node erases the key before.
//!
//! Judged where no fault may have touched the nodes in question meanwhile.

use std::{collections::BTreeMap, time::Duration};

use chatchat::{
    config::Config,
    model::{
        event::Event,
        ids::{Domain, KeyEpoch, NodeId, Registration},
    },
};

use super::{EventLine, Evidence, Violation, broken, seconds};
use crate::{property::Property, target::Target};

/// Time for making keys and for a node's own turn.
const SLACK: Duration = Duration::from_secs(2);
/// Time after which all members use the key that their master uses.
const AGREE_WITHIN: Duration = Duration::from_secs(5);

/// Time from a trigger to the use of the next key: an installation may be under way, and the next
/// one keeps its distance.
fn bound(config: &Config) -> Duration {
    config.key_refresh_gather + config.key_refresh_gap + 2 * config.key_install_timeout + SLACK
}

/// One life of a master.
#[derive(Default)]
struct Life<'a> {
    joined: BTreeMap<NodeId, Registration>,
    gone: Vec<&'a EventLine>,
    installs: Vec<(KeyEpoch, &'a EventLine)>,
    uses: Vec<(KeyEpoch, &'a EventLine)>,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut lives: BTreeMap<&str, Life<'_>> = BTreeMap::new();
    let mut found = Vec::new();
    for (nth, said) in evidence.events.iter().enumerate() {
        let place = said.node.as_str();
        match &said.event {
            Event::Start { .. } => {
                if let Some(over) = lives.insert(place, Life::default()) {
                    found.extend(over.judge(evidence, said.at));
                }
            }
            Event::Epoch { domain, epoch } => {
                let rest = &evidence.events[nth..];
                if let Some(life) = lives.get_mut(place) {
                    life.uses.push((*epoch, said));
                    found.extend(behind(evidence, said, (*domain, *epoch), rest));
                }
                found.extend(kept(evidence, said, *domain, rest));
            }
            _ => {
                if let Some(life) = lives.get_mut(place) {
                    life.on_line(said);
                }
            }
        }
    }
    found.extend(lives.values().flat_map(|life| life.judge(evidence, evidence.ended)));
    found
}

impl<'a> Life<'a> {
    fn on_line(&mut self, said: &'a EventLine) {
        match &said.event {
            Event::Join { node, registration, .. } => {
                self.joined.insert(*node, *registration);
            }
            Event::Leave { node, .. } | Event::Fail { node, .. } => {
                self.joined.remove(node);
                self.gone.push(said);
            }
            // It registered elsewhere.
            Event::Announce { node, registration, .. }
                if self.joined.get(node).is_some_and(|here| here < registration) =>
            {
                self.joined.remove(node);
                self.gone.push(said);
            }
            Event::KeyRefresh { epoch, .. } => self.installs.push((*epoch, said)),
            _ => {}
        }
    }

    /// Returns the triggers of this life that no refresh followed in time.
    fn judge(&self, evidence: &Evidence<'_>, until: Duration) -> Vec<Violation> {
        let config = &evidence.plan.cluster.config;
        let mut found = Vec::new();
        for gone in &self.gone {
            let due = gone.at + bound(config);
            let is_done = self.installs.iter().any(|(epoch, install)| {
                let mut uses = self.uses.iter();
                install.number > gone.number
                    && uses.any(|(used, line)| used == epoch && line.at <= due)
            });
            if !is_done && due <= until && !is_touched(evidence, &gone.node, gone.at, due) {
                let text = format!("{} uses no new key by {}", gone.node, seconds(due));
                found.push(broken(Property::G13, "gone", text, [gone.clue()]));
            }
        }
        let interval = config.key_refresh_interval * 11 / 10 + bound(config);
        for (nth, (epoch, used)) in self.uses.iter().enumerate() {
            let due = used.at + interval;
            let is_done = self.uses.get(nth + 1).is_some_and(|(_, next)| next.at <= due);
            if !is_done && due <= until && !is_touched(evidence, &used.node, used.at, due) {
                let text = format!("{} still uses epoch {epoch} at {}", used.node, seconds(due));
                found.push(broken(Property::G13, "aged", text, [used.clue()]));
            }
        }
        found
    }
}

/// Returns the members that do not use an epoch soon after their master does, and do not leave
/// either. `rest` begins with the master's line.
fn behind(
    evidence: &Evidence<'_>,
    used: &EventLine,
    (domain, epoch): (Domain, KeyEpoch),
    rest: &[EventLine],
) -> Vec<Violation> {
    let due = used.at + AGREE_WITHIN;
    if due > evidence.ended || is_touched(evidence, &used.node, used.at, due) {
        return Vec::new();
    }
    // Who holds a key of the domain at the use: it says so before.
    let before = &evidence.events[..evidence.events.len() - rest.len()];
    let mut held: BTreeMap<&str, &EventLine> = BTreeMap::new();
    for said in before.iter().filter(|said| said.node != used.node) {
        match said.event {
            Event::KeyHeld { domain: of, epoch: held_epoch, .. }
                if (of, held_epoch) == (domain, epoch) =>
            {
                held.insert(&said.node, said);
            }
            Event::KeyErased { domain: of, .. } if of == domain => {
                // It erases the epoch before only after the use; so it has left.
                held.remove(said.node.as_str());
            }
            _ => {}
        }
    }
    for said in rest.iter().take_while(|said| said.at <= due) {
        match said.event {
            Event::Epoch { domain: of, epoch: now } if of == domain && now >= epoch => {
                held.remove(said.node.as_str());
            }
            Event::KeyErased { domain: of, .. } if of == domain => {
                held.remove(said.node.as_str());
            }
            _ => {}
        }
    }
    held.retain(|place, _| !is_touched(evidence, place, used.at, due));
    let late = held.into_iter().map(|(place, line)| {
        let text = format!("{place} does not use epoch {epoch} by {}", seconds(due));
        broken(Property::G13, "behind", text, [used.clue(), line.clue()])
    });
    late.collect()
}

/// Returns the older keys that a node still holds long after it began to use a newer one. `rest`
/// begins with the line of that use.
fn kept(
    evidence: &Evidence<'_>,
    used: &EventLine,
    domain: Domain,
    rest: &[EventLine],
) -> Option<Violation> {
    let due = used.at + evidence.plan.cluster.config.key_overlap + SLACK;
    if due > evidence.ended || is_touched(evidence, &used.node, used.at, due) {
        return None;
    }
    let before = &evidence.events[..evidence.events.len() - rest.len()];
    // No line of a worker's own announces a new life.
    let life = last_death(evidence, &used.node, used.at);
    let mut held: BTreeMap<KeyEpoch, &EventLine> = BTreeMap::new();
    for said in before.iter().filter(|said| said.node == used.node && said.at >= life) {
        match said.event {
            Event::KeyHeld { domain: of, epoch, .. } if of == domain => {
                held.insert(epoch, said);
            }
            Event::KeyErased { domain: of, epoch } if of == domain => {
                held.remove(&epoch);
            }
            _ => {}
        }
    }
    let Event::Epoch { epoch: newest, .. } = used.event else { return None };
    held.retain(|epoch, _| *epoch < newest);
    let after = rest.iter().filter(|said| said.node == used.node);
    for said in after.take_while(|said| said.at <= due) {
        match said.event {
            Event::KeyErased { domain: of, epoch } if of == domain => {
                held.remove(&epoch);
            }
            Event::Start { .. } => return None,
            _ => {}
        }
    }
    let (epoch, line) = held.pop_first()?;
    let text = format!("{} still holds epoch {epoch} at {}", used.node, seconds(due));
    Some(broken(Property::G13, "kept", text, [line.clue(), used.clue()]))
}

/// Returns the last time at which a node's process may have ended before a time.
fn last_death(evidence: &Evidence<'_>, node: &str, before: Duration) -> Duration {
    let Ok(Target::One(place)) = node.parse() else { return before };
    evidence.deaths(place).filter(|at| *at <= before).max().unwrap_or_default()
}

/// Returns whether a fault may have touched a node, named as its lines name it.
fn is_touched(evidence: &Evidence<'_>, node: &str, from: Duration, to: Duration) -> bool {
    match node.parse() {
        Ok(Target::One(place)) => {
            let is_doubled = evidence.doubled_from(place).is_some_and(|at| at <= to);
            is_doubled || evidence.is_touched(place, from, to)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use chatchat::model::{
        event::RefreshReason,
        ids::{Fingerprint, Incarnation},
    };

    use super::*;
    use crate::oracle::fixtures::{Fixture, node};

    const DOMAIN: Domain = Domain { master: NodeId([9; 16]), incarnation: Incarnation(1) };

    fn held(epoch: u64) -> Event {
        let print = Fingerprint([1; 32]);
        Event::KeyHeld { domain: DOMAIN, epoch: KeyEpoch(epoch), print }
    }

    fn used(epoch: u64) -> Event {
        Event::Epoch { domain: DOMAIN, epoch: KeyEpoch(epoch) }
    }

    fn erased(epoch: u64) -> Event {
        Event::KeyErased { domain: DOMAIN, epoch: KeyEpoch(epoch) }
    }

    fn left() -> Event {
        Event::Leave { node: node(2), registration: Registration(1) }
    }

    /// A refresh at `at` that worker 0 follows and nobody ends.
    fn refresh(made: &mut Fixture, at: u64) {
        let why = RefreshReason::MemberGone;
        let begun = Event::KeyRefresh { domain: DOMAIN, epoch: KeyEpoch(2), why };
        made.said(at, "master:0", begun).said(at, "master:0", held(2));
        made.said(at + 10, "worker:0", held(2)).said(at + 20, "master:0", used(2));
    }

    fn begun() -> Fixture {
        let mut made = Fixture::new();
        made.said(0, "master:0", Event::Start { incarnation: Incarnation(1) });
        made.said(0, "master:0", held(1)).said(0, "master:0", used(1));
        made.said(1, "worker:0", held(1)).said(1, "worker:0", used(1));
        made
    }

    fn rules(made: &Fixture) -> Vec<&'static str> {
        made.judge(judge).iter().map(|violation| violation.rule.name).collect()
    }

    #[test]
    fn refresh_in_time_is_accepted_and_one_that_never_comes_is_reported() {
        let mut made = begun();
        made.said(20_000, "master:0", left());
        assert_eq!(rules(&made), ["gone"]);
        refresh(&mut made, 21_000);
        made.said(21_030, "worker:0", used(2));
        made.said(31_020, "master:0", erased(1)).said(31_030, "worker:0", erased(1));
        assert_eq!(rules(&made), [""; 0]);
        made.said(35_000, "master:0", left());
        assert_eq!(rules(&made), ["gone"], "the one before does not count");
    }

    #[test]
    fn key_over_its_age_is_reported() {
        let mut made = begun();
        made.plan.cluster.config.key_refresh_interval = Duration::from_secs(15);
        assert_eq!(rules(&made), ["aged"]);
        refresh(&mut made, 40_000);
        made.said(40_030, "worker:0", used(2));
        made.said(50_020, "master:0", erased(1)).said(50_030, "worker:0", erased(1));
        assert_eq!(rules(&made), ["aged"], "too late");
    }

    #[test]
    fn member_that_does_not_follow_and_key_that_is_kept_are_reported() {
        let mut made = begun();
        refresh(&mut made, 20_000);
        assert_eq!(rules(&made), ["behind", "kept"]);
        made.said(20_030, "worker:0", used(2)).said(30_030, "worker:0", erased(1));
        assert_eq!(rules(&made), ["kept"]);
        made.said(30_040, "master:0", erased(1));
        assert_eq!(rules(&made), [""; 0]);
    }

    #[test]
    fn node_that_a_fault_may_have_touched_is_exempt() {
        let fault = [("pause", "target = \"master:0\"", 20_000, 30_000)];
        let mut made = Fixture::with_faults(&fault);
        made.events = begun().events;
        made.said(19_000, "master:0", left());
        assert_eq!(rules(&made), [""; 0]);
    }
}
