//! Maker of the common keys of a master's domain, away from its driver.

use std::sync::Arc;

use super::NodeError;
use crate::{
    comm::key_source::{KeyKind, KeySource},
    crypto::{
        epoch::{EpochError, EpochKeys},
        keys::{Identity, KeyPair},
    },
    env::Env,
    model::{
        ids::{Domain, KeyEpoch},
        message::Direct,
    },
};

/// Parts that all keys of a domain are made of.
#[derive(Clone)]
pub(super) struct KeyMaker {
    pub(super) source: Arc<dyn KeySource>,
    pub(super) identity: Arc<Identity>,
    pub(super) domain: Domain,
    /// Size of the common pair, in bits.
    pub(super) bits: usize,
}

/// Keys of one epoch, and the message that brings them to a member.
pub(super) struct MadeKeys {
    pub(super) keys: Arc<EpochKeys>,
    pub(super) message: Direct,
}

impl KeyMaker {
    /// Draws the keys of an epoch from a fresh pair, off the async threads.
    pub(super) async fn draw(
        &self,
        env: &Env,
        epoch: KeyEpoch,
        pair: KeyPair,
    ) -> Result<Arc<EpochKeys>, NodeError> {
        let (identity, domain) = (Arc::clone(&self.identity), self.domain);
        let (bounds, mut rng) = (self.source.bounds(), env.rng("common-key"));
        let drawn = env
            .compute(move || EpochKeys::draw(&mut rng, &identity, domain, epoch, pair, bounds))
            .await
            .map_err(|_| NodeError::Cancelled)?;
        Ok(Arc::new(drawn?))
    }

    /// Makes the keys of an epoch from a new pair.
    pub(super) async fn make(&self, env: &Env, epoch: KeyEpoch) -> Result<MadeKeys, NodeError> {
        let pair = self.source.generate(env, KeyKind::Common, self.bits).await?;
        let keys = self.draw(env, epoch, pair).await?;
        let message = install_message(&keys)?;
        Ok(MadeKeys { keys, message })
    }
}

/// Returns the message that brings keys to a member.
pub(super) fn install_message(keys: &EpochKeys) -> Result<Direct, EpochError> {
    Ok(Direct::KeyInstall(keys.grant()?.into()))
}
