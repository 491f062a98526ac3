//! Messages of a new handshake on a link that is open already, in both directions.

use std::{cell::OnceCell, sync::Arc};

use super::crypto::{WEAK, pair, rng, signed_part};
use crate::{
    crypto::{
        handshake::{AwaitRenewal, RenewalParams},
        keys::{Identity, IdentityKey, KeyPair, WrapPair},
        secret::{Secret, SecretBytes},
    },
    wire::{PLAIN_LEN_MAX, codec},
};

const SIGN_REQUEST: &str = "chatchat/v1/renewal/request";
const SIGN_REPLY: &str = "chatchat/v1/renewal/reply";

/// Content of both messages: a nonce, and the dialer's key or the wrapped secret.
type Body = ([u8; 32], Vec<u8>);

/// Identities of both ends of a link, and the pair of the dialer's new handshakes.
#[derive(Clone)]
pub(super) struct Ends {
    pub(super) dialer: Arc<Identity>,
    pub(super) acceptor: Arc<Identity>,
    pub(super) pair: SecretBytes,
}

/// Messages of both ends when all is in order.
struct Fixture {
    ends: Ends,
    session: Secret,
    request: Vec<u8>,
    reply: Vec<u8>,
}

thread_local! {
    /// One for each thread, because a body reads how often its keys were used.
    static ENDS: OnceCell<Ends> = const { OnceCell::new() };
    static FIXTURE: OnceCell<Fixture> = const { OnceCell::new() };
}

impl Ends {
    pub(super) fn get() -> Self {
        let make = || Self {
            dialer: Arc::new(Identity::new(pair(20))),
            acceptor: Arc::new(Identity::new(pair(21))),
            pair: pair(22).to_pkcs8_der().expect("it encodes"),
        };
        ENDS.with(|ends| ends.get_or_init(make).clone())
    }

    /// Returns the handshake pair, the same one each time.
    pub(super) fn pair(&self) -> KeyPair {
        KeyPair::from_pkcs8_der(&self.pair, WEAK).expect("it was encoded")
    }
}

/// Gives one message to the end that expects it. The first byte says to which, and whether the
/// input is all of the message or a content that the peer signs.
pub(super) fn run(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else { return false };
    FIXTURE.with(|fixture| {
        let fixture = fixture.get_or_init(Fixture::new);
        match kind {
            0 => fixture.request(bytes),
            1 => fixture.reply(bytes),
            2 => fixture.request_of_peer(bytes),
            3 => fixture.reply_of_peer(bytes),
            _ => false,
        }
    })
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    FIXTURE.with(|fixture| {
        let fixture = fixture.get_or_init(Fixture::new);
        let body = |message| signed_part(message).expect("genuine");
        let of = |kind: u8, bytes: &[u8]| [&[kind][..], bytes].concat();
        vec![
            of(0, &fixture.request),
            of(1, &fixture.reply),
            of(2, &body(&fixture.request)),
            of(3, &body(&fixture.reply)),
        ]
    })
}

impl Fixture {
    fn new() -> Self {
        let mut fixture = Self {
            ends: Ends::get(),
            session: Secret::from_slice(&[23; 32]).expect("32 bytes"),
            request: Vec::new(),
            reply: Vec::new(),
        };
        fixture.request = fixture.ask().1;
        fixture.reply =
            fixture.of_acceptor().answer(&fixture.request, &mut rng(25)).expect("genuine").1;
        fixture
    }

    fn params(&self, own: &Arc<Identity>, peer: &Identity) -> RenewalParams {
        RenewalParams {
            session: self.session.clone(),
            identity: Arc::clone(own),
            peer_spki: peer.spki().to_vec(),
            bounds: WEAK,
        }
    }

    fn of_acceptor(&self) -> RenewalParams {
        self.params(&self.ends.acceptor, &self.ends.dialer)
    }

    /// Returns the dialer after its request, and the request: the same one each time.
    fn ask(&self) -> (AwaitRenewal, Vec<u8>) {
        let pair = WrapPair::new(self.ends.pair());
        self.params(&self.ends.dialer, &self.ends.acceptor)
            .request(pair, &mut rng(24))
            .expect("in order")
    }

    /// A request is answered only if the dialer signed it; nothing is signed for another.
    fn request(&self, bytes: &[u8]) -> bool {
        let signatures = self.ends.acceptor.signatures();
        let answered = self.of_acceptor().answer(bytes, &mut rng(25)).is_ok();
        let genuine = signed_part(bytes) == signed_part(&self.request);
        let used = self.ends.acceptor.signatures() != signatures;
        assert!(genuine || (!answered && !used), "nothing is wrapped or signed");
        answered
    }

    /// A reply is taken only if the acceptor signed it.
    fn reply(&self, bytes: &[u8]) -> bool {
        let taken = self.ask().0.on_reply(bytes, &mut rng(26)).is_ok();
        assert!(!taken || signed_part(bytes) == signed_part(&self.reply));
        taken
    }

    /// A member signs what it likes. It is answered only if it sent a key that may be used.
    fn request_of_peer(&self, body: &[u8]) -> bool {
        let message =
            Self::signed(&self.ends.dialer, SIGN_REQUEST, &[self.session.expose(), body], body);
        let Ok((_, reply)) = self.of_acceptor().answer(&message, &mut rng(25)) else {
            return false;
        };
        assert!(reply.len() <= PLAIN_LEN_MAX, "the reply fits into a frame");
        let key = codec::decode::<Body>(body).map(|(_, key)| key);
        assert!(key.is_ok_and(|key| IdentityKey::from_spki(&key, WEAK).is_ok()));
        true
    }

    /// A master signs what it likes. Its reply is taken only if the wrapped secret is one that was
    /// wrapped for this request.
    fn reply_of_peer(&self, body: &[u8]) -> bool {
        let parts: [&[u8]; 3] = [self.session.expose(), &self.request, body];
        let message = Self::signed(&self.ends.acceptor, SIGN_REPLY, &parts, body);
        let taken = self.ask().0.on_reply(&message, &mut rng(26)).is_ok();
        let genuine = signed_part(&self.reply).expect("genuine");
        assert!(!taken || codec::decode::<Body>(body) == codec::decode::<Body>(&genuine));
        taken
    }

    fn signed(by: &Identity, label: &str, parts: &[&[u8]], body: &[u8]) -> Vec<u8> {
        let proof = by.sign(&mut rng(27), label, parts).expect("in order");
        codec::encode(&(body, proof)).expect("inputs are short")
    }
}
