//! Build script: names the build (commit, sources, compiler, target) and lists the probes that
//! the sources name, so that a campaign knows which ones it never reached.

use std::{
    collections::BTreeSet,
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Folders whose code decides what a run does.
const SOURCES: &[&str] = &["src", "scenarios/src", "sim/src", "sim/env/src", "sim/world/src"];
/// Texts that begin a probe.
const PROBE: &[&str] = &["Probe(", "sometimes("];

fn main() {
    // Read when it runs: the checkout may have moved since this was compiled.
    let folder = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let root = Path::new(&folder).join("..");
    let mut files = Vec::new();
    for folder in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
        collect(&root.join(folder), &mut files);
    }
    files.sort();
    assert!(!files.is_empty(), "no sources below {}", root.display());

    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut probes = BTreeSet::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap_or_default();
        for byte in text.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        let is_test = file.components().any(|part| part.as_os_str() == "tests");
        if !is_test && !file.ends_with("tests.rs") {
            // Tests stand at the end of a file.
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            find_probes(code, &mut probes);
        }
    }

    let mut list = String::from("&[\n");
    for probe in probes {
        // Writing to a String cannot fail.
        let _ = writeln!(list, "    {probe:?},");
    }
    list.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("probes.rs"), list).expect("the folder of the build can be written");

    // The log of the head changes with each commit and each change of branch.
    if let Some(log) =
        git(&root, &["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    let commit = git(&root, &["rev-parse", "--short=12", "HEAD"]);
    let commit = commit.unwrap_or_else(|| "no commit".to_owned());
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let compiler = said(Command::new(rustc).arg("--version"));
    let compiler = compiler.unwrap_or_else(|| "an unknown compiler".to_owned());
    let target = env::var("TARGET").unwrap_or_default();
    let level = env::var("OPT_LEVEL").unwrap_or_default();
    println!(
        "cargo::rustc-env=CHATCHAT_BUILD={commit}, sources {hash:016x}, {compiler}, {target}, \
         opt-level {level}"
    );
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn find_probes(code: &str, into: &mut BTreeSet<String>) {
    for begin in PROBE {
        for (at, _) in code.match_indices(begin) {
            let rest = code[at + begin.len()..].trim_start();
            if let Some((probe, _)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
                into.insert(probe.to_owned());
            }
        }
    }
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    // Of a copy of the tree inside of another repository nothing is said.
    root.join(".git")
        .exists()
        .then(|| said(Command::new("git").arg("-C").arg(root).args(arguments)))?
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
