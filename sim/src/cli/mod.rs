//! Command line of `chatchat-sim`.

mod log;
mod meta;
mod once;

use std::{path::PathBuf, process::ExitCode};

use chatchat_scenarios::{plan::Plan, story::Story};
use clap::{Args, Parser, Subcommand};

/// Exit code of a wrong command line or story.
const USAGE: u8 = 2;

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
        Command::Meta(meta) => meta::run(&meta),
    };
    done.unwrap_or_else(|why| {
        eprintln!("chatchat-sim: {why}");
        ExitCode::from(USAGE)
    })
}

/// Reads a story and expands it.
///
/// # Errors
/// A sentence for the person who asked.
fn plan(which: &Which) -> Result<Plan, String> {
    let story = Story::load(&which.story).map_err(|why| why.to_string())?;
    Ok(Plan::expand(&story, which.seed))
}
