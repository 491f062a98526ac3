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
    env::real::{hang_up, open_private},
    model::{ids::Role, time::Mono},
    programs::{
        ProgramError,
        process::{LOG_FILE, SUPERVISED},
        service_manager::MANAGER,
    },
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
    /// Length of the log when this life began.
    log_began: u64,
    tail: Tail,
}

impl Child {
    pub(super) fn start(program: &Path, node: &NodePlan, now: Mono) -> Result<Self, ProgramError> {
        // Events of earlier runs are skipped.
        let tail = Tail::from_end(node.events());
        let log_began = len_of(&node.log());
        let process = Some(spawn(program, node)?);
        let log = node.log();
        Ok(Self { process, started: now, wait: WAIT_MIN, due: None, log, log_began, tail })
    }

    pub(super) fn start_again(
        &mut self,
        program: &Path,
        node: &NodePlan,
        now: Mono,
    ) -> Result<(), ProgramError> {
        self.log_began = len_of(&self.log);
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

    /// Asks the process to open its logs anew.
    pub(super) fn hang_up(&self) {
        if let Some(pid) = self.pid() {
            // Fails only for a process that is gone.
            let _ = hang_up(pid);
        }
    }

    /// Returns `: ` and the line in which this life of the node said why it ends; nothing if it
    /// did not say, as one that was killed.
    pub(super) fn last_words(&self) -> String {
        let text = end_of(&self.log, self.log_began).unwrap_or_default();
        reason_in(&String::from_utf8_lossy(&text))
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

/// Returns `: ` and the last line that is a program's own complaint or a panic.
fn reason_in(log: &str) -> String {
    const LEN_MAX: usize = 300;
    let is_reason = |line: &&str| {
        line.starts_with("chatchat-cluster: ")
            || line.starts_with("thread '") && line.contains(" panicked at ")
    };
    let line = log.lines().rev().find(is_reason);
    line.map_or_else(String::new, |line| {
        let line = line.strip_prefix("chatchat-cluster: ").unwrap_or(line);
        format!(": {}", line.chars().take(LEN_MAX).collect::<String>())
    })
}

/// Reads the last 4 KiB of a file, without what lies before `from`.
fn end_of(path: &Path, from: u64) -> std::io::Result<Vec<u8>> {
    const LEN_MAX: u64 = 4096;
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    // A log that was begun anew is shorter.
    let from = if from > len { 0 } else { from };
    file.seek(SeekFrom::Start(len.saturating_sub(LEN_MAX).max(from)))?;
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
        .arg(format!("--{LOG_FILE}"))
        .arg(node.log())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        // The launcher is the manager of its nodes, and their word is not its own.
        .env_remove(MANAGER);
    // The node's file already holds the settings from the cluster's variables.
    for (name, _) in std::env::vars_os() {
        if is_ours(&name) {
            command.env_remove(name);
        }
    }
    command.spawn().map_err(failed)
}

fn len_of(log: &Path) -> u64 {
    fs::metadata(log).map_or(0, |file| file.len())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_a_nodes_own_reason_and_no_unrelated_line() {
        let log = "2026-11-26T07:00:00Z  INFO chatchat: a link ended\n";
        assert_eq!(reason_in(log), "");
        let said = format!("{log}chatchat-cluster: the disk is gone\n{log}");
        assert_eq!(reason_in(&said), ": the disk is gone");
        let panicked = format!("{log}\nthread 'main' (7) panicked at src/x.rs:1:1:\n");
        assert_eq!(reason_in(&panicked), ": thread 'main' (7) panicked at src/x.rs:1:1:");
    }
}
