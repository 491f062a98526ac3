//! Extractors of a request's parts: JSON bodies, ids and names in paths, queries.

use std::time::Duration;

use axum::{
    body::HttpBody,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::QueryRejection},
    http::{header, request::Parts},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::{App, problem::ErrorResponse};
use crate::api::ProblemType;
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
        let named = request.headers().get(header::CONTENT_TYPE);
        let mime = named.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mime = mime.split(';').next().unwrap_or_default().trim();
        if !mime.eq_ignore_ascii_case("application/json") {
            return Err(ErrorResponse::new(
                ProblemType::NotJson,
                "want Content-Type: application/json",
            ));
        }
        let too_large = || {
            let detail = format!("the body is over {BYTES_MAX} bytes");
            ErrorResponse::new(ProblemType::BodyTooLarge, detail)
        };
        // Before the first look at it: that look tells a client that asked to go on.
        if request.body().size_hint().lower() > BYTES_MAX as u64 {
            return Err(too_large());
        }
        let body = Limited::new(request.into_body(), BYTES_MAX).collect();
        let bytes = match app.env().timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(why)) if why.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Err(_)) => {
                return Err(ErrorResponse::new(
                    ProblemType::MalformedBody,
                    "the body was cut short",
                ));
            }
            Err(_) => {
                return Err(ErrorResponse::retry(
                    ProblemType::BodyTimeout,
                    "the body did not end in time",
                    1000,
                ));
            }
        };
        let read = serde_json::from_slice(&bytes);
        read.map(Self)
            .map_err(|why| ErrorResponse::new(ProblemType::MalformedBody, why.to_string()))
    }
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
