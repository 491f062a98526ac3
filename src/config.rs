//! Limits and time-outs of a node, validated against each other.
//!
//! Durations are written as texts such as `500ms`, `10s`, `5min` in files and stories.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::model::bounds::WORKER_BATCHES_MAX;
use crate::model::bounds::{
    BATCH_BYTES_MAX, BATCH_TASKS_MAX, BATCHES_IN_FLIGHT_MAX, LINK_VERSIONS, MASTERS_MAX, NODES_MAX,
    REPLICA_POSTS_MAX, WORKERS_MAX,
};

/// Most frames that may wait on one link.
const LINK_FRAMES_MAX: usize = 65_536;
/// Shortest time between two handshakes of one link: the accepting end refuses them at half of it.
const LINK_HANDSHAKE_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Time-outs, retries and bounds of one node. The defaults are the design's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time between two heartbeats of a link.
    #[serde(with = "text")]
    pub heartbeat_interval: Duration,
    /// Missed heartbeats after which a peer is suspect.
    pub heartbeats_missed_max: u32,
    /// Time allowed for one RPC of a batch to a worker.
    #[serde(with = "text")]
    pub attempt_timeout: Duration,
    /// Attempts on one registration of a worker.
    pub attempts_per_worker: u32,
    /// Attempts in all.
    pub attempts_max: u32,
    /// Pause between two attempts.
    #[serde(with = "text")]
    pub attempt_backoff: Duration,
    /// Time that a worker waits for the store.
    #[serde(with = "text")]
    pub store_timeout: Duration,
    /// Term of a lease, in store time.
    #[serde(with = "text")]
    pub lease_ttl: Duration,
    /// Time between two renewals.
    #[serde(with = "text")]
    pub lease_renew_interval: Duration,
    /// Idle time after which a lease is released.
    #[serde(with = "text")]
    pub lease_idle: Duration,
    /// Time that a master waits for the coordinator's answer before it wishes for the lease.
    #[serde(with = "text")]
    pub forward_timeout: Duration,
    /// Pause between two searches for a coordinator.
    #[serde(with = "text")]
    pub forward_retry: Duration,
    /// Time that a person's request waits for its outcome.
    #[serde(with = "text")]
    pub request_timeout: Duration,
    /// Longest time that a master which was asked to end takes to hand over its people and its work.
    #[serde(with = "text")]
    pub drain_timeout: Duration,
    /// Time between two sweeps of the failed list.
    #[serde(with = "text")]
    pub failed_sweep_interval: Duration,
    /// Time between two reads of boards, masters, admission and presence.
    #[serde(with = "text")]
    pub store_poll_interval: Duration,
    /// Time without a change of its row after which a master is out.
    #[serde(with = "text")]
    pub master_out_after: Duration,
    /// Time between two digests of the directory.
    #[serde(with = "text")]
    pub digest_interval: Duration,
    /// Longest pause of a worker between two attempts to find a master.
    #[serde(with = "text")]
    pub search_backoff_max: Duration,
    /// Time allowed to connect, and again for the handshake.
    #[serde(with = "text")]
    pub handshake_timeout: Duration,
    /// Highest version of the link's protocol that the node speaks. It is lowered to try a cluster of
    /// two releases.
    pub link_version_max: u16,
    /// Age of a link's keys after which its nodes make a new handshake on it, more or less by a tenth
    /// of it.
    #[serde(with = "text")]
    pub link_handshake_interval: Duration,
    /// Time between two refreshes of the common key, more or less by a tenth of it.
    #[serde(with = "text")]
    pub key_refresh_interval: Duration,
    /// Time for which members that left or failed are gathered before a refresh.
    #[serde(with = "text")]
    pub key_refresh_gather: Duration,
    /// Shortest time between two refreshes, unless a node is expelled.
    #[serde(with = "text")]
    pub key_refresh_gap: Duration,
    /// Time after which a member that has not installed a new common key is cut off.
    #[serde(with = "text")]
    pub key_install_timeout: Duration,
    /// Time for which a common key is still held once the next is in use.
    #[serde(with = "text")]
    pub key_overlap: Duration,
    /// Time between two `beat` events of a stream.
    #[serde(with = "text")]
    pub stream_beat_interval: Duration,
    /// Time between two touches of the sessions served here.
    #[serde(with = "text")]
    pub presence_touch_interval: Duration,
    /// Time from the end of a stream until its session leaves.
    #[serde(with = "text")]
    pub presence_leave_delay: Duration,
    /// Tasks in the queue of one resource.
    pub queue_tasks_max: usize,
    /// Tasks in all queues of a master.
    pub queue_total_max: usize,
    /// Resources for which a master keeps a queue.
    pub resources_max: usize,
    /// Batches of one resource that are on their way to a worker at once; 1 waits for each answer.
    pub batches_in_flight: usize,
    /// Tasks in one batch.
    pub batch_tasks_max: usize,
    /// Bytes in one batch.
    pub batch_bytes_max: usize,
    /// Posts of a board that a master keeps in memory.
    pub tail_posts_max: usize,
    /// Maximum number of posts that a worker's node database keeps; the oldest go first.
    pub replica_posts_max: usize,
    /// Workers in a domain.
    pub workers_max: usize,
    /// Nodes in the directory.
    pub directory_max: usize,
    /// Streams of a master.
    pub streams_max: usize,
    /// Connections to a front end.
    pub connections_max: usize,
    /// Connections to a front end from one address.
    pub connections_per_address_max: usize,
    /// Requests of one session, per second over time.
    pub session_requests_per_s: u32,
    /// Requests of one session at once.
    pub session_requests_burst: u32,
    /// Sessions opened from one address, per second over time.
    pub openings_per_s: u32,
    /// Sessions opened from one address at once.
    pub openings_burst: u32,
    /// Bytes of long answers to people that wait to be read, before further ones are refused.
    pub unread_bytes_max: usize,
    /// The same of the answers to one address.
    pub unread_bytes_per_address_max: usize,
    /// Events that wait for one stream's reader.
    pub stream_backlog_max: usize,
    /// Frames that wait to be sent on one link between nodes before further updates are dropped and
    /// further calls refused.
    pub link_frames_max: usize,
    /// Sessions that a master keeps in memory.
    pub sessions_cached_max: usize,
    /// Size of an identity key, in bits.
    pub identity_bits: usize,
    /// Size of a handshake or common key, in bits.
    pub key_bits: usize,
}

