//! Orphans: workers whose master is out, and that anyone may call failed after a while.
//!
//! A master that is cut from the store together with its workers is out, and has them all the same: they
//! would be called failed as often as they register. So one that is linked speaks for its workers, and for
//! a while after the end of its link too, in which the link is made again. It has to have spoken: the link to
//! one whose driver hangs is made again and again.

use std::time::Duration;

use super::{Effect, Master};
use crate::model::{
    ids::NodeId,
    message::{Fact, MemberState},
    time::Mono,
};

/// Time after which anyone may call the workers of a master failed that is out, and whose link is over.
const ORPHANED_AFTER: Duration = Duration::from_secs(5);

impl Master {
    /// Notes the end of the link of another master that had spoken.
    pub(super) fn note_link_end(&mut self, now: Mono, master: NodeId) {
        self.links_ended.insert(master, now);
    }

    /// Forgets the ends of links that count no more: so only those of the last seconds are kept.
    pub(super) fn forget_link_ends(&mut self, now: Mono) {
        self.links_ended.retain(|_, at| now.since(*at) < ORPHANED_AFTER);
    }

    /// Returns whether a master has been out for so long that anyone may call its workers failed. One
    /// that is linked, or was a moment ago, speaks for its own workers, as this one does.
    pub(super) fn is_given_up(&self, now: Mono, master: &NodeId) -> bool {
        let ended_at = self.links_ended.get(master);
        let was_linked = ended_at.is_some_and(|at| now.since(*at) < ORPHANED_AFTER);
        let is_linked = self.peers.get(master).is_some_and(|peer| peer.has_spoken);
        let is_heard = *master == self.me.node || is_linked || was_linked;
        let is_out = self.watch.is_out_for(now, master, ORPHANED_AFTER)
            || (self.watch.knows_anyone() && self.watch.is_long_gone(now, master));
        is_out && !is_heard
    }

    /// Calls the workers failed whose masters are given up.
    pub(super) fn end_orphans(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let before = now - ORPHANED_AFTER;
        let is_out = |master: &NodeId| self.is_given_up(now, master);
        let orphans: Vec<Fact> = self.registry.orphans(before, is_out).copied().collect();
        for Fact { node, registration, .. } in orphans {
            if let Some(member) = self.registry.end(now, node, registration, MemberState::Failed) {
                out.push(Effect::Probe("a worker was called failed because its master is out"));
                self.announce(now, member, true, out);
            }
        }
    }
}
