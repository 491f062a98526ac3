//! Join tokens, and the guards and bearers that are derived from them.
//!
//! A join token is made for one node (or n) and given to an operator. Two values are derived from
//! its secret. The *guard* authenticates a Hello, so that a stranger's Hello costs no RSA
//! operation; every master knows it. The *bearer* enrols a node; the store keeps only its
//! SHA-256, so that a copy of the store is not enough to enrol. An enrolled node gets a guard of
//! its own for all later Hellos.
//!
//! 1. The text of a token is read strictly and in one spelling only.
//! 2. A guard is a filter, never a credential: only an enrolled identity or a bearer admits a
//!    node.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::model::{
    ids::{Fingerprint, Malformed, NodeId, Role},
    rows::JoinToken,
};

/// Number of leading bytes of a master's fingerprint that a token shows.
pub const FINGERPRINT_PREFIX_LEN: usize = 8;

const FORMAT: &str = "CHAT1";
const MALFORMED: Malformed =
    Malformed { what: "join token", why: "want CHAT1.FINGERPRINT.ID.SECRET as it was printed" };

/// Join token, as an operator or a joining node holds it.
pub struct JoinSecret {
    /// First bytes of the fingerprint of the master or cluster key that the token was made for.
    /// They only detect a token of another cluster; trust comes from the whole fingerprint, which
    /// is pinned separately.
    pub fingerprint_prefix: [u8; FINGERPRINT_PREFIX_LEN],
    /// Public id of the token.
    pub id: [u8; 8],
    secret: Secret,
}

impl JoinSecret {
    /// Draws a new token.
    #[must_use]
    pub fn random(rng: &mut impl CryptoRng, made_for: &Fingerprint) -> Self {
        let mut fingerprint_prefix = [0; FINGERPRINT_PREFIX_LEN];
        fingerprint_prefix.copy_from_slice(&made_for.0[..FINGERPRINT_PREFIX_LEN]);
        let mut id = [0; 8];
        rng.fill_bytes(&mut id);
        Self { fingerprint_prefix, id, secret: Secret::random(rng) }
    }

    /// Reads a token from the text that [`Self::text`] wrote.
    ///
    /// # Errors
    /// [`Malformed`], which quotes nothing of the text.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let parts: Vec<_> = text.trim().splitn(5, '.').collect();
        let &[FORMAT, prefix, id, secret] = parts.as_slice() else { return Err(MALFORMED) };
        let mut read = Self {
            fingerprint_prefix: [0; FINGERPRINT_PREFIX_LEN],
            id: [0; 8],
            secret: URL_SAFE_NO_PAD
                .decode(secret)
                .map(Zeroizing::new)
                .ok()
                .and_then(|bytes| Secret::from_slice(&bytes))
                .ok_or(MALFORMED)?,
        };
        hex::decode_to_slice(prefix, &mut read.fingerprint_prefix).map_err(|_| MALFORMED)?;
        hex::decode_to_slice(id, &mut read.id).map_err(|_| MALFORMED)?;
        if *read.text() != *text.trim() {
            return Err(MALFORMED);
        }
        Ok(read)
    }

    /// Returns the token as text for the operator. Show it once; do not log it.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.secret.expose()));
        Zeroizing::new(format!(
            "{FORMAT}.{}.{}.{}",
            hex::encode(self.fingerprint_prefix),
            hex::encode(self.id),
            *secret
        ))
    }

    /// Returns whether the token may belong to a cluster with a key of this fingerprint.
    #[must_use]
    pub fn is_for(&self, fingerprint: &Fingerprint) -> bool {
        fingerprint.0[..FINGERPRINT_PREFIX_LEN] == self.fingerprint_prefix
    }

    /// Returns the guard that authenticates a Hello.
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard(self.derive(b"chatchat/v1/join/guard"))
    }

    /// Returns the bearer that enrols a node.
    #[must_use]
    pub fn bearer(&self) -> Secret {
        self.derive(b"chatchat/v1/join/bearer")
    }

    /// Returns the SHA-256 of the bearer, the only form of it that the store keeps.
    #[must_use]
    pub fn bearer_sha256(&self) -> [u8; 32] {
        bearer_sha256(&self.bearer())
    }

    /// Returns the row that the store keeps of it, for so many workers until `ends_at_ms`.
    #[must_use]
    pub fn row(&self, uses_left: u32, ends_at_ms: u64) -> JoinToken {
        JoinToken {
            id: self.id,
            guard: *self.guard().expose(),
            bearer_sha256: self.bearer_sha256(),
            role: Role::Worker,
            uses_left,
            ends_at_ms,
        }
    }

    fn derive(&self, label: &[u8]) -> Secret {
        let mac = Zeroizing::new(mac_over(self.secret.expose(), &[label]));
        Secret::from_slice(&*mac).expect("an HMAC-SHA-256 has 32 bytes")
    }
}

