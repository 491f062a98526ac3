//! Admin listener: metrics and the whole state of the cluster, for those who show the cluster's
//! admin token.

use std::{fmt, io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    Metrics, access,
    api::{json, nothing_here, typed, unexpected, written, wrong_method},
    auth::{self, Secret},
    body::{optional_json, query},
    connection::PeerHost,
    headers,
    problem::ErrorResponse,
    server::{self, Closing},
    settled,
    tls::Tls,
};
use crate::{
    api::{ClusterState, DeadLetter, DeadLetterList, Draining, JoinTerms, ProblemType},
    comm::seldom::Seldom,
    config::Config,
    env::{Env, Listener},
    model::{
        ids::{Malformed, NodeId, Resource, Role, TokenId},
        message::Task,
        outcome::{Outcome, TaskResult},
        rows::{self, NewPost},
    },
    node::handle::{DrainError, MasterHandle, RequestError, Stopped, WorkerDrainError},
};

/// Time that a master has for an operator's request.
const LIMIT: Duration = Duration::from_secs(5);

/// Shortest time between two log lines on requests without the token.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Maximum number of dead letters in one answer.
const LETTERS_MAX: usize = 1000;

/// Maximum length of the texts and reasons in one answer, bytes. Escapes make six times as much of
/// them at most, and clients read 8 MiB.
const LETTERS_BYTES_MAX: usize = 1 << 20;

/// Largest body with the terms of a join token, in bytes.
const TERMS_BYTES_MAX: usize = 1024;

/// File of the token in a node's directory.
const TOKEN_FILE: &str = "admin.token";

/// Parameters of an admin listener besides its master.
#[derive(Clone, Debug)]
pub struct AdminParams {
    /// Limits and time-outs.
    pub config: Config,
    /// Counters of the front end beside it.
    pub metrics: Metrics,
    /// Token that operators have to show.
    pub token: AdminToken,
    /// Certificate and key; none for plain HTTP.
    pub tls: Option<Tls>,
}

/// Admin token, one for the whole cluster.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct AdminToken(String);

