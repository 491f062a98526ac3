//! Builder of a cluster in one process: real masters with front ends, and real workers.
//!
//! The nodes talk over the sockets of their worlds and share one store. The caller chooses each
//! node's world, keys and connection to the store: a test takes small keys and a store in memory,
//! a bench takes what a production cluster has.

use std::{fmt, future::pending, sync::Arc};

use tokio::sync::mpsc;

use crate::{
    comm::key_source::{KeySource, load_or_make_identity},
    config::Config,
    crypto::admission::JoinSecret,
    env::{Env, TaskGuard},
    http::Access,
    model::ids::{Fingerprint, Role},
    programs::{MasterParams, WorkerParams, run_master, run_worker},
    store::Store,
};

/// Life of the workers' join token, in milliseconds.
const TOKEN_LIFE_MS: u64 = 3_600_000;

/// Uses of the token, for workers that join later too: each that has to join again takes another one.
const TOKEN_USES: u32 = 1000;

/// Parts of one node that the caller chooses.
pub struct NodeParts {
    /// World that the node runs in. Its disk is the node's own.
    pub env: Env,
    /// Connection to the store that all nodes share.
    pub store: Store,
    /// Source of the node's keys.
    pub keys: Arc<dyn KeySource>,
}

impl fmt::Debug for NodeParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeParts").finish_non_exhaustive()
    }
}

/// Running cluster. Its nodes are stopped when this is dropped.
#[derive(Debug)]
pub struct TestCluster {
    urls: Vec<String>,
    links: Vec<String>,
    pins: Vec<Fingerprint>,
    token: String,
    masters: Vec<Option<TaskGuard>>,
    workers: Vec<Option<TaskGuard>>,
}

impl TestCluster {
    /// Starts a cluster: `node` returns the parts of each node, by its role and its number among
    /// the nodes of that role. The masters start first. At least one master is needed; its store
    /// gets the token with which the workers join.
    ///
    /// # Panics
    /// When a key or a port cannot be had, or the store does not take the token. A node that ends
    /// by itself panics in its own task.
    pub async fn start(
        masters: usize,
        workers: usize,
        config: &Config,
        mut node: impl FnMut(Role, usize) -> NodeParts,
    ) -> Self {
        let mut cluster = Self {
            urls: Vec::new(),
            links: Vec::new(),
            pins: Vec::new(),
            token: String::new(),
            masters: Vec::new(),
            workers: Vec::new(),
        };
        let mut secret = None;
        for number in 0..masters {
            let parts = node(Role::Master, number);
            let identity =
                load_or_make_identity(&parts.env, parts.keys.as_ref(), config.identity_bits);
            let pin = identity.await.expect("an identity").fingerprint();
            if secret.is_none() {
                let drawn = JoinSecret::random(&mut parts.env.rng("test-cluster-token"), &pin);
                let token = drawn.row(TOKEN_USES, parts.env.wall().ms + TOKEN_LIFE_MS);
                parts.store.put_join_token(token).await.expect("the store keeps the token");
                secret = Some(drawn);
            }
            let (http, link) = (free_addr(&parts.env).await, free_addr(&parts.env).await);
            cluster.urls.push(format!("http://{http}"));
            cluster.links.push(link.clone());
            cluster.pins.push(pin);
            let params = MasterParams {
                name: format!("master-{number}"),
                config: config.clone(),
                http_public: format!("http://{http}"),
                access: Access::default(),
                http_listen: http,
                link_public: link.clone(),
                link_listen: link,
                admin_listen: None,
                tls: None,
                store: parts.store,
                keys: parts.keys,
                on_listening: || {},
            };
            let env = parts.env.clone();
            let task = parts.env.spawn("master", async move {
                let ended = run_master(env, params, mpsc::channel(1).1).await;
                panic!("a master ended: {ended:?}");
            });
            cluster.masters.push(Some(task.abort_on_drop()));
        }
        cluster.token = secret.expect("one master at least").text().to_string();
        for number in 0..workers {
            cluster.add_worker(node(Role::Worker, number), config);
        }
        cluster
    }

    /// Starts one more worker.
    pub fn add_worker(&mut self, parts: NodeParts, config: &Config) {
        let params = WorkerParams {
            name: format!("worker-{}", self.workers.len()),
            config: config.clone(),
            masters: self.links.clone(),
            pins: self.pins.clone(),
            token: Some(self.token.clone()),
            store: parts.store,
            login: None,
            keys: parts.keys,
        };
        let env = parts.env.clone();
        let task = parts.env.spawn("worker", async move {
            let ended = run_worker(env, params, pending()).await;
            panic!("a worker ended: {ended:?}");
        });
        self.workers.push(Some(task.abort_on_drop()));
    }

    /// Returns the URLs of the masters' front ends, in the order of their numbers.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Returns the addresses that the masters take nodes' links on.
    #[must_use]
    pub fn links(&self) -> &[String] {
        &self.links
    }

    /// Returns the fingerprints of the masters' keys.
    #[must_use]
    pub fn pins(&self) -> &[Fingerprint] {
        &self.pins
    }

    /// Returns the text of the join token that the workers used.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Stops a master without a goodbye.
    ///
    /// # Panics
    /// When there is no master of this number.
    pub fn stop_master(&mut self, number: usize) {
        self.masters[number] = None;
    }

    /// Stops a worker without a goodbye.
    ///
    /// # Panics
    /// When there is no worker of this number.
    pub fn stop_worker(&mut self, number: usize) {
        self.workers[number] = None;
    }
}

/// Returns an address on loopback that was free a moment ago.
async fn free_addr(env: &Env) -> String {
    env.listen("127.0.0.1:0").await.expect("a free port").local_addr()
}