/// Returns the SHA-256 of a bearer, the only form of it that the store keeps.
#[must_use]
pub fn bearer_sha256(bearer: &Secret) -> [u8; 32] {
    Sha256::digest(bearer.expose()).into()
}

/// Returns whether the bearer has the hash that the store keeps. Constant time.
#[must_use]
pub fn bearer_matches(bearer: &Secret, kept_sha256: &[u8; 32]) -> bool {
    bearer_sha256(bearer).ct_eq(kept_sha256).into()
}

/// Id of the guard that a Hello was made with, as the Hello names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GuardId {
    /// Guard of the join token with this id.
    Token([u8; 8]),
    /// Own guard of an enrolled node or of a master.
    Node(NodeId),
}

/// Secret that authenticates Hellos.
#[derive(Clone)]
pub struct Guard(Secret);

impl Guard {
    /// Draws a guard for a node.
    #[must_use]
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self(Secret::random(rng))
    }

    /// Reads a guard from the bytes in the store or a node's directory; `None` unless there are 32.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Secret::from_slice(bytes).map(Self)
    }

    /// Returns the bytes of the guard, to be stored.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// Returns the proof for these bytes of a Hello: an HMAC-SHA-256.
    #[must_use]
    pub fn prove(&self, hello: &[u8]) -> [u8; 32] {
        mac_over(self.0.expose(), &[b"chatchat/v1/handshake/hello\0", hello])
    }

    /// Returns whether the proof was made with this guard over these bytes. Constant time.
    #[must_use]
    pub fn check(&self, hello: &[u8], proof: &[u8]) -> bool {
        self.prove(hello).as_slice().ct_eq(proof).into()
    }
}

fn mac_over(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::keys::rng;

    const MASTER: Fingerprint = Fingerprint([0xab; 32]);

    #[test]
    fn written_token_reads_back_and_other_spellings_are_refused() {
        let token = JoinSecret::random(&mut rng(1), &MASTER);
        let text = token.text();
        insta::assert_snapshot!(*text, @"CHAT1.abababababababab.023f37203a2476c4.JWamHMVcPKh127TMQcDet4n457-IGDY4Hsw2hrYO47g");
        let read = JoinSecret::parse(&text).expect("it was just written");
        assert_eq!((*read.text()).clone(), *text);
        assert_eq!(read.bearer_sha256(), token.bearer_sha256());
        assert!(read.is_for(&MASTER) && !read.is_for(&Fingerprint([0; 32])));
        // A line read from a file ends with a line break.
        assert!(JoinSecret::parse(&format!("{}\n", *text)).is_ok());
        for bad in [
            String::new(),
            text.to_uppercase(),
            text.replace("CHAT1", "CHAT2"),
            format!("{}.x", *text),
            format!("{}=", *text),
            text[..text.len() - 1].to_owned(),
            text.replace("ababab", "ABABAB"),
        ] {
            assert_eq!(JoinSecret::parse(&bad).err(), Some(MALFORMED), "{bad}");
        }
    }

    #[test]
    fn guard_bearer_and_secret_of_a_token_all_differ() {
        let token = JoinSecret::random(&mut rng(1), &MASTER);
        let all = [*token.secret.expose(), *token.guard().expose(), *token.bearer().expose()];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
        assert!(bearer_matches(&token.bearer(), &token.bearer_sha256()));
        assert!(!bearer_matches(&token.guard().0, &token.bearer_sha256()));
    }

    proptest! {
        #[test]
        fn proof_holds_only_for_its_guard_and_its_bytes(
            hello in prop::collection::vec(any::<u8>(), 1..100),
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let guard = Guard::random(&mut rng(1));
            let proof = guard.prove(&hello);
            prop_assert!(guard.check(&hello, &proof));
            prop_assert!(!Guard::random(&mut rng(2)).check(&hello, &proof));
            prop_assert!(!guard.check(&hello, &proof[..31]));
            let mut other = hello.clone();
            let index = at.index(other.len());
            other[index] ^= 1 << bit;
            prop_assert!(!guard.check(&other, &proof));
        }

        #[test]
        fn random_text_is_refused_as_a_token(text in "\\PC{0,120}") {
            prop_assert!(JoinSecret::parse(&text).is_err());
        }
    }
}
