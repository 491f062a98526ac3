//! Who is active, and how the cluster is, as far as people may know.

use axum::{extract::State, http::StatusCode};

use super::{Reply, json};
use crate::{
    http::{
        App,
        auth::Caller,
        problem::Problem,
        shape::{ClusterShape, NodeShape, UserList, UserShape},
    },
    node::handle::{Consistency, NodeView, ReadError},
};

/// `GET /api/v1/users`
pub(super) async fn users(State(app): State<App>, _caller: Caller) -> Reply {
    let read = app.read(app.handle().users()).await?;
    let users = read.value.iter().map(UserShape::from).collect();
    Ok(json(StatusCode::OK, &UserList { users, consistency: read.consistency }))
}

/// `GET /api/v1/cluster`
pub(super) async fn cluster(State(app): State<App>, _caller: Caller) -> Reply {
    let view = app.bounded(app.handle().cluster()).await;
    let view = view.ok_or_else(|| Problem::from(ReadError::Away))?;
    let shape = ClusterShape {
        node: view.node,
        store: match view.store {
            Consistency::Strong => "here".to_owned(),
            Consistency::Weak => "away".to_owned(),
        },
        nodes: view.nodes.into_iter().map(node_shape).collect(),
    };
    Ok(json(StatusCode::OK, &shape))
}

fn node_shape(view: NodeView) -> NodeShape {
    let NodeView { id, name, role, state, master, http, reaches_store, .. } = view;
    NodeShape { id, name, role, state, master, http, reaches_store }
}
