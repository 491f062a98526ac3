//! Summary of a run as data: `run --json` prints it, `sweep` and `shrink` read it.

use std::{collections::BTreeMap, time::Duration};

use chatchat_scenarios::{fault::Kind, plan::Plan};
use serde::{Deserialize, Serialize};

use crate::{
    build::BUILD,
    hits::Hit,
    recovery::Recovery,
    verdict::{Report, Verdict},
};

/// Run from outside, as other processes read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the story.
    pub story: String,
    /// Seed of the run.
    pub seed: u64,
    /// Verdict of the run.
    pub verdict: Verdict,
    /// Failures without repeats, in the order in which they were found.
    pub failures: Vec<Failure>,
    /// Complaints with their evidence.
    pub complaints: Vec<String>,
    /// Build that ran it; see [`BUILD`].
    pub build: String,
    /// Processes that a real run started, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real: Option<String>,
    /// Parts that a real run could not judge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unjudged: Vec<String>,
    /// SHA-256 over the event log.
    pub digest: String,
    /// Virtual time of the run.
    pub virtual_ms: u64,
    /// Real time that it took.
    pub real_ms: u64,
    /// Number of calls.
    pub calls: usize,
    /// Number of calls with a good answer.
    pub answered: usize,
    /// Number of lines in the event log.
    pub events: usize,
    /// Faults of the plan, in its order.
    pub faults: Vec<FaultSummary>,
    /// Probes that were reached, and how often.
    pub probes: BTreeMap<String, u64>,
}

/// Failure that can be compared with that of another run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Failure {
    /// Number of the violated property, such as `G2`; else the verdict.
    pub property: String,
    /// Rule of the property, such as `g05.gap`; else the complaint without its numbers.
    pub rule: String,
}

/// Fault of the plan, and its course.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultSummary {
    /// Kind of the fault.
    pub kind: Kind,
    /// The fault in words.
    pub text: String,
    /// Whether it began.
    pub began: bool,
    /// Whether it touched anything.
    pub bit: bool,
    /// Recovery times, ms; `None`: a post was never acknowledged.
    pub recoveries_ms: Vec<Option<u64>>,
    /// The same by the role of what was hit when the fault began.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recoveries_by_role_ms: BTreeMap<Hit, Vec<Option<u64>>>,
    /// Times until each client of a master that it ended streamed again, ms; `None`: it never did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams_again_ms: Vec<Option<u64>>,
}

