//! Tests of the commands as a person calls them.

mod interrupt;

use std::{
    env, fs,
    path::PathBuf,
    process::{self, Command, Stdio},
};

use libtest_mimic::Failed;
use serde_json::Value;

use super::{sim, text};

type Test = fn() -> Result<(), Failed>;

/// The tests, each with its name.
pub(crate) const ALL: [(&str, Test); 18] = [
    ("run_as_json_is_one_document_that_names_the_build", json),
    ("sweep_that_holds_sums_its_runs_up", sweep),
    ("sweep_keeps_a_failure_with_its_replay_command", keeps),
    ("sweep_runs_the_rest_when_a_story_is_damaged", sweeps_past),
    ("meta_runs_the_rest_when_a_story_is_damaged", compares_past),
    ("interrupted_sweep_sums_up_what_was_run_and_leaves_no_process_behind", interrupt::sweep),
    (
        "sweep_whose_runs_are_interrupted_too_counts_none_of_them_as_a_crash",
        interrupt::sweep_and_its_runs,
    ),
    ("campaign_with_a_story_that_does_not_exist_is_refused_before_a_run", missing),
    ("shrink_of_a_run_that_holds_is_refused", shrink),
    ("explain_of_a_run_that_holds_is_refused", explain),
    ("shrink_leaves_the_one_fault_that_a_failure_needs", shrinks),
    ("explain_tells_how_many_detours_of_each_time_fail_alike", explains),
    ("replay_writes_a_page_that_holds_the_run", replay),
    ("bug_that_is_not_planted_is_refused_with_the_nearest_one", bug),
    ("list_shows_each_story_with_its_sentence", list),
    ("reader_that_goes_away_ends_nothing", reader),
    ("check_says_what_a_run_would_do", check),
    ("check_names_file_line_and_the_nearest_word", refusal),
];

/// Story that fails of itself: it expects what a lease does not give.
const IMPATIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stories/impatient.toml");
const TOOTHLESS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stories/toothless.toml");

/// A folder of this process that is empty.
pub(crate) fn folder(name: &str) -> Result<PathBuf, Failed> {
    let folder = env::temp_dir().join(format!("chatchat-sim-{name}-{}", process::id()));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

pub(crate) fn expect(holds: bool, said: &str) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(said.into()) }
}

fn json() -> Result<(), Failed> {
    let output = sim(&["run", "calm", "--json"])?;
    let run: Value = serde_json::from_slice(&output.stdout)?;
    let names_build = run["build"].as_str().is_some_and(|build| build.contains("rustc"));
    let holds = run["verdict"] == "holds" && run["seed"] == 1 && names_build;
    expect(holds && output.status.success(), &text(&output))
}

fn reader() -> Result<(), Failed> {
    let mut list = Command::new(env!("CARGO_BIN_EXE_chatchat-sim"))
        .arg("list")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(list.stdout.take());
    let output = list.wait_with_output()?;
    expect(output.status.success() && output.stderr.is_empty(), &text(&output))
}

fn sweep() -> Result<(), Failed> {
    let kept = folder("sweep")?;
    let kept_at = kept.to_string_lossy();
    let output = sim(&["sweep", "calm", "--seeds", "2", "--json", "--keep", &kept_at])?;
    let end: Value = serde_json::from_slice(&output.stdout)?;
    let is_summed = end["stories"]["calm"]["holds"] == 2 && end["calls"].as_u64() > Some(100);
    expect(is_summed && output.status.success(), &text(&output))?;
    expect(fs::read_dir(&kept)?.next().is_none(), "a run that holds is not kept")?;
    Ok(fs::remove_dir_all(kept)?)
}

fn keeps() -> Result<(), Failed> {
    let kept = folder("keeps")?;
    let kept_at = kept.to_string_lossy();
    let output = sim(&["sweep", TOOTHLESS, "--seeds", "1", "--from", "3", "--keep", &kept_at])?;
    let said = text(&output);
    let replay = format!("chatchat-sim run {TOOTHLESS} --seed 3");
    expect(output.status.code() == Some(15) && said.contains(&replay), &said)?;
    let verdict = fs::read_to_string(kept.join("toothless/seed-3/verdict.txt"))?;
    expect(verdict.contains("TOOTHLESS") && verdict.contains(&replay), &verdict)?;
    Ok(fs::remove_dir_all(kept)?)
}

/// Writes a story whose fault stands at a place that is not there; returns its folder, path and line.
fn damaged(name: &str) -> Result<(PathBuf, String, usize), Failed> {
    let folder = folder(name)?;
    let path = folder.join("damaged.toml");
    let story = fs::read_to_string(TOOTHLESS)?.replace("worker:0", "worker:9");
    let line = story.lines().position(|line| line.starts_with("target"));
    fs::write(&path, story)?;
    Ok((folder, path.to_string_lossy().into_owned(), line.map_or(0, |at| at + 1)))
}

fn sweeps_past() -> Result<(), Failed> {
    let (folder, path, line) = damaged("sweeps-past")?;
    let kept_at = folder.join("kept").to_string_lossy().into_owned();
    let output = sim(&["sweep", &path, "calm", "--seeds", "1", "--keep", &kept_at])?;
    let (said, told) = (text(&output), String::from_utf8_lossy(&output.stderr));
    let refusal = format!("damaged.toml:{line}: fault 1: worker:9: there are 1 workers");
    expect(told.contains(&refusal), &said)?;
    let is_summed = said.contains("verdict  holds") && said.contains("runs     1 in ");
    expect(is_summed && output.status.code() == Some(2), &said)?;
    let output = sim(&["sweep", &path, TOOTHLESS, "--seeds", "1", "--keep", &kept_at])?;
    expect(output.status.code() == Some(15), &text(&output))?;
    let output = sim(&["sweep", &path, "--seeds", "1", "--keep", &kept_at])?;
    let said = text(&output);
    let is_all = said.contains(&refusal) && !said.contains("verdict");
    expect(is_all && output.status.code() == Some(2), &said)?;
    Ok(fs::remove_dir_all(folder)?)
}

