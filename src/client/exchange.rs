//! One HTTP/1.1 connection to one master, kept between exchanges.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;

use crate::{
    client::{Failure, Trust},
    env::{Env, TaskGuard, TimedOut},
    model::time::Mono,
};

/// Largest body that is read, in bytes.
const BODY_LEN_MAX: usize = 8 * 1024 * 1024;

/// Answer of a master, not interpreted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawAnswer {
    /// HTTP status.
    pub status: u16,
    /// Wait that `Retry-After` asks for.
    pub retry_after: Option<Duration>,
    /// Cookie that it sets, as the header says it.
    pub cookie: Option<String>,
    /// The whole body.
    pub body: Bytes,
}

/// Time for which an idle connection is used again. A master may close an older one while a
/// request is on its way.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// Request to a master, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct RawRequest {
    pub(super) method: Method,
    /// Path and query, sent as it is.
    pub(super) path: String,
    /// JSON; `None` for no body.
    pub(super) body: Option<Vec<u8>>,
}

/// Connection to one master, opened at first use and again when it was lost between two exchanges.
#[derive(Debug)]
pub(super) struct Exchange {
    env: Env,
    /// `http://host:port` or `https://host:port`, as people and masters write it.
    master: String,
    connect_limit: Duration,
    /// Certificates by which a master at `https://` is known.
    pub(super) trust: Option<Trust>,
    /// The kept connection and the time of its last answer.
    open: Option<(Connection, Mono)>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Stops the task that moves the connection's bytes when dropped.
    _driver: TaskGuard,
}

/// Response whose body is still arriving. Dropping it closes the connection.
pub(super) struct Streaming {
    pub(super) status: StatusCode,
    /// Whether the body is a stream of events.
    pub(super) is_events: bool,
    pub(super) body: Incoming,
    _connection: Connection,
}

impl Exchange {
    pub(super) fn new(env: Env, master: String, connect_limit: Duration) -> Self {
        Self { env, master, connect_limit, trust: None, open: None }
    }

    pub(super) fn master(&self) -> &str {
        &self.master
    }

