//! Sealed records, into which a link's bytes are cut once both ends share a key.
//!
//! ```text
//! | length u32 | kind u8 | ciphertext, `length` bytes | tag, 16 bytes |
//!   '------ header: associated data ------'
//! ```
//!
//! Each direction has a key chain of its own. The nonce is the key's base XOR the number of the
//! record under that key; the nonce is never sent. The top bit of `kind` marks the last record
//! under its key: both ends then derive the next key of the chain and erase the old one. A
//! [`RecordKind::Switch`] is such a record, after which the chain also takes in the fresh secret of
//! a new handshake.
//!
//! 1. A record opens only at its own place in its own direction: replay, reorder, drop,
//!    reflection and splice all fail.
//! 2. After a failure an [`Opener`] opens nothing more: the link must close, never resynchronise.
//! 3. No key seals more than 2^22 records or 64 GiB.
//! 4. After [`RecordKind::Close`] nothing is sealed or opened; an end of the stream without it
//!    is abnormal.
//! 5. After [`RecordKind::Switch`] nothing is opened until the fresh secret was given.

use aes_gcm::{
    AeadInOut, Aes256Gcm, KeyInit,
    aead::{Nonce, Tag, inout::InOutBuf},
};
use thiserror::Error;
use zeroize::ZeroizeOnDrop;

use super::secret::Secret;

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 5;
/// Length of the authentication tag, in bytes.
pub const TAG_LEN: usize = 16;
/// Most plain bytes in one record.
pub const PLAIN_MAX: usize = 1024 * 1024;

const RECORDS_PER_KEY_MAX: u64 = 1 << 22;
const BYTES_PER_KEY_MAX: u64 = 64 << 30;
const LAST_OF_KEY: u8 = 0x80;

/// Kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Message of the layer above.
    Data,
    /// Last record of a direction; it may give a reason.
    Close,
    /// Last record of a direction before its keys come from a new handshake. It is empty.
    Switch,
}

impl RecordKind {
    const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Close => 2,
            Self::Switch => 3,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Data),
            2 => Some(Self::Close),
            3 => Some(Self::Switch),
            _ => None,
        }
    }
}

/// Error from sealing or opening a record.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// The record is longer than [`PLAIN_MAX`]. Nothing was sealed or allocated; the link is as it
    /// was.
    #[error("a record of {len} bytes is over the bound of {PLAIN_MAX}")]
    TooLong {
        /// Length that was given or announced, in bytes.
        len: usize,
    },
    /// The header names a kind that does not exist. The opener is dead.
    #[error("unknown kind of record {code}")]
    UnknownKind {
        /// Code of the kind in the header.
        code: u8,
    },
    /// The body's length differs from the header's. The opener is dead.
    #[error("a record's body is not as long as its header says")]
    Truncated,
    /// The record was changed, or the peer did not seal it for this place. The opener is dead.
    #[error("a record failed authentication")]
    Forged,
    /// The peer used one key for longer than allowed. The opener is dead.
    #[error("a record under a key past its bound")]
    Overused,
    /// The record that changes to the keys of a new handshake is not the last under its key, or is
    /// not empty. The opener is dead.
    #[error("a change of keys in a record that cannot make one")]
    MalformedSwitch,
    /// The record follows a close or a failure, or a change of keys whose secret was not given.
    /// Nothing was done.
    #[error("the record layer is closed")]
    Closed,
}

/// End of the connection that a node is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that connected.
    Dialer,
    /// The end that accepted.
    Acceptor,
}

/// Returns the two directions of a link whose handshake agreed on `prk`, as seen from `side`.
#[must_use]
pub fn link(prk: &Secret, side: Side) -> (Sealer, Opener) {
    link_with(prk, side, Limits::default())
}

fn link_with(prk: &Secret, side: Side, limits: Limits) -> (Sealer, Opener) {
    let session = session_of(prk);
    let dialer = Chain::new(prk.expand("chatchat/v1/record/from-dialer", &[]), limits);
    let acceptor = Chain::new(prk.expand("chatchat/v1/record/from-acceptor", &[]), limits);
    let (own, other) = match side {
        Side::Dialer => (dialer, acceptor),
        Side::Acceptor => (acceptor, dialer),
    };
    (
        Sealer { chain: own, session, rekey: false, closed: false },
        Opener { chain: other, state: OpenerState::Open },
    )
}

