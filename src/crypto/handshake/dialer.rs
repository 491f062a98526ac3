//! Dialing end of a handshake: a worker, or the master with the smaller id.

use std::sync::Arc;

use rand_core::CryptoRng;

use super::{
    EARLY, HandshakeFault, Peer, Ready, SIGN_AUTH, SIGN_REPLY, SUITE_RSA_AES, VERSIONS, WRAP,
    check_name, decode_about, encode_about, encode_secret, key_fault, link, link_secret, malformed,
    messages::{Auth, Hello, Reply, ReplyHead, WelcomeHead},
    record_fault,
};
use crate::{
    crypto::{
        admission::{Guard, GuardId, JoinSecret},
        epoch::{EpochKeys, KeyGrant},
        keys::{Identity, IdentityKey, KeyBounds, WrapPair, fingerprint},
        record::{HEADER_LEN, Opener, RecordKind, Sealer, Side},
        secret::SecretBytes,
        signed::Signed,
    },
    model::{
        ids::{Domain, Fingerprint, KeyEpoch, Role},
        login::StoreLogin,
        message::{Member, Welcome},
    },
    wire::{PLAIN_LEN_MAX, codec},
};

/// Most bytes that the pages of a directory may have in total.
const DIRECTORY_LEN_MAX: usize = 32 * 1024 * 1024;

/// Secret that a node proves its Hello with.
#[derive(Clone)]
pub enum Credential {
    /// Join token, with its guard and the bearer that enrols the node.
    Token(Arc<JoinSecret>),
    /// The node's own guard, from an earlier Welcome or a master's own.
    Own(Guard),
}

/// Properties and limits of a dialer for one handshake.
pub struct DialerParams {
    /// Identity of the node.
    pub identity: Arc<Identity>,
    /// Handshake pair of the current hour.
    pub handshake: Arc<WrapPair>,
    /// Role of the node.
    pub role: Role,
    /// Name of the node, for people.
    pub name: String,
    /// Secret that the Hello is proved with.
    pub credential: Credential,
    /// Fingerprints of the master keys that it trusts.
    pub pins: Vec<Fingerprint>,
    /// Id of its cluster, once it is known.
    pub cluster: Option<[u8; 16]>,
    /// Last key epoch that it had.
    pub last_epoch: Option<(Domain, KeyEpoch)>,
    /// Whether it needs a login for the store's server.
    pub wants_login: bool,
    /// Range of key sizes that it accepts.
    pub bounds: KeyBounds,
    /// Most nodes that it accepts in a directory.
    pub directory_max: usize,
    /// Highest protocol version that it speaks, at most that of [`VERSIONS`].
    pub version_max: u16,
}

impl DialerParams {
    /// Makes the Hello. Does no RSA operation.
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
            version_max: self.version_max,
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

/// Dialer that has sent its Hello and waits for the Reply.
pub struct AwaitReply {
    params: DialerParams,
    pub(super) hello: Vec<u8>,
}

impl AwaitReply {
    /// Checks the Reply's key against the pins, verifies the signature, and only then unwraps the
    /// link's secret. Returns the sealed Auth. Takes milliseconds.
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
        let verified = master
            .verify(SIGN_REPLY, &[&hello, &signed.body], &signed.proof)
            .map_err(key_fault("Reply"))?;
        let spoken = VERSIONS.0..=params.version_max;
        if !spoken.contains(&head.version) || head.suite != SUITE_RSA_AES {
            let (min, max) = (head.version, head.version);
            return Err(HandshakeFault::NoCommonVersion { min, max });
        }
        if master.node() == params.identity.node() {
            return Err(HandshakeFault::Itself);
        }
        let k0 = params
            .handshake
            .unwrap(verified, rng, WRAP, &[&hello, &said.head], &said.wrapped)
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
            wants_login: params.wants_login,
        };
        let writing = |why| malformed("Auth", &why);
        let version = head.version;
        let body = encode_about(&auth, version).map_err(writing)?.to_vec();
        let proof = params
            .identity
            .sign(rng, SIGN_AUTH, &[&hello, reply, &body])
            .map_err(key_fault("Auth"))?;
        let plain = encode_secret(&Signed { body, proof }).map_err(writing)?;
        let mut record = Vec::new();
        sealer.seal(RecordKind::Data, &plain, &mut record).map_err(record_fault("Auth"))?;
        Ok((AwaitWelcome { params, version, master, sealer, opener, got: None }, record))
    }
}

