//! Opening of a connection to the server that takes writes: log-in, settings and checks.
//!
//! 1. Every connection has time-outs of a second, or of `store_timeout` if that is longer: a client
//!    that stopped in mid-transaction holds locks for no longer.
//! 2. A server that may forget a commit (`fsync` or `synchronous_commit` off) is refused.
//! 3. A connection is used once the store behind it is the one that was seen before, not older, and lacks no
//!    post that a node of this process has.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::net::UnixStream;
use tokio_postgres::{Client, NoTls, config::SslMode, error::SqlState};

use super::{
    address::{Place, Server},
    connection::{Db, Heard, Warning, drive},
    posts,
    schema::{self, Tables},
    shared::Shared,
    sql::{Columns, Failure, store_error, words_of},
    tls::{Plain, Tls},
};
use crate::{
    env::{BoxFuture, BoxStream, TaskGuard},
    model::{absence::AwayReason, login::StoreLogin, rows::StoreError},
    store::{history::Mark, refused},
};

/// Time for one server to take a connection and to answer the checks. Changes of the tables, and the read of
/// the boards that are compared, have such a time of their own.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Error of a server that took longer than that.
const NO_CONNECTION: &str = "no connection";

/// Shortest time-out of a statement, of a wait for a lock, and of a pause in a transaction.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// Returns the settings of every connection. Statements are short, and find their rows in the order
/// of a key: to compile one takes a thousand times as long as it does, and a bitmap of a board's posts,
/// which is planned for while there are no statistics, holds all of them for a page of a few. An
/// engine that does neither has no such settings.
fn settings(store_timeout: Duration) -> String {
    let ms = store_timeout.max(TIMEOUT_MIN).as_millis();
    format!(
        "SET statement_timeout = {ms}; SET lock_timeout = {ms}; \
         SET idle_in_transaction_session_timeout = {ms}; \
         SET default_transaction_isolation = 'read committed'; \
         SELECT set_config(name, 'off', false) FROM pg_settings
             WHERE name IN ('jit', 'enable_bitmapscan')"
    )
}

/// State of the server that decides whether it may hold a store. An engine that does not know a
/// setting has nothing to switch off.
const STATE: &str = "SELECT current_setting('transaction_read_only', true),
       current_setting('server_encoding', true),
       current_setting('fsync', true),
       current_setting('synchronous_commit', true),
       current_setting('synchronous_standby_names', true)";

const STANDBYS: &str = "SELECT count(*) FROM pg_stat_replication";

/// Whether this user may make others.
pub(super) const MAKES_LOGINS: &str =
    "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user";

/// Remedy for a user that may make no others.
pub(super) const WAY_OUT: &str = "give it that right by ALTER ROLE .. CREATEROLE, or name a user in \
                                  the workers' store";

/// Connection to a server that may hold a store, whatever its tables are.
pub(super) struct Reached {
    pub(super) client: Client,
    pub(super) warning: Warning,
    /// Serves the connection until this is dropped.
    pub(super) driver: TaskGuard,
}

impl Shared {
    /// Connects to the first server that takes writes, beginning with the one that did last.
    ///
    /// # Errors
    /// [`StoreError::Refused`] and [`StoreError::Broken`] before any store was seen, for what waiting
    /// does not mend; [`StoreError::Away`] else.
    pub(super) async fn connect(&self) -> Result<Db, StoreError> {
        self.connect_with(None).await
    }

    /// Connects as [`Self::connect`] does. What the server notifies this connection of goes to `heard`,
    /// which is closed when the connection ends.
    ///
    /// # Errors
    /// As those of [`Self::connect`].
    pub(super) async fn connect_with(&self, heard: Option<&Heard>) -> Result<Db, StoreError> {
        let login = match &self.login {
            None => None,
            Some(slot) => Some(slot.get().ok_or_else(no_login)?),
        };
        let login = login.as_ref();
        self.to_any_server(|server| Box::pin(self.connect_to(server, login, heard))).await
    }

    /// Connects as [`Self::connect`] does, to a server that may hold a store, whatever its tables are.
    ///
    /// # Errors
    /// As those of [`Self::connect`] that are not of the tables.
    pub(super) async fn reach(&self) -> Result<Reached, StoreError> {
        let reach = |server| {
            self.in_time(CONNECT_MAX, NO_CONNECTION, self.reach_server(server, None, None))
        };
        self.to_any_server(|server| Box::pin(reach(server))).await
    }

