//! Admission gate of a master: admits nodes by its admission lists, and reads the store for what
//! they lack.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand_chacha::rand_core::Rng;
use zeroize::Zeroizing;

use crate::{
    comm::handshake::{AdmissionGrant, AdmissionPolicy, AdmissionRequest, Refusal, Rejection},
    config::Config,
    crypto::{
        admission::{Guard, GuardId, bearer_sha256},
        epoch::EpochKeys,
        keys::fingerprint,
    },
    env::{BoxFuture, Env, TimedOut},
    model::{
        ids::{Domain, NodeId, Role},
        login::{StoreLogin, StorePassword},
        message::Welcome,
        rows::{Enrolled, StoreError},
    },
    protocol::admission::{AdmissionLists, Standing},
    store::Store,
};

/// Admission gate of one life of a master. Handshakes ask it beside the driver, so its lists
/// stand behind a mutex, which is never held across a wait.
pub(super) struct AdmissionGate {
    env: Env,
    store: Store,
    domain: Domain,
    /// Keys in use.
    keys: Mutex<Arc<EpochKeys>>,
    lists: Mutex<AdmissionLists>,
    /// Time that a worker's login may take, as its handshake waits for it.
    login_max: Duration,
}

impl AdmissionGate {
    pub(super) fn new(
        env: &Env,
        store: Store,
        domain: Domain,
        keys: Arc<EpochKeys>,
        config: &Config,
    ) -> Arc<Self> {
        let lists = Mutex::new(AdmissionLists::new(config.directory_max));
        let keys = Mutex::new(keys);
        let login_max = config.handshake_timeout / 2;
        Arc::new(Self { env: env.clone(), store, domain, keys, lists, login_max })
    }

    /// Returns the lists; release them before anything waits.
    pub(super) fn lists(&self) -> MutexGuard<'_, AdmissionLists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives newcomers these common keys from now on.
    pub(super) fn set_keys(&self, keys: Arc<EpochKeys>) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    fn keys(&self) -> Arc<EpochKeys> {
        Arc::clone(&self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn known_guard(&self, id: GuardId) -> Option<Guard> {
        let lists = self.lists();
        let bytes = match id {
            GuardId::Token(id) => lists.token_guard(id),
            GuardId::Node(node) => lists.node_guard(&node),
        };
        Guard::from_slice(&bytes?)
    }

    /// Reads the lists from the store, unless that was done just now.
    async fn refresh(&self) {
        if !self.lists().begin_refresh(self.env.now()) {
            return;
        }
        let read = self.lists().begin_read();
        if let Ok(rows) = self.store.masters().await {
            self.lists().set_masters(&rows);
        }
        if let Ok(admission) = self.store.admission().await {
            self.lists().set_admission(read, admission);
        }
    }

    fn grant(&self, guard: Option<Guard>, keys: Option<Arc<EpochKeys>>) -> AdmissionGrant {
        let directory = self.lists().directory().to_vec();
        AdmissionGrant {
            welcome: Welcome { domain: self.domain, directory },
            guard,
            keys,
            login: None,
        }
    }

    async fn admit_master(&self, request: &AdmissionRequest) -> Result<AdmissionGrant, Refusal> {
        let is_listed = || self.lists().is_master(&request.peer.node, request.peer.spki.as_slice());
        if !is_listed() {
            self.refresh().await;
            if !is_listed() {
                return Err(Rejection::UnknownMaster.into());
            }
        }
        Ok(self.grant(None, None))
    }

    async fn admit_worker(&self, request: AdmissionRequest) -> Result<AdmissionGrant, Refusal> {
        let peer = &request.peer;
        let key = fingerprint(&peer.spki);
        let standing = self.lists().worker(&peer.node, &key);
        let row = match (standing, request.bearer, request.guard) {
            (Standing::Enrolled(row), _, _) => row,
            (Standing::Mismatch, _, _) => {
                return Err(Rejection::OtherKey.into());
            }
            (Standing::Denied, _, _) => return Err(Rejection::Denied.into()),
            (Standing::Unknown, Some(bearer), GuardId::Token(token)) => {
                let guard = Guard::random(&mut self.env.rng("node-guard"));
                let node = Enrolled {
                    node: peer.node,
                    fingerprint: key,
                    role: Role::Worker,
                    guard: *guard.expose(),
                };
                let row = self
                    .store
                    .enrol(token, bearer_sha256(&bearer), node)
                    .await
                    .map_err(|error| not_enrolled(&error))?;
                self.lists().on_enrolled(row.clone());
                row
            }
            (Standing::Unknown, _, _) => {
                return Err(Rejection::NotEnrolled.into());
            }
        };
        let login = match request.wants_login {
            true => self.make_login(row.node).await,
            false => None,
        };
        let keys = self.keys();
        // It may have been expelled while the store was asked. Keys that were taken before are replaced
        // once the expulsion is known.
        if self.lists().is_denied(&row.node) {
            return Err(Rejection::Denied.into());
        }
        let grant = self.grant(Guard::from_slice(&row.guard), Some(keys));
        Ok(AdmissionGrant { login, ..grant })
    }

    /// Makes a login for a worker that asks for one. Without one the worker is admitted all the same:
    /// it answers reads, and asks again.
    async fn make_login(&self, node: NodeId) -> Option<StoreLogin> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.env.rng("store-login").fill_bytes(&mut *bytes);
        let password = StorePassword::new(*bytes);
        let made = self.store.put_login(node, password.clone());
        let why = match self.env.timeout(self.login_max, made).await {
            Ok(Ok(Some(user))) => return Some(StoreLogin { user, password }),
            Ok(Ok(None)) => "it has none".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(TimedOut) => format!("no answer for {:?}", self.login_max),
        };
        tracing::warn!(%node, why, "a worker gets no login for the store");
        None
    }
}

fn not_enrolled(error: &StoreError) -> Refusal {
    let reason = match error {
        StoreError::Refused { .. } => Rejection::Token,
        _ => Rejection::StoreAway,
    };
    Refusal { reason, why: error.to_string() }
}

impl AdmissionPolicy for AdmissionGate {
    fn guard(&self, id: GuardId) -> BoxFuture<'_, Option<Guard>> {
        Box::pin(async move {
            if let Some(guard) = self.known_guard(id) {
                return Some(guard);
            }
            self.refresh().await;
            self.known_guard(id)
        })
    }

