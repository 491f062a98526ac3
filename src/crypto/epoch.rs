//! One epoch of a domain's common key: the RSA pair that members share, and the group secret
//! that the master draws, wraps **once** under that pair and announces with its signature.
//!
//! ```text
//! master:  draw ──► announcement = { domain, epoch, common SPKI, OAEP(common, group) } + PSS(master)
//! member:  pair and announcement, sealed in its link ──► pinned? signed? ──► unwrap the group
//! ```
//!
//! 1. An epoch is `(domain, number)`; both are signed, and the wrap is bound to them.
//! 2. A member unwraps only what its own master signed for the domain it is in.
//! 3. However many members, the master does one wrap and one signature per epoch.

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
    model::ids::{Domain, KeyEpoch},
    wire::codec::{self, CodecError},
};

const SIGN: &str = "chatchat/v1/epoch/announce";
const WRAP: &str = "chatchat/v1/epoch/group";
const PRINT: &str = "chatchat/v1/epoch/print";

/// The longest announcement that is looked at, in bytes.
pub const ANNOUNCEMENT_LEN_MAX: usize = 4096;

/// Why an epoch's keys were not made or not taken. No key was kept.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EpochError {
    /// The announcement does not read as one.
    #[error("malformed announcement: {0}")]
    Malformed(#[from] CodecError),
    /// A key is no key, or the signature or the wrap is wrong.
    #[error("announcement refused: {0}")]
    Key(#[from] KeyError),
    /// It is of another domain than the one that the member is in, or signed by a master for
    /// the domain of another.
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

/// What a member is given of an epoch. Sealed under its link's keys and under nothing else.
pub struct KeyGrant {
    /// The common pair, PKCS#8 DER.
    pub pkcs8: SecretBytes,
    /// The master's announcement, as it was signed.
    pub announcement: Vec<u8>,
}

/// One epoch's keys, on the master that drew them and on its members.
pub struct EpochKeys {
    domain: Domain,
    epoch: KeyEpoch,
    pair: WrapPair,
    announcement: Vec<u8>,
    group: Secret,
}

impl EpochKeys {
    /// Draws a group secret for the master's own domain and announces it. Milliseconds.
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

    /// Takes what a member's master granted: the signature is verified, then the one unwrap of
    /// this epoch done. Milliseconds.
    ///
    /// # Errors
    /// Any [`EpochError`]; the common pair was used only if all but the wrap was in order.
    pub fn accept(
        rng: &mut impl CryptoRng,
        master: &IdentityKey,
        domain: Domain,
        grant: &KeyGrant,
        bounds: KeyBounds,
    ) -> Result<Self, EpochError> {
        let signed = Signed::decode(&grant.announcement, ANNOUNCEMENT_LEN_MAX)?;
        master.verify(SIGN, &[&signed.body], &signed.proof)?;
        let said: Announcement = codec::decode(&signed.body)?;
        if said.domain != domain || domain.master != master.node() {
            return Err(EpochError::OtherDomain);
        }
        let pair = WrapPair::new(KeyPair::from_pkcs8_der(&grant.pkcs8, bounds)?);
        if pair.spki() != said.common_spki {
            return Err(EpochError::OtherPair);
        }
        let context = context(domain, said.epoch, &said.common_spki)?;
        let group = pair.unwrap(rng, WRAP, &[&context], &said.wrapped)?;
        let announcement = grant.announcement.clone();
        Ok(Self { domain, epoch: said.epoch, pair, announcement, group })
    }

    /// What a further member is given.
    ///
    /// # Errors
    /// [`EpochError::Key`] when the pair cannot be encoded.
    pub fn grant(&self) -> Result<KeyGrant, EpochError> {
        let pkcs8 = self.pair.to_pkcs8_der()?;
        Ok(KeyGrant { pkcs8, announcement: self.announcement.clone() })
    }

    /// Whose key it is.
    #[must_use]
    pub const fn domain(&self) -> Domain {
        self.domain
    }

    /// Its number within the domain.
    #[must_use]
    pub const fn epoch(&self) -> KeyEpoch {
        self.epoch
    }

    /// The master's announcement, as it was signed.
    #[must_use]
    pub fn announcement(&self) -> &[u8] {
        &self.announcement
    }

    /// Names these keys without telling them: members of a domain agree on it per epoch.
    #[must_use]
    pub fn print(&self) -> [u8; 32] {
        labelled_hash(PRINT, &[&self.announcement])
    }

    /// How many times the common private key was used here.
    #[must_use]
    pub fn unwraps(&self) -> u64 {
        self.pair.unwraps()
    }

    /// What senders' keys are derived from.
    pub(super) const fn group(&self) -> &Secret {
        &self.group
    }
}

fn context(domain: Domain, epoch: KeyEpoch, common_spki: &[u8]) -> Result<Vec<u8>, CodecError> {
    codec::encode(&(domain, epoch, common_spki))
}

impl KeyGrant {
    /// Takes the parts as they were received.
    #[must_use]
    pub fn new(pkcs8: Vec<u8>, announcement: Vec<u8>) -> Self {
        Self { pkcs8: Zeroizing::new(pkcs8), announcement }
    }
}

#[cfg(test)]
pub(crate) mod for_tests {
    use super::*;
    use crate::{
        crypto::keys::for_tests::{WEAK, identity, pair, rng},
        model::ids::Incarnation,
    };

    pub(crate) fn domain_of(master: u8) -> Domain {
        Domain { master: identity(master).node(), incarnation: Incarnation(1) }
    }

    /// The keys of one epoch of a numbered master.
    pub(crate) fn epoch_of(master: u8, number: u64) -> EpochKeys {
        let seed = u8::try_from(number).expect("a small number");
        EpochKeys::draw(
            &mut rng(seed),
            &identity(master),
            domain_of(master),
            KeyEpoch(number),
            pair(100 + seed),
            WEAK,
        )
        .expect("its own domain")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        for_tests::{domain_of, epoch_of},
        *,
    };
    use crate::{
        crypto::keys::for_tests::{WEAK, identity, pair, rng},
        model::ids::Incarnation,
    };

    fn accept(master: u8, domain: Domain, grant: &KeyGrant) -> Result<EpochKeys, EpochError> {
        let key = IdentityKey::from_spki(identity(master).spki(), WEAK).expect("a key");
        EpochKeys::accept(&mut rng(77), &key, domain, grant, WEAK)
    }

    #[test]
    fn members_get_the_secret_that_the_master_drew_by_one_unwrap() {
        let drawn = epoch_of(1, 3);
        assert_eq!(drawn.unwraps(), 0);
        let taken = accept(1, domain_of(1), &drawn.grant().expect("it encodes")).expect("taken");
        assert_eq!(taken.group().expose(), drawn.group().expose());
        assert_eq!((taken.epoch(), taken.unwraps()), (KeyEpoch(3), 1));
        assert_eq!(taken.print(), drawn.print());
        // A member can pass on what it was given, byte for byte.
        let again = accept(1, domain_of(1), &taken.grant().expect("it encodes")).expect("taken");
        assert_eq!(again.announcement(), drawn.announcement());
    }

    #[test]
    fn another_master_domain_or_pair_is_refused() {
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
        fn any_flipped_bit_of_an_announcement_is_refused(
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
