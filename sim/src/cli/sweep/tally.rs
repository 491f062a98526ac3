//! Tally of a campaign: pure sums over the summaries of its runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use chatchat_scenarios::fault::Kind;
use chatchat_sim::{
    build::{BUILD, PROBES},
    hits::Hit,
    summary::{Failure, Summary},
    verdict::Verdict,
};
use serde::Serialize;

use super::histogram::{Histogram, histogram, histograms};
use crate::cli::{INTERRUPTED, USAGE, child::Job};

const SECONDS_PER_HOUR: f64 = 3600.0;

/// Campaign so far.
pub(super) struct Tally {
    wanted: usize,
    jobs: usize,
    end: End,
    recoveries: BTreeMap<&'static str, Vec<Option<u64>>>,
    by_role: BTreeMap<Hit, Vec<Option<u64>>>,
    streams_again: BTreeMap<&'static str, Vec<Option<u64>>>,
    virtual_ms: u64,
    kept: BTreeMap<(String, u64), PathBuf>,
}

/// Sum of a campaign, as text and as JSON.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct End {
    /// The worst verdict of a run, or toothless when something was never seen.
    pub(super) verdict: Verdict,
    /// Build of the runs.
    pub(super) build: String,
    /// Whether it was ended early.
    pub(super) interrupted: bool,
    /// Number of runs, and of those that were asked for.
    pub(super) runs: usize,
    pub(super) wanted: usize,
    /// Processes side by side.
    pub(super) jobs: usize,
    pub(super) real_seconds: f64,
    pub(super) seeds_per_second: f64,
    pub(super) virtual_hours: f64,
    pub(super) virtual_hours_per_hour: f64,
    pub(super) calls: usize,
    pub(super) answered: usize,
    /// Verdicts of each story.
    pub(super) stories: BTreeMap<String, BTreeMap<Verdict, usize>>,
    /// Probes that were reached or could have been.
    pub(super) probes: BTreeMap<String, ProbeRow>,
    /// Kinds of fault that were planned.
    pub(super) kinds: BTreeMap<&'static str, KindRow>,
    /// Recovery times by the role of what was hit.
    pub(super) roles: BTreeMap<Hit, Histogram>,
    /// Times until clients of a dead master streamed again, by the kind of its death.
    pub(super) streams_again: BTreeMap<&'static str, Histogram>,
    /// Probes and kinds that the campaign should have seen and did not.
    pub(super) missed: Vec<String>,
    /// Runs that do not hold.
    pub(super) failures: Vec<FailureRow>,
    /// Refusals of the stories that could not be run.
    pub(super) refused: Vec<String>,
}

