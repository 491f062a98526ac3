//! Handshake over a fresh stream, which makes it a [`SecureStream`]: dials and accepts, with
//! deadlines.
//!
//! The messages are [`crypto::handshake`](crate::crypto::handshake)'s; this module sends and
//! receives them with bounds and deadlines, and asks an accepting master's [`AdmissionPolicy`].
//! After Ready the stream carries only records and belongs to a link.
//!
//! 1. Before a peer is authenticated it can make this node hold 16 KiB and one permit of
//!    [`PENDING_MAX`], for `handshake_timeout`.
//! 2. A Hello whose guard is unknown or whose proof is wrong costs no RSA operation, and a Hello
//!    that was seen before costs no second one.
//! 3. Whatever the reason of a refusal, a stranger sees the same: the stream ends. The reason is
//!    in the error, for the log. A node that showed a guard, and in its Auth that it holds the keys
//!    of this very handshake, is told a [`Rejection`] under seal.
//! 4. A node's own guard is on its disk before it sends Ready.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use crate::crypto::handshake::{
    AcceptorParams, AdmissionGrant, AdmissionRequest, Credential, HandshakeFault, Ready,
    ReceivedWelcome, Rejection,
};
use crate::{
    comm::{
        RenewalKeys, SecureStream, connection_limit::ConnectionPermit, key_source::HandshakeKeys,
    },
    crypto::{
        admission::{Guard, GuardId},
        handshake::{DialerParams, UncheckedHello},
        keys::{Identity, KeyError},
        record::{HEADER_LEN, PLAIN_MAX, TAG_LEN, body_len},
    },
    env::{BoxFuture, BoxStream, Cancelled, Env, TimedOut},
    model::{
        ids::{Domain, Fingerprint, KeyEpoch, NodeId, Registration, Role},
        message::Welcome,
        recent::Recent,
    },
    wire::{
        PLAIN_LEN_MAX,
        plain::{PlainError, read_frame, write_frame},
    },
};

/// File in a node's directory that holds its own guard, 32 bytes.
pub const GUARD_FILE: &str = "guard.key";
/// Default bound on the handshakes that a master runs at once, and again for known addresses.
pub const PENDING_MAX: usize = 256;
/// Default bound on the handshakes that a master runs at once with one remote address.
pub const PENDING_PER_HOST_MAX: usize = 128;

/// Number of Hellos that an acceptor remembers. Only a Hello with a valid guard can push another
/// out.
const NONCES_MAX: usize = 16_384;

/// Error of a handshake: there is no link. The stream was dropped; nothing else was changed,
/// unless the variant says so.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// A message was malformed, or its proof was wrong.
    #[error(transparent)]
    Fault(#[from] HandshakeFault),
    /// The guard that the Hello names is unknown: its token expired or was revoked, or the node
    /// is not enrolled.
    #[error("the guard {id:?} is not known")]
    UnknownGuard {
        /// Guard that the Hello names.
        id: GuardId,
    },
    /// The same Hello was received before.
    #[error("a replayed Hello")]
    Replayed,
    /// The node is in the deny list.
    #[error("node {node} is denied")]
    Denied {
        /// Denied node.
        node: NodeId,
    },
    /// The node belongs to another cluster. It was told.
    #[error("node {node} belongs to another cluster")]
    OtherCluster {
        /// Refused node.
        node: NodeId,
    },
    /// The policy did not admit the node. If it was enrolled, it stays so. It was told the reason.
    #[error("node {node} is not admitted: {why}")]
    NotAdmitted {
        /// Refused node.
        node: NodeId,
        /// Reason that the policy gave.
        why: String,
    },
    /// The peer ended the stream.
    #[error("the peer ended the handshake; its log says why")]
    Ended,
    /// The master ended the stream at the Hello: it does not know its guard, or is shutting down.
    #[error(
        "the master did not reply: it knows no such join token or guard (ended, revoked, \
         expelled or of another cluster), or it is shutting down; its log says which"
    )]
    Unanswered,
    /// The stream failed.
    #[error("the stream broke: {0}")]
    Broken(String),
    /// The handshake did not finish within its limit.
    #[error("the handshake took longer than {limit:?}")]
    TimedOut {
        /// Limit that was exceeded.
        limit: Duration,
    },
    /// No handshake pair could be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No registration was chosen, so this node sent no Ready.
    #[error("given up before Ready")]
    GivenUp,
    /// The world is shutting down.
    #[error("the work was dropped before it ran")]
    Cancelled,
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Ended,
            _ => Self::Broken(error.to_string()),
        }
    }
}

