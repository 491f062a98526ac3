//! Link with an authenticated peer that does what the input says: sealed frames and closes, changes
//! of keys, new handshakes, bytes that nobody sealed, and silence, while the node answers and calls.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::mpsc,
};

use super::{
    crypto::{WEAK, rng},
    renewal::Ends,
    world::World,
};
use crate::{
    comm::{
        CallError, DriverStamp, Incoming, Link, LinkEnd, LinkId, LinkLimits, Peer, RenewalKeys,
        Responder, SecureStream,
        key_source::{HandshakeKeys, KeyKind, KeySource},
    },
    crypto::{
        handshake::{AwaitRenewal, RenewalParams, VERSIONS},
        keys::{Identity, KeyBounds, KeyError, KeyPair, WrapPair},
        record::{HEADER_LEN, Opener, RecordKind, Sealer, Side, body_len, link},
        secret::Secret,
    },
    env::{BoxFuture, Env},
    model::{
        ids::{NodeId, Role},
        message::{Beat, Close, CloseReason, Direct, Request, Response, Topic},
    },
    wire::{
        codec,
        frame::{self, Frame},
    },
};

const SECOND: Duration = Duration::from_secs(1);
const IN_FLIGHT_MAX: usize = 4;
/// Most steps of one input: more would only take time.
const STEPS_MAX: usize = 64;

/// Steps of an input. Those with a content have its length behind them, two bytes.
mod step {
    pub(super) const DATA: u8 = 0;
    pub(super) const CLOSE: u8 = 1;
    pub(super) const RAW: u8 = 2;
    pub(super) const SWITCH: u8 = 3;
    pub(super) const HANDSHAKE: u8 = 4;
    pub(super) const PASS: u8 = 5;
    pub(super) const ANSWER: u8 = 6;
    pub(super) const DROP: u8 = 7;
    pub(super) const CALL: u8 = 8;
    pub(super) const SEND: u8 = 9;
    pub(super) const CLOSE_OWN: u8 = 10;
    pub(super) const STOP_READING: u8 = 11;
    pub(super) const REKEY: u8 = 12;
}

/// Runs a link through the steps of an input; the first byte says which end of it dialled. Whatever
/// the peer does, the link ends once, and soon after the peer is gone.
pub(super) fn run(bytes: &[u8]) -> bool {
    let Some((side, mut bytes)) = bytes.split_first() else { return false };
    let mut game = Game::new(&Ends::get(), side % 2 == 0);
    for _ in 0..STEPS_MAX {
        let Some((step, rest)) = bytes.split_first() else { break };
        bytes = game.step(*step, rest);
        game.settle();
    }
    let end = game.end();
    !matches!(end, LinkEnd::Violation(_))
}

/// End of the link that the input plays, and the node behind the link.
struct Game {
    world: World,
    link: Link,
    events: mpsc::Receiver<(LinkId, Incoming)>,
    answers: Vec<Responder>,
    calls: Vec<BoxFuture<'static, Result<Response, CallError>>>,
    ended: Option<LinkEnd>,
    peer: Player,
}

/// Peer of the link.
struct Player {
    stream: Option<DuplexStream>,
    sealer: Sealer,
    opener: Opener,
    identity: Arc<Identity>,
    /// Identity key of the link's end.
    spki: Vec<u8>,
    dials: bool,
    ends: Ends,
    reads: bool,
    unread: Vec<u8>,
    /// Message of a new handshake that the link sent.
    message: Option<Bytes>,
    waiting: Option<AwaitRenewal>,
    fresh: Option<Secret>,
    closed: Option<Close>,
}

/// Source that gives the same pair each time.
struct FixedPair(Ends);

impl KeySource for FixedPair {
    fn generate<'a>(
        &'a self,
        _: &'a Env,
        _: KeyKind,
        _: usize,
    ) -> BoxFuture<'a, Result<KeyPair, KeyError>> {
        Box::pin(async { Ok(self.0.pair()) })
    }

    fn bounds(&self) -> KeyBounds {
        WEAK
    }
}

