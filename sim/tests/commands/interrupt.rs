//! Test of a campaign that is interrupted.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;

use super::{expect, folder};
use crate::{SIM, text};

const CALM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/stories/calm.toml");
/// Number of runs of the campaign, many more than end before the interrupt.
const SEEDS: u64 = 300;
const AT_A_TIME: u64 = 2;
/// Longest time until a run has ended on a busy machine.
const WAIT: Duration = Duration::from_secs(60);

/// Returns the seeds of the processes that run this story.
fn running(story: &str) -> Result<Vec<u64>, Failed> {
    let mut seeds = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        // Not every entry is a process, and a process may end meanwhile.
        let Ok(line) = fs::read_to_string(entry.path().join("cmdline")) else { continue };
        let mut words = line.split('\0').skip_while(|word| *word != story).skip(1);
        if words.next() == Some("--seed") {
            seeds.extend(words.next().and_then(|seed| seed.parse::<u64>().ok()));
        }
    }
    Ok(seeds)
}

/// Waits until a run of the campaign has ended; returns whether the campaign goes on then.
#[expect(clippy::disallowed_methods, reason = "this watches processes from outside, in real time")]
fn has_ended_a_run(campaign: &mut Child, story: &str) -> Result<bool, Failed> {
    let until = Instant::now() + WAIT;
    // The next run begins when one of the first has ended.
    while running(story)?.iter().all(|seed| *seed <= AT_A_TIME) {
        if Instant::now() > until || campaign.try_wait()?.is_some() {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

pub(super) fn sweep() -> Result<(), Failed> {
    interrupted("interrupt", |id| id.to_string())
}

/// Interrupts the runs as well, which end in any order, as a terminal does.
pub(super) fn sweep_and_its_runs() -> Result<(), Failed> {
    interrupted("interrupt-all", |id| format!("-{id}"))
}

/// Interrupts a campaign in a process group of its own; `whom` tells `kill` whom, by its id.
fn interrupted(name: &str, whom: fn(u32) -> String) -> Result<(), Failed> {
    let folder = folder(name)?;
    let (story, kept) = (folder.join("calm.toml"), folder.join("kept"));
    // Its path is in the command line of each run, and of no other test's.
    fs::copy(CALM, &story)?;
    let story = story.to_string_lossy();
    let (seeds, at_a_time) = (SEEDS.to_string(), AT_A_TIME.to_string());
    let mut command = Command::new(SIM);
    command.args(["sweep", &story, "--seeds", &seeds, "--jobs", &at_a_time, "--keep"]).arg(&kept);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut campaign = command.spawn()?;
    let has_begun = has_ended_a_run(&mut campaign, &story);
    // Also when it has not: no campaign outlives its test.
    let sent = Command::new("kill").args(["-INT", "--", &whom(campaign.id())]).status();
    let output = campaign.wait_with_output()?;
    let left = running(&story)?;

    let (said, out) = (text(&output), String::from_utf8_lossy(&output.stdout));
    expect(has_begun? && sent?.success(), &said)?;
    expect(output.status.code() == Some(130), &said)?;
    let of_all = format!(" of {SEEDS} runs");
    let ran = out.lines().find_map(|line| {
        line.strip_prefix("interrupted after ")?.strip_suffix(&of_all)?.parse::<u64>().ok()
    });
    let is_summed = ran.is_some_and(|ran| {
        (1..SEEDS).contains(&ran) && out.contains(&format!("\nruns     {ran} in "))
    });
    expect(is_summed && out.contains("\nverdict  holds\n"), &said)?;
    let has_tables = out.starts_with("story ")
        && out.contains(&format!("\n{story} "))
        && out.contains("\nprobe ");
    expect(has_tables, &said)?;
    expect(left.is_empty(), &format!("runs of seeds {left:?} are left behind"))?;
    expect(!kept.exists(), "a run that the interrupt ended is no failure")?;
    Ok(fs::remove_dir_all(folder)?)
}
