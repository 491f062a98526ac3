//! Event lines of the real world: they go to the log and, if wanted, to a file of JSON lines.
//!
//! A line is the event with `at_ms` (wall clock) and, once the node knows its identity, `by` and
//! `by_role` before it; an event's own `node` is its subject. A probe is a line
//! `{"event":"sometimes"}`, once per name and life. Lines of the file are written by a thread of its
//! own: a file that takes nothing delays no node.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Serialize;

use super::{files::open_private, lines::LineQueue};
use crate::time::Wall;

/// Event log of one node in one life.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    who: OnceLock<(String, String)>,
    file: Option<LineQueue>,
    reopen: ReopenEvents,
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
        let mut file = LogFile { path, open: None };
        let reopen = ReopenEvents::default();
        let asked = reopen.clone();
        let queue = LineQueue::start("event-lines", move |line, lost| {
            if asked.0.swap(false, Ordering::Relaxed) {
                file.open = None;
            }
            file.append(line, lost)
        });
        if let Err(error) = &queue {
            tracing::warn!(%error, "no event lines are written: no thread for them");
        }
        Self { file: queue.ok(), reopen, ..Self::default() }
    }

    /// Returns the queue of the file's lines.
    pub(super) fn queue(&self) -> Option<&LineQueue> {
        self.file.as_ref()
    }

    pub(super) fn reopen(&self) -> ReopenEvents {
        self.reopen.clone()
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
        if let Some(file) = &self.file {
            file.push(format!("{line}\n").into_bytes());
        }
    }
}

/// Handle that opens the file of event lines anew.
#[derive(Clone, Debug, Default)]
pub struct ReopenEvents(Arc<AtomicBool>);

impl ReopenEvents {
    /// Lets the next event line open the file by its name.
    pub fn reopen(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A file that is appended to, and set aside as `NAME.1` when it is long. After a failure it is
/// opened anew for the next line.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    /// The file and its length.
    open: Option<(File, u64)>,
}

impl LogFile {
    const LEN_MAX: u64 = 64 * 1024 * 1024;

    /// Appends a line before which so many were lost. Returns whether it was written.
    fn append(&mut self, line: &[u8], lost: u64) -> bool {
        let written = self.try_append(line);
        let path = self.path.display();
        match &written {
            Ok(()) if lost == 0 => {}
            Ok(()) => tracing::info!("event lines are written again to {path}; lost: {lost}"),
            Err(e) => {
                if lost == 0 {
                    tracing::warn!("event lines are lost: {path}: {e}");
                }
                self.open = None;
            }
        }
        written.is_ok()
    }

    /// Appends a line in one write, so that lines of several nodes in one file stay whole.
    fn try_append(&mut self, line: &[u8]) -> io::Result<()> {
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
        file.write_all(line)?;
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
    use std::{os::unix::fs::OpenOptionsExt, process::Command, sync::mpsc, time::Duration};

    use super::*;
    use crate::real::TempDir;

    fn flush(log: &EventLog) {
        assert!(log.queue().expect("a file").flush(Duration::from_secs(30)));
    }

    #[test]
    fn pipe_that_nobody_reads_delays_no_event() {
        let temp = TempDir::new().expect("a directory");
        let path = temp.path().join("events.jsonl");
        assert!(Command::new("mkfifo").arg(&path).status().expect("the command").success());
        // Open at both ends, so that opening it does not wait.
        let _reader =
            OpenOptions::new().read(true).write(true).mode(0o600).open(&path).expect("the pipe");
        let (done, waits) = mpsc::channel();
        let node = std::thread::Builder::new().spawn(move || {
            let log = EventLog::to_file(path);
            for ms in 0..20_000 {
                log.event(Wall { ms }, r#"{"event":"start","incarnation":3}"#);
            }
            let _ = done.send(log.queue().expect("a file").lost());
        });
        node.expect("a thread");
        let lost = waits.recv_timeout(Duration::from_secs(60)).expect("events do not wait");
        assert!(lost > 0, "what does not fit is dropped");
    }

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
        flush(&log);
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
        flush(&log);
        fs::create_dir(temp.path().join("missing")).expect("made");
        log.event(Wall { ms: 2 }, "{}");
        flush(&log);
        assert_eq!(fs::read_to_string(path).expect("is there"), "{\"at_ms\":2}\n");
    }
}
