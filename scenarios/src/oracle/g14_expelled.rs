//! G14 secrecy, of a worker that was expelled: no master gives it a task or takes it in again, as itself
//! or with a new identity and its old join token; it gets no key that is made afterwards; and soon no
//! master uses a key that it holds; and it takes no post from the store once no master has it.
//!
//! A master denies the node from its own line on. One that says none is given the time in which it
//! reads the store, which starts anew with each fault that may keep it from that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chatchat::{
    config::Config,
    model::{
        event::Event,
        ids::{Domain, KeyEpoch, NodeId},
    },
};

use super::{EventLine, Evidence, Violation, broken, seconds};
use crate::{fault::Kind, plan::Incident, property::Property, target::Place};

/// Time for a node's own turn, for making a key, and for what is under way.
const SLACK: Duration = Duration::from_secs(2);

/// Time in which a master that reaches the store reads of an expulsion.
fn known_within(config: &Config) -> Duration {
    2 * (config.store_poll_interval + config.store_timeout) + SLACK
}

/// Time from then to the use of a key that the node does not hold: an installation may be under way.
fn replaced_within(config: &Config) -> Duration {
    2 * config.key_install_timeout + SLACK
}

/// Time in which a worker finds that its link has ended, though nobody told it.
fn link_lost_within(config: &Config) -> Duration {
    config.heartbeat_interval * (config.heartbeats_missed_max + 1) + SLACK
}

/// Worker that was expelled.
struct Expelled<'a> {
    node: NodeId,
    /// First line that tells of it.
    line: &'a EventLine,
    /// Machine of the node.
    place: Option<Place>,
    /// Time at which the machine is set up as another node.
    until: Duration,
}

/// One life of a master.
struct Life<'a> {
    place: Place,
    from: Duration,
    until: Duration,
    /// Beginning of each key's life.
    made: BTreeMap<KeyEpoch, &'a EventLine>,
    uses: Vec<(KeyEpoch, &'a EventLine)>,
    /// Expulsions that it knows of.
    knows: BTreeMap<NodeId, &'a EventLine>,
    /// Its lines of members and tasks.
    acts: Vec<&'a EventLine>,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut at_store = evidence.incidents_at(Place::Store);
    // A store that is as it was before an expulsion knows nothing of it.
    if at_store.any(|incident| evidence.kind_of(incident) == Some(Kind::Rollback)) {
        return Vec::new();
    }
    let expelled = expelled(evidence);
    if expelled.is_empty() {
        return Vec::new();
    }
    let lives = lives(evidence);
    let mut found = Vec::new();
    for expelled in &expelled {
        found.extend(expelled.disguised(evidence));
        found.extend(expelled.reads(evidence, lives.values()));
        for (domain, life) in &lives {
            let denies_from = life.denies_from(evidence, expelled);
            if life.until <= denies_from {
                continue;
            }
            found.extend(life.acts_for(expelled, denies_from));
            let held = expelled.held(evidence, *domain);
            found.extend(life.gave_key(evidence, expelled, denies_from, &held));
            found.extend(life.uses_reachable(evidence, expelled, denies_from, *domain, &held));
        }
    }
    found
}

fn expelled<'a>(evidence: &Evidence<'a>) -> Vec<Expelled<'a>> {
    let mut first: BTreeMap<NodeId, &EventLine> = BTreeMap::new();
    let mut places: BTreeMap<NodeId, Place> = BTreeMap::new();
    for said in evidence.events {
        match (&said.event, said.place()) {
            (Event::Expel { node }, _) => {
                first.entry(*node).or_insert(said);
            }
            (Event::Join { node, .. }, Some(place @ Place::Worker(_))) => {
                places.insert(*node, place);
            }
            _ => {}
        }
    }
    let mut expelled: Vec<_> = first
        .into_iter()
        .map(|(node, line)| {
            let mut until = evidence.ended;
            for incident in evidence.incidents.iter().filter(|it| it.from <= line.at) {
                let end = evidence.end_of(incident);
                if evidence.kind_of(incident) == Some(Kind::Expel) && end >= line.at {
                    until = until.min(end);
                }
            }
            Expelled { node, line, place: places.get(&node).copied(), until }
        })
        .collect();
    expelled.sort_by_key(|expelled| expelled.line.number);
    expelled
}

