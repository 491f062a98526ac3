//! Tests of two links on one pipe, or of a link and a peer that the test controls.

mod answers;
mod hostile;
mod pair;
mod renewal;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::*;
use crate::{
    crypto::{
        handshake::VERSIONS,
        record::{self, HEADER_LEN, Opener, RecordKind, Sealer},
        secret::Secret,
    },
    env::BoxStream,
    model::{
        ids::{BoardName, NodeId, Registration, Resource, Role, Token},
        message::{Assign, Task},
        rows::Permission,
    },
    testing::{
        keys::record_pair,
        stepped_world::{SECOND, run, stand_still},
    },
    wire::{codec, frame::Frame},
};

/// Returns both ends of a pipe that holds `room` bytes each way, secured: a master's, then a
/// worker's.
fn secured_pair(room: usize) -> (SecureStream, SecureStream) {
    let (near, far) = tokio::io::duplex(room);
    let (near_keys, far_keys) = record_pair();
    let secured = |stream: tokio::io::DuplexStream, (sealer, opener), peer| SecureStream {
        stream: Box::new(stream),
        sealer,
        opener,
        peer,
        renewal: None,
    };
    (secured(near, near_keys, peer(2, Role::Worker)), secured(far, far_keys, peer(1, Role::Master)))
}

fn peer(id: u8, role: Role) -> Peer {
    Peer {
        node: NodeId([id; 16]),
        role,
        spki: vec![id; 4],
        name: format!("{role}-{id}"),
        version: VERSIONS.1,
        release: None,
    }
}

const ROOM: usize = 64 * 1024;
const BYE: Close = Close { reason: CloseReason::Leaving, retry_ms: 250 };

type Events = mpsc::Receiver<(LinkId, Incoming)>;

fn small() -> LinkLimits {
    let (outgoing_frames_max, in_flight_max, in_flight_batches) = (8, 4, 0);
    LinkLimits { outgoing_frames_max, in_flight_max, in_flight_batches, ..LinkLimits::default() }
}

fn start(env: &Env, id: u64, secured: SecureStream, limits: LinkLimits) -> (Link, Events) {
    start_driven(env, id, secured, limits, DriverStamp::default())
}

fn start_driven(
    env: &Env,
    id: u64,
    secured: SecureStream,
    limits: LinkLimits,
    driver: DriverStamp,
) -> (Link, Events) {
    let (incoming, events) = mpsc::channel(16);
    (Link::start(env, LinkId(id), secured, limits, driver, incoming), events)
}

/// Returns a master's link and a worker's.
fn pair(env: &Env, limits: &LinkLimits) -> ((Link, Events), (Link, Events)) {
    let (near, far) = secured_pair(ROOM);
    (start(env, 1, near, limits.clone()), start(env, 2, far, limits.clone()))
}

/// Returns the next event that is not a heartbeat.
async fn next(events: &mut Events) -> Incoming {
    loop {
        match events.recv().await.expect("no event after the last").1 {
            Incoming::Beat(_) => {}
            event => return event,
        }
    }
}

/// Returns the end of the link, whatever comes before.
async fn end(events: &mut Events) -> LinkEnd {
    loop {
        if let Incoming::Closed(end) = next(events).await {
            return end;
        }
    }
}

/// Returns the next request and its responder.
async fn next_request(events: &mut Events) -> (Request, Responder) {
    match next(events).await {
        Incoming::Request { request, reply } => (request, reply),
        other => panic!("want a request, got {other:?}"),
    }
}

/// Other end of a link, controlled by a test.
struct Raw {
    stream: BoxStream,
    sealer: Sealer,
    opener: Opener,
    /// Secret of a new handshake, to which the link may change.
    fresh: Option<Secret>,
}

impl From<SecureStream> for Raw {
    fn from(end: SecureStream) -> Self {
        let SecureStream { stream, sealer, opener, .. } = end;
        Self { stream, sealer, opener, fresh: None }
    }
}

/// Returns a link and its raw other end.
fn raw(env: &Env, limits: LinkLimits) -> (Link, Events, Raw) {
    let (near, far) = secured_pair(ROOM);
    let (link, events) = start(env, 1, near, limits);
    (link, events, far.into())
}

impl Raw {
    fn record(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.sealer.seal(RecordKind::Data, plain, &mut out).expect("below the bound");
        out
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the link reads");
    }

    async fn send(&mut self, frame: &Frame) {
        let record = self.record(&frame.encode().expect("below the bound"));
        self.write(&record).await;
    }

    /// Returns the next frame that is not a heartbeat, or the close.
    async fn receive(&mut self) -> Result<Frame, Close> {
        loop {
            let mut header = [0; HEADER_LEN];
            self.stream.read_exact(&mut header).await.expect("not ended");
            let mut body = vec![0; record::body_len(header).expect("below the bound")];
            self.stream.read_exact(&mut body).await.expect("not ended");
            match self.opener.open(header, &mut body).expect("sealed for here") {
                RecordKind::Switch => {
                    let fresh = self.fresh.take().expect("a new handshake is under way");
                    self.opener.switch(&fresh).expect("announced");
                }
                RecordKind::Close => return Err(codec::decode(&body).expect("a close")),
                RecordKind::Data => match Frame::decode(body.into()).expect("a frame") {
                    Frame::Beat(_) => {}
                    frame => return Ok(frame),
                },
            }
        }
    }
}

fn echo(byte: u8) -> Request {
    Request::Echo(vec![byte])
}

fn digest(byte: u8) -> Direct {
    Direct::Digest { digest: [byte; 16] }
}
