//! Planted bugs: small patches to the product, each a mistake that a careful person could make.
//!
//! A patch stands in `sim/bugs/NAME.patch`. Its first line names the property that it breaks, such
//! as `property: G8`, the next one says what is wrong, then follows a diff of one file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use chatchat_scenarios::property::Property;
use thiserror::Error;

/// Planted bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bug {
    /// Name of its file, without `.patch`.
    pub name: String,
    /// Property that it breaks.
    pub property: Property,
    /// Mistake in a sentence.
    pub about: String,
    /// File that it changes, below the root of the tree.
    pub file: PathBuf,
    /// Diff of that file.
    pub diff: String,
}

/// Error of a planted bug that cannot be used.
#[derive(Debug, Error)]
pub enum BugError {
    /// The file cannot be read.
    #[error("{path}: {why}")]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        why: io::Error,
    },
    /// The file does not have the form that the module describes.
    #[error("{name}: {why}")]
    Malformed {
        /// Name of the bug.
        name: String,
        /// Deviation from the form.
        why: String,
    },
    /// The code is not any more what the patch was made for.
    #[error("{name} does not apply to {}: {why}", file.display())]
    Outdated {
        /// Name of the bug.
        name: String,
        /// File that it should change.
        file: PathBuf,
        /// Reason.
        why: String,
    },
}

/// Returns the root of the tree that this program was built from.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

impl Bug {
    /// Reads all planted bugs of the tree, in the order of their names.
    ///
    /// # Errors
    /// Any [`BugError`] of reading.
    pub fn all() -> Result<Vec<Self>, BugError> {
        let folder = root().join("sim/bugs");
        let unreadable = |why| BugError::Unreadable { path: folder.clone(), why };
        let mut bugs = Vec::new();
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_none_or(|extension| extension != "patch") {
                continue;
            }
            let text = fs::read_to_string(&path)
                .map_err(|why| BugError::Unreadable { path: path.clone(), why })?;
            let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            bugs.push(Self::parse(&name.unwrap_or_default(), &text)?);
        }
        bugs.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(bugs)
    }

    /// Reads a bug from the text of its file.
    ///
    /// # Errors
    /// [`BugError::Malformed`].
    pub fn parse(name: &str, text: &str) -> Result<Self, BugError> {
        let wrong = |why: &str| BugError::Malformed { name: name.to_owned(), why: why.to_owned() };
        let (head, diff) = text
            .find("\n--- a/")
            .map(|at| text.split_at(at + 1))
            .ok_or_else(|| wrong("there is no diff"))?;
        let mut lines = head.lines();
        let property = lines.next().and_then(|line| line.strip_prefix("property: "));
        let property = property.ok_or_else(|| wrong("the first line is `property: G..`"))?;
        let property = property.trim().parse().map_err(|why: String| wrong(&why))?;
        let about = lines.next().map_or("", str::trim);
        if about.is_empty() {
            return Err(wrong("the second line says what is wrong"));
        }
        let file = diff.lines().next().and_then(|line| line.strip_prefix("--- a/"));
        let file = file.ok_or_else(|| wrong("the diff names no file"))?;
        if diff.lines().filter(|line| line.starts_with("--- a/")).count() > 1 {
            return Err(wrong("one patch changes one file"));
        }
        Ok(Self {
            name: name.to_owned(),
            property,
            about: about.to_owned(),
            file: PathBuf::from(file.trim()),
            diff: diff.to_owned(),
        })
    }

    /// Returns the text of its file with the bug in it.
    ///
    /// # Errors
    /// [`BugError::Outdated`] when the text is not what the patch was made for.
    pub fn apply(&self, text: &str) -> Result<String, BugError> {
        let outdated = |why: String| BugError::Outdated {
            name: self.name.clone(),
            file: self.file.clone(),
            why,
        };
        let patch = diffy::Patch::from_str(&self.diff).map_err(|why| outdated(why.to_string()))?;
        diffy::apply(text, &patch).map_err(|why| outdated(why.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_planted_bug_applies_to_the_tree_and_changes_it() {
        let bugs = Bug::all().unwrap_or_else(|why| panic!("{why}"));
        assert!(bugs.len() >= 40, "{} bugs", bugs.len());
        for bug in &bugs {
            let text = fs::read_to_string(root().join(&bug.file));
            let text = text.unwrap_or_else(|why| panic!("{}: {why}", bug.file.display()));
            let planted = bug.apply(&text).unwrap_or_else(|why| panic!("{why}"));
            assert_ne!(planted, text, "{} changes nothing", bug.name);
        }
        let layers: BTreeSet<_> = bugs.iter().filter_map(|bug| bug.file.iter().nth(1)).collect();
        for layer in ["protocol", "node", "store", "replica", "crypto", "comm", "http", "client"] {
            assert!(layers.contains(std::ffi::OsStr::new(layer)), "none is in {layer}");
        }
    }

    #[test]
    fn patches_that_take_defences_out_apply_to_the_tree() {
        for name in ["switches.patch", "markup.patch"] {
            let patch = fs::read_to_string(root().join("tests/defences").join(name));
            let patch = patch.unwrap_or_else(|why| panic!("{name}: {why}"));
            let diffs: Vec<_> = patch.split("diff --git ").skip(1).collect();
            assert!(!diffs.is_empty(), "{name} changes nothing");
            for diff in diffs {
                let (_, diff) = diff.split_once("--- a/").expect("a diff of a file");
                let file = diff.lines().next().expect("its name");
                let text = fs::read_to_string(root().join(file));
                let text = text.unwrap_or_else(|why| panic!("{name}: {file}: {why}"));
                let diff = format!("--- a/{diff}");
                let patch = diffy::Patch::from_str(&diff);
                let patch = patch.unwrap_or_else(|why| panic!("{name}: {file}: {why}"));
                diffy::apply(&text, &patch).unwrap_or_else(|why| panic!("{name}: {file}: {why}"));
            }
        }
    }

    #[test]
    fn patch_of_a_text_that_changed_is_refused() {
        let text = "property: G1\nA test.\n\n--- a/src/x.rs\n+++ b/src/x.rs\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n";
        let bug = Bug::parse("test", text).expect("well-formed");
        assert_eq!(bug.apply("a\nb\n").expect("it applies"), "a\nc\n");
        assert!(matches!(bug.apply("a\nx\n"), Err(BugError::Outdated { .. })));
        for (wrong, says) in [
            ("property: G99\nA test.\n\n--- a/x\n", "G99"),
            ("A test.\n\n--- a/x\n", "property"),
            ("property: G1\n\n--- a/x\n", "second line"),
            ("property: G1\nA test.\n", "no diff"),
        ] {
            let refused = Bug::parse("test", wrong).expect_err(wrong).to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
