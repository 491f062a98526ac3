//! Admin listener: metrics and the whole state of the cluster, for those who show the cluster's
//! admin token.

use std::{fmt, io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    Metrics, access,
    api::{json, nothing_here, typed, wrong_method},
    auth::{self, Secret},
    headers,
    problem::ErrorResponse,
    server::{self, Closing},
    tls::Tls,
};
use crate::{
    api::{ClusterState, ProblemType},
    config::Config,
    env::{Env, Listener},
    model::ids::{Malformed, NodeId, Role, TokenId},
    node::handle::{MasterHandle, RequestError, Stopped},
};

/// Time that a master has for an operator's request.
const LIMIT: Duration = Duration::from_secs(5);

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
#[derive(Clone, PartialEq, Eq)]
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
    let admin = Admin(Arc::new(Shared { env: env.clone(), handle, params }));
    server::run(env, listener, tls, router(admin), limit, metrics, Closing::new()).await;
}

#[derive(Clone, Debug)]
struct Admin(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    env: Env,
    handle: MasterHandle,
    params: AdminParams,
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/api/v1/admin/cluster", get(cluster))
        .route("/api/v1/admin/tokens", get(list_tokens).post(new_token))
        .route("/api/v1/admin/tokens/{id}", delete(revoke_token))
        .route("/api/v1/admin/nodes/{id}", delete(expel))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(admin.clone(), operators_only))
        .layer(from_fn_with_state((), access::same_origin))
        // Not counted: an operator's look is not a person's request.
        .layer(from_fn_with_state(Metrics::new(), headers::finish))
        .with_state(admin)
}

async fn operators_only(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    if shows(&admin.0.params.token, request.headers()) {
        return next.run(request).await;
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

/// `POST /api/v1/admin/tokens`: a join token for one worker, with what its settings need besides.
async fn new_token(State(admin): State<Admin>) -> Result<Response, ErrorResponse> {
    let made = answered(&admin, admin.0.handle.new_join_token()).await?;
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
