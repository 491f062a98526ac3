//! Start of a whole master: the node, its front end and its listener for operators.

use std::{io, sync::Arc};

use thiserror::Error;
use tokio::sync::mpsc;

use crate::{
    comm::key_source::KeySource,
    config::Config,
    env::{Env, Listener},
    http::{
        Access, AccessError, AdminParams, AdminToken, HttpParams, Metrics, Tls, serve, serve_admin,
    },
    node::{self, master::NodeError},
    programs::{Stop, settings::node::is_loopback},
    store::Store,
};

/// Parameters of a master.
pub struct MasterParams {
    /// Master's name, for people.
    pub name: String,
    /// Limits and time-outs.
    pub config: Config,
    /// Address that the front end listens on, `host:port`.
    pub http_listen: String,
    /// URL of the front end for browsers, `http://host:port`, or `https://` under TLS.
    pub http_public: String,
    /// Further names and trusted proxies of the front end.
    pub access: Access,
    /// Address that accepts links of other nodes, `host:port`.
    pub link_listen: String,
    /// Address at which other nodes reach the links, `host:port`.
    pub link_public: String,
    /// Address for operators, `host:port`; none if `None`.
    pub admin_listen: Option<String>,
    /// Certificate and key of the front end, and of the listener for operators unless that is on
    /// loopback; none for plain HTTP.
    pub tls: Option<Tls>,
    /// Shared store.
    pub store: Store,
    /// Source of keys.
    pub keys: Arc<dyn KeySource>,
    /// Called once all of its addresses are listened on.
    pub on_listening: fn(),
}

/// Error that ends a master. It has released everything.
#[derive(Debug, Error)]
pub enum MasterError {
    /// An address cannot be listened on.
    #[error("cannot listen on {addr} for {what}: {why}")]
    Listen {
        /// Purpose of the listener.
        what: &'static str,
        /// Address, `host:port`.
        addr: String,
        /// Error of the system.
        why: io::Error,
    },
    /// The front end's URL is none.
    #[error("http_public: {0}")]
    Public(#[from] AccessError),
    /// The operators' token cannot be read or created.
    #[error("the admin token: {0}")]
    AdminToken(io::Error),
    /// The node ended with an error.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// Runs a master with its front end until it leaves the cluster, as `stops` say or an operator
/// asks; or until it is dropped. The front end answers at once, and is not ready until the node is.
///
/// # Errors
/// [`MasterError`].
pub async fn run_master(
    env: Env,
    params: MasterParams,
    mut stops: mpsc::Receiver<Stop>,
) -> Result<(), MasterError> {
    let MasterParams { name, config, http_public, link_public, store, keys, tls, .. } = params;
    let on_listening = params.on_listening;
    let mut access = params.access.with_public(&http_public)?;
    if tls.is_some() {
        access = access.only_https();
    }
    let http = listen(&env, "the front end", &params.http_listen).await?;
    let links = listen(&env, "links", &params.link_listen).await?;
    let (handle, asks) = node::master::channel();
    let metrics = Metrics::new();

    let http_params =
        HttpParams { config: config.clone(), metrics: metrics.clone(), access, tls: tls.clone() };
    let front = serve(env.clone(), http, handle.clone(), http_params);
    let front = env.spawn("front-end", front).abort_on_drop();
    let _admin = match &params.admin_listen {
        None => None,
        Some(addr) => {
            let listener = listen(&env, "operators", addr).await?;
            let token = AdminToken::of_disk(&env).map_err(MasterError::AdminToken)?;
            // Operators there name the address, for which certificates seldom stand.
            let tls = tls.filter(|_| !is_loopback(addr));
            let admin_params = AdminParams { config: config.clone(), metrics, token, tls };
            let admin = serve_admin(env.clone(), listener, handle.clone(), admin_params);
            Some(env.spawn("admin", admin).abort_on_drop())
        }
    };

    on_listening();
    let params = node::master::MasterParams { name, config, http_public, link_public, store, keys };
    let node = node::master::run(env, params, links, asks);
    let leave = async {
        while let Some(stop) = stops.recv().await {
            let told = match stop {
                Stop::Drain => handle.drain(true).await.map(drop),
                Stop::AtOnce => handle.leave().await,
            };
            // A node that does not serve yet, or no more, has nothing to leave.
            if told.is_err() {
                return;
            }
        }
        // It ends by itself, or nobody will ask it to.
        std::future::pending::<()>().await;
    };
    // While the master still answers whom it has taken in.
    let close = async {
        handle.closing().await;
        drop(front);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        ended = node => Ok(ended?),
        () = leave => Ok(()),
        () = close => Ok(()),
    }
}

async fn listen(
    env: &Env,
    what: &'static str,
    addr: &str,
) -> Result<Box<dyn Listener>, MasterError> {
    let failed = |why| MasterError::Listen { what, addr: addr.to_owned(), why };
    env.listen(addr).await.map_err(failed)
}
