//! Health checks: whether the process lives and whether clients should use it. Any site may ask.

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};

use super::{json, typed};
use crate::{
    api::{MasterState, Readiness, StoreReach},
    http::App,
};

/// `GET /healthz`
pub(super) async fn healthz() -> Response {
    for_everyone(typed(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"))
}

/// `GET /readyz`
pub(super) async fn readyz(State(app): State<App>) -> Response {
    let readiness = app.bounded(app.handle().readiness()).await.unwrap_or(Readiness {
        ready: false,
        state: MasterState::Stopped,
        store: StoreReach::Away,
        store_reason: None,
    });
    let ready = readiness.ready;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = json(status, &readiness);
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
