//! Verdict of a run, and the block that prints it.

use std::{collections::BTreeMap, fmt, process::ExitCode, time::Duration};

use chatchat_scenarios::{
    history::History,
    oracle::{Violation, is_judged},
    plan::{Incident, Plan},
    property::Property,
};
use serde::{Deserialize, Serialize};

use crate::{build::BUILD, hits::Hit, recovery::Recovery};

/// Verdict of a run, worst last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every property held.
    #[default]
    Holds,
    /// Every property held, but the run showed less than its story says: a fault never began or
    /// touched nothing, or a living person was shown nothing.
    Toothless,
    /// Something that should happen did not, or not in time.
    Liveness,
    /// Something happened that must never happen.
    Safety,
    /// A node panicked, ended by itself or recorded what is no event.
    Crash,
    /// The same seed gave another log.
    Differs,
    /// The run outlived its time limit.
    TimedOut,
}

impl Verdict {
    /// All verdicts, worst last.
    pub const ALL: [Self; 7] = [
        Self::Holds,
        Self::Toothless,
        Self::Liveness,
        Self::Safety,
        Self::Crash,
        Self::Differs,
        Self::TimedOut,
    ];

    /// Returns the exit code of the process.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Holds => 0,
            Self::Safety => 10,
            Self::Liveness => 11,
            Self::Crash => 12,
            Self::Differs => 13,
            Self::TimedOut => 14,
            Self::Toothless => 15,
        }
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        Self::from(verdict.code())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::Toothless => "TOOTHLESS",
            Self::Safety => "SAFETY",
            Self::Liveness => "LIVENESS",
            Self::Crash => "CRASH",
            Self::Differs => "NOT DETERMINISTIC",
            Self::TimedOut => "OUT OF TIME",
        })
    }
}

/// A run from outside.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Verdict of the run.
    pub verdict: Verdict,
    /// Complaints about the run, one text each: violations, panics, nodes that ended.
    pub complaints: Vec<String>,
    /// Violations as the oracles found them.
    pub violations: Vec<Violation>,
    /// SHA-256 over the event log; empty for a real run, which is never the same twice.
    pub digest: String,
    /// Virtual time of the run; that of a real run is real.
    pub virtual_time: Duration,
    /// Number of calls with a good answer, and of all calls.
    pub operations: (usize, usize),
    /// Faults as they were carried out.
    pub incidents: Vec<Incident>,
    /// Recovery time of each incident.
    pub recoveries: Vec<Option<Recovery>>,
    /// Waits for streams after each incident, one for each client whose master it ended.
    pub streams_again: Vec<Vec<Recovery>>,
    /// Role of what each incident hit.
    pub hits: Vec<Option<Hit>>,
    /// Probes, and how often each was reached.
    pub probes: BTreeMap<&'static str, u64>,
    /// Event log.
    pub log: Vec<String>,
    /// Everything that people saw.
    pub history: History,
    /// Time of the deployment at which the plan's time, and that of the history, began.
    pub started: Duration,
    /// Processes that a real run started, in words; nothing for one in the simulated world.
    pub real: Option<String>,
    /// Parts that a real run could not judge, each with the reason.
    pub unjudged: Vec<String>,
    /// Refusal of a real run's evidence without one acknowledged post, in words.
    pub canary: Option<String>,
}

/// Returns the expected properties that a run judges, and those that it does not, or not whole.
fn scope(plan: &Plan) -> (String, Option<String>) {
    let expected = plan.expect.properties.iter();
    let (judged, others): (Vec<&Property>, Vec<_>) =
        expected.partition(|property| is_judged(**property));
    let judged: Vec<_> = judged.into_iter().map(|property| property.number()).collect();
    let name = |property: &Property| match property {
        Property::G18 => format!("{property} (`meta` does)"),
        _ => property.to_string(),
    };
    let others: Vec<_> = others.into_iter().map(name).collect();
    (judged.join(" "), (!others.is_empty()).then(|| others.join(", ")))
}

impl Report {
    /// Returns the verdict block. Without the real time it is the same for the same seed.
    #[must_use]
    pub fn block(&self, plan: &Plan, real_time: Option<Duration>) -> String {
        let mut rows = vec![("verdict", self.verdict.to_string())];
        rows.extend(self.complaints.iter().map(|complaint| ("", complaint.clone())));
        let (judged, unjudged) = scope(plan);
        rows.push(("judged", judged));
        if let Some(unjudged) = unjudged {
            rows.push(("", format!("not judged: {unjudged}")));
        }
        let of_real = self.unjudged.iter().map(|part| ("", format!("not judged (real): {part}")));
        rows.extend(of_real);
        rows.extend(self.canary.iter().map(|refused| ("canary", refused.clone())));
        rows.push(("story", format!("{}, seed {}", plan.story, plan.seed)));
        rows.push(("build", BUILD.to_owned()));
        let took = self.virtual_time.as_secs_f64();
        match &self.real {
            Some(real) => rows.push(("real", real.clone())),
            None => rows.push(("digest", self.digest.clone())),
        }
        rows.push(match real_time {
            _ if self.real.is_some() => ("time", format!("{took:.1} s real")),
            None => ("time", format!("{took:.1} s virtual")),
            Some(real) => ("time", format!("{took:.1} s virtual in {:.1} s", real.as_secs_f64())),
        });
        let (well, made) = self.operations;
        rows.push(("calls", format!("{made}, {well} answered well")));
        rows.push(("events", self.log.len().to_string()));
        for (nth, fault) in plan.faults.iter().enumerate() {
            rows.push((if nth == 0 { "faults" } else { "" }, self.fault(nth, &fault.to_string())));
        }
        let probes = self.probes.iter().map(|(probe, count)| format!("{probe} ({count})"));
        rows.extend(
            probes.enumerate().map(|(nth, row)| (if nth == 0 { "probes" } else { "" }, row)),
        );
        let lines = rows.iter().map(|(head, row)| format!("{head:<8} {row}\n"));
        lines.collect()
    }

