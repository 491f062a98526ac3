//! Fault stories as tests: one trial per story and seed, each in a process of its own.
//!
//! `cargo test -p chatchat-sim --test stories coordinator-crash::seed_3` runs one of them.

#[path = "commands/mod.rs"]
mod commands;

use std::{
    env,
    process::{Command, ExitCode, Output, Stdio},
};

use chatchat_scenarios::story::Story;
use libtest_mimic::{Arguments, Failed, Trial};

const SIM: &str = env!("CARGO_BIN_EXE_chatchat-sim");
/// Stories of the first failures that anybody thinks of, with more seeds than the others: all of
/// it has to end within minutes, on two cores.
const FIRST: [&str; 5] =
    ["calm", "coordinator-crash", "master-crash", "worker-crash", "worker-pause"];
/// Seeds that every commit is held to: of the first stories, and of each other one.
const FIXED: [u64; 2] = [8, 1];
/// Seeds of this very commit: over time they reach where the fixed ones never do. The other
/// stories take turns, and are run in two processes when it is theirs.
const OF_COMMIT: [usize; 2] = [2, 1];
/// Number of turns of the other stories; which one it is follows from the commit.
const TURNS: u64 = 4;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    let of_commit = commit_seeds();
    let turn = of_commit.first().map_or(0, |seed| seed % TURNS);
    for (story, at) in Story::names().into_iter().zip((0..TURNS).cycle()) {
        let sort = usize::from(!FIRST.contains(&story.as_str()));
        for seed in 1..=FIXED[sort] {
            trials.push(trial(&story, format!("seed_{seed}"), seed));
        }
        if sort > 0 && at != turn {
            continue;
        }
        for &seed in of_commit.iter().take(OF_COMMIT[sort]) {
            trials.push(trial(&story, format!("commit_seed_{seed}"), seed));
        }
        let name = format!("{story}::meta");
        trials.push(Trial::test(name, move || one_seed_in_two_processes(&story)));
    }
    trials.push(Trial::test("usage::an_unknown_story_is_named_with_the_ones_there_are", unknown));
    trials.push(Trial::test("usage::story_whose_fault_never_begins_is_toothless", toothless));
    trials.push(Trial::test("usage::a_run_that_outlives_its_limit_says_so", too_long));
    for (name, test) in commands::ALL {
        trials.push(Trial::test(format!("commands::{name}"), test));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(story: &str, name: String, seed: u64) -> Trial {
    let name = format!("{story}::{name}");
    let story = story.to_owned();
    Trial::test(name, move || holds(&story, seed))
}

/// The commit's first bytes as numbers; none where there is no git.
fn commit_seeds() -> Vec<u64> {
    let asked = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::null())
        .output();
    let Ok(Output { status, stdout, .. }) = asked else { return Vec::new() };
    let hash = String::from_utf8_lossy(&stdout);
    let word = |nth: usize| u64::from_str_radix(hash.get(8 * nth..8 * nth + 8)?, 16).ok();
    let words = (0..OF_COMMIT[0]).filter_map(word);
    if status.success() { words.collect() } else { Vec::new() }
}

fn sim(arguments: &[&str]) -> Result<Output, Failed> {
    let mut command = Command::new(SIM);
    command.args(arguments).stdin(Stdio::null());
    command.output().map_err(|why| Failed::from(format!("{SIM}: {why}")))
}

fn text(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("exit {:?}\n{out}{err}", output.status.code())
}

fn holds(story: &str, seed: u64) -> Result<(), Failed> {
    let output = sim(&["run", story, "--seed", &seed.to_string()])?;
    if output.status.success() { Ok(()) } else { Err(text(&output).into()) }
}

fn one_seed_in_two_processes(story: &str) -> Result<(), Failed> {
    let output = sim(&["meta", story, "--seeds", "1"])?;
    if output.status.success() { Ok(()) } else { Err(text(&output).into()) }
}

fn unknown() -> Result<(), Failed> {
    let output = sim(&["run", "no-such-story"])?;
    let said = text(&output);
    if output.status.code() != Some(2) || !said.contains("coordinator-crash") {
        return Err(said.into());
    }
    Ok(())
}

fn toothless() -> Result<(), Failed> {
    let story = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stories/toothless.toml");
    let output = sim(&["run", story])?;
    let said = text(&output);
    if output.status.code() == Some(15) && said.contains("never began") {
        Ok(())
    } else {
        Err(said.into())
    }
}

fn too_long() -> Result<(), Failed> {
    let output = sim(&["run", "calm", "--limit", "0"])?;
    if output.status.code() == Some(14) { Ok(()) } else { Err(text(&output).into()) }
}
