//! RSA keys, each with exactly one use.
//!
//! | pair, with its public half | use | life |
//! |---|---|---|
//! | [`Identity`], [`IdentityKey`] | PSS only | long, in the node's directory, pinned by fingerprint |
//! | [`WrapPair`], [`WrapKey`] | OAEP only | an hour (handshake) or an epoch (common key), never stored |
//!
//! 1. A [`KeyPair`] is consumed when it becomes one of the two: a key that signs cannot unwrap.
//! 2. The fingerprint of a public key is the SHA-256 of its SPKI DER bytes as received. A second
//!    encoding of the same key is refused, so that a key has one fingerprint.
//! 3. Every key has e = 65537 and a size within the [`KeyBounds`] it was read under.
//! 4. Private operations are blinded and counted.

use std::sync::atomic::{AtomicU64, Ordering};

use rand_core::CryptoRng;
use rsa::{
    Oaep, Pss, RsaPrivateKey, RsaPublicKey,
    pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey},
    traits::PublicKeyParts,
};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::secret::{Secret, SecretBytes, labelled_hash};
use crate::model::ids::{Fingerprint, NodeId};

pub use crate::model::bounds::SPKI_LEN_MAX;
const PKCS8_LEN_MAX: usize = 4096;
const EXPONENT: [u8; 3] = [1, 0, 1];

/// Error from making, reading or using a key. Nothing was changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// The bytes are not an RSA key in the expected encoding, or its exponent is not 65537.
    #[error("not an RSA key with e = 65537 in plain DER")]
    Malformed,
    /// The key is too small to be safe or too large to be cheap.
    #[error("an RSA key of {bits} bits; want {min} to {max}")]
    Size {
        /// Size of the key, in bits.
        bits: usize,
        /// Smallest accepted size, in bits.
        min: usize,
        /// Largest accepted size, in bits.
        max: usize,
    },
    /// The signature was not made by this key over these bytes.
    #[error("a signature does not match")]
    BadSignature,
    /// The wrapped secret is for another key or context, or was changed.
    #[error("a wrapped secret does not open")]
    BadWrap,
    /// The private operation itself failed.
    #[error("an RSA operation failed: {why}")]
    Failed {
        /// Error text of the library.
        why: String,
    },
    /// The environment is shutting down and dropped the work.
    #[error("the work was dropped before it ran")]
    Cancelled,
    /// An existing key file cannot be used. It was left as it is.
    #[error(
        "the key file {file} cannot be used: {why}; restore it from a backup, or remove it and \
         join again as a new node"
    )]
    Unusable {
        /// Name of the file in the node's directory.
        file: String,
        /// Problem with the file.
        why: String,
    },
    /// A key file was not written.
    #[error(
        "the key file {file} cannot be written: {why}; see that the data directory is writable"
    )]
    NotWritten {
        /// Name of the file in the node's directory.
        file: String,
        /// Error text of the disk.
        why: String,
    },
}

fn failed(error: &rsa::Error) -> KeyError {
    KeyError::Failed { why: error.to_string() }
}

/// Range of accepted key sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyBounds {
    bits_min: usize,
    bits_max: usize,
}

impl KeyBounds {
    /// 2048 to 4096 bits, the bounds of every real node.
    pub const STANDARD: Self = Self { bits_min: 2048, bits_max: 4096 };

    /// Returns bounds that allow keys down to 1024 bits, which can be broken. Only for simulations
    /// and tests, whose keys protect nothing.
    #[must_use]
    pub const fn weak_for_simulation() -> Self {
        Self { bits_min: 1024, bits_max: 4096 }
    }

    const fn check(self, bits: usize) -> Result<(), KeyError> {
        if bits < self.bits_min || bits > self.bits_max {
            return Err(KeyError::Size { bits, min: self.bits_min, max: self.bits_max });
        }
        Ok(())
    }
}

/// Reads a public key strictly, as rules 2 and 3 of the module demand.
fn public_from_spki(spki: &[u8], bounds: KeyBounds) -> Result<RsaPublicKey, KeyError> {
    if spki.len() > SPKI_LEN_MAX {
        return Err(KeyError::Malformed);
    }
    let key = RsaPublicKey::from_public_key_der(spki).map_err(|_| KeyError::Malformed)?;
    if *key.e_bytes() != EXPONENT {
        return Err(KeyError::Malformed);
    }
    bounds.check(key.n().bits() as usize)?;
    let again = key.to_public_key_der().map_err(|_| KeyError::Malformed)?;
    if again.as_bytes() != spki {
        return Err(KeyError::Malformed);
    }
    Ok(key)
}

