//! Whether the process lives, and whether people should come here. Every site may ask.

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::json as value;

use super::{json, typed};
use crate::{http::App, node::handle::Readiness};

/// `GET /healthz`
pub(super) async fn healthz() -> Response {
    for_everyone(typed(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"))
}

/// `GET /readyz`
pub(super) async fn readyz(State(app): State<App>) -> Response {
    let (ready, state, store) = match app.bounded(app.handle().readiness()).await {
        Some(Readiness { ready, state, store, .. }) => (ready, state, store),
        None => (false, "stopped", "away"),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = json(status, &value!({ "ready": ready, "state": state, "store": store }));
    if !ready {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    for_everyone(response)
}

fn for_everyone(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("cross-origin"),
    );
    response
}