impl From<PlainError> for HandshakeError {
    fn from(error: PlainError) -> Self {
        match error {
            PlainError::Io(error) => error.into(),
            PlainError::TooLong { .. } => Self::Broken(error.to_string()),
        }
    }
}

impl From<Cancelled> for HandshakeError {
    fn from(Cancelled: Cancelled) -> Self {
        Self::Cancelled
    }
}

/// Decision of a policy not to admit a node.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{why}")]
pub struct Refusal {
    /// Reason that the node is told.
    pub reason: Rejection,
    /// Sentence for the log.
    pub why: String,
}

impl From<Rejection> for Refusal {
    fn from(reason: Rejection) -> Self {
        Self { reason, why: reason.to_string() }
    }
}

/// Policy that decides which nodes an accepting master admits.
pub trait AdmissionPolicy: Send + Sync {
    /// Returns the guard of this id: from memory, or from the store if memory lacks it. Returns
    /// `None` for a denied node, so that it costs no more than a stranger. Strangers can ask for
    /// any id, so the implementation bounds its store reads.
    fn guard(&self, id: GuardId) -> BoxFuture<'_, Option<Guard>>;

    /// Says whether the node was expelled. Called before its signature is checked.
    fn is_denied(&self, node: NodeId) -> bool;

    /// Admits a node that has proved its identity, and returns what it is given. A node is
    /// admitted if it is enrolled with this key and role, if its bearer token enrols it now, or
    /// if it is a master in the store's list. The answer may wait for the store.
    fn admit(&self, request: AdmissionRequest) -> BoxFuture<'_, Result<AdmissionGrant, Refusal>>;
}

/// State that all handshakes of an accepting master share.
pub struct Acceptor {
    params: Arc<AcceptorParams>,
    timeout: Duration,
    /// Latest Hellos that passed a guard.
    nonces: Mutex<Recent<[u8; 32]>>,
}

impl Acceptor {
    /// Makes the state of this master; each handshake takes at most `timeout`.
    #[must_use]
    pub fn new(params: AcceptorParams, timeout: Duration) -> Arc<Self> {
        let params = Arc::new(params);
        Arc::new(Self { params, timeout, nonces: Mutex::new(Recent::new(NONCES_MAX)) })
    }

    fn is_new(&self, nonce: [u8; 32]) -> bool {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner).insert(nonce)
    }
}

/// Runs the handshake on an accepted stream. Releases the permit when it returns.
///
/// # Errors
/// Any [`HandshakeError`]; the peer sees its stream end, after a sealed [`Rejection`] if it had shown
/// a guard.
pub async fn accept(
    env: &Env,
    stream: BoxStream,
    policy: &dyn AdmissionPolicy,
    acceptor: &Acceptor,
    permit: ConnectionPermit,
) -> Result<(SecureStream, Ready), HandshakeError> {
    let limit = acceptor.timeout;
    let done = env.timeout(limit, run_acceptor(env, stream, policy, acceptor)).await;
    drop(permit);
    done.map_err(|TimedOut| HandshakeError::TimedOut { limit })?
}