impl Default for Config {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            heartbeat_interval: ms(500),
            heartbeats_missed_max: 3,
            attempt_timeout: ms(1000),
            attempts_per_worker: 2,
            attempts_max: 4,
            attempt_backoff: ms(100),
            store_timeout: ms(800),
            lease_ttl: ms(3000),
            lease_renew_interval: ms(1000),
            lease_idle: ms(30_000),
            forward_timeout: ms(2000),
            forward_retry: ms(500),
            request_timeout: ms(10_000),
            drain_timeout: ms(10_000),
            failed_sweep_interval: ms(30_000),
            store_poll_interval: ms(1000),
            master_out_after: ms(5000),
            digest_interval: ms(2000),
            search_backoff_max: ms(3000),
            handshake_timeout: ms(5000),
            link_version_max: LINK_VERSIONS.1,
            link_handshake_interval: ms(24 * 3_600_000),
            key_refresh_interval: ms(600_000),
            key_refresh_gather: ms(1000),
            key_refresh_gap: ms(5000),
            key_install_timeout: ms(2000),
            key_overlap: ms(10_000),
            stream_beat_interval: ms(4000),
            presence_touch_interval: ms(5000),
            presence_leave_delay: ms(12_000),
            queue_tasks_max: 4096,
            queue_total_max: 16_384,
            resources_max: 1024,
            batches_in_flight: 2,
            batch_tasks_max: 64,
            batch_bytes_max: 256 * 1024,
            tail_posts_max: 1024,
            replica_posts_max: REPLICA_POSTS_MAX,
            workers_max: WORKERS_MAX,
            directory_max: NODES_MAX,
            streams_max: 20_000,
            connections_max: 24_000,
            connections_per_address_max: 4096,
            session_requests_per_s: 200,
            session_requests_burst: 400,
            openings_per_s: 50,
            openings_burst: 1000,
            unread_bytes_max: 256 * 1024 * 1024,
            unread_bytes_per_address_max: 32 * 1024 * 1024,
            stream_backlog_max: 256,
            link_frames_max: 4096,
            sessions_cached_max: 100_000,
            identity_bits: 3072,
            key_bits: 2048,
        }
    }
}

