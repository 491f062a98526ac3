//! Accepting end of a handshake: a master.

use std::sync::Arc;

use rand_core::CryptoRng;

use super::{
    HandshakeFault, Peer, Ready, Rejection, SIGN_AUTH, SIGN_REPLY, SUITE_RSA_AES, VERSIONS, WRAP,
    check_name, choose_version, decode_about, encode_about, key_fault, link, link_secret,
    malformed,
    messages::{Auth, Hello, Keys, Reply, ReplyHead, WelcomeHead},
    open_message, record_fault, seal_rejection,
};
use crate::{
    crypto::{
        admission::{Guard, GuardId},
        epoch::EpochKeys,
        keys::{Identity, IdentityKey, KeyBounds, WrapKey, node_id},
        record::{HEADER_LEN, Opener, RecordKind, Sealer, Side},
        secret::Secret,
        signed::Signed,
    },
    model::{
        ids::{Domain, KeyEpoch, NodeId},
        login::StoreLogin,
        message::{Member, Welcome},
    },
    wire::{
        PLAIN_LEN_MAX,
        codec::{self, CodecError},
    },
};

/// Approximate size of one page of the directory, in bytes.
const PAGE_LEN: usize = 256 * 1024;

/// Properties that an accepting master shows to every dialer that passed its guard.
pub struct AcceptorParams {
    /// Identity of the master.
    pub identity: Arc<Identity>,
    /// Name of the master, for people.
    pub name: String,
    /// Id of its cluster.
    pub cluster: [u8; 16],
    /// Range of key sizes that it accepts.
    pub bounds: KeyBounds,
    /// Highest protocol version that it speaks, at most that of [`VERSIONS`].
    pub version_max: u16,
}

/// Hello that was decoded, but whose proof was not checked yet.
pub struct UncheckedHello {
    frame: Vec<u8>,
    signed: Signed,
    hello: Hello,
}

impl UncheckedHello {
    /// Decodes a Hello. Does no cryptography.
    ///
    /// # Errors
    /// [`HandshakeFault::Malformed`].
    pub fn read(frame: Vec<u8>) -> Result<Self, HandshakeFault> {
        let reading = |why| malformed("Hello", &why);
        let signed = Signed::decode(&frame, PLAIN_LEN_MAX).map_err(reading)?;
        let hello: Hello = codec::decode(&signed.body).map_err(reading)?;
        Ok(Self { frame, signed, hello })
    }

    /// Returns the id of the guard that the Hello claims to be made with.
    #[must_use]
    pub const fn guard(&self) -> GuardId {
        self.hello.guard
    }

    /// Returns the nonce of the Hello. A Hello with a nonce that was seen before is a replay.
    #[must_use]
    pub const fn nonce(&self) -> [u8; 32] {
        self.hello.nonce
    }

    /// Checks the proof with the guard that the Hello names. Costs one HMAC.
    ///
    /// # Errors
    /// [`HandshakeFault::BadGuard`].
    pub fn check(self, guard: &Guard) -> Result<CheckedHello, HandshakeFault> {
        if !guard.check(&self.signed.body, &self.signed.proof) {
            return Err(HandshakeFault::BadGuard);
        }
        Ok(CheckedHello { frame: self.frame, hello: self.hello })
    }
}

/// Hello from a dialer that has the guard.
pub struct CheckedHello {
    frame: Vec<u8>,
    hello: Hello,
}

impl CheckedHello {
    /// Draws the link's secret, wraps it for the dialer and signs the Hello and the Reply. These
    /// are the two RSA operations of a Reply. Takes milliseconds.
    ///
    /// # Errors
    /// [`HandshakeFault::NoCommonVersion`], [`HandshakeFault::Key`].
    pub fn reply(
        self,
        params: &Arc<AcceptorParams>,
        rng: &mut impl CryptoRng,
    ) -> Result<(AwaitAuth, Vec<u8>), HandshakeFault> {
        let Self { frame, hello } = self;
        let (min, max) = (hello.version_min, hello.version_max);
        let version = choose_version((VERSIONS.0, params.version_max), (min, max))
            .filter(|_| hello.suites.contains(&SUITE_RSA_AES))
            .ok_or(HandshakeFault::NoCommonVersion { min, max })?;
        // Whoever knows a guard of this cluster is told, but only under seal.
        let is_of_cluster = hello.cluster.is_none_or(|theirs| theirs == params.cluster);
        let key =
            WrapKey::from_spki(&hello.handshake_spki, params.bounds).map_err(key_fault("Hello"))?;

        let (mut nonce, mut session) = ([0; 32], [0; 16]);
        rng.fill_bytes(&mut nonce);
        rng.fill_bytes(&mut session);
        let identity_spki = params.identity.spki().to_vec();
        let head = ReplyHead { version, suite: SUITE_RSA_AES, nonce, session, identity_spki };
        let writing = |why| malformed("Reply", &why);
        let head = codec::encode(&head).map_err(writing)?;
        let k0 = Secret::random(rng);
        let wrapped = key.wrap(rng, WRAP, &[&frame, &head], &k0).map_err(key_fault("Reply"))?;
        let body = codec::encode(&Reply { head, wrapped }).map_err(writing)?;
        let proof =
            params.identity.sign(rng, SIGN_REPLY, &[&frame, &body]).map_err(key_fault("Reply"))?;
        let reply = Signed { body, proof }.encode().map_err(writing)?;

        let (sealer, opener) = link(&link_secret(&k0, &frame, &reply), Side::Acceptor);
        let params = Arc::clone(params);
        let guard = hello.guard;
        let next = AwaitAuth {
            params,
            version,
            guard,
            is_of_cluster,
            hello: frame,
            reply: reply.clone(),
            sealer,
            opener,
        };
        Ok((next, reply))
    }
}

