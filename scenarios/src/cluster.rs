//! Size and settings of a story's cluster.

use chatchat::config::Config;

/// Cluster of a story.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Number of masters; they are numbered from 0.
    pub masters: usize,
    /// Number of workers; they are numbered from 0.
    pub workers: usize,
    /// Whether nodes speak the version of the link's protocol before the newest until they start
    /// again, as in an upgrade.
    pub upgrade: bool,
    /// Time in microseconds that a processor takes for each step of a task, in simulation: a real
    /// processor takes its own.
    pub step_us: u64,
    /// Configuration of every node.
    pub config: Config,
}
