//! Posts that wait for the store.

use std::io;

use super::{formats::set_format, *};
use crate::{
    env::DiskFile,
    model::{
        bounds::HELD_MAX,
        held::{HeldPost, HoldReply},
        rows::NewPost,
    },
};

pub(super) fn held_post(n: u16, text: &str) -> HeldPost {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    let post = NewPost { id: PostId(id), author: author(), text: text.parse().expect("a text") };
    HeldPost { board: board("dev"), post }
}

#[test]
fn held_post_survives_a_crash_and_a_new_epoch_until_it_is_let_go() {
    let (disk, replica) = fresh();
    let one = held_post(1, "one");
    assert_eq!(replica.hold(&[(one.clone(), 77)]), Ok(vec![HoldReply::Held]));
    let crashed = disk.crash(&mut ChaCha20Rng::seed_from_u64(1));
    drop(replica);
    let (replica, _) = open(&crashed);
    replica.apply(&[posts(1, "dev", 1..=2)]).expect("applied");
    assert!(replica.apply(&[posts(2, "dev", 1..=1)]).expect("applied").emptied);
    assert_eq!(replica.held(), Ok(vec![(one.key(), 77)]));
    assert_eq!(replica.held_post(one.key()), Ok(Some((one.clone(), 77))));
    replica.let_go(one.key()).expect("let go");
    assert_eq!(replica.held_post(one.key()), Ok(None));
    assert_eq!(replica.held(), Ok(vec![]));
}

#[test]
fn posts_to_hold_are_taken_once_each_and_up_to_the_bound() {
    let (_, replica) = fresh();
    let all: Vec<_> =
        (0..u16::try_from(HELD_MAX).expect("small")).map(|n| (held_post(n, "x"), 1)).collect();
    assert!(replica.hold(&all).expect("held").iter().all(|said| *said == HoldReply::Held));
    let more = [held_post(0, "x"), held_post(1, "another text"), held_post(2000, "x")];
    let more = more.map(|post| (post, 2));
    let said = [HoldReply::Held, HoldReply::Conflict, HoldReply::Full];
    assert_eq!(replica.hold(&more), Ok(said.to_vec()));
    // One that is held already keeps its age.
    assert_eq!(replica.held_post(all[0].0.key()).expect("read").map(|held| held.1), Some(1));
    assert_eq!(replica.held().map(|held| held.len()), Ok(HELD_MAX));
}

#[test]
fn held_posts_of_an_unreadable_database_are_kept() {
    let (disk, replica) = fresh();
    let one = held_post(1, "one");
    replica.hold(&[(one.clone(), 77)]).expect("held");
    replica.apply(&[posts(1, "dev", 1..=2)]).expect("applied");
    set_format(&replica, 99);
    drop(replica);
    let (replica, found) = open(&(disk as Arc<dyn Disk>));
    assert!(matches!(found, OpenedAs::Unreadable { .. }), "{found:?}");
    assert_eq!(replica.held_post(one.key()), Ok(Some((one, 77))));
    assert!(replica.boards().expect("read").boards.is_empty());
}

/// Disk that fails as soon as its file is to be replaced or removed.
struct FailsToReplace(Arc<MemDisk>);

impl Disk for FailsToReplace {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.0.open(name)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.read(name)
    }

    fn write_atomic(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.file().fails = true;
        self.0.write_atomic(name, bytes)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)?;
        self.0.file().fails = true;
        Ok(())
    }
}

#[test]
fn held_posts_of_an_unreadable_database_outlive_a_disk_that_fails_while_it_is_replaced() {
    let (disk, replica) = fresh();
    let one = held_post(1, "one");
    replica.hold(&[(one.clone(), 77)]).expect("held");
    set_format(&replica, 99);
    drop(replica);
    let failing: Arc<dyn Disk> = Arc::new(FailsToReplace(disk.clone()));
    let failed = Replica::open(&failing, ReplicaLimits::default(), Check::Whole, |_| ());
    assert!(matches!(failed, Err(ReplicaError::Failed { .. })), "{failed:?}");
    disk.file().fails = false;
    let (replica, found) = open(&disk.crash(&mut ChaCha20Rng::seed_from_u64(1)));
    assert!(matches!(found, OpenedAs::Unreadable { .. }), "{found:?}");
    assert_eq!(replica.held_post(one.key()), Ok(Some((one, 77))));
}

#[test]
fn many_held_posts_of_an_unreadable_database_are_kept_by_one_commit() {
    /// Returns how often a new file is synced that takes over so many posts.
    fn syncs(count: u16) -> u32 {
        let (disk, replica) = fresh();
        let all: Vec<_> = (0..count).map(|n| (held_post(n, "x"), u64::from(n))).collect();
        replica.hold(&all).expect("held");
        set_format(&replica, 99);
        drop(replica);
        let (replica, found) = open(&(disk.clone() as Arc<dyn Disk>));
        assert!(matches!(found, OpenedAs::Unreadable { .. }), "{found:?}");
        let kept = all.iter().map(|(held, wall_ms)| (held.key(), *wall_ms)).collect::<Vec<_>>();
        assert_eq!(replica.held(), Ok(kept));
        disk.file().syncs
    }
    let (few, many) = (syncs(1), syncs(u16::try_from(HELD_MAX).expect("small")));
    assert!(few > 0 && many < few + 10, "{few} for one post, {many} for {HELD_MAX}");
}
