//! Server: accepts connections, within caps, and has each served by a task of its own.
//!
//! 1. At most `connections_max` are open, `connections_per_address_max` of one address.
//! 2. Under TLS a handshake holds a place like any connection.
//! 3. When the server is dropped, connections finish the answer they are at, then close.

use std::{sync::Arc, time::Duration};

use axum::Router;
use tokio::sync::broadcast;
use tracing::{info, warn};

use super::{
    connection::{self, Broken, PeerHost},
    metrics::Metrics,
    tls::Tls,
};
use crate::{
    comm::{connection_limit::ConnectionLimit, seldom::Seldom},
    config::Config,
    env::{Env, Listener},
};

/// Wait before the next accept after one failed, for example for lack of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Interval between two warnings of one kind.
const TELL_EVERY: Duration = Duration::from_secs(60);

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
    let breaks = Arc::new(Seldom::new(TELL_EVERY));
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
        let breaks = Arc::clone(&breaks);
        env.spawn("http connection", async move {
            // Made here: one that was moved in would take its room twice.
            let served = connection::serve(of.clone(), tls, stream, from, router, closing).await;
            if let Err(why) = served {
                metrics.connection_broken(matches!(why, Broken::Tls(_)));
                if let Some(left_out) = breaks.left_out(of.now()) {
                    info!(%peer, %why, left_out, "a connection broke");
                }
            }
            metrics.connection_closed();
            drop(permit);
        });
    }
}
