//! `shrink`: the smallest plan that still fails in the same way, as a story file.
//!
//! 1. The original is run first; what holds is not shrunk.
//! 2. A smaller plan is accepted only if it breaks the same rule of the same property.
//! 3. A plan is tried with several seeds: with fewer nodes or people the same seed orders the
//!    tasks of those that are left in another way.
//! 4. At the end no single step makes the plan smaller, as far as the tried seeds show, unless the
//!    bound on runs ended the search: then the output says so.

mod search;
mod steps;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, ExitCode},
    time::Duration,
};

use chatchat_scenarios::{plan::Plan, story::Story};
use chatchat_sim::{
    summary::{Failure, Summary},
    verdict::Verdict,
};

use self::search::{Shrunk, Trier};
use super::{
    child::{self, Job, Program},
    out, side_by_side,
};

pub(super) fn run(shrink: &super::Shrink) -> Result<ExitCode, String> {
    let plan = super::plan(&shrink.which)?;
    let seed = shrink.which.seed;
    let limit = Duration::from_secs(shrink.which.limit);
    let program = Program::this()?;
    let job = Job { story: shrink.which.story.clone(), seed };
    let original = child::run(&program, &job, limit);
    let Some(failure) = wanted(&original, shrink.rule.as_deref())? else {
        return Err(format!("{} seed {seed} {}: nothing to shrink", plan.story, original.verdict));
    };
    eprintln!("fails with {}: {}", failure.property, failure.rule);

    let folder = env::temp_dir().join(format!("chatchat-sim-shrink-{}", process::id()));
    fs::create_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    let seeds = (seed..).take(shrink.seeds.max(1)).collect();
    let jobs = shrink.jobs.unwrap_or_else(super::cores).max(1);
    let processes = Processes { program, folder, limit, jobs, failure: failure.clone() };
    let shrunk = search::shrink(&plan, seeds, shrink.runs, &processes);
    // What is left of a temporary folder harms nobody.
    let _ = fs::remove_dir_all(&processes.folder);
    let shrunk = shrunk.ok_or_else(|| {
        format!(
            "{} seed {seed}, written down as a plan, does not fail with {} any more; try more \
             `--seeds`",
            plan.story, failure.rule
        )
    })?;
    let path = shrink.out.clone().unwrap_or_else(|| {
        Path::new("failures").join(&plan.story).join(format!("seed-{seed}")).join("shrunk.toml")
    });
    keep(&path, &plan, &shrunk, &failure).map_err(|why| format!("{}: {why}", path.display()))?;
    out::line(format_args!("{}", told(&plan, &shrunk, &failure, &path)));
    if shrunk.is_cut_short {
        let runs = shrink.runs;
        out::line(format_args!("bound of {runs} runs reached: the plan may not be minimal"));
    }
    Ok(original.verdict.into())
}

/// Returns the failure that candidates must share: the first, or the one of the rule that was
/// asked for; nothing when the run does not fail.
pub(super) fn wanted(original: &Summary, rule: Option<&str>) -> Result<Option<Failure>, String> {
    if matches!(original.verdict, Verdict::Holds | Verdict::Toothless) {
        return Ok(None);
    }
    let failures = original.failures.iter();
    let Some(rule) = rule else { return Ok(failures.clone().next().cloned()) };
    let found = failures.clone().find(|failure| failure.rule == rule).cloned();
    if found.is_none() {
        let rules: Vec<_> = failures.map(|failure| failure.rule.as_str()).collect();
        return Err(format!("it does not break {rule}, but: {}", rules.join(", ")));
    }
    Ok(found)
}

fn keep(path: &Path, plan: &Plan, shrunk: &Shrunk, failure: &Failure) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let about = format!(
        "Smallest plan found for {} with seed {}: breaks {}, {}, with seed {}.",
        plan.story, plan.seed, failure.property, failure.rule, shrunk.seed
    );
    fs::write(path, shrunk.plan.to_story(&about))
}

fn told(plan: &Plan, shrunk: &Shrunk, failure: &Failure, path: &Path) -> String {
    let size = |plan: &Plan| {
        format!(
            "{} faults, {} masters, {} workers, {} people, {:?}",
            plan.faults.len(),
            plan.cluster.masters,
            plan.cluster.workers,
            plan.workload.people,
            plan.duration
        )
    };
    let job = Job { story: path.display().to_string(), seed: shrunk.seed };
    let mut text = format!(
        "breaks   {} {}\nbefore   {}\nafter    {}\nruns     {}\n",
        failure.property,
        failure.rule,
        size(plan),
        size(&shrunk.plan),
        shrunk.runs
    );
    for fault in &shrunk.plan.faults {
        text.push_str(&format!("         {fault}\n"));
    }
    text.push_str(&format!("story    {}\nreplay   {}", path.display(), job.replay()));
    text
}

/// Tries plans in processes, several side by side.
struct Processes {
    program: Program,
    folder: PathBuf,
    limit: Duration,
    jobs: usize,
    failure: Failure,
}

impl Processes {
    fn fails(&self, nth: usize, plan: &Plan, seed: u64) -> bool {
        let text = plan.to_story("a candidate");
        // Nodes that a fault names cannot go: such a plan is none.
        if Story::parse("candidate", &text).is_err() {
            return false;
        }
        let path = self.folder.join(format!("{nth}.toml"));
        if fs::write(&path, text).is_err() {
            return false;
        }
        let job = Job { story: path.display().to_string(), seed };
        let summary = child::run(&self.program, &job, self.limit);
        summary.failures.contains(&self.failure)
    }
}

impl Trier for Processes {
    fn first_failing(&self, candidates: &[(Plan, u64)]) -> Option<usize> {
        let ask = |nth: usize| {
            let (plan, seed) = &candidates[nth];
            self.fails(nth, plan, *seed).then_some(())
        };
        side_by_side::first(candidates.len(), self.jobs, ask).map(|(nth, ())| nth)
    }
}
