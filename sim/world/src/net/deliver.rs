//! Arrival of segments and timers at the sockets of a host.

use std::io;

use super::{
    BACKLOG_MAX, Net,
    socket::{Phase, Socket},
};
use crate::{
    core::Core,
    ids::SocketId,
    segment::{Body, Segment},
};

impl Net {
    /// Handles a segment that has arrived.
    pub(crate) fn deliver(&mut self, core: &mut Core, segment: Segment) {
        if !self.machines[segment.to_host.0].is_up {
            return;
        }
        let id = match segment.to {
            Some(id) => Some(id),
            None => self.by_peer.get(&segment.from).copied(),
        };
        let Some(id) = id.filter(|id| self.sockets.get(*id).is_some()) else {
            match segment.body {
                Body::Syn { port, .. } if self.ports.contains_key(&(segment.to_host, port)) => {
                    self.on_syn(core, &segment);
                }
                _ => self.refuse(core, &segment),
            }
            return;
        };
        let from = segment.from;
        match segment.body {
            Body::Syn { .. } => {
                self.act(core, id, |socket, now, out, _| {
                    if socket.phase == Phase::Answering {
                        socket.open(now, out);
                    }
                });
            }
            Body::SynAck { edge } => {
                let opened = self.act(core, id, |socket, now, out, wakes| {
                    socket.peer = Some(from);
                    let opened = socket.opened(now, edge, wakes);
                    out.push(socket.ack());
                    opened
                });
                if opened == Some(true) {
                    self.note(core, id, "connected");
                }
            }
            Body::Ack { ack, edge } => {
                self.opened(core, id, edge);
                self.act(core, id, |socket, now, out, wakes| {
                    socket.on_ack(now, ack, edge, out, wakes);
                });
                self.sweep(core, id);
            }
            Body::Data { offset, ref bytes, fin } => {
                self.opened(core, id, 0);
                let unwanted = |s: &Socket| {
                    s.phase == Phase::Dead || s.orphan && s.is_fresh(offset, bytes.len())
                };
                if self.sockets.get(id).is_some_and(unwanted) {
                    // Nobody is there to read it.
                    self.refuse(core, &segment);
                    self.kill(core, id, io::ErrorKind::ConnectionReset);
                    return;
                }
                self.act(core, id, |socket, _, out, wakes| {
                    socket.on_data(offset, bytes, fin, out, wakes);
                });
                self.sweep(core, id);
            }
            Body::Rst => {
                let why = match self.sockets.get(id).map(|socket| socket.phase) {
                    Some(Phase::Connecting) => io::ErrorKind::ConnectionRefused,
                    _ => io::ErrorKind::ConnectionReset,
                };
                self.kill(core, id, why);
            }
        }
    }

    /// Answers a connect to a port that is listened on.
    pub(super) fn on_syn(&mut self, core: &mut Core, segment: &Segment) {
        let Body::Syn { port, from_port, edge } = segment.body else { return };
        let here = (segment.to_host, port);
        let full = self.ports.get(&here).is_none_or(|state| state.waiting.len() >= BACKLOG_MAX);
        if full {
            // As Linux does: the SYN is dropped, and comes again.
            return;
        }
        let rng = self.links.socket_rng(segment.to_host, segment.from_host);
        let peer = (segment.from_host, from_port);
        let mut socket = Socket::new(here, peer, Some(segment.from), rng);
        socket.peer_edge(edge);
        let id = self.add(socket);
        self.act(core, id, |socket, now, out, _| socket.open(now, out));
    }

    /// Opens a socket whose peer knows it, so that its listener may accept it.
    pub(super) fn opened(&mut self, core: &mut Core, id: SocketId, edge: u64) {
        if self.sockets.get(id).is_none_or(|socket| socket.phase == Phase::Open) {
            return;
        }
        let opened = self.act(core, id, |socket, now, _, wakes| socket.opened(now, edge, wakes));
        if opened != Some(true) {
            return;
        }
        let here = self.sockets.get(id).map(|socket| (socket.host, socket.local_port));
        match here.and_then(|here| self.ports.get_mut(&here)) {
            Some(port) => {
                port.waiting.push_back(id);
                core.wakes.add(port.acceptor.take());
            }
            None => self.abort(core, id),
        }
    }

    /// Returns for when a socket's timer is to be queued, whose event at `at` is the first in the
    /// queue; `None` when the event no longer matters.
    pub(crate) fn timer(&mut self, core: &mut Core, id: SocketId, at: u64) -> Option<u64> {
        self.settle(core, id);
        let socket = self.sockets.get_mut(id)?;
        if socket.rto_queued != Some(at) {
            // An earlier event took its place.
            return None;
        }
        socket.rto_queued = socket.rto_at.map(|due| due.max(at));
        socket.rto_queued
    }

    /// Handles a socket's timer.
    pub(crate) fn on_timer(&mut self, core: &mut Core, id: SocketId) {
        self.settle(core, id);
        let Some(socket) = self.sockets.get_mut(id) else { return };
        socket.rto_queued = None;
        let is_due = socket.rto_at.is_some_and(|at| at <= core.now);
        if is_due && socket.orphan && socket.is_flushed() {
            // The peer's FIN never came.
            self.forget(id);
            return;
        }
        let was = socket.phase;
        self.act(core, id, |socket, now, out, wakes| {
            if is_due {
                socket.on_timer(now, out, wakes);
            }
        });
        self.bury(core, id, was);
    }
}