/// Dialer that has sent its Auth and waits for the Welcome.
pub struct AwaitWelcome {
    params: DialerParams,
    version: u16,
    master: IdentityKey,
    sealer: Sealer,
    opener: Opener,
    got: Option<Arriving>,
}

struct Arriving {
    head: WelcomeHead,
    release: Option<String>,
    directory: Vec<Member>,
    bytes: usize,
}

/// Content of a Welcome as the dialer received it.
pub struct ReceivedWelcome {
    /// Domain of the master, and the directory.
    pub welcome: Welcome,
    /// Id of the cluster.
    pub cluster: [u8; 16],
    /// The node's own guard for later Hellos, if one was sent. Store it next to the node's key.
    pub guard: Option<Guard>,
    /// Common key and group secret of the domain; masters give each other none.
    pub keys: Option<EpochKeys>,
    /// Login for the store's server, if one was asked for and sent. It replaces any earlier one.
    pub login: Option<StoreLogin>,
}

impl AwaitWelcome {
    /// Takes the next record of the Welcome. Returns `true` when the Welcome is complete.
    ///
    /// # Errors
    /// Any [`HandshakeFault`]; the handshake is over.
    pub fn on_record(
        &mut self,
        header: [u8; HEADER_LEN],
        body: Vec<u8>,
    ) -> Result<bool, HandshakeFault> {
        let reading = |why| malformed("Welcome", &why);
        let mut body = SecretBytes::new(body);
        let kind = self.opener.open(header, &mut body).map_err(record_fault("Welcome"))?;
        match kind {
            RecordKind::Data => {}
            RecordKind::Close => {
                return Err(HandshakeFault::Rejected(codec::decode(&body).map_err(reading)?));
            }
            RecordKind::Switch => {
                return Err(HandshakeFault::Malformed { what: "Welcome", why: EARLY.to_owned() });
            }
        }
        let Some(arriving) = &mut self.got else {
            let (head, release) = decode_about::<WelcomeHead>("Welcome", &body, self.version)?;
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
            self.got = Some(Arriving { head, release, directory: Vec::new(), bytes: 0 });
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

    /// Accepts the keys in the Welcome: verifies the announcement, then does the only unwrap of the
    /// epoch. Takes milliseconds. Store the guard before calling [`SendReady::ready`].
    ///
    /// # Errors
    /// [`HandshakeFault::Epoch`]; [`HandshakeFault::NotForUs`] before the Welcome is whole.
    pub fn finish(self, rng: &mut impl CryptoRng) -> Result<SendReady, HandshakeFault> {
        let Self { params, version, master, sealer, opener, got } = self;
        let Some(Arriving { mut head, release, directory, .. }) = got else {
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
            version,
            release,
        };
        let welcome = Welcome { domain: head.domain, directory };
        let login = head.login.take();
        let received = ReceivedWelcome { welcome, cluster: head.cluster, guard, keys, login };
        Ok(SendReady { received, peer, sealer, opener })
    }
}

/// Dialer that has the whole Welcome and must store the guard before it sends the Ready.
pub struct SendReady {
    /// Content of the Welcome.
    pub received: ReceivedWelcome,
    /// The master at the other end.
    pub peer: Peer,
    sealer: Sealer,
    opener: Opener,
}

impl SendReady {
    /// Makes the Ready and ends the handshake. Later records on this stream belong to the link.
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
