//! What the five messages of a handshake say, before they are proved or sealed.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::{
    crypto::admission::GuardId,
    model::ids::{Domain, KeyEpoch, NodeId, Registration, Role},
};

/// The first message, in the clear, proved by a guard.
#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version_min: u16,
    pub(super) version_max: u16,
    pub(super) suites: Vec<u16>,
    pub(super) cluster: Option<[u8; 16]>,
    pub(super) nonce: [u8; 32],
    pub(super) handshake_spki: Vec<u8>,
    pub(super) guard: GuardId,
}

/// The second message, in the clear, signed together with the first.
#[derive(Serialize, Deserialize)]
pub(super) struct Reply {
    /// An encoded [`ReplyHead`]: the wrap is bound to these bytes.
    pub(super) head: Vec<u8>,
    pub(super) wrapped: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ReplyHead {
    pub(super) version: u16,
    pub(super) suite: u16,
    pub(super) nonce: [u8; 32],
    pub(super) session: [u8; 16],
    pub(super) identity_spki: Vec<u8>,
}

/// The third message, sealed, signed together with both before.
#[derive(Serialize, Deserialize)]
pub(super) struct Auth {
    pub(super) identity_spki: Vec<u8>,
    pub(super) role: Role,
    pub(super) name: String,
    pub(super) bearer: Option<[u8; 32]>,
    pub(super) last_epoch: Option<(Domain, KeyEpoch)>,
}

impl Drop for Auth {
    fn drop(&mut self) {
        self.bearer.zeroize();
    }
}

/// The fourth message, sealed. Pages of the directory follow until there are `members`.
#[derive(Serialize, Deserialize)]
pub(super) struct WelcomeHead {
    pub(super) node: NodeId,
    pub(super) cluster: [u8; 16],
    pub(super) name: String,
    pub(super) domain: Domain,
    pub(super) guard: Option<[u8; 32]>,
    pub(super) keys: Option<Keys>,
    pub(super) members: u32,
}

impl Drop for WelcomeHead {
    fn drop(&mut self) {
        self.guard.zeroize();
    }
}

/// A [`KeyGrant`](crate::crypto::epoch::KeyGrant) on its way.
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

/// The last message, sealed: the dialer has all it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The key epoch that it took; none when it was given none.
    pub epoch: Option<KeyEpoch>,
    /// A worker's registration; a master's incarnation as a number.
    pub registration: Registration,
}
