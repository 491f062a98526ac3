//! One end of a connection: a small TCP.
//!
//! Everything that decides is synchronous and here; segments to send are pushed on an out-parameter. Byte
//! offsets count from the start of each direction; a FIN takes one offset after the last byte.
//!
//! 1. Sent and not acknowledged bytes are kept, and sent again until acknowledged or given up.
//! 2. No byte is sent beyond the edge that the peer announced: a reader that does not read
//!    stops its writer.
//! 3. Acknowledgements are handled when they arrive only if somebody waits for one; else with the
//!    next step of this end, as of the time at which they came.
//! 4. Bytes come out in order, each once, and end with an EOF only after a FIN.

use std::{collections::VecDeque, io, task::Waker};

use dst_env::rng::Rng;

use super::link::LineId;
use crate::{
    ids::{HostId, SocketId},
    segment::Body,
    wakes::Wakes,
};

/// Most bytes in one segment.
const SEGMENT_MAX: usize = 8 * 1024;
/// Sizes of buffers, bytes, of which each end draws: what the kernel takes from a writer before
/// the peer has acknowledged any, and what it keeps for a reader.
const BUFFERS: [usize; 12] = {
    const K: usize = 1024;
    [
        4 * K,
        16 * K,
        64 * K,
        64 * K,
        64 * K,
        64 * K,
        64 * K,
        128 * K,
        256 * K,
        512 * K,
        K * K,
        4 * K * K,
    ]
};
const RTO_FIRST_NS: u64 = 200_000_000;
const SYN_RTO_FIRST_NS: u64 = 1_000_000_000;
const RTO_MAX_NS: u64 = 120_000_000_000;
/// As Linux gives up: `tcp_syn_retries` 6, `tcp_retries2` 15.
const SYN_GIVE_UP_NS: u64 = 127_000_000_000;
const GIVE_UP_NS: u64 = 924_000_000_000;

/// Phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A SYN is under way.
    Connecting,
    /// A SYN came, the answer is under way.
    Answering,
    /// Both ends know each other.
    Open,
    /// Reset, refused or given up.
    Dead,
}

/// Acknowledgement on its way to an end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingAck {
    /// When it arrives, virtual ns.
    pub(crate) at: u64,
    pub(crate) ack: u64,
    pub(crate) edge: u64,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) host: HostId,
    pub(crate) peer_host: HostId,
    /// The other end, once known.
    pub(crate) peer: Option<SocketId>,
    pub(crate) local_port: u16,
    pub(crate) peer_port: u16,
    pub(crate) phase: Phase,
    /// Line that its segments take.
    pub(super) line: LineId,
    /// No process holds it any more; the kernel finishes what was written.
    pub(crate) orphan: bool,
    /// Reason of its death, until its holder has been told.
    pub(crate) error: Option<io::ErrorKind>,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    rng: Rng,
    /// Segments of one direction of one connection never overtake each other.
    pub(crate) arrives_after: u64,
    /// Bytes from `unacked` to `written`.
    out: VecDeque<u8>,
    out_max: usize,
    written: u64,
    unacked: u64,
    next_out: u64,
    edge_out: u64,
    fin: bool,
    got: VecDeque<u8>,
    next_in: u64,
    eof: bool,
    window: usize,
    edge_in: u64,
    /// When the retransmission timer is due, and for when an event is in the queue that looks.
    pub(crate) rto_at: Option<u64>,
    pub(crate) rto_queued: Option<u64>,
    rto_ns: u64,
    stalled_since: Option<u64>,
    /// Acknowledgements that were sent to this end and not handled yet.
    acks: VecDeque<PendingAck>,
    /// For when an event is in the queue that handles them.
    pub(crate) acks_queued: Option<u64>,
}

impl Socket {
    /// Returns an end that is about to send its first segment.
    pub(crate) fn new(
        (host, local_port): (HostId, u16),
        (peer_host, peer_port): (HostId, u16),
        peer: Option<SocketId>,
        mut rng: Rng,
    ) -> Self {
        let (window, out_max) = (*rng.pick(&BUFFERS), *rng.pick(&BUFFERS));
        let phase = if peer.is_some() { Phase::Answering } else { Phase::Connecting };
        Self {
            host,
            peer_host,
            peer,
            local_port,
            peer_port,
            phase,
            line: LineId::default(),
            orphan: false,
            error: None,
            reader: None,
            writer: None,
            rng,
            arrives_after: 0,
            out: VecDeque::new(),
            out_max,
            written: 0,
            unacked: 0,
            next_out: 0,
            edge_out: 0,
            fin: false,
            got: VecDeque::new(),
            next_in: 0,
            eof: false,
            window,
            edge_in: window as u64,
            rto_at: None,
            rto_queued: None,
            rto_ns: SYN_RTO_FIRST_NS,
            stalled_since: None,
            acks: VecDeque::new(),
            acks_queued: None,
        }
    }

    /// Takes an acknowledgement that is on its way to this end.
    pub(crate) fn expect_ack(&mut self, ack: PendingAck) {
        self.acks.push_back(ack);
    }

