//! Histories that must be accepted, and those that must be refused.

use std::fs;

use chatchat::{
    api::HelloEvent,
    env::real::TempDir,
    model::{ids::NodeId, stream::MasterInfo},
};
use serde_json::{Value, json};

use super::*;

const USER: &str = "01010101010101010101010101010101";

fn id(n: u64) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

fn post(n: u64, seq: u64) -> Value {
    let author = json!({ "id": USER, "name": "Person 0" });
    let text = format!("text {n}");
    json!({ "id": id(n), "board": "lobby", "seq": seq, "author": author, "text": text, "posted_at": 1000 + seq })
}

fn call(n: u64, sent_ms: u64, seq: Option<u64>) -> Value {
    let request =
        json!({ "ask": "post", "board": "lobby", "id": id(n), "text": format!("text {n}") });
    let mut line = json!({ "line": "call", "person": 0, "master": "http://m", "request": request, "sent_ms": sent_ms });
    if let Some(seq) = seq {
        line["ended_ms"] = json!(sent_ms + 50);
        line["answer"] = json!({ "answer": "posted", "with": post(n, seq) });
    }
    line
}

fn event(seq: u64, n: u64) -> Value {
    let (at_ms, id) = (1000 + seq, format!("5;lobby:{seq}"));
    let data = post(n, seq).to_string();
    json!({ "line": "event", "stream": 0, "at_ms": at_ms, "event": "post", "id": id, "data": data })
}

fn hello() -> Value {
    let node =
        MasterInfo { id: NodeId([2; 16]), name: "master".to_owned(), http: "http://m".to_owned() };
    let cursor = "5;lobby:0".parse().expect("a cursor");
    let hello = HelloEvent { node, masters: Vec::new(), cursor, beat_ms: 4000 };
    let data = StreamEvent::Hello(hello).data();
    json!({ "line": "event", "stream": 0, "at_ms": 20, "event": "hello", "id": "5;lobby:0", "data": data })
}

/// Lines of a history of three posts and a reader, without its last line.
struct Made {
    /// Lines about the cluster and about what was done to it, if that is told.
    told: Vec<Value>,
    calls: Vec<Value>,
    events: Vec<Value>,
    board: Vec<Value>,
    reading_ms: u64,
}

impl Made {
    fn new() -> Self {
        Self {
            told: Vec::new(),
            calls: (1..=3).map(|n| call(n, n * 100, Some(n))).collect(),
            events: (1..=3).map(|seq| event(seq, seq)).collect(),
            board: (1..=3).map(|n| post(n, n)).collect(),
            reading_ms: 5000,
        }
    }

    /// The same of a cluster of two masters and two workers, to which nothing was done but `faults`.
    fn of_cluster(faults: Vec<Value>) -> Self {
        Self { told: [vec![cluster()], faults].concat(), reading_ms: 80_000, ..Self::new() }
    }

    fn lines(self) -> Vec<String> {
        let mut lines = self.told;
        lines.push(json!({ "line": "person", "person": 0, "user": USER }));
        lines.extend(self.calls);
        lines.push(json!({
            "line": "stream", "stream": 0, "person": 0, "reader": 0, "master": "http://m",
            "boards": ["lobby"], "cursor": "5;lobby:0", "asked_ms": 10,
        }));
        lines.push(hello());
        lines.extend(self.events);
        lines.push(json!({ "line": "board", "board": "lobby", "posts": self.board }));
        let number = lines.len() + 1;
        let (reading_ms, ended_ms) = (self.reading_ms, self.reading_ms + 4000);
        lines.push(json!({ "line": "end", "lines": number, "epoch": 5, "reading_ms": reading_ms, "ended_ms": ended_ms }));
        lines.iter().map(Value::to_string).collect()
    }

    fn judged(self) -> Report {
        load(&self.lines().join("\n")).expect("a history").judge("made").1
    }

    fn rules(self) -> Vec<String> {
        let found = self.judged().violations;
        found
            .iter()
            .map(|violation| format!("{}.{}", violation.property().number(), violation.rule.name))
            .collect()
    }
}

fn cluster() -> Value {
    json!({ "line": "cluster", "masters": ["http://m", "http://n"], "workers": 2 })
}

