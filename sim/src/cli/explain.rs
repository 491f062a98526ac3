//! `explain`: when was a failing run doomed?
//!
//! The run is repeated with the same seed up to a time, from which on the order of tasks goes another
//! way. The share of such detours that fail alike says how much was decided by then: from the
//! time on at which every detour fails, the failure was certain, as far as they show.

use std::{
    ops::ControlFlow,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use chatchat_sim::summary::Failure;

use super::{
    child::{self, Job, Program},
    out, shrink, side_by_side,
};

/// Halvings of the span between the last doubt and the first certainty.
const ROUNDS: usize = 4;
const BAR: usize = 30;

pub(super) fn run(explain: &super::Explain) -> Result<ExitCode, String> {
    let plan = super::plan(&explain.which)?;
    let limit = Duration::from_secs(explain.which.limit);
    let program = Program::this()?;
    let job = Job { story: explain.which.story.clone(), seed: explain.which.seed };
    let original = child::run(&program, &job, limit);
    let Some(failure) = shrink::wanted(&original, explain.rule.as_deref())? else {
        let (story, verdict) = (&plan.story, original.verdict);
        return Err(format!("{story} seed {} {verdict}: nothing to explain", job.seed));
    };
    out::line(format_args!("breaks   {} {}", failure.property, failure.rule));
    let jobs = explain.jobs.unwrap_or_else(super::cores).max(1);
    let detours = explain.detours.max(1);
    let tries = Tries { program: &program, job: &job, limit, jobs, detours, failure: &failure };

    let steps = u64::from(explain.steps.max(1));
    let mut seen = Vec::new();
    for step in 0..=steps {
        let at_ms = original.virtual_ms * step / steps;
        seen.push((at_ms, tries.failing(at_ms)));
        out::line(format_args!("{}", line(seen[seen.len() - 1], detours)));
    }
    for _ in 0..ROUNDS {
        let Some(middle) = middle(&seen, detours) else { break };
        let failing = tries.failing(middle);
        out::line(format_args!("{}", line((middle, failing), detours)));
        seen.push((middle, failing));
        seen.sort_unstable();
    }
    out::line(format_args!("{}", verdict(&seen, detours)));
    Ok(original.verdict.into())
}

struct Tries<'a> {
    program: &'a Program,
    job: &'a Job,
    limit: Duration,
    jobs: usize,
    detours: usize,
    failure: &'a Failure,
}

impl Tries<'_> {
    /// Returns the number of detours from a time on that fail alike.
    fn failing(&self, at_ms: u64) -> usize {
        let failing = AtomicUsize::new(0);
        side_by_side::each(self.detours, self.jobs, |nth| {
            let detour = (nth + 1).to_string();
            let more = ["--detour-at", &at_ms.to_string(), "--detour", &detour].map(str::to_owned);
            let run = child::run_with(self.program, self.job, self.limit, &more);
            if run.failures.contains(self.failure) {
                failing.fetch_add(1, Ordering::Relaxed);
            }
            ControlFlow::Continue(())
        });
        failing.into_inner()
    }
}

fn line((at_ms, failing): (u64, usize), detours: usize) -> String {
    let bar = "█".repeat(BAR * failing / detours.max(1));
    format!("{:9.3} s  {bar:<BAR$}  {failing} of {detours} fail", at_ms as f64 / 1000.0)
}

/// Returns the last time of doubt and the first one from which on all detours fail.
fn bounds(seen: &[(u64, usize)], detours: usize) -> (Option<u64>, Option<u64>) {
    let doubt = seen.iter().rposition(|(_, failing)| *failing < detours);
    let certain = seen.get(doubt.map_or(0, |at| at + 1));
    (doubt.map(|at| seen[at].0), certain.map(|(at_ms, _)| *at_ms))
}

fn middle(seen: &[(u64, usize)], detours: usize) -> Option<u64> {
    match bounds(seen, detours) {
        (Some(doubt), Some(certain)) if certain > doubt + 1 => Some(doubt.midpoint(certain)),
        _ => None,
    }
}

fn verdict(seen: &[(u64, usize)], detours: usize) -> String {
    let seconds = |ms: u64| format!("{:.3} s", ms as f64 / 1000.0);
    match bounds(seen, detours) {
        (None, _) => "doomed   from the beginning: the order of tasks does not matter".to_owned(),
        (Some(doubt), Some(certain)) => {
            format!("doomed   between {} and {}", seconds(doubt), seconds(certain))
        }
        (Some(_), None) => "doomed   never: even late detours avoid it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certainty_begins_after_the_last_detour_that_avoids_the_failure() {
        let seen = [(0, 1), (10_000, 5), (20_000, 3), (30_000, 5), (40_000, 5)];
        assert_eq!(bounds(&seen, 5), (Some(20_000), Some(30_000)));
        assert_eq!(middle(&seen, 5), Some(25_000));
        assert_eq!(verdict(&seen, 5), "doomed   between 20.000 s and 30.000 s");
        assert_eq!(bounds(&[(0, 5), (9, 5)], 5), (None, Some(0)));
        assert_eq!(middle(&[(0, 5), (9, 5)], 5), None);
        assert_eq!(bounds(&[(0, 5), (9, 4)], 5), (Some(9), None));
    }

    #[test]
    fn line_shows_the_share_of_detours_that_fail() {
        let shown = line((1500, 2), 4);
        assert!(shown.contains("1.500 s") && shown.ends_with("2 of 4 fail"), "{shown}");
        assert_eq!(shown.matches('█').count(), BAR / 2);
    }
}