/// RSA pair that has no use yet.
pub struct KeyPair {
    private: RsaPrivateKey,
    spki: Vec<u8>,
}

impl KeyPair {
    /// Generates a pair. Takes from 5 ms (1024 bits) to over a second: do not call it on an async
    /// thread.
    ///
    /// # Errors
    /// [`KeyError::Size`] outside the bounds.
    pub fn generate(
        rng: &mut impl CryptoRng,
        bits: usize,
        bounds: KeyBounds,
    ) -> Result<Self, KeyError> {
        bounds.check(bits)?;
        let private = RsaPrivateKey::new(rng, bits).map_err(|error| failed(&error))?;
        Self::new(private, bounds)
    }

    /// Reads a pair from PKCS#8 DER.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], [`KeyError::Size`].
    pub fn from_pkcs8_der(der: &[u8], bounds: KeyBounds) -> Result<Self, KeyError> {
        if der.len() > PKCS8_LEN_MAX {
            return Err(KeyError::Malformed);
        }
        let private = RsaPrivateKey::from_pkcs8_der(der).map_err(|_| KeyError::Malformed)?;
        Self::new(private, bounds)
    }

    fn new(private: RsaPrivateKey, bounds: KeyBounds) -> Result<Self, KeyError> {
        let spki = private
            .as_public_key()
            .to_public_key_der()
            .map_err(|_| KeyError::Malformed)?
            .into_vec();
        public_from_spki(&spki, bounds)?;
        Ok(Self { private, spki })
    }

    /// Returns the pair as PKCS#8 DER.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] when the library cannot encode it.
    pub fn to_pkcs8_der(&self) -> Result<SecretBytes, KeyError> {
        pkcs8_der(&self.private)
    }
}

fn pkcs8_der(private: &RsaPrivateKey) -> Result<SecretBytes, KeyError> {
    let der = private.to_pkcs8_der().map_err(|_| KeyError::Malformed)?;
    Ok(Zeroizing::new(der.as_bytes().to_vec()))
}

/// Returns the fingerprint of a public key: the SHA-256 of its SPKI DER bytes as they are.
#[must_use]
pub fn fingerprint(spki: &[u8]) -> Fingerprint {
    Fingerprint(Sha256::digest(spki).into())
}

/// Returns the id of the node that has this identity key.
#[must_use]
pub fn node_id(spki: &[u8]) -> NodeId {
    NodeId::of(&fingerprint(spki))
}

/// Long-lived pair of a node, used only to sign.
pub struct Identity {
    private: RsaPrivateKey,
    spki: Vec<u8>,
    signatures: AtomicU64,
}

impl Identity {
    /// Turns a pair into a node's identity.
    #[must_use]
    pub fn new(pair: KeyPair) -> Self {
        Self { private: pair.private, spki: pair.spki, signatures: AtomicU64::new(0) }
    }

    /// Signs `parts` under a label: PSS with SHA-256 and a salt of 32 bytes. Takes milliseconds.
    ///
    /// # Errors
    /// [`KeyError::Failed`] when the private operation does not check out.
    pub fn sign(
        &self,
        rng: &mut impl CryptoRng,
        label: &str,
        parts: &[&[u8]],
    ) -> Result<Vec<u8>, KeyError> {
        self.signatures.fetch_add(1, Ordering::Relaxed);
        self.private
            .sign_with_rng(rng, Pss::<Sha256>::new(), &labelled_hash(label, parts))
            .map_err(|error| failed(&error))
    }

    /// Returns the public half, SPKI DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Returns the fingerprint that operators pin.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.spki)
    }

    /// Returns the node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        node_id(&self.spki)
    }

    /// Returns how many signatures were made, for metrics and for tests that count operations.
    #[must_use]
    pub fn signatures(&self) -> u64 {
        self.signatures.load(Ordering::Relaxed)
    }

    /// Returns the pair as PKCS#8 DER, to be stored in the node's directory.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] when the library cannot encode it.
    pub fn to_pkcs8_der(&self) -> Result<SecretBytes, KeyError> {
        pkcs8_der(&self.private)
    }
}

