//! Front end: JSON, server-sent events and the page, over `Env`'s streams.
//!
//! ```text
//! Listener -> serve (caps, TLS, deadlines) -> hyper http1 -> router -> api -> MasterHandle
//!                                          -> chunks of a stream, after its head
//! ```
//!
//! 1. Nothing is decided here: every answer is the master's, put into HTTP's words.
//! 2. 429 and 503 mean that this request did nothing; what may have been done is a 504.
//! 3. A session's token appears in no path, query, log or event; only its hash goes further.
//! 4. Only names of ours are answered, and a browser's unsafe request only from a page of ours.
//! 5. Every wait has an end, every table and buffer a bound, by the node's own clock. What one address may
//!    have at once leaves most of it to the others.

mod access;
mod admin;
mod api;
mod auth;
mod body;
mod chunks;
mod connection;
mod headers;
mod io;
mod long_body;
mod metrics;
mod openapi;
mod page;
mod places;
mod problem;
mod rate;
mod server;
#[cfg(test)]
mod tests;
mod tls;
mod unmet;
mod unread;

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use tokio::sync::broadcast;

pub use self::{
    access::{Access, AccessError},
    admin::{AdminParams, AdminToken, serve_admin},
    metrics::Metrics,
    openapi::text as openapi_text,
    tls::{Tls, TlsError},
};
use self::{
    auth::Caller, connection::PeerHost, places::Places, problem::ErrorResponse, rate::RateLimiter,
    server::Closing, unmet::Unmet, unread::Unread,
};
use crate::{
    config::Config,
    env::{Env, Listener},
    model::{
        bounds::BOARDS_AT_ONCE,
        ids::{Author, SessionKey},
        message::Task,
        outcome::{Outcome, TaskResult},
    },
    node::handle::{
        MasterHandle, MasterInfo, Reply, RequestError, SessionRequest, Stopped, Write, Written,
    },
};

/// Time for each further board of a session that created [`BOARDS_AT_ONCE`].
const BOARD_INTERVAL: Duration = Duration::from_secs(360);
/// The same of an address, which may be that of a whole office.
const BOARD_INTERVAL_OF_ADDRESS: Duration = Duration::from_secs(120);

/// Parameters of a front end besides its master.
#[derive(Clone, Debug)]
pub struct HttpParams {
    /// Limits and time-outs.
    pub config: Config,
    /// Counters of the front end; the admin listener shows them.
    pub metrics: Metrics,
    /// Names, origins and proxies.
    pub access: Access,
    /// Certificate and key; none for plain HTTP.
    pub tls: Option<Tls>,
}

/// Serves people until it is dropped; open connections then get a moment to finish.
pub async fn serve(
    env: Env,
    listener: Box<dyn Listener>,
    handle: MasterHandle,
    params: HttpParams,
) {
    let closing = Closing::new();
    let (access, tls) = (params.access.clone(), params.tls.clone());
    // A proxy brings everybody's connections.
    let limit = server::limit(&params.config).sparing(move |host| access.trusts(host));
    let app = App::new(env.clone(), handle, params, &closing);
    let counts = app.metrics().clone();
    counts.set_connections_max(app.config().connections_max);
    server::run(env, listener, tls, api::router(app), limit, counts, closing).await;
}

/// State that all requests share.
#[derive(Clone, Debug)]
struct App(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    env: Env,
    handle: MasterHandle,
    params: HttpParams,
    /// Recent requests of each session.
    rates: Mutex<RateLimiter<SessionKey>>,
    /// Recent openings of sessions from each address.
    openings: Mutex<RateLimiter<Arc<str>>>,
    /// Requests of sessions that this front end has not met, from each address.
    unmet: Mutex<Unmet>,
    /// Boards that were created.
    boards: Mutex<Created>,
    /// Places of open streams.
    places: Places,
    /// Room of long answers.
    unread: Unread,
    /// The cluster's id; it does not change once known.
    cluster: OnceLock<[u8; 16]>,
    /// Pages that were sent to other masters so far.
    redirects: AtomicUsize,
    /// Signal that ends streams when the server stops.
    closing: broadcast::Sender<()>,
}

/// Boards that each session and each address created: sessions are free, and boards are never deleted.
#[derive(Debug)]
struct Created {
    by_session: RateLimiter<SessionKey>,
    by_address: RateLimiter<Arc<str>>,
}

