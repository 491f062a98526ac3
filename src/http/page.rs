//! Page of people: plain HTML, CSS and ES modules, compiled into the binary.
//!
//! 1. Nothing comes from elsewhere: the policy allows this origin only, and asking the other
//!    masters whether they are ready.
//! 2. The browser asks each time whether a file changed, so an upgrade never mixes two versions
//!    for longer than one load.

use std::{fmt::Write, sync::LazyLock};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use sha2::{Digest, Sha256};

use super::App;

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Files of the page: path, media type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("/page/base.css", CSS, include_str!("page/base.css")),
    ("/page/chat.css", CSS, include_str!("page/chat.css")),
    ("/page/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/page/api.js", JS, include_str!("page/api.js")),
    ("/page/app.js", JS, include_str!("page/app.js")),
    ("/page/board.js", JS, include_str!("page/board.js")),
    ("/page/boards.js", JS, include_str!("page/boards.js")),
    ("/page/clock.js", JS, include_str!("page/clock.js")),
    ("/page/composer.js", JS, include_str!("page/composer.js")),
    ("/page/connection.js", JS, include_str!("page/connection.js")),
    ("/page/dom.js", JS, include_str!("page/dom.js")),
    ("/page/election.js", JS, include_str!("page/election.js")),
    ("/page/enter.js", JS, include_str!("page/enter.js")),
    ("/page/local.js", JS, include_str!("page/local.js")),
    ("/page/log.js", JS, include_str!("page/log.js")),
    ("/page/marks.js", JS, include_str!("page/marks.js")),
    ("/page/masters.js", JS, include_str!("page/masters.js")),
    ("/page/move.js", JS, include_str!("page/move.js")),
    ("/page/notify.js", JS, include_str!("page/notify.js")),
    ("/page/numbers.js", JS, include_str!("page/numbers.js")),
    ("/page/outbox.js", JS, include_str!("page/outbox.js")),
    ("/page/people.js", JS, include_str!("page/people.js")),
    ("/page/roster.js", JS, include_str!("page/roster.js")),
    ("/page/route.js", JS, include_str!("page/route.js")),
    ("/page/shapes.js", JS, include_str!("page/shapes.js")),
    ("/page/sides.js", JS, include_str!("page/sides.js")),
    ("/page/status.js", JS, include_str!("page/status.js")),
    ("/page/stream.js", JS, include_str!("page/stream.js")),
    ("/page/tabs.js", JS, include_str!("page/tabs.js")),
    ("/page/text.js", JS, include_str!("page/text.js")),
    ("/page/ticket.js", JS, include_str!("page/ticket.js")),
];

/// Placeholder of the masters' addresses in the page.
const MASTERS: &str = "{{masters}}";

/// Returns the routes of the page and all its files.
pub(super) fn routes() -> Router<App> {
    FILES.iter().zip(tags()).fold(Router::new().route("/", get(index)), |routes, (file, tag)| {
        let (path, mime, text) = *file;
        routes.route(path, get(async move |headers: HeaderMap| asset(&headers, mime, text, tag)))
    })
}

/// Entity tag of each file, in the order of [`FILES`].
fn tags() -> &'static [HeaderValue] {
    static TAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
        let tag = |text: &str| format!("\"{}\"", hex::encode(&Sha256::digest(text)[..12]));
        let value = |text| HeaderValue::try_from(tag(text)).expect("hex in quotes is plain ASCII");
        FILES.iter().map(|(_, _, text)| value(text)).collect()
    });
    &TAGS
}

fn asset(
    headers: &HeaderMap,
    mime: &'static str,
    text: &'static str,
    tag: &'static HeaderValue,
) -> Response {
    let known = headers.get(header::IF_NONE_MATCH) == Some(tag);
    let mut response =
        if known { StatusCode::NOT_MODIFIED.into_response() } else { text.into_response() };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
    headers.insert(header::ETAG, tag.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// `GET /`
async fn index(State(app): State<App>, uri: Uri) -> Response {
    let masters = app.bounded(app.handle().masters()).await.unwrap_or_default();
    if app.handle().is_draining()
        && let Some(other) = app.other_front_end(&masters)
    {
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        return Redirect::temporary(&format!("{other}/{query}")).into_response();
    }
    let origins: Vec<&str> =
        masters.iter().map(|master| master.http.as_str()).filter(|text| is_origin(text)).collect();
    let origins = origins.join(" ");
    let page = include_str!("page/index.html").replace(MASTERS, &origins);
    let mut response = page.into_response();
    let headers = response.headers_mut();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, html);
    let policy = HeaderValue::try_from(policy(&origins)).expect("origins were checked");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    let nothing = HeaderValue::from_static("camera=(), geolocation=(), microphone=()");
    headers.insert(HeaderName::from_static("permissions-policy"), nothing);
    response
}

fn policy(origins: &str) -> String {
    let mut policy = String::from(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'",
    );
    if !origins.is_empty() {
        write!(policy, " {origins}").expect("a string takes it");
    }
    policy.push_str(
        "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    );
    policy
}

/// Whether this is `http://host:port` and nothing that could end an attribute or a directive.
/// Masters name their own addresses; one of them must not write another's page.
pub(super) fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    host.is_some_and(|host| !host.is_empty() && host.chars().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_that_is_no_plain_origin_stays_out_of_the_page() {
        for good in ["http://127.0.0.1:8080", "https://chat.example", "http://[::1]:8080"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in
            ["", "http://", "ftp://x", "http://a;b", "http://a\"b", "http://a/b", "http://a b"]
        {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn imported_modules_are_all_served() {
        for (path, _, text) in FILES {
            for part in text.split("from \"./").skip(1) {
                let name = format!("/page/{}", part.split('"').next().unwrap_or_default());
                assert!(FILES.iter().any(|(is, ..)| *is == name), "{path} imports {name}");
            }
        }
    }

    #[test]
    fn page_never_parses_text_as_markup() {
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            for (path, _, text) in FILES {
                assert!(!text.contains(word), "{path} says {word}");
            }
        }
    }
}
