//! Table of all sockets of a run.

use super::socket::Socket;
use crate::ids::SocketId;

/// Sockets by their ids, which are given one after another and never again.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// Those that were forgotten leave an empty place.
    places: Vec<Option<Box<Socket>>>,
}

fn index(id: SocketId) -> usize {
    usize::try_from(id.0).unwrap_or(usize::MAX)
}

impl Sockets {
    /// Returns an empty table.
    pub(super) const fn new() -> Self {
        Self { places: Vec::new() }
    }

    /// Returns the id of the next socket.
    const fn next(&self) -> SocketId {
        SocketId(self.places.len() as u64)
    }

    /// Keeps a socket and returns its id.
    pub(super) fn add(&mut self, socket: Socket) -> SocketId {
        let id = self.next();
        self.places.push(Some(Box::new(socket)));
        id
    }

    /// Returns a socket.
    pub(super) fn get(&self, id: SocketId) -> Option<&Socket> {
        self.places.get(index(id))?.as_deref()
    }

    /// Returns a socket.
    pub(super) fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.places.get_mut(index(id))?.as_deref_mut()
    }

    /// Removes a socket.
    pub(super) fn remove(&mut self, id: SocketId) -> Option<Box<Socket>> {
        self.places.get_mut(index(id))?.take()
    }

    /// Removes all sockets that `select` selects.
    pub(super) fn remove_all(&mut self, select: impl Fn(&Socket) -> bool) {
        for place in &mut self.places {
            place.take_if(|socket| select(socket));
        }
    }

    /// Returns the ids of all sockets that `select` selects, in their order.
    pub(super) fn ids(&self, select: impl Fn(&Socket) -> bool) -> Vec<SocketId> {
        let all = (0..).map(SocketId).zip(&self.places);
        let selected = all.filter(|(_, place)| place.as_deref().is_some_and(&select));
        selected.map(|(id, _)| id).collect()
    }
}