fn fault(kind: &str, place: &str, from_ms: u64, until_ms: u64) -> Value {
    json!({ "line": "fault", "kind": kind, "place": place, "from_ms": from_ms, "until_ms": until_ms })
}

/// Returns the call with another end.
fn ends(mut line: Value, ended_ms: u64, key: &str, end: Value) -> Value {
    line["ended_ms"] = json!(ended_ms);
    line["answer"] = Value::Null;
    line[key] = end;
    line
}

fn put_off(n: u64, sent_ms: u64, retry_after_s: Option<u64>) -> Value {
    let failure = json!({ "failure": "busy", "status": 503, "retry_after_s": retry_after_s });
    ends(call(n, sent_ms, None), sent_ms + 50, "failure", failure)
}

fn in_doubt(n: u64, sent_ms: u64, ended_ms: u64) -> Value {
    let failure = json!({ "failure": "unknown", "status": 504, "why": "it took too long" });
    ends(call(n, sent_ms, None), ended_ms, "failure", failure)
}

/// A session that is restored, as whom an answer says.
fn restored(sent_ms: u64, user: &str) -> Value {
    let with = json!({
        "user": { "id": user, "name": "Person 0" }, "boards": [], "pending": [], "masters": [],
        "epoch": 5, "consistency": "weak", "as_of": 9, "cluster": "",
    });
    let line = json!({
        "line": "call", "person": 0, "master": "http://m", "request": { "ask": "restore" }, "sent_ms": sent_ms,
    });
    ends(line, sent_ms + 50, "answer", json!({ "answer": "restored", "with": with }))
}

fn load(text: &str) -> Result<Recorded, String> {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("history");
    fs::write(&path, text).expect("written");
    let place = format!("{}:", path.display());
    Recorded::load(&path).map_err(|why| why.to_string().replace(&place, ""))
}

#[test]
fn history_in_which_all_is_well_holds() {
    let report = Made::new().judged();
    assert_eq!((report.verdict, &report.complaints), (Verdict::Holds, &Vec::new()));
    assert_eq!(report.operations, (3, 3));
    assert!(report.canary.is_some_and(|text| text.contains("G1")));
}

#[test]
fn lost_doubled_and_reordered_posts_are_refused() {
    let mut made = Made::new();
    made.board.pop();
    made.events.pop();
    assert_eq!(made.rules(), ["G1.lost", "G4.last-seq"]);
    let mut made = Made::new();
    made.board.push(post(2, 4));
    made.events.push(event(4, 2));
    let rules = made.rules();
    assert!(rules.contains(&"G2.twice".to_owned()), "{rules:?}");
    let mut made = Made::new();
    made.board = vec![post(2, 1), post(1, 2), post(3, 3)];
    made.events = vec![event(1, 2), event(2, 1), event(3, 3)];
    let rules = made.rules();
    assert!(rules.contains(&"G4.real-time".to_owned()), "{rules:?}");
    assert!(rules.contains(&"G4.writer".to_owned()), "{rules:?}");
}

#[test]
fn hole_repeat_and_other_post_of_a_stream_are_refused() {
    let mut made = Made::new();
    made.events.remove(1);
    assert_eq!(made.rules(), ["G5.gap"]);
    let mut made = Made::new();
    made.events[2] = event(3, 1);
    assert_eq!(made.rules(), ["G4.shown"]);
    let mut made = Made::new();
    made.events.insert(1, event(1, 1));
    assert_eq!(made.rules(), [""; 0], "repeats are dropped by the reader");
    let mut made = Made::new();
    made.events.pop();
    assert_eq!(made.rules(), ["G5.lag"]);
}

#[test]
fn stream_that_is_refused_while_its_session_is_open_is_reported() {
    let rules = |failure: &str, status: u16| {
        let mut made = Made::of_cluster(Vec::new());
        made.calls.push(restored(900, USER));
        made.events.push(json!({
            "line": "stream", "stream": 1, "person": 0, "reader": 0, "master": "http://n",
            "boards": ["lobby"], "cursor": "5;lobby:3", "asked_ms": 1000, "ended_ms": 1010,
            "failure": { "failure": failure, "status": status },
        }));
        made.rules()
    };
    assert_eq!(rules("refused", 401), ["G6.forgotten"]);
    assert_eq!(rules("busy", 503), [""; 0], "it may be so for a while");
}

