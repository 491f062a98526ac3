//! Dials of other masters: of two, the one with the smaller id dials.
//!
//! 1. A master that is in is dialled again a second after a dial that failed.
//! 2. One that is out may be cut from the store alone: over a link it speaks for its workers. So it is
//!    dialled too, after pauses that grow up to a minute, as the row of one that is dead may stay for a day.
//! 3. One that was being drained when it went out has ended, and is not dialled.
//! 4. One that was reached and said nothing before its link was over was not reached: its driver hangs.
//! 5. A dial that began while the master was out gives way to another one once it is in.

use std::{collections::BTreeMap, time::Duration};

use super::Master;
use crate::model::{ids::NodeId, rows::MasterRow, time::Mono};

/// Pause after a dial that failed of a master that is in, and after the first one of a master that is out.
const RETRY: Duration = Duration::from_secs(1);
/// Longest pause between two dials of a master that is out.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Last dial of a master that was not reached.
#[derive(Clone, Copy, Debug)]
struct FailedDial {
    at: Mono,
    /// Pause after it, if the master is out.
    pause: Duration,
}

/// Dials that are under way, and pauses after those that failed: at most one of each master with a row.
#[derive(Debug, Default)]
pub(super) struct MasterDials {
    /// Masters that are being dialled, each with whether it was in when that began.
    under_way: BTreeMap<NodeId, bool>,
    failed: BTreeMap<NodeId, FailedDial>,
    /// First end of a pause, as of the last look.
    due: Option<Mono>,
}

impl MasterDials {
    /// Returns when [`Master::begin_dials`] is to be called next.
    pub(super) const fn next_deadline(&self) -> Option<Mono> {
        self.due
    }

    /// Notes that a linked master spoke: once the link is over it is dialled at once.
    pub(super) fn on_heard(&mut self, node: &NodeId) {
        self.failed.remove(node);
    }

    /// Returns whether a dial of a master begins now; then notes that.
    fn begin(&mut self, now: Mono, node: NodeId, is_in: bool) -> bool {
        if self.under_way.get(&node).is_some_and(|was_in| *was_in || !is_in) {
            return false;
        }
        if let Some(failed) = self.failed.get(&node) {
            let due = failed.at + if is_in { RETRY } else { failed.pause };
            if due > now {
                self.due = Some(self.due.map_or(due, |first| first.min(due)));
                return false;
            }
        }
        self.under_way.insert(node, is_in);
        true
    }
}

impl Master {
    /// Returns the masters to dial now: those with a row and a greater id that are neither linked nor
    /// denied, and whose pause is over. A dial of the same master that is under way is to be given up.
    /// Answer each with [`on_dialed`](Self::on_dialed).
    pub fn begin_dials(
        &mut self,
        now: Mono,
        is_denied: impl Fn(&NodeId) -> bool,
    ) -> Vec<MasterRow> {
        let (watch, dials) = (&self.watch, &mut self.dials);
        dials.failed.retain(|node, _| watch.get(node).is_some());
        dials.due = None;
        let mut rows = Vec::new();
        for (row, is_in) in watch.rows() {
            let node = row.node;
            let is_wanted = node > self.me.node
                && !self.peers.contains_key(&node)
                && (is_in || !row.draining)
                && !is_denied(&node);
            if is_wanted && dials.begin(now, node, is_in) {
                rows.push(row.clone());
            }
        }
        rows
    }

    /// Notes the end of a dial. One that reached the master is followed by
    /// [`on_master`](Self::on_master).
    pub fn on_dialed(&mut self, now: Mono, node: NodeId, is_reached: bool) {
        self.dials.under_way.remove(&node);
        if !is_reached {
            self.note_failed_dial(now, node);
        }
    }

    /// Notes that a master was not reached.
    pub(super) fn note_failed_dial(&mut self, now: Mono, node: NodeId) {
        let before = self.dials.failed.get(&node).map(|failed| failed.pause);
        let pause = match before {
            Some(pause) if !self.watch.is_in(&node) => (pause * 2).min(RETRY_MAX),
            _ => RETRY,
        };
        self.dials.failed.insert(node, FailedDial { at: now, pause });
    }
}
