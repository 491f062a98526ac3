//! Connection to the server, with its prepared statements.
//!
//! 1. A statement is prepared once per connection.
//! 2. A transaction that is over is not ended again: the server would warn of that.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};
use tokio_postgres::{
    AsyncMessage, Client, Connection, Row, Statement, error::Severity, types::ToSql,
};

use super::sql::{Columns, Outcome, words_of};
use crate::{
    env::{Env, TaskGuard},
    model::rows::StoreError,
    store::history::{Mark, Seen},
};

/// Last warning of the server on one connection.
pub(super) type Warning = Arc<Mutex<Option<String>>>;

/// Way of the notifications of one connection; what it has no room for is lost.
pub(super) type Heard = mpsc::Sender<String>;

/// Connection with its prepared statements.
pub(super) struct Db {
    pub(super) client: Client,
    pub(super) statements: Mutex<BTreeMap<&'static str, Statement>>,
    /// Whether a transaction was begun whose end was not answered yet.
    pub(super) in_transaction: AtomicBool,
    pub(super) warning: Warning,
    /// Time of the store instead of the server's, in tests.
    pub(super) clock: Option<Arc<AtomicU64>>,
    pub(super) seen: Arc<Seen>,
    /// Mark of the store when this was opened.
    pub(super) mark: Mark,
    /// Number of schema steps that this process knows.
    pub(super) steps: usize,
    /// Count of [`Shared::closed`](super::shared::Shared::closed) when this was opened.
    pub(super) closed: u64,
    /// Whether its user may read the guards of masters.
    pub(super) reads_guards: bool,
    /// Serves the connection until this is dropped.
    pub(super) _driver: TaskGuard,
}

impl Db {
    /// Returns whether the connection is known to be over.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Prepares statements that are to be sent one behind the other, without waiting between them.
    pub(super) async fn prepare(&self, all: &[&'static str]) -> Outcome<()> {
        for sql in all {
            self.statement(sql).await?;
        }
        Ok(())
    }

    async fn statement(&self, sql: &'static str) -> Outcome<Statement> {
        let known = |db: &Self| {
            db.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned()
        };
        if let Some(statement) = known(self) {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        let mut all = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(sql, statement.clone());
        Ok(statement)
    }

    /// Returns the rows of a query.
    pub(super) async fn rows(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Outcome<Vec<Row>> {
        let statement = self.statement(sql).await?;
        Ok(self.client.query(&statement, values).await?)
    }

    /// Returns the row of a query that has one at most.
    pub(super) async fn row(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Outcome<Option<Row>> {
        let statement = self.statement(sql).await?;
        Ok(self.client.query_opt(&statement, values).await?)
    }

    /// Returns the row of a query that has exactly one.
    pub(super) async fn one(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Outcome<Row> {
        let none = || StoreError::Broken { why: "a row that every store has is not there".into() };
        Ok(self.row(sql, values).await?.ok_or_else(none)?)
    }

    /// Carries a statement out and returns the number of rows that it changed.
    pub(super) async fn run(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Outcome<u64> {
        let statement = self.statement(sql).await?;
        Ok(self.client.execute(&statement, values).await?)
    }

    /// Carries out a statement without values that is not worth preparing.
    pub(super) async fn batch(&self, sql: &'static str) -> Outcome<()> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// Carries out statements that name what no value can stand for.
    pub(super) async fn batch_of(&self, sql: &str) -> Outcome<()> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self, sql: &'static str) -> Outcome<()> {
        // A statement that is sent behind it may fail before it is answered.
        self.in_transaction.store(true, Ordering::Relaxed);
        self.batch(sql).await
    }

    /// Commits. Whatever the server answers, the transaction is over.
    pub(super) async fn commit(&self) -> Outcome<()> {
        let committed = self.batch("COMMIT").await;
        self.in_transaction.store(false, Ordering::Relaxed);
        committed
    }

    /// Undoes the transaction, if one is open.
    pub(super) async fn roll_back(&self) -> Outcome<()> {
        if self.in_transaction.load(Ordering::Relaxed) {
            self.batch("ROLLBACK").await?;
            self.in_transaction.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Reads the server's time from a column, ms.
    pub(super) fn time(&self, row: &Row, column: usize) -> Outcome<u64> {
        let now_ms = row.nat(column)?;
        Ok(self.clock.as_ref().map_or(now_ms, |clock| clock.load(Ordering::Relaxed)))
    }

    pub(super) fn forget_warning(&self) {
        *self.warning.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns what the server warned of since [`Self::forget_warning`].
    pub(super) fn warning(&self) -> Option<String> {
        self.warning.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves a connection until the guard is dropped, keeps its last warning, and passes on what it is
/// notified of.
pub(super) fn drive<S, T>(
    env: &Env,
    mut connection: Connection<S, T>,
    (warning, heard): (&Warning, Option<Heard>),
) -> TaskGuard
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let warning = Arc::clone(warning);
    let serve = async move {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            match message {
                Ok(AsyncMessage::Notice(notice)) => {
                    if notice.parsed_severity() == Some(Severity::Warning) {
                        tracing::warn!(why = notice.message(), "the store warns");
                        let mut warning = warning.lock().unwrap_or_else(PoisonError::into_inner);
                        *warning = Some(notice.message().to_owned());
                    }
                }
                Ok(AsyncMessage::Notification(told)) => {
                    if let Some(heard) = &heard {
                        // Each is a hint: the poll brings what it told of.
                        let _ = heard.try_send(told.payload().to_owned());
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(why = words_of(&error), "a connection to the store ended");
                    break;
                }
            }
        }
    };
    env.spawn("store-connection", serve).abort_on_drop()
}