/// Acceptor that has sent its Reply and waits for the Auth.
pub struct AwaitAuth {
    params: Arc<AcceptorParams>,
    version: u16,
    guard: GuardId,
    is_of_cluster: bool,
    hello: Vec<u8>,
    reply: Vec<u8>,
    sealer: Sealer,
    opener: Opener,
}

impl AwaitAuth {
    /// Opens the Auth. Does no RSA operation.
    ///
    /// # Errors
    /// [`HandshakeFault::Record`], [`HandshakeFault::Malformed`], [`HandshakeFault::Itself`],
    /// [`HandshakeFault::GuardOfAnother`].
    pub fn open(
        mut self,
        header: [u8; HEADER_LEN],
        body: Vec<u8>,
    ) -> Result<UnverifiedAuth, HandshakeFault> {
        let plain = open_message(&mut self.opener, "Auth", header, body)?;
        let reading = |why| malformed("Auth", &why);
        let signed = Signed::decode(&plain, PLAIN_LEN_MAX).map_err(reading)?;
        let (auth, release) = decode_about::<Auth>("Auth", &signed.body, self.version)?;
        check_name("Auth", &auth.name)?;
        let node = node_id(&auth.identity_spki);
        if node == self.params.identity.node() {
            return Err(HandshakeFault::Itself);
        }
        if matches!(self.guard, GuardId::Node(of) if of != node) {
            return Err(HandshakeFault::GuardOfAnother);
        }
        Ok(UnverifiedAuth { from: self, signed, auth, release, node })
    }
}

/// Auth whose signature was not verified yet.
pub struct UnverifiedAuth {
    from: AwaitAuth,
    signed: Signed,
    auth: Auth,
    release: Option<String>,
    node: NodeId,
}

impl UnverifiedAuth {
    /// Returns the id that the dialer claims. Refuse a denied node here, before its signature is
    /// verified.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Returns whether the dialer belongs to this cluster, or to none yet.
    #[must_use]
    pub const fn is_of_cluster(&self) -> bool {
        self.from.is_of_cluster
    }

    /// Ends the handshake: returns the record that tells the dialer why.
    ///
    /// # Errors
    /// None in practice: a reason is a few bytes.
    pub fn reject(mut self, reason: Rejection) -> Result<Vec<u8>, HandshakeFault> {
        seal_rejection(&mut self.from.sealer, reason)
    }

    /// Verifies the signature over all messages so far. Takes a tenth of a millisecond.
    ///
    /// # Errors
    /// [`HandshakeFault::Key`].
    pub fn verify(self) -> Result<(AdmissionRequest, AwaitReady), HandshakeFault> {
        let Self { from, signed, mut auth, release, node } = self;
        let key = IdentityKey::from_spki(&auth.identity_spki, from.params.bounds)
            .map_err(key_fault("Auth"))?;
        key.verify(SIGN_AUTH, &[&from.hello, &from.reply, &signed.body], &signed.proof)
            .map_err(key_fault("Auth"))?;
        let peer = Peer {
            node,
            role: auth.role,
            spki: std::mem::take(&mut auth.identity_spki),
            name: std::mem::take(&mut auth.name),
            version: from.version,
            release,
        };
        let request = AdmissionRequest {
            peer: peer.clone(),
            guard: from.guard,
            bearer: auth.bearer.as_ref().and_then(|bytes| Secret::from_slice(bytes)),
            last_epoch: auth.last_epoch,
            wants_login: auth.wants_login,
        };
        let AwaitAuth { params, sealer, opener, .. } = from;
        Ok((request, AwaitReady { params, peer, sealer, opener }))
    }
}

