//! Ends of connections: closes, resets, power losses and ended processes.

use std::io;

use super::{FIN_WAIT_NS, Net, socket::Phase};
use crate::{
    core::Core,
    ids::{HostId, SocketId},
    segment::Body,
};

impl Net {
    /// Drops all sockets of a machine that loses power, without a word to their peers.
    pub(crate) fn power_off(&mut self, host: HostId) {
        self.machines[host.0].is_up = false;
        self.sockets.remove_all(|socket| socket.host == host);
        let sockets = &self.sockets;
        self.by_peer.retain(|_, end| sockets.get(*end).is_some());
        self.ports.retain(|(at, _), _| *at != host);
    }

    /// Closes all that an ended process held, as its kernel does.
    pub(crate) fn process_ended(&mut self, core: &mut Core, host: HostId) {
        let ports: Vec<u16> =
            self.ports.keys().filter(|(at, _)| *at == host).map(|(_, port)| *port).collect();
        for port in ports {
            self.unlisten(core, host, port);
        }
        for id in self.sockets.ids(|socket| socket.host == host && !socket.orphan) {
            self.close(core, id);
        }
    }

    /// Resets every connection between two hosts, at both ends.
    pub(crate) fn reset_between(&mut self, core: &mut Core, one: HostId, other: HostId) -> usize {
        let ends = [(one, other), (other, one)];
        let between =
            self.sockets.ids(|s| s.phase == Phase::Open && ends.contains(&(s.host, s.peer_host)));
        for id in &between {
            self.kill(core, *id, io::ErrorKind::ConnectionReset);
        }
        between.len()
    }

    /// Lets the ends at `to` of the connections between two hosts vanish, without a word to `from`:
    /// it learns that by an RST, once it sends.
    pub(crate) fn half_open(&mut self, core: &mut Core, from: HostId, to: HostId) -> usize {
        let there =
            self.sockets.ids(|s| s.phase == Phase::Open && (s.host, s.peer_host) == (to, from));
        for id in &there {
            self.kill(core, *id, io::ErrorKind::ConnectionReset);
        }
        there.len()
    }

    /// Ends a connection at once: an RST goes out, unsent bytes are lost.
    pub(super) fn abort(&mut self, core: &mut Core, id: SocketId) {
        self.send(core, id, Body::Rst);
        self.forget(id);
    }

    /// Closes a socket that its process dropped. Does nothing when no process holds it.
    pub(crate) fn close(&mut self, core: &mut Core, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        if socket.orphan {
            return;
        }
        match socket.phase {
            Phase::Connecting | Phase::Dead => self.forget(id),
            Phase::Answering => self.abort(core, id),
            Phase::Open if socket.has_unread() => self.abort(core, id),
            Phase::Open => {
                socket.orphan = true;
                self.act(core, id, |socket, now, out, _| socket.shut_down(now, out));
                self.sweep(core, id);
            }
        }
    }

    /// Cleans up after a step that may have ended a connection which was in phase `was`.
    pub(super) fn bury(&mut self, core: &mut Core, id: SocketId, was: Phase) {
        let is_dead = self.sockets.get(id).is_some_and(|socket| socket.phase == Phase::Dead);
        if is_dead && was != Phase::Dead {
            let error = self.sockets.get(id).and_then(|socket| socket.error);
            let kind = match error {
                Some(io::ErrorKind::ConnectionRefused) => "refused",
                Some(io::ErrorKind::TimedOut) => "timed_out",
                _ => "reset",
            };
            self.note(core, id, kind);
        }
        if is_dead && was == Phase::Answering {
            // It was never accepted, so nobody will let go of it.
            self.forget(id);
        } else {
            self.sweep(core, id);
        }
    }

    /// Forgets an end that no process holds once it has nothing left to do.
    pub(super) fn sweep(&mut self, core: &mut Core, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id).filter(|socket| socket.orphan) else { return };
        if socket.phase == Phase::Dead || socket.is_flushed() && socket.is_at_end() {
            self.forget(id);
        } else if socket.is_flushed() && socket.rto_at.is_none() {
            socket.rto_at = Some(core.now + FIN_WAIT_NS);
            self.act(core, id, |_, _, _, _| ());
        }
    }

    /// Removes a socket.
    pub(super) fn forget(&mut self, id: SocketId) {
        if let Some(peer) = self.sockets.remove(id).and_then(|socket| socket.peer) {
            self.by_peer.remove(&peer);
        }
    }

    /// Ends a connection for this reason; its holder can still read what came before.
    pub(super) fn kill(&mut self, core: &mut Core, id: SocketId, why: io::ErrorKind) {
        let Some(was) = self.sockets.get(id).map(|socket| socket.phase) else { return };
        self.act(core, id, |socket, _, _, wakes| socket.die(why, wakes));
        self.bury(core, id, was);
    }
}
