//! Event lines that real nodes write into their files, read while the cluster runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use chatchat::model::{
    event::{Event, FaultPoint},
    ids::{NodeId, Resource, Token},
};
use chatchat_scenarios::{oracle::EventLine, target::Place};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Margin around a kill within which a line is one of the life that ended: a line's time is cut to
/// milliseconds, and no new life writes so soon.
const AROUND_DEATH: Duration = Duration::from_millis(5);

/// Event of a node.
#[derive(Clone, Debug)]
struct Said {
    at_ms: u64,
    place: Place,
    event: Event,
}

/// Lines of all nodes so far.
#[derive(Debug, Default)]
pub(super) struct Lines {
    files: Vec<Tail>,
    said: Vec<Said>,
    /// Place of each identity, those of nodes before a wipe included.
    nodes: BTreeMap<NodeId, Place>,
    newest: BTreeMap<Place, NodeId>,
    probes: BTreeMap<String, u64>,
    /// Tokens that a batch was sent under.
    tokens: BTreeSet<(Resource, Token)>,
    unreadable: Vec<String>,
}

/// Reader of the lines that are appended to a file.
#[derive(Debug)]
struct Tail {
    place: Place,
    path: PathBuf,
    offset: u64,
    /// Beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl Tail {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let len = match fs::metadata(&self.path) {
            Ok(file) => file.len(),
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(why) => return Err(why),
        };
        if len < self.offset {
            return Err(io::Error::other("was set aside while it was read"));
        }
        if len == self.offset {
            return Ok(Vec::new());
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += file.read_to_end(&mut self.partial)? as u64;
        let end = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let rest = self.partial.split_off(end);
        Ok(std::mem::replace(&mut self.partial, rest))
    }
}

impl Lines {
    pub(super) fn new(files: impl IntoIterator<Item = (Place, PathBuf)>) -> Self {
        let tail = |(place, path)| Tail { place, path, offset: 0, partial: Vec::new() };
        Self { files: files.into_iter().map(tail).collect(), ..Self::default() }
    }

