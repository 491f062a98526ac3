//! Server: accepts connections and drives HTTP/1.1 on them, within caps and deadlines.
//!
//! 1. At most `connections_max` are open, `connections_per_address_max` of one address.
//! 2. One that sends no byte, no whole header, no further request, or takes nothing of what is
//!    written, is closed; what has arrived by then is answered.
//! 3. Under TLS a handshake holds a place like any connection, and has a limit of its own.
//! 4. When the server is dropped, connections finish the answer they are at, then close.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::FromRequestParts,
    http::{Request, request::Parts},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::sync::broadcast;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::{
    io::{Deadlines, Watched},
    metrics::Metrics,
    tls::Tls,
};
use crate::{
    comm::{connection_limit::ConnectionLimit, seldom::Seldom},
    config::Config,
    env::{BoxStream, Env, Listener},
};

/// Waits of a connection. Idle ones outlive the 60 s of common balancers, so that it is never us who
/// closes what a balancer is about to use.
const DEADLINES: Deadlines = Deadlines {
    first_byte: Duration::from_secs(5),
    header: Duration::from_secs(20),
    idle: Duration::from_secs(120),
    write_stall: Duration::from_secs(10),
    linger: Duration::from_secs(5),
};
/// Time for requests that are on their way when the server stops.
const LAST_REQUEST: Duration = Duration::from_millis(100);
/// Time for connections to finish when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// Wait before the next accept after one failed, for example for lack of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Interval between two warnings of one kind.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Largest header of a request, in lines and bytes: cursors of 32 boards fit in the query.
const HEADER_LINES_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Largest buffer of one connection's input or output, in bytes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Returns the limit of connections, in all and of one address.
pub(super) fn limit(config: &Config) -> ConnectionLimit {
    ConnectionLimit::new(config.connections_max, config.connections_per_address_max)
}

/// Signal to connections and streams: when dropped, the server stops.
#[derive(Debug)]
pub(super) struct Closing(broadcast::Sender<()>);

impl Closing {
    pub(super) fn new() -> Self {
        Self(broadcast::channel(1).0)
    }

    pub(super) fn sender(&self) -> broadcast::Sender<()> {
        self.0.clone()
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        // Nobody listens when nothing is open.
        let _ = self.0.send(());
    }
}

/// Serves until dropped, over TLS if there is one.
pub(super) async fn run(
    env: Env,
    mut listener: Box<dyn Listener>,
    tls: Option<Tls>,
    router: Router,
    limit: ConnectionLimit,
    metrics: Metrics,
    closing: Closing,
) {
    let (failures, refusals) = (Seldom::new(TELL_EVERY), Seldom::new(TELL_EVERY));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(why) => {
                if let Some(left_out) = failures.left_out(env.now()) {
                    warn!(%why, left_out, "a connection could not be taken");
                }
                env.sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let Some(permit) = limit.take(&peer) else {
            metrics.connection_refused();
            if let Some(left_out) = refusals.left_out(env.now()) {
                warn!(%peer, left_out, "too many connections");
            }
            continue;
        };
        metrics.connection_opened();
        let (metrics, closing) = (metrics.clone(), closing.sender().subscribe());
        let from = PeerHost(Arc::clone(permit.host()));
        let (of, tls, router) = (env.clone(), tls.clone(), router.clone());
        env.spawn("http connection", async move {
            // Made here: one that was moved in would take its room twice.
            connection(of, tls, stream, from, router, closing).await;
            metrics.connection_closed();
            drop(permit);
        });
    }
}

async fn connection(
    env: Env,
    tls: Option<Tls>,
    stream: BoxStream,
    from: PeerHost,
    router: Router,
    mut closing: broadcast::Receiver<()>,
) {
    let stream = match tls {
        None => stream,
        Some(tls) => tokio::select! {
            biased;
            taken = tls.accept(&env, stream) => match taken {
                Ok(stream) => stream,
                Err(why) => {
                    debug!(%why, "no TLS connection came about");
                    return;
                }
            },
            _ = closing.recv() => return,
        },
    };
    let busy = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(Watched::new(&env, stream, DEADLINES, Arc::clone(&busy)));
    let service = service_fn(move |mut request: Request<Incoming>| {
        busy.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(from.clone());
        let (answer, busy) = (router.clone().oneshot(request.map(Body::new)), Arc::clone(&busy));
        async move {
            let answer = answer.await;
            busy.store(false, Ordering::Relaxed);
            answer
        }
    });
    let served = http1::Builder::new()
        // It would be hyper's idea of a clock; the connection has its own deadlines.
        .header_read_timeout(None)
        .max_headers(HEADER_LINES_MAX)
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        // It would be the process's clock, not the node's.
        .auto_date_header(false)
        .serve_connection(io, service);
    let mut served = pin!(served);
    tokio::select! {
        biased;
        ended = served.as_mut() => {
            if let Err(why) = ended {
                debug!(%why, "connection ended");
            }
            return;
        }
        _ = closing.recv() => {}
    }
    // A request may be on its way that its sender will not send again.
    if env.timeout(LAST_REQUEST, served.as_mut()).await.is_ok() {
        return;
    }
    served.as_mut().graceful_shutdown();
    // What is not done by then is cut.
    let _ = env.timeout(GRACE, served).await;
}

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
