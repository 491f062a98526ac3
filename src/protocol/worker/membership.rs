//! Inputs about membership: members and digests from the master, and masters' rows from the store.

use super::{Effect, Phase, Worker};
use crate::{
    model::{
        ids::Registration,
        message::{CloseReason, Fact, Member, MemberState},
        rows::MasterRow,
        time::Mono,
    },
    protocol::{
        gossip::{Gossip, announcement},
        master_watch::{self, MasterChange},
    },
};

impl Worker {
    /// Takes members from the master, sent as an update or in answer to a digest.
    pub fn on_members(&mut self, now: Mono, members: Vec<Member>, out: &mut Vec<Effect>) {
        let corrections = Gossip::corrections(&self.registry, &members);
        let own = members.iter().find(|member| member.fact.node == self.own.fact.node);
        let over = own.and_then(|member| self.why_over(&member.fact));
        self.take_in(now, members, out);
        if let Some(why) = over {
            self.register_again(now, why, out);
        } else {
            out.extend(corrections.map(Effect::Send));
        }
    }

    /// Answers the master's digest.
    pub fn on_digest(&mut self, theirs: [u8; 16], out: &mut Vec<Effect>) {
        out.extend(self.gossip.on_digest(&self.registry, theirs).map(Effect::Send));
    }

    /// Returns why a fact of this worker ends its current registration, if it does: it was listed
    /// as failed, or another process with this identity registered.
    fn why_over(&self, fact: &Fact) -> Option<CloseReason> {
        let Phase::Registered { registration, .. } = self.phase else { return None };
        if fact.registration > registration {
            return Some(CloseReason::Replaced);
        }
        let is_over = (fact.registration, fact.state) > (registration, MemberState::In);
        is_over.then_some(CloseReason::Listed)
    }

    /// Merges members into the directory; keeps the newer ones on disk, then announces them.
    pub(super) fn take_in(&mut self, now: Mono, members: Vec<Member>, out: &mut Vec<Effect>) {
        let mut newer = Vec::new();
        for member in members {
            if member.fact.node == self.own.fact.node {
                let own = &mut self.own.fact;
                own.registration = own.registration.max(member.fact.registration);
                self.registry.apply(now, member);
            } else if self.registry.apply(now, member.clone()).is_news() {
                newer.push(member);
            }
        }
        self.count_turns(now);
        if newer.is_empty() {
            return;
        }
        self.search.on_directory(&newer);
        let lines: Vec<_> = newer.iter().map(|member| announcement(&member.fact)).collect();
        out.push(Effect::KeepMembers(newer));
        out.extend(lines.into_iter().map(Effect::Event));
    }

    /// Takes all masters' rows of the store.
    pub fn on_masters(&mut self, now: Mono, rows: Vec<MasterRow>, out: &mut Vec<Effect>) {
        let mut told = Vec::new();
        for change in self.watch.on_rows(now, rows) {
            match change {
                MasterChange::In(node) => {
                    let row = self.watch.get(&node);
                    told.extend(row.map(|row| master_watch::member(row, MemberState::In)));
                }
                // Each reader judges for itself which master is out; only the search uses it.
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
        self.take_in(now, told, out);
        self.search.on_store(self.watch.rows());
        self.move_on(now, out);
    }

    /// Notes that the store could not be read. What it said of masters is forgotten in time.
    pub fn on_store_away(&mut self, now: Mono) {
        self.watch.on_store_away(now);
        self.moving.forget();
        self.search.on_store(self.watch.rows());
    }
}
