//! Security headers of every answer.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::Response,
};

use super::{App, metrics::Metrics};

/// Content security policy of answers that are not the page.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";

/// Headers of every answer that did not set them itself.
const ALWAYS: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    // A page that takes over from another master looks at where people come from.
    ("referrer-policy", "strict-origin"),
    ("content-security-policy", NO_PAGE),
    ("cache-control", "no-store"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

fn add_missing(headers: &mut HeaderMap) {
    for (name, value) in ALWAYS {
        let name = HeaderName::from_static(name);
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Adds the headers and counts the answer.
pub(super) async fn finish(
    State(metrics): State<Metrics>,
    request: Request,
    next: Next,
) -> Response {
    // What a stranger can make up, methods and paths, would make the counters endless.
    let method = counted_as(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    add_missing(response.headers_mut());
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    metrics.answered(method, route, response.status().as_u16());
    response
}

/// Has each connection end with its answer while the master is being drained: the next request
/// goes elsewhere, and none meets a connection that is being closed.
pub(super) async fn close_while_draining(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if app.handle().is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn counted_as(method: &Method) -> &'static str {
    const KNOWN: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}
