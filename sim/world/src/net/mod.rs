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

mod close;
mod corrupt;
mod deliver;
mod fds;
mod io;
mod link;
mod ports;
mod send;
mod socket;
mod sockets;

use std::{
    collections::{BTreeMap, VecDeque},
    io::{Error, ErrorKind},
    task::Waker,
};

use dst_env::rng::Seed;

pub(crate) use self::corrupt::Change;
pub use self::link::{FaultId, LineId, Link, Links};
use self::{corrupt::Corruption, sockets::Sockets};
use crate::{
    core::Core,
    ids::{HostId, SocketId},
    segment::Body,
};

/// Most connections that wait to be accepted on one port.
const BACKLOG_MAX: usize = 1024;
/// First port that connects and port 0 draw from.
const PORT_FIRST: u16 = 32_768;
/// Time for which a closed end waits for its peer's FIN, as Linux's `tcp_fin_timeout`.
const FIN_WAIT_NS: u64 = 60_000_000_000;

/// Port that a process listens on.
#[derive(Debug, Default)]
struct Port {
    waiting: VecDeque<SocketId>,
    acceptor: Option<Waker>,
}

/// Network side of one machine.
#[derive(Debug)]
struct Machine {
    is_up: bool,
    next_port: u16,
}

/// Bytes that one end wrote, in order, whatever its segments were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Writing host.
    pub from: HostId,
    /// Host of the other end.
    pub to: HostId,
    /// Lower of the two ports, which is the one that was connected to.
    pub port: u16,
    /// Bytes written.
    pub bytes: Vec<u8>,
}

/// Whether the bytes that the first host writes to the second are to be kept.
pub(crate) type Wants = Box<dyn Fn(HostId, HostId) -> bool + Send>;

/// Bytes that are kept.
struct Tap {
    wants: Wants,
    captures: BTreeMap<SocketId, Capture>,
}

/// The network of one run.
pub(crate) struct Net {
    machines: Vec<Machine>,
    links: Links,
    /// Bounds on the sockets of processes.
    bounds: fds::Bounds,
    /// Corruptions that stand.
    pub(crate) corruption: Corruption,
    sockets: Sockets,
    /// Ends by their peers, to find the one that a repeated SYN already made.
    by_peer: BTreeMap<SocketId, SocketId>,
    ports: BTreeMap<(HostId, u16), Port>,
    tap: Option<Tap>,
    /// Scratch for segments to send, kept to save allocations.
    scratch: Vec<Body>,
}

fn reset() -> Error {
    ErrorKind::ConnectionReset.into()
}

impl Net {
    /// Returns a network without machines.
    pub(crate) const fn new(seed: Seed) -> Self {
        Self {
            machines: Vec::new(),
            links: Links::new(seed),
            bounds: BTreeMap::new(),
            corruption: Corruption::new(seed),
            sockets: Sockets::new(),
            by_peer: BTreeMap::new(),
            ports: BTreeMap::new(),
            tap: None,
            scratch: Vec::new(),
        }
    }

    /// Adds a machine, switched off.
    pub(crate) fn add_machine(&mut self, name: &str) {
        self.links.add_host(name);
        self.machines.push(Machine { is_up: false, next_port: PORT_FIRST });
    }

    /// Begins a fault on one direction.
    pub(crate) fn add_fault(&mut self, from: HostId, to: HostId, fault: FaultId, link: Link) {
        self.links.add(from, to, fault, link);
    }

    /// Ends a fault on one direction and returns how many segments it touched.
    pub(crate) fn remove_fault(&mut self, from: HostId, to: HostId, fault: FaultId) -> u64 {
        self.links.remove(from, to, fault)
    }

    /// Returns how many faults stand on one direction.
    pub(crate) fn line_faults(&self, from: HostId, to: HostId) -> usize {
        self.links.standing(from, to)
    }

    /// Begins to change bytes on one direction.
    pub(crate) fn corrupt(
        &mut self,
        from: HostId,
        to: HostId,
        fault: FaultId,
        label: &str,
        ppm: u64,
        change: Change,
    ) {
        let label = format!("{}/{label}", self.links.label(from, to));
        self.corruption.begin(&label, (from, to, fault), ppm, change);
    }

    /// Keeps, from now on, what each end writes if its host and its peer's are wanted.
    pub(crate) fn capture(&mut self, wants: Wants) {
        self.tap = Some(Tap { wants, captures: BTreeMap::new() });
    }

    /// Returns a copy of what was kept so far.
    pub(crate) fn captures(&self) -> Vec<Capture> {
        self.tap.iter().flat_map(|tap| tap.captures.values()).cloned().collect()
    }

    /// Takes out what was kept. Nothing is kept from now on.
    pub(crate) fn end_capture(&mut self) -> Vec<Capture> {
        self.tap.take().into_iter().flat_map(|tap| tap.captures.into_values()).collect()
    }

    /// Lets a machine take segments.
    pub(crate) fn power_on(&mut self, host: HostId) {
        self.machines[host.0].is_up = true;
    }

    /// Returns whether a machine has power.
    pub(crate) fn is_up(&self, host: HostId) -> bool {
        self.machines[host.0].is_up
    }

    /// Writes a line about a socket.
    fn note(&self, core: &mut Core, id: SocketId, kind: &str) {
        let Some(socket) = self.sockets.get(id) else { return };
        let rest = format!(
            r#""peer":"{}","port":{},"peer_port":{}"#,
            core.names[socket.peer_host.0], socket.local_port, socket.peer_port
        );
        core.log.note(core.now, &core.names[socket.host.0], kind, &rest);
    }
}
