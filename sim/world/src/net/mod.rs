//! The simulated network: hosts, ports and connections that behave and break as TCP's do.
//!
//! ```text
//!  stream -> socket (window, retransmission) -> link (latency, faults) -> socket -> stream
//! ```
//!
//! 1. A host that lost power sends nothing, not even a refusal; its peers learn by silence, or
//!    by an RST once it is back without the connection.
//! 2. A process that ends has its connections closed by its kernel: an RST where bytes were
//!    unread, else what was written, a FIN, and an RST to whatever still comes.
//! 3. Every segment asks its link; nothing is delivered around it.

mod link;
mod segment;
mod socket;
mod stream;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    task::{Context, Poll, Waker},
};

use tokio::io::ReadBuf;

pub use self::link::{FaultId, Link};
use self::{
    link::Links,
    segment::Body,
    socket::{Phase, Socket},
};
pub(crate) use self::{
    segment::Segment,
    stream::{Connecting, SimListener},
};
use crate::{
    queue::Due,
    seed::Seed,
    world::{Core, HostId},
};

/// One end of one connection, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SocketId(u64);

/// Connections that wait to be accepted on one port.
const BACKLOG_MAX: usize = 1024;
const PORT_FIRST: u16 = 32_768;
/// How long a closed end waits for its peer's FIN, as Linux's `tcp_fin_timeout`.
const FIN_WAIT_NS: u64 = 60_000_000_000;

#[derive(Debug, Default)]
struct Port {
    waiting: VecDeque<SocketId>,
    acceptor: Option<Waker>,
}

#[derive(Debug)]
struct Machine {
    is_up: bool,
    next_port: u16,
}

/// What one end wrote, in order, whatever its segments were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Who wrote.
    pub from: HostId,
    /// To whom.
    pub to: HostId,
    /// The port that was connected to, at either end.
    pub port: u16,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The network of one run.
