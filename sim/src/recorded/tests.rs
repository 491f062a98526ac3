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
    calls: Vec<Value>,
    events: Vec<Value>,
    board: Vec<Value>,
}

impl Made {
    fn new() -> Self {
        Self {
            calls: (1..=3).map(|n| call(n, n * 100, Some(n))).collect(),
            events: (1..=3).map(|seq| event(seq, seq)).collect(),
            board: (1..=3).map(|n| post(n, n)).collect(),
        }
    }

    fn lines(self) -> Vec<String> {
        let mut lines = vec![json!({ "line": "person", "person": 0, "user": USER })];
        lines.extend(self.calls);
        lines.push(json!({
            "line": "stream", "stream": 0, "person": 0, "reader": 0, "master": "http://m",
            "boards": ["lobby"], "cursor": "5;lobby:0", "asked_ms": 10,
        }));
        lines.push(hello());
        lines.extend(self.events);
        lines.push(json!({ "line": "board", "board": "lobby", "posts": self.board }));
        let number = lines.len() + 1;
        let (reading_ms, ended_ms) = (5000, 9000);
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
