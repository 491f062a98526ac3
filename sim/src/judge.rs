//! Judgement of a run: from its evidence to its verdict, the same for every deployment.

use chatchat_scenarios::{
    oracle::{self, Evidence, Violation},
    target::Place,
};

use crate::{
    faults::Excuse,
    hits::hits,
    recovery::{recoveries, stream_recoveries},
    verdict::{Report, Verdict},
};

/// Judges a run. `more` are violations that the deployment itself saw; `counts` says whether the
/// evidence is enough for a violation; `ended` are the processes that ended by themselves, and
/// `report` is the rest of what is known of the run.
pub(crate) fn judge(
    evidence: &Evidence<'_>,
    more: Vec<Violation>,
    counts: impl Fn(&Violation) -> bool,
    ended: &[(Place, String)],
    report: Report,
) -> Report {
    let (plan, history, incidents) = (evidence.plan, evidence.history, evidence.incidents);
    let mut violations = oracle::judge(evidence);
    violations.extend(more);
    violations.retain(counts);
    let is_safety = violations.iter().any(|violation| !violation.property().is_liveness());
    let mut complaints: Vec<_> = violations.iter().map(ToString::to_string).collect();
    let mut toothless = plan.toothless(incidents);
    toothless.extend(oracle::shown_nothing(history, plan.workload.people));
    if plan.workload.has_operator() {
        toothless.extend(oracle::handled_nothing(history));
    }
    complaints.extend(ended.iter().map(|(place, why)| format!("{place} ended by itself: {why}")));
    let verdict = match (ended.is_empty(), is_safety, violations.is_empty()) {
        (false, ..) => Verdict::Crash,
        (_, true, _) => Verdict::Safety,
        (_, _, false) => Verdict::Liveness,
        _ if toothless.is_empty() => Verdict::Holds,
        _ => Verdict::Toothless,
    };
    complaints.extend(toothless);
    Report {
        verdict,
        complaints,
        violations,
        operations: history.counts(),
        recoveries: recoveries(history, incidents, plan.core_number()),
        streams_again: stream_recoveries(evidence),
        hits: hits(evidence),
        incidents: incidents.to_vec(),
        ..report
    }
}

impl Report {
    /// Adds why a run that is stuck had a right to be, if that excuses all that it broke: then it
    /// shows nothing.
    pub(crate) fn with_excuse(mut self, rightly_stuck: Option<Excuse>) -> Self {
        let excuses_all = |excuse: &Excuse| {
            self.violations.iter().all(|violation| excuse.covers(violation.property()))
        };
        let excuse = rightly_stuck.filter(excuses_all);
        if let (Verdict::Liveness, Some(Excuse { why, .. })) = (self.verdict, excuse) {
            self.verdict = Verdict::Toothless;
            self.complaints.insert(0, format!("rightly stuck: {why}"));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use chatchat_scenarios::{oracle::Rule, property::Property};

    use super::*;

    #[test]
    fn stuck_run_shows_nothing_if_nobody_was_there_to_do_the_work() {
        let report = |verdict| Report { verdict, ..Report::default() };
        let why = || Some(Excuse::for_all("worker:1 did not run any more".to_owned()));
        let excused = report(Verdict::Liveness).with_excuse(why());
        assert_eq!(excused.verdict, Verdict::Toothless);
        assert!(
            excused.complaints[0].contains("rightly stuck: worker:1"),
            "{:?}",
            excused.complaints
        );
        assert_eq!(report(Verdict::Liveness).with_excuse(None).verdict, Verdict::Liveness);
        for verdict in [Verdict::Holds, Verdict::Safety, Verdict::Crash] {
            assert_eq!(report(verdict).with_excuse(why()).verdict, verdict, "no excuse for that");
        }
    }

    #[test]
    fn cluster_without_worker_is_excused_only_from_what_needs_one() {
        let verdict = |properties: &[Property]| {
            let broken = |property: &Property| {
                let rule = Rule { property: *property, name: "made" };
                Violation { rule, text: String::new(), evidence: Vec::new() }
            };
            let violations = properties.iter().map(broken).collect();
            let report = Report { verdict: Verdict::Liveness, violations, ..Report::default() };
            report.with_excuse(Some(Excuse::for_workers("no worker".to_owned()))).verdict
        };
        assert_eq!(verdict(&[Property::G3, Property::G9]), Verdict::Toothless);
        assert_eq!(verdict(&[Property::G3, Property::G11]), Verdict::Liveness);
    }
}
