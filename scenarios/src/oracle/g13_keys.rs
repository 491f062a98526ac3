//! G13 keys, what must never happen: two keys for one epoch of a domain, a node that holds more than
//! two epochs or keys of two domains, an epoch that goes back, an epoch that its master uses before
//! every member holds it or is cut off, and a key given to a node that had left or failed before
//! that key's installation began.
//!
//! A member that goes while an epoch is being installed may hold it, and that epoch is used: the
//! next one shuts it out. So the time that counts is the beginning of an installation.

use std::{collections::BTreeMap, time::Duration};

use chatchat::model::{
    event::Event,
    ids::{Domain, Fingerprint, KeyEpoch, NodeId, Registration},
};

use super::{EventLine, Evidence, Violation, broken, deaths::Deaths};
use crate::{property::Property, target::Target};

/// Most epochs that a node holds.
const HELD_MAX: usize = 2;
/// Time around a use in which its master says whom it cuts off.
const CUT_WITHIN: Duration = Duration::from_millis(100);

type Key = (Domain, KeyEpoch);

/// Keys of one node, by its lines.
#[derive(Default)]
struct Holder<'a> {
    held: BTreeMap<Key, &'a EventLine>,
    used: BTreeMap<Domain, (KeyEpoch, &'a EventLine)>,
    /// Worker's registration.
    registration: Option<(NodeId, Registration)>,
}

