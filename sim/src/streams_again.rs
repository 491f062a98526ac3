//! Waits for streams: how soon people stream again after the death of their master.
//!
//! 1. A wait lasts from the death of a master, killed or silent, to the first event of the next stream of
//!    a client that read there.

use std::time::Duration;

use chatchat_scenarios::{
    fault::Kind,
    oracle::{Evidence, StoreDump, times_to_stream_again},
    plan::{Incident, Plan},
    target::{Place, Target},
};
use serde_json::Value;

use crate::{recovery::Recovery, verdict::Report};

/// Marks of the lines in the event log that tell of the end of a process.
const ENDS: [&str; 2] = [r#""kind":"crash""#, r#""kind":"exit""#];

/// Returns the waits for streams after each incident of a run that ended a master, one for each client
/// that read there; none for the other incidents.
#[must_use]
pub fn stream_recoveries(plan: &Plan, report: &Report) -> Vec<Vec<Recovery>> {
    let is_deadly = |incident: &Incident| {
        let fault = plan.faults.get(incident.fault);
        fault.is_some_and(|fault| matches!(fault.action.kind(), Kind::Crash | Kind::Exit))
    };
    if !report.incidents.iter().any(is_deadly) {
        return vec![Vec::new(); report.incidents.len()];
    }
    let (store, ends) = (StoreDump::default(), ends(report));
    // The times of streams follow from these parts alone.
    let evidence = Evidence {
        plan,
        incidents: &report.incidents,
        history: &report.history,
        store: &store,
        events: &[],
        ends: &ends,
        ended: report.virtual_time.saturating_sub(report.started),
        calm_limit: Duration::ZERO,
    };
    let of = |incident| {
        let times = times_to_stream_again(&evidence, incident).into_iter();
        times.map(|time| time.map_or(Recovery::Never, Recovery::Took)).collect()
    };
    report.incidents.iter().map(of).collect()
}

/// Returns the ends of the nodes' processes that the event log tells of, in the plan's time.
fn ends(report: &Report) -> Vec<(Place, Duration)> {
    let lines = report.log.iter().filter(|line| ENDS.iter().any(|kind| line.contains(kind)));
    let ends = lines.filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let at = Duration::from_nanos(line["t"].as_u64()?);
        Some((place_of(line["host"].as_str()?)?, at.saturating_sub(report.started)))
    });
    ends.collect()
}

/// Returns the place whose machine has a name, such as `master0`.
fn place_of(host: &str) -> Option<Place> {
    let (role, number) = host.split_at(host.find(|c: char| c.is_ascii_digit())?);
    match format!("{role}:{number}").parse() {
        Ok(Target::One(place)) => Some(place),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::StreamEvent,
        client::{Delivery, StreamEnd},
        model::ids::BoardName,
    };
    use chatchat_scenarios::{
        history::{History, Reader, ReaderKind, StreamLog, Who},
        story::Story,
    };

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A stream of a person at a master that delivers once, and ends at a time.
    fn stream(person: usize, master: usize, delivers: u64, end: Option<u64>) -> StreamLog {
        let delivery = Delivery { event: StreamEvent::Beat, cursor: None };
        StreamLog {
            number: 0,
            who: Who { person, life: 0 },
            master: format!("http://master{master}:80"),
            boards: vec![BoardName::lobby()],
            cursor: None,
            asked: ms(delivers),
            deliveries: vec![(ms(delivers), delivery)],
            end: end.map(|at| (ms(at), StreamEnd::Ended)),
            refused: None,
            looked_away: false,
            is_slow: false,
            reader: Some(0),
        }
    }

    /// Returns the waits for streams after the coordinator is killed at 20 s. Two people read from
    /// `master1`: one streams again at 20.4 s, the other never; a third one reads elsewhere all the time.
    fn waits(log: &[&str]) -> Vec<Vec<Recovery>> {
        let text = "about = \"\"\nduration = \"60s\"\n[cluster]\nmasters = 2\nworkers = 1\n\
                    [[fault]]\nat = \"20s\"\nkind = \"exit\"\n\
                    target = \"coordinator(board:lobby)\"\nfor = \"10s\"\n";
        let plan = Plan::expand(&Story::parse("made", text).expect("a story"), 1);
        let mut streams = vec![
            stream(0, 1, 15_000, Some(20_050)),
            stream(1, 1, 15_000, Some(20_050)),
            stream(2, 0, 15_000, None),
            stream(0, 0, 20_400, None),
        ];
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.number = number;
        }
        let reader = Reader { who: Who { person: 0, life: 0 }, from: None, kind: ReaderKind::Page };
        let history = History {
            streams,
            readers: vec![reader],
            masters: (0..2).map(|nth| format!("http://master{nth}:80")).collect(),
            living: vec![0, 1, 2],
            ..History::default()
        };
        let killed = Incident { fault: 0, from: ms(20_000), until: Some(ms(30_000)), bit: true };
        let core = Incident { fault: 1, ..killed.clone() };
        let report = Report {
            incidents: vec![killed, core],
            history,
            started: ms(3000),
            virtual_time: ms(70_000),
            log: log.iter().map(|line| (*line).to_owned()).collect(),
            ..Report::default()
        };
        stream_recoveries(&plan, &report)
    }

    #[test]
    fn clients_of_a_master_that_is_named_by_its_role_are_found_by_the_event_log() {
        let (both, none) = (vec![Recovery::Took(ms(400)), Recovery::Never], Vec::new());
        let boot = r#"{"t":23000000000,"n":8,"host":"master0","kind":"boot"}"#;
        let exit = r#"{"t":23000000000,"n":9,"host":"master1","kind":"exit"}"#;
        let other = r#"{"t":40000000000,"n":99,"host":"worker0","kind":"crash"}"#;
        assert_eq!(waits(&[boot, exit, other]), [both, none.clone()]);
        assert_eq!(waits(&[boot, other]), [none.clone(), none.clone()], "nobody knows which");
        let clone = r#"{"t":23000000000,"n":9,"host":"master1b","kind":"exit"}"#;
        assert_eq!(waits(&[clone]), [none.clone(), none], "a second process");
    }
}
