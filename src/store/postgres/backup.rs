//! Backup of a store to a file while nodes use it, and restore of one while none does. The file is a
//! store on SQLite, whichever engine the cluster uses.
//!
//! 1. A backup is one snapshot. Writers do not wait for it.
//! 2. A restore is one transaction: before its commit the store is as it was, and after it the tables
//!    hold the restored one alone.
//! 3. What a restore changes of the backup is what SQLite's restore changes, by the same code: the
//!    epoch, who was shut out, what was open.
//! 4. The store before is kept in a file beside the backup before anything of it is removed.
//! 5. A node that uses the tables is found by its wait for them, whatever its user is, and by its
//!    connection if its user is the masters' or one that a master made for a worker. A worker whose
//!    own URL names another user, and that asks for nothing while it is looked for, is not found.

use std::{fs, path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio_postgres::{
    Client, Row,
    binary_copy::BinaryCopyInWriter,
    error::Severity,
    types::{IsNull, ToSql, Type, to_sql_checked},
};

use super::{
    ServerLimits,
    address::Address,
    connect::Reached,
    connection::Warning,
    schema,
    shared::Shared,
    sql::{Columns, Failure, NOW, Outcome, int, words_of},
    tx::each,
};
use crate::{
    env::{Env, TaskGuard},
    model::{
        absence::AwayReason,
        ids::{NodeId, SessionKey},
        login::StoreUser,
        rows::StoreError,
    },
    store::{
        history::{Expected, Mark, NewCluster},
        sqlite::{
            backup::{Before, Contents, Kept, Restored},
            transfer::{Filling, NewFile, Rows, Staged, kept_beside},
        },
        tables::{Kind, NUMBERED, Numbers, PAGE_ROWS, TABLES, Table, Value},
    },
};

/// Longest time that the server takes for one step, such as the first page of a table.
const STEP_MAX: Duration = Duration::from_secs(60);

/// Time for which the tables are kept from all others before anything is changed: masters touch the
/// store at least once a second, and nodes ask again within a second when it was away. Workers may
/// ask less often, each `store_poll_interval`; a node that ends closes its connections meanwhile.
const PROBE: Duration = Duration::from_secs(3);

/// Time between two looks for nodes that wait.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Time to wait for SQLite's locks on a file that nobody else has open.
const BUSY: Duration = Duration::from_secs(1);

/// Pages are written to the file between statements, and its disk may be slow.
const BEGIN_BACKUP: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
     SET LOCAL idle_in_transaction_session_timeout = '10min'";

/// Checks of the file lie between statements: those of a large one take minutes. Nodes of a store that
/// is in use wait behind the lock that this waits for.
const BEGIN_RESTORE: &str = "BEGIN; SET LOCAL lock_timeout = '3s';
     SET LOCAL idle_in_transaction_session_timeout = '10min'";

/// Number of connections that wait for a table of the store.
const WAITING: &str = "SELECT count(DISTINCT l.pid) FROM pg_locks l
     JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT l.granted AND l.locktype = 'relation' AND n.nspname = current_schema()
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Number of other connections of this user's programs, and of the users that begin with `$1`. A
/// transaction reads this view once: a second look would show what the first one did.
const CONNECTED: &str = "SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
       AND (usename = session_user AND application_name = current_setting('application_name')
            OR starts_with(usename::text, $1))";

/// Writes the store at an address to a new file `to`, as it is at one moment. Nodes may use the store
/// meanwhile.
///
/// # Errors
/// [`StoreError::Refused`] when `to` is there already, or for what is no store of this release;
/// [`StoreError::Away`] and [`StoreError::Broken`] of the server and the files. No file of the name `to`
/// was made.
pub async fn back_up(env: &Env, address: Address, to: &Path) -> Result<Contents, StoreError> {
    let copy = Copying::begin(env, address, BEGIN_BACKUP).await?;
    let mark = copy.step(schema::known(&copy.client)).await?;
    let (file, contents) = copy.write_to(to, mark).await?;
    file.name(to)?;
    Ok(contents)
}

/// Fills the tables at an address with the backup `from`, whose cluster's nodes have to be stopped.
/// Tables are made in a schema that has none.
///
/// # Errors
/// [`StoreError::Refused`] when `from` is no whole store or of another cluster, or when the schema
/// holds something else; [`StoreError::Away`] when a node still uses the store, and for errors of the
/// server and the files. The store is as it was, except that after an error which says that the
/// restore may be done it may be; to repeat it is safe.
pub async fn restore(env: &Env, address: Address, from: &Path) -> Result<Restored, StoreError> {
    let staged = Staged::of(from, BUSY)?;
    let copy = Copying::begin(env, address, BEGIN_RESTORE).await?;
    match copy.refill(&staged, from).await {
        Ok(restored) => {
            copy.commit(restored.replaced.as_deref()).await?;
            Ok(restored)
        }
        Err(error) => {
            // An error of the rollback would hide the first one, and ends the connection all the same.
            drop(copy.run("ROLLBACK").await);
            Err(error)
        }
    }
}

/// Connection that copies a store, in one transaction. The server undoes that when this is dropped.
struct Copying {
    env: Env,
    client: Client,
    warning: Warning,
    _driver: TaskGuard,
}

impl Copying {
    async fn begin(env: &Env, address: Address, begin: &str) -> Result<Self, StoreError> {
        let limits = ServerLimits {
            expected: Expected::Existing,
            may_upgrade: false,
            ..ServerLimits::new(STEP_MAX)
        };
        let shared = Shared::new(env, address, None, limits, None);
        let Reached { client, warning, driver } = shared.reach().await?;
        let copy = Self { env: env.clone(), client, warning, _driver: driver };
        copy.run(begin).await?;
        Ok(copy)
    }

    /// Waits for a step of the server, for a bounded time.
    async fn step<T>(&self, step: impl Future<Output = Outcome<T>>) -> Result<T, StoreError> {
        match self.env.timeout(STEP_MAX, step).await {
            Ok(done) => done.map_err(StoreError::from),
            Err(_) => {
                let why = format!("no answer for {} s", STEP_MAX.as_secs());
                Err(StoreError::away(AwayReason::NoAnswer, why))
            }
        }
    }

    async fn run(&self, sql: &str) -> Result<(), StoreError> {
        self.step(async { Ok(self.client.batch_execute(sql).await?) }).await
    }

    async fn rows(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        self.step(async { Ok(self.client.query(sql, values).await?) }).await
    }

    async fn number(&self, sql: &str) -> Result<u64, StoreError> {
        self.step(async { self.client.query_one(sql, &[]).await?.nat(0) }).await
    }

    /// Writes all rows that this transaction sees to a new file, which gets its name later.
    async fn write_to(&self, to: &Path, mark: Mark) -> Result<(NewFile, Contents), StoreError> {
        let Mark { cluster, epoch, clock_ms } = mark;
        let new = NewCluster { cluster, epoch, now_ms: clock_ms };
        let mut file = Filling::begin(to, &new, BUSY)?;
        for table in &TABLES {
            let select = table.select_in_postgres();
            self.run(&format!("DECLARE copied NO SCROLL CURSOR FOR {select}")).await?;
            let fetch = format!("FETCH {PAGE_ROWS} FROM copied");
            let fetch = self.step(async { Ok(self.client.prepare(&fetch).await?) }).await?;
            loop {
                let page = async { Ok(self.client.query(&fetch, &[]).await?) };
                let page = self.step(page).await?;
                if page.is_empty() {
                    break;
                }
                let page: Outcome<Vec<_>> = page.iter().map(|row| values(table, row)).collect();
                file.put(table, &page?)?;
            }
            self.run("CLOSE copied").await?;
        }
        file.end(&self.numbers().await?)
    }

    /// Returns the numbers that rows alone do not show.
    async fn numbers(&self) -> Result<Numbers, StoreError> {
        let clock = self.step(async {
            let row = self.client.query_one("SELECT at, writes, closed FROM clock", &[]).await?;
            Ok((row.nat(0)?, row.nat(1)?, row.nat(2)?))
        });
        let (clock_ms, writes, closed_sessions) = clock.await?;
        let mut last = Vec::new();
        for (table, column) in NUMBERED {
            let find = "SELECT pg_get_serial_sequence($1, $2)";
            let sequence = self.step(async {
                Ok(self
                    .client
                    .query_one(find, &[&table, &column])
                    .await?
                    .try_get::<_, String>(0)?)
            });
            let sequence = sequence.await?;
            let last_value = format!(
                "SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {sequence}"
            );
            last.push(self.number(&last_value).await?);
        }
        let &[boards, cancels, dead_letters] = last.as_slice() else {
            return Err(StoreError::Broken { why: "its numbers are not known".to_owned() });
        };
        Ok(Numbers { clock_ms, writes, boards, closed_sessions, cancels, dead_letters })
    }

    /// Replaces all rows by those of the backup, which becomes the store that follows the one before.
    async fn refill(&self, staged: &Staged, from: &Path) -> Result<Restored, StoreError> {
        let before = self.step(schema::take_over(&self.client)).await.map_err(in_use)?;
        self.lock_tables().await?;
        let kept = match before {
            None => Before::Nothing,
            Some(mark) => {
                self.check_unused(&mark).await?;
                Before::Store(self.kept(mark).await?)
            }
        };
        let (from_epoch, contents) = staged.renew(&kept, self.number(NOW).await?)?;
        let replaced = match before {
            None => None,
            Some(mark) => {
                let name = kept_beside(from, contents.epoch);
                Some((self.write_to(&name, mark).await?.0, name))
            }
        };
        let names: Vec<_> = TABLES.iter().map(|table| table.name).collect();
        self.run(&format!("TRUNCATE TABLE clock, {}", names.join(", "))).await?;
        let rows = staged.open()?;
        for table in &TABLES {
            self.fill(table, &rows).await?;
        }
        self.set_numbers(&rows.numbers()?).await?;
        let cluster = rows.cluster()?;
        self.step(schema::identify(&self.client, cluster, contents.epoch)).await?;
        let replaced = match replaced {
            None => None,
            Some((file, name)) => {
                file.name(&name)?;
                Some(name)
            }
        };
        Ok(Restored { contents, from_epoch, replaced, lost_deny_list: false })
    }

    /// Keeps everybody else from all tables until the transaction ends.
    async fn lock_tables(&self) -> Result<(), StoreError> {
        let names: Vec<_> = TABLES.iter().map(|table| table.name).collect();
        let lock = format!(
            "LOCK TABLE chatchat_store, clock, {} IN ACCESS EXCLUSIVE MODE",
            names.join(", ")
        );
        self.run(&lock).await.map_err(in_use)
    }

    /// Refuses a store that nodes use: they would wait for its tables by now, or are still connected.
    async fn check_unused(&self, mark: &Mark) -> Result<(), StoreError> {
        let looks = PROBE.as_millis() / PROBE_INTERVAL.as_millis();
        for _ in 0..looks {
            let waiting = self.number(WAITING).await?;
            if waiting > 0 {
                return Err(used_by(&format!("{waiting} connections")));
            }
            self.env.sleep(PROBE_INTERVAL).await;
        }
        let workers = StoreUser::prefix_of_nodes(&mark.cluster);
        let connected =
            self.step(async { self.client.query_one(CONNECTED, &[&workers]).await?.nat(0) });
        match connected.await? {
            0 => Ok(()),
            some => Err(used_by(&format!("{some} connections"))),
        }
    }

    /// Reads what outlives the store before.
    async fn kept(&self, mark: Mark) -> Result<Kept, StoreError> {
        let pairs = |rows: Vec<Row>| {
            each(&rows, |row| Ok((NodeId(row.bytes(0)?), row.nat(1)?))).map_err(StoreError::from)
        };
        let closed = self.rows("SELECT key FROM closed_sessions", &[]).await?;
        Ok(Kept {
            cluster: mark.cluster,
            epoch: mark.epoch.0,
            denied: pairs(self.rows("SELECT node, at FROM denied", &[]).await?)?,
            lives: pairs(self.rows("SELECT node, incarnation FROM masters", &[]).await?)?,
            closed: each(&closed, |row| Ok(SessionKey(row.bytes(0)?)))?,
        })
    }

    async fn fill(&self, table: &Table, rows: &Rows<'_>) -> Result<(), StoreError> {
        // Numbers of identity columns are taken as they are.
        let (name, columns) = (table.name, table.names_in_postgres());
        let sql = format!("COPY {name} ({columns}) FROM STDIN (FORMAT binary)");
        let types: Vec<_> = table.columns.iter().map(|column| type_of(column.kind)).collect();
        let copy = self.step(async { Ok(self.client.prepare(&sql).await?) }).await?;
        rows.pages(table, async |page| {
            let put = async {
                let sink = self.client.copy_in::<_, Bytes>(&copy).await?;
                let mut writer = Box::pin(BinaryCopyInWriter::new(sink, &types));
                for row in page {
                    writer.as_mut().write_raw(row).await?;
                }
                writer.as_mut().finish().await?;
                Ok(())
            };
            self.step(put).await
        })
        .await
    }

    async fn set_numbers(&self, numbers: &Numbers) -> Result<(), StoreError> {
        let clock = "INSERT INTO clock (one, at, writes, closed) VALUES (1, $1, $2, $3)";
        let (at, writes) = (int(numbers.clock_ms), int(numbers.writes));
        self.rows(clock, &[&at, &writes, &int(numbers.closed_sessions)]).await?;
        let last = [numbers.boards, numbers.cancels, numbers.dead_letters];
        for ((table, column), last) in NUMBERED.into_iter().zip(last) {
            // `setval` would outlive a rollback.
            let next = int(last.saturating_add(1));
            let sql = format!("ALTER TABLE {table} ALTER COLUMN {column} RESTART WITH {next}");
            self.run(&sql).await?;
        }
        Ok(())
    }

    /// Commits. `kept` is the file with the store before: it is removed if that store stays.
    async fn commit(&self, kept: Option<&Path>) -> Result<(), StoreError> {
        let warning = |copy: &Self| {
            copy.warning.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
        };
        drop(warning(self));
        let why = match self.env.timeout(STEP_MAX, self.client.batch_execute("COMMIT")).await {
            // PostgreSQL reports a commit that no standby confirmed as done, with a warning.
            Ok(Ok(())) => match warning(self) {
                None => return Ok(()),
                Some(warning) => warning,
            },
            Ok(Err(error)) if is_undone(&error) => {
                if let Some(kept) = kept {
                    // One that stays is a copy of the store that is still there.
                    let _ = fs::remove_file(kept);
                }
                return Err(Failure::Sql(error).into());
            }
            Ok(Err(error)) => words_of(&error),
            Err(_) => format!("no answer for {} s", STEP_MAX.as_secs()),
        };
        let kept = kept.map(|kept| format!("; the store before is kept as {}", kept.display()));
        let kept = kept.unwrap_or_default();
        let why = format!("{why}; the restore may be done: repeat it{kept}");
        Err(StoreError::away(AwayReason::NoAnswer, why))
    }
}

/// Returns whether a commit that ended so has changed nothing. A server that breaks off may have
/// committed.
fn is_undone(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().and_then(|said| said.parsed_severity()) == Some(Severity::Error)
}

/// Error of a lock that somebody else has.
fn in_use(error: StoreError) -> StoreError {
    match error {
        StoreError::Away { reason: AwayReason::Locked, why } => used_by(&format!("others ({why})")),
        other => other,
    }
}

fn used_by(whom: &str) -> StoreError {
    let why = format!(
        "the store is in use by {whom}; stop all nodes of the cluster first, workers too, or wait \
         for the end of a backup"
    );
    StoreError::away(AwayReason::Locked, why)
}

fn type_of(kind: Kind) -> Type {
    match kind {
        Kind::Int => Type::INT8,
        Kind::Flag => Type::BOOL,
        Kind::Text => Type::TEXT,
        Kind::Bytes => Type::BYTEA,
    }
}

fn values(table: &Table, row: &Row) -> Outcome<Vec<Value>> {
    let value = |(nth, kind)| {
        let value = match kind {
            Kind::Int => row.try_get::<_, Option<i64>>(nth)?.map(Value::Int),
            Kind::Flag => row.try_get::<_, Option<bool>>(nth)?.map(|set| Value::Int(set.into())),
            Kind::Text => row.try_get::<_, Option<String>>(nth)?.map(Value::Text),
            Kind::Bytes => row.try_get::<_, Option<Vec<u8>>>(nth)?.map(Value::Bytes),
        };
        Ok::<_, Failure>(value.unwrap_or(Value::Null))
    };
    table.columns.iter().map(|column| column.kind).enumerate().map(value).collect()
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) if *ty == Type::BOOL => (*number != 0).to_sql(ty, out),
            Self::Int(number) => number.to_sql(ty, out),
            // Of all texts only the reason of a dead letter may hold a NUL, which PostgreSQL cannot.
            Self::Text(text) => text.replace('\0', "").to_sql(ty, out),
            Self::Bytes(bytes) => bytes.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        [Type::INT8, Type::BOOL, Type::TEXT, Type::BYTEA].contains(ty)
    }

    to_sql_checked!();
}
