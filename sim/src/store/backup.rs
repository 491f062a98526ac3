//! Backup and restore of the store, by the code of `chatctl backup` and `chatctl restore`: of one that is in a
//! file of this machine, as that code works on files.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chatchat::{
    model::{absence::AwayReason, rows::StoreError},
    store::sqlite::{
        NewCluster, SqliteCore,
        backup::{self, Restored},
    },
};

use super::{
    StoreHost,
    files::{Files, RemovesFiles},
};

/// Time to wait for SQLite's locks on files that nobody else has open.
const BUSY: Duration = Duration::from_secs(1);

impl StoreHost {
    /// Creates an empty store in a file of its own, so that it can be restored.
    ///
    /// # Errors
    /// As [`SqliteCore::open_file`]; [`StoreError::Away`] for errors of the directory.
    pub fn on_file(new: &NewCluster) -> Result<Self, StoreError> {
        let failing = |why: io::Error| StoreError::away(AwayReason::Failing, why.to_string());
        let files = Files::new().map_err(failing)?;
        let core = SqliteCore::open_file(&files.store(), new, BUSY)?;
        let mut host = Self::new(new)?;
        (host.core, host.files) = (Arc::new(Mutex::new(core)), Some(Arc::new(files)));
        Ok(host)
    }

    /// Returns a guard that removes its files, if it has any, at the end of a run.
    #[must_use]
    pub fn removes_files(&self) -> RemovesFiles {
        RemovesFiles::of(self.files.clone())
    }

    /// Backs its content up and restores that at once, at the host's time. A new epoch begins.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a store in memory; as [`backup::back_up`] and [`backup::restore`]. The
    /// content is as it was.
    pub fn restore(&self, now_ms: u64) -> Result<Restored, StoreError> {
        let Some(files) = &self.files else {
            return Err(StoreError::Refused { why: "it is in memory".to_owned() });
        };
        let (path, kept) = (files.store(), files.backup());
        // An operation that panicked was rolled back: the core is whole.
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        backup::back_up(&path, &kept, BUSY)?;
        // A restore refuses a store that anybody has open.
        let nothing = SqliteCore::open_in_memory(&self.made_with())?;
        drop(std::mem::replace(&mut *core, nothing));
        let restored = backup::restore(&kept, &path, now_ms, BUSY);
        *core = SqliteCore::open_existing(&path, BUSY)?;
        let replaced = restored.as_ref().ok().and_then(|it| it.replaced.as_deref());
        for over in [Some(kept.as_path()), replaced].into_iter().flatten() {
            remove(over)?;
        }
        restored
    }
}

fn remove(file: &Path) -> Result<(), StoreError> {
    fs::remove_file(file).map_err(|why| StoreError::away(AwayReason::Failing, why.to_string()))
}

#[cfg(test)]
mod tests {
    use chatchat::{
        model::{
            ids::{
                Author, BoardName, Incarnation, NodeId, PostId, Resource, Seq, StoreEpoch, Token,
                UserId,
            },
            message::Task,
            outcome::TaskResult,
            rows::{Holder, Lease, MasterRow, NewPost, Permission, Range},
        },
        store::{Op, OpReply},
    };

    use super::*;

    /// Time of the store, ms since the Unix epoch.
    const NOW_MS: u64 = 1_767_225_600_000;
    const MASTER: NodeId = NodeId([1; 16]);

    fn on_file() -> StoreHost {
        let new = NewCluster { cluster: [7; 16], epoch: StoreEpoch(1), now_ms: NOW_MS };
        StoreHost::on_file(&new).expect("a file")
    }

    /// Registers a life of the master, which a guard tells from others.
    fn register(host: &StoreHost, guard: u8) -> Holder {
        let row = MasterRow {
            node: MASTER,
            incarnation: Incarnation(0),
            beat: 0,
            http: "http://master0:80".to_owned(),
            link: "master0:7000".to_owned(),
            spki: Vec::new(),
            name: "master0".to_owned(),
            draining: false,
            guard: [guard; 32],
        };
        match host.apply(&Op::RegisterMaster(row), NOW_MS) {
            Ok(OpReply::Registered(incarnation)) => Holder { node: MASTER, incarnation },
            other => panic!("{other:?}"),
        }
    }

