//! Fault stories, the people who live through them, and the oracles that judge what they saw.
//!
//! A [`Story`](story::Story) is data. With a seed it becomes a [`Plan`](plan::Plan), which a
//! world carries out while simulated [people](workload) chat and their [history] is recorded. The
//! [oracles](oracle) check that history against the [properties](property). Nothing here names a
//! world, so that the same story runs in simulation and on a real cluster.
//!
//! ```
//! use chatchat_scenarios::{plan::Plan, story::Story};
//!
//! let text = r#"
//! about = "A worker dies and comes back."
//! duration = "30s"
//! [cluster]
//! masters = 2
//! workers = 2
//! [[fault]]
//! at = "10s"
//! kind = "crash"
//! target = "worker:0"
//! for = "5s"
//! "#;
//! let story = Story::parse("worker-away", text)?;
//! let plan = Plan::expand(&story, 7);
//! assert_eq!(plan.faults.len(), 1);
//! # Ok::<(), chatchat_scenarios::story::StoryError>(())
//! ```
//!
//! The modules, lowest first; each uses only those before it: [`nearest`], [`cluster`],
//! [`property`], [`target`], [`fault`], `reach`, [`story`], `knobs`, [`plan`], [`history`],
//! [`workload`], [`oracle`].
#![forbid(unsafe_code)]

pub mod cluster;
pub mod fault;
pub mod history;
mod knobs;
mod lines;
pub mod nearest;
pub mod oracle;
pub mod plan;
pub mod property;
mod reach;
pub mod story;
pub mod target;
pub mod workload;
