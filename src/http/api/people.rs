//! Active people, and the cluster as people see it.

use axum::{extract::State, http::StatusCode};

use super::{HandlerResult, json};
use crate::{
    api::{Cluster, User, UserList},
    http::{App, auth::Caller},
    node::handle::SessionRequest,
};

/// `GET /api/v1/users`
pub(super) async fn users(State(app): State<App>, caller: Caller) -> HandlerResult {
    let read = app.ask(caller, |reply| SessionRequest::Users { reply }).await?;
    let users = read.value.iter().map(User::from).collect();
    Ok(json(StatusCode::OK, &UserList { users, consistency: read.consistency }))
}

/// `GET /api/v1/cluster`
pub(super) async fn cluster(State(app): State<App>, caller: Caller) -> HandlerResult {
    let view = app.ask(caller, |reply| SessionRequest::Cluster { reply }).await?;
    let shape = Cluster {
        node: view.node,
        store: view.store.into(),
        nodes: view.nodes.into_iter().map(Into::into).collect(),
    };
    Ok(json(StatusCode::OK, &shape))
}
