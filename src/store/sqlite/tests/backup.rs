//! Tests of backups and restores, on files.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use super::*;
use crate::{
    model::ids::Role,
    model::rows::JoinToken,
    store::sqlite::{
        backup::{Contents, Restored, back_up, restore},
        write_lock::beside,
    },
};

const BUSY: Duration = Duration::from_millis(100);
const EXPELLED: NodeId = NodeId([66; 16]);
/// Master that registers after the backup.
const LATE: NodeId = NodeId([77; 16]);

/// Store in a file, and the place of its backup.
struct Place {
    _dir: TempDir,
    store: PathBuf,
    backup: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let at = |name| dir.path().join(name);
        Self { store: at("store.db"), backup: at("backup.db"), _dir: dir }
    }

    /// Returns a place with a store that nobody uses, and a backup of it.
    fn backed_up() -> Self {
        let place = Self::new();
        drop(place.fill());
        back_up(&place.store, &place.backup, BUSY).expect("written");
        place
    }

    /// Makes a store with a registered master, a session and three posts.
    fn fill(&self) -> Desk {
        let mut desk = desk_on(&self.store, &NEW);
        desk.open_session();
        desk.post(3);
        desk
    }

    fn restore(&self) -> Result<Restored, StoreError> {
        restore(&self.backup, &self.store, START_MS + 5000, BUSY)
    }

    fn files(&self) -> Vec<String> {
        let dir = fs::read_dir(self._dir.path()).expect("listed");
        let mut names: Vec<_> = dir
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }
}

fn desk_on(path: &Path, new: &NewCluster) -> Desk {
    let core = SqliteCore::open_file(path, new, BUSY).expect("opens");
    let mut desk = Desk { core, now_ms: START_MS };
    desk.apply(&Op::RegisterMaster(master(MASTER)));
    desk
}

fn last_of(path: &Path) -> u64 {
    let core = SqliteCore::open_to_read(path, BUSY).expect("opens");
    Desk { core, now_ms: START_MS }.last()
}

impl Desk {
    /// Writes so many posts to the lobby.
    fn post(&mut self, count: u8) {
        let board = BoardName::lobby();
        let token = Token { n: 1, ..self.lease(Resource::Board(board.clone())) };
        let resource = Resource::Board(board.clone());
        let permission = Permission { resource, token, after: None, worker: NodeId([9; 16]) };
        let author = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
        let before = self.last();
        let tasks = (0..count).map(|n| Task::Post {
            board: board.clone(),
            post: NewPost {
                id: PostId([before as u8 + n + 1; 16]),
                author: author.clone(),
                text: "hello".parse().expect("a text"),
            },
        });
        self.apply(&Op::Write {
            permission,
            tasks: Arc::new(tasks.collect()),
            known: Seq::default(),
        });
    }

    fn close_session(&mut self, key: SessionKey) {
        let resource = Resource::Sessions(MASTER);
        let token = Token { n: 2, ..self.lease(resource.clone()) };
        let permission = Permission { resource, token, after: None, worker: NodeId([9; 16]) };
        let tasks = Arc::new(vec![Task::CloseSession { key }]);
        self.apply(&Op::Write { permission, tasks, known: Seq::default() });
        assert!(!self.is_open(key));
    }

