//! Simulated world for distributed systems: network, disks, clocks and machines that break on
//! purpose.
//!
//! ```text
//!        Env of one host in one of its lives (env)
//!                     |
//!   World: one madsim plugin  = net | disk | clock | event log, one heap, one pump
//!                     |
//!                  madsim     = seeded executor, virtual time
//! ```
//!
//! 1. One seed is one OS process: whatever else a process did must not move a run.
//! 2. Every random draw comes from a labelled stream of the root seed (`dst_env::rng`).
//! 3. Every handle carries its host's life; a stale one does nothing, neither used nor dropped.
//! 4. Log lines carry virtual time and an ordinal, never a wall clock's.
#![forbid(unsafe_code)]

#[cfg(not(madsim))]
compile_error!(
    "dst-world needs `--cfg madsim`, which `.cargo/config.toml` sets; a RUSTFLAGS variable \
     replaces that file's flags: unset it, or add `--cfg madsim` to it"
);

#[cfg(madsim)]
mod clock;
#[cfg(madsim)]
mod core;
#[cfg(madsim)]
mod cpu;
#[cfg(madsim)]
mod disk;
#[cfg(madsim)]
mod disk_faults;
#[cfg(madsim)]
mod env;
#[cfg(madsim)]
mod guarded;
#[cfg(madsim)]
mod host;
#[cfg(madsim)]
mod ids;
#[cfg(madsim)]
mod log;
#[cfg(madsim)]
mod net;
#[cfg(madsim)]
mod panics;
#[cfg(madsim)]
mod queue;
#[cfg(madsim)]
mod segment;
#[cfg(madsim)]
mod setup;
#[cfg(madsim)]
mod shared;
#[cfg(madsim)]
mod state;
#[cfg(all(test, madsim))]
mod tests;
#[cfg(madsim)]
mod timers;
#[cfg(madsim)]
mod wait;
#[cfg(madsim)]
mod wakes;
#[cfg(madsim)]
mod world;

#[cfg(madsim)]
pub use {
    cpu::take_longer,
    disk::DiskImage,
    disk_faults::DiskFault,
    dst_env::rng::{Rng, Seed},
    ids::HostId,
    log::{Detail, EventRecord},
    net::{Capture, FaultId, LineId, Link, Links},
    panics::Panicked,
    setup::{Progress, Setup},
    world::{World, simulate},
};
