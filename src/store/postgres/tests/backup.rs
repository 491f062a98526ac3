//! Backups and restores: beside writers, of both engines, and of what must be refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::*;
use crate::{
    env::real::TempDir,
    model::{
        ids::{Role, SessionKey, StoreEpoch},
        login::StoreUser,
        rows::{DeadLetter, JoinToken, MasterRow},
    },
    store::{
        postgres::backup::{back_up, restore},
        sqlite::{self, backup::Restored, transfer::Staged},
        tables::{Kind, NUMBERED, SINGLE_IN_POSTGRES, TABLES, Value},
    },
};

const BUSY: Duration = Duration::from_secs(1);
const MASTER: NodeId = NodeId([1; 16]);
const EXPELLED: NodeId = NodeId([66; 16]);
const KEPT: SessionKey = SessionKey([1; 32]);
const CLOSED: SessionKey = SessionKey([2; 32]);

/// Directory of backups.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: TempDir::new().expect("a directory") }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let dir = fs::read_dir(self.dir.path()).expect("listed");
        let mut names: Vec<_> = dir
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }
}

fn master(guard: u8) -> MasterRow {
    MasterRow {
        node: MASTER,
        incarnation: Incarnation(0),
        beat: 0,
        http: "http://one".to_owned(),
        link: "one:1".to_owned(),
        spki: vec![4; 5],
        name: "one".to_owned(),
        draining: false,
        guard: [guard; 32],
    }
}

/// Writes a batch under the lease of a resource, which the first life of the master acquires.
async fn write_as(store: &Store, resource: Resource, n: u64, tasks: Vec<Task>) {
    write_of(store, holder(1), resource, n, tasks).await;
}

async fn write_of(store: &Store, of: Holder, resource: Resource, n: u64, tasks: Vec<Task>) {
    let lease = store.acquire_lease(resource.clone(), of, 3000).await;
    let Ok(Lease::Granted { epoch, lease, .. }) = lease else { panic!("not granted: {lease:?}") };
    let token = Token { epoch, lease, n };
    let permission = Permission { resource, token, after: None, worker: NodeId([9; 16]) };
    let results = store.write(permission, Arc::new(tasks)).await.expect("written");
    assert!(results.iter().all(|result| !matches!(result, TaskResult::Refused(_))), "{results:?}");
}

/// Fills a store with some of all that it keeps.
async fn fill(store: &Store) {
    store.register_master(master(1)).await.expect("registered");
    let lobby = Resource::Board(BoardName::lobby());
    write_as(store, lobby, 1, (1..=3).map(post).collect()).await;
    let user = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
    let cancelled = Task::CancelPost { user: user.id, id: PostId([77; 16]) };
    let sessions = vec![
        Task::OpenSession { key: KEPT, user: user.clone() },
        Task::OpenSession { key: CLOSED, user: user.clone() },
        Task::SetReadMark { key: KEPT, board: BoardName::lobby(), seq: Seq(2) },
        Task::PutTicket { key: KEPT, ticket_sha256: [3; 32] },
        cancelled,
    ];
    write_as(store, Resource::Sessions(MASTER), 1, sessions).await;
    store.touch_sessions(MASTER, vec![KEPT]).await.expect("touched");
    for why in ["first", "second"] {
        let resource = Resource::Board(BoardName::lobby());
        let letter = DeadLetter { number: 0, resource, post: None, why: why.to_owned(), at_ms: 0 };
        store.put_dead_letter(letter).await.expect("put");
    }
    let token = JoinToken {
        id: [1; 8],
        guard: [2; 32],
        bearer_sha256: [3; 32],
        role: Role::Worker,
        uses_left: 1,
        ends_at_ms: u64::MAX / 4,
    };
    store.call(Op::PutJoinToken(token)).await.expect("put");
}

/// Returns all rows of a backup by table.
async fn rows_of(file: &Path) -> BTreeMap<&'static str, Vec<Vec<Value>>> {
    let staged = Staged::of(file, BUSY).expect("a whole store");
    let rows = staged.open().expect("opens");
    let mut all = BTreeMap::new();
    for table in &TABLES {
        let of_table: &mut Vec<_> = all.entry(table.name).or_default();
        let read = rows.pages(table, async |page| {
            of_table.extend_from_slice(page);
            Ok(())
        });
        read.await.expect("read");
    }
    all
}

