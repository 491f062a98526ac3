//! Reader of the nodes' event files, which turns events into sentences for people.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
};

use serde::Deserialize;

use super::plan::NodePlan;
use crate::{
    comm::key_source::IDENTITY_FILE,
    crypto::keys::{Identity, KeyBounds, KeyPair},
    model::{event::Event, ids::NodeId},
};

/// Event line, without its stamps.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Line {
    #[serde(flatten)]
    pub(super) event: Event,
}

/// Reader of the lines that are appended to a file.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    offset: u64,
    /// Beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl Tail {
    const READ_MAX: u64 = 1024 * 1024;

    /// Creates a reader of the lines that are appended from now on.
    pub(super) fn from_end(path: PathBuf) -> Self {
        let offset = fs::metadata(&path).map_or(0, |file| file.len());
        Self { path, offset, partial: Vec::new() }
    }

    /// Reads new lines, at most 1 MiB. Skips lines that are no known events: a later release may
    /// write some.
    pub(super) fn read(&mut self) -> Vec<Line> {
        let Ok(bytes) = self.read_new() else { return Vec::new() };
        self.partial.extend(bytes);
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            if self.partial.len() as u64 > Self::READ_MAX {
                self.partial.clear();
            }
            return Vec::new();
        };
        let rest = self.partial.split_off(end + 1);
        let lines = std::mem::replace(&mut self.partial, rest);
        lines.split(|byte| *byte == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect()
    }

    fn read_new(&mut self) -> std::io::Result<Vec<u8>> {
        let len = fs::metadata(&self.path)?.len();
        if len < self.offset {
            // The file was renamed and a new one begun.
            self.offset = 0;
            self.partial.clear();
        }
        let mut new = Vec::new();
        if len > self.offset {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.offset))?;
            file.take(Self::READ_MAX).read_to_end(&mut new)?;
            self.offset += new.len() as u64;
        }
        Ok(new)
    }
}

/// Names of nodes by id, learnt from the keys in their directories.
#[derive(Debug)]
pub(super) struct Names {
    nodes: Vec<(String, PathBuf)>,
    known: BTreeMap<NodeId, String>,
}

impl Names {
    pub(super) fn new(nodes: &[NodePlan]) -> Self {
        let nodes = nodes.iter().map(|node| (node.name.clone(), node.dir.join(IDENTITY_FILE)));
        Self { nodes: nodes.collect(), known: BTreeMap::new() }
    }

    fn of(&mut self, node: NodeId) -> String {
        if !self.known.contains_key(&node) {
            // A directory that was emptied has a new key, so all are read again.
            self.known = self
                .nodes
                .iter()
                .filter_map(|(name, path)| {
                    let pair = KeyPair::from_pkcs8_der(&fs::read(path).ok()?, KeyBounds::STANDARD);
                    Some((Identity::new(pair.ok()?).node(), name.clone()))
                })
                .collect();
        }
        self.known.get(&node).cloned().unwrap_or_else(|| format!("node {}", node.short()))
    }
}

/// Returns a sentence about an event that the master of this name wrote; `None` if people do not
/// need it.
pub(super) fn sentence(names: &mut Names, master: &str, line: &Line) -> Option<String> {
    Some(match &line.event {
        Event::Start { incarnation } => format!("{master} is up (life {incarnation})"),
        Event::Drain { .. } => format!("{master} hands over: it was asked to end"),
        Event::Join { node, .. } => format!("{} joined {master}", names.of(*node)),
        Event::Leave { node, .. } => format!("{} left {master}", names.of(*node)),
        Event::Fail { node, why, .. } => format!("{master} lost {}: {why}", names.of(*node)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{
        env::real::TempDir,
        model::ids::{Incarnation, Registration},
    };

    #[test]
    fn tail_reads_each_whole_line_once_and_starts_over_with_a_new_file() {
        let temp = TempDir::new().expect("a directory");
        let path = temp.path().join("events.jsonl");
        let start = |n: u64| {
            format!("{{\"at_ms\":1,\"by\":\"x\",\"event\":\"start\",\"incarnation\":{n}}}\n")
        };
        let line = |n| Line { event: Event::Start { incarnation: Incarnation(n) } };
        fs::write(&path, start(1)).expect("written");
        let mut tail = Tail::from_end(path.clone());
        assert_eq!(tail.read(), [], "older lines are skipped");
        let mut file = File::options().append(true).open(&path).expect("opened");
        let (head, rest) = (start(2), start(3));
        let (head_a, head_b) = head.split_at(20);
        file.write_all(head_a.as_bytes()).expect("written");
        assert_eq!(tail.read(), []);
        file.write_all(format!("{head_b}no event\n{rest}").as_bytes()).expect("written");
        assert_eq!(tail.read(), [line(2), line(3)]);
        assert_eq!(tail.read(), []);
        fs::write(&path, start(4)).expect("written again");
        assert_eq!(tail.read(), [line(4)]);
    }

    #[test]
    fn sentences_report_starts_joins_failures_and_leaves() {
        let node = NodeId([0xab; 16]);
        let registration = Registration(1);
        let events = [
            Event::Start { incarnation: Incarnation(2) },
            Event::Join { node, registration, master: NodeId([1; 16]) },
            Event::Fail { node, registration, why: "silent".to_owned() },
            Event::Leave { node, registration },
            Event::List { node, registration },
            Event::Drain { hands_over: true },
        ];
        let mut names = Names::new(&[]);
        let told: Vec<_> = events
            .into_iter()
            .filter_map(|event| sentence(&mut names, "master-0", &Line { event }))
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        master-0 is up (life 2)
        node abababab joined master-0
        master-0 lost node abababab: silent
        node abababab left master-0
        master-0 hands over: it was asked to end
        ");
    }
}
