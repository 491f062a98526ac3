//! The end that connects.

use std::sync::Arc;

use rand_core::CryptoRng;

use super::{
    HandshakeFault, Peer, Ready, SIGN_AUTH, SIGN_REPLY, SUITE_RSA_AES, VERSIONS, WRAP, check_name,
    encode_secret, key_fault, link, link_secret, malformed,
    messages::{Auth, Hello, Reply, ReplyHead, WelcomeHead},
    open_message, record_fault,
};
use crate::{
    crypto::{
        admission::{Guard, GuardId, JoinSecret},
        epoch::{EpochKeys, KeyGrant},
        keys::{Identity, IdentityKey, KeyBounds, WrapPair, fingerprint},
        record::{HEADER_LEN, Opener, RecordKind, Sealer, Side},
        signed::Signed,
    },
    model::{
        ids::{Domain, Fingerprint, KeyEpoch, Role},
        message::{Member, Welcome},
    },
    wire::{PLAIN_LEN_MAX, codec},
};

/// The most bytes of pages that a directory may come in.
const DIRECTORY_LEN_MAX: usize = 32 * 1024 * 1024;

/// By what a node knocks.
#[derive(Clone)]
pub enum Credential {
    /// A join token: its guard, and its bearer if it must be enrolled.
    Token(Arc<JoinSecret>),
    /// Its own guard, kept from an earlier Welcome, or a master's own.
    Own(Guard),
}

/// All that a dialer brings.
pub struct DialerParams {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// This hour's pair.
    pub handshake: Arc<WrapPair>,
    /// What it is.
    pub role: Role,
    /// Its name for people.
    pub name: String,
    /// By what it knocks.
    pub credential: Credential,
    /// Which master keys it trusts.
    pub pins: Vec<Fingerprint>,
    /// Its cluster, once it knows it.
    pub cluster: Option<[u8; 16]>,
    /// The key epoch that it had last.
    pub last_epoch: Option<(Domain, KeyEpoch)>,
    /// Which sizes of keys it takes.
    pub bounds: KeyBounds,
    /// The most nodes that it takes into its directory.
    pub directory_max: usize,
}

impl DialerParams {
    /// Says Hello. No RSA operation.
    ///
    /// # Errors
    /// [`HandshakeFault::Malformed`] for a name that no master takes.
    pub fn hello(self, rng: &mut impl CryptoRng) -> Result<(AwaitReply, Vec<u8>), HandshakeFault> {
        check_name("own name", &self.name)?;
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let (guard, id) = match &self.credential {
            Credential::Token(token) => (token.guard(), GuardId::Token(token.id)),
            Credential::Own(guard) => (guard.clone(), GuardId::Node(self.identity.node())),
        };
        let hello = Hello {
            version_min: VERSIONS.0,
            version_max: VERSIONS.1,
            suites: vec![SUITE_RSA_AES],
            cluster: self.cluster,
            nonce,
            handshake_spki: self.handshake.spki().to_vec(),
            guard: id,
        };
        let body = codec::encode(&hello).map_err(|why| malformed("Hello", &why))?;
        let proof = guard.prove(&body).to_vec();
        let hello = Signed { body, proof }.encode().map_err(|why| malformed("Hello", &why))?;
        Ok((AwaitReply { params: self, hello: hello.clone() }, hello))
    }
}

/// Said Hello.
pub struct AwaitReply {
    params: DialerParams,
    pub(super) hello: Vec<u8>,
}

