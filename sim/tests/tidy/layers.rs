//! The declared order of layers, held against every path in the code of the workspace.
//!
//! 1. A top module of a package uses only the modules that its line in [`PACKAGES`] names.
//! 2. A line names only modules of lines above it, so the declared arrows cannot form a circle.
//! 3. `crate::env` is the seam, a package of its own; it counts as the lowest layer.
//! 4. The modules of one folder do not use each other in a circle, at any depth.
//!
//! Paths below `crate::`, `super::` and `self::` count, in `use` and elsewhere; tests do not.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::source::{code, root, rust_files};

/// The modules of one package, lowest first.
struct Package {
    /// The folder of its sources.
    src: &'static str,
    /// Each module with those that it may use. Modules above it in the list only.
    layers: &'static [(&'static str, &'static [&'static str])],
}

const PACKAGES: &[Package] = &[Package {
    src: "src",
    layers: &[
        ("model", &[]),
        ("config", &["model"]),
        ("protocol", &["model", "config"]),
        ("wire", &["model"]),
        ("crypto", &["model", "wire"]),
        ("comm", &["env", "model", "config", "wire", "crypto"]),
        ("store", &["env", "model"]),
        ("replica", &["env", "model"]),
        ("api", &["model"]),
        (
            "node",
            &[
                "env", "model", "config", "protocol", "wire", "crypto", "comm", "store", "replica",
                "api",
            ],
        ),
        ("http", &["env", "model", "config", "crypto", "comm", "api", "node"]),
        ("client", &["env", "model", "api"]),
        (
            "programs",
            &["env", "model", "config", "crypto", "comm", "store", "api", "node", "http", "client"],
        ),
    ],
}];

/// One path in the code: the module that names it, the line, and the module path it resolves to.
#[derive(Debug)]
struct Use {
    from: Vec<String>,
    file: PathBuf,
    line: usize,
    to: Vec<String>,
}

/// The module path of a file below its package's sources, such as `node::master`.
fn module_of(file: &Path) -> Vec<String> {
    let mut path: Vec<String> = file
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if path.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        path.pop();
    }
    path
}

/// The words and marks of a text that paths are made of, each with the line it stands in.
fn tokens(lines: &[String]) -> Vec<(usize, String)> {
    let mut tokens = Vec::new();
    for (nth, line) in lines.iter().enumerate() {
        let mut rest = line.as_str();
        while let Some(first) = rest.chars().next() {
            let len = if first.is_alphanumeric() || first == '_' {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (token, after) = rest.split_at(len);
            if !token.trim().is_empty() {
                tokens.push((nth + 1, token.to_owned()));
            }
            rest = after;
        }
    }
    tokens
}

/// Reads the path, or tree of paths, that begins at `at`; returns where it ends.
fn paths(
    tokens: &[(usize, String)],
    mut at: usize,
    before: &[String],
    into: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let mut path = before.to_vec();
    let line = tokens.get(at).map_or(0, |(line, _)| *line);
    while let Some((_, token)) = tokens.get(at) {
        if token == "{" && at > 0 && tokens[at - 1].1 == "::" {
            at += 1;
            while tokens.get(at).is_some_and(|(_, token)| token != "}") {
                at = paths(tokens, at, &path, into);
                while tokens.get(at).is_some_and(|(_, token)| token != "," && token != "}") {
                    at += 1;
                }
                if tokens.get(at).is_some_and(|(_, token)| token == ",") {
                    at += 1;
                }
            }
            return at + 1;
        }
        if !token.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            break;
        }
        path.push(token.clone());
        at += 1;
        if tokens.get(at).is_none_or(|(_, token)| token != "::") {
            break;
        }
        at += 1;
    }
    into.push((line, path));
    at.max(1)
}

/// All paths of one file that lead to modules of its own package.
fn uses_of(src: &Path, file: &Path) -> Vec<Use> {
    let relative = file.strip_prefix(src).expect("below its sources");
    let from = module_of(relative);
    let tokens = tokens(&code(file));
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let begins = ["crate", "super", "self"].contains(&tokens[at].1.as_str())
            && tokens.get(at + 1).is_some_and(|(_, next)| next == "::")
            && (at == 0 || tokens[at - 1].1 != "::");
        if !begins {
            at += 1;
            continue;
        }
        at = paths(&tokens, at, &[], &mut found);
    }
    let resolve = |path: &[String]| {
        let mut base = from.clone();
        let mut rest = path;
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" => base.clear(),
                "super" => drop(base.pop()),
                "self" => {}
                _ => break,
            }
            rest = after;
        }
        base.extend(rest.iter().cloned());
        base
    };
    let to_use = |(line, path): &(usize, Vec<String>)| Use {
        from: from.clone(),
        file: file.to_owned(),
        line: *line,
        to: resolve(path),
    };
    found.iter().map(to_use).collect()
}

fn all_uses(src: &Path) -> Vec<Use> {
    let mut files = Vec::new();
    rust_files(src, &mut files);
    files.sort();
    files.iter().flat_map(|file| uses_of(src, file)).collect()
}

/// The names of the modules that lie directly below a module's folder.
fn modules_below(src: &Path, module: &[String]) -> BTreeSet<String> {
    let folder = module.iter().fold(src.to_owned(), |path, part| path.join(part));
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeSet::new() };
    let paths = entries.map(|entry| entry.expect("readable").path());
    let names = paths.filter_map(|path| module_of(Path::new(path.file_name()?)).pop());
    names.collect()
}

