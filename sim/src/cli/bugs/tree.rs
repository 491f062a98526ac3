//! Copy of the source tree, into which bugs are planted.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use chatchat_sim::bugs::{Bug, root};

use super::switch::{switched, with_asked};

/// Parts of the tree that a build needs.
const PARTS: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    ".cargo",
    "src",
    "bin",
    "benches",
    "examples",
    "scenarios",
    "sim",
    "snapshots",
    "tests",
];

/// Root of the library in which bugs are planted.
const LIBRARY: &str = "src/lib.rs";

/// The copy, and the folder that holds it.
pub(super) struct Tree {
    folder: PathBuf,
}

impl Tree {
    /// Brings the copy in a folder up to date.
    ///
    /// # Errors
    /// A sentence for the person who asked.
    pub(super) fn at(folder: &Path) -> Result<Self, String> {
        let it = Self { folder: folder.to_owned() };
        for part in PARTS {
            copy(&root().join(part), &it.tree().join(part))
                .map_err(|why| format!("{part} cannot be copied: {why}"))?;
        }
        Ok(it)
    }

    fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// Returns the folder of the programs that were built.
    pub(super) fn programs(&self) -> PathBuf {
        self.folder.join("programs")
    }

    /// Writes bugs into the copy, each behind a switch. Answers those that cannot stand behind one.
    ///
    /// # Errors
    /// A sentence for the person who asked.
    pub(super) fn plant_switched(&self, bugs: &[Bug]) -> Result<Vec<Bug>, String> {
        let mut by_file: BTreeMap<&Path, Vec<&Bug>> = BTreeMap::new();
        for bug in bugs {
            by_file.entry(&bug.file).or_default().push(bug);
        }
        let mut left_out = Vec::new();
        for (file, bugs) in by_file {
            let told = |why: io::Error| format!("{}: {why}", file.display());
            let text = fs::read_to_string(root().join(file)).map_err(told)?;
            let made = switched(&text, &bugs)?;
            fs::write(self.tree().join(file), made.text).map_err(told)?;
            left_out.extend(made.left_out);
        }
        let told = |why: io::Error| format!("{LIBRARY}: {why}");
        let library = fs::read_to_string(root().join(LIBRARY)).map_err(told)?;
        fs::write(self.tree().join(LIBRARY), with_asked(&library)).map_err(told)?;
        Ok(left_out)
    }

    /// Writes a bug into the copy.
    pub(super) fn plant(&self, bug: &Bug) -> Result<(), String> {
        let told = |why: io::Error| format!("{}: {why}", bug.file.display());
        let text = fs::read_to_string(root().join(&bug.file)).map_err(told)?;
        let planted = bug.apply(&text).map_err(|why| why.to_string())?;
        fs::write(self.tree().join(&bug.file), planted).map_err(told)
    }

    /// Takes a bug out again: cargo goes by the times of files, so the file is written anew.
    pub(super) fn restore(&self, bug: &Bug) -> Result<(), String> {
        let told = |why: io::Error| format!("{}: {why}", bug.file.display());
        let text = fs::read(root().join(&bug.file)).map_err(told)?;
        fs::write(self.tree().join(&bug.file), text).map_err(told)
    }

    /// Builds the copy. Answers the program under a name of its own.
    ///
    /// # Errors
    /// The end of the compiler's report.
    pub(super) fn build(&self, name: &str) -> Result<PathBuf, String> {
        let target = self.folder.join("target");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--quiet", "--profile", "sim", "-p", "chatchat-sim"])
            .args(["--bin", "chatchat-sim"])
            .current_dir(self.tree())
            .env("CARGO_TARGET_DIR", &target)
            .stdin(Stdio::null())
            .output()
            .map_err(|why| format!("cargo cannot be started: {why}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error")).collect();
            return Err(format!("it does not build: {}", errors.join("; ")));
        }
        let programs = self.programs();
        let told = |why: io::Error| format!("{}: {why}", programs.display());
        fs::create_dir_all(&programs).map_err(told)?;
        let program = programs.join(name);
        fs::copy(target.join("sim/chatchat-sim"), &program).map_err(told)?;
        Ok(program)
    }
}

/// Copies a file or folder. A file that is the same already keeps its time; one that is gone from
/// the source goes from the copy.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(to)? {
            let stale = entry?;
            let path = stale.path();
            if !from.join(stale.file_name()).exists() {
                if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
        }
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            if name != "node_modules" {
                copy(&from.join(&name), &to.join(&name))?;
            }
        }
        return Ok(());
    }
    let text = match fs::read(from) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    if fs::read(to).is_ok_and(|known| known == text) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(to, text)
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    #[test]
    fn copy_follows_its_source_and_leaves_equal_files_alone() {
        let folder = env::temp_dir().join(format!("chatchat-sim-tree-{}", process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        let write = |path: &str, text: &str| {
            let path = from.join(path);
            fs::create_dir_all(path.parent().expect("below")).expect("a folder");
            fs::write(path, text).expect("written");
        };
        write("a/same", "1");
        write("a/gone", "2");
        copy(&from, &to).expect("copied");
        let time = |path: &str| fs::metadata(to.join(path)).and_then(|it| it.modified());
        let before = time("a/same").expect("there");
        fs::remove_file(from.join("a/gone")).expect("removed");
        write("b", "3");
        copy(&from, &to).expect("copied");
        assert_eq!(time("a/same").expect("there"), before);
        assert!(!to.join("a/gone").exists());
        assert_eq!(fs::read(to.join("b")).expect("there"), b"3");
        fs::remove_dir_all(folder).expect("it is ours");
    }
}