fn limits() -> LinkLimits {
    LinkLimits {
        outgoing_frames_max: 8,
        in_flight_max: IN_FLIGHT_MAX,
        in_flight_batches: 1,
        handshake_interval: 2 * SECOND,
        handshake_timeout: SECOND / 2,
        rekey_interval: SECOND,
        ..LinkLimits::default()
    }
}

impl Game {
    /// Returns a link that was just made, at the end that dialled or at the other.
    fn new(ends: &Ends, dialled: bool) -> Self {
        let world = World::default();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let prk = Secret::from_slice(&[42; 32]).expect("32 bytes");
        let (own, other) = match dialled {
            true => (Side::Dialer, Side::Acceptor),
            false => (Side::Acceptor, Side::Dialer),
        };
        let (identity, of_peer) = match dialled {
            true => (&ends.dialer, &ends.acceptor),
            false => (&ends.acceptor, &ends.dialer),
        };
        let source = Arc::new(FixedPair(ends.clone()));
        let renewal = RenewalKeys {
            identity: Arc::clone(identity),
            bounds: WEAK,
            starts_with: dialled.then(|| HandshakeKeys::new(source, 1024)),
        };
        let (sealer, opener) = link(&prk, own);
        let secured = SecureStream {
            stream: Box::new(near),
            sealer,
            opener,
            peer: Peer {
                node: NodeId([8; 16]),
                role: Role::Worker,
                spki: of_peer.spki().to_vec(),
                name: "w0".to_owned(),
                version: VERSIONS.1,
                release: None,
            },
            renewal: Some(renewal),
        };
        let (incoming, events) = mpsc::channel(8);
        let (env, driver) = (world.env(), DriverStamp::default());
        let link_at = Link::start(&env, LinkId(1), secured, limits(), driver, incoming);
        let (sealer, opener) = link(&prk, other);
        let peer = Player {
            stream: Some(far),
            sealer,
            opener,
            identity: Arc::clone(of_peer),
            spki: identity.spki().to_vec(),
            dials: !dialled,
            ends: ends.clone(),
            reads: true,
            unread: Vec::new(),
            message: None,
            waiting: None,
            fresh: None,
            closed: None,
        };
        let (answers, calls) = (Vec::new(), Vec::new());
        Self { world, link: link_at, events, answers, calls, ended: None, peer }
    }

