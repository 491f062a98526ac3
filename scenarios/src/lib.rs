//! Fault stories, the people who live through them, and the oracles that judge what they saw.
//!
//! A [`Story`](story::Story) is data. With a seed it becomes a [`Plan`](plan::Plan), which a
//! world carries out while [people](workload) chat and write down a [history]. The
//! [oracles](oracle) hold that against the promises. Nothing here names a world, so that the
//! same story runs in simulation and on a real cluster.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod fault;
pub mod history;
pub mod oracle;
pub mod plan;
pub mod property;
pub mod story;
pub mod target;
pub mod workload;
