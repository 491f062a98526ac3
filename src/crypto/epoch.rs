//! Keys of one epoch of a domain: a common RSA pair and a group secret.
//!
//! All members share the pair. The master draws the secret, wraps it **once** under the pair and
//! announces it with its signature.
//!
//! ```text
//! master:  draw ──► announcement = { domain, epoch, common SPKI, OAEP(common, group) } + PSS(master)
//! member:  pair and announcement, sealed in its link ──► verify the signature ──► unwrap the group
//! ```
//!
//! 1. An epoch is `(domain, number)`; both are signed, and the wrap is bound to them.
//! 2. A member unwraps only what its own master signed for the domain it is in.
//! 3. The master does one wrap and one signature per epoch, however many members there are.

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    keys::{Identity, IdentityKey, KeyBounds, KeyError, KeyPair, WrapKey, WrapPair},
    secret::{Secret, SecretBytes, labelled_hash},
    signed::Signed,
};
use crate::{
    model::{
        event::Event,
        ids::{Domain, Fingerprint, KeyEpoch},
        message::KeyInstall,
    },
    wire::codec::{self, CodecError},
};

const SIGN: &str = "chatchat/v1/epoch/announce";
const WRAP: &str = "chatchat/v1/epoch/group";
const DIGEST: &str = "chatchat/v1/epoch/print";

/// Longest announcement that is accepted, in bytes.
pub const ANNOUNCEMENT_LEN_MAX: usize = 4096;

/// Error from making or accepting an epoch's keys. No key was kept.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EpochError {
    /// The announcement cannot be decoded.
    #[error("malformed announcement: {0}")]
    Malformed(#[from] CodecError),
    /// A key is not valid, or the signature or the wrap is wrong.
    #[error("announcement refused: {0}")]
    Key(#[from] KeyError),
    /// The announcement is for another domain than the member's, or the master that signed it does
    /// not own the domain.
    #[error("announcement of another domain")]
    OtherDomain,
    /// The common pair is not the one that was announced.
    #[error("the common pair is not the announced one")]
    OtherPair,
}

#[derive(Serialize, Deserialize)]
struct Announcement {
    domain: Domain,
    epoch: KeyEpoch,
    common_spki: Vec<u8>,
    wrapped: Vec<u8>,
}

/// Keys of one epoch as a member receives them. They travel only sealed under the keys of its link.
pub struct KeyGrant {
    /// Common pair, PKCS#8 DER.
    pub pkcs8: SecretBytes,
    /// Announcement of the master, with its signature.
    pub announcement: Vec<u8>,
}

/// Keys of one epoch, as held by the master that drew them and by its members.
pub struct EpochKeys {
    domain: Domain,
    epoch: KeyEpoch,
    pair: WrapPair,
    announcement: Vec<u8>,
    group: Secret,
}

impl EpochKeys {
    /// Draws a group secret for the master's own domain and announces it. Takes milliseconds.
    ///
    /// # Errors
    /// [`EpochError::Key`]; [`EpochError::OtherDomain`] when the domain is not this master's.
    pub fn draw(
        rng: &mut impl CryptoRng,
        master: &Identity,
        domain: Domain,
        epoch: KeyEpoch,
        common: KeyPair,
        bounds: KeyBounds,
    ) -> Result<Self, EpochError> {
        if domain.master != master.node() {
            return Err(EpochError::OtherDomain);
        }
        let pair = WrapPair::new(common);
        let group = Secret::random(rng);
        let context = context(domain, epoch, pair.spki())?;
        let wrapped =
            WrapKey::from_spki(pair.spki(), bounds)?.wrap(rng, WRAP, &[&context], &group)?;
        let common_spki = pair.spki().to_vec();
        let body = codec::encode(&Announcement { domain, epoch, common_spki, wrapped })?;
        let proof = master.sign(rng, SIGN, &[&body])?;
        let announcement = Signed { body, proof }.encode()?;
        Ok(Self { domain, epoch, pair, announcement, group })
    }

    /// Accepts the keys that a member's master granted: verifies the signature, then does the only
    /// unwrap of this epoch. Takes milliseconds.
    ///
    /// # Errors
    /// Any [`EpochError`]. The common private key is used only after all other checks passed.
    pub fn accept(
        rng: &mut impl CryptoRng,
        master: &IdentityKey,
        domain: Domain,
        grant: &KeyGrant,
        bounds: KeyBounds,
    ) -> Result<Self, EpochError> {
        let signed = Signed::decode(&grant.announcement, ANNOUNCEMENT_LEN_MAX)?;
        let verified = master.verify(SIGN, &[&signed.body], &signed.proof)?;
        let said: Announcement = codec::decode(&signed.body)?;
        if said.domain != domain || domain.master != master.node() {
            return Err(EpochError::OtherDomain);
        }
        let pair = WrapPair::new(KeyPair::from_pkcs8_der(&grant.pkcs8, bounds)?);
        if pair.spki() != said.common_spki {
            return Err(EpochError::OtherPair);
        }
        let context = context(domain, said.epoch, &said.common_spki)?;
        let group = pair.unwrap(verified, rng, WRAP, &[&context], &said.wrapped)?;
        let announcement = grant.announcement.clone();
        Ok(Self { domain, epoch: said.epoch, pair, announcement, group })
    }

    /// Returns the keys as a further member receives them.
    ///
    /// # Errors
    /// [`EpochError::Key`] when the pair cannot be encoded.
    pub fn grant(&self) -> Result<KeyGrant, EpochError> {
        let pkcs8 = self.pair.to_pkcs8_der()?;
        Ok(KeyGrant { pkcs8, announcement: self.announcement.clone() })
    }

    /// Returns the domain of the keys.
    #[must_use]
    pub const fn domain(&self) -> Domain {
        self.domain
    }

    /// Returns the number of the epoch within the domain.
    #[must_use]
    pub const fn epoch(&self) -> KeyEpoch {
        self.epoch
    }

    /// Returns the master's announcement with its signature.
    #[must_use]
    pub fn announcement(&self) -> &[u8] {
        &self.announcement
    }

    /// Returns a hash that identifies these keys without revealing them. All members of a domain
    /// get the same one for the same epoch.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        labelled_hash(DIGEST, &[&self.announcement])
    }

    /// Returns the event of a node that holds these keys from now on.
    #[must_use]
    pub fn held_event(&self) -> Event {
        let print = Fingerprint(self.digest());
        Event::KeyHeld { domain: self.domain(), epoch: self.epoch(), print }
    }

    /// Returns how many times this node used the common private key.
    #[must_use]
    pub fn unwraps(&self) -> u64 {
        self.pair.unwraps()
    }

    /// Returns the group secret, from which the senders' keys are derived.
    pub(super) const fn group(&self) -> &Secret {
        &self.group
    }
}

