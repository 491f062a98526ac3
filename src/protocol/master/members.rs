//! Members: links that come and go, beats, and membership facts.

mod forgotten;
mod orphans;

use super::{Effect, Master, Peer};
use crate::{
    model::{
        event::Event,
        ids::{KeyEpoch, LinkId, NodeId, Registration, Role},
        message::{Beat, Close, CloseReason, Fact, Member, MemberState, Update},
        rows::MasterRow,
        time::Mono,
    },
    protocol::{
        gossip::{Gossip, PAGE_MEMBERS, announcement},
        master_watch::{self, MasterChange},
        permission::LeaseState,
        registrations::RegisterError,
        registry::Merged,
    },
};

/// End of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOver {
    /// The peer said that it leaves.
    Left,
    /// It broke, fell silent, or was closed for another reason.
    Lost(String),
}

/// Way in which a worker's registration ends.
enum Ending<'a> {
    Left,
    Expelled,
    Failed(&'a str),
}

/// Publishes facts, in pages.
pub(super) fn publish(members: &[Member], spread: bool, out: &mut Vec<Effect>) {
    for page in members.chunks(PAGE_MEMBERS) {
        out.push(Effect::Publish { update: Update::Members(page.to_vec()), spread });
    }
}

impl Master {
    /// Registers a worker that is ready on a link and holds the common key of an epoch.
    ///
    /// # Errors
    /// The last message of the link; the worker is not registered.
    pub fn on_worker(
        &mut self,
        now: Mono,
        link: LinkId,
        member: Member,
        held: Option<KeyEpoch>,
        out: &mut Vec<Effect>,
    ) -> Result<(), Close> {
        let Fact { node, registration, .. } = member.fact;
        let refuse = |reason, retry_ms| Err(Close { reason, retry_ms });
        let known = self.registry.get(&node).map(|known| known.fact);
        if known.is_some_and(|fact| fact.role != Role::Worker) {
            return refuse(CloseReason::Violation, 4000);
        }
        if known.is_some_and(|fact| fact.registration >= registration) {
            return refuse(CloseReason::Replaced, 0);
        }
        match self.registrations.register(node, link, registration) {
            Ok(Some(before)) => {
                self.keys.forget(before.link);
                let close = Close { reason: CloseReason::Replaced, retry_ms: 0 };
                out.push(Effect::Close { link: before.link, close });
            }
            Ok(None) => {}
            Err(RegisterError::Full) => return refuse(CloseReason::Full, 4000),
            Err(RegisterError::Stale { .. }) => return refuse(CloseReason::Replaced, 0),
        }
        self.failed.remove(&node);
        self.join_keys(now, link, held, out);
        self.selection.add(node, false);
        out.push(Effect::Event(Event::Join { node, registration, master: self.me.node }));
        let joined = self.merge(now, vec![member], out);
        self.joins.extend(joined);
        self.publish_due_joins(now, out);
        Ok(())
    }

    /// Takes another master's link, and closes an older one to it.
    pub fn on_master(&mut self, now: Mono, link: LinkId, node: NodeId, out: &mut Vec<Effect>) {
        let peer = Peer { link, has_spoken: false, can_write: false, is_draining: false };
        if let Some(before) = self.peers.insert(node, peer) {
            self.on_peer_lost(now, node, before);
            let close = Close { reason: CloseReason::Replaced, retry_ms: 0 };
            out.push(Effect::Close { link: before.link, close });
        }
        out.push(Effect::Send { link, direct: Gossip::digest(&self.registry) });
        self.tell_drain(link, out);
        self.mark_all();
        self.pump_marked(now, out);
    }

    /// Notes that a master is out of reach, if its link is this one.
    pub(super) fn lose_peer(&mut self, now: Mono, node: NodeId, link: LinkId) {
        if self.peers.get(&node).is_some_and(|peer| peer.link == link)
            && let Some(peer) = self.peers.remove(&node)
        {
            self.on_peer_lost(now, node, peer);
        }
    }

    /// Notes the end of another master's link.
    fn on_peer_lost(&mut self, now: Mono, node: NodeId, before: Peer) {
        self.note_lost_peer(now, before);
        if before.has_spoken {
            self.note_link_end(now, node);
        } else {
            self.note_failed_dial(now, node);
        }
    }

    /// Notes that a master can no longer have things written, if it could before.
    pub(super) const fn note_lost_peer(&mut self, now: Mono, before: Peer) {
        if before.can_write {
            self.peer_lost_at = Some(now);
        }
    }

