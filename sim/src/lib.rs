//! The chat in the simulated world: a whole cluster, its people and its faults, from one seed.
//!
//! ```text
//!  story + seed -> plan -> cluster (nodes, store's host, people's machines) + faults
//!                              |
//!                          dst_world  (network, disks, clocks, machines, event log)
//!                              |
//!                          history, store, events -> oracles -> verdict
//! ```
//!
//! The command line `chatchat-sim` stands over [`run::run`]. What the simulated world leaves out
//! of the real one is listed in `sim/FIDELITY.md`.

#[cfg(not(madsim))]
compile_error!(
    "chatchat-sim needs `--cfg madsim`, which `.cargo/config.toml` sets; a RUSTFLAGS variable \
     replaces that file's flags: unset it, or add `--cfg madsim` to it"
);

#[cfg(madsim)]
pub mod bugs;
#[cfg(madsim)]
pub mod build;
#[cfg(madsim)]
pub mod cluster;
#[cfg(all(test, madsim))]
mod contracts;
#[cfg(madsim)]
pub mod deployment;
#[cfg(madsim)]
pub mod events;
#[cfg(madsim)]
pub mod faults;
#[cfg(madsim)]
pub mod hits;
#[cfg(madsim)]
mod judge;
#[cfg(madsim)]
pub mod keys;
#[cfg(madsim)]
mod play;
#[cfg(madsim)]
pub mod real;
#[cfg(madsim)]
pub mod recorded;
#[cfg(madsim)]
pub mod recovery;
#[cfg(madsim)]
pub mod run;
#[cfg(madsim)]
pub mod store;
#[cfg(madsim)]
mod stranger;
#[cfg(madsim)]
pub mod summary;
#[cfg(madsim)]
pub mod units;
#[cfg(madsim)]
pub mod verdict;
#[cfg(madsim)]
mod wiretap;
