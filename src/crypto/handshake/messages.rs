//! The five messages of a handshake and the two of a link's new one, without proofs and seals.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::{
    crypto::admission::GuardId,
    model::{
        ids::{Domain, KeyEpoch, NodeId, Registration, Role},
        lists::list,
        login::StoreLogin,
    },
};

/// Most cipher suites that a Hello may offer.
pub(super) const SUITES_MAX: usize = 16;

/// First message: in the clear, proved with a guard.
#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version_min: u16,
    pub(super) version_max: u16,
    #[serde(deserialize_with = "list::<SUITES_MAX, _, _>")]
    pub(super) suites: Vec<u16>,
    pub(super) cluster: Option<[u8; 16]>,
    pub(super) nonce: [u8; 32],
    #[serde(with = "serde_bytes")]
    pub(super) handshake_spki: Vec<u8>,
    pub(super) guard: GuardId,
}

/// Second message: in the clear, signed together with the first.
#[derive(Serialize, Deserialize)]
pub(super) struct Reply {
    /// Encoded [`ReplyHead`]. The wrap is bound to these bytes.
    #[serde(with = "serde_bytes")]
    pub(super) head: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(super) wrapped: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ReplyHead {
    pub(super) version: u16,
    pub(super) suite: u16,
    pub(super) nonce: [u8; 32],
    pub(super) session: [u8; 16],
    #[serde(with = "serde_bytes")]
    pub(super) identity_spki: Vec<u8>,
}

/// Third message: sealed, signed together with both before.
#[derive(Serialize, Deserialize)]
pub(super) struct Auth {
    #[serde(with = "serde_bytes")]
    pub(super) identity_spki: Vec<u8>,
    pub(super) role: Role,
    pub(super) name: String,
    pub(super) bearer: Option<[u8; 32]>,
    pub(super) last_epoch: Option<(Domain, KeyEpoch)>,
    /// Whether it needs a login for the store's server.
    pub(super) wants_login: bool,
}

impl Drop for Auth {
    fn drop(&mut self) {
        self.bearer.zeroize();
    }
}

/// End of the third and the fourth message from version 2 on: what the sender says of itself.
#[derive(Serialize, Deserialize)]
pub(super) struct About {
    /// Name of the release that it runs.
    pub(super) release: String,
}

/// Fourth message: sealed. Pages of the directory follow until there are `members` nodes.
#[derive(Serialize, Deserialize)]
pub(super) struct WelcomeHead {
    pub(super) node: NodeId,
    pub(super) cluster: [u8; 16],
    pub(super) name: String,
    pub(super) domain: Domain,
    pub(super) guard: Option<[u8; 32]>,
    pub(super) keys: Option<Keys>,
    pub(super) login: Option<StoreLogin>,
    pub(super) members: u32,
}

impl Drop for WelcomeHead {
    fn drop(&mut self) {
        self.guard.zeroize();
    }
}

/// Keys of a [`KeyGrant`](crate::crypto::epoch::KeyGrant), in the form in which they are sent.
#[derive(Serialize, Deserialize)]
pub(super) struct Keys {
    pub(super) pkcs8: Vec<u8>,
    pub(super) announcement: Vec<u8>,
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.pkcs8.zeroize();
    }
}

/// Fifth message: sealed. It says that the dialer has all it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Key epoch that the dialer accepted; `None` if it was given none.
    pub epoch: Option<KeyEpoch>,
    /// Registration of a worker, or incarnation of a master as a number.
    pub registration: Registration,
}

/// First message of a new handshake: signed by the dialer.
#[derive(Serialize, Deserialize)]
pub(super) struct RenewalRequest {
    pub(super) nonce: [u8; 32],
    #[serde(with = "serde_bytes")]
    pub(super) handshake_spki: Vec<u8>,
}

/// Second message of a new handshake: signed by the acceptor, together with the first.
#[derive(Serialize, Deserialize)]
pub(super) struct RenewalReply {
    pub(super) nonce: [u8; 32],
    #[serde(with = "serde_bytes")]
    pub(super) wrapped: Vec<u8>,
}