    /// Connects to the first server that can be used, beginning with the one that was used last.
    async fn to_any_server<'a, T>(
        &'a self,
        connect: impl Fn(&'a Server) -> BoxFuture<'a, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let servers = self.address.servers();
        let first = self.good.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for nth in 0..servers.len() {
            let at = (first + nth) % servers.len();
            let Some(server) = servers.get(at) else { continue };
            let error = match connect(server).await {
                Ok(connected) => {
                    self.good.store(at, Ordering::Relaxed);
                    return Ok(connected);
                }
                Err(error) => error,
            };
            tracing::debug!(server = %server.place, %error, "no connection to the store");
            failures.push((server, error));
        }
        Err(told(&failures))
    }

    async fn connect_to(
        &self,
        server: &Server,
        login: Option<&StoreLogin>,
        heard: Option<&Heard>,
    ) -> Result<Db, StoreError> {
        let (before, closed) = (self.seen.before(), self.closed.load(Ordering::Relaxed));
        let find = async {
            let reached = self.reach_server(server, login, heard).await?;
            let found = schema::find(&reached.client, self.rights(), self.release).await;
            let found = found.map_err(|failure| self.unprepared(failure, login))?;
            if self.may_upgrade {
                self.tell_of_logins(&reached.client).await;
            }
            Ok((found, reached))
        };
        let (found, reached) = self.in_time(CONNECT_MAX, NO_CONNECTION, find).await?;
        let Reached { client, warning, driver } = reached;
        let mark = match found {
            Tables::Ready(mark) => mark,
            Tables::Missing { cluster } => self.changed(&client, Some(cluster), login).await?,
            Tables::Outdated => self.changed(&client, None, login).await?,
        };
        if before.fits_any_ends() {
            self.seen.check(before.mark(), mark)?;
        } else {
            let read = async {
                let read = posts::boards(&client).await;
                read.map_err(|failure| self.unprepared(failure, login))
            };
            let boards = self.in_time(CONNECT_MAX, NO_CONNECTION, read).await?;
            self.seen.check_new(&before, mark, &boards)?;
        }
        if let (Some(slot), Some(login)) = (&self.login, login) {
            slot.on_taken(login);
        }
        Ok(Db {
            client,
            statements: Mutex::default(),
            in_transaction: AtomicBool::new(false),
            warning,
            clock: self.clock.clone(),
            seen: Arc::clone(&self.seen),
            mark,
            steps: self.release.steps.len(),
            closed,
            reads_guards: login.is_none(),
            _driver: driver,
        })
    }

    /// Makes the tables for the cluster `new` if they are still missing, or upgrades them, and returns the
    /// store's mark.
    async fn changed(
        &self,
        client: &Client,
        new: Option<[u8; 16]>,
        login: Option<&StoreLogin>,
    ) -> Result<Mark, StoreError> {
        let change = async {
            let changed = schema::change(client, new, self.release, self.change_max).await;
            changed.map_err(|failure| self.unprepared(failure, login))
        };
        self.in_time(self.change_max, "the tables were not made or upgraded", change).await
    }

