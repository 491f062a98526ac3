//! Backup and restore of the cluster's store, in its file: neither needs a master.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::Deserialize;

use super::{CtlError, say};
use crate::{
    model::rows::StoreError,
    programs::{cluster::STORE_FILE, settings::node::StorePlace},
    store::{
        postgres::is_postgres,
        sqlite::backup::{self, Contents},
    },
};

/// Time to wait for a store that is locked.
const BUSY: Duration = Duration::from_secs(10);

/// Writes the store to a new file, while nodes use it.
pub(super) fn back_up(file: &Path, store: Option<&str>, data_dir: &Path) -> Result<(), CtlError> {
    let path = store_file(store, data_dir, "pg_dump")?;
    let contents = backup::back_up(&path, file, BUSY).map_err(failed)?;
    say(&format!("{}: {}\n", file.display(), in_words(&contents)))
}

/// Puts a backup in the place of the store, whose nodes are stopped.
pub(super) fn restore(file: &Path, store: Option<&str>, data_dir: &Path) -> Result<(), CtlError> {
    let path = store_file(store, data_dir, "pg_restore")?;
    let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    let restored = backup::restore(file, &path, now_ms, BUSY).map_err(failed)?;
    let mut text = format!("restored {}: {}\n", path.display(), in_words(&restored.contents));
    if let Some(before) = restored.replaced {
        text += &format!("the store before is kept as {}\n", before.display());
    }
    if restored.lost_deny_list {
        text += "the store before was unreadable: expel again who was expelled since the backup; \
                 sessions that were closed since are open again\n";
    }
    say(&(text + "start the cluster: pages read their boards anew\n"))
}

fn in_words(contents: &Contents) -> String {
    let Contents { boards, posts, epoch, bytes } = contents;
    let some =
        |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let (boards, posts) = (some(*boards, "board"), some(*posts, "post"));
    format!("{boards}, {posts}, epoch {}, {} KiB", epoch.0, bytes.div_ceil(1024))
}

fn failed(why: StoreError) -> CtlError {
    CtlError::Failed(match why {
        StoreError::Refused { why } | StoreError::Away { why, .. } | StoreError::Broken { why } => {
            why
        }
        other => other.to_string(),
    })
}

/// Returns the store's file: the one that is named, or that of the cluster in the data directory.
fn store_file(named: Option<&str>, data_dir: &Path, tool: &str) -> Result<PathBuf, CtlError> {
    let usage = |why: String| CtlError::Usage(why);
    let setting = match named {
        Some(setting) => setting.to_owned(),
        None => match listed(data_dir)? {
            Some(setting) => setting,
            None if data_dir.is_dir() => return Ok(data_dir.join(STORE_FILE)),
            None => {
                return Err(usage(format!(
                    "{} is not there; name the cluster's --data-dir, or its store with --store",
                    data_dir.display()
                )));
            }
        },
    };
    let elsewhere = || {
        usage(format!("the store is in PostgreSQL: use its own {tool}; docs/postgres.md says how"))
    };
    // What cluster.json says of servers is not whole: it keeps no password.
    if is_postgres(&setting) {
        return Err(elsewhere());
    }
    match StorePlace::parse(&setting).map_err(|why| usage(why.to_string()))? {
        StorePlace::Sqlite(path) => Ok(path),
        StorePlace::Postgres(_) => Err(elsewhere()),
    }
}

/// Returns the store that `cluster.json` names; `None` if there is no such file, or no store in it.
fn listed(data_dir: &Path) -> Result<Option<String>, CtlError> {
    #[derive(Deserialize)]
    struct Listing {
        store: Option<String>,
    }
    let path = data_dir.join("cluster.json");
    let text = match fs::read_to_string(&path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|why| CtlError::File { what: path.display().to_string(), why })?,
    };
    let listing: Listing = serde_json::from_str(&text)
        .map_err(|why| CtlError::Failed(format!("{}: {why}", path.display())))?;
    Ok(listing.store)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::real::TempDir;

    #[test]
    fn store_is_the_named_one_or_that_of_the_data_directory() {
        let dir = TempDir::new().expect("a directory");
        let file = |named| store_file(named, dir.path(), "pg_dump");
        assert_eq!(file(None).ok(), Some(dir.path().join(STORE_FILE)));
        assert_eq!(file(Some("sqlite:/x/y")).ok(), Some("/x/y".into()));
        let listing = |store: &str| {
            let text = format!(r#"{{"store":"{store}","nodes":[]}}"#);
            fs::write(dir.path().join("cluster.json"), text).expect("written");
        };
        listing("sqlite:/elsewhere/store.db");
        assert_eq!(file(None).ok(), Some("/elsewhere/store.db".into()));
        listing("postgres://chat@db/chat");
        let why = file(None).expect_err("no file").to_string();
        assert!(why.contains("pg_dump") && why.contains("docs/postgres.md"), "{why}");
        assert!(matches!(file(Some("x")), Err(CtlError::Usage(_))));
    }

    #[test]
    fn missing_store_and_missing_backup_are_named() {
        let dir = TempDir::new().expect("a directory");
        let to = dir.path().join("backup.db");
        let why = back_up(&to, None, dir.path()).expect_err("no store").to_string();
        assert!(why.contains(STORE_FILE) && !to.exists(), "{why}");
        let why = restore(&to, None, dir.path()).expect_err("no backup").to_string();
        assert!(why.contains("backup.db") && !dir.path().join(STORE_FILE).exists(), "{why}");
        let nowhere = dir.path().join("typo");
        let why = restore(&to, None, &nowhere).expect_err("no directory").to_string();
        assert!(why.contains("--data-dir") && !nowhere.exists(), "{why}");
    }
}