/// Error of settings that cannot hold together. Nothing was started.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Config {
    /// Returns the longest time that a task at the head of its queue takes to end while a
    /// master, a worker and the store are connected (G9).
    #[must_use]
    pub fn task_bound(&self) -> Duration {
        self.lease_ttl
            + (self.attempt_timeout + self.attempt_backoff) * self.attempts_max
            + Duration::from_secs(2)
    }

    /// Checks the settings against each other.
    ///
    /// # Errors
    ///
    /// The first pair that cannot hold, with both names and values.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |text: String| Err(ConfigError(text));
        let positive = [
            ("heartbeat_interval", self.heartbeat_interval),
            ("attempt_timeout", self.attempt_timeout),
            ("store_timeout", self.store_timeout),
            ("lease_ttl", self.lease_ttl),
            ("lease_renew_interval", self.lease_renew_interval),
            ("forward_timeout", self.forward_timeout),
            ("forward_retry", self.forward_retry),
            ("store_poll_interval", self.store_poll_interval),
            ("digest_interval", self.digest_interval),
            ("handshake_timeout", self.handshake_timeout),
            ("stream_beat_interval", self.stream_beat_interval),
            ("presence_touch_interval", self.presence_touch_interval),
            ("failed_sweep_interval", self.failed_sweep_interval),
            ("key_refresh_gap", self.key_refresh_gap),
            ("key_install_timeout", self.key_install_timeout),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| value.is_zero()) {
            return refuse(format!("{name} is zero"));
        }
        let counts = [
            ("heartbeats_missed_max", self.heartbeats_missed_max as usize),
            ("attempts_per_worker", self.attempts_per_worker as usize),
            ("attempts_max", self.attempts_max as usize),
            ("queue_tasks_max", self.queue_tasks_max),
            ("queue_total_max", self.queue_total_max),
            ("resources_max", self.resources_max),
            ("batches_in_flight", self.batches_in_flight),
            ("batch_tasks_max", self.batch_tasks_max),
            ("batch_bytes_max", self.batch_bytes_max),
            ("tail_posts_max", self.tail_posts_max),
            ("replica_posts_max", self.replica_posts_max),
            ("workers_max", self.workers_max),
            ("directory_max", self.directory_max),
            ("streams_max", self.streams_max),
            ("connections_max", self.connections_max),
            ("connections_per_address_max", self.connections_per_address_max),
            ("session_requests_per_s", self.session_requests_per_s as usize),
            ("session_requests_burst", self.session_requests_burst as usize),
            ("openings_per_s", self.openings_per_s as usize),
            ("openings_burst", self.openings_burst as usize),
            ("unread_bytes_max", self.unread_bytes_max),
            ("unread_bytes_per_address_max", self.unread_bytes_per_address_max),
            ("stream_backlog_max", self.stream_backlog_max),
            ("link_frames_max", self.link_frames_max),
            ("sessions_cached_max", self.sessions_cached_max),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, value)| *value == 0) {
            return refuse(format!("{name} is zero"));
        }
        let below = [
            ("store_timeout", self.store_timeout, "attempt_timeout", self.attempt_timeout),
            ("lease_renew_interval", self.lease_renew_interval, "lease_ttl", self.lease_ttl),
            ("task_bound", self.task_bound(), "request_timeout", self.request_timeout),
        ];
        if let Some((small, is, large, bound)) =
            below.iter().find(|(_, small, _, large)| small >= large)
        {
            return refuse(format!("{small} ({is:?}) must be below {large} ({bound:?})"));
        }
        let not_above = [
            (
                "the shortest time between two handshakes of a link",
                LINK_HANDSHAKE_INTERVAL_MIN,
                "link_handshake_interval",
                self.link_handshake_interval,
            ),
            (
                "key_refresh_gather",
                self.key_refresh_gather,
                "key_refresh_gap",
                self.key_refresh_gap,
            ),
            (
                "key_refresh_gap",
                self.key_refresh_gap,
                "key_refresh_interval",
                self.key_refresh_interval,
            ),
            ("key_install_timeout", self.key_install_timeout, "key_overlap", self.key_overlap),
        ];
        if let Some((small, is, large, bound)) =
            not_above.iter().find(|(_, small, _, large)| small > large)
        {
            return refuse(format!("{small} ({is:?}) must not be above {large} ({bound:?})"));
        }
        let at_most = [
            ("batches_in_flight", self.batches_in_flight, "", BATCHES_IN_FLIGHT_MAX),
            ("batch_tasks_max", self.batch_tasks_max, "", BATCH_TASKS_MAX),
            ("batch_bytes_max", self.batch_bytes_max, ", which fits into a frame", BATCH_BYTES_MAX),
            ("directory_max", self.directory_max, ", as many as are enrolled", NODES_MAX),
            ("link_frames_max", self.link_frames_max, "", LINK_FRAMES_MAX),
        ];
        if let Some((name, is, why, max)) = at_most.iter().find(|(_, is, _, max)| is > max) {
            return refuse(format!("{name} ({is}) must not be above {max}{why}"));
        }
        if self.workers_max.saturating_add(MASTERS_MAX) > self.directory_max {
            return refuse(format!(
                "directory_max ({}) must hold workers_max ({}) and {MASTERS_MAX} masters",
                self.directory_max, self.workers_max
            ));
        }
        let (oldest, newest) = LINK_VERSIONS;
        if !(oldest..=newest).contains(&self.link_version_max) {
            return refuse(format!(
                "link_version_max ({}) must be from {oldest} to {newest}",
                self.link_version_max
            ));
        }
        let bits = [("identity_bits", self.identity_bits), ("key_bits", self.key_bits)];
        if let Some((name, is)) = bits.iter().find(|(_, is)| !(2048..=4096).contains(is)) {
            return refuse(format!("{name} ({is}) must be from 2048 to 4096"));
        }
        if self.attempts_per_worker > self.attempts_max {
            return refuse(format!(
                "attempts_per_worker ({}) must not be above attempts_max ({})",
                self.attempts_per_worker, self.attempts_max
            ));
        }
        Ok(())
    }
}

