//! A connection whose two ends know each other: what a handshake makes and a link takes.

use std::fmt;

use crate::{
    crypto::record::{Opener, Sealer},
    env::BoxStream,
    types::{NodeId, Role},
};

/// Who is at the other end, as the handshake proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id: the start of its key's hash.
    pub node: NodeId,
    /// What it was admitted as.
    pub role: Role,
    /// Its identity's public key, SPKI DER, as received.
    pub spki: Vec<u8>,
    /// A name for people. It chose it itself.
    pub name: String,
}

/// A stream on which only sealed records follow.
pub struct Secured {
    /// The connection, after the handshake's last byte.
    pub stream: BoxStream,
    /// Seals what this end says.
    pub sealer: Sealer,
    /// Opens what the other end says.
    pub opener: Opener,
    /// Who that is.
    pub peer: Peer,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("peer", &self.peer).finish_non_exhaustive()
    }
}
