//! Knobs: settings of a cluster and habits of its people that the seed turns, so that code is
//! reached that the usual ones never reach.
//!
//! Two levels: half of a swarm's seeds leave all knobs alone, the others turn some of them, each by
//! a draw of its own, so that leaving one out does not change another. A turn that the settings'
//! own rules refuse is left out. The number of people is a knob of stories that are open to a crowd.
//! The time that a step takes stands apart: each seed draws it, unless the story names one.

use std::time::Duration;

use chatchat::config::Config;
use dst_env::rng::{Rng, Seed};

use crate::story::{Habits, Workload};

/// Odds that a seed turns any knob.
const SEEDS: f64 = 0.5;
/// Odds that such a seed turns a certain one.
const TURNED: f64 = 0.25;

/// Longest time that a step takes, in microseconds.
const STEP_US_MAX: u64 = 20;

/// Number of people of a crowd: 60, and 200 with low odds.
const CROWDS: [usize; 5] = [60, 60, 60, 60, 200];
/// Bound on the posts that all people of a crowd are told of, per second. It bounds the real time of a
/// run, and gives 200 people the rate of the story `crowd`.
const TOLD_PER_SECOND: f64 = 800.0;

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

/// Habits of people, and the past that they give their boards.
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

/// Number of people. It is turned last: it divides the rate of each habit.
const CROWD: Turn<Workload> = ("people", |it, rng| {
    let people = (*rng.pick(&CROWDS)).max(it.people);
    it.habits = shared(it.habits, it.people as f64 / people as f64);
    it.posts_per_second = it.posts_per_second.min(TOLD_PER_SECOND / people as f64);
    it.people = people;
});

/// Returns the habits of each person of a crowd that does together what few people did. `share` is the
/// number of these for each of the crowd.
fn shared(habits: Habits, share: f64) -> Habits {
    let Habits { duplicate_send, reload, slow_reader, two_tabs, leave, ask_outcome, .. } = habits;
    let Habits { hostile_bytes, visit, same_id, forged_cursor, handover, .. } = habits;
    let Habits { keep_alive, burst, .. } = habits;
    Habits {
        duplicate_send: duplicate_send * share,
        reload: reload * share,
        slow_reader: slow_reader * share,
        two_tabs: two_tabs * share,
        leave: leave * share,
        ask_outcome: ask_outcome * share,
        hostile_bytes: hostile_bytes * share,
        visit: visit * share,
        same_id: same_id * share,
        forged_cursor: forged_cursor * share,
        handover: handover * share,
        keep_alive: keep_alive * share,
        burst: burst * share,
    }
}

/// Turns the knobs that a seed turns. `crowd` says whether the number of people is one of them.
pub(crate) fn turn(
    config: &Config,
    workload: &Workload,
    crowd: bool,
    seed: u64,
) -> (Config, Workload) {
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
    for (name, turn) in PEOPLE.iter().chain(crowd.then_some(&CROWD)) {
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
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn step_takes_up_to_its_bound_by_seed() {
        let drawn: BTreeSet<_> = (0..400).map(step_us).collect();
        assert_eq!(drawn, (0..=STEP_US_MAX).collect());
    }

    #[test]
    fn some_seeds_turn_nothing_and_every_knob_is_turned_by_one() {
        let (config, workload) = (Config::default(), Workload::default());
        let mut untouched = 0;
        let mut seen = vec![false; SETTINGS.len()];
        for seed in 0..200 {
            let (turned, people) = turn(&config, &workload, false, seed);
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
    fn every_knob_of_people_is_turned_by_a_seed() {
        let value = |workload: &Workload, name: &str| {
            let keys = serde_json::to_value(workload).unwrap();
            let key = keys.get(name).or_else(|| keys["habits"].get(name)).cloned();
            key.unwrap_or_else(|| panic!("{name} is no key of a workload"))
        };
        let (config, workload) = (Config::default(), Workload::default());
        let mut missing: Vec<_> = PEOPLE.iter().chain([&CROWD]).map(|(name, _)| *name).collect();
        for seed in 0..200 {
            let (_, turned) = turn(&config, &workload, true, seed);
            missing.retain(|name| value(&turned, name) == value(&workload, name));
        }
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn crowd_does_together_what_few_people_do_and_moves_no_other_draw() {
        let habits = Habits { reload: 4.0, leave: 2.0, ..Habits::default() };
        let workload = Workload { posts_per_second: 15.0, habits, ..Workload::default() };
        let mut seen = BTreeMap::new();
        for seed in 0..400 {
            let turned = |crowd| turn(&Config::default(), &workload, crowd, seed);
            let ((config, few), (same, many)) = (turned(false), turned(true));
            assert_eq!(config, same, "{seed}");
            let rest = |it: &Workload| {
                (it.past, it.pauses_per_minute, it.people_per_machine, it.boards.clone())
            };
            assert_eq!(rest(&few), rest(&many), "{seed}");
            let rates = |it: &Workload| {
                let keys = serde_json::to_value(it.habits).unwrap();
                let rates =
                    keys.as_object().unwrap().values().filter_map(serde_json::Value::as_f64);
                rates.map(|rate| (rate * it.people as f64).round()).collect::<Vec<_>>()
            };
            assert_eq!(rates(&few), rates(&many), "{seed}");
            assert!(many.posts_per_second * many.people as f64 <= TOLD_PER_SECOND + 1e-6);
            *seen.entry(many.people).or_insert(0) += 1;
        }
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [10, 60, 200]);
        assert!(seen[&200] < seen[&60] && seen[&60] < seen[&10], "{seen:?}");
    }

    #[test]
    fn crowd_is_never_smaller_than_the_story_has_people() {
        let workload = Workload { people: 120, posts_per_second: 4.0, ..Workload::default() };
        let of = |seed| turn(&Config::default(), &workload, true, seed).1.people;
        let seen: BTreeSet<_> = (0..400).map(of).collect();
        assert_eq!(seen, BTreeSet::from([120, 200]));
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
