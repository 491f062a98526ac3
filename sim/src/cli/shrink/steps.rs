//! Steps that make a plan smaller, boldest first.

use std::time::Duration;

use chatchat_scenarios::{fault::Start, plan::Plan};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// Shortest time that people chat: less shows nothing.
const DURATION_MIN: Duration = Duration::from_secs(5);
/// Fields of a workload that have steps of their own.
const STEPPED: &[&str] = &["people", "posts_per_second", "boards", "habits"];

/// Returns the plan without each run of `size` faults.
pub(super) fn without_faults(plan: &Plan, size: usize) -> Vec<Plan> {
    let count = plan.faults.len();
    let from = (0..count).step_by(size.max(1));
    from.map(|from| {
        let mut smaller = plan.clone();
        smaller.faults.drain(from..(from + size).min(count));
        // What a story names and what a swarm drew are alike now.
        smaller.named = smaller.faults.len();
        smaller.has_swarm = false;
        smaller
    })
    .collect()
}

/// Returns smaller plans by what is smaller: masters, workers, people, duration, habits, the rest of
/// the workload, settings, the upgrade, the cost of steps, boards, the rate of posts.
pub(super) fn smaller(plan: &Plan) -> Vec<Vec<Plan>> {
    let with = |change: &dyn Fn(&mut Plan)| {
        let mut smaller = plan.clone();
        change(&mut smaller);
        smaller
    };
    let masters = fewer(plan.cluster.masters, 1).into_iter();
    let workers = fewer(plan.cluster.workers, 1).into_iter();
    let people = fewer(plan.workload.people, 1).into_iter();
    let durations = shorter(plan).into_iter();
    let habits = usual(&plan.workload.habits, &[]).into_iter();
    let workloads = usual(&plan.workload, STEPPED).into_iter();
    let configs = usual(&plan.cluster.config, &[]).into_iter();
    let configs = configs.filter(|config| config.validate().is_ok());
    vec![
        masters.map(|count| with(&|plan| plan.cluster.masters = count)).collect(),
        workers.map(|count| with(&|plan| plan.cluster.workers = count)).collect(),
        people.map(|count| with(&|plan| plan.workload.people = count)).collect(),
        durations.map(|time| with(&|plan| plan.duration = time)).collect(),
        habits.map(|habits| with(&|plan| plan.workload.habits = habits)).collect(),
        workloads.map(|workload| with(&|plan| plan.workload = workload.clone())).collect(),
        configs.map(|config| with(&|plan| plan.cluster.config = config.clone())).collect(),
        if plan.cluster.upgrade {
            vec![with(&|plan| plan.cluster.upgrade = false)]
        } else {
            Vec::new()
        },
        if plan.cluster.step_us > 0 {
            vec![with(&|plan| plan.cluster.step_us = 0)]
        } else {
            Vec::new()
        },
        if plan.workload.boards.len() > 1 {
            vec![with(&|plan| plan.workload.boards.truncate(1))]
        } else {
            Vec::new()
        },
        if plan.workload.posts_per_second > 1.0 {
            vec![with(&|plan| plan.workload.posts_per_second /= 2.0)]
        } else {
            Vec::new()
        },
    ]
}

/// Returns smaller counts, smallest first.
fn fewer(count: usize, least: usize) -> Vec<usize> {
    let mut counts = vec![least, count / 4, count / 2, count * 3 / 4, count.saturating_sub(1)];
    counts.retain(|it| (least..count).contains(it));
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// Returns shorter durations in whole seconds, shortest first, none before the last fault begins.
fn shorter(plan: &Plan) -> Vec<Duration> {
    let starts = plan.faults.iter().map(|fault| match fault.start {
        Start::At(at) => at,
        Start::When { .. } => Duration::ZERO,
    });
    let least = starts.max().unwrap_or_default() + Duration::from_secs(1);
    let least = least.max(DURATION_MIN).as_secs();
    let now = plan.duration.as_secs();
    let span = now.saturating_sub(least);
    let mut times: Vec<_> = (0..4).map(|part| least + span * part / 4).collect();
    times.push(now.saturating_sub(1));
    times.retain(|time| (least..now).contains(time));
    times.sort_unstable();
    times.dedup();
    times.into_iter().map(Duration::from_secs).collect()
}

/// Returns a value with all fields that are not the usual ones put back to them, then with each of
/// them alone; those of `kept` stay. Goes by the fields as a story file holds them, so that a new one
/// is not forgotten.
fn usual<T: Default + Serialize + DeserializeOwned>(value: &T, kept: &[&str]) -> Vec<T> {
    let fields = |value: &T| match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (is, usual) = (fields(value), fields(&T::default()));
    let differs = |(key, field): &(&String, &Value)| {
        !kept.contains(&key.as_str()) && is.get(*key) != Some(*field)
    };
    let turned: Vec<_> = usual.iter().filter(differs).collect();
    let back = |some: &[(&String, &Value)]| {
        let mut fields = is.clone();
        fields.extend(some.iter().map(|(key, field)| ((*key).clone(), (*field).clone())));
        serde_json::from_value::<T>(Value::Object(fields)).ok()
    };
    let all = (turned.len() > 1).then_some(turned.as_slice());
    all.into_iter().chain(turned.chunks(1)).filter_map(back).collect()
}

#[cfg(test)]
mod tests {
    use chatchat::config::Config;
    use chatchat_scenarios::story::{Habits, Workload};

    use super::*;

    #[test]
    fn counts_get_smaller_and_never_too_small() {
        assert_eq!(fewer(8, 1), [1, 2, 4, 6, 7]);
        assert_eq!(fewer(2, 1), [1]);
        assert_eq!(fewer(1, 1), [0; 0]);
    }

    #[test]
    fn each_habit_can_go() {
        let all = Habits {
            duplicate_send: 1.0,
            reload: 1.0,
            slow_reader: 1.0,
            two_tabs: 1.0,
            leave: 1.0,
            ask_outcome: 1.0,
            hostile_bytes: 1.0,
            visit: 1.0,
            same_id: 1.0,
            forged_cursor: 1.0,
            handover: 1.0,
            keep_alive: 1.0,
            burst: 1.0,
        };
        let fewer = usual(&all, &[]);
        assert_eq!((fewer.len(), fewer[0]), (14, Habits::default()));
        assert!(fewer.contains(&Habits { same_id: 0.0, ..all }));
        assert!(fewer.contains(&Habits { burst: 0.0, ..all }));
        assert_eq!(usual(&Habits { burst: 0.3, ..Habits::default() }, &[]), [Habits::default()]);
    }

    #[test]
    fn each_setting_and_the_rest_of_the_workload_can_be_put_back() {
        let turned = Config { batch_tasks_max: 4, tail_posts_max: 8, ..Config::default() };
        let less = usual(&turned, &[]);
        assert_eq!((less.len(), &less[0]), (3, &Config::default()));
        assert!(less.contains(&Config { tail_posts_max: 8, ..Config::default() }));
        assert!(usual(&Config::default(), &[]).is_empty());
        let turned = Workload { people: 3, past: 100, long_posts: 0.5, ..Workload::default() };
        let less = usual(&turned, STEPPED);
        let left: Vec<_> = less.iter().map(|it| (it.people, it.past, it.long_posts)).collect();
        assert_eq!(left, [(3, 0, 0.0), (3, 100, 0.0), (3, 0, 0.5)]);
    }
}