async fn restored(env: &Env, server: &Server, file: &Path) -> Result<Restored, StoreError> {
    restore(env, address(&server.url("chat")), file).await
}

#[tokio::test]
async fn list_of_tables_names_every_table_and_column_of_postgres() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    drop(opened(&env, &server).await);
    let sql = "SELECT concat_ws(' ', table_name, column_name, data_type, is_identity)
               FROM information_schema.columns WHERE table_schema = 'chat'";
    let found = server.sql(&env, sql).await.into_iter().collect::<BTreeSet<_>>();
    let mut listed = BTreeSet::new();
    let mut list = |table: &str, column: &str, kind: &str| {
        let identity = if NUMBERED.contains(&(table, column)) { "YES" } else { "NO" };
        listed.insert(format!("{table} {column} {kind} {identity}"));
    };
    for (table, columns) in SINGLE_IN_POSTGRES {
        for &column in columns {
            let kind = if column == "cluster" { "bytea" } else { "bigint" };
            list(table, column, kind);
        }
    }
    for table in &TABLES {
        for column in table.columns {
            let kind = match column.kind {
                Kind::Int => "bigint",
                Kind::Flag => "boolean",
                Kind::Text => "text",
                Kind::Bytes => "bytea",
            };
            list(table.name, column.in_postgres(), kind);
        }
    }
    let unknown: Vec<_> = found.symmetric_difference(&listed).collect();
    assert!(unknown.is_empty(), "src/store/tables.rs and the schema differ: {unknown:?}");
}

#[tokio::test]
async fn backup_is_one_moment_of_a_store_that_is_written() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    // More than a page of rows.
    let many = (1..=1200).map(post).collect();
    write_as(&store, Resource::Board(BoardName::lobby()), 1, many).await;
    let permission = lobby(&store, 1).await;
    let (place, done) = (Place::new(), std::sync::atomic::AtomicBool::new(false));
    let file = place.file("backup.db");
    let writing = async {
        let mut last = 1200;
        while !done.load(Ordering::Relaxed) {
            last += 1;
            write_patiently(&env, &store, &permission, last).await;
        }
        last
    };
    let backing = async {
        env.sleep(Duration::from_millis(100)).await;
        let contents = back_up(&env, address(&server.url("chat")), &file).await;
        done.store(true, Ordering::Relaxed);
        contents.expect("backed up")
    };
    let (last, contents) = tokio::join!(writing, backing);
    assert!((1200..=last).contains(&contents.posts), "{contents:?} of {last}");
    assert_eq!(contents.bytes, fs::metadata(&file).expect("there").len());
    assert_eq!(place.names(), ["backup.db"], "nothing is left of the copying");
    let epoch = store.cluster().await.expect("a cluster").epoch;
    assert_eq!(contents.epoch, epoch);
    let rows = rows_of(&file).await;
    assert_eq!(rows["posts"].len() as u64, contents.posts);
    assert_eq!(rows["post_ids"].len() as u64, contents.posts, "of the same moment");
    let copy = sqlite::open(&env, &file, PATIENT).expect("a store like any other");
    let boards = copy.boards().await.expect("boards").boards;
    assert_eq!(boards, [(BoardName::lobby(), Seq(contents.posts))]);
    let again = back_up(&env, address(&server.url("chat")), &file).await.expect_err("there");
    assert!(again.to_string().contains("is there already"), "{again}");
}

