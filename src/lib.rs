//! Chatchat: a self-hosted chat cluster that no single failure takes down.
//!
//! Code that decides is synchronous and takes `now`; code that waits is async and takes an
//! [`Env`](env::Env), which is the real world or a simulated one. A node is started with
//! `programs::run_master` or `programs::run_worker`. `ARCHITECTURE.md` draws the layers.
#![forbid(unsafe_code)]

pub mod api;
#[cfg(feature = "net")]
pub mod client;
pub mod comm;
pub mod config;
pub mod crypto;
#[cfg(feature = "net")]
pub mod http;
pub mod model;
pub mod node;
#[cfg(feature = "net")]
pub mod programs;
pub mod protocol;
pub mod replica;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod wire;

/// The seam between a node and its world, re-exported: see the package `dst-env`.
pub use dst_env as env;
