//! Drivers of masters and workers: one task owns a node's state, feeds inputs to `protocol`, and
//! carries out its effects in order. Others talk to it by bounded channels, as [`handle`] does.

mod begun;
pub mod handle;
mod inbox;
pub mod master;
mod parts;
mod refusals;
mod request;
mod store_log;
pub mod worker;
