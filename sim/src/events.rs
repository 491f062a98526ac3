//! Event lines of nodes, read back as the chat's events.

use chatchat::model::event::Event;
use dst_world::EventRecord;
use thiserror::Error;

/// A node recorded a line that is not one of the chat's events. The run has failed: the oracles
/// do not judge what they cannot read.
#[derive(Debug, Error)]
#[error("{host} recorded at {at_ns} ns what is no event of the chat: {line}: {why}")]
pub struct UnreadableEvent {
    /// Name of the node's host.
    pub host: String,
    /// Virtual time, ns.
    pub at_ns: u64,
    /// Line as the node wrote it.
    pub line: String,
    /// Error of the parser.
    pub why: serde_json::Error,
}

/// Reads the event of a record.
///
/// # Errors
/// [`UnreadableEvent`] when its line is none.
pub fn read_event(record: &EventRecord) -> Result<Event, UnreadableEvent> {
    serde_json::from_str(&record.line).map_err(|why| UnreadableEvent {
        host: record.host.clone(),
        at_ns: record.at_ns,
        line: record.line.clone(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::Incarnation;

    use super::*;

    #[test]
    fn unknown_line_is_a_typed_error_that_shows_it() {
        let record = |line: &str| EventRecord {
            number: 0,
            at_ns: 5,
            host: "master0".to_owned(),
            line: line.to_owned(),
        };
        let start = read_event(&record(r#"{"event":"start","incarnation":2}"#));
        assert_eq!(start.expect("an event"), Event::Start { incarnation: Incarnation(2) });
        let unknown = read_event(&record(r#"{"event":"lunch"}"#)).expect_err("no event of ours");
        assert!(unknown.to_string().contains("lunch"), "{unknown}");
    }
}