async fn run_acceptor(
    env: &Env,
    mut stream: BoxStream,
    policy: &dyn AdmissionPolicy,
    acceptor: &Acceptor,
) -> Result<(SecureStream, Ready), HandshakeError> {
    let unchecked = UncheckedHello::read(read_frame(&mut stream, PLAIN_LEN_MAX).await?)?;
    let (id, nonce) = (unchecked.guard(), unchecked.nonce());
    let guard = policy.guard(id).await.ok_or(HandshakeError::UnknownGuard { id })?;
    let checked = unchecked.check(&guard)?;
    if !acceptor.is_new(nonce) {
        return Err(HandshakeError::Replayed);
    }

    let (params, mut rng) = (Arc::clone(&acceptor.params), env.rng("handshake"));
    let (await_auth, reply) = env.compute(move || checked.reply(&params, &mut rng)).await??;
    write_frame(&mut stream, &reply, PLAIN_LEN_MAX).await?;

    let (header, body) = read_record(&mut stream, PLAIN_LEN_MAX).await?;
    let unverified = await_auth.open(header, body)?;
    let node = unverified.node();
    // Whoever gets a reason may be gone before it: the own error counts.
    if policy.is_denied(node) {
        let _ = write_all(&mut stream, &unverified.reject(Rejection::Denied)?).await;
        return Err(HandshakeError::Denied { node });
    }
    if !unverified.is_of_cluster() {
        let _ = write_all(&mut stream, &unverified.reject(Rejection::OtherCluster)?).await;
        return Err(HandshakeError::OtherCluster { node });
    }
    let (request, mut await_ready) = env.compute(move || unverified.verify()).await??;
    let grant = match policy.admit(request).await {
        Ok(grant) => grant,
        Err(Refusal { reason, why }) => {
            let _ = write_all(&mut stream, &await_ready.reject(reason)?).await;
            return Err(HandshakeError::NotAdmitted { node, why });
        }
    };
    write_all(&mut stream, &await_ready.welcome(&grant)?).await?;

    let (header, body) = read_record(&mut stream, PLAIN_LEN_MAX).await?;
    let (ready, peer, sealer, opener) = await_ready.on_ready(header, body)?;
    let AcceptorParams { identity, bounds, .. } = &*acceptor.params;
    let renewal =
        RenewalKeys { identity: Arc::clone(identity), bounds: *bounds, starts_with: None };
    Ok((SecureStream { stream, sealer, opener, peer, renewal: Some(renewal) }, ready))
}

/// Parameters of a dial.
#[derive(Clone)]
pub struct DialParams {
    /// Identity of the dialing node.
    pub identity: Arc<Identity>,
    /// Source of its handshake pairs.
    pub handshake: Arc<HandshakeKeys>,
    /// Role of the node.
    pub role: Role,
    /// Display name of the node.
    pub name: String,
    /// Credential that it presents: a join token or its own guard.
    pub credential: Credential,
    /// Fingerprints of the master keys that it trusts.
    pub pins: Vec<Fingerprint>,
    /// Cluster of the node, once known.
    pub cluster: Option<[u8; 16]>,
    /// Latest key epoch that the node held.
    pub last_epoch: Option<(Domain, KeyEpoch)>,
    /// Whether the node needs a login for the store's server.
    pub wants_login: bool,
    /// Registration that it states: a master's incarnation or a worker's number.
    /// [`dial_with_registration`] ignores it.
    pub registration: Registration,
    /// Bound on the nodes that it takes into its directory.
    pub directory_max: usize,
    /// Limit on the whole handshake.
    pub timeout: Duration,
    /// Highest version of the link's protocol that it speaks.
    pub version_max: u16,
}

/// Chooses the registration to state, from the Welcome that says what the master knows of this
/// node: a worker counts up from there. `None` gives the handshake up.
pub type ChooseRegistration =
    Box<dyn FnOnce(&Welcome) -> BoxFuture<'static, Option<Registration>> + Send>;

/// Runs the handshake on a connected stream. A guard that the Welcome brings is in
/// [`GUARD_FILE`] when this returns.
///
/// # Errors
/// Any [`HandshakeError`].
pub async fn dial(
    env: &Env,
    stream: BoxStream,
    params: &DialParams,
) -> Result<(SecureStream, ReceivedWelcome), HandshakeError> {
    let registration = params.registration;
    let fixed: ChooseRegistration =
        Box::new(move |_| Box::pin(std::future::ready(Some(registration))));
    dial_with_registration(env, stream, params, fixed).await
}

/// Runs the handshake as [`dial`] does, with the registration that `choose` returns.
///
/// # Errors
/// Any [`HandshakeError`]; [`HandshakeError::GivenUp`] when `choose` returns none.
pub async fn dial_with_registration(
    env: &Env,
    stream: BoxStream,
    params: &DialParams,
    choose: ChooseRegistration,
) -> Result<(SecureStream, ReceivedWelcome), HandshakeError> {
    let limit = params.timeout;
    env.timeout(limit, run_dialer(env, stream, params, choose))
        .await
        .map_err(|TimedOut| HandshakeError::TimedOut { limit })?
}