fn lives<'a>(evidence: &Evidence<'a>) -> BTreeMap<Domain, Life<'a>> {
    let mut lives: BTreeMap<Domain, Life<'_>> = BTreeMap::new();
    let mut newest: BTreeMap<Place, Domain> = BTreeMap::new();
    for said in evidence.events {
        let Some(place @ Place::Master(_)) = said.place() else { continue };
        // Lines of two processes do not tell what one of them does.
        if evidence.doubled_from(place).is_some_and(|from| from <= said.at) {
            continue;
        }
        if let Event::KeyHeld { domain, .. } = said.event
            && newest.get(&place) != Some(&domain)
        {
            newest.insert(place, domain);
            let deaths = evidence.deaths(place).filter(|at| *at > said.at);
            let until = deaths.min().unwrap_or(evidence.ended);
            let life = Life {
                place,
                from: said.at,
                until,
                made: BTreeMap::new(),
                uses: Vec::new(),
                knows: BTreeMap::new(),
                acts: Vec::new(),
            };
            lives.insert(domain, life);
        }
        let Some(life) = newest.get(&place).and_then(|domain| lives.get_mut(domain)) else {
            continue;
        };
        match &said.event {
            Event::KeyHeld { epoch, .. } => drop(life.made.insert(*epoch, said)),
            Event::Epoch { epoch, .. } => life.uses.push((*epoch, said)),
            Event::Expel { node } => drop(life.knows.entry(*node).or_insert(said)),
            Event::Join { .. } | Event::Assign { .. } => life.acts.push(said),
            _ => {}
        }
    }
    lives
}

impl<'a> Expelled<'a> {
    /// Returns when the machine held which keys of a domain, until it was set up as another node.
    fn held(&self, evidence: &Evidence<'a>, of: Domain) -> Vec<(KeyEpoch, &'a EventLine)> {
        let said = evidence.events.iter().filter(|said| said.at <= self.until);
        let said = said.filter(|said| self.place.is_some() && said.place() == self.place);
        said.filter_map(|said| match said.event {
            Event::KeyHeld { domain, epoch, .. } if domain == of => Some((epoch, said)),
            _ => None,
        })
        .collect()
    }

    /// Registrations of its machine under another identity, which it made up after its expulsion.
    fn disguised(&self, evidence: &Evidence<'_>) -> Vec<Violation> {
        let Some(place) = self.place else { return Vec::new() };
        let mut found = Vec::new();
        for said in evidence.events.iter().filter(|said| said.place() == Some(place)) {
            let Event::Join { node, .. } = said.event else { continue };
            let is_meanwhile = self.line.at < said.at && said.at <= self.until;
            let is_new = || evidence.deaths(place).any(|at| self.line.at < at && at <= said.at);
            if node != self.node && is_meanwhile && is_new() {
                let text = format!("{place} was expelled and is in again as {node}");
                found.push(broken(Property::G14, "back", text, [self.line.clue(), said.clue()]));
            }
        }
        found
    }

    /// Returns the time from which its machine is in as another node; what `disguised` says of that counts
    /// there.
    fn another_from(&self, evidence: &Evidence<'_>, place: Place) -> Duration {
        let is_another = |said: &&EventLine| {
            let Event::Join { node, .. } = said.event else { return false };
            said.at > self.line.at && said.place() == Some(place) && node != self.node
        };
        evidence.events.iter().find(is_another).map_or(evidence.ended, |said| said.at)
    }

    /// Pages that its machine took from the store when all masters of before denied it, or had ended.
    fn reads<'b>(
        &self,
        evidence: &Evidence<'_>,
        lives: impl Iterator<Item = &'b Life<'b>>,
    ) -> Vec<Violation> {
        let Some(place) = self.place else { return Vec::new() };
        let before = lives.filter(|life| life.from <= self.line.at && self.line.at < life.until);
        let denied = before.map(|life| life.denies_from(evidence, self).min(life.until)).max();
        let within = link_lost_within(&evidence.plan.cluster.config);
        let from = denied.unwrap_or(self.line.at).saturating_add(within);
        let until = self.another_from(evidence, place).min(doubled_from(evidence));
        let pages = evidence.store.pages_taken.iter().filter(|page| {
            let is_calm = |at| !is_touched(evidence, at, page.at.saturating_sub(within), page.at);
            page.by == place
                && (from..until).contains(&page.at)
                && is_calm(place)
                // What came before may lie at a store that stands still.
                && is_calm(Place::Store)
        });
        pages
            .map(|page| {
                let text = format!(
                    "{place} took posts from the store at {} after its expulsion",
                    seconds(page.at)
                );
                broken(Property::G14, "read", text, [self.line.clue()])
            })
            .collect()
    }
}

