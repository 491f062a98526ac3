//! Inputs from the search and from the link to the master: dial, register, lose.

use super::{Effect, Phase, Worker};
use crate::{
    model::{
        event::{Event, FaultPoint},
        ids::Registration,
        message::{Close, CloseReason, MemberState, Welcome},
        time::Mono,
    },
    protocol::{gossip::Gossip, search::Step},
};

/// Wait before the next look for an address while none is known: the store may name one.
const NOWHERE_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

impl Worker {
    pub(super) fn search_on(&mut self, now: Mono, draw: u64, out: &mut Vec<Effect>) {
        self.phase = match self.search.next(now, draw) {
            Step::Dial(addr) => {
                out.push(Effect::Dial(addr.clone()));
                Phase::Dialing { addr }
            }
            Step::Wait(next) => Phase::Searching { next },
            Step::Nowhere => Phase::Searching { next: now + NOWHERE_WAIT },
        };
    }

    /// Takes in the Welcome of the master that was dialed. Returns the registration number for
    /// Ready, which must be on disk before Ready is sent; `None` when no Welcome is awaited.
    pub fn on_welcome(
        &mut self,
        now: Mono,
        welcome: &Welcome,
        out: &mut Vec<Effect>,
    ) -> Option<Registration> {
        if !matches!(self.phase, Phase::Dialing { .. }) {
            return None;
        }
        self.take_in(now, welcome.directory.clone(), out);
        let fact = &mut self.own.fact;
        fact.registration = fact.registration.next();
        fact.state = MemberState::In;
        fact.master = welcome.domain.master;
        Some(fact.registration)
    }

    /// Registers this worker: Ready was sent.
    pub fn on_registered(&mut self, now: Mono, welcome: &Welcome, out: &mut Vec<Effect>) {
        let Phase::Dialing { addr } = &self.phase else { return };
        let (domain, registration) = (welcome.domain, self.own.fact.registration);
        self.phase = Phase::Registered { addr: addr.clone(), domain, registration };
        self.registry.apply(now, self.own.clone());
        self.moving.forget();
        self.count_turns(now);
        self.gossip = Gossip::default();
        (self.digest_at, self.status_at) = (now, now);
        self.session_repair.hurry(now);
        let (node, master) = (self.own.fact.node, domain.master);
        out.push(Effect::Event(Event::Join { node, registration, master }));
    }

    /// Goes on with the search: the master that was dialed did not take this worker in.
    pub fn on_dial_failed(&mut self, now: Mono) {
        if matches!(self.phase, Phase::Dialing { .. }) {
            self.phase = Phase::Searching { next: now };
        }
    }

    /// Restarts the search: the link to the master ended, with `close` if the master sent one.
    pub fn on_link_ended(&mut self, now: Mono, close: Option<&Close>, out: &mut Vec<Effect>) {
        let Phase::Registered { addr, .. } = &self.phase else { return };
        self.moves_to = None;
        if close.is_some_and(|close| close.reason == CloseReason::Replaced) {
            out.push(Effect::WarnOfDouble);
        }
        self.search.restart(now, addr, close);
        self.phase = Phase::Searching { next: now };
        out.push(Effect::FaultPoint(FaultPoint::WorkerMigrating));
    }

    /// Has the turns of moving go by the workers that its master has now.
    pub(super) fn count_turns(&mut self, now: Mono) {
        if let Some(domain) = self.domain() {
            self.moving.on_members(now, &domain.master, &self.registry);
        }
    }

    /// Begins to leave for another master, if there is a reason to.
    pub(super) fn move_on(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let Phase::Registered { domain, .. } = &self.phase else { return };
        if self.moves_to.is_some() {
            return;
        }
        let own = (self.own.fact.node, domain.master);
        self.moves_to = self.moving.on_rows(now, own, &self.watch, &self.registry);
        if self.moves_to.is_some() {
            out.push(Effect::FinishBatches);
        }
    }

    /// Leaves for the master that [`Effect::FinishBatches`] was for: a master whose link ends before
    /// a batch is answered counts a try. Does nothing if the link ended meanwhile. Stays if that
    /// master does not write to the store any more, or is being drained.
    pub fn on_batches_answered(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let Some(to) = self.moves_to.take() else { return };
        let row = self.watch.get(&to).filter(|row| !row.draining && self.watch.is_fresh(&to));
        let Some(addr) = row.map(|row| row.link.clone()) else { return };
        out.push(Effect::CloseLink(CloseReason::Leaving));
        self.on_link_ended(now, None, out);
        self.search.prefer(now, &addr);
    }

    /// Registers again, with the same master first: others say that this registration is over,
    /// `Listed` as failed or `Replaced`.
    pub(super) fn register_again(&mut self, now: Mono, reason: CloseReason, out: &mut Vec<Effect>) {
        if self.registration().is_some() {
            // Its master still counts it as in, so it says that this registration left.
            out.push(Effect::CloseLink(CloseReason::Leaving));
        }
        let again = Close { reason, retry_ms: 0 };
        self.on_link_ended(now, Some(&again), out);
    }
}
