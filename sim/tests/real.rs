//! Tests of `chatchat-sim real`: a story on real processes, from the command line to its verdict,
//! beside the verdict on it in the simulated world.
//!
//! The programs of the nodes are those beside this one: `cargo test` builds them all. Where they
//! are not built, tests that need them are skipped, unless `CHATCHAT_REQUIRE_ALL` is set.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use chatchat::{
    env::real::TempDir,
    testing::skip::{say_skipped, skip},
};

const SIM: &str = env!("CARGO_BIN_EXE_chatchat-sim");
const STORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stories/real.toml");
/// Longest time for one step on a busy machine.
const WAIT: Duration = Duration::from_secs(60);

fn sim(arguments: &[&str], temp: &Path) -> Command {
    let mut command = Command::new(SIM);
    command.args(arguments).env("TMPDIR", temp).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("exit {:?}\n{out}{err}", output.status.code())
}

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let temp = TempDir::new().expect("a folder");
    let output = sim(arguments, temp.path()).output().expect("it starts");
    (output.status.code(), text(&output))
}

/// Returns whether the programs of nodes are built.
fn has_programs() -> bool {
    let folder = Path::new(SIM).parent().expect("it lies in a folder");
    let missing = ["chatchat-master", "chatchat-worker"].map(|name| folder.join(name));
    let missing: Vec<PathBuf> = missing.into_iter().filter(|path| !path.exists()).collect();
    if !missing.is_empty() {
        skip(&format!("{missing:?} are not there: `cargo build --bins` builds them"));
    }
    missing.is_empty()
}

/// Returns the processes whose command line names this text.
fn processes_that_name(what: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").expect("Linux").flatten();
    let lines = all.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(what) && line.contains("--config")).collect()
}

