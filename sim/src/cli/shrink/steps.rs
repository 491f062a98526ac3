//! Steps that make a plan smaller, boldest first.

use std::time::Duration;

use chatchat_scenarios::{fault::Start, plan::Plan, story::Habits};

/// Shortest time that people chat: less shows nothing.
const DURATION_MIN: Duration = Duration::from_secs(5);

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

/// Returns smaller plans by what is smaller: masters, workers, people, duration, habits, boards,
/// the rate of posts.
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
    vec![
        masters.map(|count| with(&|plan| plan.cluster.masters = count)).collect(),
        workers.map(|count| with(&|plan| plan.cluster.workers = count)).collect(),
        people.map(|count| with(&|plan| plan.workload.people = count)).collect(),
        durations.map(|time| with(&|plan| plan.duration = time)).collect(),
        habits(plan),
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

/// Returns the plan without any habit, then without each.
fn habits(plan: &Plan) -> Vec<Plan> {
    type Rate = fn(&mut Habits) -> &mut f64;
    let rates: [Rate; 8] = [
        |habits| &mut habits.duplicate_send,
        |habits| &mut habits.reload,
        |habits| &mut habits.slow_reader,
        |habits| &mut habits.two_tabs,
        |habits| &mut habits.leave,
        |habits| &mut habits.ask_outcome,
        |habits| &mut habits.hostile_bytes,
        |habits| &mut habits.visit,
    ];
    let mut plans = Vec::new();
    if plan.workload.habits != Habits::default() {
        let mut none = plan.clone();
        none.workload.habits = Habits::default();
        plans.push(none);
    }
    for rate in rates {
        let mut without = plan.clone();
        if std::mem::replace(rate(&mut without.workload.habits), 0.0) != 0.0 {
            plans.push(without);
        }
    }
    plans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_get_smaller_and_never_too_small() {
        assert_eq!(fewer(8, 1), [1, 2, 4, 6, 7]);
        assert_eq!(fewer(2, 1), [1]);
        assert_eq!(fewer(1, 1), [0; 0]);
    }
}