impl AdminToken {
    /// Reads a token as it stands in its file; surrounding white space does not count.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// Reads the token of the node's directory, or makes one there. Blocks.
    ///
    /// # Errors
    /// Errors of the disk, or the file is empty.
    pub fn of_disk(env: &Env) -> io::Result<Self> {
        let disk = env.disk();
        let token = match disk.read(TOKEN_FILE)? {
            Some(bytes) => Self::new(&String::from_utf8_lossy(&bytes)),
            None => {
                let fresh = Secret::new(env).text();
                disk.write_atomic(TOKEN_FILE, format!("{fresh}\n").as_bytes())?;
                Self(fresh)
            }
        };
        if token.0.is_empty() {
            let why = format!("{TOKEN_FILE} is empty; remove it to have a new one made");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(token)
    }

    /// Compares in a time that does not depend on how much of the token was right.
    fn is(&self, shown: &str) -> bool {
        let hash = |text: &str| <[u8; 32]>::from(Sha256::digest(text));
        hash(&self.0).ct_eq(&hash(shown)).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}

/// Serves operators until it is dropped.
pub async fn serve_admin(
    env: Env,
    listener: Box<dyn Listener>,
    handle: MasterHandle,
    params: AdminParams,
) {
    let (limit, metrics) = (server::limit(&params.config), Metrics::new());
    let tls = params.tls.clone();
    let refusals = Seldom::new(TELL_EVERY);
    let admin = Admin(Arc::new(Shared { env: env.clone(), handle, params, refusals }));
    server::run(env, listener, tls, router(admin), limit, metrics, Closing::new()).await;
}

#[derive(Clone, Debug)]
struct Admin(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    env: Env,
    handle: MasterHandle,
    params: AdminParams,
    /// Log lines on requests without the token.
    refusals: Seldom,
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/api/v1/admin/cluster", get(cluster))
        .route("/api/v1/admin/tokens", get(list_tokens).post(new_token))
        .route("/api/v1/admin/tokens/{id}", delete(revoke_token))
        .route("/api/v1/admin/nodes/{id}", delete(expel))
        .route("/api/v1/admin/nodes/{id}/drain", post(drain_worker))
        .route("/api/v1/admin/drain", post(drain))
        .route("/api/v1/admin/dead-letters", get(dead_letters))
        .route("/api/v1/admin/dead-letters/{number}", delete(drop_dead_letter))
        .route("/api/v1/admin/dead-letters/{number}/retry", post(retry_dead_letter))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(admin.clone(), operators_only))
        .layer(from_fn_with_state((), access::same_origin))
        // Not counted: an operator's look is not a person's request.
        .layer(from_fn_with_state(Metrics::new(), headers::finish))
        .with_state(admin)
}

async fn operators_only(
    State(admin): State<Admin>,
    PeerHost(from): PeerHost,
    request: Request,
    next: Next,
) -> Response {
    let Shared { env, params, refusals, .. } = &*admin.0;
    if shows(&params.token, request.headers()) {
        return next.run(request).await;
    }
    params.metrics.operator_refused();
    if let Some(left_out) = refusals.left_out(env.now()) {
        tracing::warn!(%from, left_out, "somebody without the admin token asked as an operator");
    }
    ErrorResponse::new(
        ProblemType::NoSession,
        "want Authorization: Bearer and the token of DATA/admin.token",
    )
    .into_response()
}

fn shows(token: &AdminToken, headers: &HeaderMap) -> bool {
    headers.get(header::AUTHORIZATION).and_then(auth::bearer).is_some_and(|shown| token.is(shown))
}

async fn view(admin: &Admin) -> Result<ClusterState, ErrorResponse> {
    let Shared { env, handle, .. } = &*admin.0;
    let view = env.timeout(LIMIT, handle.cluster()).await;
    view.ok().and_then(Result::ok).ok_or_else(|| RequestError::Away.into())
}

/// `GET /api/v1/admin/cluster`
async fn cluster(State(admin): State<Admin>) -> Result<Response, ErrorResponse> {
    Ok(json(StatusCode::OK, &view(&admin).await?))
}

/// `POST /api/v1/admin/tokens`: a join token, with what a worker's settings need besides. The body
/// says its terms; without one it is for one worker and 24 h.
async fn new_token(
    State(admin): State<Admin>,
    request: Request,
) -> Result<Response, ErrorResponse> {
    let terms: Option<JoinTerms> = optional_json(&admin.0.env, request, TERMS_BYTES_MAX).await?;
    let made = answered(&admin, admin.0.handle.new_join_token(terms.unwrap_or_default())).await?;
    Ok(json(StatusCode::CREATED, &made))
}

/// `GET /api/v1/admin/tokens`: the join tokens that have not ended.
async fn list_tokens(State(admin): State<Admin>) -> Result<Response, ErrorResponse> {
    Ok(json(StatusCode::OK, &answered(&admin, admin.0.handle.join_tokens()).await?))
}

/// `DELETE /api/v1/admin/tokens/{id}`: revokes a join token; nodes that it enrolled stay.
async fn revoke_token(
    State(admin): State<Admin>,
    Path(id): Path<String>,
) -> Result<StatusCode, ErrorResponse> {
    let id: TokenId = id.parse().map_err(malformed_id)?;
    let done = answered(&admin, admin.0.handle.revoke_join_token(id)).await;
    gone(done, ProblemType::UnknownToken, "no join token has this id, or it ended")
}

/// `DELETE /api/v1/admin/nodes/{id}`: expels a worker for good.
async fn expel(
    State(admin): State<Admin>,
    Path(id): Path<String>,
) -> Result<StatusCode, ErrorResponse> {
    let node: NodeId = id.parse().map_err(malformed_id)?;
    let nodes = view(&admin).await?.nodes;
    if nodes.iter().any(|known| known.id == node && known.role == Role::Master) {
        let why = "a master has the store's own credentials: stop it, and change them";
        return Err(ErrorResponse::new(ProblemType::Refused, why));
    }
    let done = answered(&admin, admin.0.handle.expel(node)).await;
    gone(done, ProblemType::UnknownNode, "no node has this id")
}

#[derive(Debug, Deserialize)]
struct DrainQuery {
    #[serde(default)]
    force: bool,
}

/// `POST /api/v1/admin/drain`: drains this master; it ends then. The last one only by `?force=true`.
async fn drain(
    State(admin): State<Admin>,
    asked: Result<Query<DrainQuery>, QueryRejection>,
) -> Result<Response, ErrorResponse> {
    let DrainQuery { force } = query(asked)?;
    let Shared { env, handle, params, .. } = &*admin.0;
    let begun = env.timeout(LIMIT, handle.drain(force)).await.ok().and_then(Result::ok);
    begun.ok_or(RequestError::Away)?.map_err(|why| {
        let advice = match why {
            DrainError::LastMaster => "people would be left without service",
            DrainError::OnlyWriter => {
                "nothing could be written until another has a worker that reaches the store"
            }
        };
        ErrorResponse::new(ProblemType::Refused, format!("{why}: {advice} (?force=true)"))
    })?;
    let within_ms = u64::try_from(params.config.drain_timeout.as_millis()).unwrap_or(u64::MAX);
    Ok(json(StatusCode::ACCEPTED, &Draining { within_ms }))
}

/// `POST /api/v1/admin/nodes/{id}/drain`: drains a worker of this master; it ends then. The last one only
/// by `?force=true`.
async fn drain_worker(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    asked: Result<Query<DrainQuery>, QueryRejection>,
) -> Result<Response, ErrorResponse> {
    let node: NodeId = id.parse().map_err(malformed_id)?;
    let DrainQuery { force } = query(asked)?;
    let Shared { env, handle, .. } = &*admin.0;
    let begun = env.timeout(LIMIT, handle.drain_worker(node, force)).await;
    let within_ms = begun.ok().and_then(Result::ok).ok_or(RequestError::Away)?.map_err(|why| {
        let (problem, advice) = match why {
            WorkerDrainError::Unknown | WorkerDrainError::Elsewhere { .. } => {
                (ProblemType::UnknownNode, "")
            }
            WorkerDrainError::LastWorker => {
                (ProblemType::Refused, ": nothing could be written any more (?force=true)")
            }
            WorkerDrainError::OldRelease => (ProblemType::Refused, ""),
            WorkerDrainError::NoAnswer => (ProblemType::OutcomeUnknown, ""),
        };
        ErrorResponse::new(problem, format!("{why}{advice}"))
    })?;
    Ok(json(StatusCode::ACCEPTED, &Draining { within_ms }))
}

#[derive(Debug, Deserialize)]
struct LettersQuery {
    before: Option<u64>,
}

/// `GET /api/v1/admin/dead-letters`: the latest, or those below `?before=`, newest first.
async fn dead_letters(
    State(admin): State<Admin>,
    asked: Result<Query<LettersQuery>, QueryRejection>,
) -> Result<Response, ErrorResponse> {
    let LettersQuery { before } = query(asked)?;
    // One more than is shown tells whether there are older ones.
    let limit = u32::try_from(LETTERS_MAX + 1).unwrap_or(u32::MAX);
    let mut letters = answered(&admin, admin.0.handle.dead_letters(before, limit)).await?;
    let shown = shown(&letters);
    let truncated = shown < letters.len();
    letters.truncate(shown);
    let letters = letters.into_iter().map(DeadLetter::from).collect();
    Ok(json(StatusCode::OK, &DeadLetterList { letters, truncated }))
}

/// Returns how many of the letters one answer shows, at least one.
fn shown(letters: &[rows::DeadLetter]) -> usize {
    let mut left = LETTERS_BYTES_MAX;
    let fits = |letter: &&rows::DeadLetter| {
        let text = letter.post.as_ref().map_or(0, |post| post.text.as_str().len());
        let rest = left.checked_sub(text + letter.why.len());
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    letters.iter().take(LETTERS_MAX).take_while(fits).count().max(1)
}

/// `DELETE /api/v1/admin/dead-letters/{number}`: cancels the post of a dead letter and drops the
/// letter. A post that came into its board meanwhile stays there.
async fn drop_dead_letter(
    State(admin): State<Admin>,
    Path(number): Path<String>,
) -> Result<StatusCode, ErrorResponse> {
    let letter = letter(&admin, &number).await?;
    let has_post = letter.post.is_some();
    if let Some(post) = letter.post {
        // Its author's outbox or a worker's disk may have the post still, and would send it again.
        let cancel = Task::CancelPost { user: post.author.id, id: post.id };
        match submitted(&admin, cancel).await? {
            TaskResult::Cancelled | TaskResult::AlreadyCommitted(_) => {}
            other => return Err(unexpected(&other)),
        }
    }
    removed(&admin, letter.number, has_post).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/admin/dead-letters/{number}/retry`: sends the post of a dead letter again, under
/// its id, and drops the letter once the post is in its board.
async fn retry_dead_letter(
    State(admin): State<Admin>,
    Path(number): Path<String>,
) -> Result<Response, ErrorResponse> {
    let letter = letter(&admin, &number).await?;
    let (Resource::Board(board), Some(post)) = (letter.resource, letter.post) else {
        return Err(ErrorResponse::new(ProblemType::Refused, "only posts can be sent again"));
    };
    let task = Task::Post { board: board.clone(), post: post.clone() };
    let result = submitted(&admin, task).await?;
    let NewPost { id, author, text } = post;
    let sent = written(result, board, id, author, text)?;
    // What stays is sent under the same id at most: it is a duplicate then.
    removed(&admin, letter.number, true).await?;
    Ok(json(StatusCode::OK, &sent.1))
}

/// Takes a letter off the list; its post is settled, if it has one. A failure is not one after which nothing
/// was done.
async fn removed(admin: &Admin, number: u64, has_post: bool) -> Result<(), ErrorResponse> {
    answered(admin, admin.0.handle.drop_dead_letter(number)).await.map_err(|_| {
        let settled = if has_post { "its post is settled, and " } else { "" };
        let rest =
            "the letter may still be listed; do the same again: a 404 then means that it is gone";
        ErrorResponse::new(ProblemType::OutcomeUnknown, format!("{settled}{rest}"))
    })
}

/// Finds a dead letter by its number, however old it is.
async fn letter(admin: &Admin, number: &str) -> Result<rows::DeadLetter, ErrorResponse> {
    let unknown =
        || ErrorResponse::new(ProblemType::UnknownLetter, "no dead letter has this number");
    let wanted: u64 = number.parse().map_err(|_| unknown())?;
    let above = wanted.checked_add(1).ok_or_else(unknown)?;
    let letters = answered(admin, admin.0.handle.dead_letters(Some(above), 1)).await?;
    letters.into_iter().find(|letter| letter.number == wanted).ok_or_else(unknown)
}

/// Submits a task and waits for what the store decides.
async fn submitted(admin: &Admin, task: Task) -> Result<TaskResult, ErrorResponse> {
    let Shared { env, handle, params, .. } = &*admin.0;
    let outcome = env.timeout(params.config.request_timeout + LIMIT, handle.submit(task)).await;
    settled(outcome.ok().and_then(Result::ok).unwrap_or(Outcome::Unknown))
}

/// Waits for the master's answer; a late one is none.
async fn answered<T>(
    admin: &Admin,
    asked: impl Future<Output = Result<Result<T, RequestError>, Stopped>>,
) -> Result<T, RequestError> {
    let answer = admin.0.env.timeout(LIMIT, asked).await;
    answer.ok().and_then(Result::ok).unwrap_or(Err(RequestError::Away))
}

/// Answers that a thing is gone from now on, or that there never was one.
fn gone(
    done: Result<(), RequestError>,
    unknown: ProblemType,
    why: &'static str,
) -> Result<StatusCode, ErrorResponse> {
    match done {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(RequestError::Unknown) => Err(ErrorResponse::new(unknown, why)),
        Err(other) => Err(other.into()),
    }
}

fn malformed_id(why: Malformed) -> ErrorResponse {
    ErrorResponse::new(ProblemType::MalformedId, why.to_string())
}

/// `GET /metrics`
async fn metrics(State(admin): State<Admin>) -> Result<Response, ErrorResponse> {
    const MIME: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let lost = admin.0.env.lines_lost();
    let text = admin.0.params.metrics.text(&view(&admin).await?, lost);
    let text = text.map_err(|why| ErrorResponse::new(ProblemType::Broken, why.to_string()))?;
    Ok(typed(StatusCode::OK, MIME, text))
}
