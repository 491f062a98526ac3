//! Data of the page: lanes, marks, messages, calls, faults and complaints, all in order of time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chatchat_scenarios::{
    history::{End, Operation},
    oracle::{Point, Violation},
    plan::Plan,
};
use chatchat_sim::{build::BUILD, verdict::Report};
use serde::Serialize;
use serde_json::Value;

/// Longest text of a line of the page.
const TEXT_MAX: usize = 300;

/// Run as the page reads it. Times are ns of virtual time.
#[derive(Default, Serialize)]
pub(super) struct Run {
    story: String,
    seed: u64,
    verdict: String,
    build: String,
    from: u64,
    until: u64,
    /// Time at which the story began: the page counts from it, as verdicts do.
    zero: u64,
    /// Names of machines: store, masters, workers, people.
    lanes: Vec<String>,
    /// Time, lane or -1, text, sort.
    marks: Vec<(u64, i64, String, &'static str)>,
    /// Time of sending, time of arrival unless lost, lanes of sender and receiver, text.
    messages: Vec<(u64, Option<u64>, usize, usize, String)>,
    /// Time of the call, time of its end, lane, text; 1 answered well, 0 failed, -1 neither.
    calls: Vec<(u64, Option<u64>, usize, String, i8)>,
    /// Time of beginning, time of end, text, lanes.
    faults: Vec<(u64, u64, String, Vec<usize>)>,
    complaints: Vec<Complaint>,
    /// Segments on their way to each lane, by time of arrival and number.
    #[serde(skip)]
    arrivals: BTreeMap<usize, BTreeSet<(u64, usize)>>,
    /// Names of the messages that ended in a segment.
    #[serde(skip)]
    names: BTreeMap<usize, Vec<String>>,
}

#[derive(Serialize)]
struct Complaint {
    text: String,
    /// Times, each with its lane or -1.
    at: Vec<(u64, i64)>,
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(TEXT_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Returns the order of a machine among the lanes.
fn rank(host: &str) -> (u8, usize, &str) {
    let digits = host.find(|c: char| c.is_ascii_digit()).unwrap_or(host.len());
    let (sort, number) = host.split_at(digits);
    let place = match sort {
        "store" => 0,
        "master" => 1,
        "worker" => 2,
        "person" => 3,
        _ => 4,
    };
    (place, number.parse().unwrap_or(0), host)
}

impl Run {
    /// Collects the data of a run that was logged with its segments.
    pub(super) fn new(plan: &Plan, report: &Report) -> Self {
        let lines: Vec<Value> =
            report.log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let mut hosts: Vec<&str> = lines.iter().filter_map(|line| line["host"].as_str()).collect();
        hosts.sort_by_key(|host| rank(host));
        hosts.dedup();
        hosts.retain(|host| !host.is_empty() && *host != "observer");
        let lanes: BTreeMap<&str, usize> = hosts.iter().copied().zip(0..).collect();
        let mut run = Self {
            story: plan.story.clone(),
            seed: plan.seed,
            verdict: report.verdict.to_string(),
            build: BUILD.to_owned(),
            until: ns(report.virtual_time).max(1),
            zero: ns(report.started),
            lanes: hosts.iter().map(|host| (*host).to_owned()).collect(),
            ..Self::default()
        };
        for line in &lines {
            run.add_line(line, &lanes);
        }
        run.name_messages();
        for operation in &report.history.operations {
            run.add_call(operation, report.started, &lanes);
        }
        run.add_faults(plan, report, &lanes);
        let numbered = |number: usize| lines.get(number);
        run.complaints = report
            .complaints
            .iter()
            .map(|text| {
                let of = |violation: &&Violation| violation.to_string() == *text;
                let violation = report.violations.iter().find(of);
                let at = violation.map(|it| points(it, report, &lanes, numbered));
                Complaint { text: text.clone(), at: at.unwrap_or_default() }
            })
            .collect();
        run
    }

    fn add_line(&mut self, line: &Value, lanes: &BTreeMap<&str, usize>) {
        let (Some(at), Some(host), Some(kind)) =
            (line["t"].as_u64(), line["host"].as_str(), line["kind"].as_str())
        else {
            return;
        };
        let lane = lanes.get(host).copied();
        match kind {
            // Answers of the kernel say nothing of their own.
            "segment" if line["segment"] == "ack" => {}
            "segment" => {
                let to = line["to"].as_str().and_then(|to| lanes.get(to)).copied();
                let (Some(from), Some(to)) = (lane, to) else { return };
                let arrives = line["under_way"].as_u64().map(|under_way| at + under_way);
                let len = line["len"].as_u64().unwrap_or(0);
                if let Some(at) = arrives.filter(|_| len > 0) {
                    self.arrivals.entry(to).or_default().insert((at, self.messages.len()));
                }
                let segment = line["segment"].as_str().unwrap_or_default();
                let text = if len > 0 { format!("{segment} {len} B") } else { segment.to_owned() };
                self.messages.push((at, arrives, from, to, text));
            }
            "message" => {
                let arrivals = lane.and_then(|lane| self.arrivals.get(&lane));
                let by_now =
                    arrivals.and_then(|known| known.range(..=(at, usize::MAX)).next_back());
                if let (Some((_, segment)), Some(name)) = (by_now, line["name"].as_str()) {
                    self.names.entry(*segment).or_default().push(name.to_owned());
                }
            }
            "network" => {}
            _ => {
                let lane = lane.and_then(|lane| i64::try_from(lane).ok()).unwrap_or(-1);
                self.marks.push((at, lane, short(&members(line)), sort(kind)));
            }
        }
    }

    /// Puts the names of messages before the segments that brought their last bytes.
    fn name_messages(&mut self) {
        for (segment, names) in std::mem::take(&mut self.names) {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for name in &names {
                *counts.entry(name).or_default() += 1;
            }
            let said = counts.iter().map(|(name, count)| match count {
                1 => (*name).to_owned(),
                more => format!("{name} x{more}"),
            });
            if let Some((.., text)) = self.messages.get_mut(segment) {
                *text = format!("{}, {text}", said.collect::<Vec<_>>().join(", "));
            }
        }
    }

    fn add_call(
        &mut self,
        operation: &Operation,
        started: Duration,
        lanes: &BTreeMap<&str, usize>,
    ) {
        let host = format!("person{}", operation.who.person);
        let Some(lane) = lanes.get(host.as_str()) else { return };
        let (end, says, is_well) = match &operation.end {
            None => (None, "no answer".to_owned(), -1),
            Some((at, End::Dropped)) => (Some(*at), "given up".to_owned(), -1),
            Some((at, End::Answered(Ok(answer)))) => (Some(*at), format!("{answer:?}"), 1),
            Some((at, End::Answered(Err(failure)))) => (Some(*at), format!("{failure:?}"), 0),
        };
        let text = format!("{:?} at {}: {says}", operation.request, operation.master);
        self.calls.push((
            ns(started + operation.invoked),
            end.map(|at| ns(started + at)),
            *lane,
            short(&text),
            is_well,
        ));
    }

    fn add_faults(&mut self, plan: &Plan, report: &Report, lanes: &BTreeMap<&str, usize>) {
        for incident in &report.incidents {
            let Some(fault) = plan.faults.get(incident.fault) else { continue };
            let from = ns(report.started + incident.from);
            let until = incident.until.map_or(self.until, |until| ns(report.started + until));
            let places = fault.action.targets().into_iter();
            let places = places
                .filter_map(|target| target.places(&plan.cluster, plan.workload.people))
                .flatten();
            let mut at: Vec<usize> = places
                .filter_map(|place| lanes.get(place.to_string().replace(':', "").as_str()).copied())
                .collect();
            if at.is_empty() {
                // Only the run knows who played the role: whoever was hit at that very moment.
                let hit = self.marks.iter().filter(|mark| mark.0 == from && mark.3 == "crash");
                at.extend(hit.filter_map(|mark| usize::try_from(mark.1).ok()));
            }
            at.sort_unstable();
            at.dedup();
            let bit = if incident.bit { "" } else { ", never touched anything" };
            self.faults.push((from, until, format!("{fault}{bit}"), at));
        }
        self.faults.sort();
    }
}

fn sort(kind: &str) -> &'static str {
    match kind {
        "crash" | "exit" | "panicked" | "wipe" | "pause" | "ended" => "crash",
        "boot" | "resume" => "boot",
        "probe" => "probe",
        "fault" | "heal" => "fault",
        "event" | "fault_point" => "event",
        _ => "link",
    }
}

/// Returns the members of a line as words, without time, number and host.
fn members(line: &Value) -> String {
    let Some(members) = line.as_object() else { return String::new() };
    let mut text = line["kind"].as_str().unwrap_or_default().to_owned();
    for (name, value) in members {
        if !["t", "n", "host", "kind", "hash"].contains(&name.as_str()) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text.push_str(&format!(" {name} {value}"));
        }
    }
    text
}

/// Returns the points of a violation's evidence.
fn points<'a>(
    violation: &Violation,
    report: &Report,
    lanes: &BTreeMap<&str, usize>,
    line: impl Fn(usize) -> Option<&'a Value>,
) -> Vec<(u64, i64)> {
    let lane = |host: &str| lanes.get(host).and_then(|lane| i64::try_from(*lane).ok());
    let of_person = |person: usize| lane(&format!("person{person}")).unwrap_or(-1);
    let points = violation.evidence.iter().filter_map(|clue| clue.point);
    points
        .filter_map(|point| match point {
            Point::Operation(nth) => {
                let operation = report.history.operations.get(nth)?;
                Some((ns(report.started + operation.invoked), of_person(operation.who.person)))
            }
            Point::Stream(nth) => {
                let stream = report.history.streams.get(nth)?;
                Some((ns(report.started + stream.asked), of_person(stream.who.person)))
            }
            Point::Line(nth) => {
                let line = line(nth)?;
                let lane = line["host"].as_str().and_then(lane).unwrap_or(-1);
                Some((line["t"].as_u64()?, lane))
            }
            Point::Person(person, at) => Some((ns(report.started + at), of_person(person))),
            Point::Write(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use chatchat_scenarios::{
        oracle::{Clue, Rule},
        plan::Incident,
        property::Property,
        story::Story,
    };
    use chatchat_sim::verdict::Verdict;

    use super::*;

    #[test]
    fn lines_become_lanes_marks_messages_and_points() {
        let story = "about = \"a test\"\nduration = \"5s\"\n[cluster]\nmasters = 1\nworkers = 1\n\
                     [[fault]]\nat = \"1s\"\nkind = \"crash\"\ntarget = \"assigned(board:lobby)\"\n";
        let plan = Plan::expand(&Story::parse("test", story).expect("a story"), 7);
        let log = [
            r#"{"t":0,"n":0,"host":"worker0","kind":"crash","unsynced":0}"#,
            r#"{"t":7,"n":1,"host":"master0","kind":"segment","to":"worker0","segment":"data","from_socket":1,"len":40,"under_way":30}"#,
            r#"{"t":8,"n":2,"host":"worker0","kind":"segment","to":"master0","segment":"ack","from_socket":1,"len":0,"under_way":30}"#,
            r#"{"t":38,"n":4,"host":"worker0","kind":"message","name":"Assign"}"#,
            r#"{"t":38,"n":5,"host":"worker0","kind":"message","name":"Beat"}"#,
            r#"{"t":39,"n":6,"host":"worker0","kind":"message","name":"Beat"}"#,
            r#"{"t":9,"n":3,"host":"worker0","kind":"segment","to":"master0","segment":"syn","from_socket":1,"len":0,"under_way":null}"#,
        ];
        let violation = Violation {
            rule: Rule { property: Property::G8, name: "two" },
            text: "a test".to_owned(),
            evidence: [Point::Line(0), Point::Person(0, Duration::from_nanos(5))]
                .map(|point| Clue { text: String::new(), point: Some(point) })
                .to_vec(),
        };
        let hit = Incident { fault: 0, from: Duration::ZERO, until: None, bit: true };
        let report = Report {
            incidents: vec![hit],
            verdict: Verdict::Safety,
            complaints: vec![violation.to_string(), "another".to_owned()],
            violations: vec![violation],
            log: log.map(str::to_owned).to_vec(),
            virtual_time: Duration::from_secs(9),
            ..Report::default()
        };
        let run = Run::new(&plan, &report);
        assert_eq!(run.lanes, ["master0", "worker0"]);
        assert_eq!(run.marks, [(0, 1, "crash unsynced 0".to_owned(), "crash")]);
        assert_eq!(
            run.messages,
            [
                (7, Some(37), 0, 1, "Assign, Beat x2, data 40 B".to_owned()),
                (9, None, 1, 0, "syn".to_owned())
            ]
        );
        assert_eq!(
            (run.complaints[0].at.as_slice(), run.complaints[1].at.len()),
            (&[(0, 1), (5, -1)][..], 0)
        );
    }
}
