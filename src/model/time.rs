//! Points in time: the seam's two clocks, as values.
//!
//! They are the only thing that the model takes from the seam, so that a node's tables and its
//! `Env` speak of the same instants.

pub use dst_env::time::{Mono, Wall};