    fn is_denied(&self, node: NodeId) -> bool {
        self.lists().is_denied(&node)
    }

    fn admit(&self, request: AdmissionRequest) -> BoxFuture<'_, Result<AdmissionGrant, Refusal>> {
        Box::pin(async move {
            match request.peer.role {
                Role::Master => self.admit_master(&request).await,
                Role::Worker => self.admit_worker(request).await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::{
        crypto::{
            admission::JoinSecret,
            handshake::{Peer, VERSIONS},
        },
        model::{absence::AwayReason, rows::Admission},
        protocol::admission::REFRESH_INTERVAL,
        store::{Backend, Op, OpReply},
        testing::{
            keys::{domain_of, epoch_of, identity, rng},
            stepped_world::run,
        },
    };

    /// Store that enrols whoever asks, and expels the node at this gate before it answers.
    #[derive(Clone, Default)]
    struct Expels(Arc<OnceLock<Arc<AdmissionGate>>>);

    impl Backend for Expels {
        fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
            let answer = match op {
                Op::Enrol { node, .. } => {
                    if let Some(gate) = self.0.get() {
                        gate.lists().on_denied(node.node);
                    }
                    Ok(OpReply::Enrolled(node))
                }
                _ => Err(StoreError::Busy),
            };
            Box::pin(std::future::ready(answer))
        }
    }

    /// Store with fixed admission lists that enrols whoever asks, until it goes away.
    #[derive(Clone)]
    struct GoesAway {
        lists: Admission,
        is_away: Arc<AtomicBool>,
    }

    impl Backend for GoesAway {
        fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
            let answer = match op {
                _ if self.is_away.load(Ordering::Relaxed) => {
                    let (reason, why) = (AwayReason::Unreachable, "cut off".to_owned());
                    Err(StoreError::Away { reason, why })
                }
                Op::Admission => Ok(OpReply::Admission(self.lists.clone())),
                Op::Enrol { node, .. } => Ok(OpReply::Enrolled(node)),
                _ => Err(StoreError::Busy),
            };
            Box::pin(std::future::ready(answer))
        }
    }

    fn join_token() -> JoinSecret {
        JoinSecret::random(&mut rng(7), &identity(1).fingerprint())
    }

    /// Request of a worker that comes back with its own guard.
    fn returning(number: u8) -> AdmissionRequest {
        let worker = identity(number);
        AdmissionRequest {
            peer: Peer {
                node: worker.node(),
                role: Role::Worker,
                spki: worker.spki().to_vec(),
                name: "worker".to_owned(),
                version: VERSIONS.1,
                release: None,
            },
            guard: GuardId::Node(worker.node()),
            bearer: None,
            last_epoch: None,
            wants_login: false,
        }
    }

    /// Request of a worker that shows the join token.
    fn joining(number: u8) -> AdmissionRequest {
        let token = join_token();
        let (guard, bearer) = (GuardId::Token(token.id), Some(token.bearer()));
        AdmissionRequest { guard, bearer, ..returning(number) }
    }

    fn gate_on(env: &Env, store: impl Backend + 'static) -> Arc<AdmissionGate> {
        let keys = Arc::new(epoch_of(1, 1));
        AdmissionGate::new(env, Store::new(store), domain_of(1), keys, &Config::default())
    }

    #[test]
    fn enrolled_worker_comes_back_while_the_store_is_away_and_a_new_one_is_refused() {
        run(|env| async move {
            let (worker, newcomer) = (identity(2), identity(3));
            let enrolled = Enrolled {
                node: worker.node(),
                fingerprint: worker.fingerprint(),
                role: Role::Worker,
                guard: [2; 32],
            };
            let store = GoesAway {
                lists: Admission {
                    tokens: vec![join_token().row(1, 0)],
                    allowed: vec![enrolled],
                    denied: Vec::new(),
                },
                is_away: Arc::default(),
            };
            let gate = gate_on(&env, store.clone());
            let token = GuardId::Token(join_token().id);
            assert!(gate.guard(token).await.is_some(), "the lists are read");
            store.is_away.store(true, Ordering::Relaxed);

            // A read that fails must not cost the master what it knows.
            env.sleep(REFRESH_INTERVAL).await;
            assert!(gate.guard(GuardId::Node(newcomer.node())).await.is_none());
            for wants_login in [false, true] {
                let known = gate.guard(GuardId::Node(worker.node())).await.expect("it is kept");
                assert_eq!(known.expose(), &[2; 32]);
                let request = AdmissionRequest { wants_login, ..returning(2) };
                let grant = gate.admit(request).await.expect("it is admitted");
                assert!(grant.keys.is_some() && grant.login.is_none());
                assert_eq!(grant.guard.expect("its own").expose(), &[2; 32]);
            }
            let reason = |answer: Result<AdmissionGrant, Refusal>| answer.err().map(|no| no.reason);
            assert!(gate.guard(token).await.is_some(), "its hello is heard");
            assert_eq!(reason(gate.admit(joining(3)).await), Some(Rejection::StoreAway));
            let without = reason(gate.admit(returning(3)).await);
            assert_eq!(without, Some(Rejection::NotEnrolled), "without a token");

            store.is_away.store(false, Ordering::Relaxed);
            assert_eq!(reason(gate.admit(joining(3)).await), None, "the same request later");
        });
    }

    #[test]
    fn node_that_is_expelled_while_it_is_enrolled_gets_no_keys() {
        run(|env| async move {
            let plain = gate_on(&env, Expels::default()).admit(joining(2)).await;
            assert!(plain.is_ok_and(|grant| grant.keys.is_some()));
            let store = Expels::default();
            let gate = gate_on(&env, store.clone());
            assert!(store.0.set(Arc::clone(&gate)).is_ok(), "set once");
            let refused = gate.admit(joining(2)).await.err();
            assert_eq!(refused.map(|refusal| refusal.reason), Some(Rejection::Denied));
        });
    }
}
