//! Store of a node or of a whole cluster, which its directory remembers.
//!
//! 1. A store is made only for a directory that never had one, and never for a worker.
//! 2. A directory that had one takes no other.

use std::time::Duration;

use super::{ProgramError, settings::node::StorePlace};
use crate::{
    env::Env,
    model::{absence::AwayReason, rows::StoreError},
    store::{
        LoginSlot, Store,
        postgres::{self, Address, ServerLimits},
        sqlite::file::{Expected, FileLimits, open_with},
    },
};

/// File that holds the id of the cluster that the directory belongs to, in hex.
const CLUSTER_FILE: &str = "cluster.id";

/// Pause between two tries to learn the cluster from a store that is away.
const RETRY: Duration = Duration::from_secs(1);

/// Rights of an opener over a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreRights {
    /// May make a new one for a directory that never had one, and upgrade it.
    Create,
    /// May upgrade it.
    Upgrade,
    /// May use it as it is.
    Use,
}

/// Opens the store for the directory of `env`, and remembers its cluster there. `login` is the place of
/// a login that masters give.
///
/// # Errors
/// [`ProgramError::Usage`] with the way out.
pub(super) async fn open_store(
    env: &Env,
    place: &StorePlace,
    login: Option<LoginSlot>,
    timeout: Duration,
    rights: StoreRights,
) -> Result<Store, ProgramError> {
    let known = env
        .disk()
        .read(CLUSTER_FILE)
        .map_err(|e| ProgramError::Usage(format!("{CLUSTER_FILE} in the data directory: {e}")))?
        .and_then(|text| parse(&text));
    let expected = match known {
        Some(cluster) => Expected::Cluster(cluster),
        None if rights == StoreRights::Create => Expected::AnyOrNew,
        None => Expected::Existing,
    };
    let opened = match place {
        StorePlace::Sqlite(path) => {
            open_with(env, path, FileLimits { expected, ..FileLimits::new(timeout) })
        }
        StorePlace::Postgres(address) => {
            let may_upgrade = rights != StoreRights::Use;
            let limits = ServerLimits { expected, may_upgrade, ..ServerLimits::new(timeout) };
            postgres::open_with(env, Address::clone(address), login, limits).await
        }
    };
    let store = opened.map_err(|error| {
        let reason = error.away_reason();
        let why = match error {
            StoreError::Refused { why }
            | StoreError::Broken { why }
            | StoreError::Away { why, .. } => why,
            other => other.to_string(),
        };
        let name = match place {
            StorePlace::Sqlite(path) => path.display().to_string(),
            StorePlace::Postgres(address) => address.to_string(),
        };
        ProgramError::Usage(format!(
            "the store {name}: {why}; {}",
            way_out(place, expected, reason)
        ))
    })?;
    if known.is_none() {
        env.spawn("remember-store", remember(env.clone(), store.clone()));
    }
    Ok(store)
}

/// Returns what an operator can do about a store that is refused.
fn way_out(place: &StorePlace, expected: Expected, reason: Option<AwayReason>) -> &'static str {
    match (place, expected) {
        (StorePlace::Sqlite(_), _) if reason == Some(AwayReason::ReadOnly) => {
            "let this user write the file, what lies beside it and their directory, or name the right \
             file with --store sqlite:PATH"
        }
        (StorePlace::Sqlite(_), _) if reason == Some(AwayReason::Full) => {
            "make room on its disk, or name the right file with --store sqlite:PATH"
        }
        (StorePlace::Postgres(_), Expected::Existing) => {
            "name the database that the masters use with --store postgres://..; chatchat-cluster or \
             the first start of a master makes the store in it"
        }
        (StorePlace::Postgres(_), _) => {
            "mend that, or name another database with --store postgres://.."
        }
        (StorePlace::Sqlite(path), _) if path.exists() => {
            "if it is the wrong file, name the right one with --store sqlite:PATH; if it is damaged, \
             restore it from a backup"
        }
        (_, Expected::Cluster(_)) => {
            "put the file back, name it with --store sqlite:PATH, or begin anew with another \
             --data-dir"
        }
        (_, Expected::Existing) => {
            "name the file that the masters use with --store sqlite:PATH; chatchat-cluster or the \
             first start of a master makes one"
        }
        (_, Expected::AnyOrNew) => "name another file with --store sqlite:PATH",
    }
}

async fn remember(env: Env, store: Store) {
    let cluster = loop {
        match store.cluster().await {
            Ok(row) => break row.cluster,
            Err(_) => env.sleep(RETRY).await,
        }
    };
    let text = hex::encode(cluster);
    let disk = env.disk();
    let kept = env.compute(move || disk.write_atomic(CLUSTER_FILE, text.as_bytes())).await;
    if let Ok(Err(error)) = kept {
        tracing::warn!(%error, file = CLUSTER_FILE, "not written: the next start takes any store");
    }
}

fn parse(text: &[u8]) -> Option<[u8; 16]> {
    let mut cluster = [0; 16];
    hex::decode_to_slice(text.trim_ascii(), &mut cluster).ok()?;
    Some(cluster)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::env::real::{RealWorld, TempDir};

    const LIMIT: Duration = Duration::from_secs(30);

    fn env(dir: &Path) -> Env {
        Env::new(RealWorld::new(dir).expect("a directory"))
    }

    /// Opens it, and waits until its cluster is remembered.
    async fn opened(env: &Env, path: &Path, may_create: bool) -> Result<(), ProgramError> {
        let rights = if may_create { StoreRights::Create } else { StoreRights::Use };
        let _store =
            open_store(env, &StorePlace::Sqlite(path.to_owned()), None, LIMIT, rights).await?;
        let kept = async {
            while env.disk().read(CLUSTER_FILE).expect("readable").is_none() {
                env.sleep(Duration::from_millis(5)).await;
            }
        };
        env.timeout(LIMIT, kept).await.expect("remembered");
        Ok(())
    }

    #[tokio::test]
    async fn store_is_made_once_for_a_directory_that_had_none() {
        let temp = TempDir::new().expect("a directory");
        let (env, path) = (env(&temp.path().join("node")), temp.path().join("store.db"));
        let missing = opened(&env, &path, false).await.expect_err("a worker makes none");
        assert!(missing.to_string().contains("--store"), "{missing}");
        assert!(!path.exists());
        opened(&env, &path, true).await.expect("made");
        opened(&env, &path, false).await.expect("found again");
        let moved = temp.path().join("moved.db");
        fs::rename(&path, &moved).expect("moved");
        let gone = opened(&env, &path, true).await.expect_err("it had one");
        assert!(gone.to_string().contains("put the file back"), "{gone}");
        assert!(!path.exists());
        let other = self::env(&temp.path().join("other"));
        let theirs = temp.path().join("theirs.db");
        opened(&other, &theirs, true).await.expect("another cluster");
        let refused = opened(&env, &theirs, true).await.expect_err("of another cluster");
        assert!(matches!(&refused, ProgramError::Usage(why) if why.contains("cluster")));
    }
}