    async fn reach_server(
        &self,
        server: &Server,
        login: Option<&StoreLogin>,
        heard: Option<&Heard>,
    ) -> Result<Reached, StoreError> {
        let io = |e: io::Error| StoreError::away(AwayReason::Unreachable, e.to_string());
        let stream: BoxStream = match &server.place {
            Place::Tcp { .. } => {
                self.env.connect(&server.place.to_string(), CONNECT_MAX).await.map_err(io)?
            }
            Place::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(io)?),
        };
        let warning = Warning::default();
        let ears = (&warning, heard.cloned());
        let (client, driver) = self.log_in(server, login, Plain(stream), ears).await?;
        self.check_server(&client).await?;
        Ok(Reached { client, warning, driver })
    }

    async fn log_in(
        &self,
        server: &Server,
        login: Option<&StoreLogin>,
        stream: Plain,
        ears: (&Warning, Option<Heard>),
    ) -> Result<(Client, TaskGuard), StoreError> {
        let mut config = self.address.config().map_err(|e| {
            let file = self.address.password_file().unwrap_or_else(|| "".as_ref());
            self.lasting(format!("password_file {}: {e}", file.display()))
        })?;
        if let Some(login) = login {
            config.user(login.user.as_str()).password(login.password.text().as_bytes());
        }
        let error = |e| self.log_in_error(&e, login);
        if !server.tls {
            config.ssl_mode(SslMode::Disable);
            let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(error)?;
            return Ok((client, drive(&self.env, connection, ears)));
        }
        config.ssl_mode(SslMode::Require);
        let Some(roots) = self.address.roots() else {
            return Err(self.lasting("it names no sslrootcert"));
        };
        let Place::Tcp { host, .. } = &server.place else {
            return Err(self.lasting("a socket has no TLS"));
        };
        let tls = Tls::trusting(roots)
            .map_err(|why| self.lasting(format!("sslrootcert {}: {why}", roots.display())))?;
        let tls = tls.to(host).map_err(|why| self.lasting(why))?;
        let (client, connection) = config.connect_raw(stream, tls).await.map_err(error)?;
        Ok((client, drive(&self.env, connection, ears)))
    }

    /// Returns the error of a log-in: lasting if an operator has to mend a setting.
    fn log_in_error(
        &self,
        error: &tokio_postgres::Error,
        login: Option<&StoreLogin>,
    ) -> StoreError {
        let is_of_user = error.code().is_some_and(|code| {
            code.code().starts_with("28") || *code == SqlState::INSUFFICIENT_PRIVILEGE
        });
        if let Some(login) = login.filter(|_| is_of_user) {
            return self.refused_login(login, &words_of(error));
        }
        let is_setting = match error.code() {
            Some(code) => {
                // Wrong user, password or database, or no right to it.
                code.code().starts_with("28")
                    || *code == SqlState::INVALID_CATALOG_NAME
                    || *code == SqlState::INSUFFICIENT_PRIVILEGE
            }
            None => match std::error::Error::source(error).and_then(|e| e.downcast_ref()) {
                // A certificate that is not trusted, or not of this name.
                Some::<&io::Error>(e) => e.kind() == io::ErrorKind::InvalidData,
                None => !error.is_closed(),
            },
        };
        if is_setting { self.lasting(words_of(error)) } else { store_error(error) }
    }

    /// Error of a login that a master gave, which gives another one when it is asked.
    fn refused_login(&self, login: &StoreLogin, why: &str) -> StoreError {
        if let Some(slot) = &self.login {
            slot.on_refused(login);
        }
        let why = format!("it refuses the login of a master, user {}: {why}", login.user);
        StoreError::away(AwayReason::Failing, why)
    }

    /// Error that waiting does not mend, as long as no store was seen; away for now after that.
    fn lasting(&self, why: impl Into<String>) -> StoreError {
        match self.seen.newest() {
            None => refused(why),
            Some(_) => StoreError::away(AwayReason::Failing, why),
        }
    }

    /// Sets a connection up, and sees whether the server may hold a store.
    async fn check_server(&self, client: &Client) -> Result<(), StoreError> {
        let sql = |error: tokio_postgres::Error| store_error(&error);
        client.batch_execute(&settings(self.timeout)).await.map_err(sql)?;
        let row = client.query_one(STATE, &[]).await.map_err(sql)?;
        let setting = |nth: usize| -> Option<&str> { row.try_get(nth).ok().flatten() };
        if setting(0) == Some("on") {
            return Err(StoreError::away(AwayReason::ReadOnly, "it takes no writes: a standby"));
        }
        if let Some(other) = setting(1).filter(|encoding| *encoding != "UTF8") {
            return Err(self.lasting(format!("its database is in {other}; make one in UTF8")));
        }
        for (nth, name) in [(2, "fsync"), (3, "synchronous_commit")] {
            if setting(nth) == Some("off") {
                return Err(self.lasting(format!(
                    "its {name} is off, so that a power loss takes what was acknowledged; switch \
                     it on"
                )));
            }
        }
        self.warn_of_standbys(client, setting(3), setting(4)).await;
        Ok(())
    }

    /// Waits for a step of connecting. A step that takes longer is dropped, and the connection with it;
    /// the error then begins with `undone`.
    pub(super) async fn in_time<T>(
        &self,
        most: Duration,
        undone: &str,
        step: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.env.timeout(most, Box::pin(step)).await.unwrap_or_else(|_| {
            let why = format!("{undone} within {} s", most.as_secs());
            Err(StoreError::away(AwayReason::Unreachable, why))
        })
    }

    /// Returns the error of tables that are not the store, or could not be made or upgraded.
    fn unprepared(&self, failure: Failure, login: Option<&StoreLogin>) -> StoreError {
        match login {
            Some(login) if lacks_rights(&failure) => {
                self.refused_login(login, &StoreError::from(failure).to_string())
            }
            _ => self.seen.while_running(of_schema(failure)),
        }
    }

    /// Says once per process that this user may give workers no logins.
    async fn tell_of_logins(&self, client: &Client) {
        let may = match client.query_opt(MAKES_LOGINS, &[]).await {
            Ok(row) => row.and_then(|row| row.try_get(0).ok()).unwrap_or(false),
            // Not a view of this engine.
            Err(_) => false,
        };
        if !may && !self.told_logins.swap(true, Ordering::Relaxed) {
            tracing::info!(
                "the store's user of this node may make no others: a worker needs a user in its own \
                 store address, and expelling it does not end its access; {}",
                WAY_OUT
            );
        }
    }

    /// Says once per process that a fail-over may lose what was acknowledged (G1).
    async fn warn_of_standbys(
        &self,
        client: &Client,
        commit: Option<&str>,
        synchronous: Option<&str>,
    ) {
        let has_standby = self.address.servers().len() > 1
            || match client.query_one(STANDBYS, &[]).await {
                Ok(row) => row.nat(0).is_ok_and(|standbys| standbys > 0),
                // Not a view of this engine, or not one that this role may read.
                Err(_) => false,
            };
        let waits = synchronous.is_none_or(|names| !names.is_empty()) && commit != Some("local");
        if has_standby && !waits && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the store has a standby that commits do not wait for: after a fail-over to it \
                 acknowledged posts may be lost, so G1 does not hold; set synchronous_standby_names"
            );
        }
    }
}

