//! New handshakes of links that live long, with a peer that keeps to the protocol and with one that
//! does not.

use super::*;
use crate::{
    comm::{RenewalKeys, key_source::HandshakeKeys},
    crypto::{
        handshake::RenewalParams,
        keys::{Identity, WrapPair},
    },
    testing::keys::{TestKeys, WEAK, identity},
};

const DIALER: u8 = 1;
const ACCEPTOR: u8 = 2;

/// Both ends of a pipe, the dialer's first, with what they need for new handshakes.
struct Ends {
    dialer: SecureStream,
    acceptor: SecureStream,
    /// Its signatures are those of the new handshakes that it took part in.
    identity: Arc<Identity>,
}

fn ends() -> Ends {
    let (mut dialer, mut acceptor) = secured_pair(ROOM);
    let [of_dialer, of_acceptor] = [DIALER, ACCEPTOR].map(|number| Arc::new(identity(number)));
    dialer.peer.spki = of_acceptor.spki().to_vec();
    acceptor.peer.spki = of_dialer.spki().to_vec();
    let pairs = HandshakeKeys::new(TestKeys::from(10), 1024);
    dialer.renewal =
        Some(RenewalKeys { identity: of_dialer, bounds: WEAK, starts_with: Some(pairs) });
    let identity = Arc::clone(&of_acceptor);
    acceptor.renewal = Some(RenewalKeys { identity: of_acceptor, bounds: WEAK, starts_with: None });
    Ends { dialer, acceptor, identity }
}

fn often() -> LinkLimits {
    LinkLimits {
        heartbeat_interval: SECOND / 20,
        heartbeats_missed_max: 100,
        rekey_interval: SECOND / 10,
        handshake_interval: SECOND,
        handshake_timeout: SECOND / 2,
        ..LinkLimits::default()
    }
}

/// Sends numbered messages, and checks that those of the peer come in order and without a gap.
async fn talk(env: &Env, link: &Link, events: &mut Events, count: u32) {
    let numbered = |n: u32| {
        let mut digest = [0; 16];
        digest[..4].copy_from_slice(&n.to_be_bytes());
        Direct::Digest { digest }
    };
    let speak = async {
        for n in 0..count {
            assert_eq!(link.send(&numbered(n)), Ok(()));
            env.sleep(SECOND / 500).await;
        }
    };
    let hear = async {
        for n in 0..count {
            let event = next(events).await;
            assert!(matches!(&event, Incoming::Direct(got) if *got == numbered(n)), "{event:?}");
        }
    };
    tokio::join!(speak, hear);
}

#[test]
fn messages_go_on_in_order_during_new_handshakes_and_rekeys_of_both_ends() {
    run(async |env| {
        let Ends { dialer, acceptor, identity } = ends();
        let (near, mut near_events) = start(&env, 1, dialer, often());
        let (far, mut far_events) = start(&env, 2, acceptor, often());
        let began = env.now();
        tokio::join!(
            talk(&env, &near, &mut near_events, 5000),
            talk(&env, &far, &mut far_events, 5000),
        );
        let seconds = env.now().since(began).as_secs();
        let made = identity.signatures();
        assert!(seconds >= 10 && (seconds - 2..=seconds + 2).contains(&made), "{made}");
        let (answer, ()) = tokio::join!(near.call(echo(1), SECOND), async {
            let (_, reply) = next_request(&mut far_events).await;
            assert_eq!(reply.send(&Response::Echo(vec![1])), Ok(()));
        });
        assert_eq!(answer, Ok(Response::Echo(vec![1])));
        near.close(BYE);
        assert_eq!(end(&mut far_events).await, LinkEnd::ClosedByPeer(BYE));
    });
}

#[test]
fn link_of_usual_settings_makes_one_handshake_a_day() {
    run(async |env| {
        let Ends { dialer, acceptor, identity } = ends();
        let (near, _near_events) = start(&env, 1, dialer, LinkLimits::default());
        let (far, _far_events) = start(&env, 2, acceptor, LinkLimits::default());
        for (hours, made) in [(21, 0), (6, 1), (27, 2)] {
            env.sleep(hours * 3600 * SECOND).await;
            assert_eq!(identity.signatures(), made);
        }
        assert!(near.is_open() && far.is_open());
    });
}

