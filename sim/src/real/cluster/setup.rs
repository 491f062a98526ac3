//! Files of a real cluster before its nodes start, and of a node that was wiped.

use std::{
    collections::BTreeMap, fs, io, net::TcpListener, path::Path, sync::Mutex, time::Duration,
};

use chatchat::{
    comm::key_source::{GeneratedKeys, IDENTITY_FILE, KeyKind, KeySource},
    crypto::{admission::JoinSecret, keys::Identity},
    env::{
        Env,
        real::{RealWorld, TempDir, make_private_dir, replace_file},
    },
    model::{ids::Fingerprint, time::Mono},
    programs::{master::MasterSettings, settings::file_of, worker::WorkerSettings},
    store::sqlite::file::{FileLimits, open_with},
};
use chatchat_scenarios::{cluster as shape, plan::Plan, target::Place};

use super::RealCluster;
use crate::{
    cluster::{
        operators::{ADMIN_TOKEN, ADMIN_TOKEN_FILE, JoinTokens, expulsions_max, has_operators},
        wipes_max,
    },
    real::{
        lines::Lines,
        network::Network,
        node::{Node, name_of},
    },
};

/// Size of identity keys: the smallest that nodes take, as larger ones take long to make.
const IDENTITY_BITS: usize = 2048;
/// Time that the harness waits for the store, which faults of nodes may keep busy.
const STORE_TIMEOUT: Duration = Duration::from_secs(20);
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Ports of a node that has an address of its own.
const PORTS: [u16; 3] = [80, 7000, 81];

impl RealCluster {
    /// Makes everything that the nodes need before they start.
    ///
    /// # Errors
    /// A sentence for the person who asked. Files that were made are removed.
    pub(in crate::real) async fn new(
        plan: &Plan,
        programs: &Path,
        network: Option<Network>,
        keep: bool,
    ) -> Result<Self, String> {
        let folder = TempDir::new().map_err(|why| format!("no folder for the run: {why}"))?;
        // Nodes are told absolute paths.
        let path = std::path::absolute(folder.path()).map_err(|why| why.to_string())?;
        let mut folder = Some(folder);
        if keep {
            // A handle that is never dropped never removes it.
            std::mem::forget(folder.take());
        }
        let env = RealWorld::new(path.join("harness")).map_err(|why| why.to_string())?;
        let env = Env::new(env);
        let start_ms = env.wall().ms.saturating_sub(ms(env.now().since(Mono::ZERO)));
        let mut shape = plan.cluster.clone();
        shape.config.identity_bits = IDENTITY_BITS;

        let nodes = nodes(&shape, &path, network.as_ref())?;
        for node in nodes.values() {
            make_private_dir(&node.folder).map_err(|why| why.to_string())?;
            make_private_dir(&node.data()).map_err(|why| why.to_string())?;
        }
        let limits = FileLimits::new(STORE_TIMEOUT);
        let store = open_with(&env, &path.join("store.db"), limits);
        let store = store.map_err(|why| format!("no store: {why}"))?;
        let (wipes, expulsions) = (wipes_max(plan), expulsions_max(plan));
        let identities = identities(&env, shape.masters + wipes).await?;
        let lines = Lines::new(nodes.iter().map(|(place, node)| (*place, node.events())));
        let it = Self {
            state: Mutex::default(),
            network,
            _folder: folder,
            path,
            env,
            start_ms,
            shape,
            programs: programs.to_owned(),
            nodes,
            store,
            lines: Mutex::new(lines),
            listener: Mutex::default(),
            has_operators: has_operators(plan),
        };
        it.prepare(identities, wipes, 1 + expulsions).await?;
        Ok(it)
    }

