//! Secret bytes and the derivation of keys from them.
//!
//! A [`Secret`] is 32 bytes on the heap, so that moving it leaves no copy behind; it erases
//! itself when dropped and can be neither printed nor serialized.

use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of every secret, in bytes.
pub const SECRET_LEN: usize = 32;

/// Secret of 32 bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Box<[u8; SECRET_LEN]>);

impl Secret {
    /// Draws a fresh secret.
    #[must_use]
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Box::new([0; SECRET_LEN]);
        rng.fill_bytes(&mut *bytes);
        Self(bytes)
    }

    /// Reads a secret from 32 bytes; `None` for any other length.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut secret = Box::new([0; SECRET_LEN]);
        if bytes.len() != SECRET_LEN {
            return None;
        }
        secret.copy_from_slice(bytes);
        Some(Self(secret))
    }

    /// Derives a uniform key from secret input, bound to `salt`: HKDF-Extract with SHA-256.
    #[must_use]
    pub fn extract(salt: &[u8], input: &Self) -> Self {
        let (mut prk, _) = Hkdf::<Sha256>::extract(Some(salt), input.expose());
        let secret = Self(Box::new(prk.into()));
        prk.as_mut_slice().zeroize();
        secret
    }

    /// Derives an independent secret under a label: HKDF-Expand with SHA-256. The parts of
    /// `context` are joined without separators, so each but the last must have a fixed length.
    #[must_use]
    pub fn expand(&self, label: &str, context: &[&[u8]]) -> Self {
        let mut out = Box::new([0; SECRET_LEN]);
        self.expand_into(label, context, &mut *out);
        Self(out)
    }

    /// Derives fewer bytes in the same way as [`Self::expand`], such as the base of a nonce.
    pub(crate) fn expand_into(&self, label: &str, context: &[&[u8]], out: &mut [u8]) {
        let mut info = Vec::with_capacity(label.len() + 1 + SECRET_LEN * 2);
        info.extend_from_slice(label.as_bytes());
        // No label holds a zero byte, so no label with its zero is a prefix of another.
        info.push(0);
        for part in context {
            info.extend_from_slice(part);
        }
        let hkdf = Hkdf::<Sha256>::from_prk(self.expose()).expect("32 bytes are a whole PRK");
        hkdf.expand(&info, out).expect("at most 32 bytes are asked for");
        info.zeroize();
    }

    /// Returns the bytes, for a cipher or a sealed message.
    #[must_use]
    pub fn expose(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }
}

impl ConstantTimeEq for Secret {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.as_slice().ct_eq(other.0.as_slice())
    }
}

/// Returns the SHA-256 over parts under a label. Each part is preceded by its length, so that two
/// different lists of parts never hash the same bytes.
#[must_use]
pub fn labelled_hash(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(label.as_bytes());
    hash.update([0]);
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Bytes that are erased when dropped, for an encoded message that holds secrets.
pub type SecretBytes = Zeroizing<Vec<u8>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_labels_and_contexts_give_independent_secrets() {
        let root = Secret::from_slice(&[7; 32]).expect("32 bytes");
        let all = [
            root.expand("a", &[]),
            root.expand("b", &[]),
            root.expand("a", &[b"x"]),
            root.expand("ab", &[]),
            Secret::extract(b"salt", &root),
            Secret::extract(b"tlas", &root),
        ];
        for (i, one) in all.iter().enumerate() {
            for other in &all[i + 1..] {
                assert!(!bool::from(one.ct_eq(other)));
            }
        }
        assert!(bool::from(root.expand("a", &[]).ct_eq(&all[0])));
    }

    #[test]
    fn hashes_differ_when_the_same_bytes_are_split_differently() {
        assert_ne!(labelled_hash("l", &[b"ab", b"c"]), labelled_hash("l", &[b"a", b"bc"]));
        assert_ne!(labelled_hash("l", &[b"ab"]), labelled_hash("l", &[b"ab", b""]));
    }
}
