//! Messages of a handshake: to a master from strangers and from nodes with a guard, to a node from
//! whoever answers at a master's address.

use std::{cell::OnceCell, sync::Arc};

use rand_chacha::rand_core::Rng;

use super::crypto::{WEAK, epoch, pair, rng, signed_part};
use crate::{
    crypto::{
        admission::{Guard, JoinSecret},
        handshake::{
            AcceptorParams, AdmissionGrant, AwaitAuth, AwaitWelcome, Credential, DialerParams,
            UncheckedHello, VERSIONS,
        },
        keys::{Identity, WrapPair},
        record::{HEADER_LEN, RecordKind, Sealer, Side, body_len, link},
        secret::{Secret, labelled_hash},
    },
    model::{
        ids::{NodeId, Registration, Role},
        login::{StoreLogin, StorePassword, StoreUser},
        message::{Fact, Member, MemberState, Welcome},
    },
};

/// Both ends of one handshake, and what they send each other when all is in order.
struct Fixture {
    acceptor: Arc<AcceptorParams>,
    worker: Arc<Identity>,
    handshake: Arc<WrapPair>,
    token: Arc<JoinSecret>,
    grant: AdmissionGrant,
    hello: Vec<u8>,
    reply: Vec<u8>,
    auth: Vec<u8>,
    /// Secret from which both ends derive the link's keys.
    shared: Secret,
}

thread_local! {
    /// One for each thread, because a body reads how often its keys were used.
    static FIXTURE: OnceCell<Fixture> = const { OnceCell::new() };
}

/// Gives one message to the end that expects it; the first byte says which message it is.
pub(super) fn run(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else { return false };
    FIXTURE.with(|fixture| {
        let fixture = fixture.get_or_init(Fixture::new);
        match kind {
            0 => fixture.hello(bytes),
            1 => fixture.reply(bytes),
            2 => fixture.auth(bytes),
            3 => fixture.auth_of_insider(bytes),
            4 => fixture.welcome(bytes),
            _ => false,
        }
    })
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    FIXTURE.with(|fixture| {
        let fixture = fixture.get_or_init(Fixture::new);
        let of = |kind: u8, bytes: &[u8]| [&[kind][..], bytes].concat();
        let mut plain = fixture.opened(Side::Dialer, &fixture.auth);
        let (header, body) = split(&fixture.auth);
        let unverified = fixture.replied().0.open(header, body).expect("genuine");
        let (_, mut ready) = unverified.verify().expect("genuine");
        let welcome = ready.welcome(&fixture.grant).expect("it fits");
        let head = fixture.opened(Side::Acceptor, &welcome).swap_remove(0);
        vec![
            of(0, &fixture.hello),
            of(1, &fixture.reply),
            of(2, &fixture.auth),
            of(3, &plain.swap_remove(0)),
            of(4, &head),
        ]
    })
}

impl Fixture {
    fn new() -> Self {
        let master = Arc::new(Identity::new(pair(1)));
        let token = Arc::new(JoinSecret::random(&mut rng(50), &master.fingerprint()));
        let (node, role) = (NodeId([6; 16]), Role::Worker);
        let fact = Fact {
            node,
            role,
            registration: Registration(1),
            state: MemberState::In,
            master: node,
        };
        let member =
            Member { fact, name: "w".to_owned(), link: None, http: None, spki: vec![7; 40] };
        let keys = epoch(&master);
        let user = StoreUser::of_node(&[5; 16], node);
        let welcome = Welcome { domain: keys.domain(), directory: vec![member] };
        let mut fixture = Self {
            acceptor: Arc::new(AcceptorParams {
                identity: master,
                name: "m0".to_owned(),
                cluster: [5; 16],
                bounds: WEAK,
                version_max: VERSIONS.1,
            }),
            worker: Arc::new(Identity::new(pair(12))),
            handshake: Arc::new(WrapPair::new(pair(13))),
            token,
            grant: AdmissionGrant {
                welcome,
                guard: Some(Guard::random(&mut rng(60))),
                keys: Some(Arc::new(keys)),
                login: Some(StoreLogin { user, password: StorePassword::new([9; 32]) }),
            },
            hello: Vec::new(),
            reply: Vec::new(),
            auth: Vec::new(),
            shared: Secret::from_slice(&[0; 32]).expect("32 bytes"),
        };
        let (await_reply, hello) = fixture.dialer().hello(&mut rng(10)).expect("in order");
        fixture.hello = hello;
        let (_, reply) = fixture.replied();
        let (_, auth) = await_reply.on_reply(&reply, &mut rng(12)).expect("in order");
        // The acceptor draws a nonce, a session and this secret, in this order.
        let mut drawn = rng(11);
        drawn.fill_bytes(&mut [0; 48]);
        let secret = Secret::random(&mut drawn);
        let bound_to = labelled_hash("chatchat/v1/handshake/keys", &[&fixture.hello, &reply]);
        fixture.shared = Secret::extract(&bound_to, &secret);
        (fixture.reply, fixture.auth) = (reply, auth);
        fixture
    }