#[tokio::test]
async fn restore_begins_an_epoch_and_lets_nobody_in_who_was_shut_out() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    fill(&store).await;
    let (place, before) = (Place::new(), store.cluster().await.expect("a cluster"));
    let file = place.file("backup.db");
    back_up(&env, address(&server.url("chat")), &file).await.expect("backed up");
    let letters = store.dead_letters(10).await.expect("listed");
    let lobby = Resource::Board(BoardName::lobby());
    write_as(&store, lobby.clone(), 3, vec![post(4)]).await;
    let close = vec![Task::CloseSession { key: CLOSED }];
    write_as(&store, Resource::Sessions(MASTER), 2, close).await;
    store.call(Op::Deny(EXPELLED)).await.expect("denied");

    // A node asks for the boards now and then.
    let node = async {
        while store.boards().await.is_ok() {
            env.sleep(Duration::from_millis(100)).await;
        }
    };
    let used = tokio::select! {
        biased;
        used = restored(&env, &server, &file) => used.expect_err("a node uses it"),
        () = node => panic!("it goes on"),
    };
    assert_eq!(used.away_reason(), Some(AwayReason::Locked), "{used}");
    assert!(used.to_string().contains("stop all nodes"), "{used}");
    assert_eq!(seqs(&store).await, in_order(4), "the store is as it was");
    assert_eq!(place.names(), ["backup.db"]);
    drop(store);

    let report = restored(&env, &server, &file).await.expect("restored");
    assert_eq!((report.from_epoch, report.contents.posts), (before.epoch, 3));
    assert!(report.contents.epoch > before.epoch && !report.lost_deny_list, "{report:?}");
    let kept = report.replaced.expect("it is kept");
    assert_eq!(rows_of(&kept).await["posts"].len(), 4, "with all that it had");

    let store = opened(&env, &server).await;
    let after = store.cluster().await.expect("a cluster");
    assert_eq!((after.cluster, after.epoch), (before.cluster, report.contents.epoch));
    assert_eq!(seqs(&store).await, in_order(3));
    assert_eq!(store.dead_letters(10).await.expect("listed"), letters);
    let session = store.find_session(KEPT).await.expect("found").expect("it is open");
    assert_eq!(session.read_marks, [(BoardName::lobby(), Seq(2))]);
    assert_eq!(store.find_session(CLOSED).await, Ok(None), "it was closed since");
    let OpReply::Admission(lists) = store.call(Op::Admission).await.expect("lists") else {
        panic!("no lists")
    };
    assert_eq!((lists.tokens, lists.denied), (vec![], vec![EXPELLED]));
    assert_eq!(store.masters().await, Ok(vec![]), "none is listed");
    let life = store.register_master(master(2)).await.expect("registered");
    assert!(life > Incarnation(1), "{life:?} was never used before");
    // What the engine numbers by itself goes on behind the rows.
    let board = "second".parse::<BoardName>().expect("a name");
    let of = Holder { node: MASTER, incarnation: life };
    let resource = Resource::Board(board.clone());
    write_of(&store, of, resource, 1, vec![Task::CreateBoard { board }]).await;
    write_of(&store, of, lobby, 1, vec![post(9)]).await;
    let letter = DeadLetter { why: "third".to_owned(), ..letters[0].clone() };
    store.put_dead_letter(letter).await.expect("put");
    let numbers: Vec<_> =
        store.dead_letters(10).await.expect("listed").iter().map(|letter| letter.number).collect();
    assert_eq!(numbers, [3, 2, 1]);
}

#[tokio::test]
async fn restore_refuses_what_is_no_backup_of_this_cluster_and_changes_nothing() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    fill(&store).await;
    let (place, before) = (Place::new(), store.cluster().await.expect("a cluster"));
    drop(store);
    let file = place.file("backup.db");
    let missing = restored(&env, &server, &file).await.expect_err("no file");
    assert!(missing.to_string().contains("backup.db"), "{missing}");
    fs::write(&file, b"no database").expect("written");
    restored(&env, &server, &file).await.expect_err("no store");
    fs::remove_file(&file).expect("removed");
    drop(sqlite::open(&env, &file, PATIENT).expect("a store of its own"));
    // Its thread closes it a little later.
    let log = place.file("backup.db-wal");
    let closed = async {
        while log.exists() {
            env.sleep(Duration::from_millis(20)).await;
        }
    };
    env.timeout(Duration::from_secs(20), closed).await.expect("closed");
    let other = restored(&env, &server, &file).await.expect_err("of another cluster");
    assert!(other.to_string().contains("another cluster"), "{other}");
    let store = opened(&env, &server).await;
    let after = store.cluster().await.expect("a cluster");
    assert_eq!((after.cluster, after.epoch), (before.cluster, before.epoch));
    assert_eq!(seqs(&store).await, in_order(3), "the store is as it was");

    server.sql(&env, "CREATE SCHEMA theirs; CREATE TABLE theirs.posts (a TEXT)").await;
    let theirs = restore(&env, address(&server.url("theirs")), &file).await.expect_err("theirs");
    assert!(theirs.to_string().contains("another program"), "{theirs}");
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'theirs'";
    assert_eq!(server.sql(&env, tables).await, ["1"]);
}

