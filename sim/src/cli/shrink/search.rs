//! Search for the smallest plan that fails: pure but for the trier that runs candidates.

use std::iter;

use chatchat_scenarios::plan::Plan;

use super::steps;

/// Judge of candidates.
pub(super) trait Trier {
    /// Returns the first of the candidates, each with a seed, that fails in the wanted way.
    fn first_failing(&self, candidates: &[(Plan, u64)]) -> Option<usize>;
}

/// The smallest plan that was found.
#[derive(Clone, Debug)]
pub(super) struct Shrunk {
    pub(super) plan: Plan,
    /// Seed with which it fails.
    pub(super) seed: u64,
    /// Number of candidates that were tried at most.
    pub(super) runs: usize,
    /// Whether the bound on runs ended the search: a smaller plan may well fail too.
    pub(super) is_cut_short: bool,
}

struct Search<'a, T> {
    trier: &'a T,
    seeds: Vec<u64>,
    best: Shrunk,
    runs_max: usize,
    /// Number of plans that were taken.
    taken: usize,
}

/// Shrinks a plan; `None` when it does not fail with any of the seeds.
pub(super) fn shrink(
    plan: &Plan,
    seeds: Vec<u64>,
    runs_max: usize,
    trier: &impl Trier,
) -> Option<Shrunk> {
    let first: Vec<_> = seeds.iter().map(|seed| (plan.clone(), *seed)).collect();
    let seed = first.get(trier.first_failing(&first)?)?.1;
    let best = Shrunk { plan: plan.clone(), seed, runs: first.len(), is_cut_short: false };
    let mut search = Search { trier, seeds, best, runs_max, taken: 0 };
    search.all();
    Some(search.best)
}