/// Request of an authenticated node to be admitted.
pub struct AdmissionRequest {
    /// Authenticated dialer. Its role and name are only claimed.
    pub peer: Peer,
    /// Guard that its Hello was made with.
    pub guard: GuardId,
    /// Bearer that enrols the node, if it sent one.
    pub bearer: Option<Secret>,
    /// Last key epoch that it had.
    pub last_epoch: Option<(Domain, KeyEpoch)>,
    /// Whether it asks for a login for the store's server.
    pub wants_login: bool,
}

/// Content of the Welcome for a node that is admitted.
pub struct AdmissionGrant {
    /// Domain of the master, and the directory.
    pub welcome: Welcome,
    /// The node's own guard for later Hellos; `None` for a master, which has its guard in the
    /// store.
    pub guard: Option<Guard>,
    /// Keys of the domain; `None` for a master.
    pub keys: Option<Arc<EpochKeys>>,
    /// The node's login for the store's server, if it asked for one and there is one.
    pub login: Option<StoreLogin>,
}

/// Acceptor that sends the Welcome and waits for the Ready.
pub struct AwaitReady {
    params: Arc<AcceptorParams>,
    peer: Peer,
    sealer: Sealer,
    opener: Opener,
}

impl AwaitReady {
    /// Returns the Welcome as records: its head, then the directory in pages.
    ///
    /// # Errors
    /// [`HandshakeFault::Malformed`] when a member is too long for a page, and
    /// [`HandshakeFault::Epoch`] when the keys cannot be encoded.
    pub fn welcome(&mut self, grant: &AdmissionGrant) -> Result<Vec<u8>, HandshakeFault> {
        let writing = |why| malformed("Welcome", &why);
        let keys = match &grant.keys {
            None => None,
            Some(keys) => {
                let granted = keys.grant()?;
                Some(Keys { pkcs8: granted.pkcs8.to_vec(), announcement: granted.announcement })
            }
        };
        let directory = &grant.welcome.directory;
        let too_many = |_| CodecError::TooLong { len: directory.len(), max: u32::MAX as usize };
        let head = WelcomeHead {
            node: self.peer.node,
            cluster: self.params.cluster,
            name: self.params.name.clone(),
            domain: grant.welcome.domain,
            guard: grant.guard.as_ref().map(|guard| *guard.expose()),
            keys,
            login: grant.login.clone(),
            members: u32::try_from(directory.len()).map_err(too_many).map_err(writing)?,
        };
        let mut out = Vec::new();
        let plain = encode_about(&head, self.peer.version).map_err(writing)?;
        self.seal(&plain, &mut out)?;
        for page in pages(directory) {
            self.seal(&codec::encode(&page).map_err(writing)?, &mut out)?;
        }
        Ok(out)
    }

    /// Ends the handshake instead of a Welcome: returns the record that tells the dialer why.
    ///
    /// # Errors
    /// None in practice: a reason is a few bytes.
    pub fn reject(mut self, reason: Rejection) -> Result<Vec<u8>, HandshakeFault> {
        seal_rejection(&mut self.sealer, reason)
    }

    fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), HandshakeFault> {
        self.sealer.seal(RecordKind::Data, plain, out).map_err(record_fault("Welcome"))
    }

    /// Reads the Ready and ends the handshake. Later records on this stream belong to the link.
    ///
    /// # Errors
    /// [`HandshakeFault::Record`], [`HandshakeFault::Malformed`].
    pub fn on_ready(
        mut self,
        header: [u8; HEADER_LEN],
        body: Vec<u8>,
    ) -> Result<(Ready, Peer, Sealer, Opener), HandshakeFault> {
        let plain = open_message(&mut self.opener, "Ready", header, body)?;
        let ready = codec::decode(&plain).map_err(|why| malformed("Ready", &why))?;
        Ok((ready, self.peer, self.sealer, self.opener))
    }
}

/// Cuts the directory into pages that fit into records. No page is empty.
fn pages(directory: &[Member]) -> Vec<&[Member]> {
    const FIXED: usize = 128;
    let weight = |member: &Member| {
        let texts = [&member.link, &member.http].into_iter().flatten().map(String::len);
        FIXED + member.spki.len() + member.name.len() + texts.sum::<usize>()
    };
    let (mut pages, mut rest) = (Vec::new(), directory);
    while !rest.is_empty() {
        let mut sum = 0;
        let fits = rest
            .iter()
            .take_while(|member| {
                sum += weight(member);
                sum <= PAGE_LEN
            })
            .count();
        let (page, after) = rest.split_at(fits.max(1));
        pages.push(page);
        rest = after;
    }
    pages
}
