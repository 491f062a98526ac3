//! Connection: the handshake, requests by way of hyper, and long answers without it.
//!
//! ```text
//!   handshake ──► requests (hyper) ──► end
//!                  │           ▲
//!      head and    ▼           │  last chunk
//!      first chunk └─ chunks ──┘
//! ```
//!
//! 1. A connection that sends no byte, no whole header, no further request, or takes nothing or too little
//!    of what is written, is closed; what has arrived by then is answered.
//! 2. A handshake has a limit of its own.
//! 3. A long answer leaves hyper only behind a whole request, and comes back with all that its peer sent
//!    meanwhile: what is read next is the next request.
//! 4. When the server stops, a connection finishes the answer it is at, then closes.

use std::{
    convert::Infallible,
    error::Error as _,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::FromRequestParts,
    http::{HeaderMap, Method, Request, Version, header, request::Parts},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{io::AsyncWriteExt, sync::broadcast};
use tower::ServiceExt;

use super::{
    chunks::write_chunks,
    io::{Course, Deadlines, Watched},
    long_body::{Chunks, Rest},
    tls::Tls,
};
use crate::env::{BoxStream, Env, TimedOut};

/// Waits of a connection. Idle ones outlive the 60 s of common balancers, so that it is never us who
/// closes what a balancer is about to use. A line of 9 KB/s is fast enough for any answer: a system's
/// socket takes more only once it has room for some 85 KB.
const DEADLINES: Deadlines = Deadlines {
    first_byte: Duration::from_secs(5),
    header: Duration::from_secs(20),
    idle: Duration::from_secs(120),
    write_stall: Duration::from_secs(10),
    write_share: Duration::from_secs(30),
    linger: Duration::from_secs(5),
};
/// Time for requests that are on their way when the server stops.
const LAST_REQUEST: Duration = Duration::from_millis(100);
/// Time for connections to finish when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// Largest header of a request, in lines and bytes: cursors of 32 boards fit in the query.
const HEADER_LINES_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Largest buffer of one connection's input or output, in bytes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Address that a request came from, without its port.
#[derive(Clone, Debug)]
pub(super) struct PeerHost(pub(super) Arc<str>);

impl<S: Sync> FromRequestParts<S> for PeerHost {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Every connection says it; those of no connection share a name.
        Ok(parts.extensions.get().cloned().unwrap_or_else(|| Self("".into())))
    }
}

