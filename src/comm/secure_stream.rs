//! Encrypted connection between two authenticated nodes: a handshake makes it, a link takes it.

use std::fmt;

pub use crate::crypto::handshake::Peer;
use crate::{
    crypto::record::{Opener, Sealer},
    env::BoxStream,
};

/// Stream that carries only sealed records from here on.
pub struct SecureStream {
    /// Connection, positioned after the handshake's last byte.
    pub stream: BoxStream,
    /// Sealer of outgoing records.
    pub sealer: Sealer,
    /// Opener of incoming records.
    pub opener: Opener,
    /// Authenticated node at the other end.
    pub peer: Peer,
}

impl fmt::Debug for SecureStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureStream").field("peer", &self.peer).finish_non_exhaustive()
    }
}
