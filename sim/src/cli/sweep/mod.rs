//! `sweep`: many seeds, one process each, summed up.
//!
//! 1. The order of runs is fixed: all stories with the first seed, then with the next.
//! 2. An interrupt ends the campaign early; what was run is summed up all the same.
//! 3. A campaign whose runs hold still fails, as toothless, when a kind of fault that its plans
//!    hold never bit, or, with every story in it, when a probe was never reached.
//! 4. A story that cannot be read or carried out stops no other: its refusal stands in the sum.

mod histogram;
mod keep;
mod runs;
mod table;
mod tally;

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chatchat_scenarios::fault::Kind;
use chatchat_sim::{faults, verdict::Verdict};
use indicatif::{ProgressBar, ProgressStyle};

use self::tally::Tally;
use super::{child::Job, out};

/// Interval of the lines that tell the progress where there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(30);

pub(super) fn run(sweep: &super::Sweep) -> Result<ExitCode, String> {
    let super::Stories { read, refused } = super::stories(&sweep.stories)?;
    // A story that cannot be run may be the one that reaches a probe.
    let is_whole = sweep.stories.is_empty() && refused.is_empty();
    let mut kinds = BTreeSet::new();
    for (_, story) in &read {
        kinds.extend(story.faults.iter().map(|fault| fault.action.kind()));
        kinds.extend(story.swarm.iter().flat_map(|swarm| swarm.kinds.iter().copied()));
    }
    if is_whole {
        kinds.extend(Kind::ALL.iter().copied().filter(|kind| faults::is_supported(*kind)));
    }
    let stories: Vec<_> = read.into_iter().map(|(name, _)| name).collect();
    let jobs = jobs(&stories, sweep.from, sweep.seeds);
    let at_a_time = sweep.jobs.unwrap_or_else(super::cores).max(1);

    let is_over = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_over);
    ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed))
        .map_err(|why| format!("the interrupt cannot be caught: {why}"))?;

    let start = super::once::real_now();
    let bar = bar(jobs.len() as u64);
    let mut tally = Tally::new(&stories, jobs.len(), at_a_time);
    let mut told = start;
    let limit = Duration::from_secs(sweep.limit);
    for (job, summary) in runs::start(jobs, at_a_time, limit, &is_over)? {
        if summary.verdict != Verdict::Holds {
            let kept = keep::keep(&sweep.keep, &job, &summary).map_err(|why| {
                format!("{}: the failure cannot be kept: {why}", sweep.keep.display())
            })?;
            bar.suspend(|| {
                eprintln!("{} seed {}: {}", job.story, job.seed, summary.verdict);
            });
            tally.add_kept(&job, kept);
        }
        tally.add(&job, &summary);
        bar.set_message(format!("{} failed", tally.failed()));
        bar.inc(1);
        if bar.is_hidden() && told.elapsed() >= TELL_EVERY {
            told = super::once::real_now();
            eprintln!("{}", tally.progress(start.elapsed()));
        }
    }
    bar.finish_and_clear();
    let mut end = tally.end(start.elapsed(), &kinds, is_whole, is_over.load(Ordering::Relaxed));
    end.refused = refused;
    if sweep.json {
        let text = serde_json::to_string_pretty(&end).map_err(|why| why.to_string())?;
        out::line(format_args!("{text}"));
    } else {
        out::text(format_args!("{}", table::text(&end)));
    }
    Ok(ExitCode::from(end.code()))
}

fn jobs(stories: &[String], from: u64, seeds: u64) -> Vec<Job> {
    let seeds = from..from.saturating_add(seeds);
    let of = |seed| stories.iter().map(move |story| Job { story: story.clone(), seed });
    seeds.flat_map(of).collect()
}

fn bar(runs: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{bar:32} {pos}/{len} runs, {per_sec}, {eta} left, {msg}";
    let bar = ProgressBar::new(runs).with_message("0 failed");
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_story_gets_a_seed_before_any_gets_the_next() {
        let jobs = jobs(&["calm".to_owned(), "storm".to_owned()], 5, 2);
        let order: Vec<_> = jobs.iter().map(|job| (job.story.as_str(), job.seed)).collect();
        assert_eq!(order, [("calm", 5), ("storm", 5), ("calm", 6), ("storm", 6)]);
    }
}
