//! Calls to one master, one at a time and without retries.

use crate::{
    client::{
        Answer, EventStream, Failure, Limits, RawAnswer, Request, Trust,
        exchange::{Exchange, RawRequest},
    },
    env::Env,
    model::ids::{BoardName, Cursor},
};

/// Client of one master. Keeps its connection between calls and never retries.
#[derive(Debug)]
pub struct Api {
    exchange: Exchange,
    token: Option<String>,
    limits: Limits,
    env: Env,
}

impl Api {
    /// Returns a client of the master at `http://host:port`; it connects with the first call.
    #[must_use]
    pub fn new(env: &Env, master: &str, token: Option<String>, limits: Limits) -> Self {
        let exchange = Exchange::new(env.clone(), master.to_owned(), limits.connect);
        Self { exchange, token, limits, env: env.clone() }
    }

    /// Returns the client with certificates by which it knows a master at `https://host:port`.
    #[must_use]
    pub fn trusting(mut self, trust: Option<Trust>) -> Self {
        self.exchange.trust = trust;
        self
    }

    /// Returns the master's address, `http://host:port`.
    #[must_use]
    pub fn master(&self) -> &str {
        self.exchange.master()
    }

    /// Uses another session from now on.
    pub fn set_token(&mut self, token: Option<String>) {
        self.token = token;
    }

    /// Makes a call. Dropping the future leaves its outcome unknown.
    ///
    /// # Errors
    /// Any [`Failure`].
    pub async fn call(&mut self, request: &Request) -> Result<Answer, Failure> {
        let limit = request.limit(&self.limits);
        let answer = self.exchange.whole(request.raw(), self.token.as_deref(), limit).await?;
        request.read(&answer)
    }

    /// Sends any method, path and body, also ones that no [`Request`] would.
    ///
    /// # Errors
    /// [`Failure::Unreached`] or [`Failure::Unknown`]; every HTTP status is an answer.
    pub async fn raw(
        &mut self,
        method: hyper::Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<RawAnswer, Failure> {
        let asked = RawRequest { method, path: path.to_owned(), body };
        self.exchange.whole(asked, self.token.as_deref(), self.limits.write).await
    }

    /// Opens a stream of these boards from a cursor, or from their ends without one.
    ///
    /// # Errors
    /// Any [`Failure`].
    pub async fn stream(
        self,
        boards: &[BoardName],
        cursor: Option<&Cursor>,
    ) -> Result<EventStream, Failure> {
        let cursor = cursor.map(ToString::to_string);
        self.open_stream(boards, cursor.as_deref()).await
    }

    /// Opens a stream of these boards from any text as its cursor, also from one that does not parse.
    /// The text stands in the URL as it is.
    ///
    /// # Errors
    /// Any [`Failure`].
    pub async fn raw_stream(
        self,
        boards: &[BoardName],
        cursor: &str,
    ) -> Result<EventStream, Failure> {
        self.open_stream(boards, Some(cursor)).await
    }

    async fn open_stream(
        self,
        boards: &[BoardName],
        cursor: Option<&str>,
    ) -> Result<EventStream, Failure> {
        let Self { mut exchange, token, limits, env } = self;
        EventStream::open(&env, &mut exchange, token.as_deref(), &limits, boards, cursor).await
    }
}
