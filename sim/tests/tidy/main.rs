//! Rules of the tree that no compiler checks, each with what to do instead.

mod layers;
mod oracles;
mod source;

use std::{collections::BTreeSet, env, fs, path::Path, process::Command};

use source::{code, root, rust_files};

/// A text that must not stand in the code of some folders.
struct Rule {
    /// The text.
    banned: &'static str,
    /// Folders or files to which it applies.
    within: &'static [&'static str],
    /// Folders or files below those to which it does not.
    except: &'static [&'static str],
    /// Replacement.
    instead: &'static str,
}

const NODE: &[&str] = &["src", "sim/env/src", "scenarios/src"];
const ALL: &[&str] =
    &["src", "bin", "scenarios/src", "sim/src", "sim/world/src", "sim/env/src", "benches"];
/// The real world and who starts it.
const REAL: &[&str] = &["sim/env/src/real"];

const RULES: &[Rule] = &[
    Rule {
        banned: "tokio::spawn",
        within: NODE,
        except: REAL,
        instead: "Env::spawn, so that a task dies with its node",
    },
    Rule {
        banned: "tokio::time::",
        within: NODE,
        except: REAL,
        instead: "Env::sleep and Env::timeout: each node has a clock of its own",
    },
    Rule {
        banned: "tokio::net::",
        within: NODE,
        // A store's server may listen on a Unix socket, which is no part of the seam.
        except: &["sim/env/src/real", "src/store/postgres", "src/testing/postgres.rs"],
        instead: "Env::connect and Env::listen",
    },
    Rule { banned: "spawn_blocking", within: NODE, except: REAL, instead: "Env::compute" },
    Rule {
        banned: "Instant::now",
        within: NODE,
        // hyper counts in Instants; it is given the node's time in them.
        except: &["sim/env/src/real", "src/http/io.rs"],
        instead: "take `now`, or ask Env::now",
    },
    Rule {
        banned: "SystemTime::now",
        within: NODE,
        except: REAL,
        instead: "take the time, or ask Env::wall",
    },
    Rule {
        banned: "std::thread",
        within: NODE,
        // The launcher counts cores for the runtime that it makes.
        except: &["sim/env/src/real", "src/programs/process.rs", "src/store/sqlite"],
        instead: "Env::compute",
    },
    Rule {
        banned: "sync::watch",
        within: &["src", "scenarios/src", "sim/src", "sim/world/src"],
        except: &[],
        instead: "mpsc, broadcast or Notify: watch draws on state of the whole process",
    },
    Rule {
        banned: "RandomState",
        within: &["src", "scenarios/src", "sim/src", "sim/world/src"],
        except: &[],
        instead: "hashbrown with a fixed hasher, or BTreeMap",
    },
    Rule {
        banned: "collections::HashMap",
        within: ALL,
        except: &[],
        instead: "BTreeMap, or hashbrown with a fixed hasher: its order differs by process",
    },
    Rule {
        banned: "collections::HashSet",
        within: ALL,
        except: &[],
        instead: "BTreeSet, or hashbrown with a fixed hasher: its order differs by process",
    },
    Rule { banned: "getrandom::", within: NODE, except: REAL, instead: "Env::rng or Env::entropy" },
    Rule {
        banned: "CURRENT_TIMESTAMP",
        within: &["src"],
        except: &[],
        instead: "the store's time as a parameter",
    },
    Rule {
        banned: "async ",
        within: &["src/protocol"],
        except: &[],
        instead: "what decides is synchronous and takes `now`",
    },
    Rule {
        banned: "madsim",
        within: &["src", "bin", "scenarios/src", "sim/env/src"],
        except: &[],
        instead: "only dst-world names madsim: it replaces libc's clock in whatever links it",
    },
    Rule {
        banned: ".unwrap()",
        within: ALL,
        except: &[],
        instead: "an error, or expect(\"why it holds\")",
    },
    Rule {
        banned: "#[allow(",
        within: ALL,
        except: &[],
        instead: "#[expect(.., reason = \"..\")]",
    },
    Rule { banned: "TODO", within: ALL, except: &[], instead: "do it, or open an issue" },
    Rule { banned: "FIXME", within: ALL, except: &[], instead: "fix it, or open an issue" },
];

fn applies(rule: &Rule, file: &Path) -> bool {
    let below = |places: &[&str]| places.iter().any(|place| file.starts_with(place));
    below(rule.within) && !below(rule.except)
}

