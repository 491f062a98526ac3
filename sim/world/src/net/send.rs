//! Departure of segments: a socket's step, and the link that its segments take.

use super::{
    Net,
    link::{LineId, Links},
    socket::{PendingAck, Phase, Socket},
};
use crate::{
    core::Core,
    ids::SocketId,
    queue::Due,
    segment::{Body, Segment},
    wakes::Wakes,
};

impl Net {
    /// Runs one step of a socket, sends the segments that it made and queues its timer.
    pub(super) fn act<T>(
        &mut self,
        core: &mut Core,
        id: SocketId,
        step: impl FnOnce(&mut Socket, u64, &mut Vec<Body>, &mut Wakes) -> T,
    ) -> Option<T> {
        let socket = self.sockets.get_mut(id)?;
        let mut out = std::mem::take(&mut self.scratch);
        socket.settle(core.now, &mut out, &mut core.wakes);
        let done = step(socket, core.now, &mut out, &mut core.wakes);
        Self::queue_acks(core, id, socket);
        if let Some(at) = socket.rto_at
            && socket.rto_queued.is_none_or(|queued| at < queued)
        {
            socket.rto_queued = Some(at);
            core.queue.push(at, Due::Retransmit(id));
        }
        for body in out.drain(..) {
            self.send(core, id, body);
        }
        self.scratch = out;
        Some(done)
    }

    /// Lets a socket handle the acknowledgements that have come.
    pub(super) fn settle(&mut self, core: &mut Core, id: SocketId) {
        self.act(core, id, |_, _, _, _| ());
    }

    /// Queues the next acknowledgement on its way to a socket, if it has to be handled in time.
    fn queue_acks(core: &mut Core, id: SocketId, socket: &mut Socket) {
        if let Some(at) = socket.next_ack()
            && socket.acks_queued.is_none_or(|queued| at < queued)
        {
            socket.acks_queued = Some(at);
            core.queue.push(at, Due::Acks(id));
        }
    }

    /// Handles the acknowledgements that have come for a socket.
    pub(crate) fn on_acks(&mut self, core: &mut Core, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        socket.acks_queued = None;
        self.settle(core, id);
        self.sweep(core, id);
    }

    /// Sends a segment of a socket over its link.
    pub(super) fn send(&mut self, core: &mut Core, from: SocketId, body: Body) {
        let Some(socket) = self.sockets.get_mut(from) else { return };
        let mut segment = Segment {
            from,
            from_host: socket.host,
            to: socket.peer,
            to_host: socket.peer_host,
            body,
        };
        if let Body::Data { bytes, .. } = &mut segment.body {
            self.corruption.pass(segment.from_host, segment.to_host, bytes);
        }
        if let Some(at) = Self::carry(&mut self.links, core, socket.line, &segment) {
            let at = at.max(socket.arrives_after + 1);
            socket.arrives_after = at;
            if let (Some(to), Body::Ack { ack, edge }) = (segment.to, &segment.body)
                && let Some(peer) = self.sockets.get_mut(to)
                && peer.phase == Phase::Open
            {
                peer.expect_ack(PendingAck { at, ack: *ack, edge: *edge });
                Self::queue_acks(core, to, peer);
                return;
            }
            core.queue.push(at, Due::Segment(Box::new(segment)));
        }
    }

    /// Returns when a segment arrives, virtual ns; `None` when it is lost.
    fn carry(links: &mut Links, core: &mut Core, line: LineId, segment: &Segment) -> Option<u64> {
        let bytes = segment.body.bytes();
        let (from, to) = (segment.from_host, segment.to_host);
        let is_syn = matches!(segment.body, Body::Syn { .. });
        let under_way = links.carry(core.now, line, bytes.len(), is_syn);
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

    /// Answers a segment for which there is no socket with an RST.
    pub(super) fn refuse(&mut self, core: &mut Core, segment: &Segment) {
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
        let line = self.links.line(answer.from_host, answer.to_host);
        if let Some(at) = Self::carry(&mut self.links, core, line, &answer) {
            core.queue.push(at, Due::Segment(Box::new(answer)));
        }
    }
}