/// Returns the value that stands for a link's keys in later handshakes: both ends of a handshake
/// that agreed on this secret know it, and nobody else.
#[must_use]
pub fn session_of(secret: &Secret) -> Secret {
    secret.expand("chatchat/v1/record/session", &[])
}

/// Returns the length of the ciphertext and tag after a header, in bytes. Call it before
/// allocating.
///
/// # Errors
/// [`RecordError::TooLong`] over [`PLAIN_MAX`].
pub fn body_len(header: [u8; HEADER_LEN]) -> Result<usize, RecordError> {
    let len = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if len > PLAIN_MAX {
        return Err(RecordError::TooLong { len });
    }
    Ok(len + TAG_LEN)
}

#[derive(Clone, Copy)]
struct Limits {
    records_max: u64,
    bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records_max: RECORDS_PER_KEY_MAX, bytes_max: BYTES_PER_KEY_MAX }
    }
}

/// Key chain of one direction.
#[derive(ZeroizeOnDrop)]
struct Chain {
    secret: Secret,
    // The cipher erases its key schedule itself.
    #[zeroize(skip)]
    cipher: Aes256Gcm,
    nonce_base: [u8; 12],
    #[zeroize(skip)]
    records: u64,
    #[zeroize(skip)]
    bytes: u64,
    #[zeroize(skip)]
    limits: Limits,
}

impl Chain {
    fn new(secret: Secret, limits: Limits) -> Self {
        let key = secret.expand("chatchat/v1/record/key", &[]);
        let cipher = Aes256Gcm::new(key.expose().into());
        let mut nonce_base = [0; 12];
        secret.expand_into("chatchat/v1/record/nonce", &[], &mut nonce_base);
        Self { secret, cipher, nonce_base, records: 0, bytes: 0, limits }
    }

    fn nonce(&self) -> Nonce<Aes256Gcm> {
        let mut nonce = self.nonce_base;
        for (byte, count) in nonce[4..].iter_mut().zip(self.records.to_be_bytes()) {
            *byte ^= count;
        }
        nonce.into()
    }

    /// Returns whether a record of `len` bytes must be the last under this key.
    const fn ends_with(&self, len: usize) -> bool {
        self.records + 1 >= self.limits.records_max
            || self.bytes + len as u64 >= self.limits.bytes_max
    }

    const fn count(&mut self, len: usize) {
        self.records += 1;
        self.bytes += len as u64;
    }

    fn next_key(&mut self) {
        *self = Self::new(self.secret.expand("chatchat/v1/record/next", &[]), self.limits);
    }

    /// Derives the key from this chain's secret and a fresh one together: who knows only one of the
    /// two does not know the key.
    fn take_in(&mut self, fresh: &Secret) {
        let both = Secret::extract(self.secret.expose(), fresh);
        *self = Self::new(both.expand("chatchat/v1/record/fresh", &[]), self.limits);
    }
}

/// Sealing end of one direction.
pub struct Sealer {
    chain: Chain,
    session: Secret,
    rekey: bool,
    closed: bool,
}

impl Sealer {
    /// Appends one whole record to `out`: header, ciphertext, tag. [`Self::switch`] seals
    /// [`RecordKind::Switch`].
    ///
    /// # Errors
    /// [`RecordError::TooLong`] over [`PLAIN_MAX`], [`RecordError::Closed`] after a close; `out`
    /// is as it was and the next record can be sealed.
    pub fn seal(
        &mut self,
        kind: RecordKind,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        if self.closed {
            return Err(RecordError::Closed);
        }
        if plain.len() > PLAIN_MAX {
            return Err(RecordError::TooLong { len: plain.len() });
        }
        let len = u32::try_from(plain.len()).expect("PLAIN_MAX fits in 32 bits");
        let last = self.rekey || self.chain.ends_with(plain.len());
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(&len.to_be_bytes());
        header[4] = kind.code() | if last { LAST_OF_KEY } else { 0 };

        out.reserve(HEADER_LEN + plain.len() + TAG_LEN);
        out.extend_from_slice(&header);
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = self
            .chain
            .cipher
            .encrypt_inout_detached(&self.chain.nonce(), &header, InOutBuf::from(&mut out[start..]))
            .expect("a record is far shorter than AES-GCM's bound");
        out.extend_from_slice(&tag);

        self.chain.count(plain.len());
        if last {
            self.chain.next_key();
            self.rekey = false;
        }
        self.closed = kind == RecordKind::Close;
        Ok(())
    }

