//! The list of tables against SQLite's schema, and a file that is filled from another.

use std::collections::BTreeMap;

use super::*;
use crate::{
    env::real::TempDir,
    store::{
        sqlite::SqliteCore,
        tables::{SINGLE_IN_SQLITE, TABLES},
    },
};

const BUSY: Duration = Duration::from_millis(100);
const NEW: NewCluster = NewCluster { cluster: [7; 16], epoch: StoreEpoch(3), now_ms: 3000 };

/// Returns the tables of a store with the names and types of their columns, and which are the key.
fn schema_of(db: &Connection) -> BTreeMap<String, Vec<(String, String, bool)>> {
    let sql = "SELECT t.name, c.name, c.type, c.pk > 0
               FROM sqlite_schema t, pragma_table_info(t.name) c
               WHERE t.type = 'table' ORDER BY t.name, c.cid";
    let mut tables = BTreeMap::<_, Vec<_>>::new();
    let mut find = db.prepare(sql).expect("a query");
    let mut rows = find.query([]).expect("tables");
    while let Some(row) = rows.next().expect("a row") {
        let column =
            (row.get(1).expect("a name"), row.get(2).expect("a type"), row.get(3).expect("a key"));
        tables.entry(row.get(0).expect("a name")).or_default().push(column);
    }
    tables
}

#[test]
fn list_of_tables_names_every_table_and_column_of_sqlite() {
    let core = SqliteCore::open_in_memory(&NEW).expect("a store");
    let mut schema = schema_of(&core.db);
    for (table, columns) in SINGLE_IN_SQLITE {
        let found = schema.remove(table).unwrap_or_else(|| panic!("no table {table}"));
        let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, columns, "{table}");
    }
    for table in &TABLES {
        let found = schema.remove(table.name).unwrap_or_else(|| panic!("no table {}", table.name));
        let column = |(nth, column): (usize, &Column)| {
            let kind = match column.kind {
                Kind::Int | Kind::Flag => "INTEGER",
                Kind::Text => "TEXT",
                Kind::Bytes => "BLOB",
            };
            (column.name.to_owned(), kind.to_owned(), nth < table.key)
        };
        let listed: Vec<_> = table.columns.iter().enumerate().map(column).collect();
        let mut found = found;
        found.sort();
        let mut sorted = listed;
        sorted.sort();
        assert_eq!(found, sorted, "table {}: list its columns in src/store/tables.rs", table.name);
    }
    assert_eq!(schema.keys().collect::<Vec<_>>(), Vec::<&String>::new(), "list them in tables.rs");
}

#[tokio::test]
async fn filled_file_has_every_row_and_number_of_the_one_it_came_from() {
    let dir = TempDir::new().expect("a directory");
    let (first, second) = (dir.path().join("first.db"), dir.path().join("second.db"));
    let db = SqliteCore::open_file(&first, &NEW, BUSY).expect("made").db;
    db.execute_batch(
        "INSERT INTO boards VALUES (5, 'other', 1, 9);
         INSERT INTO posts VALUES (5, 1, x'01', x'02', 'Ada', 'text', 9, 3, 1, 1, x'03');
         INSERT INTO post_ids VALUES (x'01', x'09', NULL, NULL);
         INSERT INTO dead_letters VALUES (4, 'board', NULL, NULL, NULL, NULL, 'why', 1), (8, 'board', x'01', x'02', 'Ada', 'text', 'why', 2);
         DELETE FROM dead_letters WHERE number = 8;
         INSERT OR REPLACE INTO meta VALUES ('clock', 77)",
    )
    .expect("filled");
    // More than a page.
    for n in 0..PAGE_ROWS as i64 * 2 + 1 {
        let put = "INSERT INTO writes VALUES (?1, 'board', 3, 1, ?1, x'05', 'write', 1, 9)";
        db.execute(put, [n + 1]).expect("put");
    }
    drop(db);
    let staged = Staged::of(&first, BUSY).expect("a whole store");
    let rows = staged.open().expect("opens");
    let mut filling = Filling::begin(&second, &NEW, BUSY).expect("begun");
    for table in &TABLES {
        let pages = rows.pages(table, async |page| {
            assert!(page.len() <= PAGE_ROWS);
            filling.put(table, page)
        });
        pages.await.expect("copied");
    }
    let numbers = rows.numbers().expect("numbers");
    assert_eq!((numbers.clock_ms, numbers.dead_letters, numbers.boards), (77, 8, 5));
    let (part, contents) = filling.end(&numbers).expect("filled");
    assert!(!second.exists(), "it has no name yet");
    part.name(&second).expect("named");
    assert_eq!((contents.boards, contents.posts, contents.epoch), (2, 1, StoreEpoch(3)));
    let copy = Staged::of(&second, BUSY).expect("a whole store");
    let copy = copy.open().expect("opens");
    assert_eq!(copy.numbers().expect("numbers"), numbers);
    for table in &TABLES {
        let all = async |rows: &Rows<'_>| {
            let mut all = Vec::new();
            let taken = rows.pages(table, async |page| {
                all.extend_from_slice(page);
                Ok(())
            });
            taken.await.expect("read");
            all
        };
        assert_eq!(all(&copy).await, all(&rows).await, "{}", table.name);
    }
}

#[test]
fn backup_of_a_newer_release_and_a_value_of_another_type_are_refused() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("backup.db");
    let db = SqliteCore::open_file(&file, &NEW, BUSY).expect("made").db;
    db.pragma_update(None, "user_version", 99).expect("set");
    drop(db);
    let Err(newer) = Staged::of(&file, BUSY) else { panic!("taken") };
    assert!(newer.to_string().contains("newer release"), "{newer}");
    let db = Connection::open_in_memory().expect("a database");
    db.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES ('text')").expect("made");
    let columns = [Column { name: "a", kind: Kind::Int }];
    let read = db.query_row("SELECT a FROM t", [], |row| values(&columns, row));
    let why = read.expect_err("not a number").to_string();
    assert!(why.contains("Int is meant"), "{why}");
}
