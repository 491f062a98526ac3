//! Child process that runs one node.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{self, Command, ExitStatus, Stdio},
    time::Duration,
};

use super::{
    plan::NodePlan,
    say,
    watch::{Line, Tail},
};
use crate::{
    env::real::open_private,
    model::{ids::Role, time::Mono},
    programs::{ProgramError, process::SUPERVISED},
};

const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Child process that runs, has ended, or waits to be started again.
#[derive(Debug)]
pub(super) struct Child {
    process: Option<process::Child>,
    started: Mono,
    /// Wait before the next start; doubles with each early end.
    wait: Duration,
    due: Option<Mono>,
    log: PathBuf,
    tail: Tail,
}

impl Child {
    pub(super) fn start(program: &Path, node: &NodePlan, now: Mono) -> Result<Self, ProgramError> {
        // Events of earlier runs are skipped.
        let tail = Tail::from_end(node.events());
        let process = Some(spawn(program, node)?);
        Ok(Self { process, started: now, wait: WAIT_MIN, due: None, log: node.log(), tail })
    }

    pub(super) fn start_again(
        &mut self,
        program: &Path,
        node: &NodePlan,
        now: Mono,
    ) -> Result<(), ProgramError> {
        self.process = Some(spawn(program, node)?);
        (self.started, self.due) = (now, None);
        Ok(())
    }

    /// Plans a start after one that failed.
    pub(super) fn put_off(&mut self, now: Mono) {
        self.due = Some(now + WAIT_MAX);
    }

    /// Returns how the process ended, once.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.process.as_mut()?.try_wait().ok()??;
        self.process = None;
        Some(how(status))
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.ended();
        self.process.is_some()
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(process::Child::id)
    }

    pub(super) fn plan_restart(&mut self, now: Mono, steady: Duration) {
        if now.since(self.started) >= steady {
            self.wait = WAIT_MIN;
        }
        self.due = Some(now + self.wait);
        self.wait = (self.wait * 2).min(WAIT_MAX);
    }

    pub(super) fn is_due(&self, now: Mono) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    pub(super) fn new_events(&mut self) -> Vec<Line> {
        self.tail.read()
    }

    /// Returns `: ` and the last line of the log; nothing if the log is empty.
    pub(super) fn last_words(&self) -> String {
        const LEN_MAX: usize = 300;
        let text = end_of(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if line.is_empty() {
            return String::new();
        }
        format!(": {}", line.chars().take(LEN_MAX).collect::<String>())
    }

    /// Asks the process to end by closing its stdin.
    pub(super) fn ask_to_end(&mut self) {
        self.due = None;
        if let Some(process) = &mut self.process {
            process.stdin = None;
        }
    }

    /// Kills the process if it still runs.
    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both fail only for a process that is gone.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Reads the last 4 KiB of a file.
fn end_of(path: &Path) -> std::io::Result<Vec<u8>> {
    const LEN_MAX: u64 = 4096;
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LEN_MAX)))?;
    let mut end = Vec::new();
    file.take(LEN_MAX).read_to_end(&mut end)?;
    Ok(end)
}

/// Opens a log to append to. One above 16 MiB is renamed first; one older log is kept, so that
/// restarts do not fill the disk.
fn open_log(log: &Path) -> std::io::Result<Stdio> {
    const LEN_MAX: u64 = 16 * 1024 * 1024;
    if fs::metadata(log).is_ok_and(|file| file.len() > LEN_MAX) {
        fs::rename(log, log.with_extension("1"))?;
    }
    open_private(OpenOptions::new().append(true).create(true), log).map(Stdio::from)
}

fn spawn(program: &Path, node: &NodePlan) -> Result<process::Child, ProgramError> {
    let failed =
        |e: std::io::Error| ProgramError::Failed(format!("{} not started: {e}", node.name));
    let log = open_log(&node.log()).unwrap_or_else(|e| {
        say(&format!("{} runs without its log {}: {e}", node.name, node.log().display()));
        Stdio::null()
    });
    let role = match node.role {
        Role::Master => "master",
        Role::Worker => "worker",
    };
    let mut command = Command::new(program);
    command
        .args(["node", role, "--config"])
        .arg(node.settings())
        .arg(format!("--{SUPERVISED}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log);
    // The node's file already holds the settings from the cluster's variables.
    for (name, _) in std::env::vars_os() {
        if is_ours(&name) {
            command.env_remove(name);
        }
    }
    command.spawn().map_err(failed)
}

fn is_ours(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"CHATCHAT_")
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "for no known reason".to_owned(),
    }
}