    fn fault(&self, nth: usize, text: &str) -> String {
        let mut happened = self.incidents.iter().filter(|incident| incident.fault == nth);
        let Some(incident) = happened.next() else { return format!("{text}: never began") };
        let from = incident.from.as_secs_f64();
        let until = incident
            .until
            .map_or_else(|| "the end".to_owned(), |until| format!("{:.3} s", until.as_secs_f64()));
        let bit = if incident.bit { "bit" } else { "never touched anything" };
        format!("{text}: {bit}, {from:.3} s to {until}")
    }
}

#[cfg(test)]
mod tests {
    use chatchat_scenarios::story::Story;

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
        kind = "partition"
        from = "master:0"
        to = "worker:0"
        [[fault]]
        when = "token_raised"
        kind = "pause"
        target = "worker:0"
        for = "1s"
    "#;

    #[test]
    fn block_tells_faults_that_bit_and_those_that_did_not() {
        let plan = Plan::expand(&Story::parse("test", STORY).expect("a story"), 7);
        let secs = Duration::from_secs;
        let report = Report {
            verdict: Verdict::Safety,
            complaints: vec!["G1 durable ack: a post is gone".to_owned()],
            violations: Vec::new(),
            digest: "00ff".to_owned(),
            virtual_time: secs(31),
            operations: (118, 120),
            incidents: vec![
                Incident { fault: 0, from: secs(5), until: Some(secs(9)), bit: true },
                Incident { fault: 1, from: secs(12), until: None, bit: false },
            ],
            probes: [("a person posted", 60), ("a holder was wished away", 1)].into(),
            log: vec!["{}".to_owned()],
            ..Report::default()
        };
        let block = report.block(&plan, Some(secs(2))).replace(BUILD, "(this build)");
        insta::assert_snapshot!(block, @r"
        verdict  SAFETY
                 G1 durable ack: a post is gone
        judged   G0 G1 G2 G3 G4 G5 G6 G7 G8 G9 G10 G11 G12 G13 G14 G15 G16 G17
                 not judged: G18 determinism (`meta` does)
        story    test, seed 7
        build    (this build)
        digest   00ff
        time     31.0 s virtual in 2.0 s
        calls    120, 118 answered well
        events   1
        faults   at 5s crash master:1 for 4s: bit, 5.000 s to 9.000 s
                 at 12s partition master:0 <-> worker:0: never touched anything, 12.000 s to the end
                 at TokenRaised number 1 pause worker:0 for 1s: never began
        probes   a holder was wished away (1)
                 a person posted (60)
        ");
    }

    #[test]
    fn block_of_a_real_run_names_its_processes_and_what_it_could_not_judge() {
        let plan = Plan::expand(&Story::parse("test", STORY).expect("a story"), 7);
        let report = Report {
            virtual_time: Duration::from_secs(31),
            real: Some("processes of bin, on 127.0.0.1".to_owned()),
            unjudged: vec!["G14 secrecy: no wire is tapped".to_owned()],
            canary: Some("lobby 7 taken out of the store is refused: G1 durable ack".to_owned()),
            ..Report::default()
        };
        let block = report.block(&plan, None).replace(BUILD, "(this build)");
        let head: Vec<_> = block.lines().take(9).collect();
        insta::assert_snapshot!(head.join("\n"), @r"
        verdict  holds
        judged   G0 G1 G2 G3 G4 G5 G6 G7 G8 G9 G10 G11 G12 G13 G14 G15 G16 G17
                 not judged: G18 determinism (`meta` does)
                 not judged (real): G14 secrecy: no wire is tapped
        canary   lobby 7 taken out of the store is refused: G1 durable ack
        story    test, seed 7
        build    (this build)
        real     processes of bin, on 127.0.0.1
        time     31.0 s real
        ");
    }

    #[test]
    fn each_verdict_has_its_exit_code() {
        use Verdict::{Crash, Differs, Holds, Liveness, Safety, TimedOut, Toothless};
        let codes = [Holds, Safety, Liveness, Crash, Differs, TimedOut, Toothless];
        assert_eq!(codes.map(Verdict::code), [0, 10, 11, 12, 13, 14, 15]);
        assert!(Verdict::ALL.is_sorted(), "worst last");
    }
}
