//! Who may knock and who may come in: join tokens, guards and bearers.
//!
//! A join token is made for one node (or n) and given to an operator. From its secret come two
//! values. The *guard* authenticates a Hello, so that a stranger costs no RSA operation; every
//! master knows it. The *bearer* enrols; the store keeps only its SHA-256, so who reads the store
//! cannot enrol. An enrolled node gets a guard of its own for all later Hellos.
//!
//! 1. The text of a token is read strictly and in one spelling only.
//! 2. A guard is a filter, never a credential: what admits is the identity, or a bearer.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::model::ids::{Fingerprint, Malformed, NodeId};

/// How many bytes of a master's fingerprint a token shows.
pub const FINGERPRINT_PREFIX_LEN: usize = 8;

const FORM: &str = "CHAT1";
const MALFORMED: Malformed =
    Malformed { what: "join token", why: "want CHAT1.FINGERPRINT.ID.SECRET as it was printed" };

/// A join token in an operator's or a joining node's hands.
pub struct JoinSecret {
    /// The beginning of the fingerprint of the master or cluster key that it was made for. It
    /// tells a token of another cluster; what is trusted is the whole fingerprint, pinned apart.
    pub fingerprint_prefix: [u8; FINGERPRINT_PREFIX_LEN],
    /// Its public id.
    pub id: [u8; 8],
    secret: Secret,
}

impl JoinSecret {
    /// Draws a new one.
    #[must_use]
    pub fn random(rng: &mut impl CryptoRng, made_for: &Fingerprint) -> Self {
        let mut fingerprint_prefix = [0; FINGERPRINT_PREFIX_LEN];
        fingerprint_prefix.copy_from_slice(&made_for.0[..FINGERPRINT_PREFIX_LEN]);
        let mut id = [0; 8];
        rng.fill_bytes(&mut id);
        Self { fingerprint_prefix, id, secret: Secret::random(rng) }
    }

    /// Reads the text that [`Self::text`] wrote.
    ///
    /// # Errors
    /// [`Malformed`], without a word of the text.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let parts: Vec<_> = text.trim().splitn(5, '.').collect();
        let &[FORM, prefix, id, secret] = parts.as_slice() else { return Err(MALFORMED) };
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

    /// The token as it is handed over. Show it once; do not log it.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.secret.expose()));
        Zeroizing::new(format!(
            "{FORM}.{}.{}.{}",
            hex::encode(self.fingerprint_prefix),
            hex::encode(self.id),
            *secret
        ))
    }

    /// Whether it may be for a cluster one of whose keys has this fingerprint.
    #[must_use]
    pub fn is_for(&self, fingerprint: &Fingerprint) -> bool {
        fingerprint.0[..FINGERPRINT_PREFIX_LEN] == self.fingerprint_prefix
    }

    /// What authenticates a Hello.
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard(self.derive(b"chatchat/v1/join/guard"))
    }

    /// What enrols.
    #[must_use]
    pub fn bearer(&self) -> Secret {
        self.derive(b"chatchat/v1/join/bearer")
    }

    /// What the store keeps of the bearer.
    #[must_use]
    pub fn bearer_sha256(&self) -> [u8; 32] {
        bearer_sha256(&self.bearer())
    }

    fn derive(&self, label: &[u8]) -> Secret {
        let mac = Zeroizing::new(mac_over(self.secret.expose(), &[label]));
        Secret::from_slice(&*mac).expect("an HMAC-SHA-256 has 32 bytes")
    }
}

/// What the store keeps of a bearer.
#[must_use]
pub fn bearer_sha256(bearer: &Secret) -> [u8; 32] {
    Sha256::digest(bearer.expose()).into()
}

/// Whether this is the bearer of which the store keeps this hash. Constant time.
#[must_use]
pub fn bearer_matches(bearer: &Secret, kept_sha256: &[u8; 32]) -> bool {
    bearer_sha256(bearer).ct_eq(kept_sha256).into()
}

/// By what a Hello says which guard it was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GuardId {
    /// A join token's.
    Token([u8; 8]),
    /// An enrolled node's own, or a master's.
    Node(NodeId),
}

/// Authenticates Hellos.
#[derive(Clone)]
pub struct Guard(Secret);

impl Guard {
    /// Draws a node's own guard.
    #[must_use]
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self(Secret::random(rng))
    }

    /// Takes the bytes that the store or a node's directory keeps; `None` unless there are 32.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Secret::from_slice(bytes).map(Self)
    }

    /// The bytes to keep.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// The proof that goes with these bytes of a Hello.
    #[must_use]
    pub fn prove(&self, hello: &[u8]) -> [u8; 32] {
        mac_over(self.0.expose(), &[b"chatchat/v1/handshake/hello\0", hello])
    }

    /// Whether the proof was made with this guard over these bytes. Constant time.
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
    use crate::crypto::keys::for_tests::rng;

    const MASTER: Fingerprint = Fingerprint([0xab; 32]);

    #[test]
    fn a_token_reads_back_what_it_wrote_and_in_that_spelling_only() {
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
    fn guard_and_bearer_are_unlike_each_other_and_the_secret() {
        let token = JoinSecret::random(&mut rng(1), &MASTER);
        let all = [*token.secret.expose(), *token.guard().expose(), *token.bearer().expose()];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
        assert!(bearer_matches(&token.bearer(), &token.bearer_sha256()));
        assert!(!bearer_matches(&token.guard().0, &token.bearer_sha256()));
    }

    proptest! {
        #[test]
        fn a_proof_holds_for_its_guard_and_its_bytes_only(
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
        fn no_text_breaks_the_reader(text in "\\PC{0,120}") {
            prop_assert!(JoinSecret::parse(&text).is_err());
        }
    }
}