fn compares_past() -> Result<(), Failed> {
    let (folder, path, line) = damaged("compares-past")?;
    let output = sim(&["meta", &path, TOOTHLESS, "--seeds", "1"])?;
    let (said, told) = (text(&output), String::from_utf8_lossy(&output.stderr));
    let says = told.contains(&format!("damaged.toml:{line}: fault 1"))
        && said.contains("the same in both processes")
        && said.contains("verdict  holds");
    expect(says && output.status.code() == Some(2), &said)?;
    Ok(fs::remove_dir_all(folder)?)
}

fn missing() -> Result<(), Failed> {
    for command in ["sweep", "meta"] {
        let output = sim(&[command, "calm", "calmm", "--seeds", "1"])?;
        let said = text(&output);
        let says = said.contains("did you mean `calm`?") && output.stdout.is_empty();
        expect(says && output.status.code() == Some(2), &said)?;
    }
    Ok(())
}

fn shrink() -> Result<(), Failed> {
    let output = sim(&["shrink", TOOTHLESS])?;
    let said = text(&output);
    expect(output.status.code() == Some(2) && said.contains("nothing to shrink"), &said)
}

fn explain() -> Result<(), Failed> {
    let output = sim(&["explain", TOOTHLESS])?;
    let said = text(&output);
    expect(output.status.code() == Some(2) && said.contains("nothing to explain"), &said)
}

fn shrinks() -> Result<(), Failed> {
    let folder = folder("shrinks")?;
    let shrunk = folder.join("deeper/shrunk.toml").to_string_lossy().into_owned();
    let output = sim(&["shrink", IMPATIENT, "--out", &shrunk])?;
    let said = text(&output);
    let says =
        ["breaks   G9 g09.waited", "before   3 faults, 2 masters", "after    1 faults, 1 masters"];
    let is_told = says.iter().all(|line| said.contains(line)) && !said.contains("bound of");
    expect(is_told && output.status.code() == Some(11), &said)?;
    let story = fs::read_to_string(&shrunk)?;
    let is_minimal = story.matches("[[fault]]").count() == 1 && story.contains("kind = \"exit\"");
    expect(is_minimal && story.contains("people = 1\n"), &story)?;
    let (_, replay) = said.split_once("chatchat-sim run ").ok_or("no command runs it again")?;
    let words: Vec<_> = replay.lines().next().unwrap_or_default().split(' ').collect();
    let output = sim(&[&["run"], &words[..]].concat())?;
    let again = text(&output);
    expect(output.status.code() == Some(11) && again.contains("[g09.waited]"), &again)?;
    Ok(fs::remove_dir_all(folder)?)
}

fn explains() -> Result<(), Failed> {
    let output = sim(&["explain", IMPATIENT, "--steps", "2", "--detours", "2"])?;
    let said = text(&output);
    let tried = said.lines().filter(|line| line.ends_with(" of 2 fail")).count();
    let says = said.contains("breaks   G9 g09.waited")
        && said.contains("    0.000 s  ")
        && said.lines().any(|line| line.starts_with("doomed   "));
    expect(says && tried >= 3 && output.status.code() == Some(11), &said)
}

fn replay() -> Result<(), Failed> {
    let folder = folder("replay")?;
    let path = folder.join("page.html");
    let output = sim(&["replay", TOOTHLESS, "--html", &path.to_string_lossy()])?;
    expect(output.status.code() == Some(15), &text(&output))?;
    let page = fs::read_to_string(&path)?;
    let holds = ["\"lanes\":[\"store\",\"master0\",\"worker0\",\"person0\"]", "never began"];
    expect(holds.iter().all(|text| page.contains(text)), "the page lacks the run")?;
    Ok(fs::remove_dir_all(folder)?)
}

fn bug() -> Result<(), Failed> {
    let output = sim(&["bugs", "cursor-of-by-one"])?;
    let said = text(&output);
    let says = said.contains("did you mean cursor-off-by-one?");
    expect(output.status.code() == Some(2) && says, &said)
}

fn list() -> Result<(), Failed> {
    let output = sim(&["list"])?;
    let said = text(&output);
    let has_sentence = said.contains("The coordinator of the lobby dies while posts wait");
    expect(output.status.success() && has_sentence, &said)
}

fn check() -> Result<(), Failed> {
    let output = sim(&["check", "coordinator-crash", "--seed", "3"])?;
    let said = text(&output);
    let says = ["coordinator-crash seed 3", "fault 0: at 12s crash", "G1", "15s"];
    expect(output.status.success() && says.iter().all(|word| said.contains(word)), &said)
}

fn refusal() -> Result<(), Failed> {
    let folder = folder("refusal")?;
    let path = folder.join("wrong.toml");
    let story = fs::read_to_string(TOOTHLESS)?.replace("kind = \"", "kind = \"x");
    let line = story.lines().position(|line| line.starts_with("kind")).map_or(0, |at| at + 1);
    fs::write(&path, story)?;
    let output = sim(&["check", &path.to_string_lossy()])?;
    let said = text(&output);
    let says = said.contains(&format!("wrong.toml:{line}:")) && said.contains("did you mean `");
    expect(output.status.code() == Some(2) && says, &said)?;
    Ok(fs::remove_dir_all(folder)?)
}