#[derive(Debug)]
pub(crate) struct Net {
    seed: Seed,
    machines: Vec<Machine>,
    links: Links,
    sockets: BTreeMap<SocketId, Socket>,
    /// Finds the end that a repeated SYN already made.
    by_peer: BTreeMap<SocketId, SocketId>,
    ports: BTreeMap<(HostId, u16), Port>,
    next_socket: u64,
    captures: Option<BTreeMap<SocketId, Capture>>,
    /// Scratch for segments to send, kept to save allocations.
    scratch: Vec<Body>,
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Net {
    pub(crate) const fn new(seed: Seed) -> Self {
        Self {
            seed,
            machines: Vec::new(),
            links: Links::new(seed),
            sockets: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            ports: BTreeMap::new(),
            next_socket: 0,
            captures: None,
            scratch: Vec::new(),
        }
    }

    pub(crate) fn add_machine(&mut self) {
        self.machines.push(Machine { is_up: false, next_port: PORT_FIRST });
    }

    pub(crate) fn add_fault(&mut self, from: HostId, to: HostId, fault: FaultId, link: Link) {
        self.links.add(from, to, fault, link);
    }

    pub(crate) fn remove_fault(&mut self, from: HostId, to: HostId, fault: FaultId) -> u64 {
        self.links.remove(from, to, fault)
    }

    pub(crate) fn capture(&mut self) {
        self.captures.get_or_insert_default();
    }

    pub(crate) fn captures(&self) -> Vec<Capture> {
        self.captures.iter().flat_map(BTreeMap::values).cloned().collect()
    }

    pub(crate) fn power_on(&mut self, host: HostId) {
        self.machines[host.0].is_up = true;
    }

    pub(crate) fn is_up(&self, host: HostId) -> bool {
        self.machines[host.0].is_up
    }

    /// The machine loses power: nothing is said to anyone.
    pub(crate) fn power_off(&mut self, host: HostId) {
        self.machines[host.0].is_up = false;
        self.sockets.retain(|_, socket| socket.host != host);
        let sockets = &self.sockets;
        self.by_peer.retain(|_, end| sockets.contains_key(end));
        self.ports.retain(|(at, _), _| *at != host);
    }

    /// The process ends; its kernel closes what it held.
    pub(crate) fn process_ended(&mut self, core: &mut Core, host: HostId) {
        let ports: Vec<u16> =
            self.ports.keys().filter(|(at, _)| *at == host).map(|(_, port)| *port).collect();
        for port in ports {
            self.unlisten(core, host, port);
        }
        let held: Vec<SocketId> = self
            .sockets
            .iter()
            .filter(|(_, socket)| socket.host == host && !socket.orphan)
            .map(|(id, _)| *id)
            .collect();
        for id in held {
            self.close(core, id);
        }
    }

    /// Resets every connection between two hosts, at both ends.
    pub(crate) fn reset_between(&mut self, core: &mut Core, one: HostId, other: HostId) -> usize {
        let between: Vec<SocketId> = self
            .sockets
            .iter()
            .filter(|(_, s)| {
                s.phase == Phase::Open
                    && ((s.host, s.peer_host) == (one, other)
                        || (s.host, s.peer_host) == (other, one))
            })
            .map(|(id, _)| *id)
            .collect();
        for id in &between {
            self.kill(core, *id, io::ErrorKind::ConnectionReset);
        }
        between.len()
    }

    fn free_port(&mut self, host: HostId) -> u16 {
        loop {
            let machine = &mut self.machines[host.0];
            let port = machine.next_port;
            machine.next_port = port.checked_add(1).unwrap_or(PORT_FIRST);
            if !self.ports.contains_key(&(host, port)) {
                return port;
            }
        }
    }

    pub(crate) fn listen(&mut self, host: HostId, port: u16) -> io::Result<u16> {
        let port = if port == 0 { self.free_port(host) } else { port };
        if self.ports.contains_key(&(host, port)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.ports.insert((host, port), Port::default());
        Ok(port)
    }

    /// The listener is gone: who waits in its backlog is reset.
    pub(crate) fn unlisten(&mut self, core: &mut Core, host: HostId, port: u16) {
        let Some(port_state) = self.ports.remove(&(host, port)) else { return };
        for id in port_state.waiting {
            self.abort(core, id);
        }
        let answering: Vec<SocketId> = self
            .sockets
            .iter()
            .filter(|(_, s)| s.host == host && s.local_port == port && s.phase == Phase::Answering)
            .map(|(id, _)| *id)
            .collect();
        for id in answering {
            self.abort(core, id);
        }
    }

    pub(crate) fn poll_accept(
        &mut self,
        host: HostId,
        port: u16,
        cx: &Context<'_>,
    ) -> Poll<io::Result<(SocketId, HostId, u16)>> {
        let Some(state) = self.ports.get_mut(&(host, port)) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        while let Some(id) = state.waiting.pop_front() {
            if let Some(socket) = self.sockets.get(&id) {
                return Poll::Ready(Ok((id, socket.peer_host, socket.peer_port)));
            }
        }
        state.acceptor = Some(cx.waker().clone());
        Poll::Pending
    }

    fn add(&mut self, socket: Socket) -> SocketId {
        let id = SocketId(self.next_socket);
        self.next_socket += 1;
        if let Some(peer) = socket.peer {
            self.by_peer.insert(peer, id);
        }
        self.sockets.insert(id, socket);
        id
    }

    fn draws(&self) -> crate::seed::Rng {
        self.seed.stream(&format!("network/socket/{}", self.next_socket))
    }

    /// Starts to connect.
    pub(crate) fn connect(
        &mut self,
        core: &mut Core,
        from: HostId,
        to: HostId,
        port: u16,
    ) -> SocketId {
        let from_port = self.free_port(from);
        let id = self.add(Socket::new((from, from_port), (to, port), None, self.draws()));
        self.act(core, id, |socket, now, out, _| socket.open(now, out));
        id
    }

    pub(crate) fn poll_connected(
        &mut self,
        id: SocketId,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(socket) = self.sockets.get_mut(&id) else { return Poll::Ready(Err(reset())) };
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

    /// Runs one step of a socket, sends what it wants sent and keeps its timer.
    fn act<T>(
        &mut self,
        core: &mut Core,
        id: SocketId,
        step: impl FnOnce(&mut Socket, u64, &mut Vec<Body>, &mut Vec<Waker>) -> T,
    ) -> Option<T> {
        let socket = self.sockets.get_mut(&id)?;
        let mut out = std::mem::take(&mut self.scratch);
        let done = step(socket, core.now, &mut out, &mut core.wakes);
        if let Some(at) = socket.rto_at
            && !socket.rto_queued
        {
            socket.rto_queued = true;
            core.queue.push(at, Due::Retransmit(id));
        }
        for body in out.drain(..) {
            self.send(core, id, body);
        }
        self.scratch = out;
        Some(done)
    }

    fn send(&mut self, core: &mut Core, from: SocketId, body: Body) {
        let Some(socket) = self.sockets.get_mut(&from) else { return };
        let segment = Segment {
            from,
            from_host: socket.host,
            to: socket.peer,
            to_host: socket.peer_host,
            body,
        };
        if let Some(at) = Self::carry(&mut self.links, core, &segment) {
            let at = at.max(socket.arrives_after + 1);
            socket.arrives_after = at;
            core.queue.push(at, Due::Segment(Box::new(segment)));
        }
    }

    /// When a segment arrives, `None` when it is lost.
    fn carry(links: &mut Links, core: &mut Core, segment: &Segment) -> Option<u64> {
        let bytes = segment.body.bytes();
        let (from, to) = (segment.from_host, segment.to_host);
        let is_syn = matches!(segment.body, Body::Syn { .. });
        let under_way = links.carry(core.now, from, to, bytes.len(), is_syn);
        let marks = [
            (from.0 as u64) << 32 | to.0 as u64,
            segment.from.0,
            segment.body.mark(),
            under_way.unwrap_or(u64::MAX),
        ];
        let name = &core.names[from.0];
        core.log.segment(core.now, name, bytes, marks, || {
            let under_way = under_way.map_or_else(|| "null".to_owned(), |ns| ns.to_string());
            format!(
                r#""to":"{}","segment":"{}","from_socket":{},"len":{},"under_way":{under_way}"#,
                core.names[to.0],
                segment.body.name(),
                segment.from.0,
                bytes.len(),
            )
        });
        under_way.map(|ns| core.now.saturating_add(ns))
    }

    /// Tells a sender that there is nothing here.
    fn refuse(&mut self, core: &mut Core, segment: &Segment) {
        if matches!(segment.body, Body::Rst) {
            return;
        }
        let answer = Segment {
            // Nobody answers an RST, so that it needs no sender of its own.
            from: segment.to.unwrap_or(segment.from),
            from_host: segment.to_host,
            to: Some(segment.from),
            to_host: segment.from_host,
            body: Body::Rst,
        };
        if let Some(at) = Self::carry(&mut self.links, core, &answer) {
            core.queue.push(at, Due::Segment(Box::new(answer)));
        }
    }

    /// A segment has arrived.
    pub(crate) fn deliver(&mut self, core: &mut Core, segment: Segment) {
        if !self.machines[segment.to_host.0].is_up {
            return;
        }
        let id = match segment.to {
            Some(id) => Some(id),
            None => self.by_peer.get(&segment.from).copied(),
        };
        let Some(id) = id.filter(|id| self.sockets.contains_key(id)) else {
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
                if self.sockets.get(&id).is_some_and(unwanted) {
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
                let why = match self.sockets.get(&id).map(|socket| socket.phase) {
                    Some(Phase::Connecting) => io::ErrorKind::ConnectionRefused,
                    _ => io::ErrorKind::ConnectionReset,
                };
                self.kill(core, id, why);
            }
        }
    }

    fn on_syn(&mut self, core: &mut Core, segment: &Segment) {
        let Body::Syn { port, from_port, edge } = segment.body else { return };
        let here = (segment.to_host, port);
        let full = self.ports.get(&here).is_none_or(|state| state.waiting.len() >= BACKLOG_MAX);
        if full {
            // As Linux does: the SYN is dropped, and comes again.
            return;
        }
        let mut socket =
            Socket::new(here, (segment.from_host, from_port), Some(segment.from), self.draws());
        socket.peer_edge(edge);
        let id = self.add(socket);
        self.act(core, id, |socket, now, out, _| socket.open(now, out));
    }

    /// The other end knows this one: who listens may accept it.
    fn opened(&mut self, core: &mut Core, id: SocketId, edge: u64) {
        let opened = self.act(core, id, |socket, now, _, wakes| socket.opened(now, edge, wakes));
        if opened != Some(true) {
            return;
        }
        let here = self.sockets.get(&id).map(|socket| (socket.host, socket.local_port));
        match here.and_then(|here| self.ports.get_mut(&here)) {
            Some(port) => {
                port.waiting.push_back(id);
                core.wakes.extend(port.acceptor.take());
            }
            None => self.abort(core, id),
        }
    }

    /// The timer of a socket came.
    pub(crate) fn on_timer(&mut self, core: &mut Core, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        socket.rto_queued = false;
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

    /// After a step that may have ended a connection which was in phase `was`.
    fn bury(&mut self, core: &mut Core, id: SocketId, was: Phase) {
        let is_dead = self.sockets.get(&id).is_some_and(|socket| socket.phase == Phase::Dead);
        if is_dead && was != Phase::Dead {
            let error = self.sockets.get(&id).and_then(|socket| socket.error);
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

    /// Forgets an end that nobody holds once it has nothing left to do.
    fn sweep(&mut self, core: &mut Core, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(&id).filter(|socket| socket.orphan) else { return };
        if socket.phase == Phase::Dead || socket.is_flushed() && socket.is_at_end() {
            self.forget(id);
        } else if socket.is_flushed() && socket.rto_at.is_none() {
            socket.rto_at = Some(core.now + FIN_WAIT_NS);
            self.act(core, id, |_, _, _, _| ());
        }
    }

    fn forget(&mut self, id: SocketId) {
        if let Some(peer) = self.sockets.remove(&id).and_then(|socket| socket.peer) {
            self.by_peer.remove(&peer);
        }
    }

    fn kill(&mut self, core: &mut Core, id: SocketId, why: io::ErrorKind) {
        let Some(was) = self.sockets.get(&id).map(|socket| socket.phase) else { return };
        self.act(core, id, |socket, _, _, wakes| socket.die(why, wakes));
        self.bury(core, id, was);
    }

    fn note(&self, core: &mut Core, id: SocketId, kind: &str) {
        let Some(socket) = self.sockets.get(&id) else { return };
        let rest = format!(
            r#""peer":"{}","port":{},"peer_port":{}"#,
            core.names[socket.peer_host.0], socket.local_port, socket.peer_port
        );
        core.log.note(core.now, &core.names[socket.host.0], kind, &rest);
    }

    /// Ends a connection at once: an RST goes out, what was written and not sent is lost.
    fn abort(&mut self, core: &mut Core, id: SocketId) {
        self.send(core, id, Body::Rst);
        self.forget(id);
    }

    /// Its process let go of a socket. Nothing when it is not held.
    pub(crate) fn close(&mut self, core: &mut Core, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
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

    fn held(&mut self, id: SocketId) -> io::Result<&mut Socket> {
        self.sockets
            .get_mut(&id)
            .filter(|socket| !socket.orphan)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    pub(crate) fn poll_read(
        &mut self,
        core: &mut Core,
        id: SocketId,
        cx: &Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.held(id)?;
        let read = self.act(core, id, |socket, _, out, _| {
            let read = socket.read(into.remaining(), |bytes| into.put_slice(bytes), out);
            match read {
                Some(_) => Poll::Ready(Ok(())),
                None if socket.phase == Phase::Dead => {
                    // As the kernel does: the error once, then the end.
                    Poll::Ready(socket.error.take().map_or(Ok(()), |why| Err(why.into())))
                }
                None => {
                    socket.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        read.unwrap_or_else(|| Poll::Ready(Err(reset())))
    }

    pub(crate) fn poll_write(
        &mut self,
        core: &mut Core,
        id: SocketId,
        cx: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = self.held(id)?;
        if socket.phase == Phase::Dead || socket.has_shut_down() {
            let why = socket.error.take().unwrap_or(io::ErrorKind::BrokenPipe);
            return Poll::Ready(Err(why.into()));
        }
        let written = self.act(core, id, |socket, now, out, _| {
            let written = socket.write(now, bytes, out);
            if written.is_none() {
                socket.writer = Some(cx.waker().clone());
            }
            written
        });
        let Some(Some(len)) = written else { return Poll::Pending };
        if let (Some(captures), Some(socket)) = (&mut self.captures, self.sockets.get(&id)) {
            let port = socket.local_port.min(socket.peer_port);
            let (from, to) = (socket.host, socket.peer_host);
            captures
                .entry(id)
                .or_insert_with(|| Capture { from, to, port, bytes: Vec::new() })
                .bytes
                .extend_from_slice(&bytes[..len]);
        }
        Poll::Ready(Ok(len))
    }

    pub(crate) fn shut_down(&mut self, core: &mut Core, id: SocketId) -> io::Result<()> {
        self.held(id)?;
        self.act(core, id, |socket, now, out, _| socket.shut_down(now, out));
        Ok(())
    }
}
