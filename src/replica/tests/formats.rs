//! Files of formats of other releases.

use std::{io, sync::Mutex};

use redb::{ReadableTable, TableDefinition};

use super::{held::held_post, *};
use crate::{
    env::DiskFile,
    model::{
        copies::{SessionDigests, SessionEntry, SessionRoom},
        held::HeldKey,
    },
};

/// All that a database tells.
#[derive(Debug, PartialEq)]
struct Content {
    boards: Boards,
    pages: [Option<Page>; 2],
    /// Sessions with their places in the order of writes.
    sessions: Vec<(u64, SessionEntry)>,
    digests: (SessionDigests, u64),
    room: SessionRoom,
    members: Vec<Member>,
    held: Vec<(HeldKey, u64)>,
}

impl Content {
    fn of(replica: &Replica) -> Self {
        let page = |name| replica.read(&board(name), Range::Last, 99).expect("reads");
        let of_bucket = |bucket| replica.sessions(bucket, None, None, usize::MAX).expect("reads");
        Self {
            boards: replica.boards().expect("reads"),
            pages: [page("lobby"), page("dev")],
            sessions: (0..=u8::MAX).flat_map(of_bucket).collect(),
            digests: replica.digests().expect("reads"),
            room: replica.session_room().expect("reads"),
            members: replica.members().expect("reads"),
            held: replica.held().expect("reads"),
        }
    }

    /// Returns the first byte of each session's key, and whether the session is open.
    fn open_sessions(&self) -> Vec<(u8, bool)> {
        let is_open = |entry: &SessionEntry| matches!(entry, SessionEntry::Open(_));
        self.sessions.iter().map(|(_, entry)| (entry.key().0[0], is_open(entry))).collect()
    }
}

/// Returns a database with rows in each table, and its disk.
fn filled() -> (Arc<MemDisk>, Replica) {
    let (disk, replica) = fresh();
    replica.apply(&[posts(7, "lobby", 1..=9), posts(7, "dev", 1..=2)]).expect("applied");
    for key in 1..=6 {
        let opened = Update::Session(session(key, &[("lobby", u64::from(key))]));
        replica.apply(&[opened]).expect("applied");
    }
    // The last one was never open here.
    for key in [4, 2, 9] {
        replica.apply(&[Update::SessionClosed(SessionKey([key; 32]))]).expect("applied");
    }
    replica.put_members(&[member(1, Role::Worker, 3, MemberState::In)]).expect("stored");
    replica.hold(&[(held_post(1, "one"), 77)]).expect("held");
    replica.persist().expect("durable");
    (disk, replica)
}

/// Writes the number of a format and nothing else of it.
pub(super) fn set_format(replica: &Replica, format: u64) {
    let write = |db: &redb::Database| {
        let txn = db.begin_write()?;
        txn.open_table(tables::META)?.insert("format", format)?;
        Ok(txn.commit()?)
    };
    replica.db.run(write).expect("written");
}

/// Makes a file of format 3 of one of format 4: closed sessions stand in one order with the open ones.
fn make_format_3(replica: &Replica) {
    let write = |db: &redb::Database| {
        let txn = db.begin_write()?;
        {
            let closed = txn.open_table(tables::CLOSED)?;
            let mut order = txn.open_table(tables::ORDER)?;
            for row in closed.iter()? {
                let (place, key) = row?;
                order.insert(place.value(), key.value())?;
            }
        }
        txn.delete_table(tables::CLOSED)?;
        Ok(txn.commit()?)
    };
    replica.db.run(write).expect("written");
    set_format(replica, 3);
}

fn format_of(replica: &Replica) -> Option<u64> {
    let read = |reader: &read::Reader| {
        let meta = reader.0.open_table(tables::META)?;
        Ok(meta.get("format")?.map(|row| row.value()))
    };
    replica.db.read(read).expect("reads")
}

#[test]
fn file_of_the_format_before_keeps_all_that_it_has() {
    let (disk, replica) = filled();
    let content = Content::of(&replica);
    assert_eq!(content.room, SessionRoom { open: 200_000 - 4, closed: 200_000 - 7 });
    make_format_3(&replica);
    drop(replica);
    for _ in 0..2 {
        let (replica, found) = open(&(disk.clone() as Arc<dyn Disk>));
        assert_eq!((found, format_of(&replica)), (OpenedAs::Kept, Some(4)));
        assert_eq!(Content::of(&replica), content);
    }
}