/// Members of a domain, as its master tells.
#[derive(Default)]
struct Members<'a> {
    joined: BTreeMap<NodeId, Registration>,
    /// Last registration of a node that ended here, and where that is said.
    gone: BTreeMap<NodeId, (Registration, &'a EventLine)>,
    /// Installation that is under way, and its members.
    install: Option<(&'a EventLine, KeyEpoch, BTreeMap<NodeId, Registration>)>,
    /// Beginning of each installation.
    installs: BTreeMap<Key, &'a EventLine>,
}

#[derive(Default)]
struct Judge<'a> {
    prints: BTreeMap<Key, (Fingerprint, &'a EventLine)>,
    holders: BTreeMap<&'a str, Holder<'a>>,
    masters: BTreeMap<&'a str, Members<'a>>,
    found: Vec<Violation>,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut judge = Judge::default();
    let mut deaths = Deaths::of_workers(evidence);
    let mut doubled = BTreeMap::new();
    for (nth, said) in evidence.events.iter().enumerate() {
        let place = said.node.as_str();
        let from = doubled.entry(place).or_insert_with(|| doubled_from(evidence, place));
        if from.is_some_and(|from| from <= said.at) {
            judge.holders.remove(place);
            judge.masters.remove(place);
            judge.on_print(said);
            continue;
        }
        if deaths.is_new_life(place, said.at) {
            judge.holders.remove(place);
        }
        judge.on_line(said);
        if let Event::Epoch { domain, epoch } = said.event {
            judge.on_master_use(said, domain, epoch, &evidence.events[nth..]);
        }
    }
    judge.found
}

/// Returns the time from which a node's lines may be those of two processes: what one holds the other
/// need not.
fn doubled_from(evidence: &Evidence<'_>, node: &str) -> Option<Duration> {
    match node.parse() {
        Ok(Target::One(place)) => evidence.doubled_from(place),
        _ => None,
    }
}

impl<'a> Judge<'a> {
    fn breaks(&mut self, rule: &'static str, text: String, lines: &[&EventLine]) {
        let clues = lines.iter().map(|line| line.clue());
        self.found.push(broken(Property::G13, rule, text, clues));
    }

    fn on_line(&mut self, said: &'a EventLine) {
        let place = said.node.as_str();
        match &said.event {
            Event::Start { .. } => {
                self.holders.remove(place);
                self.masters.remove(place);
            }
            Event::Join { node, registration, .. } if place.starts_with("worker") => {
                let holder = self.holders.entry(place).or_default();
                holder.registration = Some((*node, *registration));
            }
            Event::Join { node, registration, .. } => {
                let members = self.masters.entry(place).or_default();
                members.joined.insert(*node, *registration);
                // As another member it is given what it lacks, and nobody waits for it.
                if let Some((.., waiting)) = &mut members.install {
                    waiting.remove(node);
                }
            }
            Event::Leave { node, registration } | Event::Fail { node, registration, .. } => {
                self.on_gone(said, *node, *registration);
            }
            // It registered elsewhere.
            Event::Announce { node, registration, .. } => {
                let here = self.masters.get(place).and_then(|it| it.joined.get(node));
                if let Some(before) = here.filter(|here| *here < registration).copied() {
                    self.on_gone(said, *node, before);
                }
            }
            Event::KeyRefresh { domain, epoch, .. } => {
                let members = self.masters.entry(place).or_default();
                members.install = Some((said, *epoch, members.joined.clone()));
                members.installs.insert((*domain, *epoch), said);
            }
            Event::KeyHeld { domain, epoch, .. } => {
                self.on_print(said);
                self.on_held(said, (*domain, *epoch));
            }
            Event::KeyErased { domain, epoch } => {
                if let Some(holder) = self.holders.get_mut(place) {
                    holder.held.remove(&(*domain, *epoch));
                }
            }
            Event::Epoch { domain, epoch } => self.on_used(said, *domain, *epoch),
            Event::KeyAlarm { epoch, .. } => {
                self.breaks("alarm", format!("{place} was sent a second key for {epoch}"), &[said]);
            }
            Event::EnvelopeAlarm { epoch, .. } => {
                let text = format!("{place} refused an envelope of {epoch} as forged or repeated");
                self.breaks("envelope", text, &[said]);
            }
            _ => {}
        }
    }

    fn on_gone(&mut self, said: &'a EventLine, node: NodeId, registration: Registration) {
        let members = self.masters.entry(said.node.as_str()).or_default();
        members.joined.remove(&node);
        members.gone.insert(node, (registration, said));
        if let Some((.., waiting)) = &mut members.install {
            waiting.remove(&node);
        }
    }

    /// Checks that all who hold an epoch hold the same key.
    fn on_print(&mut self, said: &'a EventLine) {
        let Event::KeyHeld { domain, epoch, print } = said.event else { return };
        let (first, line) = *self.prints.entry((domain, epoch)).or_insert((print, said));
        if first != print {
            let text = format!("{} holds another key for epoch {epoch}", said.node);
            self.breaks("print", text, &[line, said]);
        }
    }

    fn on_held(&mut self, said: &'a EventLine, key: Key) {
        let place = said.node.as_str();
        let holder = self.holders.entry(place).or_default();
        let is_first = holder.held.is_empty();
        holder.held.insert(key, said);
        let lines: Vec<&EventLine> = holder.held.values().copied().collect();
        let is_one_domain = holder.held.keys().all(|(domain, _)| *domain == key.0);
        if lines.len() > HELD_MAX || !is_one_domain {
            let text = format!("{place} holds {} keys, or those of two domains", lines.len());
            self.breaks("held", text, &lines);
        }
        // A first key comes in a Welcome, to whoever was taken in.
        if !is_first {
            self.check_removed(said, key);
        }
    }

    /// Checks that a node which is given a key had not left before that key was installed.
    fn check_removed(&mut self, said: &'a EventLine, key: Key) {
        let Some((node, registration)) =
            self.holders.get(said.node.as_str()).and_then(|holder| holder.registration)
        else {
            return;
        };
        let removed = self.masters.values().find_map(|members| {
            let install = members.installs.get(&key)?;
            let (gone, line) = members.gone.get(&node)?;
            (*gone >= registration && line.number < install.number).then_some((*line, *install))
        });
        if let Some((gone, install)) = removed {
            let text = format!("{} was given epoch {} after it had gone", said.node, key.1);
            self.breaks("removed", text, &[gone, install, said]);
        }
    }

    fn on_used(&mut self, said: &'a EventLine, domain: Domain, epoch: KeyEpoch) {
        let place = said.node.as_str();
        let holder = self.holders.entry(place).or_default();
        let before = holder.used.insert(domain, (epoch, said));
        let is_held = holder.held.contains_key(&(domain, epoch));
        if let Some((_, line)) = before.filter(|(before, _)| *before > epoch) {
            self.breaks("back", format!("{place} goes back to epoch {epoch}"), &[line, said]);
        }
        if !is_held {
            self.breaks("unheld", format!("{place} uses epoch {epoch} without its key"), &[said]);
        }
    }

    /// Checks that all members hold the epoch that their master begins to use, or are cut off.
    fn on_master_use(
        &mut self,
        said: &'a EventLine,
        domain: Domain,
        epoch: KeyEpoch,
        after: &[EventLine],
    ) {
        let Some(members) = self.masters.get_mut(said.node.as_str()) else { return };
        let Some((install, _, waiting)) = members.install.take_if(|(_, of, _)| *of == epoch) else {
            return;
        };
        let cut = after.iter().take_while(|line| line.at <= said.at + CUT_WITHIN);
        let cut: Vec<NodeId> = cut
            .filter(|line| line.node == said.node)
            .filter_map(|line| match &line.event {
                Event::Leave { node, .. } | Event::Fail { node, .. } => Some(*node),
                _ => None,
            })
            .collect();
        let holds = |member: (&NodeId, &Registration)| {
            self.holders.values().any(|holder| {
                holder.registration == Some((*member.0, *member.1))
                    && holder.held.contains_key(&(domain, epoch))
            })
        };
        // A member that is gone, unknown to its master, holds nothing any more.
        let is_there = |member: (&NodeId, &Registration)| {
            self.holders.values().any(|holder| {
                holder.registration == Some((*member.0, *member.1))
                    && holder.held.keys().any(|(of, _)| *of == domain)
            })
        };
        let early: Vec<NodeId> = waiting
            .iter()
            .filter(|member| !cut.contains(member.0) && is_there(*member) && !holds(*member))
            .map(|(node, _)| *node)
            .collect();
        for node in early {
            let text = format!("{} uses epoch {epoch}, which {node} does not hold", said.node);
            self.breaks("early", text, &[install, said]);
        }
    }
}

#[cfg(test)]
mod tests {
    use chatchat::model::{event::RefreshReason, ids::Incarnation};

    use super::*;
    use crate::oracle::fixtures::{Fixture, node};

    fn domain(master: u8) -> Domain {
        Domain { master: node(master), incarnation: Incarnation(1) }
    }

    fn held(master: u8, epoch: u64, print: u8) -> Event {
        let print = Fingerprint([print; 32]);
        Event::KeyHeld { domain: domain(master), epoch: KeyEpoch(epoch), print }
    }

    fn erased(master: u8, epoch: u64) -> Event {
        Event::KeyErased { domain: domain(master), epoch: KeyEpoch(epoch) }
    }

    fn used(epoch: u64) -> Event {
        Event::Epoch { domain: domain(9), epoch: KeyEpoch(epoch) }
    }

    fn refresh(epoch: u64) -> Event {
        let why = RefreshReason::Interval;
        Event::KeyRefresh { domain: domain(9), epoch: KeyEpoch(epoch), why }
    }

    fn join(registration: u64) -> Event {
        Event::Join { node: node(1), registration: Registration(registration), master: node(9) }
    }

    fn fail(registration: u64) -> Event {
        let (registration, why) = (Registration(registration), String::new());
        Event::Fail { node: node(1), registration, why }
    }

    /// Master 9 at `master:0` with worker 1 at `worker:0`, both at epoch 1.
    fn joined() -> Fixture {
        let mut made = Fixture::new();
        made.said(0, "master:0", Event::Start { incarnation: Incarnation(1) });
        made.said(0, "master:0", held(9, 1, 1)).said(0, "master:0", used(1));
        made.said(1, "worker:0", held(9, 1, 1)).said(1, "worker:0", used(1));
        made.said(1, "worker:0", join(1)).said(2, "master:0", join(1));
        made
    }

    fn rules(made: &Fixture) -> Vec<&'static str> {
        made.judge(judge).iter().map(|violation| violation.rule.name).collect()
    }

    #[test]
    fn whole_refresh_and_a_new_life_are_accepted() {
        let mut made = joined();
        made.said(100, "master:0", refresh(2)).said(100, "master:0", held(9, 2, 2));
        made.said(110, "worker:0", held(9, 2, 2)).said(120, "master:0", used(2));
        made.said(130, "worker:0", used(2));
        made.said(140, "master:0", erased(9, 1)).said(140, "worker:0", erased(9, 1));
        // A member that goes while epoch 3 is installed may hold it.
        made.said(200, "master:0", refresh(3)).said(200, "master:0", held(9, 3, 3));
        made.said(210, "master:0", fail(1)).said(220, "worker:0", held(9, 3, 3));
        made.said(230, "master:0", used(3));
        made.said(240, "worker:0", erased(9, 2)).said(240, "worker:0", erased(9, 3));
        made.said(250, "worker:0", held(9, 3, 3)).said(250, "worker:0", used(3));
        assert_eq!(rules(&made), [""; 0]);
    }

    #[test]
    fn second_key_third_key_and_keys_of_two_domains_are_reported() {
        let mut made = joined();
        made.said(100, "worker:0", held(9, 2, 2)).said(110, "worker:1", held(9, 2, 7));
        assert_eq!(rules(&made), ["print"]);
        let mut made = joined();
        made.said(100, "worker:0", held(9, 2, 2)).said(110, "worker:0", held(9, 3, 3));
        assert_eq!(rules(&made), ["held"]);
        let mut made = joined();
        made.said(100, "worker:0", held(8, 1, 4));
        assert_eq!(rules(&made), ["held"]);
        let alarm = Event::KeyAlarm { domain: domain(9), epoch: KeyEpoch(1) };
        let mut made = joined();
        made.said(100, "worker:0", alarm);
        assert_eq!(rules(&made), ["alarm"]);
    }

    #[test]
    fn envelope_that_a_member_refused_as_forged_or_repeated_is_reported() {
        let mut made = joined();
        let alarm = Event::EnvelopeAlarm { domain: domain(9), epoch: KeyEpoch(1) };
        made.said(100, "worker:0", alarm);
        assert_eq!(rules(&made), ["envelope"]);
    }

    #[test]
    fn two_processes_of_one_name_may_hold_different_keys_but_no_second_one() {
        let fault = [("clone", "target = \"worker:0\"", 50, 200)];
        let mut made = Fixture::with_faults(&fault);
        made.events = joined().events;
        made.said(100, "worker:0", held(8, 1, 4));
        assert_eq!(rules(&made), [""; 0]);
        made.said(110, "worker:1", held(8, 1, 5));
        assert_eq!(rules(&made), ["print"]);
    }

    #[test]
    fn epoch_that_goes_back_or_is_not_held_is_reported() {
        let mut made = joined();
        made.said(100, "worker:0", held(9, 2, 2)).said(110, "worker:0", used(2));
        made.said(120, "worker:0", used(1));
        assert_eq!(rules(&made), ["back"]);
        let mut made = joined();
        made.said(100, "worker:0", used(2));
        assert_eq!(rules(&made), ["unheld"]);
    }

    #[test]
    fn use_before_a_member_holds_the_key_is_reported_unless_it_is_cut() {
        let mut made = joined();
        made.said(100, "master:0", refresh(2)).said(100, "master:0", held(9, 2, 2));
        made.said(120, "master:0", used(2));
        assert_eq!(rules(&made), ["early"]);
        made.said(120, "master:0", fail(1));
        assert_eq!(rules(&made), [""; 0]);
    }

    #[test]
    fn key_given_to_a_node_that_had_gone_is_reported() {
        let mut made = joined();
        made.said(90, "master:0", fail(1));
        made.said(100, "master:0", refresh(2)).said(100, "master:0", held(9, 2, 2));
        made.said(110, "worker:0", held(9, 2, 2));
        assert_eq!(rules(&made), ["removed"]);
        let mut made = joined();
        made.said(90, "master:0", fail(1)).said(95, "worker:0", erased(9, 1));
        made.said(96, "worker:0", held(9, 1, 1)).said(96, "worker:0", join(2));
        made.said(97, "master:0", join(2));
        made.said(100, "master:0", refresh(2)).said(100, "master:0", held(9, 2, 2));
        made.said(110, "worker:0", held(9, 2, 2));
        assert_eq!(rules(&made), [""; 0], "it has joined again");
    }
}
