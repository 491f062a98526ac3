//! Redb database whose panics are errors. Damage that no check notices makes redb panic, also when
//! it is closed, and a file is no reason for a node to die.

use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::Database;

use super::{ReplicaError, read::Reader};

/// Open redb database.
#[derive(Debug)]
pub(super) struct Guarded(Option<Database>);

impl Guarded {
    pub(super) fn new(db: Database) -> Self {
        Self(Some(db))
    }

    /// Runs work on the database.
    pub(super) fn run<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, ReplicaError>,
    ) -> Result<T, ReplicaError> {
        let Some(db) = &self.0 else { return Err(panicked()) };
        caught(|| work(db))
    }

    /// Reads one snapshot.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, ReplicaError>,
    ) -> Result<T, ReplicaError> {
        self.run(|db| read(&Reader::begin(db)?))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let db = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!("redb panicked while the node database was closed");
        }
    }
}

/// Runs work of redb; a panic is [`ReplicaError::Damaged`].
pub(super) fn caught<T, E: From<ReplicaError>>(
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked().into()))
}

fn panicked() -> ReplicaError {
    ReplicaError::Damaged { why: "redb panicked".to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand_chacha::{
        ChaCha20Rng,
        rand_core::{Rng, SeedableRng},
    };

    use crate::{
        env::Disk,
        model::{
            ids::{Author, Post, PostId, Seq, StoreEpoch, UserId},
            message::Update,
            rows::Range,
        },
        replica::{Check, OpenedAs, Replica, ReplicaLimits},
        testing::memory_disk::MemDisk,
    };

    fn posts(seqs: std::ops::RangeInclusive<u64>) -> Update {
        let board: crate::model::ids::BoardName = "lobby".parse().expect("a board's name");
        let author = Author { id: UserId([3; 16]), name: "Ada".parse().expect("a name") };
        let post = |seq: u64| Post {
            id: PostId((u128::from(seq)).to_be_bytes()),
            board: board.clone(),
            seq: Seq(seq),
            author: author.clone(),
            text: "x".repeat(300).parse().expect("a text"),
            posted_at_ms: seq,
        };
        Update::Posts {
            epoch: StoreEpoch(7),
            board: board.clone(),
            posts: seqs.map(post).collect(),
            as_of_ms: 1,
        }
    }

    #[test]
    fn damaged_file_is_an_error_and_then_a_new_database_but_never_a_panic() {
        let board = "lobby".parse().expect("a board's name");
        let limits = ReplicaLimits { cache_bytes: 0, ..ReplicaLimits::default() };
        let (mut failed, mut replaced) = (0, 0);
        for seed in 0..200 {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let disk = Arc::new(MemDisk::default());
            let shared = Arc::clone(&disk) as Arc<dyn Disk>;
            let open = |check| Replica::open(&shared, limits, check, |_| ()).expect("opens");
            let (replica, _) = open(Check::Whole);
            for group in 0..4 {
                replica.apply(&[posts(1 + group * 40..=(group + 1) * 40)]).expect("applied");
            }
            replica.persist().expect("saved");
            for _ in 0..1 + rng.next_u32() % 200 {
                let file = &mut disk.file().live;
                let at = rng.next_u32() as usize % file.len();
                file[at] ^= 1 << (rng.next_u32() % 8);
            }
            let results = [
                replica.read(&board, Range::Last, 200).map(|_| ()),
                replica.apply(&[posts(161..=200)]).map(|_| ()),
                replica.members().map(|_| ()),
                replica.apply(&[posts(201..=300)]).map(|_| ()),
                replica.persist(),
            ];
            failed += usize::from(results.iter().any(|result| result.is_err()));
            drop(replica);
            let (replica, found) = open(Check::Whole);
            replaced += usize::from(matches!(found, OpenedAs::Unreadable { .. }));
            replica.read(&board, Range::Last, 200).expect("is whole again");
            replica.apply(&[posts(1..=300)]).expect("is filled again");
        }
        assert!(failed > 150 && replaced > 150, "{failed} failed, {replaced} replaced");
    }
}
