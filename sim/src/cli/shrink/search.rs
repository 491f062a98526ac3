//! Search for the smallest plan that fails: pure but for the trier that runs candidates.

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
}

struct Search<'a, T> {
    trier: &'a T,
    seeds: Vec<u64>,
    best: Shrunk,
    runs_max: usize,
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
    let best = Shrunk { plan: plan.clone(), seed, runs: first.len() };
    let mut search = Search { trier, seeds, best, runs_max };
    search.faults();
    search.all(steps::smaller);
    // What the cluster lost may have made a fault idle.
    search.faults();
    Some(search.best)
}

impl<T: Trier> Search<'_, T> {
    /// Takes the first of the plans that fails with any seed; the seed that failed last goes first.
    fn take(&mut self, plans: Vec<Plan>) -> bool {
        let mut seeds = vec![self.best.seed];
        seeds.extend(self.seeds.iter().copied().filter(|seed| *seed != self.best.seed));
        for seed in seeds {
            let candidates: Vec<_> = plans.iter().map(|plan| (plan.clone(), seed)).collect();
            if self.best.runs + candidates.len() > self.runs_max {
                return false;
            }
            self.best.runs += candidates.len();
            if let Some(nth) = self.trier.first_failing(&candidates) {
                self.best.plan = candidates[nth].0.clone();
                self.best.seed = seed;
                return true;
            }
        }
        false
    }

    /// Takes smaller plans while there are any.
    fn all(&mut self, smaller: impl Fn(&Plan) -> Vec<Vec<Plan>>) {
        let mut kind = 0;
        loop {
            let kinds = smaller(&self.best.plan);
            let Some(plans) = kinds.into_iter().nth(kind) else { return };
            if plans.is_empty() || !self.take(plans) {
                kind += 1;
            }
        }
    }

    /// Leaves faults out: halves, then quarters, at last one by one, until none can go.
    fn faults(&mut self) {
        let mut size = self.best.plan.faults.len().div_ceil(2);
        while size > 0 && !self.best.plan.faults.is_empty() {
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

    use chatchat_scenarios::{
        fault::{Kind, Start},
        story::Story,
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

    /// A world in which a plan fails if it is large enough and keeps its pauses.
    struct Law {
        pauses: usize,
        workers: usize,
        people: usize,
        seconds: u64,
        /// The only seed with which it fails.
        seed: Option<u64>,
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
        Law { pauses: 2, workers: 2, people: 3, seconds: 20, seed: None }
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
        assert!(shrunk.runs <= 30, "{}", shrunk.runs);
    }
}
