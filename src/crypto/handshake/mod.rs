//! Handshake of a link, as state machines over bytes. Nothing here waits or reads a clock.
//!
//! ```text
//!  dialer                                      acceptor
//!  DialerParams ── Hello, guard's proof ─────► UncheckedHello ─ check ─► CheckedHello
//!  AwaitReply ◄─────────── Reply, signature ── CheckedHello::reply
//!    checks the pin, verifies, then unwraps
//!  ═══════ from here on, sealed in the records that the link goes on with ═══════
//!    on_reply ── Auth, signature ────────────► AwaitAuth ─ open ─► UnverifiedAuth
//!                                                ─ verify ─► AdmissionRequest, AwaitReady
//!  AwaitWelcome ◄────── Welcome, directory ── AwaitReady::welcome
//!    or ◄──────────────────── Rejection ─────── UnverifiedAuth::reject, AwaitReady::reject
//!    finish ─► SendReady ── Ready ───────────► AwaitReady::on_ready
//! ```
//!
//! Each step takes its state by value, so that none can be done twice or out of order.
//!
//! 1. A Hello without a guard's proof costs no RSA operation.
//! 2. The dialer's private key decrypts only after a pinned key's signature over the Hello and
//!    the Reply was verified; the bearer is sent only after that.
//! 3. Every signature and the wrap cover the bytes of all earlier messages, so that no version,
//!    suite or key can be replaced on the way.
//! 4. Only the dialer's handshake pair opens the wrap: identities stolen later do not.
//!
//! A link that lives long makes a new handshake under its own seal: see [`RenewalParams`].

mod acceptor;
mod dialer;
mod messages;
mod renewal;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use self::messages::About;
pub use self::{
    acceptor::{
        AcceptorParams, AdmissionGrant, AdmissionRequest, AwaitAuth, AwaitReady, CheckedHello,
        UncheckedHello, UnverifiedAuth,
    },
    dialer::{AwaitReply, AwaitWelcome, Credential, DialerParams, ReceivedWelcome, SendReady},
    messages::Ready,
    renewal::{AwaitRenewal, RenewalParams},
};
use super::{
    epoch::EpochError,
    keys::KeyError,
    record::{HEADER_LEN, Opener, RecordError, RecordKind, Sealer, link},
    secret::{Secret, SecretBytes, labelled_hash},
};
use crate::{
    model::ids::{Fingerprint, NodeId, Role},
    wire::{
        PLAIN_LEN_MAX,
        codec::{self, CodecError},
    },
};

/// First version whose Auth and Welcome end with an [`About`].
const WITH_ABOUT: u16 = 2;
/// Name of this release, as other nodes show it.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// Cipher suite: RSA-OAEP and RSA-PSS with SHA-256, HKDF-SHA-256, AES-256-GCM.
pub const SUITE_RSA_AES: u16 = 1;
pub use crate::model::bounds::{
    LINK_VERSIONS as VERSIONS, NODE_NAME_LEN_MAX as NAME_LEN_MAX, RELEASE_LEN_MAX,
};

const SIGN_REPLY: &str = "chatchat/v1/handshake/reply";
const SIGN_AUTH: &str = "chatchat/v1/handshake/auth";
const WRAP: &str = "chatchat/v1/handshake/wrap";
const KEYS: &str = "chatchat/v1/handshake/keys";
/// Reason to refuse a change of keys during a handshake.
const EARLY: &str = "the peer changes its keys before the handshake ended";

/// Authenticated node at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Id of the node.
    pub node: NodeId,
    /// Role that it claims; a gate compares it with the enrolled one.
    pub role: Role,
    /// Public key of its identity, SPKI DER, as received.
    pub spki: Vec<u8>,
    /// Name for people: at most [`NAME_LEN_MAX`] bytes, without control characters.
    pub name: String,
    /// Protocol version that both ends agreed on. What was added to the protocol later than this is
    /// not sent to the peer.
    pub version: u16,
    /// Release that the peer runs, in at most [`RELEASE_LEN_MAX`] bytes; `None` from one that does
    /// not say, as before version 2.
    pub release: Option<String>,
}

/// Reason for which a master refuses a node, as the node is told: sealed, and only after the node has
/// shown a guard of this master's cluster. Before that every refusal looks the same.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rejection {
    /// The node says that it belongs to another cluster.
    #[error(
        "the master belongs to another cluster: check `cluster` and the addresses of the masters"
    )]
    OtherCluster,
    /// The node is on the deny list.
    #[error("this node was expelled and is on the deny list")]
    Denied,
    /// The id is enrolled with another key or role.
    #[error("this node is enrolled with another key or role")]
    OtherKey,
    /// The node is not enrolled, and showed no token that could enrol it.
    #[error("this node is not enrolled: start it with a new join token")]
    NotEnrolled,
    /// The join token does not enrol the node: it ended, was used up or revoked.
    #[error("the join token ended, was used up or was revoked: make a new one")]
    Token,
    /// The master cannot enrol anybody now: it does not reach the shared store.
    #[error("the master does not reach the store and enrols nobody now")]
    StoreAway,
    /// The store lists no such master.
    #[error("the store does not list this node as a master")]
    UnknownMaster,
}