    /// Takes one step, and returns what is left of the input.
    fn step<'a>(&mut self, step: u8, rest: &'a [u8]) -> &'a [u8] {
        let peer = &mut self.peer;
        match step {
            step::DATA | step::CLOSE | step::RAW => {
                let Some((len, rest)) = rest.split_first_chunk::<2>() else { return &[] };
                let (content, rest) =
                    rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
                match step {
                    step::DATA => peer.seal(RecordKind::Data, content),
                    step::CLOSE => peer.seal(RecordKind::Close, content),
                    _ => peer.write(content),
                }
                return rest;
            }
            step::SWITCH => peer.switch(),
            step::HANDSHAKE => peer.handshake(),
            step::PASS => {
                let Some((tenths, rest)) = rest.split_first() else { return &[] };
                self.world.pass(SECOND / 10 * u32::from(*tenths));
                return rest;
            }
            step::ANSWER if !self.answers.is_empty() => {
                // The peer may have given the call up, or the link may have no room.
                let _ = self.answers.remove(0).send(&Response::Echo(vec![1; 100]));
            }
            step::DROP => drop(self.answers.pop()),
            step::CALL => {
                let link = self.link.clone();
                let call = async move { link.call(Request::Echo(vec![2; 100]), SECOND).await };
                self.calls.push(Box::pin(call));
            }
            step::SEND => {
                let _ = self.link.send(&Direct::Digest { digest: [3; 16] });
                let _ = self.link.subscribe(&Topic::ALL);
                let _ = self.link.publish(Bytes::from_static(b"an envelope"));
                self.link.beat(Beat { reaches_store: true });
            }
            step::CLOSE_OWN => self.link.close(LEAVING),
            step::STOP_READING => peer.reads = false,
            step::REKEY => peer.sealer.rekey(),
            _ => {}
        }
        rest
    }

    /// Lets the link, the node and the peer do what they can without a step of the clock.
    fn settle(&mut self) {
        loop {
            self.world.settle();
            let mut idle = !self.peer.read();
            while let Ok((_, event)) = self.events.try_recv() {
                idle = false;
                assert!(self.ended.is_none(), "nothing comes after the end");
                match event {
                    Incoming::Request { reply, .. } => self.answers.push(reply),
                    Incoming::Closed(end) => self.ended = Some(end),
                    _ => {}
                }
            }
            let begun = self.answers.len();
            assert!(begun <= IN_FLIGHT_MAX, "{begun} calls at once, whether given up or not");
            self.calls.retain_mut(|call| poll(call.as_mut()).is_pending());
            if idle {
                return;
            }
        }
    }

    /// Ends the peer's stream and returns how the link ended.
    fn end(mut self) -> LinkEnd {
        self.peer.stream = None;
        for _ in 0..40 {
            self.world.pass(SECOND / 10);
            self.settle();
        }
        let end = self.ended.expect("the link ends soon after its peer is gone");
        assert!(self.calls.is_empty(), "no call outlives its link");
        assert!(!self.link.is_open());
        assert!(self.answers.iter().all(Responder::is_cancelled));
        if let Some(close) = self.peer.closed {
            match end {
                LinkEnd::Closed(own) => assert_eq!(close, own),
                LinkEnd::Violation(_) => assert_eq!(close.reason, CloseReason::Violation),
                _ => panic!("the peer was told {close:?}, the node {end:?}"),
            }
        }
        end
    }
}

const LEAVING: Close = Close { reason: CloseReason::Leaving, retry_ms: 250 };

impl Player {
    fn seal(&mut self, kind: RecordKind, plain: &[u8]) {
        let mut record = Vec::new();
        // After its close it can seal nothing.
        if self.sealer.seal(kind, plain, &mut record).is_ok() {
            self.write(&record);
        }
    }

    /// Changes to the keys of the last handshake, or to some that the link does not have.
    fn switch(&mut self) {
        let mut record = Vec::new();
        let fresh = self.fresh.clone();
        let fresh = fresh.unwrap_or_else(|| Secret::from_slice(&[1; 32]).expect("32 bytes"));
        if self.sealer.switch(&fresh, &mut record).is_ok() {
            self.write(&record);
        }
    }

    /// Does what comes next in a new handshake, as an honest peer would.
    fn handshake(&mut self) {
        let params = RenewalParams {
            session: self.sealer.session().clone(),
            identity: Arc::clone(&self.identity),
            peer_spki: self.spki.clone(),
            bounds: WEAK,
        };
        let said = match (self.dials, self.message.take(), self.waiting.take()) {
            (true, Some(reply), Some(waiting)) => {
                self.fresh = waiting.on_reply(&reply, &mut rng(31)).ok();
                return;
            }
            (true, ..) => {
                let pair = WrapPair::new(self.ends.pair());
                let (waiting, request) = params.request(pair, &mut rng(32)).expect("in order");
                (self.waiting, self.fresh) = (Some(waiting), None);
                request
            }
            (false, Some(request), _) => {
                let Ok((fresh, reply)) = params.answer(&request, &mut rng(33)) else { return };
                self.fresh = Some(fresh);
                reply
            }
            (false, None, _) => return,
        };
        let frame = frame::handshake(&said).expect("it is short");
        self.seal(RecordKind::Data, &frame);
    }

    /// Writes as much as the link takes.
    fn write(&mut self, bytes: &[u8]) {
        let Some(stream) = &mut self.stream else { return };
        let mut cx = Context::from_waker(Waker::noop());
        // A link that is gone or takes nothing is no concern of a hostile peer.
        let _ = Pin::new(stream).poll_write(&mut cx, bytes);
    }

