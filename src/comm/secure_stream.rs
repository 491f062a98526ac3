//! Encrypted connection between two authenticated nodes: a handshake makes it, a link takes it.

use std::{fmt, sync::Arc};

use super::key_source::HandshakeKeys;
pub use crate::crypto::handshake::Peer;
use crate::{
    crypto::{
        keys::{Identity, KeyBounds},
        record::{Opener, Sealer},
    },
    env::BoxStream,
};

/// Keys with which one end of a link takes part in its new handshakes.
#[derive(Clone)]
pub struct RenewalKeys {
    /// Identity of this end.
    pub identity: Arc<Identity>,
    /// Range of key sizes that this end accepts.
    pub bounds: KeyBounds,
    /// Source of handshake pairs, at the end that dialled: it starts new handshakes. The other end
    /// answers.
    pub starts_with: Option<Arc<HandshakeKeys>>,
}

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
    /// Keys for new handshakes; without them the link keeps the keys of its first one.
    pub renewal: Option<RenewalKeys>,
}

impl fmt::Debug for SecureStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureStream").field("peer", &self.peer).finish_non_exhaustive()
    }
}
