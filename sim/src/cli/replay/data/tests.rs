use chatchat::{
    api::ResetEvent,
    model::{
        ids::{BoardName, Seq},
        stream::ResetReason,
    },
};
use chatchat_scenarios::{
    history::Who,
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
    let at = run.complaints[0].at.as_slice();
    assert_eq!((at, run.complaints[1].at.len()), (&[(0, 1), (5, -1)][..], 0));
}

/// Returns a stream that was asked for at 1 s and has delivered this, a second after the other.
fn stream(number: usize, delivered: &[StreamEvent]) -> StreamLog {
    let boards = [(BoardName::lobby(), Seq(7))].into();
    let cursor = Some(Cursor { boards, ..Cursor::default() });
    let deliveries = (2..).zip(delivered).map(|(second, event)| {
        let delivery = Delivery { event: event.clone(), cursor: cursor.clone() };
        (Duration::from_secs(second), delivery)
    });
    StreamLog {
        number,
        who: Who { person: 1, life: 0 },
        master: "http://m".to_owned(),
        boards: vec![BoardName::lobby()],
        cursor: None,
        asked: Duration::from_secs(1),
        deliveries: deliveries.collect(),
        end: None,
        refused: None,
        looked_away: false,
        is_slow: false,
        reader: Some(4),
    }
}

#[test]
fn streams_lie_on_the_lane_of_their_person_and_a_complaint_where_one_broke() {
    const SECOND: u64 = 1_000_000_000;
    let story = "about = \"a test\"\nduration = \"5s\"\n[cluster]\nmasters = 1\nworkers = 1\n";
    let plan = Plan::expand(&Story::parse("test", story).expect("a story"), 7);
    let reset = StreamEvent::Reset(ResetEvent { reason: ResetReason::Ahead });
    let mut report = Report {
        started: Duration::from_secs(3),
        virtual_time: Duration::from_secs(20),
        log: [
            r#"{"t":0,"n":0,"host":"master0","kind":"boot","boot":1}"#,
            r#"{"t":9000000000,"n":1,"host":"person1","kind":"crash","unsynced":0}"#,
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Report::default()
    };
    report.history.streams.push(stream(0, &[reset.clone(), StreamEvent::Beat]));
    report.history.streams.push(stream(1, &[reset]));
    report.history.streams[0].end = Some((Duration::from_secs(5), StreamEnd::Left));
    let point = Point::Stream { number: 0, at: Duration::from_secs(4) };
    let violation = Violation {
        rule: Rule { property: Property::G5, name: "gap" },
        text: "a test".to_owned(),
        evidence: vec![Clue { text: String::new(), point: Some(point) }],
    };
    report.complaints.push(violation.to_string());
    report.violations.push(violation);

    let run = Run::new(&plan, &report);
    assert_eq!(run.lanes, ["master0", "person1"]);
    let text = |number: usize, end: &str| {
        format!("stream {number} at http://m: {end}, reader 4, from cursor none, of lobby")
    };
    assert_eq!(
        run.streams,
        [
            (4 * SECOND, Some(8 * SECOND), 1, text(0, "2 deliveries, left"), 1),
            (4 * SECOND, Some(9 * SECOND), 1, text(1, "1 deliveries, its reader died"), -1),
        ]
    );
    assert_eq!(run.said, ["reset ahead lobby 7", "beat"]);
    assert_eq!(run.deliveries, [(5 * SECOND, 0, 0), (5 * SECOND, 1, 0), (6 * SECOND, 0, 1)]);
    assert_eq!(run.complaints[0].at, [(7 * SECOND, 1)]);
}
