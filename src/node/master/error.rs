//! Reasons why a master does not run.

use thiserror::Error;

use crate::{
    config::ConfigError,
    crypto::{epoch::EpochError, keys::KeyError},
    model::rows::StoreError,
};

/// Reason why a master does not run. It has let go of everything.
#[derive(Debug, Error)]
pub enum NodeError {
    /// Two settings contradict each other.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// A key could not be read, kept or made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The first common key could not be drawn.
    #[error("common key: {0}")]
    Epoch(#[from] EpochError),
    /// The same identity is alive elsewhere.
    #[error(
        "this identity is in use by the master at {at}; give each master a data directory of its own"
    )]
    InUse {
        /// Its link address.
        at: String,
    },
    /// A newer life of this very node is registered.
    #[error("a newer life of this node is registered; this one stops")]
    Superseded,
    /// The store took this master off its list, as it was silent for too long.
    #[error("the store took this master off its list, as it was silent for too long")]
    Unlisted,
    /// The store refused for good.
    #[error("the store refused: {0}")]
    Store(StoreError),
    /// The world is shutting down.
    #[error("the world is shutting down")]
    Cancelled,
}