    /// Makes the next record the last under its key. A link calls this every ten minutes.
    pub const fn rekey(&mut self) {
        self.rekey = true;
    }

    /// Appends the record that announces the keys of a new handshake, and changes to them. The other
    /// end gives its opener the same secret.
    ///
    /// # Errors
    /// [`RecordError::Closed`] after a close; `out` is as it was.
    pub fn switch(&mut self, fresh: &Secret, out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.rekey = true;
        self.seal(RecordKind::Switch, &[], out)?;
        self.chain.take_in(fresh);
        self.session = session_of(fresh);
        Ok(())
    }

    /// Returns the value that stands for this direction's keys in a new handshake: see
    /// [`session_of`].
    #[must_use]
    pub const fn session(&self) -> &Secret {
        &self.session
    }
}

/// Opening end of the other direction.
pub struct Opener {
    chain: Chain,
    state: OpenerState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OpenerState {
    Open,
    /// The peer changed to the keys of a new handshake.
    Switching,
    Dead,
}

impl Opener {
    /// Decrypts `body` (ciphertext and tag, [`body_len`] bytes) in place and cuts the tag off.
    ///
    /// # Errors
    /// After any error the opener is dead and `body` holds no plain text.
    pub fn open(
        &mut self,
        header: [u8; HEADER_LEN],
        body: &mut Vec<u8>,
    ) -> Result<RecordKind, RecordError> {
        if self.state != OpenerState::Open {
            return Err(RecordError::Closed);
        }
        self.state = OpenerState::Dead;
        let kind = self.open_next(header, body)?;
        self.state = match kind {
            RecordKind::Data => OpenerState::Open,
            RecordKind::Switch => OpenerState::Switching,
            RecordKind::Close => OpenerState::Dead,
        };
        Ok(kind)
    }

    /// Changes to the keys of a new handshake, after the [`RecordKind::Switch`] that announced it.
    ///
    /// # Errors
    /// [`RecordError::Closed`] at any other time. Nothing was done.
    pub fn switch(&mut self, fresh: &Secret) -> Result<(), RecordError> {
        if self.state != OpenerState::Switching {
            return Err(RecordError::Closed);
        }
        self.chain.take_in(fresh);
        self.state = OpenerState::Open;
        Ok(())
    }

    fn open_next(
        &mut self,
        header: [u8; HEADER_LEN],
        body: &mut Vec<u8>,
    ) -> Result<RecordKind, RecordError> {
        let code = header[4] & !LAST_OF_KEY;
        let kind = RecordKind::of(code).ok_or(RecordError::UnknownKind { code })?;
        let last = header[4] & LAST_OF_KEY != 0;
        if body.len() != body_len(header)? {
            return Err(RecordError::Truncated);
        }
        let len = body.len() - TAG_LEN;
        if kind == RecordKind::Switch && !(last && len == 0) {
            return Err(RecordError::MalformedSwitch);
        }
        if !last && self.chain.ends_with(len) {
            return Err(RecordError::Overused);
        }
        let (text, tag) = body.split_at_mut(len);
        let tag = Tag::<Aes256Gcm>::try_from(&*tag).map_err(|_| RecordError::Truncated)?;
        self.chain
            .cipher
            .decrypt_inout_detached(&self.chain.nonce(), &header, InOutBuf::from(text), &tag)
            .map_err(|_| RecordError::Forged)?;
        body.truncate(len);
        self.chain.count(len);
        if last {
            self.chain.next_key();
        }
        Ok(kind)
    }
}

#[cfg(test)]
mod tests;
