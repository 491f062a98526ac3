//! Endpoints of the public interface, one file per subject.

mod boards;
mod health;
mod people;
mod posts;
mod sessions;
mod stream;

use axum::{
    Router,
    http::{HeaderValue, StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use serde::Serialize;

pub(super) use self::{posts::written, sessions::unexpected};

use super::{
    App, access, auth::Caller, connection::PeerHost, headers, openapi, page, problem::ErrorResponse,
};
use crate::api::ProblemType;

/// Result of a handler.
type HandlerResult = Result<Response, ErrorResponse>;

/// Returns the routes of the public interface.
pub(super) fn router(app: App) -> Router {
    let metrics = app.metrics().clone();
    Router::new()
        .route("/api/v1/sessions", post(sessions::open))
        .route("/api/v1/session", get(sessions::restore).delete(sessions::close))
        .route("/api/v1/session/alive", post(sessions::alive))
        .route("/api/v1/handover", post(sessions::issue_ticket))
        .route("/api/v1/handover/redeem", post(sessions::redeem_ticket))
        .route("/api/v1/boards", get(boards::list))
        .route("/api/v1/boards/{board}", put(boards::create))
        .route("/api/v1/boards/{board}/read-mark", put(boards::mark_read))
        .route("/api/v1/boards/{board}/posts", get(posts::list).post(posts::write))
        .route("/api/v1/posts/{id}", get(posts::find).merge(delete(posts::cancel)))
        .route("/api/v1/users", get(people::users))
        .route("/api/v1/cluster", get(people::cluster))
        .route("/api/v1/stream", get(stream::open))
        .route("/api/v1/openapi.json", get(contract))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .merge(page::routes())
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(app.clone(), access::check))
        .layer(from_fn_with_state(app.clone(), headers::close_while_draining))
        .layer(from_fn_with_state(metrics, headers::finish))
        .with_state(app)
}

/// Returns an answer with a JSON body.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match text_of(value) {
        Ok(body) => typed(status, "application/json", body),
        Err(why) => why.into_response(),
    }
}

/// Answer with a JSON body that may be long, to an address that had room for it.
struct LongJson<'a> {
    app: &'a App,
    to: PeerHost,
}

impl<'a> LongJson<'a> {
    /// Begins an answer, before anything is read for it.
    ///
    /// # Errors
    /// The caller's address leaves too much unread.
    fn begin(app: &'a App, caller: &Caller) -> Result<Self, ErrorResponse> {
        app.check_room(&caller.from)?;
        Ok(Self { app, to: caller.from.clone() })
    }

    /// Ends the answer with its value.
    ///
    /// # Errors
    /// The address, or all together, leave too much unread by now.
    fn end(self, value: &impl Serialize) -> HandlerResult {
        let body = self.app.hold(&self.to, text_of(value)?)?;
        Ok(typed(StatusCode::OK, "application/json", body))
    }
}

fn text_of(value: &impl Serialize) -> Result<Vec<u8>, ErrorResponse> {
    serde_json::to_vec(value)
        .map_err(|why| ErrorResponse::new(ProblemType::Broken, why.to_string()))
}

/// Returns an answer of this media type.
pub(super) fn typed(status: StatusCode, mime: &'static str, body: impl IntoResponse) -> Response {
    let mut response = (status, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
    response
}

async fn contract() -> Response {
    typed(StatusCode::OK, "application/json", openapi::text())
}

pub(super) async fn nothing_here() -> ErrorResponse {
    ErrorResponse::new(ProblemType::UnknownPath, "see /api/v1/openapi.json for what there is")
}

pub(super) async fn wrong_method() -> ErrorResponse {
    ErrorResponse::new(ProblemType::MethodNotAllowed, "see /api/v1/openapi.json for what there is")
}