/// Reason why a handshake ended, for the log. No link was made. The peer is told nothing but a
/// [`Rejection`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HandshakeFault {
    /// A message cannot be decoded as the expected one.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// Name of the message.
        what: &'static str,
        /// Problem with it.
        why: String,
    },
    /// The peer speaks no version or suite that this release speaks.
    #[error("no common version or suite: the peer speaks {min} to {max}")]
    NoCommonVersion {
        /// Lowest version of the peer.
        min: u16,
        /// Highest version of the peer.
        max: u16,
    },
    /// The peer belongs to another cluster.
    #[error("the peer belongs to another cluster")]
    OtherCluster,
    /// The Hello's proof was not made with the guard that it names.
    #[error("the Hello's proof is not its guard's")]
    BadGuard,
    /// A node used another node's own guard.
    #[error("the guard is another node's")]
    GuardOfAnother,
    /// The master's key is not pinned. Nothing was decrypted.
    #[error("the master's key {found} is not pinned")]
    NotPinned {
        /// Fingerprint of the key that the master showed.
        found: Fingerprint,
    },
    /// A key, a signature or a wrap is wrong.
    #[error("{what}: {why}")]
    Key {
        /// Name of the message.
        what: &'static str,
        /// Problem with the key.
        why: KeyError,
    },
    /// A sealed message did not open.
    #[error("{what}: {why}")]
    Record {
        /// Name of the expected message.
        what: &'static str,
        /// Problem with the record.
        why: RecordError,
    },
    /// The domain's keys in the Welcome were refused.
    #[error("the common key: {0}")]
    Epoch(#[from] EpochError),
    /// The Welcome is for another node, or its domain is not the master's.
    #[error("the Welcome is not for this node or not this master's")]
    NotForUs,
    /// The node has connected to itself.
    #[error("the node has connected to itself")]
    Itself,
    /// The master refused this node and said why.
    #[error("the master refuses this node: {0}")]
    Rejected(Rejection),
}

fn malformed(what: &'static str, why: &CodecError) -> HandshakeFault {
    HandshakeFault::Malformed { what, why: why.to_string() }
}

fn key_fault(what: &'static str) -> impl FnOnce(KeyError) -> HandshakeFault {
    move |why| HandshakeFault::Key { what, why }
}

fn record_fault(what: &'static str) -> impl FnOnce(RecordError) -> HandshakeFault {
    move |why| HandshakeFault::Record { what, why }
}

fn check_name(what: &'static str, name: &str) -> Result<(), HandshakeFault> {
    if name.len() <= NAME_LEN_MAX && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let why = format!("a name over {NAME_LEN_MAX} bytes or with control characters");
    Err(HandshakeFault::Malformed { what, why })
}

fn check_release(what: &'static str, release: &str) -> Result<(), HandshakeFault> {
    if release.len() <= RELEASE_LEN_MAX && release.chars().all(|c| c.is_ascii_graphic()) {
        return Ok(());
    }
    let why = format!("a release over {RELEASE_LEN_MAX} bytes or with other than ASCII letters");
    Err(HandshakeFault::Malformed { what, why })
}

/// Encodes a message that says from [`WITH_ABOUT`] on which release the sender runs.
fn encode_about<T: Serialize>(value: &T, version: u16) -> Result<SecretBytes, CodecError> {
    if version < WITH_ABOUT {
        return encode_secret(value);
    }
    encode_secret(&(value, About { release: RELEASE.to_owned() }))
}

/// Decodes what [`encode_about`] wrote.
fn decode_about<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    version: u16,
) -> Result<(T, Option<String>), HandshakeFault> {
    let reading = |why| malformed(what, &why);
    if version < WITH_ABOUT {
        return Ok((codec::decode(bytes).map_err(reading)?, None));
    }
    let (value, about): (T, About) = codec::decode(bytes).map_err(reading)?;
    check_release(what, &about.release)?;
    Ok((value, Some(about.release)))
}

/// Encodes a message that holds secrets. The buffer never grows, so that no copies stay behind.
fn encode_secret<T: Serialize>(value: &T) -> Result<SecretBytes, CodecError> {
    let mut plain = SecretBytes::new(Vec::with_capacity(PLAIN_LEN_MAX));
    codec::encode_into(value, &mut plain)?;
    Ok(plain)
}

fn open_message(
    opener: &mut Opener,
    what: &'static str,
    header: [u8; HEADER_LEN],
    body: Vec<u8>,
) -> Result<SecretBytes, HandshakeFault> {
    let mut body = SecretBytes::new(body);
    match opener.open(header, &mut body).map_err(record_fault(what))? {
        RecordKind::Data => Ok(body),
        RecordKind::Close => {
            Err(HandshakeFault::Malformed { what, why: "the peer closed".to_owned() })
        }
        RecordKind::Switch => Err(HandshakeFault::Malformed { what, why: EARLY.to_owned() }),
    }
}

/// Returns the record that ends a handshake with a reason.
fn seal_rejection(sealer: &mut Sealer, reason: Rejection) -> Result<Vec<u8>, HandshakeFault> {
    let plain = codec::encode(&reason).map_err(|why| malformed("Rejection", &why))?;
    let mut out = Vec::new();
    sealer.seal(RecordKind::Close, &plain, &mut out).map_err(record_fault("Rejection"))?;
    Ok(out)
}

/// Returns the highest version that both ends speak.
fn choose_version(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let highest = ours.1.min(theirs.1);
    (theirs.0 <= theirs.1 && highest >= ours.0.max(theirs.0)).then_some(highest)
}

/// Derives the secret for the keys of both directions: fresh, and bound to the whole Hello and
/// Reply.
fn link_secret(k0: &Secret, hello: &[u8], reply: &[u8]) -> Secret {
    Secret::extract(&labelled_hash(KEYS, &[hello, reply]), k0)
}

#[cfg(test)]
mod tests;
