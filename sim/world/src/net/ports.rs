//! Ports: connects, listeners and their backlogs.

use std::{
    io,
    task::{Context, Poll},
};

use super::{
    Net, PORT_FIRST, Port, reset,
    socket::{Phase, Socket},
};
use crate::{
    core::Core,
    ids::{HostId, SocketId},
};

impl Net {
    /// Returns a port that nobody listens on.
    pub(super) fn free_port(&mut self, host: HostId) -> u16 {
        loop {
            let machine = &mut self.machines[host.0];
            let port = machine.next_port;
            machine.next_port = port.checked_add(1).unwrap_or(PORT_FIRST);
            if !self.ports.contains_key(&(host, port)) {
                return port;
            }
        }
    }

    /// Begins to listen on a port, 0 for any, and returns it.
    ///
    /// # Errors
    /// When the port is taken.
    pub(crate) fn listen(&mut self, host: HostId, port: u16) -> io::Result<u16> {
        let port = if port == 0 { self.free_port(host) } else { port };
        if self.ports.contains_key(&(host, port)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.ports.insert((host, port), Port::default());
        Ok(port)
    }

    /// Frees a port; connections that wait to be accepted are reset.
    pub(crate) fn unlisten(&mut self, core: &mut Core, host: HostId, port: u16) {
        let Some(port_state) = self.ports.remove(&(host, port)) else { return };
        for id in port_state.waiting {
            self.abort(core, id);
        }
        let answering =
            |s: &Socket| s.host == host && s.local_port == port && s.phase == Phase::Answering;
        for id in self.sockets.ids(answering) {
            self.abort(core, id);
        }
    }

    /// Returns the next connection of a port with its peer's host and port, or waits.
    pub(crate) fn poll_accept(
        &mut self,
        host: HostId,
        port: u16,
        cx: &Context<'_>,
    ) -> Poll<io::Result<(SocketId, HostId, u16)>> {
        if self.ports.get(&(host, port)).is_some_and(|state| !state.waiting.is_empty()) {
            self.check_fds(host)?;
        }
        let Some(state) = self.ports.get_mut(&(host, port)) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        while let Some(id) = state.waiting.pop_front() {
            if let Some(socket) = self.sockets.get(id) {
                return Poll::Ready(Ok((id, socket.peer_host, socket.peer_port)));
            }
        }
        state.acceptor = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Keeps a new socket and returns its id.
    pub(super) fn add(&mut self, mut socket: Socket) -> SocketId {
        socket.line = self.links.line(socket.host, socket.peer_host);
        let peer = socket.peer;
        let id = self.sockets.add(socket);
        if let Some(peer) = peer {
            self.by_peer.insert(peer, id);
        }
        id
    }

    /// Begins to connect and returns the near end.
    pub(crate) fn connect(
        &mut self,
        core: &mut Core,
        from: HostId,
        to: HostId,
        port: u16,
    ) -> SocketId {
        let from_port = self.free_port(from);
        let rng = self.links.socket_rng(from, to);
        let id = self.add(Socket::new((from, from_port), (to, port), None, rng));
        self.act(core, id, |socket, now, out, _| socket.open(now, out));
        id
    }

    /// Ready when a connect has succeeded or failed.
    pub(crate) fn poll_connected(
        &mut self,
        id: SocketId,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(socket) = self.sockets.get_mut(id) else { return Poll::Ready(Err(reset())) };
        match socket.phase {
            Phase::Open => Poll::Ready(Ok(())),
            Phase::Connecting | Phase::Answering => {
                socket.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            Phase::Dead => {
                Poll::Ready(Err(socket.error.take().map_or_else(reset, io::Error::from)))
            }
        }
    }
}