    /// Handles the end of a link: its worker left or failed, or its master is out of reach.
    pub fn on_link_over(
        &mut self,
        now: Mono,
        link: LinkId,
        over: &LinkOver,
        out: &mut Vec<Effect>,
    ) {
        self.gossip.remove(&link);
        self.ending.remove(&link);
        if let Some(node) = self.registrations.by_link(link) {
            match over {
                LinkOver::Left => self.end_worker(now, node, &Ending::Left, out),
                LinkOver::Lost(why) => self.fail_worker(now, node, why, out),
            }
        }
        let gone: Vec<NodeId> =
            self.peers.iter().filter(|(_, p)| p.link == link).map(|(node, _)| *node).collect();
        for node in gone {
            self.lose_peer(now, node, link);
            let slots: Vec<_> = self.queue.slots().map(|(slot, _)| slot).collect();
            for slot in slots {
                if matches!(self.permissions.state(slot), LeaseState::Other { holder, .. } if holder.node == node)
                {
                    self.permissions.look_again(slot, now);
                    self.mark(slot);
                }
            }
        }
        self.pump_marked(now, out);
    }

    /// Notes whether a peer reaches the store.
    pub fn on_beat(&mut self, now: Mono, link: LinkId, beat: Beat, out: &mut Vec<Effect>) {
        if let Some(node) = self.registrations.by_link(link) {
            let before = self.selection.reaches_store(&node);
            self.selection.set_reaches_store(&node, beat.reaches_store);
            if self.selection.anyone_reaches_store() {
                self.unreachable_since = None;
            }
            if before != Some(beat.reaches_store) {
                self.mark_all();
            }
        }
        let peer = self.peers.iter_mut().find(|(_, peer)| peer.link == link);
        if let Some((node, peer)) = peer {
            let before = *peer;
            peer.has_spoken = true;
            peer.can_write = beat.reaches_store;
            self.dials.on_heard(node);
            if before.can_write != beat.reaches_store {
                self.note_lost_peer(now, before);
                self.hand_over(now, out);
                self.mark_all();
            }
        }
        self.pump_marked(now, out);
    }

    /// Declares a worker failed: it is listed, its link closed, and the failure published. Marks
    /// every slot.
    pub(super) fn fail_worker(
        &mut self,
        now: Mono,
        node: NodeId,
        why: &str,
        out: &mut Vec<Effect>,
    ) {
        self.end_worker(now, node, &Ending::Failed(why), out);
    }

    /// Ends the registration of a worker that was expelled, if it has one here, and has the common key
    /// replaced at once: without one it may have been on its way to a registration.
    pub fn expel(&mut self, now: Mono, node: NodeId, out: &mut Vec<Effect>) {
        self.keys.renew_at_once();
        self.end_worker(now, node, &Ending::Expelled, out);
        self.pump_marked(now, out);
    }

    fn end_worker(&mut self, now: Mono, node: NodeId, ending: &Ending<'_>, out: &mut Vec<Effect>) {
        let Some(registered) = self.registrations.remove(&node) else { return };
        let registration = registered.registration;
        match ending {
            Ending::Expelled => self.keys.forget(registered.link),
            Ending::Left | Ending::Failed(_) => self.keys.on_gone(now, registered.link),
        }
        self.selection.remove(&node);
        self.calls.forget(&node);
        let (state, close) = match ending {
            Ending::Failed(why) => {
                let listing = self.failed.list(now, node, registration, why);
                let why = (*why).to_owned();
                out.push(Effect::Event(Event::Fail { node, registration, why }));
                out.push(Effect::Event(Event::List { node, registration }));
                if let Some(swept) = listing.swept {
                    out.push(Effect::Event(Event::Sweep { nodes: vec![swept] }));
                }
                let close = Close { reason: CloseReason::Listed, retry_ms: listing.retry_ms };
                (MemberState::Failed, close)
            }
            Ending::Left | Ending::Expelled => {
                out.push(Effect::Event(Event::Leave { node, registration }));
                let reason = match ending {
                    Ending::Expelled => CloseReason::Expelled,
                    _ => CloseReason::Leaving,
                };
                (MemberState::Left, Close { reason, retry_ms: 0 })
            }
        };
        out.push(Effect::Close { link: registered.link, close });
        if let Some(member) = self.registry.end(now, node, registration, state) {
            self.announce(now, member, true, out);
        }
        self.mark_all();
    }

    /// Announces the end of a registration by an event line, and publishes it.
    fn announce(&mut self, now: Mono, member: Member, spread: bool, out: &mut Vec<Effect>) {
        self.publish_joins(now, out);
        out.push(Effect::Event(announcement(&member.fact)));
        out.push(Effect::Publish { update: Update::Members(vec![member]), spread });
    }

    /// Merges facts into the directory; announces and publishes those that are new here.
    fn take_in(&mut self, now: Mono, members: Vec<Member>, spread: bool, out: &mut Vec<Effect>) {
        publish(&self.merge(now, members, out), spread, out);
    }