#[test]
fn declared_layers_name_only_layers_above_them_in_the_list() {
    for package in PACKAGES {
        let mut above = BTreeSet::from(["env"]);
        for (layer, may_use) in package.layers {
            for used in *may_use {
                assert!(
                    above.contains(used),
                    "{}: {layer} names {used} before it stands",
                    package.src
                );
            }
            assert!(above.insert(*layer), "{}: {layer} stands twice", package.src);
        }
    }
}

#[test]
fn every_path_follows_the_declared_layers() {
    let mut wrong = Vec::new();
    for package in PACKAGES {
        let src = root().join(package.src);
        let layers: BTreeMap<_, _> = package.layers.iter().copied().collect();
        let mut modules = modules_below(&src, &[]);
        modules.insert("env".to_owned());
        let undeclared = modules.iter().filter(|name| {
            !layers.contains_key(name.as_str())
                && !["env", "lib", "main", "testing"].contains(&name.as_str())
                && !code_is_empty(&src, name)
        });
        wrong.extend(undeclared.map(|name| format!("{}/{name}: declare its layer", package.src)));
        for used in all_uses(&src) {
            let (Some(from), Some(to)) = (used.from.first(), used.to.first()) else { continue };
            let Some(may_use) = layers.get(from.as_str()) else { continue };
            if from != to && modules.contains(to) && !may_use.contains(&to.as_str()) {
                let file = used.file.strip_prefix(root()).expect("below the root").display();
                wrong.push(format!("{file}:{}: {from} -> {to} points up", used.line));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that the declared layers do not allow:\n{}",
        wrong.join("\n")
    );
}

/// Whether a top module is there for tests only.
fn code_is_empty(src: &Path, name: &str) -> bool {
    let mut files = Vec::new();
    for place in [src.join(name), src.join(name).with_extension("rs")] {
        if place.exists() {
            rust_files(&place, &mut files);
        }
    }
    files.iter().all(|file| code(file).iter().all(|line| line.trim().is_empty()))
}

#[test]
fn modules_of_one_folder_form_no_circle() {
    let mut circles = Vec::new();
    for src in SOURCES {
        let src = root().join(src);
        // Folder, then module, then the modules beside it that it uses, with one place each.
        let mut arrows: BTreeMap<Vec<String>, BTreeMap<String, BTreeMap<String, String>>> =
            BTreeMap::new();
        for used in all_uses(&src) {
            let shared = used.from.iter().zip(&used.to).take_while(|(a, b)| a == b).count();
            let (Some(from), Some(to)) = (used.from.get(shared), used.to.get(shared)) else {
                continue;
            };
            if modules_below(&src, &used.from[..shared]).contains(to) {
                let file = used.file.strip_prefix(root()).expect("below the root").display();
                let place = format!("{file}:{}", used.line);
                let folder = arrows.entry(used.from[..shared].to_vec()).or_default();
                folder.entry(from.clone()).or_default().entry(to.clone()).or_insert(place);
            }
        }
        for (folder, arrows) in &arrows {
            for start in arrows.keys() {
                if let Some(circle) = circle_from(start, arrows) {
                    circles.push(format!("{}: {circle}", folder.join("::")));
                }
            }
        }
    }
    assert!(circles.is_empty(), "modules that use each other in a circle:\n{}", circles.join("\n"));
}

/// A shortest way from a module back to itself, if it is the first of its circle by name.
fn circle_from(start: &str, arrows: &BTreeMap<String, BTreeMap<String, String>>) -> Option<String> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for next in arrows.get(at).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                let mut way = vec![start, at];
                while let Some(before) = came_from.get(way[way.len() - 1]) {
                    way.push(before);
                }
                if at == start {
                    return None;
                }
                way.reverse();
                let least = way.iter().min().is_some_and(|least| *least == start);
                let arrow = |pair: &[&str]| format!("{} ({})", pair[1], arrows[pair[0]][pair[1]]);
                let text: Vec<_> = way.windows(2).map(arrow).collect();
                return least.then(|| format!("{start} -> {}", text.join(" -> ")));
            }
            if next.as_str() >= start && !came_from.contains_key(next.as_str()) {
                came_from.insert(next, at);
                queue.push_back(next);
            }
        }
    }
    None
}

/// The sources of all packages of the workspace.
const SOURCES: &[&str] = &["src", "scenarios/src", "sim/src", "sim/env/src", "sim/world/src"];

#[test]
fn nested_use_trees_are_read_with_the_line_of_each_path() {
    let text = "use crate::{\n    model::{ids::NodeId, time},\n    store,\n};\nlet x = crate::env::Env::now();";
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let tokens = tokens(&lines);
    let mut found = Vec::new();
    paths(&tokens, 1, &[], &mut found);
    let last =
        tokens.len() - tokens.iter().rev().position(|(_, t)| t == "crate").expect("is there");
    paths(&tokens, last - 1, &[], &mut found);
    let found: Vec<_> = found.iter().map(|(line, path)| (*line, path.join("::"))).collect();
    assert_eq!(
        found,
        [
            (2, "crate::model::ids::NodeId".to_owned()),
            (2, "crate::model::time".to_owned()),
            (3, "crate::store".to_owned()),
            (5, "crate::env::Env::now".to_owned()),
        ]
    );
}
