//! Event lines of the real world: they go to the log and, if wanted, to a file of JSON lines.
//!
//! A line is the event with `at_ms` (wall clock) and, once the node knows its identity, `by` and
//! `by_role` before it; an event's own `node` is its subject. A probe is a line
//! `{"event":"sometimes"}`, once per name and life.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use serde::Serialize;

use super::files::open_private;
use crate::time::Wall;

/// Event log of one node in one life.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    who: OnceLock<(String, String)>,
    file: Option<Mutex<LogFile>>,
    /// Bounded by the probes that the program names.
    probes: Mutex<BTreeSet<&'static str>>,
}

/// Members that the world puts before an event's own.
#[derive(Serialize)]
struct Stamp<'a> {
    at_ms: Wall,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by_role: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Probe {
    Sometimes { probe: &'static str },
}

impl EventLog {
    pub(super) fn to_file(path: PathBuf) -> Self {
        let file = LogFile { path, open: None, lost: 0 };
        Self { file: Some(Mutex::new(file)), ..Self::default() }
    }

    /// Keeps the first identity: a node does not change it within one life.
    pub(super) fn identify(&self, node: &str, role: &str) {
        let _ = self.who.set((node.to_owned(), role.to_owned()));
    }

    pub(super) fn event(&self, at: Wall, event: &str) {
        let line = self.line(at, event);
        tracing::info!(target: "event", "{line}");
        self.append(&line);
    }

    pub(super) fn sometimes(&self, at: Wall, probe: &'static str) {
        if self.probes.lock().unwrap_or_else(PoisonError::into_inner).insert(probe) {
            let event = serde_json::to_string(&Probe::Sometimes { probe });
            let line = self.line(at, &event.expect("a probe is a text"));
            tracing::debug!(target: "event", "{line}");
            self.append(&line);
        }
    }

    /// Puts the stamp's members before those of `event`, the text of a JSON object.
    fn line(&self, at: Wall, event: &str) -> String {
        let (by, by_role) = self.who.get().map(|(by, role)| (by.as_str(), role.as_str())).unzip();
        let stamp = serde_json::to_string(&Stamp { at_ms: at, by, by_role });
        let mut line = stamp.expect("a stamp has only keys that are texts");
        match event.strip_prefix('{') {
            Some("}") => {}
            Some(members) => {
                line.pop();
                line.push(',');
                line.push_str(members);
            }
            None => {
                line.pop();
                line.push_str(",\"said\":");
                line.push_str(event);
                line.push('}');
            }
        }
        line
    }

    fn append(&self, line: &str) {
        let Some(file) = &self.file else { return };
        file.lock().unwrap_or_else(PoisonError::into_inner).append(line);
    }
}

/// A file that is appended to, and set aside as `NAME.1` when it is long. After a failure it is
/// opened anew for the next line.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    /// The file and its length.
    open: Option<(File, u64)>,
    /// Lines lost since one was written.
    lost: u64,
}

impl LogFile {
    const LEN_MAX: u64 = 64 * 1024 * 1024;

    fn append(&mut self, line: &str) {
        let written = self.try_append(line);
        let path = self.path.display();
        match written {
            Ok(()) if self.lost == 0 => {}
            Ok(()) => {
                tracing::info!("event lines are written again to {path}; lost: {}", self.lost);
                self.lost = 0;
            }
            Err(e) => {
                if self.lost == 0 {
                    tracing::warn!("event lines are lost: {path}: {e}");
                }
                self.lost += 1;
                self.open = None;
            }
        }
    }

    /// Appends a line in one write, so that lines of several nodes in one file stay whole.
    fn try_append(&mut self, line: &str) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(_, len)| *len > Self::LEN_MAX) {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            fs::rename(&self.path, aside)?;
            self.open = None;
        }
        let (file, len) = match &mut self.open {
            Some(open) => open,
            none => none.insert(Self::open(&self.path)?),
        };
        let line = format!("{line}\n");
        file.write_all(line.as_bytes())?;
        *len += line.len() as u64;
        Ok(())
    }

    fn open(path: &Path) -> io::Result<(File, u64)> {
        let file = open_private(OpenOptions::new().append(true).create(true), path)?;
        let len = file.metadata()?.len();
        Ok((file, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::TempDir;

    #[test]
    fn lines_carry_time_node_and_role_and_probes_come_once() {
        let temp = TempDir::new().expect("a directory");
        let path = temp.path().join("events.jsonl");
        let log = EventLog::to_file(path.clone());
        let event = r#"{"event":"start","incarnation":3}"#;
        log.event(Wall { ms: 1 }, event);
        log.identify(&"ab".repeat(16), "master");
        log.event(Wall { ms: 2 }, event);
        log.sometimes(Wall { ms: 3 }, "seldom");
        log.sometimes(Wall { ms: 4 }, "seldom");
        let text = fs::read_to_string(path).expect("is there");
        let id = "ab".repeat(16);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                r#"{"at_ms":1,"event":"start","incarnation":3}"#.to_owned(),
                format!(
                    r#"{{"at_ms":2,"by":"{id}","by_role":"master","event":"start","incarnation":3}}"#
                ),
                format!(
                    r#"{{"at_ms":3,"by":"{id}","by_role":"master","event":"sometimes","probe":"seldom"}}"#
                ),
            ]
        );
    }

    #[test]
    fn file_that_cannot_be_opened_is_tried_again_at_each_line() {
        let temp = TempDir::new().expect("a directory");
        let path = temp.path().join("missing").join("events.jsonl");
        let log = EventLog::to_file(path.clone());
        log.event(Wall { ms: 1 }, "{}");
        fs::create_dir(temp.path().join("missing")).expect("made");
        log.event(Wall { ms: 2 }, "{}");
        assert_eq!(fs::read_to_string(path).expect("is there"), "{\"at_ms\":2}\n");
    }
}