impl End {
    /// Returns the exit code: that of the verdict unless all runs hold, then that of a refused
    /// story, then that of an interrupt.
    pub(super) fn code(&self) -> u8 {
        match self.verdict {
            Verdict::Holds if !self.refused.is_empty() => USAGE,
            Verdict::Holds if self.interrupted => INTERRUPTED,
            verdict => verdict.code(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ProbeRow {
    /// Runs that reached it.
    pub(super) runs: usize,
    /// How often it was reached in all.
    pub(super) times: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct KindRow {
    pub(super) planned: usize,
    pub(super) began: usize,
    pub(super) bit: usize,
    /// Recovery times; none when it never bit while somebody posted.
    pub(super) recovery: Option<Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct FailureRow {
    pub(super) story: String,
    pub(super) seed: u64,
    pub(super) verdict: Verdict,
    pub(super) failures: Vec<Failure>,
    /// First complaint, its first line.
    pub(super) complaint: String,
    /// Folder that keeps it.
    pub(super) kept: Option<PathBuf>,
    /// Command that runs it again.
    pub(super) replay: String,
}

impl Tally {
    /// Returns the tally of a campaign before its first run.
    pub(super) fn new(stories: &[String], wanted: usize, jobs: usize) -> Self {
        let stories = stories.iter().map(|story| (story.clone(), BTreeMap::new())).collect();
        let end = End { build: BUILD.to_owned(), wanted, jobs, stories, ..End::default() };
        let (recoveries, by_role, streams_again, kept) = Default::default();
        Self { wanted, jobs, end, recoveries, by_role, streams_again, virtual_ms: 0, kept }
    }

    /// Notes the folder that keeps a failure.
    pub(super) fn add_kept(&mut self, job: &Job, folder: PathBuf) {
        self.kept.insert((job.story.clone(), job.seed), folder);
    }

    /// Adds a run.
    pub(super) fn add(&mut self, job: &Job, summary: &Summary) {
        let end = &mut self.end;
        end.runs += 1;
        end.calls += summary.calls;
        end.answered += summary.answered;
        self.virtual_ms += summary.virtual_ms;
        *end.stories.entry(job.story.clone()).or_default().entry(summary.verdict).or_default() += 1;
        for (probe, times) in &summary.probes {
            let row = end.probes.entry(probe.clone()).or_default();
            row.runs += 1;
            row.times += times;
        }
        for fault in &summary.faults {
            let row = end.kinds.entry(fault.kind.name()).or_default();
            row.planned += 1;
            row.began += usize::from(fault.began);
            row.bit += usize::from(fault.bit);
            let times = self.recoveries.entry(fault.kind.name()).or_default();
            times.extend(&fault.recoveries_ms);
            for (role, times) in &fault.recoveries_by_role_ms {
                self.by_role.entry(*role).or_default().extend(times);
            }
            let times = self.streams_again.entry(fault.kind.name()).or_default();
            times.extend(&fault.streams_again_ms);
        }
        if summary.verdict != Verdict::Holds {
            let complaint = summary.complaints.first().map_or("", String::as_str);
            end.failures.push(FailureRow {
                story: job.story.clone(),
                seed: job.seed,
                verdict: summary.verdict,
                failures: summary.failures.clone(),
                complaint: complaint.lines().next().unwrap_or_default().to_owned(),
                kept: self.kept.get(&(job.story.clone(), job.seed)).cloned(),
                replay: job.replay(),
            });
        }
    }

    /// Number of runs so far that do not hold.
    pub(super) const fn failed(&self) -> usize {
        self.end.failures.len()
    }

    /// Returns the progress in a line.
    pub(super) fn progress(&self, real: Duration) -> String {
        let (runs, wanted) = (self.end.runs, self.wanted);
        let rate = runs as f64 / real.as_secs_f64().max(0.001);
        let left = (wanted.saturating_sub(runs)) as f64 / rate.max(0.001);
        format!(
            "{runs} of {wanted} runs, {rate:.2} a second, {left:.0} s left, {} failed",
            self.failed()
        )
    }

    /// Ends the campaign. `kinds` and `probes` must all have been seen in one that was not
    /// interrupted.
    pub(super) fn end(
        mut self,
        real: Duration,
        kinds: &BTreeSet<Kind>,
        wants_probes: bool,
        interrupted: bool,
    ) -> End {
        let mut end = self.end;
        let seconds = real.as_secs_f64().max(0.001);
        end.jobs = self.jobs;
        end.interrupted = interrupted;
        end.real_seconds = seconds;
        end.seeds_per_second = end.runs as f64 / seconds;
        end.virtual_hours = self.virtual_ms as f64 / 1000.0 / SECONDS_PER_HOUR;
        end.virtual_hours_per_hour = end.virtual_hours / (seconds / SECONDS_PER_HOUR);
        for (kind, row) in &mut end.kinds {
            row.recovery = self.recoveries.remove(kind).and_then(histogram);
        }
        end.roles = histograms(self.by_role);
        end.streams_again = histograms(self.streams_again);
        if wants_probes {
            for probe in PROBES {
                end.probes.entry((*probe).to_owned()).or_default();
            }
        }
        let unseen = end.probes.iter().filter(|(_, row)| row.runs == 0);
        end.missed = unseen.map(|(probe, _)| format!("probe: {probe}")).collect();
        for kind in kinds {
            let row = end.kinds.entry(kind.name()).or_default();
            if row.bit == 0 {
                end.missed.push(format!("kind: {} never bit", kind.name()));
            }
        }
        let verdicts = end.stories.values().flat_map(BTreeMap::keys).copied();
        end.verdict = verdicts.max().unwrap_or_default();
        if !interrupted && !end.missed.is_empty() {
            end.verdict = end.verdict.max(Verdict::Toothless);
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use chatchat_sim::summary::FaultSummary;

    use super::*;

    fn summary(
        verdict: Verdict,
        kind: Kind,
        bit: bool,
        recoveries_ms: Vec<Option<u64>>,
    ) -> Summary {
        let text = kind.name().to_owned();
        let recoveries_by_role_ms = [(Hit::Store, recoveries_ms.clone())].into();
        let fault = FaultSummary {
            kind,
            text,
            began: true,
            bit,
            recoveries_ms,
            recoveries_by_role_ms,
            streams_again_ms: Vec::new(),
        };
        Summary {
            verdict,
            complaints: vec!["G1 durable ack: a post is gone\n    at 5 s".to_owned()],
            virtual_ms: 1_800_000,
            faults: vec![fault],
            probes: [("a person posted".to_owned(), 3)].into(),
            ..Summary::default()
        }
    }

    fn campaign(summaries: Vec<Summary>, kinds: &[Kind], wants_probes: bool) -> End {
        let mut tally = Tally::new(&["storm".to_owned()], summaries.len(), 2);
        for (seed, summary) in (1..).zip(summaries) {
            tally.add(&Job { story: "storm".to_owned(), seed }, &summary);
        }
        let kinds = kinds.iter().copied().collect();
        tally.end(Duration::from_secs(10), &kinds, wants_probes, false)
    }

    #[test]
    fn worst_verdict_of_the_runs_is_that_of_the_campaign() {
        let of = |verdict| summary(verdict, Kind::Crash, true, Vec::new());
        let runs = vec![of(Verdict::Holds), of(Verdict::Safety), of(Verdict::Liveness)];
        let end = campaign(runs, &[Kind::Crash], false);
        assert_eq!(end.verdict, Verdict::Safety);
        assert_eq!(end.stories["storm"][&Verdict::Liveness], 1);
        assert_eq!(end.failures.len(), 2);
        assert_eq!(end.failures[0].complaint, "G1 durable ack: a post is gone");
        assert_eq!(end.failures[0].replay, "chatchat-sim run storm --seed 2");
        assert!((end.seeds_per_second - 0.3).abs() < 1e-9, "{}", end.seeds_per_second);
        assert!((end.virtual_hours_per_hour - 540.0).abs() < 1e-6);
    }

    #[test]
    fn refused_story_decides_the_exit_code_when_nothing_failed() {
        let of = |verdict| {
            let runs = vec![summary(verdict, Kind::Crash, true, Vec::new())];
            End { refused: vec!["x.toml:3: why".to_owned()], ..campaign(runs, &[], false) }
        };
        assert_eq!(of(Verdict::Holds).code(), USAGE);
        assert_eq!(of(Verdict::Safety).code(), Verdict::Safety.code());
        assert_eq!(of(Verdict::Toothless).code(), Verdict::Toothless.code());
        assert_eq!(campaign(Vec::new(), &[], false).code(), 0);
    }

    #[test]
    fn interrupt_decides_the_exit_code_when_nothing_failed() {
        let of = |verdict| {
            let mut tally = Tally::new(&["storm".to_owned()], 9, 2);
            let job = Job { story: "storm".to_owned(), seed: 1 };
            tally.add(&job, &summary(verdict, Kind::Crash, true, Vec::new()));
            let kinds = [Kind::Crash, Kind::Pause].into();
            tally.end(Duration::from_secs(10), &kinds, true, true)
        };
        assert_eq!(of(Verdict::Holds).code(), INTERRUPTED);
        assert_eq!(of(Verdict::Safety).code(), Verdict::Safety.code());
        let refused = vec!["x.toml:3: why".to_owned()];
        assert_eq!(End { refused, ..of(Verdict::Holds) }.code(), USAGE);
    }

    #[test]
    fn kind_that_never_bit_makes_a_campaign_toothless() {
        let runs = || vec![summary(Verdict::Holds, Kind::Crash, true, Vec::new())];
        assert_eq!(campaign(runs(), &[Kind::Crash], false).verdict, Verdict::Holds);
        let end = campaign(runs(), &[Kind::Crash, Kind::Pause], false);
        assert_eq!((end.verdict, end.missed.len()), (Verdict::Toothless, 1));
        let dull = vec![summary(Verdict::Holds, Kind::Crash, false, Vec::new())];
        assert_eq!(campaign(dull, &[Kind::Crash], false).verdict, Verdict::Toothless);
    }

    #[test]
    fn probe_that_was_never_reached_makes_a_whole_campaign_toothless() {
        let runs = vec![summary(Verdict::Holds, Kind::Crash, true, Vec::new())];
        let end = campaign(runs, &[], true);
        assert_eq!(end.verdict, Verdict::Toothless);
        assert_eq!(end.missed.len(), PROBES.len() - 1, "{:?}", end.missed);
        assert_eq!(end.probes["a person posted"], ProbeRow { runs: 1, times: 3 });
    }

    #[test]
    fn recovery_times_are_put_into_classes_and_what_never_ended_is_the_longest() {
        let times = vec![Some(90), Some(240), Some(30_000), None];
        let runs = vec![summary(Verdict::Holds, Kind::Pause, true, times)];
        let end = campaign(runs, &[], false);
        let histogram = end.kinds["pause"].recovery.clone().expect("it bit");
        assert_eq!(end.roles, BTreeMap::from([(Hit::Store, histogram.clone())]));
        assert_eq!(histogram.classes, [1, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((histogram.p50_ms, histogram.p90_ms), (Some(30_000), None));
        assert_eq!((histogram.max_ms, histogram.never), (30_000, 1));
        assert_eq!(end.streams_again, BTreeMap::new(), "no master died");
    }

    #[test]
    fn times_until_clients_stream_again_are_gathered_by_the_kind_of_death() {
        let died = |kind, times: Vec<Option<u64>>| {
            let mut run = summary(Verdict::Holds, kind, true, Vec::new());
            run.faults[0].streams_again_ms = times;
            run
        };
        let hundred = (1..=100).map(|nth| Some(10 * nth)).collect();
        let runs = vec![
            died(Kind::Exit, hundred),
            died(Kind::Exit, vec![Some(5); 100]),
            died(Kind::Crash, vec![Some(9000), None]),
        ];
        let end = campaign(runs, &[], false);
        assert_eq!(end.streams_again.keys().copied().collect::<Vec<_>>(), ["crash", "exit"]);
        let exit = &end.streams_again["exit"];
        assert_eq!((exit.p50_ms, exit.p90_ms, exit.p99_ms), (Some(10), Some(810), Some(990)));
        assert_eq!((exit.max_ms, exit.never), (1000, 0));
        assert_eq!(exit.classes, [110, 15, 25, 50, 0, 0, 0, 0, 0]);
        let crash = &end.streams_again["crash"];
        assert_eq!((crash.p50_ms, crash.p99_ms), (None, None));
        assert_eq!((crash.max_ms, crash.never), (9000, 1));
    }
}
