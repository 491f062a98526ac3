//! Plan of a cluster: its nodes, their addresses, and the files they need before they start.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::try_join_all;
use rand_chacha::rand_core::Rng;
use serde::Serialize;

use super::ClusterSettings;
use crate::{
    api::JoinTerms,
    client::Trust,
    comm::{
        handshake::GUARD_FILE,
        key_source::{GeneratedKeys, IDENTITY_FILE, load_or_make_identity},
    },
    config::Config,
    crypto::{
        admission::JoinSecret,
        keys::{Identity, KeyBounds, KeyPair},
    },
    env::{
        Env,
        real::{RealWorld, make_private_dir, replace_file},
    },
    model::{
        ids::{Fingerprint, Role},
        rows::StoreError,
    },
    node::master::keep_join_token,
    programs::{
        ProgramError,
        master::MasterSettings,
        node_store::{StoreRights, open_store},
        process::check_port,
        settings::{
            file_of,
            node::{StorePlace, tls_files},
        },
        tls,
        worker::WorkerSettings,
    },
    store::Store,
};

/// The cluster's store in its data directory, unless another is named.
pub(crate) const STORE_FILE: &str = "chatchat.db";

const TOKEN_FILE: &str = "join.token";
const ADMIN_FILE: &str = "admin.token";

/// Plan of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodePlan {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) dir: PathBuf,
    /// Address of the front end, `host:port`; masters only.
    pub(super) http: Option<String>,
    /// Address for links, `host:port`; masters only.
    pub(super) link: Option<String>,
    /// Address for operators, `host:port`; masters only.
    pub(super) admin: Option<String>,
}

