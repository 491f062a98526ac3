//! View of the cluster as this master sees it, for people and operators.

use std::time::Duration;

use super::Driver;
use crate::{
    api::{ClusterState, FailedNode, KeyState, LeaseOwner, NodeState, QueueState, StoreAbsence},
    crypto::handshake::RELEASE,
    model::{ids::Role, stream::Consistency, time::Mono},
    protocol::permission::LeaseState,
};

impl Driver {
    pub(super) fn view(&self) -> ClusterState {
        let now = self.env.now();
        let core = &self.core;
        let mut releases = self.links.releases();
        releases.insert(self.me.info.id, RELEASE);
        let mut nodes: Vec<NodeState> = core
            .registry()
            .members()
            .map(|member| {
                let fact = &member.fact;
                let reaches_store = match fact.role {
                    Role::Worker => core.selection().reaches_store(&fact.node),
                    // Not whether it has workers: that shows in their lines.
                    Role::Master if fact.node == self.me.info.id => Some(core.is_strong(now)),
                    Role::Master => {
                        let says = core.peer_can_write(&fact.node);
                        says.filter(|can| *can || core.registry().has_workers(&fact.node))
                    }
                };
                let state = match fact.role {
                    // A master that did not leave is judged by its row, by each reader.
                    Role::Master if !core.watch().is_in(&fact.node) => {
                        fact.state.max(crate::model::message::MemberState::Failed)
                    }
                    _ => fact.state,
                };
                NodeState {
                    id: fact.node,
                    name: member.name.clone(),
                    role: fact.role,
                    registration: fact.registration,
                    state,
                    master: fact.master,
                    http: member.http.clone(),
                    reaches_store,
                    in_flight: core.selection().in_flight(&fact.node),
                    resident_bytes: self.links.resident_bytes(&fact.node),
                    held_posts: self.links.held_by(&fact.node),
                    release: releases.get(&fact.node).map(|release| (*release).to_owned()),
                }
            })
            .collect();
        nodes.sort_by_key(|node| (node.role, node.id));
        let failed = core
            .failed()
            .iter()
            .map(|(id, listed)| FailedNode {
                id: *id,
                registration: listed.registration,
                why: listed.why.clone(),
                for_ms: millis(now.since(listed.since)),
                times: listed.times,
            })
            .collect();
        let queues = core
            .queue()
            .slots()
            .map(|(slot, resource)| {
                let (held, holder, token) = match core.lease_state(slot) {
                    LeaseState::Mine(held) => {
                        (LeaseOwner::Mine, Some(self.me.info.id), Some(held.token))
                    }
                    LeaseState::Other { holder, .. } => {
                        (LeaseOwner::Other, Some(holder.node), None)
                    }
                    LeaseState::Free { .. } | LeaseState::Asking { .. } => {
                        (LeaseOwner::Nobody, None, None)
                    }
                };
                QueueState {
                    resource: resource.to_string(),
                    held,
                    holder,
                    token,
                    waiting: core.queue().waiting(slot),
                    in_flight: core.queue().taken(slot),
                }
            })
            .collect();
        ClusterState {
            node: self.me.info.id,
            domain: self.links.domain(),
            key_epoch: core.keys().in_use(),
            keys: self.key_state(now),
            store_epoch: self.tails.epoch(),
            store: Consistency::of(core.is_strong(now)),
            store_away: self
                .poll
                .watch
                .absence()
                .map(|absence| StoreAbsence { reason: absence.reason, why: absence.why.clone() }),
            store_absences: self.poll.watch.times().iter().map(|(why, n)| (*why, *n)).collect(),
            refusals: self.links.refusals.counts(),
            nodes,
            failed,
            queues,
            boards: self.tails.boards().map(|(board, last)| (board.clone(), last)).collect(),
            streams: self.streams.table.len(),
        }
    }

    /// Returns the state of the domain's common key.
    fn key_state(&self, now: Mono) -> KeyState {
        let keys = self.core.keys();
        let registrations = self.core.registrations();
        KeyState {
            age_ms: millis(now.since(keys.used_at())),
            installing: keys.installing(),
            lacking: keys.lacking().filter_map(|link| registrations.by_link(link)).collect(),
            refreshes: keys.refreshes(),
            alarms: self.keys.alarms(),
        }
    }
}

fn millis(by: Duration) -> u64 {
    u64::try_from(by.as_millis()).unwrap_or(u64::MAX)
}
