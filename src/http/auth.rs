//! Authentication: bearer tokens and cookies.
//!
//! A token is 32 random bytes as base64url. What goes to the master is its SHA-256.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, header, request::Parts},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rand_core::Rng;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{App, connection::PeerHost, problem::ErrorResponse};
use crate::{
    api::ProblemType,
    env::Env,
    model::ids::{SessionKey, UserId},
};

/// Lifetime of a cookie: as long as an idle session lives.
const COOKIE_AGE_S: u32 = 30 * 24 * 3600;

/// Secret of a session or a ticket. Never logged, kept or compared: it is only hashed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Secret([u8; 32]);

impl Secret {
    pub(super) fn new(env: &Env) -> Self {
        let mut bytes = [0; 32];
        env.rng("http/secret").fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Reads the one spelling that [`Secret::text`] writes.
    pub(super) fn read(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    pub(super) fn text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    pub(super) fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// Returns the key by which a session of this token is known.
    pub(super) fn key(&self) -> SessionKey {
        SessionKey(self.sha256())
    }
}

/// Returns a new public id of a person.
pub(super) fn new_user_id(env: &Env) -> UserId {
    let mut bytes = [0; 16];
    env.rng("http/user").fill_bytes(&mut bytes);
    UserId(bytes)
}

/// Session that a request claims to belong to. The master finds it.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) key: SessionKey,
    /// User that the request takes itself for; all pages of a browser share one cookie.
    pub(super) user: Option<UserId>,
    /// Address that the request counts for.
    pub(super) from: PeerHost,
}

impl FromRequestParts<App> for Caller {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ErrorResponse> {
        let key = credentials(&parts.headers, app).await?.key();
        let Ok(from) = PeerHost::from_request_parts(parts, app).await;
        Ok(Self { key, user: named_user(parts)?, from })
    }
}

/// Header by which a page says whose session it drives.
const USER: &str = "chatchat-user";

/// Returns the user that the header names, if it does.
///
/// # Errors
/// [`ProblemType::OtherSession`]: the header names no user.
pub(super) fn named_in(headers: &HeaderMap) -> Result<Option<UserId>, ErrorResponse> {
    headers.get(USER).map(|value| user(value.to_str().unwrap_or_default())).transpose()
}

/// Returns the user that a request names: in the header, or, where a browser cannot set one, in the
/// query.
fn named_user(parts: &Parts) -> Result<Option<UserId>, ErrorResponse> {
    if parts.headers.contains_key(USER) {
        return named_in(&parts.headers);
    }
    let mut pairs = parts.uri.query().unwrap_or_default().split('&');
    pairs.find_map(|pair| pair.strip_prefix("user=")).map(user).transpose()
}

fn user(text: &str) -> Result<UserId, ErrorResponse> {
    text.parse().map_err(|_| ErrorResponse::other_session())
}

/// Returns the request's token: the Authorization header's, else the cookie's.
async fn credentials(headers: &HeaderMap, app: &App) -> Result<Secret, ErrorResponse> {
    let malformed =
        || ErrorResponse::new(ProblemType::UnknownSession, "the token is not one of ours");
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let token = bearer(value).ok_or_else(|| {
            ErrorResponse::new(
                ProblemType::NoSession,
                "want the header Authorization: Bearer TOKEN",
            )
        })?;
        return Secret::read(token).ok_or_else(malformed);
    }
    if headers.contains_key(header::COOKIE) {
        let name = cookie_name(app.cluster().await?, app.is_https());
        if let Some(token) = cookie(headers, &name) {
            return Secret::read(token).ok_or_else(malformed);
        }
    }
    Err(ErrorResponse::new(
        ProblemType::NoSession,
        "want the header Authorization: Bearer TOKEN, or our cookie",
    ))
}

/// Returns the token of `Bearer TOKEN`.
pub(super) fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Returns the cookie's name. Cookies ignore ports, so it holds the cluster's id to keep clusters
/// of one host apart. Under https its prefix keeps everybody else from setting it: no other host,
/// and no page that came unencrypted.
fn cookie_name(cluster: [u8; 16], https: bool) -> String {
    let prefix = if https { "__Host-" } else { "" };
    format!("{prefix}chatchat-{}", hex::encode(cluster))
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(is, value)| (is == name).then_some(value))
}

/// Returns a `Set-Cookie` that no script sees and no other site sends.
pub(super) fn set_cookie(cluster: [u8; 16], https: bool, secret: &Secret) -> HeaderValue {
    let pair = format!("{}={}", cookie_name(cluster, https), secret.text());
    cookie_line(&pair, https, COOKIE_AGE_S)
}

/// Returns a `Set-Cookie` that removes the cookie.
pub(super) fn clear_cookie(cluster: [u8; 16], https: bool) -> HeaderValue {
    cookie_line(&format!("{}=", cookie_name(cluster, https)), https, 0)
}

fn cookie_line(pair: &str, https: bool, age_s: u32) -> HeaderValue {
    let secure = if https { "; Secure" } else { "" };
    let line = format!("{pair}; Path=/; HttpOnly; SameSite=Strict{secure}; Max-Age={age_s}");
    HeaderValue::try_from(line).expect("hex and base64url are plain ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (header::HeaderName::from_static(name), HeaderValue::from_static(value))
            })
            .collect()
    }

    #[test]
    fn token_has_one_spelling() {
        let secret = Secret([0xff; 32]);
        let text = secret.text();
        assert_eq!(text.len(), 43);
        assert_eq!(Secret::read(&text).map(|read| read.key()), Some(secret.key()));
        for bad in ["", "x", &format!("{text}="), &text[..42], &format!("{}_", &text[..42])] {
            assert!(Secret::read(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn cookie_is_found_by_its_whole_name() {
        let found = headers(&[("cookie", "a=1; xchatchat-00=2;chatchat-00=3")]);
        assert_eq!(cookie(&found, "chatchat-00"), Some("3"));
        assert_eq!(cookie(&found, "chatchat-0"), None);
    }
}
