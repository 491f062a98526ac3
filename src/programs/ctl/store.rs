//! Backup and restore of the cluster's store, in its file or at its server: neither needs a master.

use std::{fs, io, path::Path, time::Duration};

use jiff::Timestamp;
use serde::Deserialize;

use super::{CtlError, in_world, say};
use crate::{
    model::rows::StoreError,
    programs::{cluster::STORE_FILE, settings::node::StorePlace},
    store::{
        postgres::{self, is_postgres, masked},
        sqlite::backup::{self, Contents, Restored},
    },
};

/// Time to wait for a store that is locked.
const BUSY: Duration = Duration::from_secs(10);

/// Writes the store to a new file, while nodes use it.
pub(super) fn back_up(file: &Path, store: Option<&str>, data_dir: &Path) -> Result<(), CtlError> {
    let place = place(store, data_dir)?;
    let store = place.to_string();
    let tell = |contents: Contents| {
        say(&format!("{}: {}, of {store}\n", file.display(), in_words(&contents)))
    };
    match place {
        StorePlace::Sqlite(path) => tell(backup::back_up(&path, file, BUSY).map_err(failed)?),
        StorePlace::Postgres(address) => in_world(None, async |env| {
            tell(postgres::backup::back_up(&env, *address, file).await.map_err(failed)?)
        }),
    }
}

/// Puts a backup in the place of the store, whose nodes are stopped.
pub(super) fn restore(file: &Path, store: Option<&str>, data_dir: &Path) -> Result<(), CtlError> {
    let place = place(store, data_dir)?;
    let store = place.to_string();
    match place {
        StorePlace::Sqlite(path) => {
            let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
            let restored = backup::restore(file, &path, now_ms, BUSY).map_err(failed)?;
            tell_restored(&store, &restored)
        }
        StorePlace::Postgres(address) => in_world(None, async |env| {
            let restored = postgres::backup::restore(&env, *address, file).await.map_err(failed)?;
            tell_restored(&store, &restored)
        }),
    }
}

fn tell_restored(store: &str, restored: &Restored) -> Result<(), CtlError> {
    let mut text = format!("restored {store}: {}\n", in_words(&restored.contents));
    if let Some(before) = &restored.replaced {
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

/// Returns the place of the store: the one that is named, or that of the cluster in the data directory.
fn place(named: Option<&str>, data_dir: &Path) -> Result<StorePlace, CtlError> {
    let usage = |why: String| CtlError::Usage(why);
    let setting = match named {
        Some(setting) => setting.to_owned(),
        None => match listed(data_dir)? {
            Some(setting) => setting,
            None => return unlisted(data_dir),
        },
    };
    // The list shows a password as `masked` does.
    if named.is_none() && is_postgres(&setting) && setting.contains(":***@") {
        return Err(usage(format!(
            "cluster.json keeps no password of {setting}: name the store with --store or \
             CHATCHAT_STORE, or give the cluster a password_file"
        )));
    }
    match StorePlace::parse(&setting).map_err(|why| usage(why.to_string()))? {
        StorePlace::Postgres(address) if address.lacks_login() => {
            Err(usage(format!("{} names no user: name that of the masters", masked(&setting))))
        }
        place => Ok(place),
    }
}

/// Returns the store of a data directory whose `cluster.json` names none: the file that lies there. One
/// that is not there is never taken for it, as the store may be a server.
fn unlisted(data_dir: &Path) -> Result<StorePlace, CtlError> {
    let file = data_dir.join(STORE_FILE);
    if file.exists() {
        return Ok(StorePlace::Sqlite(file));
    }
    let dir = data_dir.display();
    Err(CtlError::Usage(if data_dir.is_dir() {
        format!(
            "no cluster.json names a store in {dir}, and no {STORE_FILE} is there; name the store \
             with --store"
        )
    } else {
        format!("{dir} is not there; name the cluster's --data-dir, or its store with --store")
    }))
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
    use crate::{
        env::real::TempDir,
        model::ids::StoreEpoch,
        store::sqlite::{NewCluster, SqliteCore},
    };

    #[test]
    fn store_is_the_named_one_or_that_of_the_data_directory() {
        let dir = TempDir::new().expect("a directory");
        let file = |named| place(named, dir.path()).map(|place| place.to_string());
        let own = dir.path().join(STORE_FILE);
        let why = file(None).expect_err("no store");
        assert!(matches!(why, CtlError::Usage(_)), "{why}");
        fs::write(&own, []).expect("written");
        assert_eq!(file(None).ok(), Some(StorePlace::Sqlite(own).to_string()));
        assert_eq!(file(Some("sqlite:/x/y")).ok().as_deref(), Some("sqlite:/x/y"));
        let listing = |store: &str| {
            let text = format!(r#"{{"store":"{store}","nodes":[]}}"#);
            fs::write(dir.path().join("cluster.json"), text).expect("written");
        };
        listing("sqlite:/elsewhere/store.db");
        assert_eq!(file(None).ok().as_deref(), Some("sqlite:/elsewhere/store.db"));
        listing("postgres://chat@localhost/chat");
        assert_eq!(file(None).ok().as_deref(), Some("postgres://chat@localhost/chat"));
        listing(&masked("postgres://chat:s3cret@localhost/chat"));
        let why = file(None).expect_err("its password is not known").to_string();
        assert!(why.contains("--store") && why.contains("password_file"), "{why}");
        let why = file(Some("postgres://localhost/chat")).expect_err("no user").to_string();
        assert!(why.contains("no user"), "{why}");
        assert!(matches!(file(Some("x")), Err(CtlError::Usage(_))));
    }

    #[test]
    fn missing_store_and_missing_backup_are_named() {
        let dir = TempDir::new().expect("a directory");
        let to = dir.path().join("backup.db");
        let why = back_up(&to, None, dir.path()).expect_err("no store").to_string();
        assert!(why.contains(STORE_FILE) && !to.exists(), "{why}");
        let own = dir.path().join(STORE_FILE);
        let named = format!("sqlite:{}", own.display());
        let why = restore(&to, Some(&named), dir.path()).expect_err("no backup").to_string();
        assert!(why.contains("backup.db") && !own.exists(), "{why}");
        let nowhere = dir.path().join("typo");
        let why = restore(&to, None, &nowhere).expect_err("no directory").to_string();
        assert!(why.contains("--data-dir") && !nowhere.exists(), "{why}");
    }

    #[test]
    fn backup_is_not_restored_to_a_file_that_nobody_named_and_that_is_not_there() {
        let dir = TempDir::new().expect("a directory");
        let (from, backup) = (dir.path().join("from.db"), dir.path().join("backup.db"));
        let new = NewCluster { cluster: [7; 16], epoch: StoreEpoch(3), now_ms: 1 };
        drop(SqliteCore::open_file(&from, &new, BUSY).expect("a store"));
        backup::back_up(&from, &backup, BUSY).expect("written");
        // A master's, say, whose settings name a server.
        let node = dir.path().join("node");
        fs::create_dir(&node).expect("made");
        let why = restore(&backup, None, &node).expect_err("no store is known");
        assert!(matches!(&why, CtlError::Usage(why) if why.contains("cluster.json")), "{why}");
        assert!(why.to_string().contains("--store"), "{why}");
        let own = node.join(STORE_FILE);
        assert!(!own.exists(), "nothing was made");
        fs::copy(&from, &own).expect("copied");
        restore(&backup, None, &node).expect("it is the store");
    }
}
