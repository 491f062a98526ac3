//! Command line of `chatchat-sim`.

mod bugs;
mod check;
mod child;
mod explain;
mod judge;
mod list;
mod log;
mod meta;
mod once;
mod out;
mod real;
mod replay;
mod shrink;
mod side_by_side;
mod sweep;

use std::{io, num::NonZero, path::PathBuf, process::ExitCode, thread};

use chatchat_scenarios::{
    plan::Plan,
    story::{Story, StoryError},
};
use chatchat_sim::faults::{self, UnsupportedKinds};
use clap::{Args, Parser, Subcommand};

/// Exit code of a wrong command line or story.
const USAGE: u8 = 2;
/// Exit code after an interrupt, as shells give it.
const INTERRUPTED: u8 = 130;

/// Runs fault stories in a simulated world. The same story and seed always give the same run.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a story once and judges it.
    Run(Run),
    /// Runs a story once and prints its event log.
    Log(Log),
    /// Runs a story once on real processes and judges it.
    Real(Real),
    /// Judges a history that another program recorded, such as `tests/cluster/run.mjs`.
    Judge(Judge),
    /// Runs many seeds, one process each, and sums them up. The exit code is that of the worst
    /// verdict; if all runs hold, 2 when a story was refused and 130 after an interrupt.
    Sweep(Sweep),
    /// Runs a story again and writes a page that shows the run.
    Replay(Replay),
    /// Finds the smallest plan that fails in the same way.
    Shrink(Shrink),
    /// Plants bugs into a copy of the tree and hunts for them.
    Bugs(Bugs),
    /// Tells from when on a failing run was doomed.
    Explain(Explain),
    /// Lists the stories, each with its sentence.
    List,
    /// Reads and expands a story without running it.
    Check(Check),
    /// Runs each seed in two processes and compares every line of the event log.
    Meta(Meta),
}

/// Choice of one run.
#[derive(Clone, Debug, Args)]
struct Which {
    /// A story's name, such as `calm`, or the path of its file.
    story: String,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Real time after which the run is given up, in seconds.
    #[arg(long, default_value_t = 300)]
    limit: u64,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    which: Which,
    /// Writes the event log here.
    #[arg(long)]
    log: Option<PathBuf>,
    /// Prints a summary as JSON instead of plan and verdict.
    #[arg(long)]
    json: bool,
    /// Virtual time, in ms, from which on the order of tasks goes another way.
    #[arg(long)]
    detour_at: Option<u64>,
    /// Number of that other way.
    #[arg(long, default_value_t = 1)]
    detour: u32,
}

#[derive(Debug, Args)]
struct Real {
    /// A story's name, such as `calm`, or the path of its file.
    story: String,
    /// Decides what the story and its people leave to chance; the rest is real.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Time after which the run is given up, in seconds; by the story's own length if left out.
    #[arg(long)]
    limit: Option<u64>,
    /// Folder of chatchat-master and chatchat-worker; this program's own if left out.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Leaves the folder of the run behind: settings, logs, event lines and the store.
    #[arg(long)]
    keep: bool,
    /// Writes the lines of the harness and the nodes here.
    #[arg(long)]
    log: Option<PathBuf>,
    /// Prints a summary as JSON instead of plan and verdict.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Judge {
    /// File of the history, a JSON value a line.
    history: PathBuf,
}

#[derive(Debug, Args)]
struct Sweep {
    /// Stories to run; all of them if none is named.
    stories: Vec<String>,
    /// Number of seeds for each story.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Processes that run at a time; one per core if left out.
    #[arg(long)]
    jobs: Option<usize>,
    /// Real time after which a run is given up, in seconds.
    #[arg(long, default_value_t = 300)]
    limit: u64,
    /// Folder that keeps each failure: its summary, plan and verdict.
    #[arg(long, default_value = "failures")]
    keep: PathBuf,
    /// Prints the summary as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Replay {
    #[command(flatten)]
    which: Which,
    /// File of the page.
    #[arg(long)]
    html: PathBuf,
}

#[derive(Debug, Args)]
struct Shrink {
    #[command(flatten)]
    which: Which,
    /// Rule that must break, such as `g05.gap`; the first that the run breaks if left out.
    #[arg(long)]
    rule: Option<String>,
    /// Seeds with which each candidate is tried, from the run's own on.
    #[arg(long, default_value_t = 3)]
    seeds: usize,
    /// Number of runs after which the smallest plan so far is taken.
    #[arg(long, default_value_t = 500)]
    runs: usize,
    /// Processes that run at a time; one per core if left out.
    #[arg(long)]
    jobs: Option<usize>,
    /// File of the story; `failures/STORY/seed-N/shrunk.toml` if left out.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Explain {
    #[command(flatten)]
    which: Which,
    /// Rule that must break, such as `g05.gap`; the first that the run breaks if left out.
    #[arg(long)]
    rule: Option<String>,
    /// Times at which detours are tried, spread over the run.
    #[arg(long, default_value_t = 10)]
    steps: u32,
    /// Detours at each time.
    #[arg(long, default_value_t = 5)]
    detours: usize,
    /// Processes that run at a time; one per core if left out.
    #[arg(long)]
    jobs: Option<usize>,
}

