//! Departure of segments: a socket's step, and the link that its segments take.

use std::task::Waker;

use super::{Net, link::Links, socket::Socket};
use crate::{
    core::Core,
    ids::SocketId,
    queue::Due,
    segment::{Body, Segment},
};

impl Net {
    /// Runs one step of a socket, sends the segments that it made and queues its timer.
    pub(super) fn act<T>(
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

    /// Sends a segment of a socket over its link.
    pub(super) fn send(&mut self, core: &mut Core, from: SocketId, body: Body) {
        let Some(socket) = self.sockets.get_mut(&from) else { return };
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
        if let Some(at) = Self::carry(&mut self.links, core, &segment) {
            let at = at.max(socket.arrives_after + 1);
            socket.arrives_after = at;
            core.queue.push(at, Due::Segment(Box::new(segment)));
        }
    }

    /// Returns when a segment arrives, virtual ns; `None` when it is lost.
    pub(super) fn carry(links: &mut Links, core: &mut Core, segment: &Segment) -> Option<u64> {
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
        if let Some(at) = Self::carry(&mut self.links, core, &answer) {
            core.queue.push(at, Due::Segment(Box::new(answer)));
        }
    }
}