fn context(domain: Domain, epoch: KeyEpoch, common_spki: &[u8]) -> Result<Vec<u8>, CodecError> {
    codec::encode(&(domain, epoch, common_spki))
}

impl KeyGrant {
    /// Builds a grant from the parts as received.
    #[must_use]
    pub fn new(pkcs8: Vec<u8>, announcement: Vec<u8>) -> Self {
        Self { pkcs8: Zeroizing::new(pkcs8), announcement }
    }
}

impl From<KeyGrant> for KeyInstall {
    fn from(mut grant: KeyGrant) -> Self {
        let pkcs8 = std::mem::take(&mut *grant.pkcs8);
        Self { pkcs8, announcement: grant.announcement }
    }
}

impl From<KeyInstall> for KeyGrant {
    fn from(mut install: KeyInstall) -> Self {
        let (pkcs8, announcement) = (&mut install.pkcs8, &mut install.announcement);
        Self::new(std::mem::take(pkcs8), std::mem::take(announcement))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::ids::Incarnation,
        testing::keys::{WEAK, domain_of, epoch_of, identity, pair, rng},
    };

    fn accept(master: u8, domain: Domain, grant: &KeyGrant) -> Result<EpochKeys, EpochError> {
        let key = IdentityKey::from_spki(identity(master).spki(), WEAK).expect("a key");
        EpochKeys::accept(&mut rng(77), &key, domain, grant, WEAK)
    }

    #[test]
    fn members_unwrap_the_masters_secret_once() {
        let drawn = epoch_of(1, 3);
        assert_eq!(drawn.unwraps(), 0);
        let taken = accept(1, domain_of(1), &drawn.grant().expect("it encodes")).expect("taken");
        assert_eq!(taken.group().expose(), drawn.group().expose());
        assert_eq!((taken.epoch(), taken.unwraps()), (KeyEpoch(3), 1));
        assert_eq!(taken.digest(), drawn.digest());
        // A member can pass on the grant that it received, byte for byte.
        let again = accept(1, domain_of(1), &taken.grant().expect("it encodes")).expect("taken");
        assert_eq!(again.announcement(), drawn.announcement());
    }

    #[test]
    fn keys_of_another_master_domain_or_pair_are_refused() {
        let grant = epoch_of(1, 3).grant().expect("it encodes");
        let bad_signature = EpochError::Key(KeyError::BadSignature);
        assert_eq!(accept(2, domain_of(2), &grant).err(), Some(bad_signature));
        let next_life = Domain { incarnation: Incarnation(2), ..domain_of(1) };
        assert_eq!(accept(1, next_life, &grant).err(), Some(EpochError::OtherDomain));
        let swapped = KeyGrant { pkcs8: pair(9).to_pkcs8_der().expect("it encodes"), ..grant };
        assert_eq!(accept(1, domain_of(1), &swapped).err(), Some(EpochError::OtherPair));
        let foreign =
            EpochKeys::draw(&mut rng(1), &identity(1), domain_of(2), KeyEpoch(1), pair(9), WEAK);
        assert_eq!(foreign.err(), Some(EpochError::OtherDomain));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn announcement_with_a_flipped_bit_is_refused(
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let mut grant = epoch_of(1, 3).grant().expect("it encodes");
            let at = at.index(grant.announcement.len());
            grant.announcement[at] ^= 1 << bit;
            prop_assert!(accept(1, domain_of(1), &grant).is_err());
        }
    }
}
