//! Rules of the tree that no compiler checks, each with what to do instead.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A text that must not stand in the code of some folders.
struct Rule {
    /// The text.
    banned: &'static str,
    /// Folders or files to which it applies.
    within: &'static [&'static str],
    /// Folders or files below those to which it does not.
    except: &'static [&'static str],
    /// What to do instead.
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
        except: REAL,
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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

fn rust_files(below: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(below) else {
        if below.extension().is_some_and(|ext| ext == "rs") {
            into.push(below.to_owned());
        }
        return;
    };
    for entry in entries {
        rust_files(&entry.expect("readable").path(), into);
    }
}

/// Whether the module above a file, or above its folder, has it for tests only.
fn is_test_module(path: &Path) -> bool {
    let Some(folder) = path.parent().filter(|folder| folder.starts_with(root())) else {
        return false;
    };
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let declared = format!("mod {};", name(path));
    let above = [folder.join("mod.rs"), folder.join("lib.rs"), folder.with_extension("rs")];
    let for_tests = above.iter().filter_map(|file| fs::read_to_string(file).ok()).any(|text| {
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        lines.windows(2).any(|pair| {
            pair[0].starts_with("#[cfg(")
                && pair[0].contains("test")
                && pair[1].ends_with(&declared)
        })
    });
    for_tests || is_test_module(folder)
}

/// A file's code without comments and without its tests, line by line.
fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("readable");
    if is_test_module(path) {
        return Vec::new();
    }
    let mut lines = Vec::new();
    // A test module ends where its first line's indentation comes back.
    let mut skip_to: Option<String> = None;
    let mut pending = false;
    for line in text.lines() {
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        let trimmed = line.trim();
        if let Some(end) = &skip_to {
            if *end == indent && trimmed.starts_with('}') {
                skip_to = None;
            }
            lines.push(String::new());
            continue;
        }
        if pending && !trimmed.starts_with("#[") && !trimmed.starts_with("///") {
            pending = false;
            if trimmed.ends_with('{') {
                skip_to = Some(indent);
            }
            lines.push(String::new());
            continue;
        }
        if trimmed.starts_with("#[cfg(") && trimmed.contains("test") {
            pending = true;
            lines.push(String::new());
            continue;
        }
        let code = line.split("//").next().unwrap_or_default();
        lines.push(code.to_owned());
    }
    lines
}

fn applies(rule: &Rule, file: &Path) -> bool {
    let below = |places: &[&str]| places.iter().any(|place| file.starts_with(place));
    below(rule.within) && !below(rule.except)
}

#[test]
fn what_is_banned_stands_nowhere() {
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
fn nothing_names_a_place_of_one_machine() {
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
