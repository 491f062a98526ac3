//! Reading half of a link: bytes to records to frames to events, in order, with each check as
//! early as possible.

use std::{future::poll_fn, sync::Arc, task::Poll};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, ReadHalf},
    sync::mpsc,
};

use super::{Incoming, LinkEnd, LinkId, Responder, responder::Shared, state::Room};
use crate::{
    crypto::record::{self, HEADER_LEN, Opener, RecordKind},
    env::{BoxStream, Env},
    model::message::{Beat, Close},
    wire::{codec, frame::Frame},
};

/// Size of the read buffer in bytes; the rest of a longer record is read into its own buffer.
const BUFFER_LEN: usize = 8 * 1024;

/// Number of records after which other tasks get a turn: a peer that never pauses must not hold
/// up the writer.
const RECORDS_PER_TURN: u32 = 16;

type Events = mpsc::Sender<(LinkId, Incoming)>;

pub(super) struct Reader {
    half: ReadHalf<BoxStream>,
    opener: Opener,
    buffer: Box<[u8]>,
    /// Range of `buffer` that was read and not yet processed.
    start: usize,
    end: usize,
    beat: Option<Beat>,
}

fn violation(why: impl ToString) -> LinkEnd {
    LinkEnd::Violation(why.to_string())
}

fn broken(why: impl ToString) -> LinkEnd {
    LinkEnd::Broken(why.to_string())
}

impl Reader {
    pub(super) fn new(half: ReadHalf<BoxStream>, opener: Opener) -> Self {
        let buffer = vec![0; BUFFER_LEN].into_boxed_slice();
        Self { half, opener, buffer, start: 0, end: 0, beat: None }
    }

    /// Reads until the link ends.
    pub(super) async fn run(
        &mut self,
        env: &Env,
        shared: &Arc<Shared>,
        events: &Events,
    ) -> LinkEnd {
        let mut turn = 0;
        loop {
            let done = match self.record(env, shared).await {
                Ok((RecordKind::Data, bytes)) => self.on_frame(env, shared, events, bytes).await,
                Ok((RecordKind::Close, bytes)) => match codec::decode::<Close>(&bytes) {
                    Ok(close) => Err(LinkEnd::ClosedByPeer(close)),
                    Err(why) => Err(violation(format_args!("close: {why}"))),
                },
                Ok((RecordKind::Switch, _)) => self.on_switch(env, shared),
                Err(end) => Err(end),
            };
            if let Err(end) = done {
                return end;
            }
            turn += 1;
            if turn % RECORDS_PER_TURN == 0 {
                yield_once().await;
            }
        }
    }

    /// Returns the next record, opened.
    async fn record(
        &mut self,
        env: &Env,
        shared: &Shared,
    ) -> Result<(RecordKind, Vec<u8>), LinkEnd> {
        let heartbeat = &shared.heartbeat;
        while self.end - self.start < HEADER_LEN {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let read = self.half.read(&mut self.buffer[self.end..]).await;
            self.end += bytes_read(read)?;
            heartbeat.last_byte.set(env.now());
        }
        let unread = &self.buffer[self.start..self.end];
        let (header, unread) = unread.split_first_chunk().expect("the loop saw to it");
        let len = record::body_len(*header).map_err(violation)?;
        let header = *header;

        let mut body = Vec::with_capacity(len);
        body.extend_from_slice(&unread[..len.min(unread.len())]);
        self.start += HEADER_LEN + body.len();
        if body.len() < len {
            heartbeat.record_start.set(env.now());
            while body.len() < len {
                let left = (len - body.len()) as u64;
                let read = (&mut self.half).take(left).read_buf(&mut body).await;
                bytes_read(read)?;
                heartbeat.last_byte.set(env.now());
            }
            heartbeat.record_start.clear();
        }
        let kind = self.opener.open(header, &mut body).map_err(violation)?;
        Ok((kind, body))
    }

    /// Changes to the keys of a new handshake, if it is the peer's turn to do so.
    fn on_switch(&mut self, env: &Env, shared: &Shared) -> Result<(), LinkEnd> {
        let fresh = shared.exchange().on_switch(env.now()).map_err(violation)?;
        self.opener.switch(fresh.get()).map_err(violation)?;
        shared.turn.notify_one();
        Ok(())
    }

    async fn on_frame(
        &mut self,
        env: &Env,
        shared: &Arc<Shared>,
        events: &Events,
        bytes: Vec<u8>,
    ) -> Result<(), LinkEnd> {
        let frame = Frame::decode(Bytes::from(bytes)).map_err(violation)?;
        env.trace(|| frame.name());
        let event = match frame {
            Frame::Request { id, deadline_ms, request } => {
                let room = Room::of(&request);
                if !shared.state().serve(id, room).map_err(violation)? {
                    tracing::debug!(peer = %shared.peer.node.short(), id, "a call did not begin");
                    return Ok(());
                }
                let deadline = env.now() + std::time::Duration::from_millis(deadline_ms.into());
                let reply = Responder::new(Arc::clone(shared), id, deadline);
                Incoming::Request { request, reply }
            }
            Frame::Response { id, response } => {
                return shared.state().answer(id, response).map_err(violation);
            }
            Frame::Cancel { id } => return shared.state().cancel(id).map_err(violation),
            Frame::Direct(message) => Incoming::Direct(message),
            Frame::Publish(envelope) => Incoming::Envelope(envelope),
            Frame::Subscribe(topics) => {
                shared.state().set_topics(&topics);
                Incoming::Subscribed(topics)
            }
            Frame::Handshake(message) => {
                shared.exchange().on_message(env.now(), message).map_err(violation)?;
                shared.turn.notify_one();
                return Ok(());
            }
            Frame::Beat(beat) => {
                if self.beat.replace(beat) == Some(beat) {
                    return Ok(());
                }
                Incoming::Beat(beat)
            }
        };
        deliver(env, shared, events, event).await
    }

    /// Reads and discards until the peer ends the stream.
    pub(super) async fn linger(&mut self) {
        while matches!(self.half.read(&mut self.buffer).await, Ok(1..)) {}
    }
}

/// Returns the number of bytes read, or the end of the link.
fn bytes_read(read: std::io::Result<usize>) -> Result<usize, LinkEnd> {
    match read {
        Ok(0) => Err(broken("the stream ended without a close")),
        Ok(len) => Ok(len),
        Err(why) => Err(broken(why)),
    }
}

/// Delivers an event to the node, waiting for room. The peer does not count as silent meanwhile.
async fn deliver(
    env: &Env,
    shared: &Shared,
    events: &Events,
    event: Incoming,
) -> Result<(), LinkEnd> {
    let gone = || broken("the node is gone");
    match events.try_send((shared.id, event)) {
        Ok(()) => Ok(()),
        Err(mpsc::error::TrySendError::Closed(_)) => Err(gone()),
        Err(mpsc::error::TrySendError::Full(event)) => {
            shared.heartbeat.last_byte.clear();
            let sent = events.send(event).await;
            shared.heartbeat.last_byte.set(env.now());
            sent.map_err(|_| gone())
        }
    }
}

/// Yields to the executor once.
async fn yield_once() {
    let mut gave = false;
    poll_fn(|waker| {
        if gave {
            return Poll::Ready(());
        }
        gave = true;
        waker.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
