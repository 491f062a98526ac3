//! Bare tables of posts, written by one connection in batches: what a store's engine does without a chat.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use chatchat::testing::postgres::{Server, USER};
use tokio::{net::UnixStream, runtime::Runtime};
use tokio_postgres::{Client, NoTls, Statement};

use super::TEXT;

/// Returns a connection to a server. A task of the runtime drives it.
pub(crate) async fn connect(server: &Server) -> Client {
    let mut config = tokio_postgres::Config::new();
    config.user(USER).dbname("postgres");
    let socket = server.dir().join(format!(".s.PGSQL.{}", server.port()));
    let stream = UnixStream::connect(socket).await.expect("a socket");
    let (client, connection) = config.connect_raw(stream, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// Bare table with the store's settings.
pub(crate) struct Raw {
    engine: Engine,
    next: i64,
}

enum Engine {
    Sqlite(rusqlite::Connection),
    Postgres { runtime: Runtime, client: Client, insert: Statement },
}

impl Raw {
    /// Returns an empty table in a new file of SQLite.
    pub(crate) fn sqlite(path: &Path) -> Self {
        let db = rusqlite::Connection::open(path).expect("a database");
        db.pragma_update(None, "journal_mode", "WAL").expect("WAL");
        db.pragma_update(None, "synchronous", "FULL").expect("FULL");
        db.execute_batch(
            "CREATE TABLE posts (board INTEGER, seq INTEGER, user BLOB, id BLOB, text TEXT,
             posted_at INTEGER, PRIMARY KEY (board, seq)) WITHOUT ROWID;
             CREATE UNIQUE INDEX by_id ON posts (user, id);",
        )
        .expect("a table");
        Self { engine: Engine::Sqlite(db), next: 0 }
    }

    /// Returns an empty table on a server, in place of the one before.
    pub(crate) fn postgres(server: &Server) -> Self {
        let runtime = super::runtime();
        let (client, insert) = runtime.block_on(async {
            let client = connect(server).await;
            let table = "DROP TABLE IF EXISTS raw;
                CREATE TABLE raw (board bigint, seq bigint, author bytea, id bytea, text text,
                posted_at bigint, PRIMARY KEY (board, seq));
                CREATE UNIQUE INDEX ON raw (author, id)";
            client.batch_execute(table).await.expect("a table");
            let insert = "INSERT INTO raw SELECT 1, seq, $3, id, $4, seq
                FROM unnest($1::bigint[], $2::bytea[]) AS posts (seq, id)";
            let insert = client.prepare(insert).await.expect("a statement");
            (client, insert)
        });
        Self { engine: Engine::Postgres { runtime, client, insert }, next: 0 }
    }

    /// Writes so many posts, `batch` in each transaction. Returns how long that took.
    pub(crate) fn post(&mut self, posts: u64, batch: u64) -> Duration {
        let started = Instant::now();
        let mut left = posts;
        while left > 0 {
            let count = batch.min(left);
            let rows: Vec<(i64, [u8; 16])> = (0..count).map(|_| self.row()).collect();
            self.write(&rows);
            left -= count;
        }
        started.elapsed()
    }

    fn row(&mut self) -> (i64, [u8; 16]) {
        self.next += 1;
        let id = u128::from(self.next.unsigned_abs())
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        (self.next, id.to_be_bytes())
    }

    fn write(&mut self, rows: &[(i64, [u8; 16])]) {
        let user = [1_u8; 16];
        match &mut self.engine {
            Engine::Sqlite(db) => {
                let commit = db.transaction().expect("a transaction");
                {
                    let mut insert = commit
                        .prepare_cached("INSERT INTO posts VALUES (1, ?1, ?2, ?3, ?4, ?1)")
                        .expect("a statement");
                    for (seq, id) in rows {
                        insert.execute(rusqlite::params![seq, user, id, TEXT]).expect("a row");
                    }
                }
                commit.commit().expect("a commit");
            }
            Engine::Postgres { runtime, client, insert } => {
                let (seqs, ids): (Vec<i64>, Vec<&[u8]>) =
                    rows.iter().map(|(seq, id)| (*seq, &id[..])).unzip();
                let wrote =
                    async { client.execute(&*insert, &[&seqs, &ids, &&user[..], &TEXT]).await };
                runtime.block_on(wrote).expect("a transaction of its own");
            }
        }
    }
}
