//! New handshake of a link that is open already: two messages under the link's own seal, from which
//! both ends get a fresh secret for their records.
//!
//! ```text
//!  dialer                                              acceptor
//!  RenewalParams::request ── nonce, key, signature ──► RenewalParams::answer
//!  AwaitRenewal ◄──────── nonce, wrap, signature ─────   verifies, wraps, signs
//!    verifies, then unwraps
//! ```
//!
//! 1. Both signatures and the wrap cover the link's session (see
//!    [`session_of`](crate::crypto::record::session_of)) and the bytes of the messages so far: a
//!    message of another link, or of an earlier handshake of this one, is refused.
//! 2. The dialer's private key decrypts only after the acceptor's signature was verified, and serves
//!    one handshake.
//! 3. The fresh secret depends on what was wrapped for that key alone: identities, and even the
//!    link's own keys, do not give it.

use std::sync::Arc;

use rand_core::CryptoRng;

use super::{
    HandshakeFault, key_fault, malformed,
    messages::{RenewalReply, RenewalRequest},
};
use crate::{
    crypto::{
        keys::{Identity, IdentityKey, KeyBounds, WrapKey, WrapPair},
        secret::{Secret, labelled_hash},
        signed::Signed,
    },
    wire::{PLAIN_LEN_MAX, codec},
};

const SIGN_REQUEST: &str = "chatchat/v1/renewal/request";
const SIGN_REPLY: &str = "chatchat/v1/renewal/reply";
const WRAP: &str = "chatchat/v1/renewal/wrap";
const KEYS: &str = "chatchat/v1/renewal/keys";

const REQUEST: &str = "request for a new handshake";
const REPLY: &str = "reply of a new handshake";

/// Properties of one end in one new handshake.
pub struct RenewalParams {
    /// Session of the keys that the link has now.
    pub session: Secret,
    /// Identity of this end.
    pub identity: Arc<Identity>,
    /// Identity key of the peer, SPKI DER, as the link's first handshake verified it.
    pub peer_spki: Vec<u8>,
    /// Range of key sizes that this end accepts.
    pub bounds: KeyBounds,
}

impl RenewalParams {
    /// Makes the dialer's message. Signs once: takes milliseconds.
    ///
    /// # Errors
    /// [`HandshakeFault::Key`] when the signature fails.
    pub fn request(
        self,
        pair: WrapPair,
        rng: &mut impl CryptoRng,
    ) -> Result<(AwaitRenewal, Vec<u8>), HandshakeFault> {
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let request = RenewalRequest { nonce, handshake_spki: pair.spki().to_vec() };
        let writing = |why| malformed(REQUEST, &why);
        let body = codec::encode(&request).map_err(writing)?;
        let session: &[u8] = self.session.expose();
        let proof =
            self.identity.sign(rng, SIGN_REQUEST, &[session, &body]).map_err(key_fault(REQUEST))?;
        let request = Signed { body, proof }.encode().map_err(writing)?;
        Ok((AwaitRenewal { params: self, pair, request: request.clone() }, request))
    }

    /// Verifies the dialer's message, wraps a new secret for its key and signs both messages.
    /// Returns the fresh secret of the link and the reply. Takes milliseconds.
    ///
    /// # Errors
    /// [`HandshakeFault::Malformed`], [`HandshakeFault::Key`]. Nothing was wrapped or signed for a
    /// message whose signature does not hold.
    pub fn answer(
        self,
        request: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(Secret, Vec<u8>), HandshakeFault> {
        let reading = |why| malformed(REQUEST, &why);
        let signed = Signed::decode(request, PLAIN_LEN_MAX).map_err(reading)?;
        let session: &[u8] = self.session.expose();
        self.peer(REQUEST)?
            .verify(SIGN_REQUEST, &[session, &signed.body], &signed.proof)
            .map_err(key_fault(REQUEST))?;
        let asked: RenewalRequest = codec::decode(&signed.body).map_err(reading)?;
        let key =
            WrapKey::from_spki(&asked.handshake_spki, self.bounds).map_err(key_fault(REQUEST))?;

        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let k0 = Secret::random(rng);
        let wrapped =
            key.wrap(rng, WRAP, &[session, request, &nonce], &k0).map_err(key_fault(REPLY))?;
        let writing = |why| malformed(REPLY, &why);
        let body = codec::encode(&RenewalReply { nonce, wrapped }).map_err(writing)?;
        let proof = self
            .identity
            .sign(rng, SIGN_REPLY, &[session, request, &body])
            .map_err(key_fault(REPLY))?;
        let reply = Signed { body, proof }.encode().map_err(writing)?;
        Ok((fresh_secret(&k0, session, request, &reply), reply))
    }

    fn peer(&self, what: &'static str) -> Result<IdentityKey, HandshakeFault> {
        IdentityKey::from_spki(&self.peer_spki, self.bounds).map_err(key_fault(what))
    }
}

/// Dialer that has sent its request and waits for the reply.
pub struct AwaitRenewal {
    params: RenewalParams,
    pair: WrapPair,
    request: Vec<u8>,
}

impl AwaitRenewal {
    /// Verifies the reply's signature, and only then unwraps. Returns the fresh secret of the link.
    /// The pair is erased. Takes milliseconds.
    ///
    /// # Errors
    /// [`HandshakeFault::Malformed`], [`HandshakeFault::Key`]. The private key was used only if the
    /// signature held.
    pub fn on_reply(
        self,
        reply: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Secret, HandshakeFault> {
        let Self { params, pair, request } = self;
        let reading = |why| malformed(REPLY, &why);
        let signed = Signed::decode(reply, PLAIN_LEN_MAX).map_err(reading)?;
        let session: &[u8] = params.session.expose();
        let verified = params
            .peer(REPLY)?
            .verify(SIGN_REPLY, &[session, &request, &signed.body], &signed.proof)
            .map_err(key_fault(REPLY))?;
        let said: RenewalReply = codec::decode(&signed.body).map_err(reading)?;
        let k0 = pair
            .unwrap(verified, rng, WRAP, &[session, &request, &said.nonce], &said.wrapped)
            .map_err(key_fault(REPLY))?;
        Ok(fresh_secret(&k0, session, &request, reply))
    }
}

/// Derives the secret that both directions take in: fresh, and bound to the link and to both
/// messages.
fn fresh_secret(k0: &Secret, session: &[u8], request: &[u8], reply: &[u8]) -> Secret {
    Secret::extract(&labelled_hash(KEYS, &[session, request, reply]), k0)
}

#[cfg(test)]
mod tests;
