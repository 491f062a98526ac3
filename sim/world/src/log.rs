//! The event log: one JSON line per thing that happened, and a digest over all of them.
//!
//! 1. A line carries virtual time and an ordinal, never a wall clock's time.
//! 2. Segments are too many for lines: each virtual second one line carries a hash over what
//!    crossed the network, so that two runs that differ in one byte differ in the log.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Detail of the event log. Digests are only comparable at the same detail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Nodes' events, connections, faults, and a hash of the network per second.
    #[default]
    Events,
    /// Each segment as well, to find the first one that differs.
    Segments,
}

/// One event that a node recorded, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// Virtual time, ns.
    pub at_ns: u64,
    /// Name of the node's host.
    pub host: String,
    /// The node's line: the text of one JSON object.
    pub line: String,
    /// Number of the line in the log.
    pub number: usize,
}

const CHECKPOINT_NS: u64 = 1_000_000_000;
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x100_0000_01b3;

/// Event log of one run.
#[derive(Debug)]
pub(crate) struct Log {
    lines: Vec<String>,
    events: Vec<EventRecord>,
    detail: Detail,
    checkpoint_at: u64,
    segments: u64,
    bytes: u64,
    hash: u64,
}

impl Log {
    /// Returns an empty log.
    pub(crate) const fn new(detail: Detail) -> Self {
        Self {
            lines: Vec::new(),
            events: Vec::new(),
            detail,
            checkpoint_at: CHECKPOINT_NS,
            segments: 0,
            bytes: 0,
            hash: FNV_START,
        }
    }

    fn push(&mut self, now: u64, host: &str, kind: &str, rest: &str) {
        self.checkpoint(now);
        self.line(now, host, kind, rest);
    }

    fn line(&mut self, now: u64, host: &str, kind: &str, rest: &str) {
        let mut line = String::with_capacity(64 + rest.len());
        let ordinal = self.lines.len();
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            r#"{{"t":{now},"n":{ordinal},"host":"{host}","kind":"{kind}"{}{rest}}}"#,
            if rest.is_empty() { "" } else { "," },
        );
        self.lines.push(line);
    }

    fn checkpoint(&mut self, now: u64) {
        if now < self.checkpoint_at {
            return;
        }
        let rest = format!(
            r#""segments":{},"bytes":{},"hash":"{:016x}""#,
            self.segments, self.bytes, self.hash
        );
        self.line(self.checkpoint_at, "", "network", &rest);
        self.checkpoint_at = (now / CHECKPOINT_NS + 1) * CHECKPOINT_NS;
    }

    /// Writes a line of the world's own; `rest` holds JSON members without braces.
    pub(crate) fn note(&mut self, now: u64, host: &str, kind: &str, rest: &str) {
        self.push(now, host, kind, rest);
    }

    /// Keeps a node's event. Its members stand in the log's line; a text that is no JSON object
    /// stands there whole, as the member `said`.
    pub(crate) fn event(&mut self, now: u64, host: &str, line: &str) {
        let members = line.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        match members {
            Some(members) => self.push(now, host, "event", members),
            None => self.push(now, host, "event", &format!(r#""said":{}"#, quoted(line))),
        }
        let number = self.lines.len().saturating_sub(1);
        self.events.push(EventRecord {
            at_ns: now,
            host: host.to_owned(),
            line: line.to_owned(),
            number,
        });
    }

    /// Returns whether segments, and what nodes say they received, have lines.
    pub(crate) fn keeps_segments(&self) -> bool {
        self.detail == Detail::Segments
    }

    /// Counts a segment that left; `rest` is only written at [`Detail::Segments`].
    pub(crate) fn segment(
        &mut self,
        now: u64,
        host: &str,
        bytes: &[u8],
        marks: [u64; 4],
        rest: impl FnOnce() -> String,
    ) {
        self.checkpoint(now);
        self.segments += 1;
        self.bytes += bytes.len() as u64;
        let (words, tail) = bytes.as_chunks();
        let marks = [now, marks[0], marks[1], marks[2], marks[3]].into_iter();
        let words = words.iter().copied().map(u64::from_le_bytes);
        let tail = tail.iter().copied().map(u64::from);
        // By words, each step one to one: whichever byte differs, the hash does.
        self.hash = marks
            .chain(words)
            .chain(tail)
            .fold(self.hash, |hash, word| (hash ^ word).wrapping_mul(FNV_PRIME).rotate_left(29));
        if self.keeps_segments() {
            let rest = format!(r#"{},"hash":"{:016x}""#, rest(), self.hash);
            self.line(now, host, "segment", &rest);
        }
    }

    /// Returns the lines so far.
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Takes the lines out. The log is empty afterwards, and its digest that of an empty one.
    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Returns the nodes' events so far.
    pub(crate) fn events(&self) -> &[EventRecord] {
        &self.events
    }

    /// Returns SHA-256, in hex, over all lines so far, each ended by a newline, and what crossed the network.
    pub(crate) fn digest(&self) -> String {
        let mut sha = Sha256::new();
        for line in &self.lines {
            sha.update(line.as_bytes());
            sha.update(b"\n");
        }
        sha.update(self.hash.to_le_bytes());
        hex::encode(sha.finalize())
    }
}

/// Returns a text as a JSON string, quotes included.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json_and_carry_time_and_ordinal() {
        let mut log = Log::new(Detail::Events);
        log.note(5, "master1", "crash", "");
        log.event(7, "master1", r#"{"event":"start","incarnation":2}"#);
        log.event(8, "master1", "no object");
        assert_eq!(
            log.lines(),
            [
                r#"{"t":5,"n":0,"host":"master1","kind":"crash"}"#,
                r#"{"t":7,"n":1,"host":"master1","kind":"event","event":"start","incarnation":2}"#,
                r#"{"t":8,"n":2,"host":"master1","kind":"event","said":"no object"}"#,
            ]
        );
        assert!(log.lines().iter().all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()));
    }

    #[test]
    fn lines_that_are_taken_are_the_log_s_and_leave_it_empty() {
        let mut log = Log::new(Detail::Events);
        log.note(5, "master1", "crash", "");
        log.event(7, "master1", r#"{"event":"start"}"#);
        let lines = log.lines().to_vec();
        assert_eq!((log.take_lines(), log.lines()), (lines, &[][..]));
        assert_eq!(log.events().len(), 1, "events stay");
    }

    #[test]
    fn changed_byte_on_the_network_changes_the_digest() {
        let digest = |byte| {
            let mut log = Log::new(Detail::Events);
            log.segment(1, "a", &[1, byte], [0; 4], String::new);
            log.note(2 * CHECKPOINT_NS, "a", "late", "");
            assert_eq!(log.lines().len(), 2, "a checkpoint stands before the late line");
            log.digest()
        };
        assert_eq!(digest(1), digest(1));
        assert_ne!(digest(1), digest(2));
    }
}
