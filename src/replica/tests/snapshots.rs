//! Reads while others write: a page and its time are of one snapshot.

use super::*;

/// Returns a database without a cache, so that each of its reads reads the disk, with the first posts of the
/// lobby, and its disk.
fn uncached() -> (Arc<MemDisk>, Arc<Replica>) {
    let disk = Arc::new(MemDisk::default());
    let limits = ReplicaLimits { cache_bytes: 0, ..ReplicaLimits::default() };
    let shared = Arc::clone(&disk) as Arc<dyn Disk>;
    let (replica, _) = Replica::open(&shared, limits, Check::Whole, |_| ()).expect("opens");
    replica.apply(&[posts(1, "lobby", 1..=5)]).expect("applied");
    replica.persist().expect("durable");
    (disk, Arc::new(replica))
}

/// Has the next read of the disk, within a snapshot, go after posts that are written and seen in the store.
fn write_before_the_next_read(disk: &MemDisk, replica: &Arc<Replica>) {
    let writer = Arc::clone(replica);
    let write = move || {
        writer.apply(&[posts(1, "lobby", 6..=9)]).expect("applied");
        let boards = vec![(board("lobby"), Seq(9))];
        let seen = Boards { boards, epoch: StoreEpoch(1), as_of_ms: 9000 };
        assert_eq!(writer.observe(&seen), Ok(ApplyReport::default()));
    };
    disk.file().before_read = Some(Box::new(write));
}

#[test]
fn page_claims_no_time_at_which_there_were_posts_that_its_snapshot_lacks() {
    let (disk, replica) = uncached();
    write_before_the_next_read(&disk, &replica);
    let read = || replica.read(&board("lobby"), Range::After(Seq(0)), 500).expect("reads");
    let page = read().expect("is known");
    assert!(disk.file().before_read.is_none(), "posts were written meanwhile");
    assert_eq!((page.last_seq, page.posts.len()), (Seq(5), 5));
    let sixth = post("lobby", 6).posted_at_ms;
    assert!(page.as_of_ms <= sixth, "as of {}, the sixth of {sixth}", page.as_of_ms);
    let page = read().expect("is known");
    assert_eq!((page.last_seq, page.as_of_ms), (Seq(9), 9000));
}

#[test]
fn boards_claim_no_time_at_which_there_were_posts_that_their_snapshot_lacks() {
    let (disk, replica) = uncached();
    write_before_the_next_read(&disk, &replica);
    let boards = replica.boards().expect("reads");
    assert!(disk.file().before_read.is_none(), "posts were written meanwhile");
    assert_eq!(boards.last(&board("lobby")), Some(Seq(5)));
    assert_eq!(boards.as_of_ms, post("lobby", 5).posted_at_ms);
    let boards = replica.boards().expect("reads");
    assert_eq!((boards.last(&board("lobby")), boards.as_of_ms), (Some(Seq(9)), 9000));
}