    async fn prepare(
        &self,
        mut identities: Vec<(Vec<u8>, Fingerprint)>,
        wipes: usize,
        tokens: usize,
    ) -> Result<(), String> {
        let spares = identities.split_off(self.shape.masters);
        for (place, (key, _)) in (0..).map(Place::Master).zip(&identities) {
            write(&self.nodes[&place].data().join(IDENTITY_FILE), key)?;
        }
        let pins: Vec<_> = identities.into_iter().map(|(_, pin)| pin).collect();
        let secret = |_| JoinSecret::random(&mut self.env.rng("join-token"), &pins[0]);
        let secrets: Vec<_> = (0..self.shape.workers * tokens).map(secret).collect();
        // What comes back from a wipe is a new node.
        let uses = u32::try_from(1 + wipes).unwrap_or(u32::MAX);
        for secret in &secrets {
            let token = secret.row(uses, self.env.wall().ms + DAY_MS);
            let put = self.store.put_join_token(token).await;
            put.map_err(|why| format!("no join token: {why}"))?;
        }
        {
            let mut state = self.state();
            (state.pins, state.spares) = (pins, spares);
            state.tokens = JoinTokens::new(&secrets, tokens);
        }
        for (place, node) in &self.nodes {
            match place {
                Place::Master(_) => self.write_master(node)?,
                _ => {
                    self.write_token(*place, node)?;
                    self.write_worker(node)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the join token that a worker has now into its file.
    pub(super) fn write_token(&self, place: Place, node: &Node) -> Result<(), String> {
        let Place::Worker(worker) = place else { return Ok(()) };
        let token = self.state().tokens.of(worker).ok_or("there is no join token for it")?;
        write(&node.token(), token.as_bytes())
    }

    fn write_master(&self, node: &Node) -> Result<(), String> {
        self.let_operators_in(node)?;
        let settings = MasterSettings {
            name: node.name.clone(),
            data_dir: node.data(),
            store: self.store_setting(),
            http: node.http.clone().unwrap_or_default(),
            link: node.link.clone().unwrap_or_default(),
            admin: match &node.admin {
                Some(admin) if self.has_operators => admin.clone(),
                _ => "off".to_owned(),
            },
            // The network between the namespaces is on this machine.
            behind_proxy: true,
            events: Some(node.events()),
            ..MasterSettings::default()
        };
        let settings = settings.resolve().map_err(|why| why.to_string())?;
        self.write_settings(node, &settings)
    }

    /// Writes the operators' token into a master's directory, if the story has operators.
    fn let_operators_in(&self, node: &Node) -> Result<(), String> {
        match self.has_operators {
            true => write(&node.data().join(ADMIN_TOKEN_FILE), ADMIN_TOKEN.as_bytes()),
            false => Ok(()),
        }
    }

    fn write_worker(&self, node: &Node) -> Result<(), String> {
        let settings = WorkerSettings {
            name: node.name.clone(),
            data_dir: node.data(),
            store: self.store_setting(),
            masters: self.nodes.values().filter_map(|node| node.link.clone()).collect(),
            pins: self.state().pins.clone(),
            token_file: Some(node.token()),
            events: Some(node.events()),
            ..WorkerSettings::default()
        };
        let settings = settings.resolve().map_err(|why| why.to_string())?;
        self.write_settings(node, &settings)
    }

    fn write_settings(&self, node: &Node, settings: &impl serde::Serialize) -> Result<(), String> {
        let text = file_of(settings, &self.shape.config).map_err(|why| why.to_string())?;
        write(&node.settings(), text.as_bytes())
    }

    fn store_setting(&self) -> String {
        format!("sqlite:{}", self.path.join("store.db").display())
    }

    /// Empties the directory of a node, which comes back as a new one.
    pub(super) fn renew(&self, place: Place, node: &Node) -> Result<(), String> {
        fs::remove_dir_all(node.data()).map_err(|why| why.to_string())?;
        make_private_dir(&node.data()).map_err(|why| why.to_string())?;
        let Place::Master(nth) = place else { return Ok(()) };
        // The operator writes the newest identities of the masters into the workers' settings.
        let spare = self.state().spares.pop();
        let (key, pin) = spare.ok_or("no identity is left for a master that was wiped")?;
        write(&node.data().join(IDENTITY_FILE), &key)?;
        self.let_operators_in(node)?;
        self.state().pins[nth] = pin;
        let mut workers = self.nodes.values().filter(|node| node.link.is_none());
        workers.try_for_each(|worker| self.write_worker(worker))
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    replace_file(path, bytes).map_err(|why| format!("{}: {why}", path.display()))
}

fn nodes(
    shape: &shape::Cluster,
    path: &Path,
    network: Option<&Network>,
) -> Result<BTreeMap<Place, Node>, String> {
    let ports =
        free_ports(PORTS.len() * shape.masters).map_err(|why| format!("no free port: {why}"))?;
    let mut nodes = BTreeMap::new();
    let masters = (0..shape.masters).map(Place::Master);
    for place in masters.chain((0..shape.workers).map(Place::Worker)) {
        let own = network.and_then(|network| network.node(place));
        let addr = |which: usize| match (&own, place) {
            (Some((address, _)), Place::Master(_)) => Some(format!("{address}:{}", PORTS[which])),
            (None, Place::Master(nth)) => {
                Some(format!("127.0.0.1:{}", ports[PORTS.len() * nth + which]))
            }
            _ => None,
        };
        let name = name_of(place);
        let node = Node {
            folder: path.join(&name),
            http: addr(0),
            link: addr(1),
            admin: addr(2),
            namespace: own.as_ref().map(|(_, namespace)| namespace.clone()),
            name,
        };
        nodes.insert(place, node);
    }
    Ok(nodes)
}

/// Returns ports of this machine that nobody listens on. They lie below those that the system gives
/// to outgoing connections: one of these could take the port of a node that is down.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    const FIRST: u32 = 10_000;
    const RANGE: u32 = 20_000;
    // Runs side by side begin to look elsewhere.
    let start = std::process::id().wrapping_mul(97);
    let candidates = (0..RANGE).map(|nth| FIRST + start.wrapping_add(nth) % RANGE);
    let candidates = candidates.filter_map(|port| u16::try_from(port).ok());
    // All are taken at once, so that nobody else is given one meanwhile.
    let taken: Vec<_> = candidates
        .filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
        .take(count)
        .collect();
    if taken.len() < count {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    taken.iter().map(|port| Ok(port.local_addr()?.port())).collect()
}

/// Makes identities, each with the fingerprint of its key.
async fn identities(env: &Env, count: usize) -> Result<Vec<(Vec<u8>, Fingerprint)>, String> {
    let mut made = Vec::new();
    for _ in 0..count {
        let pair = GeneratedKeys.generate(env, KeyKind::Identity, IDENTITY_BITS).await;
        let identity = Identity::new(pair.map_err(|why| why.to_string())?);
        let key = identity.to_pkcs8_der().map_err(|why| why.to_string())?;
        made.push((key.to_vec(), identity.fingerprint()));
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_nodes_are_apart_from_each_other_and_from_those_of_outgoing_connections() {
        let mut ports = free_ports(8).expect("there are free ones");
        assert!(ports.iter().all(|port| (10_000..30_000).contains(port)), "{ports:?}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
    }
}
