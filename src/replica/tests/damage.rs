//! Disks that fail, and files that are damaged.

use rand_chacha::rand_core::Rng;

use super::*;

#[test]
fn failing_disk_is_a_typed_error_and_nothing_of_the_group_is_visible() {
    let (disk, replica) = fresh();
    replica.apply(&[posts(1, "lobby", 1..=3)]).expect("applied");
    disk.file().fails = true;
    let failed = replica.apply(&[posts(1, "lobby", 4..=4), Update::Session(session(1, &[]))]);
    assert!(matches!(failed, Err(ReplicaError::Failed { .. })), "{failed:?}");
    disk.file().fails = false;
    drop(replica);
    let (replica, _) = open(&(disk as Arc<dyn Disk>));
    let page = replica.read(&board("lobby"), Range::Last, 9).expect("reads");
    assert!(page.is_none_or(|page| page.last_seq <= Seq(3)));
}

#[test]
fn file_is_checked_whole_only_after_an_unclean_end() {
    static SAID: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    use std::sync::atomic::Ordering::Relaxed;
    let (disk, replica) = fresh();
    replica.apply(&[posts(1, "lobby", 1..=200)]).expect("applied");
    drop(replica);
    let open = |disk: &Arc<dyn Disk>| {
        let progress = |_| {
            SAID.fetch_add(1, Relaxed);
        };
        Replica::open(disk, ReplicaLimits::default(), Check::AfterUncleanEnd, progress)
    };
    let (replica, found) = open(&(disk.clone() as Arc<dyn Disk>)).expect("opens");
    assert_eq!((found, SAID.load(Relaxed)), (OpenedAs::Kept, 0), "it was closed");
    replica.apply(&[posts(1, "lobby", 201..=203)]).expect("applied");
    replica.persist().expect("durable");
    // As after a lost power: the file stands, nobody closed it.
    let left = disk.file().live.clone();
    let (again, found) = open(&MemDisk::holding(left)).expect("opens");
    assert!(found == OpenedAs::Kept && SAID.load(Relaxed) > 0, "it is checked, and says so");
    assert_eq!(seqs(&again, "lobby", Range::Last, 1), [203]);
}

#[test]
fn flipped_bit_anywhere_is_never_shown() {
    let (disk, replica) = fresh();
    let members = [member(1, Role::Worker, 3, MemberState::In)];
    replica.put_members(&members).expect("stored");
    let row = session(5, &[("lobby", 4)]);
    replica.apply(&[posts(7, "lobby", 1..=20), Update::Session(row.clone())]).expect("applied");
    replica.persist().expect("durable");
    let whole = replica.read(&board("lobby"), Range::Last, 99).expect("reads").expect("is known");
    drop(replica);
    let bytes = disk.file().live.clone();
    let used: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let (mut noticed, step) = (0, used.len() / 1500 + 1);
    for at in used.iter().skip(step / 2).step_by(step) {
        let mut bytes = bytes.clone();
        bytes[*at] ^= 1 << (at % 8);
        let read = || {
            let disk = MemDisk::holding(bytes);
            let limits = ReplicaLimits::default();
            let (replica, found) = Replica::open(&disk, limits, Check::AfterUncleanEnd, |_| ())?;
            // A former commit may be what is left.
            for (shown, last) in replica.boards()?.boards {
                assert!(
                    shown == board("lobby") && last <= whole.last_seq,
                    "{at}: {shown} {last:?}"
                );
            }
            if let Some(page) = replica.read(&board("lobby"), Range::Last, 99)? {
                assert!(whole.posts.starts_with(&page.posts), "{at}: {page:?}");
            }
            // A row whose key has changed is missing.
            if let Some(shown) = replica.session(row.key)? {
                let sound = |mark| row.read_marks.contains(mark);
                assert!(shown.user == row.user && shown.read_marks.iter().all(sound), "{at}");
            }
            assert!(replica.members()?.iter().all(|shown| *shown == members[0]), "{at}");
            Ok::<_, ReplicaError>(found)
        };
        noticed += usize::from(read() != Ok(OpenedAs::Kept));
    }
    assert!(noticed >= 200, "{noticed} flips noticed");
}

#[test]
fn unreadable_file_is_replaced_and_reported() {
    let (disk, replica) = fresh();
    replica.apply(&[posts(1, "lobby", 1..=200)]).expect("applied");
    drop(replica);
    let whole = disk.file().live.clone();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut unreadable = 0;
    for round in 0..60 {
        let mut bytes = whole.clone();
        match round % 3 {
            0 => bytes.truncate(rng.next_u32() as usize % whole.len()),
            1 => bytes.iter_mut().for_each(|byte| *byte = rng.next_u32() as u8),
            _ => {
                let at = rng.next_u32() as usize % whole.len();
                let end = whole.len().min(at + 4096);
                bytes[at..end].fill(0xa5);
            }
        }
        let (replica, found) = open(&MemDisk::holding(bytes));
        match found {
            OpenedAs::Unreadable { .. } => unreadable += 1,
            // The damage hit what nothing uses.
            OpenedAs::Kept => assert_eq!(seqs(&replica, "lobby", Range::Last, 500).len(), 200),
            OpenedAs::New => assert_eq!(replica.read(&board("lobby"), Range::Last, 1), Ok(None)),
        }
        replica.apply(&[posts(1, "lobby", 1..=3)]).expect("it works again");
    }
    assert!(unreadable >= 20, "only {unreadable} were noticed");
}
