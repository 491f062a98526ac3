//! Active people, and the cluster as people see it.

use axum::{extract::State, http::StatusCode};

use super::{HandlerResult, json};
use crate::{
    api::{Cluster, User, UserList},
    http::{App, auth::Caller, problem::ErrorResponse},
    node::handle::ReadError,
};

/// `GET /api/v1/users`
pub(super) async fn users(State(app): State<App>, _caller: Caller) -> HandlerResult {
    let read = app.read(app.handle().users()).await?;
    let users = read.value.iter().map(User::from).collect();
    Ok(json(StatusCode::OK, &UserList { users, consistency: read.consistency }))
}

/// `GET /api/v1/cluster`
pub(super) async fn cluster(State(app): State<App>, _caller: Caller) -> HandlerResult {
    let view = app.bounded(app.handle().cluster()).await;
    let view = view.ok_or_else(|| ErrorResponse::from(ReadError::Away))?;
    let shape = Cluster {
        node: view.node,
        store: view.store.into(),
        nodes: view.nodes.into_iter().map(Into::into).collect(),
    };
    Ok(json(StatusCode::OK, &shape))
}
