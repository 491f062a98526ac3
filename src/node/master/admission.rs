//! Who may come in: a copy of the store's admission lists, and what each newcomer is given.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    comm::handshake::{Applicant, Gate, Refusal, Welcoming},
    config::Config,
    crypto::{
        admission::{Guard, GuardId, bearer_sha256},
        epoch::EpochKeys,
        keys::fingerprint,
    },
    env::{BoxFuture, Env},
    model::{
        ids::{Domain, NodeId, Role},
        message::{Member, Welcome},
        rows::{Admission, Enrolled, MasterRow},
        time::Mono,
    },
    store::Store,
};

/// Strangers' guards make this master ask the store so often at most.
const LOOK_UP_INTERVAL: Duration = Duration::from_millis(200);

/// The accepting side's policy and its copy of the lists.
pub(super) struct Door {
    env: Env,
    store: Store,
    domain: Domain,
    keys: Arc<EpochKeys>,
    directory_max: usize,
    lists: Mutex<Lists>,
}

#[derive(Default)]
struct Lists {
    admission: Admission,
    masters: BTreeMap<NodeId, MasterRow>,
    directory: Vec<Member>,
    looked_at: Option<Mono>,
}

impl Door {
    pub(super) fn new(
        env: &Env,
        store: Store,
        domain: Domain,
        keys: Arc<EpochKeys>,
        config: &Config,
    ) -> Arc<Self> {
        let (env, lists) = (env.clone(), Mutex::default());
        Arc::new(Self { env, store, domain, keys, directory_max: config.directory_max, lists })
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_admission(&self, admission: Admission) {
        self.lists().admission = admission;
    }

    pub(super) fn set_masters(&self, rows: &[MasterRow]) {
        self.lists().masters = rows.iter().map(|row| (row.node, row.clone())).collect();
    }

    pub(super) fn set_directory(&self, mut members: Vec<Member>) {
        members.truncate(self.directory_max);
        self.lists().directory = members;
    }

    /// Whether a node was expelled, as last read.
    pub(super) fn denies(&self, node: &NodeId) -> bool {
        self.lists().admission.denied.contains(node)
    }

    fn known_guard(&self, id: GuardId) -> Option<Guard> {
        let lists = self.lists();
        let bytes = match id {
            GuardId::Token(id) => lists.admission.tokens.iter().find(|token| token.id == id)?.guard,
            // An expelled node is not worth the RSA operations of a Reply.
            GuardId::Node(node) if lists.admission.denied.contains(&node) => return None,
            GuardId::Node(node) => {
                let worker = lists.admission.allowed.iter().find(|row| row.node == node);
                let master = lists.masters.get(&node);
                worker.map(|row| row.guard).or_else(|| master.map(|row| row.guard))?
            }
        };
        Guard::from_slice(&bytes)
    }

    /// Reads the lists again, unless that was just done.
    async fn look_up(&self) {
        {
            let (now, mut lists) = (self.env.now(), self.lists());
            if lists.looked_at.is_some_and(|at| now.since(at) < LOOK_UP_INTERVAL) {
                return;
            }
            lists.looked_at = Some(now);
        }
        if let Ok(rows) = self.store.masters().await {
            self.set_masters(&rows);
        }
        if let Ok(admission) = self.store.admission().await {
            self.set_admission(admission);
        }
    }

    fn welcome(&self) -> Welcome {
        Welcome { domain: self.domain, directory: self.lists().directory.clone() }
    }

    fn let_master_in(&self, applicant: &Applicant) -> Result<Welcoming, Refusal> {
        let peer = &applicant.peer;
        let listed = self.lists().masters.get(&peer.node).is_some_and(|r| r.spki == peer.spki);
        if !listed {
            return Err(Refusal("the store lists no such master".to_owned()));
        }
        Ok(Welcoming { welcome: self.welcome(), guard: None, keys: None })
    }

    async fn let_worker_in(&self, applicant: Applicant) -> Result<Welcoming, Refusal> {
        let peer = &applicant.peer;
        let print = fingerprint(&peer.spki);
        let allowed =
            self.lists().admission.allowed.iter().find(|row| row.node == peer.node).cloned();
        let row = match (allowed, applicant.bearer, applicant.guard) {
            (Some(row), _, _) if row.role == Role::Worker && row.fingerprint == print => row,
            (Some(_), _, _) => {
                return Err(Refusal("it is enrolled with another key or role".to_owned()));
            }
            (None, Some(bearer), GuardId::Token(token)) => {
                let guard = Guard::random(&mut self.env.rng("node-guard"));
                let node = Enrolled {
                    node: peer.node,
                    fingerprint: print,
                    role: Role::Worker,
                    guard: *guard.expose(),
                };
                let row = self
                    .store
                    .enrol(token, bearer_sha256(&bearer), node)
                    .await
                    .map_err(|error| Refusal(error.to_string()))?;
                self.lists().admission.allowed.push(row.clone());
                row
            }
            (None, _, _) => return Err(Refusal("it is not enrolled".to_owned())),
        };
        let guard = Guard::from_slice(&row.guard);
        Ok(Welcoming { welcome: self.welcome(), guard, keys: Some(Arc::clone(&self.keys)) })
    }
}

impl Gate for Door {
    fn guard(&self, id: GuardId) -> BoxFuture<'_, Option<Guard>> {
        Box::pin(async move {
            if let Some(guard) = self.known_guard(id) {
                return Some(guard);
            }
            self.look_up().await;
            self.known_guard(id)
        })
    }

    fn is_denied(&self, node: NodeId) -> bool {
        self.denies(&node)
    }

    fn admit(&self, applicant: Applicant) -> BoxFuture<'_, Result<Welcoming, Refusal>> {
        Box::pin(async move {
            match applicant.peer.role {
                Role::Master => match self.let_master_in(&applicant) {
                    Ok(given) => Ok(given),
                    Err(_) => {
                        self.look_up().await;
                        self.let_master_in(&applicant)
                    }
                },
                Role::Worker => self.let_worker_in(applicant).await,
            }
        })
    }
}
