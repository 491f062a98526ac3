//! Inputs about who is in: members told of by the master, digests, and the store's masters.

use super::{Effect, Phase, Worker};
use crate::{
    model::{
        ids::Registration,
        message::{Fact, Member, MemberState},
        rows::MasterRow,
        time::Mono,
    },
    protocol::{
        gossip::{Gossip, announcement},
        master_watch::{self, MasterChange},
    },
};

impl Worker {
    /// Members were told of by the master, in answer to a digest or as news.
    pub fn on_members(&mut self, now: Mono, members: Vec<Member>) -> Vec<Effect> {
        let corrections = Gossip::corrections(&self.registry, &members);
        let own = members.iter().find(|member| member.fact.node == self.own.fact.node);
        let is_over = own.is_some_and(|member| self.is_over(&member.fact));
        let mut effects = self.take_in(now, members);
        if is_over {
            effects.extend(self.register_again(now));
        } else {
            effects.extend(corrections.map(Effect::Send));
        }
        effects
    }

    /// The master's digest came.
    pub fn on_digest(&mut self, theirs: [u8; 16]) -> Vec<Effect> {
        let page = self.gossip.on_digest(&self.registry, theirs);
        page.map(Effect::Send).into_iter().collect()
    }

    /// Whether a fact of this worker ends the registration that it has.
    fn is_over(&self, fact: &Fact) -> bool {
        match self.phase {
            Phase::Registered { registration, .. } => {
                (fact.registration, fact.state) > (registration, MemberState::In)
            }
            _ => false,
        }
    }

    /// Takes members in; announces and keeps what is newer.
    pub(super) fn take_in(&mut self, now: Mono, members: Vec<Member>) -> Vec<Effect> {
        let (mut effects, mut newer) = (Vec::new(), Vec::new());
        for member in members {
            if member.fact.node == self.own.fact.node {
                let own = &mut self.own.fact;
                own.registration = own.registration.max(member.fact.registration);
                self.registry.apply(now, member);
            } else if self.registry.apply(now, member.clone()).is_news() {
                effects.push(Effect::Event(announcement(&member.fact)));
                newer.push(member);
            }
        }
        if !newer.is_empty() {
            self.search.on_directory(&newer);
            effects.insert(0, Effect::KeepMembers(newer));
        }
        effects
    }

    /// The store was read: all its masters.
    pub fn on_masters(&mut self, now: Mono, rows: Vec<MasterRow>) -> Vec<Effect> {
        let mut told = Vec::new();
        for change in self.watch.on_rows(now, rows) {
            match change {
                MasterChange::In(node) => {
                    let row = self.watch.get(&node);
                    told.extend(row.map(|row| master_watch::member(row, MemberState::In)));
                }
                // Out is each reader's own judgement: the search heeds it, nobody is told.
                MasterChange::Out(_) => {}
                MasterChange::Gone(node, life) => {
                    let left = self.registry.get(&node).cloned().map(|mut member| {
                        member.fact.registration = Registration(life.0);
                        member.fact.state = MemberState::Left;
                        member
                    });
                    told.extend(left);
                }
            }
        }
        let effects = self.take_in(now, told);
        self.search.on_store(self.watch.rows());
        effects
    }

    /// The store could not be read.
    pub const fn on_store_away(&mut self) {
        self.watch.on_store_away();
    }
}