/// Reason why a connection ended that its peer did not end between two requests.
#[derive(Debug, Error)]
pub(super) enum Broken {
    /// No TLS connection came about.
    #[error("no TLS connection came about: {0}")]
    Tls(io::Error),
    /// The peer broke HTTP's rules, missed a deadline or broke off.
    #[error("{}", with_source(.0))]
    Http(#[from] hyper::Error),
    /// A long answer could not be written.
    #[error("a long answer was cut: {0}")]
    Answer(io::Error),
}

/// Returns an error with its cause: hyper names only what it was at.
fn with_source(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Serves a connection to its end; `closing` says when the server stops.
///
/// # Errors
/// [`Broken`]; the connection is closed.
pub(super) async fn serve(
    env: Env,
    tls: Option<Tls>,
    stream: BoxStream,
    from: PeerHost,
    router: Router,
    closing: broadcast::Receiver<()>,
) -> Result<(), Broken> {
    let mut stop = Stop { closing, is_here: false };
    // Each part has a box of its own: a task keeps the room of its largest part until it ends, and the
    // part that lasts is the smallest.
    let stream = match tls {
        None => stream,
        Some(tls) => match Box::pin(handshake(&env, tls, stream, &mut stop)).await? {
            Some(stream) => stream,
            None => return Ok(()),
        },
    };
    let mut io = Watched::new(&env, stream, &DEADLINES);
    loop {
        let requests = requests(&env, io, from.clone(), router.clone(), &mut stop);
        let Some(answer) = Box::pin(requests).await? else { return Ok(()) };
        let Some(kept) = Box::pin(answer.write(&env, &mut stop)).await? else { return Ok(()) };
        io = kept;
    }
}

/// Signal that the server stops.
struct Stop {
    closing: broadcast::Receiver<()>,
    is_here: bool,
}

impl Stop {
    /// Waits for it; returns at once when it came before. Cancel-safe.
    async fn wait(&mut self) {
        if !self.is_here {
            let _ = self.closing.recv().await;
            self.is_here = true;
        }
    }
}

/// Makes the TLS connection; `None` if the server stops meanwhile.
async fn handshake(
    env: &Env,
    tls: Tls,
    stream: BoxStream,
    stop: &mut Stop,
) -> Result<Option<BoxStream>, Broken> {
    tokio::select! {
        biased;
        taken = tls.accept(env, stream) => taken.map(Some).map_err(Broken::Tls),
        () = stop.wait() => Ok(None),
    }
}

/// Serves requests, until the connection is over or goes on with a long answer.
async fn requests(
    env: &Env,
    io: Watched,
    from: PeerHost,
    router: Router,
    stop: &mut Stop,
) -> Result<Option<LongAnswer>, Broken> {
    let course = Arc::clone(io.course());
    let claimed = Arc::new(OnceLock::new());
    let (of_course, of_claimed) = (Arc::clone(&course), Arc::clone(&claimed));
    let service = service_fn(move |mut request: Request<Incoming>| {
        of_course.set_busy(true);
        request.extensions_mut().insert(from.clone());
        let may_claim = may_leave_hyper(&request);
        let is_last = asks_to_close(request.headers());
        let answer = router.clone().oneshot(request.map(Body::new));
        let (course, claimed) = (Arc::clone(&of_course), Arc::clone(&of_claimed));
        async move {
            let answer = answer.await;
            course.set_busy(false);
            answer.map(|mut answer| {
                let rest = answer.extensions_mut().remove::<Rest>();
                if let Some(rest) = rest.filter(|_| may_claim) {
                    rest.claim();
                    let is_last = is_last || asks_to_close(answer.headers());
                    // The first one: its body does not end in hyper, so no other follows.
                    let _ = claimed.set(Claim { rest, is_last });
                }
                answer
            })
        }
    });
    let mut served = http1::Builder::new()
        // It would be hyper's idea of a clock; the connection has its own deadlines.
        .header_read_timeout(None)
        .max_headers(HEADER_LINES_MAX)
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        // It would be the process's clock, not the node's.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service);
    for stage in [Stage::Open, Stage::LastRequest, Stage::Finish] {
        if stage == Stage::Finish {
            Pin::new(&mut served).graceful_shutdown();
        }
        let over = async {
            match stage {
                Stage::Open => stop.wait().await,
                // A request may be on its way that its sender will not send again.
                Stage::LastRequest => env.sleep(LAST_REQUEST).await,
                // What is not done by then is cut.
                Stage::Finish => env.sleep(GRACE).await,
            }
        };
        tokio::select! {
            biased;
            next = poll_fn(|cx| poll_served(&mut served, &course, &claimed, cx)) => {
                let Some((chunks, is_last)) = next? else { return Ok(None) };
                // From then on hyper announces it as the last answer.
                let is_last = is_last || stage == Stage::Finish;
                let parts = served.into_parts();
                let io = parts.io.into_inner();
                return Ok(Some(LongAnswer::new(io, &parts.read_buf, chunks, is_last)));
            }
            () = over => {}
        }
    }
    Ok(None)
}

/// Part of a connection's time with hyper.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    LastRequest,
    Finish,
}

/// Claim on the rest of a long answer, before hyper has written what is before it.
struct Claim {
    rest: Rest,
    /// Whether the connection ends with the answer.
    is_last: bool,
}

/// Returns whether a long answer to this request may be written without hyper: in chunks, and with
/// nothing left of the request that would be taken for the next one.
fn may_leave_hyper(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && request.body().is_end_stream()
}

fn asks_to_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("close"))
}

/// Polls hyper's part of a connection: `None` at its end, and the rest of a long answer once hyper waits
/// for it with nothing left to write, which shows in a flush: hyper flushes when all is written.
fn poll_served(
    served: &mut (impl Future<Output = hyper::Result<()>> + Unpin),
    course: &Course,
    claimed: &OnceLock<Claim>,
    cx: &mut Context<'_>,
) -> Poll<hyper::Result<Option<(Chunks, bool)>>> {
    if let Poll::Ready(ended) = Pin::new(served).poll(cx) {
        return Poll::Ready(ended.map(|()| None));
    }
    let due = claimed.get().filter(|claim| claim.rest.is_due() && course.is_flushed());
    match due.and_then(|claim| Some((claim.rest.take()?, claim.is_last))) {
        Some(due) => Poll::Ready(Ok(Some(due))),
        None => Poll::Pending,
    }
}

/// Long answer whose head and first chunk are written.
struct LongAnswer {
    io: Watched,
    chunks: Chunks,
    /// Whether the connection ends with it.
    is_last: bool,
}

impl LongAnswer {
    fn new(mut io: Watched, ahead: &Bytes, chunks: Chunks, is_last: bool) -> Self {
        // As a copy: hyper's whole buffer would stay for a few bytes, or for none.
        io.begin_long_answer(Bytes::copy_from_slice(ahead));
        Self { io, chunks, is_last }
    }

    /// Writes it to its end. Returns the connection, if it goes on.
    async fn write(self, env: &Env, stop: &mut Stop) -> Result<Option<Watched>, Broken> {
        let is_last = self.is_last;
        let mut writing = pin!(async move {
            let mut io = write_chunks(self.io, self.chunks).await?;
            if is_last {
                // The peer may have ended it first.
                let _ = io.shutdown().await;
            }
            Ok::<_, io::Error>(io)
        });
        let written = tokio::select! {
            biased;
            written = writing.as_mut() => written,
            // Its chunks end by themselves; a reader that does not take them is cut.
            () = stop.wait() => match env.timeout(GRACE, writing).await {
                Ok(written) => written,
                Err(TimedOut) => return Ok(None),
            },
        };
        let mut io = written.map_err(Broken::Answer)?;
        io.end_long_answer();
        Ok((!is_last).then_some(io))
    }
}
