//! A connection whose two ends know each other: what a handshake makes and a link takes.

use std::fmt;

pub use crate::crypto::handshake::Peer;
use crate::{
    crypto::record::{Opener, Sealer},
    env::BoxStream,
};

/// A stream on which only sealed records follow.
pub struct SecureStream {
    /// The connection, after the handshake's last byte.
    pub stream: BoxStream,
    /// Seals what this end says.
    pub sealer: Sealer,
    /// Opens what the other end says.
    pub opener: Opener,
    /// Who that is.
    pub peer: Peer,
}

impl fmt::Debug for SecureStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureStream").field("peer", &self.peer).finish_non_exhaustive()
    }
}