    /// Merges facts into the directory, and announces those that are new here. Returns them.
    fn merge(&mut self, now: Mono, members: Vec<Member>, out: &mut Vec<Effect>) -> Vec<Member> {
        let mut merged = Vec::new();
        for member in members {
            match self.registry.apply(now, member.clone()) {
                Merged::New | Merged::Newer => {
                    if member.fact.node != self.me.node {
                        out.push(Effect::Event(announcement(&member.fact)));
                    }
                    merged.push(member);
                }
                Merged::Full | Merged::Known | Merged::Older | Merged::Forged => {}
            }
        }
        merged
    }

    /// Takes members that a peer sent, and answers with newer facts where it has older ones. Only
    /// another master's word counts: a worker says its own registration when it is ready, and one
    /// bad worker could expel all others. `take_forgotten` says what is taken nevertheless.
    pub fn on_members(
        &mut self,
        now: Mono,
        link: LinkId,
        members: Vec<Member>,
        out: &mut Vec<Effect>,
    ) {
        if let Some(direct) = Gossip::corrections(&self.registry, &members) {
            out.push(Effect::Send { link, direct });
        }
        if !self.peers.values().any(|peer| peer.link == link) {
            self.take_forgotten(now, link, &members, out);
            return;
        }
        self.note_drain(link, &members);
        self.pump_marked(now, out);
        // Masters are in by the store's list alone: nobody else's word counts here.
        let workers: Vec<_> = members.into_iter().filter(|m| m.fact.role == Role::Worker).collect();
        let moved: Vec<_> = workers
            .iter()
            .filter(|m| {
                self.registrations.get(&m.fact.node).is_some_and(|here| {
                    (m.fact.registration, m.fact.state) > (here.registration, MemberState::In)
                })
            })
            .map(|m| m.fact.node)
            .collect();
        self.take_in(now, workers, false, out);
        for node in moved {
            if let Some(registered) = self.registrations.remove(&node) {
                self.keys.on_gone(now, registered.link);
                self.selection.remove(&node);
                self.calls.forget(&node);
                let close = Close { reason: CloseReason::Replaced, retry_ms: 0 };
                out.push(Effect::Close { link: registered.link, close });
            }
        }
    }

    /// Compares a peer's digest with this directory, and sends members when they keep differing.
    pub fn on_digest(&mut self, link: LinkId, digest: [u8; 16], out: &mut Vec<Effect>) {
        let gossip = self.gossip.entry(link).or_default();
        if let Some(direct) = gossip.on_digest(&self.registry, digest) {
            out.push(Effect::Send { link, direct });
        }
    }

    pub(super) fn send_digests(&self, out: &mut Vec<Effect>) {
        let direct = Gossip::digest(&self.registry);
        let workers = self.registrations.iter().map(|(_, registered)| registered.link);
        let masters = self.peers.values().map(|peer| peer.link);
        for link in workers.chain(masters) {
            out.push(Effect::Send { link, direct: direct.clone() });
        }
    }

    /// Takes the store's list of masters; `None` when it could not be read.
    pub fn on_masters(&mut self, now: Mono, rows: Option<Vec<MasterRow>>, out: &mut Vec<Effect>) {
        self.end_earlier_lives(now, out);
        self.forget_link_ends(now);
        let Some(rows) = rows else {
            self.watch.on_store_away(now);
            return;
        };
        for change in self.watch.on_rows(now, rows) {
            match change {
                MasterChange::In(node) => {
                    if let Some(row) = self.watch.get(&node) {
                        let member = master_watch::member(row, MemberState::In);
                        self.take_in(now, vec![member], false, out);
                    }
                }
                MasterChange::Out(_) => out.push(Effect::Probe("a master was seen to be out")),
                MasterChange::Gone(node, incarnation) => {
                    let life = Registration(incarnation.0);
                    if let Some(member) = self.registry.end(now, node, life, MemberState::Left) {
                        self.announce(now, member, false, out);
                    }
                }
            }
        }
        self.end_orphans(now, out);
    }

    /// Ends the registrations that others list with this master and that it does not have: an
    /// earlier life of it took them in, and the worker may have died with that.
    fn end_earlier_lives(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let listed = self.registry.workers_of(&self.me.node);
        let unknown: Vec<_> =
            listed.filter(|node| self.registrations.get(node).is_none()).copied().collect();
        for node in unknown {
            let Some(known) = self.registry.get(&node).map(|known| known.fact) else { continue };
            let registration = known.registration;
            if let Some(member) = self.registry.end(now, node, registration, MemberState::Failed) {
                out.push(Effect::Probe("a registration of a master's earlier life was ended"));
                self.announce(now, member, true, out);
            }
        }
    }
}
