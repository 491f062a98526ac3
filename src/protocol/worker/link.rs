//! Inputs from the search and from the link: whom it dials, registers with, and loses.

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

/// How long to wait when there is no address at all: the store may name one.
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

    /// The master that was dialled takes this worker in, and told what it knows. The number to
    /// say in Ready; keep it on disk before. `None` when no Welcome is awaited.
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

    /// Ready was said: this worker is registered.
    pub fn on_registered(&mut self, now: Mono, welcome: &Welcome, out: &mut Vec<Effect>) {
        let Phase::Dialing { addr } = &self.phase else { return };
        let (domain, registration) = (welcome.domain, self.own.fact.registration);
        self.phase = Phase::Registered { addr: addr.clone(), domain, registration };
        self.registry.apply(now, self.own.clone());
        self.gossip = Gossip::default();
        (self.digest_at, self.status_at) = (now, now);
        let (node, master) = (self.own.fact.node, domain.master);
        out.push(Effect::Event(Event::Join { node, registration, master }));
    }

    /// The master that was dialled did not take this worker in.
    pub fn on_dial_failed(&mut self, now: Mono) {
        if matches!(self.phase, Phase::Dialing { .. }) {
            self.phase = Phase::Searching { next: now };
        }
    }

    /// The link to the master ended; with what the master said, if it did.
    pub fn on_link_ended(&mut self, now: Mono, close: Option<&Close>, out: &mut Vec<Effect>) {
        let Phase::Registered { addr, .. } = &self.phase else { return };
        self.search.restart(now, addr, close);
        self.phase = Phase::Searching { next: now };
        out.push(Effect::FaultPoint(FaultPoint::WorkerMigrating));
    }

    /// This registration is over, as others say: begin another.
    pub(super) fn register_again(&mut self, now: Mono, out: &mut Vec<Effect>) {
        if self.registration().is_some() {
            // Its master still counts it as in, so it says that this registration left.
            out.push(Effect::CloseLink(CloseReason::Leaving));
        }
        let again = Close { reason: CloseReason::Listed, retry_ms: 0 };
        self.on_link_ended(now, Some(&again), out);
    }
}
