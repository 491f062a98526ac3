//! Data of the page: lanes, marks, messages, calls, streams, faults and complaints, all in order of
//! time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chatchat::{
    api::StreamEvent,
    client::{Delivery, StreamEnd},
    model::ids::Cursor,
};
use chatchat_scenarios::{
    history::{End, Operation, StreamLog},
    oracle::{Point, Violation},
    plan::Plan,
};
use chatchat_sim::{build::BUILD, units::ns, verdict::Report};
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
    /// Time of asking, time of the end unless open, lane, text; 1 open or left, 0 refused or broken,
    /// -1 ended by others.
    streams: Vec<(u64, Option<u64>, usize, String, i8)>,
    /// Time, stream, and what was said.
    deliveries: Vec<(u64, usize, usize)>,
    /// Texts of deliveries, each once: many people are told the same.
    said: Vec<String>,
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
        run.add_streams(report, &lanes);
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

    fn add_streams(&mut self, report: &Report, lanes: &BTreeMap<&str, usize>) {
        let crashes = self.marks.iter().filter(|mark| mark.2.starts_with("crash"));
        let deaths: BTreeSet<(i64, u64)> = crashes.map(|mark| (mark.1, mark.0)).collect();
        let since = |at: Duration| ns(report.started + at);
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        for stream in &report.history.streams {
            let host = format!("person{}", stream.who.person);
            let Some(lane) = lanes.get(host.as_str()).copied() else { continue };
            for (at, delivery) in &stream.deliveries {
                let fresh = numbers.len();
                let said = *numbers.entry(short(&words(delivery))).or_insert(fresh);
                self.deliveries.push((since(*at), self.streams.len(), said));
            }
            let asked = since(stream.asked);
            let death = || {
                let place = i64::try_from(lane).ok()?;
                deaths.range((place, asked)..=(place, u64::MAX)).next().map(|(_, at)| *at)
            };
            let (end, says, is_well) = match (&stream.end, &stream.refused) {
                (Some((at, StreamEnd::Left)), _) => (Some(since(*at)), "left".to_owned(), 1),
                (Some((at, why @ StreamEnd::Ended)), _) => (Some(since(*at)), why.to_string(), -1),
                (Some((at, why)), _) => (Some(since(*at)), why.to_string(), 0),
                (None, Some((at, why))) => (Some(since(*at)), format!("refused, {why:?}"), 0),
                (None, None) => match death() {
                    Some(at) => (Some(at), "its reader died".to_owned(), -1),
                    None => (None, "open".to_owned(), 1),
                },
            };
            self.streams.push((asked, end, lane, short(&shape(stream, &says)), is_well));
        }
        self.deliveries.sort_by_key(|delivery| delivery.0);
        let mut said: Vec<_> = numbers.into_iter().map(|(text, nth)| (nth, text)).collect();
        said.sort_unstable();
        self.said = said.into_iter().map(|(_, text)| text).collect();
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

/// Returns a stream in words. The page cuts its name, `stream N`, out of them.
fn shape(stream: &StreamLog, end: &str) -> String {
    let boards: Vec<_> = stream.boards.iter().map(ToString::to_string).collect();
    let reader = stream.reader.map_or_else(String::new, |reader| format!(", reader {reader}"));
    let cursor = stream.cursor.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    format!(
        "stream {} at {}: {} deliveries, {end}{reader}, from cursor {cursor}, of {}",
        stream.number,
        stream.master,
        stream.deliveries.len(),
        boards.join(" "),
    )
}

/// Returns what a delivery said: the name of its event, and the place on a board that it is about.
fn words(delivery: &Delivery) -> String {
    let places = |cursor: &Cursor| {
        let places = cursor.boards.iter().map(|(board, seq)| format!("{board} {seq}"));
        places.collect::<Vec<_>>().join(", ")
    };
    let name = delivery.event.name();
    match &delivery.event {
        StreamEvent::Hello(hello) => format!("{name} {}", places(&hello.cursor)),
        StreamEvent::Post(post) => format!("{name} {} {}", post.board, post.seq),
        StreamEvent::Reset(reset) => {
            let to = delivery.cursor.as_ref().map_or_else(String::new, places);
            format!("{name} {} {to}", reset.reason)
        }
        StreamEvent::Pending(pending) => format!("{name} {} {:?}", pending.id, pending.state),
        StreamEvent::State(state) => format!("{name} {:?}", state.consistency),
        StreamEvent::Bye(bye) => format!("{name} {}", bye.reason),
        _ => name.to_owned(),
    }
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
            Point::Stream { number, at } => {
                let stream = report.history.streams.get(number)?;
                Some((ns(report.started + at), of_person(stream.who.person)))
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
mod tests;