/// Error of a worker that has no login yet.
fn no_login() -> StoreError {
    let why = "no master has given this worker a login for it yet, and its address names no user";
    StoreError::away(AwayReason::NoLogin, why)
}

/// Error of the schema: what a statement of it reports is no fault of an operation.
fn of_schema(failure: Failure) -> StoreError {
    let lacks_rights = lacks_rights(&failure);
    match StoreError::from(failure) {
        StoreError::Away { why, .. } if lacks_rights => {
            refused(format!("{why}; the role needs rights on its tables"))
        }
        other => other,
    }
}

/// Returns whether the user has no right to what it asked for.
fn lacks_rights(failure: &Failure) -> bool {
    matches!(failure, Failure::Sql(e) if e.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE))
}

/// Returns what to tell of a store none of whose servers can be used: the most telling error, with a
/// line of each server.
fn told(failures: &[(&Server, StoreError)]) -> StoreError {
    let why = |error: &StoreError| match error {
        StoreError::Away { why, .. } | StoreError::Refused { why } | StoreError::Broken { why } => {
            why.clone()
        }
        other => other.to_string(),
    };
    let lines: Vec<_> = failures
        .iter()
        .map(|(server, error)| format!("{}: {}", server.place, why(error)))
        .collect();
    let lines = lines.join("; ");
    let rank = |error: &StoreError| match error {
        StoreError::Refused { .. } => 0,
        StoreError::Broken { .. } => 1,
        StoreError::Away { reason, .. } => match reason {
            AwayReason::Replaced | AwayReason::RolledBack | AwayReason::Damaged => 2,
            AwayReason::Unreachable => 5,
            AwayReason::ReadOnly => 6,
            _ => 4,
        },
        _ => 7,
    };
    match failures.iter().map(|(_, error)| error).min_by_key(|error| rank(error)) {
        Some(StoreError::Refused { .. }) => refused(lines),
        Some(StoreError::Broken { .. }) => StoreError::Broken { why: lines },
        Some(StoreError::Away { reason, .. }) => StoreError::away(*reason, lines),
        _ => StoreError::away(AwayReason::Unreachable, lines),
    }
}
