//! Files and directories that only their owner may read.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use rustix::{
    fs::{Access, OFlags, access},
    io::Errno,
    process::geteuid,
};

/// Makes a directory and its parents, for the owner only. A directory that exists is accepted if it
/// belongs to this user and no other user may write in it: who can rename a file there can replace
/// any key.
///
/// # Errors
/// The file system's, or `PermissionDenied` with the way out; both name the directory.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", dir.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(named)?;
    let found = fs::metadata(dir).map_err(named)?;
    let refused = |why: String| named(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let (owner, user) = (found.uid(), geteuid().as_raw());
    if owner != user {
        return Err(refused(format!(
            "it belongs to user {owner}, and this is user {user}; run as its owner, or choose \
             another directory"
        )));
    }
    if found.mode() & 0o022 != 0 {
        return Err(refused(format!(
            "other users may write in it (mode {:04o}); take that from them with chmod go-w",
            found.mode() & 0o7777
        )));
    }
    Ok(())
}

/// Opens a file with these options; if it is created, only its owner may read it. A symbolic link
/// in its place is not followed: whoever planted it could choose what is overwritten or read.
///
/// # Errors
/// The file system's; for a link, one that says so.
pub fn open_private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path).map_err(
        |e| match e.raw_os_error() {
            Some(code) if code == Errno::LOOP.raw_os_error() => io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{} is a symbolic link, which is not followed", path.display()),
            ),
            _ => e,
        },
    )
}

/// Asks whether this user may read and write a file, without opening it.
///
/// # Errors
/// The file system's: `PermissionDenied` if not.
pub fn check_access(path: &Path) -> io::Result<()> {
    Ok(access(path, Access::READ_OK | Access::WRITE_OK)?)
}

/// Replaces a whole file, mode 0600, durable when it returns. A crash leaves the old file or
/// the new one, and perhaps a `.NAME.new` beside it that the next replacement removes.
///
/// # Errors
/// The file system's; the old file is untouched.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let new = dir.join(format!(".{}.new", name.to_string_lossy()));
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = open_private(OpenOptions::new().write(true).create_new(true), &new)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(e) = written.and_then(|()| fs::rename(&new, path)) {
        // A disk that is full needs the room; a failure to remove it changes nothing.
        let _ = fs::remove_file(&new);
        return Err(e);
    }
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::real::TempDir;

    #[test]
    fn directory_that_others_may_write_in_is_refused() {
        let temp = TempDir::new().expect("a directory");
        let dir = temp.path().join("data");
        make_private_dir(&dir).expect("made");
        for mode in [0o700, 0o750, 0o755] {
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).expect("set");
            make_private_dir(&dir).expect("accepted");
        }
        for mode in [0o770, 0o777, 0o1777] {
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).expect("set");
            let error = make_private_dir(&dir).expect_err("refused").to_string();
            assert!(error.contains("chmod go-w") && error.contains("data"), "{error}");
        }
    }

    #[test]
    fn planted_link_is_neither_followed_nor_in_the_way() {
        let temp = TempDir::new().expect("a directory");
        let (other, file) = (temp.path().join("other"), temp.path().join("file"));
        fs::write(&other, b"untouched").expect("written");
        symlink(&other, temp.path().join(".file.new")).expect("planted");
        replace_file(&file, b"new").expect("replaced");
        assert_eq!(fs::read(&file).expect("is there"), b"new");
        assert!(!fs::symlink_metadata(&file).expect("is there").is_symlink());
        let planted = temp.path().join("log");
        symlink(&other, &planted).expect("planted");
        let opened = open_private(OpenOptions::new().append(true).create(true), &planted);
        let error = opened.expect_err("refused").to_string();
        assert!(error.contains("symbolic link"), "{error}");
        assert_eq!(fs::read(&other).expect("is there"), b"untouched");
    }
}
