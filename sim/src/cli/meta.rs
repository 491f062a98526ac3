//! `meta`: the test of the testbed. If it fails, no other verdict counts.

use std::{
    env, io,
    process::{Child, Command, ExitCode, Output, Stdio},
};

use chatchat_sim::verdict::Verdict;

use super::out;

pub(super) fn run(meta: &super::Meta) -> Result<ExitCode, String> {
    let super::Stories { read, refused } = super::stories(&meta.stories)?;
    let mut differs = false;
    for (story, _) in &read {
        for seed in 1..=meta.seeds {
            match compare(story, seed).map_err(|why| why.to_string())? {
                None => {}
                Some(difference) => {
                    differs = true;
                    out::line(format_args!("{story} seed {seed}: {difference}"));
                }
            }
        }
    }
    let verdict = if differs { Verdict::Differs } else { Verdict::Holds };
    for why in &refused {
        out::line(format_args!("refused  {why}"));
    }
    out::line(format_args!("verdict  {verdict}"));
    if verdict == Verdict::Holds && !refused.is_empty() {
        return Ok(ExitCode::from(super::USAGE));
    }
    Ok(verdict.into())
}

fn child(story: &str, seed: u64, segments: bool) -> io::Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["log", story, "--seed", &seed.to_string()]);
    if segments {
        command.arg("--segments");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

/// Two processes, one run.
fn twice(story: &str, seed: u64, segments: bool) -> io::Result<(Output, Output)> {
    let (one, other) = (child(story, seed, segments)?, child(story, seed, segments)?);
    // Their outputs are read at once, so that neither waits for the other.
    let reader = std::thread::Builder::new().spawn(move || other.wait_with_output())?;
    let one = one.wait_with_output()?;
    let other = reader.join().map_err(|_| io::Error::other("the reading thread panicked"))??;
    Ok((one, other))
}

/// Runs a seed twice; what differs, if anything does.
fn compare(story: &str, seed: u64) -> io::Result<Option<String>> {
    let (one, other) = twice(story, seed, false)?;
    let is_run = |output: &Output| !output.stdout.is_empty();
    if !is_run(&one) || !is_run(&other) {
        return Err(io::Error::other(format!(
            "{story} seed {seed} gave no log: run it to see why"
        )));
    }
    if one.stdout == other.stdout && one.status == other.status {
        let lines = one.stdout.iter().filter(|byte| **byte == b'\n').count();
        out::line(format_args!("{story} seed {seed}: {lines} lines, the same in both processes"));
        return Ok(None);
    }
    let coarse = first_difference(&one, &other);
    // Once more with every segment: that names the first event, not the first second.
    let (one, other) = twice(story, seed, true)?;
    let fine = if one.stdout == other.stdout {
        "the two runs with every segment did not differ".to_owned()
    } else {
        first_difference(&one, &other)
    };
    Ok(Some(format!("{coarse}\nwith every segment: {fine}")))
}

fn first_difference(one: &Output, other: &Output) -> String {
    let (one, other) =
        (String::from_utf8_lossy(&one.stdout), String::from_utf8_lossy(&other.stdout));
    let (mut one, mut other) = (one.lines(), other.lines());
    let mut before = "the beginning";
    for nth in 1.. {
        match (one.next(), other.next()) {
            (None, None) => break,
            (left, right) if left != right => {
                let show = |line: Option<&str>| line.unwrap_or("(the log ends)").to_owned();
                let (left, right) = (show(left), show(right));
                return format!("line {nth} differs\n  after {before}\n  - {left}\n  + {right}");
            }
            (left, _) => before = left.unwrap_or(before),
        }
    }
    "only the exit codes differ".to_owned()
}