/// Durations as texts, for serde.
mod text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(by: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{}ms", by.as_millis()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// Reads a duration such as `250ms`, `10s`, `5min`, `2h` or `1.5s`.
///
/// # Errors
///
/// A sentence that says which form is expected.
pub fn parse_duration(text: &str) -> Result<Duration, ConfigError> {
    let wrong = || ConfigError(format!("{text:?} is not a duration such as 250ms, 10s or 5min"));
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let scale = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * scale).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_settings_are_valid_and_match_the_designed_task_bound() {
        let config = Config::default();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.task_bound(), Duration::from_millis(9400));
    }

    #[test]
    fn task_bound_above_the_request_timeout_is_refused() {
        let config = Config { attempts_max: 5, ..Config::default() };
        let refused = config.validate().expect_err("5 attempts take 10.5 s");
        assert!(refused.0.contains("request_timeout"), "{refused}");
    }

    #[test]
    fn sizes_that_do_not_fit_one_another_are_refused() {
        let small = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate().expect_err("it does not fit").0
        };
        let long = small(&|config| config.batch_bytes_max = 1024 * 1024);
        assert!(long.contains("batch_bytes_max"), "{long}");
        let few = small(&|config| config.directory_max = config.workers_max);
        assert!(few.contains("workers_max"), "{few}");
    }

    #[test]
    fn times_of_keys_that_do_not_fit_one_another_are_refused() {
        let ms = Duration::from_millis;
        let default = Config::default;
        for (config, named) in [
            (Config { key_refresh_interval: ms(1500), ..default() }, "key_refresh_interval"),
            (Config { key_refresh_gather: ms(6000), ..default() }, "key_refresh_gather"),
            (Config { key_install_timeout: ms(11_000), ..default() }, "key_overlap"),
            (Config { link_handshake_interval: ms(999), ..default() }, "link_handshake_interval"),
        ] {
            let refused = config.validate().expect_err("it does not fit");
            assert!(refused.0.contains(named), "{refused}");
        }
    }

    #[test]
    fn unknown_keys_are_errors() {
        let refused = toml::from_str::<Config>("lease_tll = \"3s\"").expect_err("a typo");
        assert!(refused.to_string().contains("lease_tll"), "{refused}");
        let read: Config = toml::from_str("lease_ttl = \"1.5s\"").expect("a duration");
        assert_eq!(read.lease_ttl, Duration::from_millis(1500));
    }
}