    /// Reads what was appended, and returns the fault points that it tells of.
    pub(super) fn read(&mut self) -> Vec<(FaultPoint, Place)> {
        let mut points = Vec::new();
        let mut files = std::mem::take(&mut self.files);
        for file in &mut files {
            let place = file.place;
            match file.read() {
                Ok(bytes) => {
                    for line in bytes.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
                        self.take(place, line, &mut points);
                    }
                }
                Err(why) => {
                    self.unreadable.push(format!("{}: {why}", file.path.display()));
                    file.offset = 0;
                    file.partial.clear();
                }
            }
        }
        self.files = files;
        points
    }

    fn take(&mut self, place: Place, line: &[u8], points: &mut Vec<(FaultPoint, Place)>) {
        let unreadable = || format!("{place} wrote {}", String::from_utf8_lossy(line));
        let Ok(mut members) = serde_json::from_slice::<Map<String, Value>>(line) else {
            return self.unreadable.push(unreadable());
        };
        let at_ms = members.remove("at_ms").and_then(|at| at.as_u64());
        let by = members.remove("by").and_then(|by| NodeId::deserialize(by).ok());
        members.remove("by_role");
        if let Some(by) = by {
            self.nodes.insert(by, place);
            self.newest.insert(place, by);
        }
        if members.get("event").is_some_and(|event| event == "sometimes") {
            if let Some(probe) = members.get("probe").and_then(Value::as_str) {
                *self.probes.entry(probe.to_owned()).or_default() += 1;
            }
            return;
        }
        let (Some(at_ms), Ok(event)) = (at_ms, Event::deserialize(Value::Object(members))) else {
            return self.unreadable.push(unreadable());
        };
        if let Event::Assign { resource, token, attempt, .. } = &event {
            let is_new = self.tokens.insert((resource.clone(), *token));
            if is_new && *attempt > 1 {
                points.push((FaultPoint::TokenRaised, place));
            }
            points.push((FaultPoint::AssignSent, place));
        }
        self.said.push(Said { at_ms, place, event });
    }

    /// Returns the place of a node.
    pub(super) fn place(&self, node: NodeId) -> Option<Place> {
        self.nodes.get(&node).copied()
    }

    /// Returns the newest identity of a place.
    pub(super) fn node(&self, place: Place) -> Option<NodeId> {
        self.newest.get(&place).copied()
    }

    /// Returns the newest event of which `select` makes something.
    pub(super) fn latest<T>(
        &self,
        mut select: impl FnMut(Place, &Event) -> Option<T>,
    ) -> Option<T> {
        // Of each file the lines are in order; between files only their times tell.
        let made = self
            .said
            .iter()
            .filter_map(|said| Some((said.at_ms, select(said.place, &said.event)?)));
        made.max_by_key(|(at_ms, _)| *at_ms).map(|(_, made)| made)
    }

    /// Returns how often each of the probes was reached: once in a life of a node.
    pub(super) fn probes(&self, known: &[&'static str]) -> BTreeMap<&'static str, u64> {
        let count = |probe: &&'static str| Some((*probe, *self.probes.get(*probe)?));
        known.iter().filter_map(count).collect()
    }

    /// Returns lines that are no events, and files that could not be read.
    pub(super) fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// Returns the lines in the order of their times since `start_ms` of the wall clock. `deaths`
    /// are the times at which processes were killed, each from just before to just after.
    pub(super) fn events(
        &self,
        start_ms: u64,
        deaths: &[(Place, Duration, Duration)],
    ) -> Vec<EventLine> {
        let at = |said: &Said| {
            let at = Duration::from_millis(said.at_ms.saturating_sub(start_ms));
            let of_it = deaths.iter().filter(|(place, ..)| *place == said.place);
            let dies = of_it.filter_map(|(_, from, to)| {
                let before = from.saturating_sub(AROUND_DEATH);
                (before < at && at <= *to + AROUND_DEATH).then_some(before)
            });
            dies.fold(at, Ord::min)
        };
        let mut events: Vec<_> = self.said.iter().map(|said| (at(said), said)).collect();
        events.sort_by_key(|(at, _)| *at);
        let line = |(number, (at, said)): (usize, (Duration, &Said))| EventLine {
            at,
            node: said.place.to_string(),
            event: said.event.clone(),
            number,
        };
        events.into_iter().enumerate().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use chatchat::{
        env::real::TempDir,
        model::ids::{BoardName, Registration, StoreEpoch},
    };

    use super::*;

    fn assign(at_ms: u64, n: u64, attempt: u32) -> String {
        let lobby = BoardName::lobby();
        let event = Event::Assign {
            worker: NodeId([1; 16]),
            registration: Registration(3),
            resource: Resource::Board(lobby),
            token: Token { epoch: StoreEpoch(1), lease: 2, n },
            after: None,
            posts: Vec::new(),
            attempt,
        };
        let mut line = serde_json::to_value(event).expect("plain data");
        line["at_ms"] = at_ms.into();
        line.to_string()
    }

    fn written(lines: &[String]) -> (TempDir, Lines) {
        let dir = TempDir::new().expect("a folder");
        let path = dir.path().join("events.jsonl");
        fs::write(&path, lines.join("\n") + "\n").expect("written");
        (dir, Lines::new([(Place::Master(0), path)]))
    }

    #[test]
    fn batch_under_a_new_token_after_a_failure_tells_that_the_token_was_raised() {
        let (_dir, mut lines) = written(&[assign(5, 1, 1), assign(6, 1, 2), assign(7, 2, 3)]);
        let points: Vec<_> = lines.read().into_iter().map(|(point, _)| point).collect();
        use FaultPoint::{AssignSent, TokenRaised};
        assert_eq!(points, [AssignSent, AssignSent, TokenRaised, AssignSent]);
        assert!(lines.unreadable().is_empty(), "{:?}", lines.unreadable());
    }

    #[test]
    fn line_without_its_end_is_read_once_it_is_whole() {
        let (dir, mut lines) = written(&[assign(5, 1, 1)]);
        let path = dir.path().join("events.jsonl");
        let mut file = fs::OpenOptions::new().append(true).open(path).expect("there");
        let next = assign(6, 2, 1);
        file.write_all(&next.as_bytes()[..40]).expect("written");
        assert_eq!(lines.read().len(), 1);
        file.write_all(&next.as_bytes()[40..]).expect("written");
        file.write_all(b"\n").expect("written");
        assert_eq!(lines.read().len(), 1);
        assert_eq!(lines.events(0, &[]).len(), 2);
    }

    #[test]
    fn line_that_is_no_event_is_told() {
        let (_dir, mut lines) = written(&["{\"at_ms\":5,\"event\":\"lunch\"}".to_owned()]);
        assert!(lines.read().is_empty());
        assert!(lines.unreadable()[0].contains("lunch"), "{:?}", lines.unreadable());
    }

    #[test]
    fn last_line_of_a_killed_process_stands_before_its_death() {
        let (_dir, mut lines) =
            written(&[assign(1000, 1, 1), assign(1012, 2, 1), assign(1400, 3, 1)]);
        lines.read();
        let ms = Duration::from_millis;
        let times: Vec<_> = lines
            .events(0, &[(Place::Master(0), ms(1010), ms(1013))])
            .into_iter()
            .map(|line| line.at)
            .collect();
        assert_eq!(times, [ms(1000), ms(1005), ms(1400)]);
    }
}