impl NodePlan {
    pub(super) fn settings(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(super) fn events(&self) -> PathBuf {
        self.dir.join("events.jsonl")
    }
}

/// Plan of the whole cluster.
#[derive(Debug)]
pub(super) struct Plan {
    /// Nodes, masters first.
    pub(super) nodes: Vec<NodePlan>,
    /// Program that is started for each node.
    pub(super) program: PathBuf,
    data_dir: PathBuf,
    store: StorePlace,
    /// Files of certificate and key.
    tls: Option<(PathBuf, PathBuf)>,
    log: String,
    config: Config,
}

impl Plan {
    pub(super) fn new(settings: &ClusterSettings, config: &Config) -> Result<Self, ProgramError> {
        let usage = |text: String| ProgramError::Usage(text);
        for (key, count) in [("masters", settings.masters), ("workers", settings.workers)] {
            if !(1..=100).contains(&count) {
                return Err(usage(format!("{key}: want 1 to 100, not {count}")));
            }
        }
        let first = settings.http_port;
        if first == 0 || u32::from(first) + 200 + u32::from(settings.masters) > 65_536 {
            return Err(usage(format!(
                "http_port: {first} leaves no room for the ports {first} + 200 and on"
            )));
        }
        // Paths are absolute, so that they hold in whatever directory the children run.
        let data_dir =
            std::path::absolute(&settings.data_dir).map_err(|e| usage(format!("data_dir: {e}")))?;
        let store = match settings.store.as_str() {
            "" => StorePlace::Sqlite(data_dir.join(STORE_FILE)),
            store => StorePlace::parse(store)?.absolute()?,
        };
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|e| usage(format!("{}: {e}", path.display())))
        };
        let tls = match tls_files(settings.tls_cert.as_deref(), settings.tls_key.as_deref())? {
            Some((cert, key)) => Some((absolute(cert)?, absolute(key)?)),
            None => None,
        };
        let program = std::env::current_exe()
            .map_err(|e| ProgramError::Failed(format!("this program cannot be found: {e}")))?;
        let addr = |port: u16| Some(format!("127.0.0.1:{port}"));
        let masters = (0..settings.masters).map(|at| {
            let name = format!("master-{at}");
            NodePlan {
                dir: data_dir.join(&name),
                name,
                role: Role::Master,
                http: addr(first + at),
                link: addr(first + 100 + at),
                admin: addr(first + 200 + at),
            }
        });
        let workers = (0..settings.workers).map(|at| {
            let name = format!("worker-{at}");
            let dir = data_dir.join(&name);
            NodePlan { name, role: Role::Worker, dir, http: None, link: None, admin: None }
        });
        Ok(Self {
            nodes: masters.chain(workers).collect(),
            program,
            data_dir,
            store,
            tls,
            log: settings.log.clone(),
            config: config.clone(),
        })
    }

    pub(super) fn workers(&self) -> usize {
        self.nodes.iter().filter(|node| node.role == Role::Worker).count()
    }

    pub(super) fn check_ports(&self) -> Result<(), ProgramError> {
        let ports = self.nodes.iter().flat_map(|node| [&node.http, &node.link, &node.admin]);
        ports.flatten().try_for_each(|addr| check_port(addr, "--http-port"))
    }

    /// Checks that certificate and key can be used.
    pub(super) fn check_tls(&self) -> Result<(), ProgramError> {
        self.tls.as_ref().map_or(Ok(()), |(cert, key)| tls::server(cert, key).map(drop))
    }

    /// Returns the trust in masters that use the certificate of the settings, under TLS.
    pub(super) fn trust(&self) -> Result<Option<Trust>, ProgramError> {
        let tls = self.tls.as_ref();
        tls.map(|(cert, _)| tls::trust(cert, Trust::of_certificate)).transpose()
    }

    /// Returns the URL of a front end at this address.
    pub(super) fn front_end(&self, addr: &str) -> String {
        format!("{}://{addr}", if self.tls.is_some() { "https" } else { "http" })
    }

    /// Makes the store's one file the whole store, as far as its log can be copied back.
    pub(super) fn copy_log_back(&self) {
        self.store.copy_log_back();
    }

    /// Creates directories, the masters' identities, the workers' tokens and all settings files.
    pub(super) async fn prepare(&self, env: &Env) -> Result<(), ProgramError> {
        for node in &self.nodes {
            make_private_dir(&node.dir).map_err(|e| ProgramError::Usage(e.to_string()))?;
        }
        let timeout = self.config.store_timeout;
        let store = open_store(env, &self.store, None, timeout, StoreRights::Create).await?;
        let of_workers = self.workers_store(&store).await?;
        let pins = self.identities().await?;
        let admin = self.admin_token(env)?;
        let links: Vec<_> = self.nodes.iter().filter_map(|node| node.link.clone()).collect();
        for node in &self.nodes {
            let settings = match node.role {
                Role::Master => {
                    write(node, ADMIN_FILE, &admin)?;
                    self.master_file(node)?
                }
                Role::Worker => {
                    let failed = |e: StoreError| {
                        ProgramError::Failed(format!("no join token for {}: {e}", node.name))
                    };
                    if is_enrolled(&store, node).await.map_err(failed)? {
                        withdraw(&store, node).await.map_err(failed)?;
                    } else {
                        let token = join_token(env, &store, &pins[0]).await.map_err(failed)?;
                        write(node, TOKEN_FILE, &token)?;
                    }
                    self.worker_file(node, &of_workers, &links, &pins)?
                }
            };
            let path = node.settings();
            replace_file(&path, settings.as_bytes())
                .map_err(|e| ProgramError::Usage(format!("{}: {e}", path.display())))?;
        }
        Ok(())
    }

    /// Returns the workers' setting of the store: without the user where masters can give each worker a
    /// login of its own. One without a password is for a user of the system, which is no other's.
    async fn workers_store(&self, store: &Store) -> Result<String, ProgramError> {
        let failed = |e: StoreError| ProgramError::Failed(format!("{}: {e}", self.store));
        Ok(match &self.store {
            StorePlace::Postgres(address)
                if address.has_password()
                    && address.names_database()
                    && store.makes_logins().await.map_err(failed)? =>
            {
                address.without_login()
            }
            place => place.secret_setting(),
        })
    }

    /// Returns the masters' fingerprints, in order. New keys are made concurrently, as each takes
    /// a while.
    async fn identities(&self) -> Result<Vec<Fingerprint>, ProgramError> {
        let masters = self.nodes.iter().filter(|node| node.role == Role::Master);
        try_join_all(masters.map(|node| async {
            let refuse = |e: &dyn std::fmt::Display| {
                ProgramError::Usage(format!("{}: {e}", node.dir.display()))
            };
            let env = Env::new(RealWorld::new(&node.dir).map_err(|e| refuse(&e))?);
            let identity = load_or_make_identity(&env, &GeneratedKeys, self.config.identity_bits);
            Ok(identity.await.map_err(|e| refuse(&e))?.fingerprint())
        }))
        .await
    }

    /// Returns the cluster's token for operators, which is created at the first start.
    fn admin_token(&self, env: &Env) -> Result<String, ProgramError> {
        let path = self.data_dir.join(ADMIN_FILE);
        let refuse =
            |e: &dyn std::fmt::Display| ProgramError::Usage(format!("{}: {e}", path.display()));
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => {
                Err(refuse(&"is empty; remove it to have a new one made"))
            }
            Ok(text) => Ok(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                env.rng("admin-token").fill_bytes(&mut secret);
                let text = format!("{}\n", URL_SAFE_NO_PAD.encode(secret));
                replace_file(&path, text.as_bytes()).map_err(|e| refuse(&e))?;
                Ok(text)
            }
            Err(e) => Err(refuse(&e)),
        }
    }

    fn master_file(&self, node: &NodePlan) -> Result<String, ProgramError> {
        let or_empty = |addr: &Option<String>| addr.clone().unwrap_or_default();
        let settings = MasterSettings {
            name: node.name.clone(),
            data_dir: node.dir.clone(),
            store: self.store.secret_setting(),
            http: or_empty(&node.http),
            link: or_empty(&node.link),
            admin: or_empty(&node.admin),
            tls_cert: self.tls.as_ref().map(|(cert, _)| cert.clone()),
            tls_key: self.tls.as_ref().map(|(_, key)| key.clone()),
            events: Some(node.events()),
            log: self.log.clone(),
            ..MasterSettings::default()
        };
        file_of(&settings.resolve()?, &self.config)
    }

    fn worker_file(
        &self,
        node: &NodePlan,
        store: &str,
        masters: &[String],
        pins: &[Fingerprint],
    ) -> Result<String, ProgramError> {
        let settings = WorkerSettings {
            name: node.name.clone(),
            data_dir: node.dir.clone(),
            store: store.to_owned(),
            masters: masters.to_vec(),
            pins: pins.to_vec(),
            token: None,
            token_file: Some(node.dir.join(TOKEN_FILE)).filter(|file| file.exists()),
            events: Some(node.events()),
            log: self.log.clone(),
        };
        file_of(&settings.resolve()?, &self.config)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = |count: usize, what: &str| {
            format!("{count} {what}{}", if count == 1 { "" } else { "s" })
        };
        let workers = self.workers();
        let masters = some(self.nodes.len() - workers, "master");
        write!(f, "{masters} and {} on {}", some(workers, "worker"), self.store)
    }
}