#[test]
fn banned_text_stands_nowhere() {
    let root = root();
    let mut files = Vec::new();
    for place in ALL {
        rust_files(&root.join(place), &mut files);
    }
    assert!(files.len() > 50, "{} files: is this the tree?", files.len());
    let mut found = Vec::new();
    for path in files {
        let file = path.strip_prefix(&root).expect("below the root").to_owned();
        let lines = code(&path);
        for rule in RULES.iter().filter(|rule| applies(rule, &file)) {
            for (nth, line) in lines.iter().enumerate() {
                if line.contains(rule.banned) {
                    let (at, banned, instead) = (nth + 1, rule.banned, rule.instead);
                    found.push(format!("{}:{at}: `{banned}`: use {instead}", file.display()));
                }
            }
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn every_select_says_biased() {
    let root = root();
    let mut files = Vec::new();
    for place in ["src", "bin", "scenarios/src", "sim/src", "sim/world/src"] {
        rust_files(&root.join(place), &mut files);
    }
    let mut found = Vec::new();
    for path in files {
        let lines = code(&path);
        for (nth, line) in lines.iter().enumerate() {
            let next = lines.get(nth + 1).map_or("", |line| line.trim());
            if line.contains("select! {") && next != "biased;" {
                let file = path.strip_prefix(&root).expect("below the root");
                found.push(format!("{}:{}: say `biased;` first", file.display(), nth + 1));
            }
        }
    }
    assert!(
        found.is_empty(),
        "an unbiased select draws on the whole process:\n{}",
        found.join("\n")
    );
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let root = root();
    let mut files = Vec::new();
    for place in ALL {
        rust_files(&root.join(place), &mut files);
    }
    for path in files {
        let text = fs::read_to_string(&path).expect("readable");
        for place in ["home", "root", "Users"].map(|name| format!("/{name}/")) {
            assert!(!text.contains(&place), "{} names {place}", path.display());
        }
    }
}

#[test]
fn doc_sentences_state_and_do_not_ask() {
    let root = root();
    let mut files = Vec::new();
    for place in ["src", "bin", "benches", "examples", "scenarios", "sim", "tests"] {
        rust_files(&root.join(place), &mut files);
    }
    let mut found = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("readable");
        for (nth, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let doc = line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! "));
            let first = doc.and_then(|doc| doc.split(|c: char| !c.is_alphabetic()).next());
            if first.is_some_and(|word| ["What", "Who", "Which", "Whom"].contains(&word)) {
                let file = path.strip_prefix(&root).expect("below the root");
                found.push(format!("{}:{}: {line}", file.display(), nth + 1));
            }
        }
    }
    assert!(
        found.is_empty(),
        "say what the thing is or does, noun or verb first:\n{}",
        found.join("\n")
    );
}

#[test]
fn names_in_the_list_of_fidelity_stand_in_the_code() {
    let root = root();
    let list = fs::read_to_string(root.join("sim/FIDELITY.md")).expect("readable");
    let is_name = |text: &&str| {
        let is_letter = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
        text.split('_').count() >= 3 && text.chars().all(is_letter)
    };
    // Every second piece stands between backticks.
    let names: BTreeSet<_> = list.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert!(names.len() > 20, "{} names: is this the list?", names.len());
    let mut files = Vec::new();
    for place in ["src", "bin", "scenarios", "sim", "tests"] {
        rust_files(&root.join(place), &mut files);
    }
    let mut lost = names;
    for path in files {
        let text = fs::read_to_string(path).expect("readable");
        for word in text.split(|c: char| c != '_' && !c.is_alphanumeric()) {
            lost.remove(word);
        }
    }
    assert!(lost.is_empty(), "sim/FIDELITY.md names what is nowhere: {lost:?}");
}

#[test]
fn seam_and_world_name_nothing_of_the_chat() {
    let root = root();
    for package in ["sim/env", "sim/world"] {
        let mut files = vec![root.join(package).join("Cargo.toml")];
        rust_files(&root.join(package).join("src"), &mut files);
        assert!(files.len() > 4, "{package}: is this the tree?");
        for path in files {
            let text = fs::read_to_string(&path).expect("readable").to_lowercase();
            assert!(!text.contains("chatchat"), "{} names the chat", path.display());
        }
    }
}

/// The compiler alone shows it: without the flag nothing of these packages is built, so that they need no
/// other one. What a whole build says stands in `.ci/run`.
#[test]
fn package_without_its_flag_is_refused_with_the_remedy_and_nothing_else() {
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    for package in ["sim/world", "sim"] {
        let mut command = Command::new(&compiler);
        command.args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata"]);
        command.args(["--out-dir", env!("CARGO_TARGET_TMPDIR")]);
        let output = command.arg(root().join(package).join("src/lib.rs")).output();
        let output = output.expect("the compiler that built this test");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{package}");
        assert!(said.contains("unset it, or add `--cfg madsim` to it"), "{package}: {said}");
        assert!(said.contains("aborting due to 1 previous error"), "{package}: {said}");
    }
}
