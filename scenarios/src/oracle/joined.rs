//! Registrations by the nodes' own lines: which process plays a place, and with which master it is.

use std::{collections::BTreeMap, time::Duration};

use chatchat::model::{event::Event, ids::NodeId};

use super::{EventLine, Evidence};
use crate::target::Place;

/// Last registration that a node told of.
pub(super) struct Joined<'a> {
    /// Worker of the registration.
    pub(super) node: NodeId,
    /// Its master; the place's own identity if a master told.
    pub(super) master: NodeId,
    /// Line that tells.
    pub(super) line: &'a EventLine,
}

impl<'a> Evidence<'a> {
    /// Returns the last registration that each node told of by a time.
    pub(super) fn joined_by(&self, at: Duration) -> BTreeMap<Place, Joined<'a>> {
        let mut joined = BTreeMap::new();
        for line in self.events.iter().take_while(|line| line.at <= at) {
            if let (Event::Join { node, master, .. }, Some(place)) = (&line.event, line.place()) {
                joined.insert(place, Joined { node: *node, master: *master, line });
            }
        }
        joined
    }
}