#[test]
fn history_without_an_acknowledged_post_shows_nothing() {
    let mut made = Made::new();
    made.calls = (1..=3).map(|n| call(n, n * 100, None)).collect();
    assert_eq!(made.judged().verdict, Verdict::Toothless);
}

#[test]
fn damaged_file_is_refused_with_its_line() {
    let lines = Made::new().lines();
    let with = |nth: usize, text: &str| {
        let mut lines = lines.clone();
        lines[nth] = text.to_owned();
        load(&lines.join("\n")).expect_err("damaged")
    };
    assert!(with(2, &lines[2][..40]).starts_with("3: "), "cut off");
    assert!(with(1, &lines[1].replace("\"person\":0", "\"person\":7")).starts_with("2: person 7"));
    assert!(with(1, &lines[1].replace("sent_ms", "sent")).starts_with("2: "), "an unknown key");
    assert!(with(5, &lines[5].replace("\"stream\":0", "\"stream\":3")).starts_with("6: stream 3"));
    assert!(with(1, &lines[1].replace("100", "-1")).starts_with("2: "), "a time before the start");
    let last = lines.len();
    let why = load(&lines[..last - 1].join("\n")).expect_err("not closed");
    assert_eq!(why, format!("{last}: the file ends before its line `end`"));
    let mut fewer = lines.clone();
    fewer.remove(3);
    let why = load(&fewer.join("\n")).expect_err("a line is missing");
    assert_eq!(why, format!("{}: the file had {last} lines, {} are there", last - 1, last - 1));
    assert!(load("").expect_err("empty").starts_with("1: "));
}

#[test]
fn what_faults_excuse_is_judged_once_the_file_tells_of_all_of_them() {
    let judged = |made: Made| {
        let (plan, report) = load(&made.lines().join("\n")).expect("a history").judge("made");
        assert_eq!((report.verdict, &report.complaints), (Verdict::Holds, &Vec::new()));
        let numbers = plan.expect.properties.iter().map(|property| property.number());
        (numbers.collect::<Vec<_>>().join(" "), report.unjudged)
    };
    let (numbers, unjudged) = judged(Made::new());
    assert_eq!(numbers, "G1 G2 G4 G5");
    assert_eq!(unjudged, [UNJUDGED, FAULTLESS]);
    let (numbers, unjudged) = judged(Made::of_cluster(vec![fault("pause", "store", 10, 90)]));
    assert_eq!(numbers, "G1 G2 G3 G4 G5 G15 G16");
    assert_eq!(unjudged, [UNJUDGED, SESSIONLESS, HELDLESS]);
    let mut made = Made::of_cluster(Vec::new());
    made.calls.push(restored(900, USER));
    let (numbers, unjudged) = judged(made);
    assert_eq!(numbers, "G1 G2 G3 G4 G5 G6 G15 G16");
    assert_eq!(unjudged, [UNJUDGED, HELDLESS]);
    let mut made = Made::of_cluster(vec![fault("pause", "store", 10, 5000)]);
    let held = json!({ "answer": "pending", "with": { "copies": 2 } });
    made.calls.push(ends(call(3, 250, None), 290, "answer", held));
    assert_eq!(judged(made).1, [UNJUDGED, SESSIONLESS]);
}

#[test]
fn fault_is_shown_as_it_was_carried_out() {
    let made = Made::of_cluster(vec![fault("exit", "worker:1", 2000, 3500)]);
    let (plan, report) = load(&made.lines().join("\n")).expect("a history").judge("made");
    let block = report.block(&plan, None);
    assert!(block.contains("exit worker:1 for 1.5s: bit, 2.000 s to 3.500 s"), "{block}");
}

#[test]
fn post_that_comes_of_tries_that_did_nothing_is_refused() {
    let rules = |told: bool, retry_after_s| {
        let mut made = if told { Made::of_cluster(Vec::new()) } else { Made::new() };
        made.calls[1] = put_off(2, 200, retry_after_s);
        made.rules()
    };
    assert_eq!(rules(true, Some(1)), ["G16.did-something"]);
    assert_eq!(rules(true, None), ["G16.did-something", "G16.retry-after"]);
    assert_eq!(rules(false, Some(1)), [""; 0], "it is not judged");
}