#[test]
fn closed_sessions_of_the_format_before_make_room_first_in_their_order() {
    let (disk, replica) = filled();
    make_format_3(&replica);
    drop(replica);
    let limits = ReplicaLimits { sessions_max: 7, ..ReplicaLimits::default() };
    let disk: Arc<dyn Disk> = disk;
    let (replica, _) = Replica::open(&disk, limits, Check::Whole, |_| ()).expect("opens");
    for key in [11, 12] {
        replica.apply(&[Update::Session(session(key, &[]))]).expect("applied");
    }
    let left: [(u8, bool); 7] =
        [(1, true), (3, true), (5, true), (6, true), (9, false), (11, true), (12, true)];
    assert_eq!(Content::of(&replica).open_sessions(), left);
}

#[test]
fn file_of_the_format_before_may_lack_the_table_of_held_posts() {
    let (disk, replica) = filled();
    make_format_3(&replica);
    let drop_held = |db: &redb::Database| {
        let txn = db.begin_write()?;
        txn.delete_table(tables::HELD)?;
        Ok(txn.commit()?)
    };
    replica.db.run(drop_held).expect("written");
    drop(replica);
    let (replica, found) = open(&(disk as Arc<dyn Disk>));
    assert_eq!((found, replica.held()), (OpenedAs::Kept, Ok(vec![])));
    assert_eq!(seqs(&replica, "lobby", Range::Last, 2), [8, 9]);
}

/// Disk that remembers how its file stood before each write.
#[derive(Clone, Debug)]
struct Remembering {
    disk: Arc<MemDisk>,
    stages: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Disk for Remembering {
    fn open(&self, _name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(self.clone()))
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.disk.read(name)
    }

    fn write_atomic(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_atomic(name, bytes)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
}

impl DiskFile for Remembering {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let stage = self.disk.file().live.clone();
        self.stages.lock().expect("no test panics with it").push(stage);
        self.disk.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }
}

#[test]
fn crash_at_any_write_while_the_format_changes_loses_nothing() {
    let (disk, replica) = filled();
    let content = Content::of(&replica);
    make_format_3(&replica);
    drop(replica);
    let remembering = Remembering { disk, stages: Arc::default() };
    let (replica, found) = open(&(Arc::new(remembering.clone()) as Arc<dyn Disk>));
    assert_eq!(found, OpenedAs::Kept);
    drop(replica);
    let stages = std::mem::take(&mut *remembering.stages.lock().expect("no test panics with it"));
    assert!(stages.len() > 3, "it was written {} times", stages.len());
    for (nth, stage) in stages.into_iter().enumerate() {
        let (replica, found) = open(&MemDisk::holding(stage));
        assert_eq!((found, format_of(&replica)), (OpenedAs::Kept, Some(4)), "at write {nth}");
        assert_eq!(Content::of(&replica), content, "at write {nth}");
    }
}

#[test]
fn file_of_an_older_or_a_newer_format_is_replaced_for_that_reason_and_held_posts_are_kept() {
    const OTHER: TableDefinition<'_, u64, u64> = TableDefinition::new("read_marks");
    for (format, reason) in [(2, "older"), (5, "newer")] {
        let (disk, replica) = filled();
        let change_a_table = |db: &redb::Database| {
            let txn = db.begin_write()?;
            txn.delete_table(tables::MARKS)?;
            txn.open_table(OTHER)?;
            Ok(txn.commit()?)
        };
        replica.db.run(change_a_table).expect("written");
        set_format(&replica, format);
        drop(replica);
        let (replica, found) = open(&(disk as Arc<dyn Disk>));
        let OpenedAs::Unreadable { why } = &found else { panic!("{found:?}") };
        assert!(why.contains(&format!("format {format}")) && why.contains(reason), "{why}");
        assert_eq!(replica.held(), Ok(vec![(held_post(1, "one").key(), 77)]));
        assert!(replica.boards().expect("reads").boards.is_empty());
    }
}

#[test]
fn file_of_the_format_before_with_a_closed_session_in_no_order_is_replaced() {
    let (disk, replica) = filled();
    make_format_3(&replica);
    let empty_the_order = |db: &redb::Database| {
        let txn = db.begin_write()?;
        txn.open_table(tables::ORDER)?.retain(|_, _| false)?;
        Ok(txn.commit()?)
    };
    replica.db.run(empty_the_order).expect("written");
    drop(replica);
    let (replica, found) = open(&(disk as Arc<dyn Disk>));
    let OpenedAs::Unreadable { why } = &found else { panic!("{found:?}") };
    assert!(why.contains("session_order"), "{why}");
    assert_eq!(replica.held(), Ok(vec![(held_post(1, "one").key(), 77)]));
}
