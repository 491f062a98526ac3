//! Hunt for one bug: seed after seed until a run shows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chatchat_scenarios::story::Story;
use chatchat_sim::{summary::Failure, verdict::Verdict};

use crate::cli::{
    child::{self, Job, Program},
    side_by_side,
};

/// Distance between the seeds of two starts.
const START_EVERY: u64 = 1000;

/// Way to hunt.
pub(super) struct Hunt {
    /// Program without any bug.
    pub(super) clean: Program,
    /// Folder for the stories that shrinking writes.
    pub(super) folder: PathBuf,
    pub(super) stories: Vec<String>,
    /// Seeds after which a bug counts as not found.
    pub(super) seeds: u64,
    /// Hunts from different seeds.
    pub(super) starts: u64,
    pub(super) jobs: usize,
    pub(super) limit: Duration,
    /// Runs without any bug, as they become known: the hunts for all bugs take the same ones.
    pub(super) known: Mutex<BTreeMap<Job, Arc<CleanRun>>>,
}

/// Run without any bug.
pub(super) struct CleanRun {
    failures: Vec<Failure>,
    /// Bugs whose switches it asked. Empty if the program does not tell.
    asked: BTreeSet<String>,
}

impl CleanRun {
    fn tells(&self) -> bool {
        !self.asked.is_empty()
    }
}

/// Run that showed a bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Number of runs that it took.
    pub(super) seeds: u64,
    pub(super) job: Job,
    pub(super) failure: Failure,
}

impl Hunt {
    /// Hunts from each start.
    pub(super) fn hunt(&self, program: &Program) -> Vec<Option<Found>> {
        (0..self.starts).map(|start| self.from(program, 1 + start * START_EVERY)).collect()
    }

    fn job(&self, first: u64, nth: u64) -> Job {
        let seed = first + nth;
        let turn = usize::try_from(seed).unwrap_or(0) % self.stories.len().max(1);
        Job { story: self.stories.get(turn).cloned().unwrap_or_default(), seed }
    }

    fn from(&self, program: &Program, first: u64) -> Option<Found> {
        let seeds = usize::try_from(self.seeds).unwrap_or(usize::MAX);
        let ask = |nth: usize| {
            let job = self.job(first, nth as u64);
            self.shows(program, &job).map(|failure| (job, failure))
        };
        let (nth, (job, failure)) = side_by_side::first(seeds, self.jobs, ask)?;
        Some(Found { seeds: nth as u64 + 1, job, failure })
    }

    /// Returns a failure that the run has with the bug only.
    fn shows(&self, program: &Program, job: &Job) -> Option<Failure> {
        let is_left_out = |asked: &BTreeSet<String>| {
            program.planted.as_ref().is_some_and(|it| !asked.contains(it))
        };
        if self.known(job).is_some_and(|clean| clean.tells() && is_left_out(&clean.asked)) {
            return None;
        }
        let (planted, asked) = child::run_telling(program, job, self.limit);
        let run = CleanRun { failures: planted.failures, asked };
        if run.tells() && is_left_out(&run.asked) {
            // The run is the one without any bug.
            self.keep(job, run);
            return None;
        }
        if matches!(planted.verdict, Verdict::Holds | Verdict::Toothless) {
            return None;
        }
        let clean = self.without_bugs(job);
        run.failures.into_iter().find(|failure| !clean.failures.contains(failure))
    }

    /// Returns the run without any bug, which is carried out once.
    fn without_bugs(&self, job: &Job) -> Arc<CleanRun> {
        self.known(job).unwrap_or_else(|| {
            let (summary, asked) = child::run_telling(&self.clean, job, self.limit);
            self.keep(job, CleanRun { failures: summary.failures, asked })
        })
    }