fn write(node: &NodePlan, name: &str, text: &str) -> Result<(), ProgramError> {
    let path = node.dir.join(name);
    replace_file(&path, text.as_bytes())
        .map_err(|e| ProgramError::Usage(format!("{}: {e}", path.display())))
}

/// Returns whether the store lists a worker with the key and the guard of its directory.
async fn is_enrolled(store: &Store, node: &NodePlan) -> Result<bool, StoreError> {
    let file = |name| fs::read(node.dir.join(name)).ok();
    let (Some(key), Some(guard)) = (file(IDENTITY_FILE), file(GUARD_FILE)) else {
        return Ok(false);
    };
    let Ok(pair) = KeyPair::from_pkcs8_der(&key, KeyBounds::STANDARD) else { return Ok(false) };
    let id = Identity::new(pair).node();
    let lists = store.admission().await?;
    Ok(lists.allowed.iter().any(|row| row.node == id && row.guard[..] == guard[..]))
}

/// Revokes and removes the token of an earlier start, which the worker needs no more.
async fn withdraw(store: &Store, node: &NodePlan) -> Result<(), StoreError> {
    let path = node.dir.join(TOKEN_FILE);
    let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
    if let Ok(secret) = JoinSecret::parse(&text) {
        store.revoke_join_token(secret.id).await?;
    }
    // A file that stays names a token that is good for nothing.
    let _ = fs::remove_file(path);
    Ok(())
}

