//! Owner of what is made for a store: that of the store before, whoever makes it. Nodes open no file of
//! another user.

use std::{
    fs::{File, metadata},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, fchown},
    path::Path,
};

/// Id of the user who may give files away.
const ROOT: u32 = 0;

/// User and group that the files of a store belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    user: u32,
    group: u32,
    /// Whether they are those of the directory, as no store lies in it.
    is_of_dir: bool,
}

impl Owner {
    /// Returns the owner of the store's file at `path`; if there is none, that of its directory.
    pub(super) fn of_store(path: &Path) -> io::Result<Self> {
        let (meta, is_of_dir) = match metadata(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => (metadata(dir_of(path))?, true),
            found => (found?, false),
        };
        Ok(Self { user: meta.uid(), group: meta.gid(), is_of_dir })
    }

    /// Takes over a file that this process has made, with the mode 0600.
    ///
    /// # Errors
    /// The system's, with the way out; the file belongs to whom it did.
    pub(super) fn take(self, file: &File) -> io::Result<()> {
        let made = file.metadata()?;
        let is_own = (made.uid(), made.gid()) == (self.user, self.group);
        // Others than root make a store for themselves, wherever it lies, as their nodes would.
        if is_own || (self.is_of_dir && made.uid() != ROOT) {
            return Ok(());
        }
        fchown(file, Some(self.user), Some(self.group)).or_else(|error| {
            // By its mode the group may do nothing with it.
            if made.uid() == self.user {
                return Ok(());
            }
            let why = format!(
                "what is made for it cannot be given to its owner, user {}: {error}; run this as that \
                 user",
                self.user
            );
            Err(io::Error::new(error.kind(), why))
        })
    }
}

/// Returns the directory that the file of this name lies in.
pub(super) fn dir_of(name: &Path) -> &Path {
    let dir = name.parent().filter(|dir| !dir.as_os_str().is_empty());
    dir.unwrap_or_else(|| Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::real::TempDir;

    const OTHER: u32 = 65534;

    #[test]
    fn file_is_given_to_another_user_by_root_alone_and_the_others_are_told() {
        let dir = TempDir::new().expect("a directory");
        let make = |name| File::create(dir.path().join(name)).expect("made");
        let user = |file: &File| file.metadata().expect("there").uid();
        let (store, lone, grouped) = (make("store"), make("lone"), make("grouped"));
        let me = user(&store);
        assert_ne!(me, OTHER, "another user is needed");
        let other = Owner { user: OTHER, group: OTHER, is_of_dir: false };
        let given = other.take(&store);
        Owner { is_of_dir: true, ..other }.take(&lone).expect("given, or one's own");
        if me == ROOT {
            given.expect("given");
            assert_eq!((user(&store), user(&lone)), (OTHER, OTHER));
        } else {
            let why = given.expect_err("refused").to_string();
            assert!(why.contains("user 65534") && why.contains("run this as"), "{why}");
            assert_eq!((user(&store), user(&lone)), (me, me));
        }
        Owner { user: me, ..other }.take(&grouped).expect("the group does not matter");
        assert_eq!(user(&grouped), me);
    }

    #[test]
    fn owner_is_that_of_the_store_or_else_of_its_directory() {
        let dir = TempDir::new().expect("a directory");
        let path = dir.path().join("store.db");
        let meta = metadata(dir.path()).expect("there");
        let of_dir = Owner { user: meta.uid(), group: meta.gid(), is_of_dir: true };
        assert_eq!(Owner::of_store(&path).expect("found"), of_dir);
        let meta = File::create(&path).and_then(|file| file.metadata()).expect("made");
        let of_file = Owner { user: meta.uid(), group: meta.gid(), is_of_dir: false };
        assert_eq!(Owner::of_store(&path).expect("found"), of_file);
        Owner::of_store(&path.join("x/store.db")).expect_err("no directory");
    }
}