impl Life<'_> {
    /// Returns the time from which this master has to deny a node.
    fn denies_from(&self, evidence: &Evidence<'_>, expelled: &Expelled<'_>) -> Duration {
        if let Some(line) = self.knows.get(&expelled.node) {
            return line.at;
        }
        // A new life reads the store before it takes anybody in.
        if self.from > expelled.line.at {
            return self.from;
        }
        let within = known_within(&evidence.plan.cluster.config);
        let mut by = expelled.line.at + within;
        loop {
            let keeps_it = |incident: &&Incident| {
                incident.from <= by
                    && evidence.end_of(incident) >= expelled.line.at
                    && !evidence.is_short_delay(incident)
                    && evidence.may_part(incident, self.place, Place::Store)
            };
            let troubles = evidence.incidents.iter().filter(keeps_it);
            let last = troubles.map(|incident| evidence.end_of(incident)).max();
            match last.map(|end| end.saturating_add(within)) {
                Some(later) if later > by => by = later,
                _ => return by,
            }
        }
    }

    /// Returns whether a line of this master stands after it has to deny the node.
    fn is_after(&self, said: &EventLine, expelled: &Expelled<'_>, denies_from: Duration) -> bool {
        match self.knows.get(&expelled.node) {
            Some(line) => said.number > line.number,
            None => said.at > denies_from,
        }
    }

    fn acts_for(&self, expelled: &Expelled<'_>, denies_from: Duration) -> Vec<Violation> {
        let mut found = Vec::new();
        for said in self.acts.iter().filter(|said| self.is_after(said, expelled, denies_from)) {
            let (rule, what) = match &said.event {
                Event::Assign { worker, .. } if *worker == expelled.node => ("task", "a task to"),
                Event::Join { node, .. } if *node == expelled.node => ("back", "a place to"),
                _ => continue,
            };
            let text = format!("{} gives {what} {}, which was expelled", self.place, expelled.node);
            found.push(broken(Property::G14, rule, text, [expelled.line.clue(), said.clue()]));
        }
        found
    }

    /// Keys that the machine got though this master denied its node: those that were made later, and any
    /// that came long after.
    fn gave_key(
        &self,
        evidence: &Evidence<'_>,
        expelled: &Expelled<'_>,
        denies_from: Duration,
        held: &[(KeyEpoch, &EventLine)],
    ) -> Vec<Violation> {
        let mut found = Vec::new();
        for (epoch, said) in held {
            let made = self.made.get(epoch);
            let is_newer = made.is_some_and(|made| self.is_after(made, expelled, denies_from));
            let is_late = said.at > denies_from + SLACK
                && !is_touched(evidence, self.place, denies_from, said.at)
                && expelled.place.is_some_and(|it| !is_touched(evidence, it, denies_from, said.at));
            if is_newer || is_late {
                let text = format!("{} got epoch {epoch} after its expulsion", said.node);
                let lines = [Some(expelled.line), made.copied(), Some(*said)];
                let clues = lines.into_iter().flatten().map(EventLine::clue);
                found.push(broken(Property::G14, "key", text, clues));
            }
        }
        found
    }

    /// Uses of keys that the machine holds, once they have to be replaced.
    fn uses_reachable(
        &self,
        evidence: &Evidence<'_>,
        expelled: &Expelled<'_>,
        denies_from: Duration,
        of: Domain,
        held: &[(KeyEpoch, &EventLine)],
    ) -> Vec<Violation> {
        let due = denies_from + replaced_within(&evidence.plan.cluster.config);
        let is_judged = due <= self.until && !is_touched(evidence, self.place, denies_from, due);
        if held.is_empty() || !is_judged {
            return Vec::new();
        }
        let reach: BTreeSet<KeyEpoch> = held.iter().map(|(epoch, _)| *epoch).collect();
        let before = self.uses.iter().rev().find(|(_, said)| said.at <= due);
        let still = before.filter(|(epoch, _)| reach.contains(epoch)).map(|(_, said)| *said);
        let begins = evidence.events.iter().filter(|said| {
            let Event::Epoch { domain, epoch } = said.event else { return false };
            let is_late = domain == of && said.at > due && reach.contains(&epoch);
            is_late
                && said.place() != expelled.place
                && said.place().is_some_and(|it| !is_touched(evidence, it, denies_from, said.at))
        });
        let uses = still.into_iter().chain(begins);
        let tell = |said: &EventLine| {
            let text = format!(
                "{} uses a key after {} which {} holds, a worker that was expelled",
                said.node,
                seconds(due),
                expelled.node
            );
            broken(Property::G14, "epoch", text, [expelled.line.clue(), said.clue()])
        };
        uses.map(tell).collect()
    }
}

/// Returns the time from which two processes are the same master: which of them has whom, lines do not tell.
fn doubled_from(evidence: &Evidence<'_>) -> Duration {
    let masters = (0..evidence.plan.cluster.masters).map(Place::Master);
    masters.filter_map(|master| evidence.doubled_from(master)).min().unwrap_or(Duration::MAX)
}

/// Returns whether a fault other than an expulsion may have touched a place.
fn is_touched(evidence: &Evidence<'_>, place: Place, from: Duration, to: Duration) -> bool {
    evidence.incidents_at(place).any(|incident| {
        incident.from <= to
            && evidence.end_of(incident) >= from
            && evidence.kind_of(incident) != Some(Kind::Expel)
    })
}

#[cfg(test)]
mod tests;