#[tokio::test]
async fn silent_node_is_found_by_its_connection() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    let cluster = store.cluster().await.expect("a cluster").cluster;
    let (place, is_used) = (Place::new(), |error: &StoreError| {
        error.away_reason() == Some(AwayReason::Locked) && error.to_string().contains("a backup")
    });
    let file = place.file("backup.db");
    back_up(&env, address(&server.url("chat")), &file).await.expect("backed up");
    let used = restored(&env, &server, &file).await.expect_err("a master is connected");
    assert!(is_used(&used), "{used}");
    drop(store);

    let user = StoreUser::of_node(&cluster, MASTER);
    server.sql(&env, &format!("CREATE ROLE {user} LOGIN")).await;
    let at = address(&format!("postgres://{user}@{}/postgres", server.host()));
    let worker = Shared::new(&env, at, None, ServerLimits::new(PATIENT), None);
    let worker = worker.reach().await.expect("connected");
    let used = restored(&env, &server, &file).await.expect_err("a worker is connected");
    assert!(is_used(&used), "{used}");
    drop(worker);
    restored(&env, &server, &file).await.expect("nobody is");
}

#[tokio::test]
async fn commit_that_is_refused_leaves_the_store_and_no_copy_of_it() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    fill(&store).await;
    let (place, before) = (Place::new(), store.cluster().await.expect("a cluster"));
    let file = place.file("backup.db");
    back_up(&env, address(&server.url("chat")), &file).await.expect("backed up");
    drop(store);
    let at_the_end = "CREATE FUNCTION chat.refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'not here'; END $$;
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON chat.posts
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chat.refuse()";
    server.sql(&env, at_the_end).await;
    let why = restored(&env, &server, &file).await.expect_err("refused").to_string();
    assert!(why.contains("not here") && !why.contains("may be done"), "{why}");
    assert_eq!(place.names(), ["backup.db"]);
    let store = opened(&env, &server).await;
    let after = store.cluster().await.expect("a cluster");
    assert_eq!((after.cluster, after.epoch), (before.cluster, before.epoch));
    assert_eq!(seqs(&store).await, in_order(3), "the store is as it was");
}

#[tokio::test]
async fn store_is_the_same_after_a_way_through_the_other_engine() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    server.sql(&env, "CREATE SCHEMA chat").await;
    let place = Place::new();
    let (origin, first) = (place.file("origin.db"), place.file("first.db"));
    let store = sqlite::open(&env, &origin, PATIENT).expect("a store");
    fill(&store).await;
    let cluster = store.cluster().await.expect("a cluster");
    sqlite::backup::back_up(&origin, &first, BUSY).expect("backed up");

    let report = restored(&env, &server, &first).await.expect("restored");
    assert_eq!((report.replaced, report.from_epoch), (None, cluster.epoch));
    let second = place.file("second.db");
    back_up(&env, address(&server.url("chat")), &second).await.expect("backed up");
    let third = place.file("third.db");
    let now_ms = report.contents.epoch.0 * 1000;
    let restored = sqlite::backup::restore(&first, &third, now_ms, BUSY).expect("restored");
    assert_eq!(restored.contents.epoch, report.contents.epoch, "both were restored alike");
    let (through, straight) = (rows_of(&second).await, rows_of(&third).await);
    for (table, rows) in &straight {
        assert_eq!(&through[table], rows, "{table}");
    }
    let numbers = |file: &Path| {
        let staged = Staged::of(file, BUSY).expect("a whole store");
        staged.open().and_then(|rows| rows.numbers()).expect("numbers")
    };
    assert_eq!(numbers(&second), numbers(&third));

    let back = place.file("back.db");
    let moved = sqlite::backup::restore(&second, &back, now_ms + 1000, BUSY).expect("restored");
    assert_eq!(moved.contents.epoch, StoreEpoch(report.contents.epoch.0 + 1));
    let store = sqlite::open(&env, &back, PATIENT).expect("a store");
    assert_eq!(store.cluster().await.expect("a cluster").cluster, cluster.cluster);
    assert_eq!(seqs(&store).await, in_order(3));
    let session = store.find_session(KEPT).await.expect("found").expect("it is open");
    assert_eq!(session.read_marks, [(BoardName::lobby(), Seq(2))]);
}