/// Public half of another node's identity, used to verify.
#[derive(Clone)]
pub struct IdentityKey {
    key: RsaPublicKey,
    spki: Vec<u8>,
}

impl IdentityKey {
    /// Reads a key from SPKI DER bytes as received.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], [`KeyError::Size`].
    pub fn from_spki(spki: &[u8], bounds: KeyBounds) -> Result<Self, KeyError> {
        Ok(Self { key: public_from_spki(spki, bounds)?, spki: spki.to_vec() })
    }

    /// Verifies that `signature` is by this key over these parts under this label.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`].
    pub fn verify(
        &self,
        label: &str,
        parts: &[&[u8]],
        signature: &[u8],
    ) -> Result<Verified, KeyError> {
        self.key
            .verify(Pss::<Sha256>::new(), &labelled_hash(label, parts), signature)
            .map(|()| Verified(()))
            .map_err(|_| KeyError::BadSignature)
    }

    /// Returns the bytes that the key was read from.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Returns the fingerprint that operators pin.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.spki)
    }

    /// Returns the node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        node_id(&self.spki)
    }
}

/// Short-lived pair, used only to unwrap secrets.
pub struct WrapPair {
    private: RsaPrivateKey,
    spki: Vec<u8>,
    unwraps: AtomicU64,
}

/// Proof that a signature held. Only [`IdentityKey::verify`] makes one, so that no private key decrypts
/// what nobody signed.
#[derive(Debug)]
pub struct Verified(());

#[cfg(any(test, feature = "testing"))]
impl Verified {
    /// Returns one without any signature, for tests of what an attacker might try.
    #[must_use]
    pub const fn without_signature() -> Self {
        Self(())
    }
}

impl WrapPair {
    /// Turns a pair into one that unwraps.
    #[must_use]
    pub fn new(pair: KeyPair) -> Self {
        Self { private: pair.private, spki: pair.spki, unwraps: AtomicU64::new(0) }
    }

    /// Unwraps a secret that was wrapped under this label and context, after a signature over `wrapped`
    /// was verified: each verification allows one. Blinded; takes milliseconds.
    ///
    /// # Errors
    /// [`KeyError::BadWrap`], whatever the reason.
    pub fn unwrap(
        &self,
        _signed: Verified,
        rng: &mut impl CryptoRng,
        label: &str,
        context: &[&[u8]],
        wrapped: &[u8],
    ) -> Result<Secret, KeyError> {
        self.unwraps.fetch_add(1, Ordering::Relaxed);
        let plain = self
            .private
            .decrypt_blinded(rng, oaep(label, context), wrapped)
            .map(Zeroizing::new)
            .map_err(|_| KeyError::BadWrap)?;
        Secret::from_slice(&plain).ok_or(KeyError::BadWrap)
    }

    /// Returns the public half, SPKI DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Returns how many times the private key was used, for metrics and for tests that count
    /// operations.
    #[must_use]
    pub fn unwraps(&self) -> u64 {
        self.unwraps.load(Ordering::Relaxed)
    }

    /// Returns the pair as PKCS#8 DER: a common pair travels sealed in a Welcome.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] when the library cannot encode it.
    pub fn to_pkcs8_der(&self) -> Result<SecretBytes, KeyError> {
        pkcs8_der(&self.private)
    }
}

/// Public half of a [`WrapPair`], used to wrap secrets for it.
#[derive(Clone)]
pub struct WrapKey {
    key: RsaPublicKey,
}

impl WrapKey {
    /// Reads a key from SPKI DER bytes as received.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], [`KeyError::Size`].
    pub fn from_spki(spki: &[u8], bounds: KeyBounds) -> Result<Self, KeyError> {
        Ok(Self { key: public_from_spki(spki, bounds)? })
    }

    /// Wraps a secret with OAEP and SHA-256, bound to label and context.
    ///
    /// # Errors
    /// [`KeyError::Failed`] when the operation fails.
    pub fn wrap(
        &self,
        rng: &mut impl CryptoRng,
        label: &str,
        context: &[&[u8]],
        secret: &Secret,
    ) -> Result<Vec<u8>, KeyError> {
        self.key.encrypt(rng, oaep(label, context), secret.expose()).map_err(|error| failed(&error))
    }
}

fn oaep(label: &str, context: &[&[u8]]) -> Oaep<Sha256> {
    Oaep::new_with_label(labelled_hash(label, context).to_vec())
}

#[cfg(test)]
mod tests;
