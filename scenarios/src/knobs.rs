//! Knobs: settings of a cluster and habits of its people that the seed turns, so that code is
//! reached that the usual ones never reach.
//!
//! Two levels: half of a swarm's seeds leave all knobs alone, the others turn some of them, each by
//! a draw of its own, so that leaving one out does not change another. A turn that the settings'
//! own rules refuse is left out. The time that a step takes stands apart: each seed draws it, unless
//! the story names one.

use std::time::Duration;

use chatchat::config::Config;
use dst_env::rng::{Rng, Seed};

use crate::story::Workload;

/// Odds that a seed turns any knob.
const SEEDS: f64 = 0.5;
/// Odds that such a seed turns a certain one.
const TURNED: f64 = 0.25;

/// Longest time that a step takes, in microseconds.
const STEP_US_MAX: u64 = 20;

type Turn<T> = (&'static str, fn(&mut T, &mut Rng));

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Settings, small and large. None makes a promise take longer than its bound.
const SETTINGS: &[Turn<Config>] = &[
    ("heartbeat_interval", |it, rng| it.heartbeat_interval = *rng.pick(&[ms(200), ms(1000)])),
    ("heartbeats_missed_max", |it, rng| it.heartbeats_missed_max = *rng.pick(&[2, 5])),
    ("attempt_timeout", |it, rng| {
        (it.attempt_timeout, it.store_timeout) =
            *rng.pick(&[(ms(240), ms(160)), (ms(400), ms(280)), (ms(1400), ms(1000))]);
    }),
    ("attempts_per_worker", |it, rng| it.attempts_per_worker = *rng.pick(&[1, 3, 4])),
    ("attempts_max", |it, rng| it.attempts_max = *rng.pick(&[2, 3, 8])),
    ("attempt_backoff", |it, rng| it.attempt_backoff = *rng.pick(&[ms(0), ms(1), ms(400)])),
    ("store_timeout", |it, rng| it.store_timeout = *rng.pick(&[ms(160), ms(240), ms(400)])),
    ("lease_ttl", |it, rng| it.lease_ttl = *rng.pick(&[ms(1200), ms(5000)])),
    ("lease_renew_interval", |it, rng| it.lease_renew_interval = *rng.pick(&[ms(150), ms(400)])),
    ("lease_idle", |it, rng| it.lease_idle = *rng.pick(&[ms(1000), ms(3000), ms(3_600_000)])),
    ("forward_timeout", |it, rng| it.forward_timeout = *rng.pick(&[ms(200), ms(700), ms(3000)])),
    ("forward_retry", |it, rng| it.forward_retry = *rng.pick(&[ms(20), ms(1000)])),
    ("failed_sweep_interval", |it, rng| {
        it.failed_sweep_interval = *rng.pick(&[ms(500), ms(5000), ms(3_600_000)]);
    }),
    ("store_poll_interval", |it, rng| it.store_poll_interval = *rng.pick(&[ms(100), ms(400)])),
    ("digest_interval", |it, rng| it.digest_interval = *rng.pick(&[ms(200), ms(3000)])),
    ("search_backoff_max", |it, rng| it.search_backoff_max = *rng.pick(&[ms(50), ms(500)])),
    ("handshake_timeout", |it, rng| it.handshake_timeout = *rng.pick(&[ms(700), ms(2000)])),
    ("key_refresh_interval", |it, rng| {
        (it.key_refresh_interval, it.key_refresh_gap) =
            *rng.pick(&[(ms(1500), ms(1000)), (ms(8000), ms(5000))]);
    }),
    ("key_overlap", |it, rng| it.key_overlap = *rng.pick(&[ms(2000), ms(20_000)])),
    ("stream_beat_interval", |it, rng| it.stream_beat_interval = *rng.pick(&[ms(500), ms(2000)])),
    ("presence_touch_interval", |it, rng| {
        it.presence_touch_interval = *rng.pick(&[ms(1000), ms(2500)]);
    }),
    ("presence_leave_delay", |it, rng| {
        it.presence_leave_delay = *rng.pick(&[ms(10_500), ms(13_000)])
    }),
    ("queue_tasks_max", |it, rng| it.queue_tasks_max = *rng.pick(&[32, 128])),
    ("batch_tasks_max", |it, rng| it.batch_tasks_max = *rng.pick(&[1, 4, 4096])),
    ("batch_bytes_max", |it, rng| it.batch_bytes_max = *rng.pick(&[9000, 20_000])),
    ("tail_posts_max", |it, rng| it.tail_posts_max = *rng.pick(&[1, 8, 64])),
    ("replica_posts_max", |it, rng| it.replica_posts_max = *rng.pick(&[20, 100])),
    ("stream_backlog_max", |it, rng| it.stream_backlog_max = *rng.pick(&[4, 16])),
    ("link_frames_max", |it, rng| it.link_frames_max = *rng.pick(&[2, 64])),
    ("batches_in_flight", |it, rng| it.batches_in_flight = *rng.pick(&[1, 4, 8])),
    ("sessions_cached_max", |it, rng| it.sessions_cached_max = *rng.pick(&[8, 64])),
    ("link_handshake_interval", |it, rng| {
        it.link_handshake_interval = *rng.pick(&[ms(2000), ms(7000)]);
    }),
];

/// Habits and numbers of people.
const PEOPLE: &[Turn<Workload>] = &[
    ("past", |it, rng| it.past = *rng.pick(&[100, 400])),
    ("pauses_per_minute", |it, _| it.pauses_per_minute = 3.0),
    ("people_per_machine", |it, rng| it.people_per_machine = *rng.pick(&[2, 5])),
    ("same_id", |it, _| it.habits.same_id = 6.0),
    ("forged_cursor", |it, _| it.habits.forged_cursor = 4.0),
    ("handover", |it, _| it.habits.handover = 4.0),
    ("burst", |it, _| it.habits.burst = 1.0),
    ("visit", |it, _| it.habits.visit = 8.0),
    ("keep_alive", |it, _| it.habits.keep_alive = 2.0),
];

/// Turns the knobs that a seed turns.
pub(crate) fn turn(config: &Config, workload: &Workload, seed: u64) -> (Config, Workload) {
    let (mut config, mut workload) = (config.clone(), workload.clone());
    if !Seed(seed).stream("knobs").chance(SEEDS) {
        return (config, workload);
    }
    for (name, turn) in SETTINGS {
        let mut rng = Seed(seed).stream(&format!("knobs/{name}"));
        if rng.chance(TURNED) {
            let mut turned = config.clone();
            turn(&mut turned, &mut rng);
            if turned.validate().is_ok() {
                config = turned;
            }
        }
    }
    for (name, turn) in PEOPLE {
        let mut rng = Seed(seed).stream(&format!("knobs/{name}"));
        if rng.chance(TURNED) {
            turn(&mut workload, &mut rng);
        }
    }
    (config, workload)
}

/// Returns the time that a step takes with a seed, in microseconds: always drawn, as no processor
/// takes none.
pub(crate) fn step_us(seed: u64) -> u64 {
    Seed(seed).stream("knobs/step_us").below(STEP_US_MAX + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_takes_up_to_its_bound_by_seed() {
        let drawn: std::collections::BTreeSet<_> = (0..400).map(step_us).collect();
        assert_eq!(drawn, (0..=STEP_US_MAX).collect());
    }

    #[test]
    fn some_seeds_turn_nothing_and_every_knob_is_turned_by_one() {
        let (config, workload) = (Config::default(), Workload::default());
        let mut untouched = 0;
        let mut seen = vec![false; SETTINGS.len()];
        for seed in 0..200 {
            let (turned, people) = turn(&config, &workload, seed);
            assert_eq!(turned.validate(), Ok(()), "{seed}");
            untouched += usize::from(turned == config);
            assert!(people.people == workload.people, "{seed}");
            for (nth, (name, _)) in SETTINGS.iter().enumerate() {
                let value = |config: &Config| serde_json::to_value(config).unwrap()[*name].clone();
                seen[nth] |= value(&turned) != value(&config);
            }
        }
        assert!((60..140).contains(&untouched), "{untouched}");
        let missing: Vec<_> = SETTINGS.iter().zip(&seen).filter(|(_, seen)| !**seen).collect();
        assert!(
            missing.is_empty(),
            "{:?}",
            missing.iter().map(|(knob, _)| knob.0).collect::<Vec<_>>()
        );
    }

    #[test]
    fn each_setting_can_be_turned_alone() {
        for (name, turn) in SETTINGS {
            let valid = (0..20).any(|seed| {
                let mut config = Config::default();
                turn(&mut config, &mut Seed(seed).stream("alone"));
                config.validate().is_ok() && config != Config::default()
            });
            assert!(valid, "{name}");
        }
    }
}
