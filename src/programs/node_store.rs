//! Store of a node or of a whole cluster, which its directory remembers.
//!
//! 1. A store is made only for a directory that never had one, and never for a worker.
//! 2. A directory that had one takes no other.

use std::{path::Path, time::Duration};

use super::ProgramError;
use crate::{
    env::Env,
    model::rows::StoreError,
    store::{
        Store,
        sqlite::file::{Expected, FileLimits, open_with},
    },
};

/// File that holds the id of the cluster that the directory belongs to, in hex.
const CLUSTER_FILE: &str = "cluster.id";

/// Pause between two tries to learn the cluster from a store that is away.
const RETRY: Duration = Duration::from_secs(1);

/// Opens the store at `path` for the directory of `env`, and remembers its cluster there.
/// `may_create` says whether a directory that had no store may get a new one.
///
/// # Errors
/// [`ProgramError::Usage`] with the way out.
pub(super) fn open_store(
    env: &Env,
    path: &Path,
    timeout: Duration,
    may_create: bool,
) -> Result<Store, ProgramError> {
    let known = env
        .disk()
        .read(CLUSTER_FILE)
        .map_err(|e| ProgramError::Usage(format!("{CLUSTER_FILE} in the data directory: {e}")))?
        .and_then(|text| parse(&text));
    let expected = match known {
        Some(cluster) => Expected::Cluster(cluster),
        None if may_create => Expected::AnyOrNew,
        None => Expected::Existing,
    };
    let limits = FileLimits { expected, ..FileLimits::new(timeout) };
    let store = open_with(env, path, limits).map_err(|error| {
        let why = match error {
            StoreError::Refused { why } | StoreError::Broken { why } => why,
            other => other.to_string(),
        };
        let way_out = match (path.exists(), expected) {
            (true, _) => "name the right file with --store sqlite:PATH, or restore this one",
            (false, Expected::Cluster(_)) => {
                "put the file back, name it with --store sqlite:PATH, or begin anew with another \
                 --data-dir"
            }
            (false, Expected::Existing) => {
                "name the file that the masters use with --store sqlite:PATH; chatchat-cluster or \
                 the first start of a master makes one"
            }
            (false, Expected::AnyOrNew) => "name another file with --store sqlite:PATH",
        };
        ProgramError::Usage(format!("the store {}: {why}; {way_out}", path.display()))
    })?;
    if known.is_none() {
        env.spawn("remember-store", remember(env.clone(), store.clone()));
    }
    Ok(store)
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
    use std::fs;

    use super::*;
    use crate::env::real::{RealWorld, TempDir};

    const LIMIT: Duration = Duration::from_secs(30);

    fn env(dir: &Path) -> Env {
        Env::new(RealWorld::new(dir).expect("a directory"))
    }

    /// Opens it, and waits until its cluster is remembered.
    async fn opened(env: &Env, path: &Path, may_create: bool) -> Result<(), ProgramError> {
        let _store = open_store(env, path, LIMIT, may_create)?;
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