#[test]
fn peer_that_never_answers_ends_the_link_in_time() {
    run(async |env| {
        let Ends { dialer, acceptor, .. } = ends();
        let (_link, mut events) = start(&env, 1, dialer, often());
        let mut peer = Raw::from(acceptor);
        let began = env.now();
        let beats = async {
            loop {
                peer.send(&Frame::Beat(Beat { reaches_store: true })).await;
                env.sleep(SECOND / 10).await;
            }
        };
        tokio::select! {
            biased;
            end = end(&mut events) => {
                let why = "a new handshake was not finished in time".to_owned();
                assert_eq!(end, LinkEnd::Broken(why));
            }
            () = beats => {}
        }
        let limits = often();
        let longest = limits.handshake_interval.mul_f64(1.1) + limits.handshake_timeout;
        assert!(env.now().since(began) <= longest + SECOND / 100);
    });
}

#[test]
fn peer_that_asks_and_never_changes_its_keys_ends_the_link_in_time() {
    run(async |env| {
        let (mut peer, _link, mut events) = asking(&env);
        let began = env.now();
        let (_, request) = peer.request();
        peer.raw.send(&Frame::Handshake(request.into())).await;
        assert!(matches!(peer.raw.receive().await, Ok(Frame::Handshake(_))));
        let why = "a new handshake was not finished in time".to_owned();
        assert_eq!(end(&mut events).await, LinkEnd::Broken(why));
        assert_eq!(env.now().since(began), often().handshake_timeout);
    });
}

#[test]
fn request_that_came_before_the_accepting_link_started_is_answered() {
    run(async |env| {
        let Ends { mut dialer, acceptor, .. } = ends();
        let (keys, peer_spki) = (dialer.renewal.take().expect("given"), dialer.peer.spki.clone());
        let mut peer = Asking { raw: dialer.into(), keys, peer_spki, asked: 0 };
        let (waiting, request) = peer.request();
        peer.raw.send(&Frame::Handshake(request.into())).await;
        let (_link, _events) = start(&env, 1, acceptor, often());
        let Ok(Frame::Handshake(reply)) = peer.raw.receive().await else { panic!("want a reply") };
        assert!(waiting.on_reply(&reply, &mut crate::testing::keys::rng(90)).is_ok());
    });
}

/// Dialing end that a test controls.
struct Asking {
    raw: Raw,
    keys: RenewalKeys,
    peer_spki: Vec<u8>,
    asked: u8,
}

/// Returns a dialing end that the test controls, and the accepting link.
fn asking(env: &Env) -> (Asking, Link, Events) {
    let Ends { mut dialer, acceptor, .. } = ends();
    let (link, events) = start(env, 1, acceptor, often());
    let keys = dialer.renewal.take().expect("given");
    let peer_spki = dialer.peer.spki.clone();
    (Asking { raw: dialer.into(), keys, peer_spki, asked: 0 }, link, events)
}

impl Asking {
    fn request(&mut self) -> (crate::crypto::handshake::AwaitRenewal, Vec<u8>) {
        self.asked += 1;
        let params = RenewalParams {
            session: self.raw.sealer.session().clone(),
            identity: Arc::clone(&self.keys.identity),
            peer_spki: self.peer_spki.clone(),
            bounds: WEAK,
        };
        let pair = WrapPair::new(crate::testing::keys::pair(10 + self.asked));
        params.request(pair, &mut crate::testing::keys::rng(self.asked)).expect("in order")
    }

    /// Makes one new handshake, and returns its request.
    async fn renew(&mut self) -> Vec<u8> {
        let (waiting, request) = self.request();
        self.raw.send(&Frame::Handshake(request.clone().into())).await;
        let reply = match self.raw.receive().await {
            Ok(Frame::Handshake(reply)) => reply,
            other => panic!("want a reply, got {other:?}"),
        };
        let fresh = waiting.on_reply(&reply, &mut crate::testing::keys::rng(90)).expect("genuine");
        let mut announced = Vec::new();
        self.raw.sealer.switch(&fresh, &mut announced).expect("open");
        self.raw.fresh = Some(fresh);
        self.raw.write(&announced).await;
        request
    }
}