    /// Returns when the next acknowledgement arrives, if it has to be handled then: it may let
    /// bytes out, wake a writer or end the connection.
    pub(crate) fn next_ack(&self) -> Option<u64> {
        let waits = self.is_blocked() || self.writer.is_some() || self.fin || self.orphan;
        self.acks.front().filter(|_| waits).map(|ack| ack.at)
    }

    /// Handles the acknowledgements that have arrived.
    pub(crate) fn settle(&mut self, now: u64, out: &mut Vec<Body>, wakes: &mut Wakes) {
        while let Some(PendingAck { at, ack, edge }) = self.acks.pop_front_if(|a| a.at <= now) {
            self.on_ack(at, ack, edge, out, wakes);
        }
    }

    /// Sends the first segment of this end.
    pub(crate) fn open(&mut self, now: u64, out: &mut Vec<Body>) {
        out.push(match self.phase {
            Phase::Connecting => {
                Body::Syn { port: self.peer_port, from_port: self.local_port, edge: self.edge_in }
            }
            _ => Body::SynAck { edge: self.edge_in },
        });
        self.arm(now);
    }

    /// Sets the edge that the peer's SYN announced.
    pub(crate) const fn peer_edge(&mut self, edge: u64) {
        self.edge_out = edge;
    }

    /// Opens the connection: the peer knows this end. True the first time.
    pub(crate) fn opened(&mut self, now: u64, edge: u64, wakes: &mut Wakes) -> bool {
        if !matches!(self.phase, Phase::Connecting | Phase::Answering) {
            return false;
        }
        self.phase = Phase::Open;
        self.edge_out = self.edge_out.max(edge);
        self.rto_ns = RTO_FIRST_NS;
        self.stalled_since = None;
        self.rto_at = None;
        self.arm(now);
        self.wake_both(wakes);
        true
    }

    fn wake_both(&mut self, wakes: &mut Wakes) {
        wakes.add(self.reader.take());
        wakes.add(self.writer.take());
    }

    /// Returns whether everything written, FIN included, is acknowledged.
    pub(crate) const fn is_flushed(&self) -> bool {
        self.fin && self.unacked > self.written
    }