    fn dialer(&self) -> DialerParams {
        DialerParams {
            identity: Arc::clone(&self.worker),
            handshake: Arc::clone(&self.handshake),
            role: Role::Worker,
            name: "w0".to_owned(),
            credential: Credential::Token(Arc::clone(&self.token)),
            pins: vec![self.acceptor.identity.fingerprint()],
            cluster: None,
            last_epoch: None,
            wants_login: true,
            bounds: WEAK,
            directory_max: 100,
            version_max: VERSIONS.1,
        }
    }

    /// Returns the acceptor after the genuine Hello, and its Reply.
    fn replied(&self) -> (AwaitAuth, Vec<u8>) {
        let hello = UncheckedHello::read(self.hello.clone()).expect("genuine");
        let checked = hello.check(&self.token.guard()).expect("genuine");
        checked.reply(&self.acceptor, &mut rng(11)).expect("in order")
    }

    fn await_welcome(&self) -> AwaitWelcome {
        let (await_reply, _) = self.dialer().hello(&mut rng(10)).expect("in order");
        await_reply.on_reply(&self.reply, &mut rng(12)).expect("genuine").0
    }

    /// Returns the plain texts of the records that this side sealed first.
    fn opened(&self, by: Side, mut records: &[u8]) -> Vec<Vec<u8>> {
        let other = if by == Side::Dialer { Side::Acceptor } else { Side::Dialer };
        let (_, mut opener) = link(&self.shared, other);
        let mut texts = Vec::new();
        while !records.is_empty() {
            let (header, mut body) = split(records);
            records = &records[HEADER_LEN + body.len()..];
            opener.open(header, &mut body).expect("genuine");
            texts.push(body);
        }
        texts
    }

    fn sealer(&self, side: Side) -> Sealer {
        link(&self.shared, side).0
    }

    /// A Hello that passes is the one that the guard's owner made.
    fn hello(&self, bytes: &[u8]) -> bool {
        let signatures = self.acceptor.identity.signatures();
        let read = UncheckedHello::read(bytes.to_vec());
        let passed = read.is_ok_and(|hello| hello.check(&self.token.guard()).is_ok());
        assert!(!passed || signed_part(bytes) == signed_part(&self.hello));
        assert_eq!(self.acceptor.identity.signatures(), signatures, "no RSA for a Hello");
        passed
    }

    /// The node's private key is used only for what its pinned master signed for this Hello.
    fn reply(&self, bytes: &[u8]) -> bool {
        let (unwraps, signatures) = (self.handshake.unwraps(), self.worker.signatures());
        let (await_reply, _) = self.dialer().hello(&mut rng(10)).expect("in order");
        let taken = await_reply.on_reply(bytes, &mut rng(12)).is_ok();
        let genuine = signed_part(bytes) == signed_part(&self.reply);
        let used = (self.handshake.unwraps(), self.worker.signatures()) != (unwraps, signatures);
        assert!(genuine || (!used && !taken), "nothing is decrypted or sent");
        taken
    }

    /// A sealed Auth that opens is the dialer's own.
    fn auth(&self, bytes: &[u8]) -> bool {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_LEN>() else { return false };
        let opened = self.replied().0.open(*header, body.to_vec()).is_ok();
        assert!(!opened || bytes == self.auth);
        opened
    }

    /// A node with a guard seals what it likes. It is taken for a node only by that node's
    /// signature.
    fn auth_of_insider(&self, plain: &[u8]) -> bool {
        let mut record = Vec::new();
        let sealed = self.sealer(Side::Dialer).seal(RecordKind::Data, plain, &mut record);
        sealed.expect("inputs are short");
        let (header, body) = split(&record);
        let verified = self.replied().0.open(header, body).is_ok_and(|auth| auth.verify().is_ok());
        let genuine = self.opened(Side::Dialer, &self.auth).swap_remove(0);
        assert!(!verified || signed_part(plain) == signed_part(&genuine));
        verified
    }

    /// Whatever stands in a Welcome, keys are held only if their master signed them.
    fn welcome(&self, head: &[u8]) -> bool {
        let mut sealer = self.sealer(Side::Acceptor);
        let page = crate::wire::codec::encode(&self.grant.welcome.directory).expect("short");
        let mut records = Vec::new();
        for plain in [head, &page] {
            sealer.seal(RecordKind::Data, plain, &mut records).expect("inputs are short");
        }
        let mut node = self.await_welcome();
        let (header, body) = split(&records);
        let rest = &records[HEADER_LEN + body.len()..];
        let whole = match node.on_record(header, body) {
            Ok(true) => true,
            Ok(false) => {
                let (header, body) = split(rest);
                matches!(node.on_record(header, body), Ok(true))
            }
            Err(_) => return false,
        };
        let Ok(sent) = node.finish(&mut rng(14)) else { return false };
        let granted = self.grant.keys.as_ref().map(|keys| keys.digest());
        let held = sent.received.keys.map(|keys| keys.digest());
        assert!(held.is_none() || held == granted);
        whole
    }
}

fn split(record: &[u8]) -> ([u8; HEADER_LEN], Vec<u8>) {
    let (header, rest) = record.split_first_chunk().expect("a header");
    let len = body_len(*header).expect("short").min(rest.len());
    (*header, rest[..len].to_vec())
}
