//! Active people, and the cluster as people see it.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::Deserialize;

use super::{HandlerResult, json};
use crate::{
    api::{Cluster, ProblemType, User, UserList},
    http::{App, auth::Caller, body, problem::ErrorResponse},
    node::handle::{People, SessionRequest},
};

/// The most people that a limit may ask for.
const LIMIT_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
pub(super) struct UsersQuery {
    limit: Option<usize>,
}

/// `GET /api/v1/users`
pub(super) async fn users(
    State(app): State<App>,
    caller: Caller,
    asked: Result<Query<UsersQuery>, QueryRejection>,
) -> HandlerResult {
    let limit = match body::query(asked)?.limit {
        None => usize::MAX,
        Some(0) => {
            let detail = "limit: want 1 or more";
            return Err(ErrorResponse::new(ProblemType::MalformedQuery, detail));
        }
        Some(limit) => limit.min(LIMIT_MAX),
    };
    let read = app.ask(caller, |reply| SessionRequest::Users { reply }).await?;
    let People { version, users } = read.value;
    let list = UserList {
        users: users.iter().take(limit).map(User::from).collect(),
        total: users.len() as u64,
        version,
        consistency: read.consistency,
    };
    Ok(json(StatusCode::OK, &list))
}

/// `GET /api/v1/cluster`
pub(super) async fn cluster(State(app): State<App>, caller: Caller) -> HandlerResult {
    let view = app.ask(caller, |reply| SessionRequest::Cluster { reply }).await?;
    let shape = Cluster {
        node: view.node,
        store: view.store.into(),
        store_reason: view.store_away.map(|away| away.reason),
        nodes: view.nodes.into_iter().map(Into::into).collect(),
    };
    Ok(json(StatusCode::OK, &shape))
}