#[test]
fn post_that_is_neither_settled_nor_held_while_enough_is_whole_is_refused() {
    let rules = |faults| {
        let mut made = Made::of_cluster(faults);
        made.board.pop();
        made.events.pop();
        made.calls[2] = in_doubt(3, 20_000, 30_000);
        made.calls.push(in_doubt(3, 30_200, 40_200));
        made.rules()
    };
    assert_eq!(rules(Vec::new()), ["G3.late"]);
    assert_eq!(rules(vec![fault("exit", "master:0", 19_000, 41_000)]), ["G3.late"], "one is whole");
    let workers = ["worker:0", "worker:1"].map(|place| fault("exit", place, 19_000, 41_000));
    assert_eq!(rules(workers.to_vec()), [""; 0], "nobody is there to write it");
    let store = vec![fault("pause", "store", 19_000, 41_000)];
    assert_eq!(rules(store), ["G15.refused"], "it should have been held");
}

#[test]
fn held_post_that_never_comes_is_refused_unless_all_disks_were_full() {
    let rules = |faults| {
        let mut made = Made::of_cluster(faults);
        made.board.pop();
        made.events.pop();
        let held = json!({ "answer": "pending", "with": { "copies": 2 } });
        made.calls[2] = ends(call(3, 300, None), 350, "answer", held);
        made.rules()
    };
    let outage = || fault("pause", "store", 10, 5000);
    assert_eq!(rules(vec![outage()]), ["G15.lost"]);
    let [one, other] = ["worker:0", "worker:1"].map(|place| fault("disk_full", place, 400, 600));
    assert_eq!(rules(vec![outage(), one.clone()]), ["G15.lost"], "another one holds it");
    assert_eq!(rules(vec![outage(), one, other]), [""; 0]);
    let rules = |full_until| {
        let mut made = Made::of_cluster(vec![
            fault("disk_full", "worker:0", 0, full_until),
            fault("disk_full", "worker:1", 0, full_until),
            fault("pause", "store", 20_000, 25_000),
        ]);
        let held = json!({ "answer": "pending", "with": { "copies": 2 } });
        made.calls.push(ends(call(4, 23_000, None), 23_050, "answer", held));
        made.rules()
    };
    assert_eq!(rules(7000), ["G15.lost"], "it was full long before");
    assert_eq!(rules(9000), [""; 0]);
}

#[test]
fn session_of_somebody_else_and_a_forgotten_one_are_refused() {
    let mut made = Made::of_cluster(Vec::new());
    made.calls.push(restored(900, &"02".repeat(16)));
    assert_eq!(made.rules(), ["G6.other"]);
    let mut made = Made::of_cluster(Vec::new());
    made.calls.push(restored(900, USER));
    let refused = json!({ "failure": "refused", "status": 401 });
    made.calls.push(ends(call(4, 1000, None), 1050, "failure", refused));
    assert_eq!(made.rules(), ["G6.forgotten"]);
}

#[test]
fn fault_that_makes_no_sense_is_refused_with_its_line() {
    let said = |told: Vec<Value>| {
        let made = Made { told, ..Made::new() };
        load(&made.lines().join("\n")).expect_err("damaged")
    };
    let with = |fault| said(vec![cluster(), fault]);
    let before = said(vec![fault("exit", "worker:0", 1, 2), cluster()]);
    assert!(before.starts_with("1: a fault follows the line `cluster`"), "{before}");
    assert!(said(vec![cluster(), cluster()]).starts_with("2: the cluster is there twice"));
    assert!(with(fault("exit", "worker:2", 1, 2)).starts_with("2: worker:2 is not in the cluster"));
    assert!(with(fault("exit", "worker:*", 1, 2)).starts_with("2: worker:*: a fault was at"));
    assert!(with(fault("loss", "worker:0", 1, 2)).starts_with("2: loss: a recorded fault is"));
    assert!(with(fault("exit", "worker:0", 2, 1)).starts_with("2: the fault ends before"));
    let none = json!({ "line": "cluster", "masters": [], "workers": 2 });
    assert!(said(vec![none]).starts_with("1: a cluster has 1 to"));
    let mut made = Made::new();
    made.calls[0]["failure"] = json!({ "failure": "refused", "status": 410 });
    let why = load(&made.lines().join("\n")).expect_err("damaged");
    assert!(why.starts_with("2: a call is answered, or fails"), "{why}");
}
