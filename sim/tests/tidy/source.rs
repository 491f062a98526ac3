//! The tree's Rust files as text: where they are, their code without comments and tests, and their tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

pub(crate) fn rust_files(below: &Path, into: &mut Vec<PathBuf>) {
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

/// A file's tests without whole lines of comments: those at its end, and those in its folder.
pub(crate) fn tests(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("readable");
    let lines = text.lines().zip(code(path)).filter(|(_, code)| code.trim().is_empty());
    let lines = lines.map(|(line, _)| line).filter(|line| !line.trim_start().starts_with("//"));
    let beside = fs::read_to_string(path.with_extension("").join("tests.rs")).unwrap_or_default();
    lines.chain(beside.lines()).collect::<Vec<_>>().join("\n")
}

/// A file's code without comments and without its tests, line by line.
pub(crate) fn code(path: &Path) -> Vec<String> {
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