impl<T: Trier> Search<'_, T> {
    /// Makes the plan smaller in each way in turn, until none does: what one way takes out may be what
    /// another had to leave in.
    fn all(&mut self) {
        let kinds = steps::smaller(&self.best.plan).len();
        let ways = iter::once(None).chain((0..kinds).map(Some));
        // Ways in a row that have nothing left to take.
        let mut done = 0;
        for way in ways.cycle() {
            let taken = self.taken;
            match way {
                None => self.faults(),
                Some(kind) => self.steps(kind),
            }
            done = if self.taken == taken { done + 1 } else { 1 };
            if done > kinds || self.best.is_cut_short {
                return;
            }
        }
    }

    /// Takes the first of the plans that fails with any seed; the seed that failed last goes first.
    fn take(&mut self, plans: Vec<Plan>) -> bool {
        let mut seeds = vec![self.best.seed];
        seeds.extend(self.seeds.iter().copied().filter(|seed| *seed != self.best.seed));
        for seed in seeds {
            let left = self.runs_max.saturating_sub(self.best.runs);
            let candidates = plans.iter().take(left).map(|plan| (plan.clone(), seed));
            let candidates: Vec<_> = candidates.collect();
            self.best.runs += candidates.len();
            if let Some(nth) = self.trier.first_failing(&candidates) {
                self.best.plan = candidates[nth].0.clone();
                self.best.seed = seed;
                self.taken += 1;
                return true;
            }
            if candidates.len() < plans.len() {
                self.best.is_cut_short = true;
                return false;
            }
        }
        false
    }

    /// Takes plans that are smaller in one way while there are any.
    fn steps(&mut self, kind: usize) {
        loop {
            let plans = steps::smaller(&self.best.plan).into_iter().nth(kind);
            if !plans.is_some_and(|plans| self.take(plans)) {
                return;
            }
        }
    }

    /// Leaves faults out: halves, then quarters, at last one by one, until none can go.
    fn faults(&mut self) {
        let mut size = self.best.plan.faults.len().div_ceil(2);
        while size > 0 && !self.best.plan.faults.is_empty() && !self.best.is_cut_short {
            let plans = steps::without_faults(&self.best.plan, size);
            if self.take(plans) {
                size = size.min(self.best.plan.faults.len());
            } else if size == 1 {
                return;
            } else {
                size = size.div_ceil(2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chatchat::config::Config;
    use chatchat_scenarios::{
        cluster::Cluster,
        fault::{Kind, Start},
        story::{Habits, Story},
    };

    use super::*;

    const STORY: &str = r#"
        about = "a test"
        duration = "60s"
        [cluster]
        masters = 3
        workers = 6
        [workload]
        people = 24
        boards = ["lobby", "dev"]
        [workload.habits]
        leave = 1.0
        [swarm]
        kinds = ["pause", "delay", "reset", "clock_jump", "crash"]
        per_minute = 20.0
    "#;

    /// A world in which a plan fails if it is large enough, keeps its pauses, and has what else it
    /// needs.
    struct Law {
        pauses: usize,
        workers: usize,
        people: usize,
        seconds: u64,
        /// The only seed with which it fails.
        seed: Option<u64>,
        has_rest: fn(&Plan) -> bool,
    }

    fn pauses(plan: &Plan) -> usize {
        plan.faults.iter().filter(|fault| fault.action.kind() == Kind::Pause).count()
    }

    impl Trier for Law {
        fn first_failing(&self, candidates: &[(Plan, u64)]) -> Option<usize> {
            candidates.iter().position(|(plan, seed)| {
                pauses(plan) >= self.pauses
                    && plan.cluster.workers >= self.workers
                    && plan.workload.people >= self.people
                    && plan.duration >= Duration::from_secs(self.seconds)
                    && self.seed.is_none_or(|wanted| wanted == *seed)
                    && (self.has_rest)(plan)
            })
        }
    }

    fn plan() -> Plan {
        let story = Story::parse("test", STORY).expect("a story");
        let enough = |seed: &u64| pauses(&Plan::expand(&story, *seed)) >= 3;
        let seed = (0..).find(enough).expect("some seed draws three pauses");
        Plan::expand(&story, seed)
    }

    fn law() -> Law {
        let has_rest = |_: &Plan| true;
        Law { pauses: 2, workers: 2, people: 3, seconds: 20, seed: None, has_rest }
    }

    #[test]
    fn plan_shrinks_to_what_the_failure_needs() {
        let shrunk = shrink(&plan(), vec![1, 2], 2000, &law()).expect("it fails");
        assert_eq!((shrunk.plan.faults.len(), pauses(&shrunk.plan)), (2, 2));
        assert_eq!((shrunk.plan.cluster.masters, shrunk.plan.cluster.workers), (1, 2));
        assert_eq!(shrunk.plan.workload.people, 3);
        let starts = shrunk.plan.faults.iter().map(|fault| match fault.start {
            Start::At(at) => at,
            Start::When { .. } => Duration::ZERO,
        });
        let needed = starts.max().unwrap_or_default().max(Duration::from_secs(20));
        assert!(shrunk.plan.duration <= needed + Duration::from_secs(2), "{:?}", shrunk.plan);
        assert_eq!(shrunk.plan.workload.habits.leave, 0.0);
        assert!(!shrunk.is_cut_short);
    }

    #[test]
    fn only_the_settings_and_habits_that_the_failure_needs_stay() {
        let mut plan = plan();
        let config = Config {
            batch_tasks_max: 4,
            tail_posts_max: 8,
            batches_in_flight: 1,
            ..Config::default()
        };
        plan.cluster = Cluster { config, upgrade: true, step_us: 7, ..plan.cluster };
        plan.workload.past = 100;
        plan.workload.pauses_per_minute = 3.0;
        plan.workload.people_per_machine = 5;
        plan.workload.long_posts = 0.5;
        plan.workload.habits =
            Habits { burst: 1.0, handover: 4.0, visit: 8.0, ..Habits::default() };
        let has_rest = |plan: &Plan| {
            plan.cluster.config.tail_posts_max == 8
                && plan.workload.past == 100
                && plan.workload.habits.handover == 4.0
        };
        let shrunk = shrink(&plan, vec![1], 2000, &Law { has_rest, ..law() }).expect("it fails");
        let Plan { cluster, workload, .. } = shrunk.plan;
        assert_eq!(cluster.config, Config { tail_posts_max: 8, ..Config::default() });
        assert!(!cluster.upgrade);
        assert_eq!(cluster.step_us, 0);
        assert_eq!((workload.past, workload.people_per_machine), (100, 1));
        assert_eq!((workload.pauses_per_minute, workload.long_posts), (0.0, 0.0));
        assert_eq!(workload.habits, Habits { handover: 4.0, ..Habits::default() });
    }

    #[test]
    fn each_way_is_tried_again_after_the_others() {
        // Fewer workers let faults go, and fewer faults let people go.
        let has_rest = |plan: &Plan| {
            plan.workload.people > plan.faults.len() && plan.faults.len() >= plan.cluster.workers
        };
        let law = Law { pauses: 0, workers: 1, people: 1, has_rest, ..law() };
        let shrunk = shrink(&plan(), vec![1], 2000, &law).expect("it fails");
        assert_eq!((shrunk.plan.faults.len(), shrunk.plan.cluster.workers), (1, 1));
        assert_eq!(shrunk.plan.workload.people, 2);
    }

    #[test]
    fn plan_that_does_not_fail_is_not_shrunk() {
        let law = Law { pauses: 100, ..law() };
        assert!(shrink(&plan(), vec![1], 2000, &law).is_none());
    }

    #[test]
    fn seed_that_fails_is_found_and_kept() {
        let law = Law { seed: Some(3), ..law() };
        let shrunk = shrink(&plan(), vec![1, 2, 3], 2000, &law).expect("it fails with seed 3");
        assert_eq!((shrunk.seed, shrunk.plan.faults.len()), (3, 2));
    }

    #[test]
    fn search_ends_at_its_bound_on_runs() {
        let shrunk = shrink(&plan(), vec![1], 30, &law()).expect("it fails");
        assert_eq!((shrunk.runs, shrunk.is_cut_short), (30, true));
    }
}