    /// Sends a request and reads the whole answer. Dropping the future leaves the outcome unknown.
    ///
    /// # Errors
    /// [`Failure::Unreached`] or [`Failure::Unknown`].
    pub(super) async fn whole(
        &mut self,
        asked: RawRequest,
        token: Option<&str>,
        limit: Duration,
    ) -> Result<RawAnswer, Failure> {
        let mut connection = self.connection().await?;
        let request = self.request(asked, token, "application/json")?;
        let env = self.env.clone();
        let exchange = async {
            let response = connection.sender.send_request(request).await.map_err(lost)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, BODY_LEN_MAX).collect().await.map_err(|why| {
                Failure::Unknown { status: None, why: format!("the answer broke off: {why}") }
            })?;
            let said = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
            let retry_after = said(header::RETRY_AFTER).and_then(|value| value.parse().ok());
            Ok(RawAnswer {
                status: head.status.as_u16(),
                retry_after: retry_after.map(Duration::from_secs),
                cookie: said(header::SET_COOKIE).map(str::to_owned),
                body: body.to_bytes(),
            })
        };
        let answer = env.timeout(limit, exchange).await.unwrap_or_else(|TimedOut| {
            Err(Failure::Unknown { status: None, why: format!("no answer within {limit:?}") })
        })?;
        self.open = Some((connection, self.env.now()));
        Ok(answer)
    }

    /// Sends a request and reads the head of the answer; the caller reads the body. The connection
    /// is not used for anything else afterwards.
    ///
    /// # Errors
    /// As [`Exchange::whole`].
    pub(super) async fn streaming(
        &mut self,
        asked: RawRequest,
        token: Option<&str>,
        limit: Duration,
    ) -> Result<Streaming, Failure> {
        let mut connection = self.connection().await?;
        let request = self.request(asked, token, "text/event-stream")?;
        let sending = connection.sender.send_request(request);
        let response = self.env.timeout(limit, sending).await.map_err(|TimedOut| {
            Failure::Unknown { status: None, why: format!("no answer within {limit:?}") }
        })?;
        let (head, body) = response.map_err(lost)?.into_parts();
        let media = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_events = media.is_some_and(|text| text.starts_with("text/event-stream"));
        Ok(Streaming { status: head.status, is_events, body, _connection: connection })
    }

    /// Returns the kept connection if it is still usable, else a new one.
    async fn connection(&mut self) -> Result<Connection, Failure> {
        if let Some((mut kept, used)) = self.open.take()
            && self.env.now().since(used) < KEPT_FOR
            && let Ok(Ok(())) = self.env.timeout(self.connect_limit, kept.sender.ready()).await
        {
            return Ok(kept);
        }
        let unreached = |why: String| Failure::Unreached { master: self.master.clone(), why };
        let target = Target::of(&self.master)
            .ok_or_else(|| unreached("want an address such as http://host:port".to_owned()))?;
        let trust = match (target.is_https, &self.trust) {
            (false, _) => None,
            (true, Some(trust)) => Some(trust),
            (true, None) => {
                return Err(unreached("no certificate is known that vouches for it".to_owned()));
            }
        };
        let mut stream = self
            .env
            .connect(&target.address, self.connect_limit)
            .await
            .map_err(|why| unreached(why.to_string()))?;
        if let Some(trust) = trust {
            let secured = trust.connect(&self.env, target.host, stream, self.connect_limit).await;
            stream = secured.map_err(|why| unreached(why.to_string()))?;
        }
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|why| unreached(why.to_string()))?;
        let driver = self.env.spawn("http client", async move {
            // Its end is seen by whoever waits for an answer.
            let _ = driver.await;
        });
        Ok(Connection { sender, _driver: driver.abort_on_drop() })
    }

    fn request(
        &self,
        asked: RawRequest,
        token: Option<&str>,
        accept: &str,
    ) -> Result<hyper::Request<Full<Bytes>>, Failure> {
        let authority = Target::of(&self.master).map_or("", |target| target.authority);
        let mut request = hyper::Request::builder()
            .method(asked.method)
            .uri(asked.path)
            .header(header::HOST, authority)
            .header(header::ACCEPT, accept);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if asked.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = asked.body.map(Bytes::from).unwrap_or_default();
        request.body(Full::new(body)).map_err(|why| Failure::Unreached {
            master: self.master.clone(),
            why: format!("the request cannot be written: {why}"),
        })
    }
}

/// Parts of a master's address.
struct Target<'a> {
    is_https: bool,
    /// As it is written: host, with the port if one is named.
    authority: &'a str,
    host: &'a str,
    /// `host:port`, with the port that the scheme stands for if none is named.
    address: String,
}

impl<'a> Target<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (is_https, port) = match scheme {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return None,
        };
        let authority = rest.trim_end_matches('/');
        Some(match authority.rsplit_once(':') {
            Some((host, named)) if !named.ends_with(']') => {
                Self { is_https, authority, host, address: authority.to_owned() }
            }
            _ => {
                let address = format!("{authority}:{port}");
                Self { is_https, authority, host: authority, address }
            }
        })
    }
}

/// Failure of a connection that broke after the request may have left.
fn lost(why: hyper::Error) -> Failure {
    Failure::Unknown { status: None, why: format!("the connection broke: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_names_the_port_or_its_scheme_does() {
        let parts = |url| {
            Target::of(url).map(|target| {
                (
                    target.is_https,
                    target.authority.to_owned(),
                    target.host.to_owned(),
                    target.address,
                )
            })
        };
        let of = |https, authority: &str, host: &str, address: &str| {
            Some((https, authority.to_owned(), host.to_owned(), address.to_owned()))
        };
        assert_eq!(parts("http://m0:80"), of(false, "m0:80", "m0", "m0:80"));
        assert_eq!(parts("https://m0/"), of(true, "m0", "m0", "m0:443"));
        assert_eq!(parts("https://[::1]:8443"), of(true, "[::1]:8443", "[::1]", "[::1]:8443"));
        assert_eq!(parts("http://[::1]"), of(false, "[::1]", "[::1]", "[::1]:80"));
        assert_eq!(parts("m0:80"), None);
        assert_eq!(parts("ftp://m0:80"), None);
    }
}