impl AwaitReply {
    /// Holds the Reply against the pins, verifies it, and only then unwraps what it carries.
    /// Answers with the sealed Auth. Milliseconds.
    ///
    /// # Errors
    /// Any [`HandshakeFault`]. The private key was used only if the signature held.
    pub fn on_reply(
        self,
        reply: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(AwaitWelcome, Vec<u8>), HandshakeFault> {
        let Self { params, hello } = self;
        let reading = |why| malformed("Reply", &why);
        let signed = Signed::decode(reply, PLAIN_LEN_MAX).map_err(reading)?;
        let said: Reply = codec::decode(&signed.body).map_err(reading)?;
        let head: ReplyHead = codec::decode(&said.head).map_err(reading)?;

        let found = fingerprint(&head.identity_spki);
        if !params.pins.contains(&found) {
            return Err(HandshakeFault::NotPinned { found });
        }
        let master = IdentityKey::from_spki(&head.identity_spki, params.bounds)
            .map_err(key_fault("Reply"))?;
        master
            .verify(SIGN_REPLY, &[&hello, &signed.body], &signed.proof)
            .map_err(key_fault("Reply"))?;
        if head.version < VERSIONS.0 || head.version > VERSIONS.1 || head.suite != SUITE_RSA_AES {
            let (min, max) = (head.version, head.version);
            return Err(HandshakeFault::NoCommonVersion { min, max });
        }
        if master.node() == params.identity.node() {
            return Err(HandshakeFault::Itself);
        }
        let k0 = params
            .handshake
            .unwrap(rng, WRAP, &[&hello, &said.head], &said.wrapped)
            .map_err(key_fault("Reply"))?;
        let (mut sealer, opener) = link(&link_secret(&k0, &hello, reply), Side::Dialer);

        let auth = Auth {
            identity_spki: params.identity.spki().to_vec(),
            role: params.role,
            name: params.name.clone(),
            bearer: match &params.credential {
                Credential::Token(token) => Some(*token.bearer().expose()),
                Credential::Own(_) => None,
            },
            last_epoch: params.last_epoch,
        };
        let writing = |why| malformed("Auth", &why);
        let body = encode_secret(&auth).map_err(writing)?.to_vec();
        let proof = params
            .identity
            .sign(rng, SIGN_AUTH, &[&hello, reply, &body])
            .map_err(key_fault("Auth"))?;
        let plain = encode_secret(&Signed { body, proof }).map_err(writing)?;
        let mut record = Vec::new();
        sealer.seal(RecordKind::Data, &plain, &mut record).map_err(record_fault("Auth"))?;
        Ok((AwaitWelcome { params, master, sealer, opener, got: None }, record))
    }
}

/// Said who it is, and waits to be let in.
pub struct AwaitWelcome {
    params: DialerParams,
    master: IdentityKey,
    sealer: Sealer,
    opener: Opener,
    got: Option<Arriving>,
}

struct Arriving {
    head: WelcomeHead,
    directory: Vec<Member>,
    bytes: usize,
}

/// What a node that was taken in has been given.
pub struct ReceivedWelcome {
    /// The domain and the directory.
    pub welcome: Welcome,
    /// The cluster's id.
    pub cluster: [u8; 16],
    /// The node's own guard for later Hellos, if it was given one: keep it beside the key.
    pub guard: Option<Guard>,
    /// The domain's common key and group secret; masters give each other none.
    pub keys: Option<EpochKeys>,
}

impl AwaitWelcome {
    /// Takes the next record of the Welcome; `true` when it is whole.
    ///
    /// # Errors
    /// Any [`HandshakeFault`]; the handshake is over.
    pub fn on_record(
        &mut self,
        header: [u8; HEADER_LEN],
        body: Vec<u8>,
    ) -> Result<bool, HandshakeFault> {
        let reading = |why| malformed("Welcome", &why);
        let body = open_message(&mut self.opener, "Welcome", header, body)?;
        let Some(arriving) = &mut self.got else {
            let head: WelcomeHead = codec::decode(&body).map_err(reading)?;
            check_name("Welcome", &head.name)?;
            if head.node != self.params.identity.node() || head.domain.master != self.master.node()
            {
                return Err(HandshakeFault::NotForUs);
            }
            if self.params.cluster.is_some_and(|known| known != head.cluster) {
                return Err(HandshakeFault::OtherCluster);
            }
            if head.members as usize > self.params.directory_max {
                let why = format!("a directory of {} nodes", head.members);
                return Err(HandshakeFault::Malformed { what: "Welcome", why });
            }
            let whole = head.members == 0;
            self.got = Some(Arriving { head, directory: Vec::new(), bytes: 0 });
            return Ok(whole);
        };
        let page: Vec<Member> = codec::decode(&body).map_err(reading)?;
        arriving.bytes += body.len();
        arriving.directory.extend(page.iter().cloned());
        let (have, due) = (arriving.directory.len(), arriving.head.members as usize);
        if page.is_empty() || have > due || arriving.bytes > DIRECTORY_LEN_MAX {
            let why = format!("pages with {have} of {due} nodes");
            return Err(HandshakeFault::Malformed { what: "Welcome", why });
        }
        Ok(have == due)
    }

    /// Takes the keys that came with the Welcome: verifies the announcement, then does the one
    /// unwrap of the epoch. Milliseconds. Then the guard must be kept before [`SendReady::ready`].
    ///
    /// # Errors
    /// [`HandshakeFault::Epoch`]; [`HandshakeFault::NotForUs`] before the Welcome is whole.
    pub fn finish(self, rng: &mut impl CryptoRng) -> Result<SendReady, HandshakeFault> {
        let Self { params, master, sealer, opener, got } = self;
        let Some(Arriving { mut head, directory, .. }) = got else {
            return Err(HandshakeFault::NotForUs);
        };
        let keys = match head.keys.take() {
            None => None,
            Some(mut keys) => {
                let grant = KeyGrant::new(
                    std::mem::take(&mut keys.pkcs8),
                    std::mem::take(&mut keys.announcement),
                );
                Some(EpochKeys::accept(rng, &master, head.domain, &grant, params.bounds)?)
            }
        };
        let guard = head.guard.as_ref().and_then(|bytes| Guard::from_slice(bytes));
        let peer = Peer {
            node: master.node(),
            role: Role::Master,
            spki: master.spki().to_vec(),
            name: std::mem::take(&mut head.name),
        };
        let welcome = Welcome { domain: head.domain, directory };
        let received = ReceivedWelcome { welcome, cluster: head.cluster, guard, keys };
        Ok(SendReady { received, peer, sealer, opener })
    }
}

/// Has all that it needs; the guard is to be kept now.
pub struct SendReady {
    /// What it was given.
    pub received: ReceivedWelcome,
    /// The master.
    pub peer: Peer,
    sealer: Sealer,
    opener: Opener,
}

impl SendReady {
    /// Says Ready. What comes after on this stream is the link's.
    ///
    /// # Errors
    /// None in practice: a Ready is a few bytes.
    pub fn ready(
        self,
        ready: Ready,
    ) -> Result<(Vec<u8>, ReceivedWelcome, Peer, Sealer, Opener), HandshakeFault> {
        let Self { received, peer, mut sealer, opener } = self;
        let plain = codec::encode(&ready).map_err(|why| malformed("Ready", &why))?;
        let mut record = Vec::new();
        sealer.seal(RecordKind::Data, &plain, &mut record).map_err(record_fault("Ready"))?;
        Ok((record, received, peer, sealer, opener))
    }
}