/// Creates a join token for one worker.
async fn join_token(env: &Env, store: &Store, master: &Fingerprint) -> Result<String, StoreError> {
    let secret = JoinSecret::random(&mut env.rng("join-tokens"), master);
    keep_join_token(store, &secret, JoinTerms::default()).await?;
    Ok(secret.text().to_string())
}

#[derive(Serialize)]
struct Listing<'a> {
    /// File of the masters' certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert: Option<&'a Path>,
    /// Store, without a password.
    store: String,
    nodes: Vec<Listed<'a>>,
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    role: Role,
    pid: Option<u32>,
    http: Option<String>,
    link: Option<&'a str>,
    admin: Option<String>,
}

/// Replaces `DATA/cluster.json`. `pids` are in the order of nodes, `None` for a node that does not
/// run.
pub(super) fn write_listing(plan: &Plan, pids: &[Option<u32>]) -> Result<(), ProgramError> {
    let nodes = plan.nodes.iter().zip(pids).map(|(node, pid)| Listed {
        name: &node.name,
        role: node.role,
        pid: *pid,
        http: node.http.as_deref().map(|addr| plan.front_end(addr)),
        link: node.link.as_deref(),
        // On loopback, where operators are served without TLS.
        admin: node.admin.as_ref().map(|addr| format!("http://{addr}")),
    });
    let tls_cert = plan.tls.as_ref().map(|(cert, _)| cert.as_path());
    let listing = Listing { tls_cert, store: plan.store.to_string(), nodes: nodes.collect() };
    let path = plan.data_dir.join("cluster.json");
    let failed =
        |e: &dyn std::fmt::Display| ProgramError::Failed(format!("{}: {e}", path.display()));
    let text = serde_json::to_string_pretty(&listing).map_err(|e| failed(&e))?;
    replace_file(&path, text.as_bytes()).map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{env::real::TempDir, model::rows::Enrolled};

    fn plan(change: impl FnOnce(&mut ClusterSettings)) -> Result<Plan, ProgramError> {
        let mut settings = ClusterSettings::default();
        change(&mut settings);
        Plan::new(&settings, &Config::default())
    }

    #[test]
    fn ports_are_the_same_at_each_start_and_must_fit() {
        let plan_ = plan(|_| {}).expect("the defaults work");
        let shown: Vec<_> = plan_
            .nodes
            .iter()
            .map(|node| {
                let port = |addr: &Option<String>| addr.clone().unwrap_or_else(|| "-".to_owned());
                let ports = [port(&node.http), port(&node.link), port(&node.admin)];
                format!("{} {}", node.name, ports.join(" "))
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        master-0 127.0.0.1:8080 127.0.0.1:8180 127.0.0.1:8280
        master-1 127.0.0.1:8081 127.0.0.1:8181 127.0.0.1:8281
        worker-0 - - -
        worker-1 - - -
        worker-2 - - -
        ");
        assert!(plan(|s| s.http_port = 65_334).is_ok());
        for refused in [
            plan(|s| s.http_port = 65_335),
            plan(|s| s.http_port = 0),
            plan(|s| s.masters = 0),
            plan(|s| s.workers = 101),
            plan(|s| s.store = "postgres://h".to_owned()),
        ] {
            assert!(matches!(refused, Err(ProgramError::Usage(_))), "{refused:?}");
        }
    }

    #[test]
    fn listing_shows_the_store_and_each_nodes_process_and_addresses() {
        let temp = TempDir::new().expect("a directory");
        let plan = plan(|s| {
            (s.masters, s.workers) = (1, 1);
            s.data_dir = temp.path().to_owned();
        })
        .expect("works");
        write_listing(&plan, &[Some(7), None]).expect("written");
        let text = fs::read_to_string(temp.path().join("cluster.json")).expect("is there");
        let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let store = format!("sqlite:{}", temp.path().join(STORE_FILE).display());
        let want = serde_json::json!({"store": store, "nodes": [
            {"name": "master-0", "role": "master", "pid": 7, "http": "http://127.0.0.1:8080",
             "link": "127.0.0.1:8180", "admin": "http://127.0.0.1:8280"},
            {"name": "worker-0", "role": "worker", "pid": null, "http": null, "link": null,
             "admin": null},
        ]});
        assert_eq!(read, want);
    }

    /// A plan of one master and so many workers, and its files.
    async fn prepared(workers: u16) -> (TempDir, Env, Plan) {
        let temp = TempDir::new().expect("a directory");
        let settings = ClusterSettings {
            masters: 1,
            workers,
            data_dir: temp.path().to_owned(),
            ..ClusterSettings::default()
        };
        let config = Config { identity_bits: 2048, ..Config::default() };
        let plan = Plan::new(&settings, &config).expect("works");
        let env = Env::new(RealWorld::new(temp.path()).expect("a directory"));
        plan.prepare(&env).await.expect("prepared");
        (temp, env, plan)
    }

    #[tokio::test]
    async fn prepare_writes_all_files_that_nodes_need_and_keeps_identities() {
        let (temp, env, plan) = prepared(2).await;
        let first = fs::read(temp.path().join("master-0/identity.key")).expect("a key");
        plan.prepare(&env).await.expect("prepared again");
        let again = fs::read(temp.path().join("master-0/identity.key")).expect("a key");
        assert_eq!(first, again, "a second start keeps the identity");
        let admin = |dir: &str| fs::read_to_string(temp.path().join(dir).join(ADMIN_FILE));
        assert_eq!(admin("").expect("made"), admin("master-0").expect("passed on"));
        let token = |name: &str| {
            let text = fs::read_to_string(temp.path().join(name).join(TOKEN_FILE)).expect("made");
            JoinSecret::parse(&text).expect("a token").id
        };
        assert_ne!(token("worker-0"), token("worker-1"), "each has a token of its own");
        let file = fs::read_to_string(plan.nodes[1].settings()).expect("written");
        let worker: toml::Table = file.parse().expect("TOML");
        assert_eq!(worker["masters"], toml::Value::from(vec!["127.0.0.1:8180"]));
        assert_eq!(worker["pins"].as_array().map(Vec::len), Some(1));
    }

    #[tokio::test]
    async fn enrolled_worker_gets_no_new_token_and_the_old_one_is_withdrawn() {
        let (temp, env, plan) = prepared(1).await;
        let file = temp.path().join("worker-0").join(TOKEN_FILE);
        let text = fs::read_to_string(&file).expect("made");
        let secret = JoinSecret::parse(&text).expect("a token");
        let (timeout, rights) = (plan.config.store_timeout, StoreRights::Create);
        let store = open_store(&env, &plan.store, None, timeout, rights).await.expect("there");
        let world = RealWorld::new(temp.path().join("worker-0")).expect("a directory");
        let worker = Env::new(world);
        let identity = load_or_make_identity(&worker, &GeneratedKeys, 2048).await.expect("a key");
        let row = Enrolled {
            node: identity.node(),
            fingerprint: identity.fingerprint(),
            role: Role::Worker,
            guard: [7; 32],
        };
        store.enrol(secret.id, secret.bearer_sha256(), row).await.expect("enrolled");
        worker.disk().write_atomic(GUARD_FILE, &[7; 32]).expect("written");
        plan.prepare(&env).await.expect("prepared again");
        assert!(!file.exists(), "there is nothing to steal");
        assert_eq!(store.admission().await.expect("lists").tokens, []);
    }
}