impl Summary {
    /// Sums a run up.
    #[must_use]
    pub fn new(plan: &Plan, report: &Report, real_time: Duration) -> Self {
        let (answered, calls) = report.operations;
        let probes = report.probes.iter().map(|(probe, count)| ((*probe).to_owned(), *count));
        Self {
            story: plan.story.clone(),
            seed: plan.seed,
            verdict: report.verdict,
            failures: failures(report),
            complaints: report.complaints.clone(),
            build: BUILD.to_owned(),
            real: report.real.clone(),
            unjudged: report.unjudged.clone(),
            digest: report.digest.clone(),
            virtual_ms: ms(report.virtual_time),
            real_ms: ms(real_time),
            calls,
            answered,
            events: report.log.len(),
            faults: faults(plan, report),
            probes: probes.collect(),
        }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn recovery_ms(recovery: Recovery) -> Option<u64> {
    match recovery {
        Recovery::Took(time) => Some(ms(time)),
        Recovery::Never => None,
    }
}

fn faults(plan: &Plan, report: &Report) -> Vec<FaultSummary> {
    let summary = |(nth, fault): (usize, &chatchat_scenarios::fault::Fault)| {
        let incidents = report.incidents.iter().enumerate();
        let of_it: Vec<_> = incidents.filter(|(_, incident)| incident.fault == nth).collect();
        let recovery = |at: usize| report.recoveries.get(at).copied().flatten().map(recovery_ms);
        let streams_again =
            of_it.iter().filter_map(|(at, _)| report.streams_again.get(*at)).flatten();
        let mut by_role = BTreeMap::<_, Vec<_>>::new();
        for (at, _) in &of_it {
            let hit = report.hits.get(*at).copied().flatten();
            if let (Some(hit), Some(time)) = (hit, recovery(*at)) {
                by_role.entry(hit).or_default().push(time);
            }
        }
        FaultSummary {
            kind: fault.action.kind(),
            text: fault.to_string(),
            began: !of_it.is_empty(),
            bit: of_it.iter().any(|(_, incident)| incident.bit),
            recoveries_ms: of_it.iter().filter_map(|(at, _)| recovery(*at)).collect(),
            recoveries_by_role_ms: by_role,
            streams_again_ms: streams_again.copied().map(recovery_ms).collect(),
        }
    };
    plan.faults.iter().enumerate().map(summary).collect()
}

fn failures(report: &Report) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut add = |property: String, rule: String| {
        let failure = Failure { property, rule };
        if !failures.contains(&failure) {
            failures.push(failure);
        }
    };
    match report.verdict {
        Verdict::Holds | Verdict::Toothless => {}
        Verdict::Safety | Verdict::Liveness => {
            for violation in &report.violations {
                add(violation.property().number().to_owned(), violation.rule.to_string());
            }
        }
        verdict @ (Verdict::Crash | Verdict::Differs | Verdict::TimedOut) => {
            let why = report.complaints.first().map_or("", String::as_str);
            add(verdict.to_string(), unnumbered(why));
        }
    }
    failures
}

/// Returns the first line of a complaint without the words that differ from run to run.
fn unnumbered(text: &str) -> String {
    const WORDS_MAX: usize = 12;
    let line = text.lines().next().unwrap_or_default();
    let is_fixed = |word: &&str| {
        !word.contains(|c: char| c.is_ascii_digit() || c == '"') || word.contains(".rs:")
    };
    let words: Vec<_> = line.split_whitespace().filter(is_fixed).take(WORDS_MAX).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use chatchat_scenarios::{
        oracle::{Rule, Violation},
        plan::Incident,
        property::Property,
        story::Story,
    };

    use super::*;

    const STORY: &str = r#"
        about = "a test"
        duration = "20s"
        [cluster]
        masters = 2
        workers = 1
        [[fault]]
        at = "5s"
        kind = "crash"
        target = "master:1"
        for = "4s"
        [[fault]]
        at = "12s"
        kind = "pause"
        target = "worker:0"
    "#;

    fn violation(property: Property, name: &'static str) -> Violation {
        let rule = Rule { property, name };
        Violation { rule, text: "a test".to_owned(), evidence: Vec::new() }
    }

    #[test]
    fn summary_reads_back_as_it_was_written() {
        let plan = Plan::expand(&Story::parse("test", STORY).expect("a story"), 7);
        let secs = Duration::from_secs;
        let report = Report {
            verdict: Verdict::Safety,
            violations: vec![
                violation(Property::G2, "twice"),
                violation(Property::G2, "twice"),
                violation(Property::G1, "gone"),
            ],
            incidents: vec![Incident { fault: 0, from: secs(5), until: Some(secs(9)), bit: true }],
            recoveries: vec![Some(Recovery::Took(secs(2)))],
            hits: vec![Some(Hit::BusyWorker)],
            operations: (118, 120),
            probes: [("a person posted", 60)].into(),
            ..Report::default()
        };
        let summary = Summary::new(&plan, &report, secs(2));
        let text = serde_json::to_string(&summary).expect("plain data");
        assert_eq!(serde_json::from_str::<Summary>(&text).expect("reads back"), summary);
        let found: Vec<_> =
            summary.failures.iter().map(|it| (it.property.as_str(), it.rule.as_str())).collect();
        assert_eq!(found, [("G2", "g02.twice"), ("G1", "g01.gone")]);
        assert_eq!(summary.faults[0].recoveries_ms, [Some(2000)]);
        let by_role = [(Hit::BusyWorker, vec![Some(2000)])];
        assert_eq!(summary.faults[0].recoveries_by_role_ms, BTreeMap::from(by_role));
        assert!(text.contains(r#""recoveries_by_role_ms":{"busy_worker":[2000]}"#), "{text}");
        assert!(summary.faults[0].bit && !summary.faults[1].began);
    }

    #[test]
    fn crash_is_named_by_its_place() {
        let report = Report {
            verdict: Verdict::Crash,
            complaints: vec![
                "master1 panicked in its task \"main\", at src/a.rs:7: no 12".to_owned(),
            ],
            ..Report::default()
        };
        let failures = failures(&report);
        assert_eq!(failures[0].property, "CRASH");
        assert_eq!(failures[0].rule, "panicked in its task at src/a.rs:7: no");
    }
}