    fn lease(host: &StoreHost, holder: Holder) -> Token {
        let resource = Resource::Board(BoardName::lobby());
        match host.apply(&Op::AcquireLease { resource, holder, ttl_ms: 3000 }, NOW_MS) {
            Ok(OpReply::Lease(Lease::Granted { epoch, lease, n })) => Token { epoch, lease, n },
            other => panic!("{other:?}"),
        }
    }

    /// Writes a post as the batch of this number.
    fn post(host: &StoreHost, token: Token, n: u64, id: u8) -> Result<Vec<TaskResult>, StoreError> {
        let (token, resource) = (Token { n, ..token }, Resource::Board(BoardName::lobby()));
        let permission = Permission { resource, token, after: None, worker: NodeId([9; 16]) };
        let author = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
        let text = "a text".parse().expect("a text");
        let post = NewPost { id: PostId([id; 16]), author, text };
        let tasks = Arc::new(vec![Task::Post { board: BoardName::lobby(), post }]);
        match host.apply(&Op::Write { permission, tasks, known: Seq::default() }, NOW_MS)? {
            OpReply::Written(results) => Ok(results),
            other => panic!("{other:?}"),
        }
    }

    fn page(host: &StoreHost) -> (StoreEpoch, Vec<(Seq, PostId)>) {
        let op = Op::Read { board: BoardName::lobby(), range: Range::After(Seq(0)), limit: 10 };
        match host.apply(&op, NOW_MS) {
            Ok(OpReply::Page(page)) => {
                (page.epoch, page.posts.iter().map(|post| (post.seq, post.id)).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn restore_keeps_all_that_was_written_and_begins_an_epoch_each_time() {
        let host = on_file();
        let holder = register(&host, 1);
        let token = lease(&host, holder);
        post(&host, token, 1, 1).expect("written");
        let (first, posts) = page(&host);
        assert_eq!((first, posts.len()), (StoreEpoch(1), 1));
        let mut before = first;
        for (now_ms, after) in [(NOW_MS, NOW_MS / 1000), (NOW_MS - 5000, NOW_MS / 1000 + 1)] {
            let restored = host.restore(now_ms).expect("restored");
            assert_eq!((restored.from_epoch, restored.contents.epoch.0), (before, after));
            before = restored.contents.epoch;
            assert_eq!(page(&host), (before, posts.clone()));
        }
        assert!(matches!(post(&host, token, 2, 2), Err(StoreError::Fenced { .. })));
        let touch = Op::TouchMaster { holder, draining: false };
        assert_eq!(host.apply(&touch, NOW_MS).err(), Some(StoreError::Stale));
        let next = register(&host, 2);
        assert!(next.incarnation > holder.incarnation, "{next:?}");
        let again = lease(&host, next);
        assert_eq!((again.epoch, again.lease), (before, token.lease + 1));
        let written = post(&host, again, 1, 1).expect("written");
        assert!(matches!(written[..], [TaskResult::Duplicate { .. }]), "{written:?}");
    }

    #[test]
    fn store_in_memory_is_not_restored() {
        let new = NewCluster { cluster: [7; 16], epoch: StoreEpoch(1), now_ms: NOW_MS };
        let host = StoreHost::new(&new).expect("SQLite works");
        assert!(matches!(host.restore(NOW_MS), Err(StoreError::Refused { .. })));
        assert_eq!(page(&host).0, StoreEpoch(1));
    }

    #[test]
    fn files_go_away_with_the_store_or_at_the_end_of_a_run() {
        let dir = |host: &StoreHost| host.files.as_ref().expect("it has files").dir().to_owned();
        let host = on_file();
        let (mine, kept) = (dir(&host), host.clone());
        assert!(mine.join("store.db").exists());
        drop(host.removes_files());
        assert!(!mine.exists(), "though the store is still there");
        drop((host, kept));
        let host = on_file();
        let mine = dir(&host);
        host.restore(NOW_MS).expect("restored");
        assert!(!mine.join("backup.db").exists());
        drop(host);
        assert!(!mine.exists());
    }
}
