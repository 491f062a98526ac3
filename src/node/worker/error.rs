//! Reasons why a worker does not start.

use thiserror::Error;

use crate::{config::ConfigError, crypto::keys::KeyError, model::ids::Malformed};

/// Reason why a worker did not start. Nothing runs; what was on disk is as it was.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// Two settings contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The join token is malformed.
    #[error(transparent)]
    Token(#[from] Malformed),
    /// The identity or the guard cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file of the worker's own cannot be used.
    #[error("the file {file}: {why}")]
    Disk {
        /// Name of the file in the worker's directory.
        file: &'static str,
        /// Description of the problem.
        why: String,
    },
    /// The worker was never enrolled and has no join token.
    #[error("this worker was never enrolled: start it with a join token")]
    NotEnrolled,
    /// The worker knows no master's key, so it could trust none.
    #[error("no master's fingerprint is pinned: give one at least by --pins")]
    NoPins,
}
