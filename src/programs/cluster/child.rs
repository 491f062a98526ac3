//! One node's process.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{self, Command, ExitStatus, Stdio},
    time::Duration,
};

use super::{
    plan::NodePlan,
    watch::{Line, Tail},
};
use crate::{
    model::{ids::Role, time::Mono},
    programs::{LaunchError, node::SUPERVISED},
};

const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A process that runs, ended, or waits to be started again.
#[derive(Debug)]
pub(super) struct Child {
    process: Option<process::Child>,
    started: Mono,
    /// Doubles with each early end.
    wait: Duration,
    due: Option<Mono>,
    log: PathBuf,
    tail: Tail,
}

impl Child {
    pub(super) fn start(program: &Path, node: &NodePlan, now: Mono) -> Result<Self, LaunchError> {
        // What earlier runs wrote is not what happens now.
        let tail = Tail::from_end(node.events());
        let process = Some(spawn(program, node)?);
        Ok(Self { process, started: now, wait: WAIT_MIN, due: None, log: node.log(), tail })
    }

    pub(super) fn start_again(
        &mut self,
        program: &Path,
        node: &NodePlan,
        now: Mono,
    ) -> Result<(), LaunchError> {
        self.process = Some(spawn(program, node)?);
        (self.started, self.due) = (now, None);
        Ok(())
    }

    /// Says once how it ended.
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

    /// The last line of its log, with what joins it to a sentence.
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

    /// Its stdin ends, and so does it.
    pub(super) fn ask_to_end(&mut self) {
        self.due = None;
        if let Some(process) = &mut self.process {
            process.stdin = None;
        }
    }

    /// Ends it if it still runs.
    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both fail only for one that is gone.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The last few lines of a file.
fn end_of(path: &Path) -> std::io::Result<Vec<u8>> {
    const LEN_MAX: u64 = 4096;
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LEN_MAX)))?;
    let mut end = Vec::new();
    file.take(LEN_MAX).read_to_end(&mut end)?;
    Ok(end)
}

/// Keeps one older log, so that a node that is started again and again fills no disk.
fn set_aside(log: &Path) -> std::io::Result<()> {
    const LEN_MAX: u64 = 16 * 1024 * 1024;
    if fs::metadata(log).is_ok_and(|file| file.len() > LEN_MAX) {
        fs::rename(log, log.with_extension("1"))?;
    }
    Ok(())
}

fn spawn(program: &Path, node: &NodePlan) -> Result<process::Child, LaunchError> {
    let failed = |e: std::io::Error| LaunchError::Failed(format!("{} not started: {e}", node.name));
    set_aside(&node.log()).map_err(failed)?;
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(node.log())
        .map_err(failed)?;
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
    // What the cluster was told by variables stands in the node's file.
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