    const fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Answering) || self.next_out > self.unacked
    }

    /// Returns whether written bytes wait for window.
    const fn is_blocked(&self) -> bool {
        self.next_out < self.written
    }

    fn arm(&mut self, now: u64) {
        if self.phase == Phase::Dead || !(self.is_waiting() || self.is_blocked()) {
            self.rto_at = None;
            self.stalled_since = None;
        } else {
            let due = now.saturating_add(self.rto_ns);
            self.rto_at.get_or_insert(due);
            self.stalled_since.get_or_insert(now);
        }
    }

    /// Takes bytes from a writer and returns how many; `None` when the buffer is full.
    pub(crate) fn write(&mut self, now: u64, bytes: &[u8], out: &mut Vec<Body>) -> Option<usize> {
        let mut len = bytes.len().min(self.out_max - self.out.len());
        if len == 0 {
            return (bytes.is_empty()).then_some(0);
        }
        if len > 1 && self.rng.odds(1, 8) {
            len = 1 + self.rng.index(len);
        }
        self.out.extend(&bytes[..len]);
        self.written += len as u64;
        self.transmit(now, out);
        Some(len)
    }

    /// Returns whether the writing half has ended.
    pub(crate) const fn has_shut_down(&self) -> bool {
        self.fin
    }

    /// Ends the writing half: a FIN follows the last byte.
    pub(crate) fn shut_down(&mut self, now: u64, out: &mut Vec<Body>) {
        if !self.fin {
            self.fin = true;
            self.transmit(now, out);
        }
    }

    /// Sends as much as window and buffer allow.
    fn transmit(&mut self, now: u64, out: &mut Vec<Body>) {
        if self.phase != Phase::Open {
            return;
        }
        loop {
            let left = self.written.saturating_sub(self.next_out);
            let room = self.edge_out.saturating_sub(self.next_out);
            let mut len = left.min(room).min(SEGMENT_MAX as u64);
            if len > 1 && self.rng.odds(1, 8) {
                len = self.rng.between(1, len);
            }
            let fin = self.fin && self.next_out + len == self.written;
            if len == 0 && !fin {
                break;
            }
            let bytes = self.sent(self.next_out, len);
            out.push(Body::Data { offset: self.next_out, bytes, fin });
            self.next_out += len + u64::from(fin);
            if fin {
                break;
            }
        }
        self.arm(now);
    }

    fn sent(&self, from: u64, len: u64) -> Vec<u8> {
        let skip = usize::try_from(from - self.unacked).expect("within the buffer");
        let len = usize::try_from(len).expect("within the buffer");
        let (front, back) = self.out.as_slices();
        let mut bytes = Vec::with_capacity(len);
        let of_front = front.len().saturating_sub(skip).min(len);
        if of_front > 0 {
            bytes.extend_from_slice(&front[skip..skip + of_front]);
        }
        let skip_back = skip.saturating_sub(front.len());
        bytes.extend_from_slice(&back[skip_back..skip_back + len - of_front]);
        bytes
    }

    /// Handles the retransmission timer.
    pub(crate) fn on_timer(&mut self, now: u64, out: &mut Vec<Body>, wakes: &mut Wakes) {
        let Some(stalled_since) = self.stalled_since else { return };
        let give_up = if self.phase == Phase::Open { GIVE_UP_NS } else { SYN_GIVE_UP_NS };
        if now.saturating_sub(stalled_since) >= give_up {
            self.die(io::ErrorKind::TimedOut, wakes);
            return;
        }
        self.rto_ns = (self.rto_ns * 2).min(RTO_MAX_NS);
        self.rto_at = Some(now.saturating_add(self.rto_ns));
        match self.phase {
            Phase::Connecting | Phase::Answering => self.open(now, out),
            Phase::Open if self.is_waiting() => {
                self.next_out = self.unacked;
                self.transmit(now, out);
            }
            // The window may have opened and its update been lost.
            Phase::Open => {
                out.push(Body::Data { offset: self.next_out, bytes: Vec::new(), fin: false });
            }
            Phase::Dead => {}
        }
    }

    /// Handles an acknowledgement: the peer has everything below `ack` and takes up to `edge`.
    pub(crate) fn on_ack(
        &mut self,
        now: u64,
        ack: u64,
        edge: u64,
        out: &mut Vec<Body>,
        wakes: &mut Wakes,
    ) {
        // After going back to send again, an acknowledgement of the first sending may come.
        let sent_all = self.written + u64::from(self.fin);
        if self.next_out == self.unacked {
            // A closed window is no silence.
            self.stalled_since = None;
        }
        if ack > self.unacked && ack <= sent_all {
            let bytes = usize::try_from(ack - self.unacked).expect("within the buffer");
            self.out.drain(..bytes.min(self.out.len()));
            self.unacked = ack;
            self.next_out = self.next_out.max(ack);
            self.rto_ns = RTO_FIRST_NS;
            self.rto_at = None;
            self.stalled_since = None;
            wakes.add(self.writer.take());
        }
        self.edge_out = self.edge_out.max(edge);
        self.transmit(now, out);
    }

    /// Handles bytes from the peer.
    pub(crate) fn on_data(
        &mut self,
        offset: u64,
        bytes: &[u8],
        fin: bool,
        out: &mut Vec<Body>,
        wakes: &mut Wakes,
    ) {
        let known = self.next_in.saturating_sub(offset);
        let fresh =
            usize::try_from(known).map_or(&[][..], |known| bytes.get(known..).unwrap_or(&[]));
        if offset <= self.next_in && !self.eof {
            self.got.extend(fresh);
            self.next_in += fresh.len() as u64;
            if fin && self.next_in == offset + bytes.len() as u64 {
                self.eof = true;
                self.next_in += 1;
            }
            if !fresh.is_empty() || self.eof {
                wakes.add(self.reader.take());
            }
        }
        out.push(self.ack());
    }

    /// Returns the acknowledgement of what came, with the edge up to which this end takes bytes.
    pub(crate) fn ack(&mut self) -> Body {
        let room = self.window.saturating_sub(self.got.len()) as u64;
        self.edge_in = self.edge_in.max(self.next_in + room);
        Body::Ack { ack: self.next_in, edge: self.edge_in }
    }

    /// Gives a reader the bytes that came; `None` when it must wait, `Some(0)` at the end.
    pub(crate) fn read(
        &mut self,
        room: usize,
        mut take: impl FnMut(&[u8]),
        out: &mut Vec<Body>,
    ) -> Option<usize> {
        let mut len = self.got.len().min(room);
        if len == 0 {
            return (room == 0 || self.eof).then_some(0);
        }
        if len > 1 && self.rng.odds(1, 8) {
            len = 1 + self.rng.index(len);
        }
        let (front, back) = self.got.as_slices();
        let of_front = front.len().min(len);
        take(&front[..of_front]);
        take(&back[..len - of_front]);
        self.got.drain(..len);
        let room = self.window.saturating_sub(self.got.len()) as u64;
        // As TCP does: an update is sent when the window has opened by half.
        if !self.eof && self.next_in + room >= self.edge_in + (self.window / 2) as u64 {
            out.push(self.ack());
        }
        Some(len)
    }

    /// Returns whether the peer's FIN came.
    pub(crate) const fn is_at_end(&self) -> bool {
        self.eof
    }

    /// Returns whether a segment brings bytes that were not here before.
    pub(crate) const fn is_fresh(&self, offset: u64, len: usize) -> bool {
        offset + len as u64 > self.next_in
    }

    /// Returns whether unread bytes wait.
    pub(crate) fn has_unread(&self) -> bool {
        !self.got.is_empty()
    }

    /// Ends the connection: reset, refused or given up. What came before can still be read.
    pub(crate) fn die(&mut self, why: io::ErrorKind, wakes: &mut Wakes) {
        if self.phase != Phase::Dead {
            self.phase = Phase::Dead;
            self.error = Some(why);
            self.out.clear();
            self.acks.clear();
            self.rto_at = None;
            self.wake_both(wakes);
        }
    }
}
