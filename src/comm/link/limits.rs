//! Bounds and deadlines of one link, from the node's settings.

use std::time::Duration;

use crate::{
    config::{Config, WORKER_BATCHES_MAX},
    model::bounds::IN_FLIGHT_MAX,
    wire::FRAME_LEN_MAX,
};

/// Bounds of one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkLimits {
    /// Time between two heartbeats that this side sends.
    pub heartbeat_interval: Duration,
    /// Number of intervals without a byte after which the peer counts as silent.
    pub heartbeats_missed_max: u32,
    /// Bound on the calls that wait to be sent, and on the messages. Batches and their answers, cancels
    /// and pages have room of their own beyond.
    pub outgoing_frames_max: usize,
    /// Bound on the bytes of either; at least [`FRAME_LEN_MAX`]. Twice that for batches, three times
    /// that for their answers, and twice that for pages.
    pub outgoing_bytes_max: usize,
    /// Bound on the calls under way, each way. The same on all nodes: a peer with more violates
    /// the protocol.
    pub in_flight_max: usize,
    /// Calls of those under way that only batches may be.
    pub in_flight_batches: usize,
    /// Time for which the peer may take no byte.
    pub stall_timeout: Duration,
    /// Time that a close may take, and then the end of the stream.
    pub close_timeout: Duration,
    /// Time after which a direction changes to its next key.
    pub rekey_interval: Duration,
    /// Age of a link's keys at which the end that dialled starts a new handshake, more or less by a
    /// tenth of it.
    pub handshake_interval: Duration,
    /// Time that a new handshake may take.
    pub handshake_timeout: Duration,
}

impl LinkLimits {
    /// Bound on the calls under way each way, on every node.
    pub const IN_FLIGHT_MAX: usize = IN_FLIGHT_MAX;

    /// Returns the limits that belong to a node's settings.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let stall_timeout = 2 * config.heartbeat_interval * config.heartbeats_missed_max;
        Self {
            heartbeat_interval: config.heartbeat_interval,
            heartbeats_missed_max: config.heartbeats_missed_max,
            outgoing_frames_max: config.link_frames_max,
            outgoing_bytes_max: 4 * FRAME_LEN_MAX,
            in_flight_max: Self::IN_FLIGHT_MAX,
            in_flight_batches: 2 * WORKER_BATCHES_MAX,
            stall_timeout,
            close_timeout: Duration::from_secs(1),
            rekey_interval: Duration::from_secs(600),
            handshake_interval: config.link_handshake_interval,
            // A new handshake does not make a link less patient than it is without one.
            handshake_timeout: config.handshake_timeout.max(stall_timeout),
        }
    }

    /// Returns the time without a byte after which the peer counts as silent.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.heartbeat_interval * self.heartbeats_missed_max
    }
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self::of(&Config::default())
    }
}
