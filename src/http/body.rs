//! Extractors of a request's parts: JSON bodies, ids and names in paths, queries.

use std::time::Duration;

use axum::{
    body::{Bytes, HttpBody},
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::QueryRejection},
    http::{HeaderMap, header, request::Parts},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::{App, problem::ErrorResponse};
use crate::api::ProblemType;
use crate::env::Env;
use crate::model::ids::{BoardName, PostId, PostText};

/// Longest time from the end of the header to the end of the body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest body unless an endpoint says otherwise, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024;

/// Largest body of a post, in bytes: JSON may take six bytes for one of the text (`\u0431` for two), and a text
/// that fits must not be refused for how it was escaped.
pub(super) const POST_BODY_BYTES_MAX: usize = 6 * PostText::LEN_MAX + 1024;

/// A body of at most `BYTES_MAX` bytes of JSON.
#[derive(Debug)]
pub(super) struct JsonBody<T, const BYTES_MAX: usize = BODY_BYTES_MAX>(pub(super) T);

impl<T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<App> for JsonBody<T, BYTES_MAX> {
    type Rejection = ErrorResponse;

    async fn from_request(request: Request, app: &App) -> Result<Self, ErrorResponse> {
        want_json(request.headers())?;
        let bytes = whole_body(app.env(), request, BYTES_MAX).await?;
        parsed(&bytes).map(Self)
    }
}

/// Returns the JSON of a body that may be left out, of at most `bytes_max` bytes.
pub(super) async fn optional_json<T: DeserializeOwned>(
    env: &Env,
    request: Request,
    bytes_max: usize,
) -> Result<Option<T>, ErrorResponse> {
    let is_json = want_json(request.headers());
    let bytes = whole_body(env, request, bytes_max).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    is_json?;
    parsed(&bytes).map(Some)
}

fn want_json(headers: &HeaderMap) -> Result<(), ErrorResponse> {
    let named = headers.get(header::CONTENT_TYPE);
    let mime = named.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mime = mime.split(';').next().unwrap_or_default().trim();
    if mime.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ErrorResponse::new(ProblemType::NotJson, "want Content-Type: application/json"))
}

/// Reads a body of at most `bytes_max` bytes to its end.
async fn whole_body(env: &Env, request: Request, bytes_max: usize) -> Result<Bytes, ErrorResponse> {
    let too_large = || {
        let detail = format!("the body is over {bytes_max} bytes");
        ErrorResponse::new(ProblemType::BodyTooLarge, detail)
    };
    // Before the first look at it: that look tells a client that asked to go on.
    if request.body().size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), bytes_max).collect();
    match env.timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(why)) if why.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(ErrorResponse::new(ProblemType::MalformedBody, "the body was cut short")),
        Err(_) => Err(ErrorResponse::retry(
            ProblemType::BodyTimeout,
            "the body did not end in time",
            1000,
        )),
    }
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ErrorResponse> {
    serde_json::from_slice(bytes)
        .map_err(|why| ErrorResponse::new(ProblemType::MalformedBody, why.to_string()))
}

/// Board named by the path.
#[derive(Debug)]
pub(super) struct BoardPath(pub(super) BoardName);

impl FromRequestParts<App> for BoardPath {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ErrorResponse> {
        let text = Path::<String>::from_request_parts(parts, app).await;
        let Path(text) =
            text.map_err(|why| ErrorResponse::new(ProblemType::MalformedBoard, why.body_text()))?;
        Ok(Self(text.parse()?))
    }
}

/// Post id named by the path.
#[derive(Debug)]
pub(super) struct PostPath(pub(super) PostId);

impl FromRequestParts<App> for PostPath {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ErrorResponse> {
        let text = Path::<String>::from_request_parts(parts, app).await;
        let Path(text) =
            text.map_err(|why| ErrorResponse::new(ProblemType::MalformedId, why.body_text()))?;
        Ok(Self(text.parse()?))
    }
}

/// Returns the parsed query, else a 400.
pub(super) fn query<T>(read: Result<Query<T>, QueryRejection>) -> Result<T, ErrorResponse> {
    read.map(|Query(query)| query)
        .map_err(|why| ErrorResponse::new(ProblemType::MalformedQuery, why.body_text()))
}