/// Returns the violation that the accepting link reports after the dialing end does this.
fn violation_after(act: impl AsyncFnOnce(&Env, &mut Asking)) -> String {
    run(async |env| {
        let (mut peer, _link, mut events) = asking(&env);
        act(&env, &mut peer).await;
        let closed = async {
            loop {
                if let Err(close) = peer.raw.receive().await {
                    break close;
                }
            }
        };
        let (end, close) = tokio::join!(end(&mut events), closed);
        // The peer is not told the reason.
        assert_eq!(close, Close { reason: CloseReason::Violation, retry_ms: 0 });
        match end {
            LinkEnd::Violation(why) => why,
            other => panic!("want a violation, got {other:?}"),
        }
    })
}

/// Sends heartbeats for a while.
async fn beat_for(env: &Env, raw: &mut Raw, tenths: u32) {
    for _ in 0..tenths {
        raw.send(&Frame::Beat(Beat { reaches_store: true })).await;
        env.sleep(SECOND / 10).await;
    }
}

#[test]
fn forged_or_replayed_request_ends_the_link() {
    let why = violation_after(async |_, peer| {
        let (_, mut request) = peer.request();
        *request.last_mut().expect("long") ^= 1;
        peer.raw.send(&Frame::Handshake(request.into())).await;
    });
    assert!(why.contains("signature"), "{why}");
    let why = violation_after(async |env, peer| {
        let request = peer.renew().await;
        beat_for(env, &mut peer.raw, 10).await;
        peer.renew().await;
        beat_for(env, &mut peer.raw, 10).await;
        peer.raw.send(&Frame::Handshake(request.into())).await;
    });
    assert!(why.contains("signature"), "{why}");
    let why = violation_after(async |_, peer| {
        peer.raw.send(&Frame::Handshake(Bytes::from_static(b"what"))).await;
    });
    assert!(why.contains("malformed"), "{why}");
}

#[test]
fn message_or_change_of_keys_out_of_turn_ends_the_link() {
    let why = violation_after(async |_, peer| {
        let (_, request) = peer.request();
        peer.raw.send(&Frame::Handshake(request.clone().into())).await;
        peer.raw.send(&Frame::Handshake(request.into())).await;
    });
    assert_eq!(why, "a message of a new handshake out of turn");
    let why = violation_after(async |_, peer| {
        let (mut out, unknown) = (Vec::new(), Secret::from_slice(&[1; 32]).expect("32 bytes"));
        peer.raw.sealer.switch(&unknown, &mut out).expect("open");
        peer.raw.write(&out).await;
    });
    assert_eq!(why, "a change to fresh keys out of turn");
    let why = violation_after(async |env, peer| {
        peer.renew().await;
        beat_for(env, &mut peer.raw, 4).await;
        let (_, request) = peer.request();
        peer.raw.send(&Frame::Handshake(request.into())).await;
    });
    assert_eq!(why, "a new handshake too soon after the last one");
}

#[test]
fn dialer_expects_no_request_and_takes_no_forged_reply() {
    run(async |env| {
        let (_link, mut events, mut peer) = raw(&env, small());
        peer.send(&Frame::Handshake(Bytes::from_static(b"out of turn"))).await;
        let why = "a message of a new handshake out of turn".to_owned();
        assert_eq!(end(&mut events).await, LinkEnd::Violation(why));
    });
    run(async |env| {
        let Ends { dialer, mut acceptor, .. } = ends();
        let (_link, mut events) = start(&env, 1, dialer, often());
        let forger = RenewalParams {
            session: acceptor.sealer.session().clone(),
            identity: Arc::new(identity(9)),
            peer_spki: std::mem::take(&mut acceptor.peer.spki),
            bounds: WEAK,
        };
        let mut peer = Raw::from(acceptor);
        let began = env.now();
        let forge = async {
            let Ok(Frame::Handshake(request)) = peer.receive().await else {
                panic!("want a request")
            };
            let (_, reply) =
                forger.answer(&request, &mut crate::testing::keys::rng(1)).expect("made");
            peer.send(&Frame::Handshake(reply.into())).await;
        };
        let (end, ()) = tokio::join!(end(&mut events), forge);
        assert!(matches!(&end, LinkEnd::Violation(why) if why.contains("signature")), "{end:?}");
        assert!(env.now().since(began) <= 2 * SECOND + often().close_timeout);
    });
}