    /// Reads what the link sent. All of it is what this end has to accept. Says whether there was
    /// something.
    fn read(&mut self) -> bool {
        let Some(stream) = self.stream.as_mut().filter(|_| self.reads) else { return false };
        let mut buffer = [0; 4096];
        let mut buffer = ReadBuf::new(&mut buffer);
        let mut cx = Context::from_waker(Waker::noop());
        let read = pin!(stream).poll_read(&mut cx, &mut buffer);
        if !matches!(read, Poll::Ready(Ok(()))) || buffer.filled().is_empty() {
            return false;
        }
        self.unread.extend_from_slice(buffer.filled());
        while let Some((header, rest)) = self.unread.split_first_chunk::<HEADER_LEN>() {
            let len = body_len(*header).expect("a link keeps to the bound");
            let Some(body) = rest.get(..len) else { break };
            let (header, body) = (*header, body.to_vec());
            self.unread.drain(..HEADER_LEN + len);
            self.on_record(header, body);
        }
        true
    }

    fn on_record(&mut self, header: [u8; HEADER_LEN], mut body: Vec<u8>) {
        assert!(self.closed.is_none(), "nothing comes after a close");
        match self.opener.open(header, &mut body).expect("sealed for here") {
            RecordKind::Switch => match &self.fresh {
                Some(fresh) => self.opener.switch(fresh).expect("it was announced"),
                // It changed its own keys before it looked at the reply: it cannot read on.
                None => self.reads = false,
            },
            RecordKind::Close => self.closed = Some(codec::decode(&body).expect("a close")),
            RecordKind::Data => {
                if let Frame::Handshake(message) = Frame::decode(body.into()).expect("a frame") {
                    self.message = Some(message);
                }
            }
        }
    }
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Step with a content.
fn with(step: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).expect("short").to_le_bytes();
    [&[step][..], &len, content].concat()
}

/// Step of a peer that seals these bytes as a frame.
pub(super) fn data(frame: &[u8]) -> Vec<u8> {
    with(step::DATA, frame)
}

/// Step of a peer that sends bytes which nobody sealed.
pub(super) fn raw(bytes: &[u8]) -> Vec<u8> {
    with(step::RAW, bytes)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let data = |frame: Frame| data(&frame.encode().expect("short"));
    let close = with(step::CLOSE, &codec::encode(&LEAVING).expect("short"));
    let request = Request::Echo(vec![7; 20]);
    let ask = |id| data(Frame::Request { id, deadline_ms: 500, request: request.clone() });
    let answer = data(Frame::Response { id: 1, response: Response::Echo(vec![2; 100]) });
    let beat = data(Frame::Beat(Beat { reaches_store: true }));
    let calls = [
        vec![0],
        ask(1),
        ask(2),
        ask(9),
        vec![step::ANSWER],
        data(Frame::Cancel { id: 2 }),
        vec![step::ANSWER, step::DROP, step::CALL],
        answer,
        vec![step::SEND, step::REKEY],
        data(Frame::Direct(Direct::Digest { digest: [5; 16] })),
        data(Frame::Publish(Bytes::from_static(b"an envelope"))),
        data(Frame::Subscribe(vec![Topic::Board])),
        close.clone(),
    ];
    // As in step: request, reply, change of keys, each way, twice.
    let renewal = [step::HANDSHAKE, step::HANDSHAKE, step::SWITCH];
    let pause = [&beat[..], &[step::PASS, 10]].concat();
    let accepted =
        [vec![1], renewal.to_vec(), pause.clone(), renewal.to_vec(), beat.clone(), close];
    let answers = [&[step::HANDSHAKE, step::SWITCH][..], &beat].concat();
    let dialled = [vec![0], pause.repeat(3), answers.clone(), pause.repeat(3), answers];
    let own = [vec![1], ask(1), vec![step::CALL, step::CLOSE_OWN, step::PASS, 5]];
    vec![calls.concat(), accepted.concat(), dialled.concat(), own.concat()]
}