impl App {
    fn new(env: Env, handle: MasterHandle, params: HttpParams, closing: &Closing) -> Self {
        let Config {
            session_requests_per_s,
            session_requests_burst,
            openings_per_s,
            openings_burst,
            sessions_cached_max,
            unread_bytes_max,
            ..
        } = params.config;
        let rates =
            RateLimiter::new(session_requests_per_s, session_requests_burst, sessions_cached_max);
        let openings = RateLimiter::new(openings_per_s, openings_burst, sessions_cached_max);
        let created = Created {
            by_session: RateLimiter::every(BOARD_INTERVAL, BOARDS_AT_ONCE, sessions_cached_max),
            by_address: RateLimiter::every(
                BOARD_INTERVAL_OF_ADDRESS,
                BOARDS_AT_ONCE,
                sessions_cached_max,
            ),
        };
        Self(Arc::new(Shared {
            env,
            handle,
            params,
            rates: Mutex::new(rates),
            openings: Mutex::new(openings),
            unmet: Mutex::new(Unmet::new(sessions_cached_max)),
            boards: Mutex::new(created),
            places: Places::default(),
            unread: Unread::new(unread_bytes_max),
            cluster: OnceLock::new(),
            redirects: AtomicUsize::new(0),
            closing: closing.sender(),
        }))
    }

    fn env(&self) -> &Env {
        &self.0.env
    }

    fn handle(&self) -> &MasterHandle {
        &self.0.handle
    }

    fn config(&self) -> &Config {
        &self.0.params.config
    }

    fn access(&self) -> &Access {
        &self.0.params.access
    }

    /// Returns another master's front end, each in its turn, if there is one.
    fn other_front_end(&self, masters: &[MasterInfo]) -> Option<String> {
        let others: Vec<_> = masters
            .iter()
            .map(|master| master.http.as_str())
            .filter(|http| page::is_origin(http) && !self.access().is_own(http))
            // A page that came encrypted is not sent on in the clear.
            .filter(|http| http.starts_with("https://") || !self.is_https())
            .collect();
        let turn = self.0.redirects.fetch_add(1, Ordering::Relaxed);
        others.get(turn.checked_rem(others.len())?).map(|http| (*http).to_owned())
    }

    /// Whether browsers reach this front end encrypted, so that its cookie never goes out plain.
    fn is_https(&self) -> bool {
        self.access().is_https()
    }

    fn metrics(&self) -> &Metrics {
        &self.0.params.metrics
    }

    /// Places of open streams.
    fn places(&self) -> &Places {
        &self.0.places
    }

    /// Resolves when the server is being dropped.
    fn closing(&self) -> broadcast::Receiver<()> {
        self.0.closing.subscribe()
    }

    /// Counts one request of a session. Returns whether its address was charged: it is for a session that
    /// this front end has not met.
    fn admit(&self, caller: &Caller) -> Result<bool, ErrorResponse> {
        let now = self.env().now();
        let is_charged = !self.is_of_many(&caller.from)
            && self
                .unmet()
                .admit(now, &caller.key, &caller.from)
                .map_err(ErrorResponse::too_many_unmet)?;
        self.rates().admit(now, caller.key).map_err(|retry_ms| {
            if is_charged {
                self.unmet().give_back(&caller.from);
            }
            ErrorResponse::rate_limited(retry_ms)
        })?;
        Ok(is_charged)
    }

    fn unmet(&self) -> MutexGuard<'_, Unmet> {
        self.0.unmet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a session was opened here.
    fn on_opened(&self, key: SessionKey) {
        self.unmet().on_found(key);
    }

    fn rates(&self) -> MutexGuard<'_, RateLimiter<SessionKey>> {
        self.0.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one board created by a session, at its address as well.
    fn admit_board(&self, caller: &Caller) -> Result<(), ErrorResponse> {
        let now = self.env().now();
        let mut created = self.0.boards.lock().unwrap_or_else(PoisonError::into_inner);
        // First, so that a session which may create no more takes nothing from its neighbours.
        created
            .by_session
            .check(now, &caller.key)
            .map_err(ErrorResponse::too_many_boards_of_session)?;
        if !self.is_of_many(&caller.from) {
            created
                .by_address
                .admit(now, Arc::clone(&caller.from.0))
                .map_err(ErrorResponse::too_many_boards_of_address)?;
        }
        created.by_session.admit(now, caller.key).map_err(ErrorResponse::too_many_boards_of_session)
    }

    /// Takes a board back that was counted and was not created.
    fn give_board_back(&self, caller: &Caller) {
        let mut created = self.0.boards.lock().unwrap_or_else(PoisonError::into_inner);
        created.by_session.give_back(&caller.key);
        created.by_address.give_back(&caller.from.0);
    }

    /// Returns whether an address is that of a proxy that does not say for whom it asks: it brings
    /// everybody's requests.
    fn is_of_many(&self, from: &PeerHost) -> bool {
        self.access().trusts(&from.0)
    }

    /// Checks, before anything is read for an answer that may be long, that its address has room for it.
    fn check_room(&self, from: &PeerHost) -> Result<(), ErrorResponse> {
        let has_room = self.0.unread.has_room(from, self.unread_share(from));
        if has_room { Ok(()) } else { Err(ErrorResponse::too_much_unread()) }
    }

    /// Returns the body of an answer that may be long. It holds its room until it was read.
    fn hold(&self, from: &PeerHost, body: Vec<u8>) -> Result<Bytes, ErrorResponse> {
        let held = self.0.unread.hold(from, self.unread_share(from), body);
        held.ok_or_else(ErrorResponse::too_much_unread)
    }