    fn known(&self, job: &Job) -> Option<Arc<CleanRun>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(job).cloned()
    }

    fn keep(&self, job: &Job, run: CleanRun) -> Arc<CleanRun> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(job.clone()).or_insert_with(|| Arc::new(run)))
    }

    /// Shrinks a run that showed the bug. Answers the number of faults in the smallest plan.
    pub(super) fn shrink(&self, bug: &str, program: &Program, found: &Found) -> Option<usize> {
        let path = self.folder.join(format!("{bug}-shrunk.toml"));
        let (seed, jobs) = (found.job.seed.to_string(), self.jobs.to_string());
        let mut command = program.command();
        command.args(["shrink", &found.job.story, "--seed", &seed, "--jobs", &jobs]);
        command.args(["--rule", &found.failure.rule, "--out"]).arg(&path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().ok()?;
        Story::load(&path.to_string_lossy()).ok().map(|story| story.faults.len())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use chatchat::env::real::TempDir;
    use chatchat_sim::summary::Summary;

    use super::*;

    /// Stands for the program: `run STORY --seed N ..` fails from seed 5 on with bug `late`, and with
    /// any program at seed 2; no run asks for a bug whose name begins with `unasked`. It notes each run.
    /// `shrink .. --out FILE` writes a story.
    const PROGRAM: &str = "#!/bin/sh
here=$(dirname \"$0\")
if [ \"$1\" = shrink ]; then
    for file; do :; done
    exec cp \"$here/shrunk.toml\" \"$file\"
fi
[ -n \"$CHATCHAT_TELL_SWITCHES\" ] && printf 'asked for planted bug %s\\n' late never >&2
echo \"$CHATCHAT_PLANTED $4\" >> \"$here/runs\"
case $4 in
2) exec cat \"$here/gap.json\" ;;
1 | 3 | 4) exec cat \"$here/holds.json\" ;;
*) [ \"$CHATCHAT_PLANTED\" = late ] && exec cat \"$here/two.json\"; exec cat \"$here/holds.json\" ;;
esac
";
    const SHRUNK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stories/toothless.toml");

    fn failing(property: &str, rule: &str) -> Summary {
        let failure = Failure { property: property.to_owned(), rule: rule.to_owned() };
        Summary { verdict: Verdict::Safety, failures: vec![failure], ..Summary::default() }
    }

    #[test]
    fn bug_is_found_by_the_first_run_that_fails_with_it_alone() {
        let dir = TempDir::new().unwrap();
        let folder = dir.path().to_owned();
        let path = folder.join("program");
        fs::write(&path, PROGRAM).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let holds = Summary { verdict: Verdict::Holds, ..Summary::default() };
        let (gap, two) = (failing("G5", "g05.gap"), failing("G8", "g08.two"));
        for (name, summary) in [("holds", &holds), ("gap", &gap), ("two", &two)] {
            let json = serde_json::to_string(summary).unwrap();
            fs::write(folder.join(name).with_extension("json"), json).unwrap();
        }
        fs::copy(SHRUNK, folder.join("shrunk.toml")).unwrap();

        let program = |planted: Option<&str>| Program {
            path: path.clone(),
            planted: planted.map(str::to_owned),
        };
        let hunt = Hunt {
            clean: program(None),
            folder: folder.clone(),
            stories: vec!["calm".to_owned(), "storm".to_owned()],
            seeds: 6,
            starts: 2,
            jobs: 2,
            limit: Duration::from_secs(60),
            known: Mutex::default(),
        };
        assert_eq!(hunt.hunt(&program(Some("never"))), [None, None]);
        let runs_of = |bug: &str| {
            let runs = fs::read_to_string(folder.join("runs")).unwrap();
            runs.lines().filter(|run| run.split(' ').next() == Some(bug)).count()
        };
        for bug in ["unasked", "unasked-too"] {
            assert_eq!(hunt.hunt(&program(Some(bug))), [None, None]);
        }
        // Seed 2 was run without any bug before.
        assert_eq!((runs_of("unasked"), runs_of("unasked-too")), (11, 0));
        let late = program(Some("late"));
        let found = |seeds, seed| {
            let job = Job { story: "storm".to_owned(), seed };
            Some(Found { seeds, job, failure: two.failures[0].clone() })
        };
        let hunted = hunt.hunt(&late);
        assert_eq!(hunted, [found(5, 5), found(1, 1001)]);
        let first = hunted[0].as_ref().unwrap();
        assert_eq!(hunt.shrink("late", &late, first), Some(1));
        assert!(folder.join("late-shrunk.toml").is_file());
    }
}
