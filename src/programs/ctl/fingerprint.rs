//! Fingerprints of identity files, for an operator to pin or to compare. It needs no cluster.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{CtlError, render, say};
use crate::{
    comm::key_source::IDENTITY_FILE,
    crypto::{
        keys::{Identity, KeyBounds, KeyPair},
        secret::SecretBytes,
    },
};

/// Prints a line for each file, or for each node below the data directory.
pub(super) fn print(files: &[PathBuf], data_dir: &Path) -> Result<(), CtlError> {
    let found = if files.is_empty() { below(data_dir)? } else { files.to_vec() };
    let rows: Result<Vec<_>, _> = found.iter().map(|path| row(path)).collect();
    say(&render::fingerprints(rows?))
}

/// Returns the identity files of a data directory and of the directories of nodes in it.
fn below(dir: &Path) -> Result<Vec<PathBuf>, CtlError> {
    let read = |why| CtlError::File { what: dir.display().to_string(), why };
    let mut found = vec![dir.join(IDENTITY_FILE)];
    for entry in fs::read_dir(dir).map_err(read)? {
        found.push(entry.map_err(read)?.path().join(IDENTITY_FILE));
    }
    found.retain(|path| path.is_file());
    found.sort();
    if found.is_empty() {
        let why = format!("{} and what is below it have no {IDENTITY_FILE}", dir.display());
        return Err(CtlError::Failed(why));
    }
    Ok(found)
}

fn row(path: &Path) -> Result<Vec<String>, CtlError> {
    let path = if path.is_dir() { path.join(IDENTITY_FILE) } else { path.to_owned() };
    let what = path.display().to_string();
    let der = fs::read(&path).map_err(|why| CtlError::File { what: what.clone(), why })?;
    let pair = KeyPair::from_pkcs8_der(&SecretBytes::new(der), KeyBounds::STANDARD);
    let identity = Identity::new(pair.map_err(|why| CtlError::Failed(format!("{what}: {why}")))?);
    Ok(vec![what, identity.node().to_string(), identity.fingerprint().to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::real::TempDir;

    #[test]
    fn directory_without_an_identity_and_a_file_that_is_none_are_refused_by_name() {
        let dir = TempDir::new().unwrap();
        let why = print(&[], dir.path()).expect_err("nothing there").to_string();
        assert!(why.contains("have no identity.key"), "{why}");
        let file = dir.path().join("w1").join(IDENTITY_FILE);
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(&file, b"no key").unwrap();
        let why = print(&[], dir.path()).expect_err("no key").to_string();
        assert!(why.contains("w1"), "{why}");
    }
}
