//! One run in a process of its own: this program once more, as `run --json`.

use std::{
    collections::BTreeSet,
    env, io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

use chatchat_sim::{
    summary::{Failure, Summary},
    verdict::Verdict,
};
use rustix::process::Signal;

/// Bytes of a process's error output that a report of its end shows.
const STDERR_MAX: usize = 2000;

/// Variable that turns on a planted bug in a program that holds several.
pub(super) const SWITCH: &str = "CHATCHAT_PLANTED";

/// Variable that makes such a program say on its error output, once each, which switches it asks.
pub(super) const TELL: &str = "CHATCHAT_TELL_SWITCHES";

/// Beginning of a line that says so; the name of a bug follows.
pub(super) const ASKED: &str = "asked for planted bug ";

/// Program that carries out runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// Planted bug that is turned on in it and in the processes that it starts.
    pub(super) planted: Option<String>,
}

impl Program {
    /// Returns this program.
    ///
    /// # Errors
    /// A sentence for the person who asked.
    pub(super) fn this() -> Result<Self, String> {
        let path = env::current_exe().map_err(|why| format!("this program is gone: {why}"))?;
        Ok(Self { path, planted: None })
    }

    /// Returns a command that starts it.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        // Huge pages make a run's memory half as large again, and a campaign no faster.
        command.env("MIMALLOC_ALLOW_THP", "0");
        if let Some(bug) = &self.planted {
            command.env(SWITCH, bug);
        }
        command
    }
}

/// One run: a story by name or path, and a seed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Job {
    pub(super) story: String,
    pub(super) seed: u64,
}

impl Job {
    /// Returns the command that runs it again.
    pub(super) fn replay(&self) -> String {
        format!("chatchat-sim run {} --seed {}", self.story, self.seed)
    }
}

/// Runs one seed of one story in a process of its own.
pub(super) fn run(program: &Program, job: &Job, limit: Duration) -> Summary {
    run_with(program, job, limit, &[])
}

/// Runs one seed of one story in a process of its own, with more arguments.
pub(super) fn run_with(program: &Program, job: &Job, limit: Duration, more: &[String]) -> Summary {
    summary(job, output(program.command(), job, limit, more))
}

/// Runs one seed of one story in a process of its own. Returns also the planted bugs whose switches
/// it asked: each of the others changes nothing in this run.
pub(super) fn run_telling(
    program: &Program,
    job: &Job,
    limit: Duration,
) -> (Summary, BTreeSet<String>) {
    let mut command = program.command();
    command.env(TELL, "1");
    let ran = output(command, job, limit, &[]);
    let asked = ran.as_ref().map(|output| asked(&output.stderr)).unwrap_or_default();
    (summary(job, ran), asked)
}

fn asked(stderr: &[u8]) -> BTreeSet<String> {
    let said = String::from_utf8_lossy(stderr);
    said.lines().filter_map(|line| line.strip_prefix(ASKED)).map(str::to_owned).collect()
}

/// Runs one seed of one story in a process of its own; returns nothing if an interrupt ended it.
pub(super) fn run_unless_interrupted(
    program: &Program,
    job: &Job,
    limit: Duration,
) -> Option<Summary> {
    let ran = output(program.command(), job, limit, &[]);
    let is_interrupted = ran.as_ref().is_ok_and(is_interrupted);
    (!is_interrupted).then(|| summary(job, ran))
}

fn is_interrupted(output: &Output) -> bool {
    output.status.signal() == Some(Signal::INT.as_raw())
}

fn output(mut command: Command, job: &Job, limit: Duration, more: &[String]) -> io::Result<Output> {
    let (seed, limit) = (job.seed.to_string(), limit.as_secs().to_string());
    command.args(["run", &job.story, "--seed", &seed, "--limit", &limit, "--json"]);
    command.args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.output()
}

fn summary(job: &Job, ran: io::Result<Output>) -> Summary {
    match ran {
        Ok(output) => read(job, &output),
        Err(why) => ended(job, format!("the process did not start: {why}")),
    }
}

/// Reads the summary that a process printed last; one that printed none has crashed.
fn read(job: &Job, output: &Output) -> Summary {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    let summary = last.and_then(|line| serde_json::from_str::<Summary>(line).ok());
    summary.unwrap_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        let from = said.len().saturating_sub(STDERR_MAX);
        let from = (from..=said.len()).find(|at| said.is_char_boundary(*at)).unwrap_or(0);
        let said = said[from..].trim();
        ended(job, format!("the process ended without a summary, {}: {said}", output.status))
    })
}

fn ended(job: &Job, why: String) -> Summary {
    Summary {
        story: job.story.clone(),
        seed: job.seed,
        verdict: Verdict::Crash,
        failures: vec![Failure {
            property: Verdict::Crash.to_string(),
            rule: "the process ended without a summary".to_owned(),
        }],
        complaints: vec![why],
        ..Summary::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job { story: "calm".to_owned(), seed: 4 }
    }

    #[test]
    fn process_without_a_summary_has_crashed_and_its_last_words_are_kept() {
        let output = Output {
            status: std::process::ExitStatus::default(),
            stdout: b"half a".to_vec(),
            stderr: b"stack overflow".to_vec(),
        };
        let summary = read(&job(), &output);
        assert_eq!(summary.verdict, Verdict::Crash);
        assert!(summary.complaints[0].contains("stack overflow"), "{:?}", summary.complaints);
    }

    #[test]
    fn interrupt_alone_tells_an_interrupted_process() {
        let ended = |status| {
            let status = std::process::ExitStatus::from_raw(status);
            is_interrupted(&Output { status, stdout: Vec::new(), stderr: Vec::new() })
        };
        assert!(ended(Signal::INT.as_raw()));
        // Killed, ended well, ended with the number of the interrupt as its code.
        let others = [Signal::KILL.as_raw(), 0, Signal::INT.as_raw() << 8];
        assert!(!others.into_iter().any(ended));
    }

    #[test]
    fn program_that_is_not_there_is_a_crash_and_not_a_run_that_holds() {
        let program = Program { path: "no/such/program".into(), planted: None };
        let summary = run(&program, &job(), Duration::from_secs(1));
        assert_eq!((summary.verdict, summary.seed), (Verdict::Crash, 4));
    }
}