    fn last(&mut self) -> u64 {
        match self.apply(&Op::Boards) {
            OpReply::Boards(boards) => boards.boards[0].1.0,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn backup_is_the_store_at_one_moment_while_others_write() {
    let place = Place::new();
    let desk = place.fill();
    desk.core.db.execute_batch("BEGIN IMMEDIATE; DELETE FROM posts").expect("begun");
    let contents = back_up(&place.store, &place.backup, BUSY).expect("written");
    let bytes = fs::metadata(&place.backup).expect("there").len();
    assert_eq!(contents, Contents { boards: 1, posts: 3, epoch: StoreEpoch(3), bytes });
    assert_eq!(fs::metadata(&place.backup).expect("there").permissions().mode() & 0o777, 0o600);
    desk.core.db.execute_batch("ROLLBACK").expect("ended");
    let again = back_up(&place.store, &place.backup, BUSY).expect_err("there already");
    assert!(again.to_string().contains("is there already"), "{again}");
    drop(desk);
    assert_eq!(place.files(), ["backup.db", "store.db"], "nothing is left of the copying");
}

#[test]
fn restore_begins_an_epoch_and_lets_nobody_in_who_was_shut_out() {
    let place = Place::new();
    let mut desk = place.fill();
    let session = SessionKey([1; 32]);
    desk.apply(&Op::PutJoinToken(JoinToken {
        id: [1; 8],
        guard: [2; 32],
        bearer_sha256: [3; 32],
        role: Role::Worker,
        uses_left: 1,
        ends_at_ms: START_MS + 60_000,
    }));
    back_up(&place.store, &place.backup, BUSY).expect("written");
    desk.post(2);
    desk.apply(&Op::Deny(EXPELLED));
    desk.close_session(session);
    desk.apply(&Op::RegisterMaster(master(LATE)));
    let again = MasterRow { incarnation: Incarnation(1), guard: [1; 32], ..master(MASTER) };
    assert_eq!(desk.apply(&Op::RegisterMaster(again)), OpReply::Registered(Incarnation(2)));

    let used = place.restore().expect_err("a node uses it");
    assert_eq!(used.away_reason(), Some(AwayReason::Locked), "{used}");
    assert!(used.to_string().contains("stop all nodes"), "{used}");
    assert_eq!(desk.last(), 5, "the store is as it was");
    drop(desk);

    let restored = place.restore().expect("restored");
    let epoch = StoreEpoch(START_MS / 1000 + 5);
    assert_eq!((restored.from_epoch, restored.contents.epoch), (StoreEpoch(3), epoch));
    assert_eq!((restored.contents.posts, restored.lost_deny_list), (3, false));
    let before = restored.replaced.expect("it is kept");
    assert_eq!(last_of(&before), 5, "with all that it had");

    let core = SqliteCore::open_existing(&place.store, BUSY).expect("opens");
    let mut desk = Desk { core, now_ms: START_MS + 6000 };
    assert!(!desk.is_open(session), "it was closed since");
    let OpReply::Admission(lists) = desk.apply(&Op::Admission) else { panic!("no lists") };
    assert_eq!((lists.tokens, lists.denied), (vec![], vec![EXPELLED]));
    let next = MasterRow { guard: [2; 32], ..master(MASTER) };
    let OpReply::Registered(life) = desk.apply(&Op::RegisterMaster(next)) else {
        panic!("not registered")
    };
    assert!(life > Incarnation(2), "{life:?} was never used before");
    let late = MasterRow { guard: [2; 32], ..master(LATE) };
    assert_eq!(desk.apply(&Op::RegisterMaster(late)), OpReply::Registered(Incarnation(2)));
    let holder = Holder { node: MASTER, incarnation: life };
    let resource = Resource::Board(BoardName::lobby());
    match desk.apply(&Op::AcquireLease { resource, holder, ttl_ms: 3000 }) {
        OpReply::Lease(Lease::Granted { epoch: granted, .. }) => assert_eq!(granted, epoch),
        other => panic!("{other:?}"),
    }
    assert_eq!(desk.last(), 3);
}

#[test]
fn life_of_a_master_is_over_with_its_store_even_where_its_number_is_not_passed() {
    let place = Place::new();
    let mut desk = place.fill();
    back_up(&place.store, &place.backup, BUSY).expect("written");
    let again = MasterRow { incarnation: Incarnation(1), guard: [1; 32], ..master(MASTER) };
    assert_eq!(desk.apply(&Op::RegisterMaster(again)), OpReply::Registered(Incarnation(2)));
    drop(desk);
    // By a clock behind the epochs, which then count on by one.
    restore(&place.backup, &place.store, 0, BUSY).expect("restored");
    let mut core = SqliteCore::open_existing(&place.store, BUSY).expect("opens");
    let holder = Holder { node: MASTER, incarnation: Incarnation(2) };
    let touched = core.apply(&Op::TouchMaster { holder, draining: false }, START_MS + 6000);
    assert_eq!(touched, Err(StoreError::Stale));
}

/// Gives a file to another user where this one may do that, and returns its user.
fn given_away(path: &Path) -> u32 {
    if user_of(path) == 0 {
        chown(path, Some(65534), Some(65534)).expect("root gives it away");
    }
    user_of(path)
}

fn user_of(path: &Path) -> u32 {
    fs::metadata(path).expect("there").uid()
}

#[test]
fn restored_store_and_its_lock_belong_to_the_user_of_the_store_before() {
    let place = Place::backed_up();
    let gate = beside(&place.store, ".gate");
    assert!(!gate.exists(), "the restore is to make it");
    let user = given_away(&place.store);
    let restored = place.restore().expect("restored");
    for file in [&place.store, &gate] {
        let meta = fs::metadata(file).expect("there");
        let mode = meta.permissions().mode() & 0o777;
        assert_eq!((meta.uid(), mode), (user, 0o600), "{}", file.display());
    }
    assert_eq!(user_of(&restored.replaced.expect("it is kept")), user);
}

#[test]
fn store_that_was_gone_is_restored_for_the_user_of_its_directory() {
    let place = Place::backed_up();
    fs::remove_file(&place.store).expect("removed");
    let user = given_away(place._dir.path());
    place.restore().expect("restored");
    for file in [&place.store, &beside(&place.store, ".gate")] {
        assert_eq!(user_of(file), user, "{}", file.display());
    }
}

#[test]
fn restore_refuses_what_is_no_backup_of_this_cluster() {
    let place = Place::new();
    drop(place.fill());
    fs::write(&place.backup, b"no database").expect("written");
    place.restore().expect_err("no store");
    fs::remove_file(&place.backup).expect("removed");
    drop(desk_on(&place.backup, &NewCluster { cluster: [8; 16], ..NEW }));
    let other = place.restore().expect_err("of another cluster").to_string();
    assert!(other.contains("another cluster"), "{other}");
    fs::remove_file(&place.backup).expect("removed");
    back_up(&place.store, &place.backup, BUSY).expect("written");
    let mut bytes = fs::read(&place.backup).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xff);
    fs::write(&place.backup, &bytes).expect("written");
    let why = place.restore().expect_err("damaged").to_string();
    assert!(why.contains("backup.db"), "{why} names the damaged one");
    let log = place.backup.with_extension("db-wal");
    fs::write(&log, b"a log").expect("written");
    let why = place.restore().expect_err("a copied file without its log").to_string();
    assert!(why.contains("backup.db-wal"), "{why}");
    fs::remove_file(&log).expect("removed");
    assert_eq!(last_of(&place.store), 3, "the store is as it was");
}

#[test]
fn damaged_store_is_replaced_and_a_missing_one_put_back() {
    let place = Place::backed_up();
    fs::write(&place.store, vec![7; 8192]).expect("written");
    let restored = place.restore().expect("restored");
    assert!(restored.lost_deny_list && restored.replaced.is_some(), "{restored:?}");
    fs::remove_file(&place.store).expect("removed");
    let restored = place.restore().expect("restored");
    assert_eq!((restored.lost_deny_list, restored.replaced), (false, None));
    assert_eq!(last_of(&place.store), 3);
}

#[test]
fn log_of_a_store_that_is_gone_is_never_taken_for_the_restored_ones() {
    let place = Place::new();
    let mut desk = place.fill();
    back_up(&place.store, &place.backup, BUSY).expect("written");
    desk.post(2);
    let log = place.store.with_extension("db-wal");
    let bytes = fs::read(&log).expect("a log");
    drop(desk);
    // As after a kill, and a file that an operator moved away without its log.
    fs::remove_file(&place.store).expect("removed");
    fs::write(&log, bytes).expect("written");
    let restored = place.restore().expect("restored");
    assert_eq!(restored.replaced, None);
    assert_eq!(last_of(&place.store), 3);
    let kept = format!("store.db.before-{}-wal", restored.contents.epoch.0);
    assert!(place.files().contains(&kept), "{:?}", place.files());
}

#[test]
fn database_of_another_program_is_not_replaced() {
    let place = Place::backed_up();
    fs::remove_file(&place.store).expect("removed");
    let db = Connection::open(&place.store).expect("made");
    db.execute_batch("CREATE TABLE theirs (a); PRAGMA user_version = 7").expect("filled");
    drop(db);
    let before = fs::read(&place.store).expect("read");
    let why = place.restore().expect_err("another program's").to_string();
    assert!(why.contains("another program"), "{why}");
    assert_eq!(fs::read(&place.store).expect("read"), before);
}