    /// Returns the bytes of long answers that an address may leave unread.
    fn unread_share(&self, from: &PeerHost) -> usize {
        if self.is_of_many(from) { usize::MAX } else { self.config().unread_bytes_per_address_max }
    }

    /// Counts one session opened from an address.
    fn admit_opening(&self, from: PeerHost) -> Result<(), ErrorResponse> {
        let now = self.env().now();
        let mut openings = self.0.openings.lock().unwrap_or_else(PoisonError::into_inner);
        openings.admit(now, from.0).map_err(ErrorResponse::too_many_openings)
    }

    /// Returns the cluster's id.
    async fn cluster(&self) -> Result<[u8; 16], ErrorResponse> {
        if let Some(id) = self.0.cluster.get() {
            return Ok(*id);
        }
        let told = self.bounded(self.handle().cluster_id()).await.flatten();
        let id = told.ok_or_else(|| ErrorResponse::from(RequestError::Away))?;
        Ok(*self.0.cluster.get_or_init(|| id))
    }

    /// Waits for an answer of the master; `None` when it does not come in time.
    async fn bounded<T>(&self, ask: impl Future<Output = Result<T, Stopped>>) -> Option<T> {
        self.env().timeout(self.config().request_timeout, ask).await.ok()?.ok()
    }

    /// Sends a session's read to the master, in one message. No answer in time counts as
    /// [`RequestError::Away`].
    async fn ask<T>(
        &self,
        caller: Caller,
        request: impl FnOnce(Reply<T>) -> SessionRequest,
    ) -> Result<T, ErrorResponse> {
        let is_charged = self.admit(&caller)?;
        let answer = self.bounded(self.handle().request(caller.key, caller.user, request)).await;
        self.known(&caller, is_charged, answer.unwrap_or(Err(RequestError::Away)))
    }

    /// Sends a session's write to the master, in one message, and returns who wrote and the
    /// result. A write that is not known to have failed is a 504.
    async fn write(
        &self,
        caller: Caller,
        write: Write,
    ) -> Result<(Author, TaskResult), ErrorResponse> {
        let Written { author, outcome } = self.write_or_hold(caller, write).await?;
        Ok((author, settled(outcome)?))
    }

    /// Sends a session's write to the master, as [`App::write`] does. A post may be held.
    async fn write_or_hold(&self, caller: Caller, write: Write) -> Result<Written, ErrorResponse> {
        let is_charged = self.admit(&caller)?;
        let request = |reply| SessionRequest::Write { write, reply };
        let answer = self.handle().request(caller.key, caller.user, request);
        let Some(answer) = self.in_time(answer).await else {
            if is_charged {
                self.unmet().give_back(&caller.from);
            }
            return Err(ErrorResponse::outcome_unknown());
        };
        self.known(&caller, is_charged, answer)
    }

    /// Submits a write that comes from no session. One that is not known to have failed is a 504.
    async fn submit(&self, task: Task) -> Result<TaskResult, ErrorResponse> {
        settled(self.in_time(self.handle().submit(task)).await.unwrap_or(Outcome::Unknown))
    }

    /// Waits for the outcome of a write. The master answers in time; this is for one that cannot.
    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, Stopped>>) -> Option<T> {
        const GRACE: Duration = Duration::from_secs(2);
        let limit = self.config().request_timeout + GRACE;
        self.env().timeout(limit, answer).await.ok()?.ok()
    }

    /// Returns the master's answer. A stranger keeps no place in the table of rates, and its address stays
    /// charged. The address of a session that is there, or that could not be looked up, does not.
    fn known<T>(
        &self,
        caller: &Caller,
        is_charged: bool,
        answer: Result<T, RequestError>,
    ) -> Result<T, ErrorResponse> {
        if matches!(answer, Err(RequestError::Unauthorised)) {
            self.rates().forget(&caller.key);
            self.unmet().on_missing(caller.key);
        } else if is_charged {
            let mut unmet = self.unmet();
            unmet.give_back(&caller.from);
            if matches!(answer, Ok(_) | Err(RequestError::OtherUser)) {
                unmet.on_found(caller.key);
            }
        }
        Ok(answer?)
    }
}

/// Returns the result of a write that the store decided.
fn settled(outcome: Outcome) -> Result<TaskResult, ErrorResponse> {
    match outcome {
        Outcome::Settled(TaskResult::Refused(why)) => Err(ErrorResponse::refused(&why)),
        Outcome::Settled(result) => Ok(result),
        Outcome::Overloaded { retry_ms } => Err(ErrorResponse::overloaded(retry_ms)),
        Outcome::Unavailable { retry_ms } => Err(ErrorResponse::unavailable(retry_ms)),
        // No other task than a post is held: what is meant is not known.
        Outcome::Unknown | Outcome::Pending { .. } => Err(ErrorResponse::outcome_unknown()),
        Outcome::DeadLetter => Err(ErrorResponse::dead_letter()),
    }
}
