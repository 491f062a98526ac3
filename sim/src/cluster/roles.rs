//! Roles at this moment: who coordinates a resource, who writes it, whose worker a worker is.

use std::sync::PoisonError;

use chatchat::{
    model::{
        event::Event,
        ids::{NodeId, Resource},
    },
    store::{Op, OpReply},
};
use chatchat_scenarios::target::{Place, ResourceRef, Target};

use super::Cluster;
use crate::events::read_event;

impl Cluster {
    /// Returns the places that a target stands for now; none when nobody plays the role.
    #[must_use]
    pub fn places(&self, target: &Target) -> Vec<Place> {
        if let Some(places) = target.places(&self.shape, self.people) {
            return places;
        }
        let node = match target {
            Target::Coordinator(resource) => self.coordinator(&self.resource(resource)),
            Target::Assigned(resource) => self.assigned(&self.resource(resource)),
            Target::MasterOf(nth) => self.master_of(*nth),
            _ => None,
        };
        node.and_then(|node| self.nodes().get(&node).copied()).into_iter().collect()
    }

    fn resource(&self, named: &ResourceRef) -> Resource {
        match named {
            ResourceRef::Board(name) => Resource::Board(name.clone()),
            ResourceRef::Sessions(nth) => Resource::Sessions(self.keys.identity(*nth).0),
        }
    }

    /// Returns the master that was granted a resource last.
    fn coordinator(&self, resource: &Resource) -> Option<NodeId> {
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let op = Op::Writes { after: grants.read_to, limit: 512 };
            let now_ms = self.world.wall(self.host(Place::Store)).ms;
            let Ok(OpReply::Writes(rows)) = self.store.apply(&op, now_ms) else { return None };
            let Some(last) = rows.last() else { break };
            grants.read_to = last.number;
            for row in rows.into_iter().filter(|row| row.kind == "grant") {
                grants.holders.insert(row.resource, row.node);
            }
        }
        grants.holders.get(resource).copied()
    }

    /// Returns the worker that got a batch of a resource last.
    fn assigned(&self, wanted: &Resource) -> Option<NodeId> {
        self.world.latest(|record| match read_event(record).ok()? {
            Event::Assign { worker, resource, .. } if resource == *wanted => Some(worker),
            _ => None,
        })
    }

    /// Returns the master that took a worker in last.
    fn master_of(&self, nth: usize) -> Option<NodeId> {
        let (of, _) = self.keys.identity(self.shape.masters + nth);
        self.world.latest(|record| match read_event(record).ok()? {
            Event::Join { node, master, .. } if node == of => Some(master),
            _ => None,
        })
    }
}