#[derive(Debug, Args)]
struct Bugs {
    /// Names of planted bugs; all of them if none is named.
    names: Vec<String>,
    /// Stories to hunt with, in turn; all of them if none is named.
    #[arg(long)]
    story: Vec<String>,
    /// Runs after which a bug counts as not found.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Hunts for each bug, from different seeds.
    #[arg(long, default_value_t = 3)]
    starts: u64,
    /// Processes that run at a time; one per core if left out.
    #[arg(long)]
    jobs: Option<usize>,
    /// Real time after which a run is given up, in seconds.
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// Shrinks what was found first of each.
    #[arg(long)]
    shrink: bool,
    /// Writes the table here as well.
    #[arg(long)]
    table: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Check {
    /// Names of stories, or paths of their files.
    #[arg(required = true)]
    stories: Vec<String>,
    /// Seed that decides what the story leaves to chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct Log {
    #[command(flatten)]
    which: Which,
    /// A line for each segment on the network as well.
    #[arg(long)]
    segments: bool,
}

#[derive(Debug, Args)]
struct Meta {
    /// Stories to run; all of them if none is named.
    stories: Vec<String>,
    /// Seeds 1 to N.
    #[arg(long, default_value_t = 2)]
    seeds: u64,
}

/// Reads the command line and does it.
pub(crate) fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(run) => once::run(&run),
        Command::Log(log) => log::run(&log),
        Command::Real(real) => real::run(&real),
        Command::Judge(asked) => judge::run(&asked),
        Command::Sweep(sweep) => sweep::run(&sweep),
        Command::Replay(replay) => replay::run(&replay),
        Command::Shrink(shrink) => shrink::run(&shrink),
        Command::Bugs(bugs) => bugs::run(&bugs),
        Command::Explain(explain) => explain::run(&explain),
        Command::List => list::run(),
        Command::Check(check) => check::run(&check),
        Command::Meta(meta) => meta::run(&meta),
    };
    done.unwrap_or_else(|why| {
        eprintln!("chatchat-sim: {why}");
        ExitCode::from(USAGE)
    })
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Stories of a campaign.
struct Stories {
    /// Those that can be run, each with its name or path.
    read: Vec<(String, Story)>,
    /// Refusal of each other one.
    refused: Vec<String>,
}

/// Reads the stories of a campaign, all of them if none is named, and says on standard error which
/// of them cannot be used.
///
/// # Errors
/// A sentence for the person who asked: a story that was named does not exist, or none can be used.
fn stories(named: &[String]) -> Result<Stories, String> {
    stories_by(named, faults::check_story)
}

/// Does as [`stories`], and leaves out those that `check` refuses.
fn stories_by(
    named: &[String],
    check: impl Fn(&Story) -> Result<(), UnsupportedKinds>,
) -> Result<Stories, String> {
    let names = if named.is_empty() { Story::names() } else { named.to_vec() };
    let (mut read, mut refused) = (Vec::new(), Vec::new());
    for name in names {
        match Story::load(&name) {
            Ok(story) => match check(&story) {
                Ok(()) => read.push((name, story)),
                Err(why) => refused.push(why.to_string()),
            },
            Err(why) if !named.is_empty() && is_missing(&why) => return Err(why.to_string()),
            Err(why) => refused.push(why.to_string()),
        }
    }
    if read.is_empty() && !refused.is_empty() {
        return Err(refused.join("\n"));
    }
    for why in &refused {
        eprintln!("chatchat-sim: {why}");
    }
    Ok(Stories { read, refused })
}

fn is_missing(why: &StoryError) -> bool {
    matches!(why, StoryError::Unreadable { why, .. } if why.kind() == io::ErrorKind::NotFound)
}

/// Reads a story and expands it.
///
/// # Errors
/// A sentence for the person who asked.
fn plan(which: &Which) -> Result<Plan, String> {
    let story = Story::load(&which.story).map_err(|why| why.to_string())?;
    Ok(Plan::expand(&story, which.seed))
}

#[cfg(test)]
mod tests {
    use chatchat_scenarios::fault::Kind;

    use super::*;

    #[test]
    fn story_that_the_world_cannot_carry_out_stops_no_other() {
        let named = ["calm", "worker-pause"].map(str::to_owned);
        let all = stories_by(&named, |_| Ok(())).expect("they are there");
        assert_eq!((all.read.len(), all.refused.len()), (2, 0));
        let check = |story: &Story| match story.name.as_str() {
            "calm" => Ok(()),
            _ => Err(UnsupportedKinds { at: "it:3".to_owned(), kinds: vec![Kind::Pause] }),
        };
        let some = stories_by(&named, check).expect("one is left");
        assert_eq!(some.read.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["calm"]);
        assert_eq!(some.refused.len(), 1);
        assert!(some.refused[0].starts_with("it:3: "), "{}", some.refused[0]);
        let Err(why) = stories_by(&named[1..], check) else { panic!("none is left") };
        assert!(why.starts_with("it:3: "), "{why}");
    }
}