async fn run_dialer(
    env: &Env,
    mut stream: BoxStream,
    params: &DialParams,
    choose: ChooseRegistration,
) -> Result<(SecureStream, ReceivedWelcome), HandshakeError> {
    let dialer = DialerParams {
        identity: Arc::clone(&params.identity),
        handshake: params.handshake.pair(env).await?,
        role: params.role,
        name: params.name.clone(),
        credential: params.credential.clone(),
        pins: params.pins.clone(),
        cluster: params.cluster,
        last_epoch: params.last_epoch,
        wants_login: params.wants_login,
        bounds: params.handshake.bounds(),
        directory_max: params.directory_max,
        version_max: params.version_max,
    };
    let mut rng = env.rng("handshake");
    let (await_reply, hello) = dialer.hello(&mut rng)?;
    write_frame(&mut stream, &hello, PLAIN_LEN_MAX).await?;

    let reply =
        read_frame(&mut stream, PLAIN_LEN_MAX).await.map_err(|error| match error.into() {
            HandshakeError::Ended => HandshakeError::Unanswered,
            other => other,
        })?;
    let answered = move || await_reply.on_reply(&reply, &mut rng).map(|done| (done, rng));
    let ((mut await_welcome, auth), mut rng) = env.compute(answered).await??;
    write_all(&mut stream, &auth).await?;

    loop {
        let (header, body) = read_record(&mut stream, PLAIN_MAX).await?;
        if await_welcome.on_record(header, body)? {
            break;
        }
    }
    let send_ready = env.compute(move || await_welcome.finish(&mut rng)).await??;
    if let Some(guard) = send_ready.received.guard.clone() {
        keep_guard(env, guard).await?;
    }
    let epoch = send_ready.received.keys.as_ref().map(|keys| keys.epoch());
    let number = choose(&send_ready.received.welcome).await;
    let ready = Ready { epoch, registration: number.ok_or(HandshakeError::GivenUp)? };
    let (record, received, peer, sealer, opener) = send_ready.ready(ready)?;
    write_all(&mut stream, &record).await?;
    let renewal = RenewalKeys {
        identity: Arc::clone(&params.identity),
        bounds: params.handshake.bounds(),
        starts_with: Some(Arc::clone(&params.handshake)),
    };
    Ok((SecureStream { stream, sealer, opener, peer, renewal: Some(renewal) }, received))
}

/// Keeps the guard on disk, unless it is there already. The link works without it, but after its
/// next start the node needs a join token, so a failure is only reported.
async fn keep_guard(env: &Env, guard: Guard) -> Result<(), HandshakeError> {
    let disk = env.disk();
    let kept = env
        .compute(move || match disk.read(GUARD_FILE) {
            Ok(Some(bytes)) if bytes == guard.expose() => Ok(()),
            _ => disk.write_atomic(GUARD_FILE, guard.expose()),
        })
        .await?;
    if let Err(error) = kept {
        tracing::error!(%error, file = GUARD_FILE, "not written: the next start needs a join token");
    }
    Ok(())
}

/// Returns the guard that an earlier Welcome gave this node, if there is one.
///
/// # Errors
/// [`KeyError::Unusable`] when the file exists and does not hold a guard; it was left as it is.
pub async fn load_guard(env: &Env) -> Result<Option<Guard>, KeyError> {
    let disk = env.disk();
    let unusable = |why: String| KeyError::Unusable { file: GUARD_FILE.to_owned(), why };
    let read = env
        .compute(move || disk.read(GUARD_FILE))
        .await
        .map_err(|Cancelled| KeyError::Cancelled)?
        .map_err(|error| unusable(error.to_string()))?;
    read.map(|bytes| {
        Guard::from_slice(&bytes).ok_or_else(|| unusable(format!("{} bytes", bytes.len())))
    })
    .transpose()
}

/// Reads a record of at most `plain_max` plain bytes.
async fn read_record(
    stream: &mut BoxStream,
    plain_max: usize,
) -> Result<([u8; HEADER_LEN], Vec<u8>), HandshakeError> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).await?;
    let len = body_len(header)
        .ok()
        .filter(|len| *len <= plain_max + TAG_LEN)
        .ok_or_else(|| HandshakeError::Broken("a sealed message over its bound".to_owned()))?;
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Ok((header, body))
}

async fn write_all(stream: &mut BoxStream, bytes: &[u8]) -> Result<(), HandshakeError> {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests;
