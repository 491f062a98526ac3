//! Registrations that the masters forgot, and that workers still know.
//!
//! A worker may lie about them. Its word counts only on workers that are gone, and on each of them once
//! in [`WORD_INTERVAL`](crate::protocol::registry::WORD_INTERVAL): one that comes back gets in between
//! two words, and what they cost the other nodes is bounded.

use super::{Effect, Master};
use crate::model::{
    ids::{LinkId, Role},
    message::{Fact, Member, MemberState},
    time::Mono,
};

/// Registrations by which a worker's word may raise a known one: far more than a node registers
/// between two digests, and too few to use the numbers up.
const SKIPPED_MAX: u64 = 1 << 20;

impl Master {
    /// Takes in newer registrations of nodes that are gone anyway. A worker may be the only one that
    /// knows them: it heard of them from a master that was wiped since, and without this the
    /// directories would differ for ever.
    ///
    /// A lie makes no node go that is known to be in. One that another master has just taken in may
    /// have to register once more: a registration that ended there cannot be told from a lie.
    pub(super) fn take_forgotten(
        &mut self,
        now: Mono,
        link: LinkId,
        members: &[Member],
        out: &mut Vec<Effect>,
    ) {
        let mut forgotten = Vec::new();
        for told in members {
            let Some(member) = self.forgotten(now, told) else { continue };
            if self.registry.take_word(now, &member.fact.node) {
                forgotten.push(member);
            } else if let Some(gossip) = self.gossip.get_mut(&link) {
                // An honest worker says it again in answer to a page.
                gossip.send_again();
            }
        }
        if !forgotten.is_empty() {
            out.push(Effect::Probe("a registration that masters forgot was taken in"));
            self.take_in(now, forgotten, true, out);
        }
    }

    /// Returns what a worker's word says of a node that is gone, if that is news: one that is in with
    /// a master that is out has failed, and a master ends what it does not have.
    fn forgotten(&self, now: Mono, told: &Member) -> Option<Member> {
        let (known, told) = (self.registry.get(&told.fact.node)?, told.fact);
        let skipped = told.registration.0.saturating_sub(known.fact.registration.0);
        let is_gone = known.fact.role == Role::Worker && known.fact.state != MemberState::In;
        if !is_gone || told.role != Role::Worker || !(1..=SKIPPED_MAX).contains(&skipped) {
            return None;
        }
        let is_lost = told.state == MemberState::In && self.is_given_up(now, &told.master);
        let state = if is_lost { MemberState::Failed } else { told.state };
        Some(Member { fact: Fact { state, ..told }, ..known.clone() })
    }
}
