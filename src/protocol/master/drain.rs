//! Drain: a master that is to end hands its work over to the others while it still serves people.
//!
//! As long as another master can have things written, this one takes no lease, gives each one back
//! after the attempt in flight, and sends what waits and what comes to the other. While there is
//! none it goes on by itself, so that nobody is refused for the sake of a drain. When it cannot have
//! things written either, it has posts held by workers, as ever: no post is lost with it.
//!
//! It tells the others over its links, in the words that say of any member that it left: the store says
//! it too, but may be away. They count on it no more when they are to be drained themselves. A master of
//! an earlier release passes over what a master says of masters. A master's registration is its
//! incarnation there. Two that are drained before either has heard of the other both go.
//!
//! | Asked | of another master |
//! |---|---|
//! | [`Master::has_successor`] | one can have things written, for now |
//! | [`Master::has_lasting_successor`] | one can have things written, and goes on |
//! | [`Master::peer_goes_on`] | this one is linked, and goes on |
//! | [`Master::peer_drains`] | this one is linked, and said that it is being drained |

use super::{Effect, Master};
use crate::model::{
    ids::{LinkId, NodeId, Registration, Role},
    message::{Direct, Fact, Member, MemberState},
    rows::Holder,
    time::Mono,
};

impl Master {
    /// Begins to hand over. There is no way back: a master that was drained ends.
    pub fn drain(&mut self, now: Mono, out: &mut Vec<Effect>) {
        self.is_draining = true;
        for (_, link) in self.peers() {
            self.tell_drain(link, out);
        }
        self.hand_over(now, out);
        self.pump_marked(now, out);
    }

    /// Tells another master that this one is being drained, if it is.
    pub(super) fn tell_drain(&self, link: LinkId, out: &mut Vec<Effect>) {
        if !self.is_draining {
            return;
        }
        let Holder { node, incarnation } = self.me;
        let fact = Fact {
            node,
            role: Role::Master,
            registration: Registration(incarnation.0),
            state: MemberState::Left,
            master: node,
        };
        // The other one has the rest from the store.
        let member = Member { fact, name: String::new(), link: None, http: None, spki: Vec::new() };
        out.push(Effect::Send { link, direct: Direct::Members(vec![member]) });
    }

    /// Notes whether the master at the other end of a link says that it is being drained. Its word on
    /// others does not count, nor what was said of an earlier life of it. Marks every slot if it does.
    pub(super) fn note_drain(&mut self, link: LinkId, members: &[Member]) {
        let Some((node, peer)) = self.peers.iter_mut().find(|(_, peer)| peer.link == link) else {
            return;
        };
        let life = self.watch.get(node).map(|row| Registration(row.incarnation.0));
        let says_so = |member: &Member| {
            let Fact { node: of, role, registration, state, .. } = member.fact;
            of == *node
                && (role, state) == (Role::Master, MemberState::Left)
                && life.is_none_or(|life| registration >= life)
        };
        if !peer.is_draining && members.iter().any(says_so) {
            peer.is_draining = true;
            self.mark_all();
        }
    }

    /// Returns whether another master that is linked said that it is being drained.
    #[must_use]
    pub fn peer_drains(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.is_draining)
    }

    /// Returns whether another master is linked and did not say that it is being drained.
    #[must_use]
    pub fn peer_goes_on(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| !peer.is_draining)
    }

    /// Returns whether a master that goes on is linked that can have things written.
    #[must_use]
    pub fn has_lasting_successor(&self) -> bool {
        self.peers.values().any(|peer| peer.can_write && !peer.is_draining)
    }

    /// Gives back what can be given back, when it is being drained and somebody can go on. Marks
    /// every slot.
    pub(super) fn hand_over(&mut self, now: Mono, out: &mut Vec<Effect>) {
        if self.hands_over() {
            self.release_all(now, out);
            self.mark_all();
        }
    }

    /// Whether its work goes to another master now. Two that are drained together go on writing, or
    /// each would hand over to the other for as long as the other did not.
    pub(super) fn hands_over(&self) -> bool {
        self.is_draining && self.has_lasting_successor()
    }

    /// Whether nothing waits here, is with a worker, or is with another master for somebody here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let left = |slot| self.queue.waiting(slot) + self.queue.taken(slot);
        self.forwards.is_empty() && self.queue.slots().all(|(slot, _)| left(slot) == 0)
    }

    /// Whether another master is linked that can have things written.
    #[must_use]
    pub fn has_successor(&self) -> bool {
        self.peers.values().any(|peer| peer.can_write)
    }
}