/// Waits until so many processes name this text.
#[expect(clippy::disallowed_methods, reason = "this watches processes from outside, in real time")]
fn wait_for(count: usize, what: &str, child: &mut Child) {
    let until = Instant::now() + WAIT;
    while processes_that_name(what).len() != count {
        assert!(Instant::now() < until, "never {count}: {:?}", processes_that_name(what));
        let ended = child.try_wait().expect("it can be asked");
        assert!(count == 0 || ended.is_none(), "it ended: {ended:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("a folder").next().is_none()
}

/// Runs the story, which must hold with both faults biting; returns the plan and the judgement.
fn judged(arguments: &[&str], temp: &Path) -> (String, String) {
    let output = sim(arguments, temp).output().expect("it starts");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let (plan, judgement) = said.split_once("\nverdict  ").expect("plan, then verdict");
    assert!(judgement.starts_with("holds\n"), "{said}");
    for part in ["pause assigned(board:lobby) for 2s: bit", "crash master:1 for 2s: bit"] {
        assert!(judgement.contains(part), "{part:?} is missing: {said}");
    }
    (plan.to_owned(), judgement.to_owned())
}

#[test]
fn story_on_real_processes_holds_sees_its_canary_and_leaves_nothing_behind() {
    let temp = TempDir::new().expect("a folder");
    let (simulated_plan, simulated) = judged(&["run", STORY, "--seed", "1"], temp.path());
    let is_whole = simulated.contains(" s virtual in ") && !simulated.contains("not judged (real)");
    assert!(is_whole, "{simulated}");
    if !has_programs() {
        return;
    }
    let (plan, said) = judged(&["real", STORY, "--seed", "1"], temp.path());
    assert_eq!(plan, simulated_plan, "both worlds are given the same");
    let says = [
        "not judged (real): G14 secrecy: ",
        "not judged (real): G8 writes against assignments: a master was killed",
        "taken out of the store is refused: G1 durable ack",
    ];
    for part in says {
        assert!(said.contains(part), "{part:?} is missing: {said}");
    }
    assert!(is_empty(temp.path()), "the folder of the run is left behind");
    let left = processes_that_name(&temp.path().display().to_string());
    assert!(left.is_empty(), "{left:?}");
}

/// Returns whether this process may make network namespaces. As root with `ip` at hand it may, unless the
/// machine gives nobody any.
fn can_make_networks() -> bool {
    let has_ip = Command::new("ip").arg("-V").output().is_ok_and(|output| output.status.success());
    if !rustix::process::geteuid().is_root() || !has_ip {
        skip("network namespaces need root, and `ip` of iproute2");
        return false;
    }
    // Tests that ask at the same time share a process.
    let test = thread::current().name().unwrap_or_default().to_owned();
    let name = format!("chatchat-probe-{}-{test}", std::process::id());
    let ip = |what| Command::new("ip").args(["netns", what, &name]).output();
    let made = ip("add").is_ok_and(|output| output.status.success());
    if made {
        assert!(ip("del").expect("ip is there").status.success());
    } else {
        say_skipped("network namespaces cannot be made here");
    }
    made
}

/// Carries out the story with lines that are broken by this fault of 2 s in the place of a crash.
fn with_broken_lines(fault: &str, bit: &str) {
    if !has_programs() || !can_make_networks() {
        return;
    }
    let temp = TempDir::new().expect("a folder");
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("lines.toml");
    let story = fs::read_to_string(STORY).expect("readable");
    let story = story.replace("kind = \"crash\"\ntarget = \"master:1\"", fault);
    fs::write(&path, story).expect("written");
    let mut child =
        sim(&["real", &path.to_string_lossy()], temp.path()).spawn().expect("it starts");
    let named = format!("chatchat-sim-{}-", child.id());
    let namespaces = || {
        let output = Command::new("ip").arg("netns").output().expect("ip is there");
        String::from_utf8_lossy(&output.stdout).matches(&named).count()
    };
    wait_for(4, &temp.path().display().to_string(), &mut child);
    assert_eq!(namespaces(), 5, "one for each node and one between");
    let output = child.wait_with_output().expect("it ends");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(bit) && said.contains("each in a network namespace"), "{said}");
    assert_eq!(namespaces(), 0, "they are left behind");
}

#[test]
fn cut_between_real_nodes_bites_and_its_namespaces_go_away() {
    with_broken_lines(
        "kind = \"partition\"\nfrom = \"master:1\"\nto = [\"master:0\", \"worker:*\"]",
        "partition master:1 <-> master:0,worker:* for 2s: bit",
    );
}

#[test]
fn delay_between_real_nodes_bites_and_its_namespaces_go_away() {
    if !Path::new("/dev/net/tun").exists() {
        say_skipped("packets cannot be held up without /dev/net/tun");
        return;
    }
    with_broken_lines(
        "kind = \"delay\"\nfrom = \"master:1\"\nto = [\"master:0\", \"worker:*\"]\nby = \"250ms\"\n\
         jitter = \"50ms\"",
        "delay master:1 <-> master:0,worker:* by 250ms ± 50ms for 2s: bit",
    );
}

#[test]
fn interrupt_ends_all_processes_and_removes_the_folder() {
    if !has_programs() {
        return;
    }
    let temp = TempDir::new().expect("a folder");
    let named = temp.path().display().to_string();
    let mut child = sim(&["real", STORY], temp.path()).spawn().expect("it starts");
    wait_for(4, &named, &mut child);
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill is there").success());
    wait_for(0, &named, &mut child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(is_empty(temp.path()), "the folder of the run is left behind");
}

#[test]
fn nodes_end_with_the_harness_that_is_killed() {
    if !has_programs() {
        return;
    }
    let temp = TempDir::new().expect("a folder");
    let named = temp.path().display().to_string();
    let mut child = sim(&["real", STORY], temp.path()).spawn().expect("it starts");
    wait_for(4, &named, &mut child);
    child.kill().expect("it runs");
    child.wait().expect("it ended");
    wait_for(0, &named, &mut child);
}

#[test]
fn story_with_faults_that_cannot_be_carried_out_is_refused_before_anything_starts() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("late.toml");
    let story = fs::read_to_string(STORY).expect("readable");
    let story = story.replace("kind = \"pause\"", "kind = \"sync_slow\"\nby = \"1s\"");
    fs::write(&path, story).expect("written");
    let (code, said) = run(&["real", &path.to_string_lossy()]);
    assert_eq!(code, Some(2), "{said}");
    let says = "late.toml:15: fault 1: sync_slow: the disk is this machine's; real processes can be \
                given crash, ";
    assert!(said.contains(says) && !said.contains("verdict"), "{said}");
}

#[test]
fn run_without_the_programs_of_nodes_is_refused_with_the_remedy() {
    let folder = TempDir::new().expect("a folder");
    let programs = folder.path().display().to_string();
    let (code, said) = run(&["real", STORY, "--programs", &programs]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("chatchat-master is not in") && said.contains("--bins"), "{said}");
}

#[test]
fn check_says_whether_real_processes_can_carry_a_story_out() {
    let (code, said) = run(&["check", STORY, "clocks-apart"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("real processes can carry it out"), "{said}");
    let refusal = "clocks-apart.toml:19: fault 1: clock_offset: all processes share";
    assert!(said.contains(refusal), "{said}");
}

#[test]
fn help_names_every_setting() {
    let (code, said) = run(&["real", "--help"]);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(said, @r"
    exit Some(0)
    Runs a story once on real processes and judges it

    Usage: chatchat-sim real [OPTIONS] <STORY>

    Arguments:
      <STORY>  A story's name, such as `calm`, or the path of its file

    Options:
          --seed <SEED>          Decides what the story and its people leave to chance; the rest is real [default: 1]
          --limit <LIMIT>        Time after which the run is given up, in seconds; by the story's own length if left out
          --programs <PROGRAMS>  Folder of chatchat-master and chatchat-worker; this program's own if left out
          --keep                 Leaves the folder of the run behind: settings, logs, event lines and the store
          --log <LOG>            Writes the lines of the harness and the nodes here
          --json                 Prints a summary as JSON instead of plan and verdict
      -h, --help                 Print help
    ");
}
