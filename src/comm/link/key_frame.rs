//! Frame of a message about keys, which many links send.

use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

use super::SendError;
use crate::{model::message::Direct, wire::frame};

/// Frame of a message about keys. It is encoded once for all members, and its bytes are erased when
/// the last link has sealed or dropped it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFrame(Arc<Zeroizing<Vec<u8>>>);

impl KeyFrame {
    /// Encodes a message about keys.
    ///
    /// # Errors
    /// [`SendError::TooLong`].
    pub fn new(message: &Direct) -> Result<Self, SendError> {
        Ok(Self(Arc::new(Zeroizing::new(frame::direct(message)?))))
    }

    /// Returns the bytes, to be sealed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFrame(..)")
    }
}
