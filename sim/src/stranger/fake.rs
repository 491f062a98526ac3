//! Fake master: listens where nodes look for a master, and signs with a key that nobody pinned.
//!
//! 1. It knows the guards of a copy of the store, so that it answers each Hello that a master answers.
//! 2. A node that says anything after its Reply took that key for a master's.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chatchat::{
    comm::{
        connection_limit::ConnectionLimit,
        handshake::{
            Acceptor, AcceptorParams, AdmissionGrant, AdmissionPolicy, AdmissionRequest,
            HandshakeError, Refusal, Rejection, accept,
        },
    },
    crypto::admission::{Guard, GuardId},
    env::{BoxFuture, Env},
    model::ids::NodeId,
};

use super::deceits::{Believed, Deceits};

/// Name of its machine.
pub(crate) const HOST: &str = "fake";

/// Time that one handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Connections that it takes at once.
const CONNECTIONS_MAX: usize = 16;

/// Guards of a copy of the store.
pub(crate) type Guards = Box<dyn Fn(GuardId) -> Option<Guard> + Send + Sync>;

/// Fake master on its machine.
pub(crate) struct Fake {
    pub(crate) env: Env,
    /// Address that it listens on.
    pub(crate) listen: String,
    pub(crate) params: AcceptorParams,
    pub(crate) guards: Guards,
    pub(crate) deceits: Arc<Deceits>,
}

impl Fake {
    /// Goes on until its machine is switched off.
    pub(crate) async fn live(self) {
        let Self { env, listen, params, guards, deceits } = self;
        // Nobody else has the port.
        let Ok(mut listener) = env.listen(&listen).await else { return };
        let acceptor = Acceptor::new(params, HANDSHAKE_MAX);
        let places = ConnectionLimit::new(CONNECTIONS_MAX, CONNECTIONS_MAX);
        let policy = Hears { guards, deceits, has_replied: AtomicBool::new(false) };
        // One after another: few look for it.
        while let Ok((stream, from)) = listener.accept().await {
            let Some(permit) = places.take(&from) else { continue };
            policy.has_replied.store(false, Ordering::Relaxed);
            let end = accept(&env, stream, &policy, &acceptor, permit).await;
            let is_left = matches!(end, Err(HandshakeError::Ended | HandshakeError::Broken(_)));
            if is_left && policy.has_replied.load(Ordering::Relaxed) {
                env.sometimes("a node turned away from a fake master");
                policy.deceits.on_turned_away();
            }
        }
    }
}

/// Admission policy that hears whoever a master would hear, and admits nobody.
struct Hears {
    guards: Guards,
    deceits: Arc<Deceits>,
    /// Whether the Hello under way is replied to.
    has_replied: AtomicBool,
}

impl AdmissionPolicy for Hears {
    fn guard(&self, id: GuardId) -> BoxFuture<'_, Option<Guard>> {
        let guard = (self.guards)(id);
        self.has_replied.store(guard.is_some(), Ordering::Relaxed);
        Box::pin(ready(guard))
    }

    /// Denies every node. It is asked once a node has said who it is.
    fn is_denied(&self, node: NodeId) -> bool {
        self.deceits.on_believed(Believed::Followed(node));
        true
    }

    fn admit(&self, _: AdmissionRequest) -> BoxFuture<'_, Result<AdmissionGrant, Refusal>> {
        Box::pin(ready(Err(Rejection::Denied.into())))
    }
}

#[cfg(test)]
mod tests {
    use chatchat::{
        comm::{
            handshake::{Credential, DialParams, dial},
            key_source::{HandshakeKeys, KeyKind},
        },
        crypto::{admission::JoinSecret, handshake::VERSIONS, keys::Identity},
        model::ids::{Registration, Role},
    };
    use dst_world::{Seed, Setup, simulate};
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::keys::KeyPool;

    const SECOND: Duration = Duration::from_secs(1);
    /// Numbers of keys: of the fake master, of a real one, and of the node that dials.
    const FAKE: usize = 0;
    const MASTER: usize = 1;
    const NODE: usize = 2;

    fn keys() -> KeyPool {
        KeyPool::new(Seed(1), 3, 0)
    }

    /// Returns what a fake master notes of a node that dials it and pins the key of this number.
    fn dialled_with_pin(pinned: usize) -> ([u64; 2], Vec<Believed>) {
        simulate(Setup::new(1), async move |world| {
            let keys = keys();
            let pins = vec![keys.identity(pinned).1];
            let mut rng = ChaCha20Rng::from_seed([1; 32]);
            let token = JoinSecret::random(&mut rng, &keys.identity(MASTER).1);
            let deceits = Arc::<Deceits>::default();

            let (source, guard) = (keys.source(FAKE), token.guard());
            let noted = Arc::clone(&deceits);
            world.boot(world.add_host(HOST), |env| async move {
                let pair = source.generate(&env, KeyKind::Identity, 0).await;
                let params = AcceptorParams {
                    identity: Arc::new(Identity::new(pair.expect("from the pool"))),
                    name: HOST.to_owned(),
                    cluster: [5; 16],
                    bounds: source.bounds(),
                    version_max: VERSIONS.1,
                };
                let guards: Guards = Box::new(move |_| Some(guard.clone()));
                let listen = "0.0.0.0:7000".to_owned();
                Fake { env, listen, params, guards, deceits: noted }.live().await;
            });
            world.sleep(SECOND).await;

            let source = keys.source(NODE);
            let dialled = world.run(world.add_host("node"), |env| async move {
                let pair = source.generate(&env, KeyKind::Identity, 0).await;
                let params = DialParams {
                    identity: Arc::new(Identity::new(pair.expect("from the pool"))),
                    handshake: HandshakeKeys::new(source, 0),
                    role: Role::Worker,
                    name: "node".to_owned(),
                    credential: Credential::Token(Arc::new(token)),
                    pins,
                    cluster: None,
                    last_epoch: None,
                    wants_login: false,
                    registration: Registration(1),
                    directory_max: 10,
                    timeout: SECOND,
                    version_max: VERSIONS.1,
                };
                let stream = env.connect("fake:7000", SECOND).await.expect("it listens");
                dial(&env, stream, &params).await.is_ok()
            });
            assert!(!dialled.await, "it is welcomed by nobody");
            world.sleep(SECOND).await;
            (deceits.seen_through(), deceits.believed())
        })
    }

    #[test]
    fn node_that_pins_another_key_turns_away() {
        assert_eq!(dialled_with_pin(MASTER), ([0, 1], Vec::new()));
    }

    #[test]
    fn node_that_takes_its_key_for_a_masters_is_noted() {
        let followed = Believed::Followed(keys().identity(NODE).0);
        assert_eq!(dialled_with_pin(FAKE), ([0, 0], vec![followed]));
    }
}
