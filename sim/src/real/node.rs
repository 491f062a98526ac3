//! Node of a real cluster: its files, its addresses and its process.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use chatchat::env::real::open_private;
use chatchat_scenarios::target::Place;
use rustix::process::{Pid, Signal, kill_process};

/// Names of the programs that a node may be.
pub(super) const PROGRAMS: [&str; 2] = ["chatchat-master", "chatchat-worker"];

/// Files and addresses of one node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    /// Folder of everything that is the node's.
    pub(super) folder: PathBuf,
    /// `host:port` of the front end; of a worker nothing.
    pub(super) http: Option<String>,
    /// `host:port` for links; of a worker nothing.
    pub(super) link: Option<String>,
    /// `host:port` for operators; of a worker nothing.
    pub(super) admin: Option<String>,
    /// Network namespace that it lives in.
    pub(super) namespace: Option<String>,
}

impl Node {
    /// The directory that the node owns. A wipe takes it.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(super) fn settings(&self) -> PathBuf {
        self.folder.join("node.toml")
    }

    pub(super) fn token(&self) -> PathBuf {
        self.folder.join("join.token")
    }

    pub(super) fn events(&self) -> PathBuf {
        self.folder.join("events.jsonl")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Starts its program.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn spawn(&self, programs: &Path) -> io::Result<Child> {
        let program = programs.join(PROGRAMS[usize::from(self.http.is_none())]);
        let mut command = match &self.namespace {
            // It becomes the program: signals to its process reach the node.
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let log = open_private(OpenOptions::new().append(true).create(true), &self.log())?;
        command
            .arg("--config")
            .arg(self.settings())
            // It ends when its stdin does: with this process, whatever ends that.
            .arg("--supervised")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // Of its own: Ctrl-C reaches the harness alone, and the system wakes a stopped node
            // whose harness is gone.
            .process_group(0);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CHATCHAT_") {
                command.env_remove(name);
            }
        }
        command.spawn()
    }

    /// Returns the lines of its log that tell of a panic.
    pub(super) fn panics(&self) -> Vec<String> {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let mut lines = log.lines();
        let mut found = Vec::new();
        while let Some(line) = lines.next() {
            if line.starts_with("thread '") && line.contains(" panicked at ") {
                found.push(format!("{line} {}", lines.next().unwrap_or_default()));
            }
        }
        found
    }

    /// Returns the last lines of its log.
    pub(super) fn last_words(&self) -> String {
        const LINES: usize = 3;
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<_> = log.lines().rev().take(LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

/// Process of a node, in all its lives.
#[derive(Debug, Default)]
pub(super) struct Process {
    child: Option<Child>,
    /// It was stopped in the middle of what it did.
    is_paused: bool,
    /// It was asked to end.
    was_asked: bool,
}

impl Process {
    pub(super) fn began(&mut self, child: Child) {
        *self = Self { child: Some(child), ..Self::default() };
    }

    pub(super) const fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Returns whether it runs and is not stopped.
    pub(super) const fn is_at_work(&self) -> bool {
        self.child.is_some() && !self.is_paused
    }

    pub(super) const fn was_asked(&self) -> bool {
        self.was_asked
    }

    /// Returns how it ended by itself, once; nothing for one that was asked to and ended well.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        (!self.was_asked || !status.success()).then(|| how(status))
    }

    /// Kills it. False when none ran.
    pub(super) fn kill(&mut self) -> bool {
        let Some(mut child) = self.child.take() else { return false };
        // Both fail only for a process that is gone.
        let _ = child.kill();
        let _ = child.wait();
        true
    }

    /// Asks it to end. False when none ran, or it was asked before.
    pub(super) fn ask(&mut self) -> bool {
        let asks = !self.was_asked && self.signal(Signal::TERM);
        self.was_asked |= asks;
        asks
    }

    /// Stops it in the middle of what it does. False when none ran or it is stopped.
    pub(super) fn pause(&mut self) -> bool {
        let pauses = !self.is_paused && self.signal(Signal::STOP);
        self.is_paused |= pauses;
        pauses
    }

    /// Lets it go on. False when it was not stopped.
    pub(super) fn resume(&mut self) -> bool {
        let resumes = self.is_paused && self.signal(Signal::CONT);
        self.is_paused = false;
        resumes
    }

    /// Takes the processor from it, or gives it back; one that was stopped stays so.
    pub(super) fn may_run(&self, may: bool) -> bool {
        !self.is_paused && self.signal(if may { Signal::CONT } else { Signal::STOP })
    }

    fn signal(&self, signal: Signal) -> bool {
        let id = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        let Some(pid) = id.and_then(Pid::from_raw) else { return false };
        kill_process(pid, signal).is_ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "for no known reason".to_owned(),
    }
}

/// Returns the name of a node, as the simulated world names its machine.
pub(super) fn name_of(place: Place) -> String {
    place.to_string().replace(':', "")
}
