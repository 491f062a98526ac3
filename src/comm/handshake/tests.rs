use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::DuplexStream;

use super::*;
use crate::{
    comm::connection_limit::ConnectionLimit,
    crypto::{
        admission::{JoinSecret, bearer_matches},
        handshake::VERSIONS,
        record::RecordKind,
    },
    model::message::Welcome,
    testing::{
        keys::{TestKeys, WEAK, domain_of, epoch_of, identity, rng},
        stepped_world::run,
    },
};

const LIMIT: Duration = Duration::from_secs(5);
const MASTER: u8 = 1;
const WORKER: u8 = 2;

/// Policy that admits nodes as a master does, from lists in memory.
#[derive(Default)]
struct ListPolicy {
    guards: Vec<(GuardId, Guard)>,
    bearers_sha256: Mutex<Vec<[u8; 32]>>,
    allowed: Mutex<Vec<NodeId>>,
    denied: Vec<NodeId>,
    lookups: AtomicU64,
}

impl AdmissionPolicy for ListPolicy {
    fn guard(&self, id: GuardId) -> BoxFuture<'_, Option<Guard>> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let known = self.guards.iter().find(|(known, _)| *known == id);
        Box::pin(async move { known.map(|(_, guard)| guard.clone()) })
    }

    fn is_denied(&self, node: NodeId) -> bool {
        self.denied.contains(&node)
    }

    fn admit(&self, request: AdmissionRequest) -> BoxFuture<'_, Result<AdmissionGrant, Refusal>> {
        let mut allowed = self.allowed.lock().expect("one thread");
        let mut bearers = self.bearers_sha256.lock().expect("one thread");
        if !allowed.contains(&request.peer.node) {
            let fits = |kept: &[u8; 32]| {
                request.bearer.as_ref().is_some_and(|bearer| bearer_matches(bearer, kept))
            };
            let Some(at) = bearers.iter().position(fits) else {
                return Box::pin(async { Err(Rejection::NotEnrolled.into()) });
            };
            bearers.remove(at);
            allowed.push(request.peer.node);
        }
        let welcome = Welcome { domain: domain_of(MASTER), directory: Vec::new() };
        let guard = Some(Guard::random(&mut rng(60)));
        let keys = Some(Arc::new(epoch_of(MASTER, 1)));
        Box::pin(async { Ok(AdmissionGrant { welcome, guard, keys, login: None }) })
    }
}

/// Master with its policy, and a worker with a join token.
struct Fixture {
    acceptor: Arc<Acceptor>,
    master: Arc<Identity>,
    policy: ListPolicy,
    params: DialParams,
    connections: ConnectionLimit,
}

fn fixture() -> Fixture {
    let master = Arc::new(identity(MASTER));
    let token = JoinSecret::random(&mut rng(50), &master.fingerprint());
    let policy = ListPolicy {
        guards: vec![(GuardId::Token(token.id), token.guard())],
        bearers_sha256: Mutex::new(vec![token.bearer_sha256()]),
        ..ListPolicy::default()
    };
    let acceptor_params = AcceptorParams {
        identity: Arc::clone(&master),
        name: "m0".to_owned(),
        cluster: [5; 16],
        bounds: WEAK,
        version_max: VERSIONS.1,
    };
    let params = DialParams {
        identity: Arc::new(identity(WORKER)),
        handshake: HandshakeKeys::new(TestKeys::from(10), 1024),
        role: Role::Worker,
        name: "w0".to_owned(),
        credential: Credential::Token(Arc::new(token)),
        pins: vec![master.fingerprint()],
        cluster: None,
        last_epoch: None,
        wants_login: false,
        registration: Registration(7),
        directory_max: 100,
        version_max: VERSIONS.1,
        timeout: LIMIT,
    };
    let acceptor = Acceptor::new(acceptor_params, LIMIT);
    Fixture {
        acceptor,
        master,
        policy,
        params,
        connections: ConnectionLimit::new(PENDING_MAX, PENDING_PER_HOST_MAX),
    }
}

type Accepted = Result<(SecureStream, Ready), HandshakeError>;
type Dialled = Result<(SecureStream, ReceivedWelcome), HandshakeError>;

impl Fixture {
    async fn accept(&self, env: &Env, stream: DuplexStream) -> Accepted {
        let permit = self.connections.take("dialer:1").expect("few are under way");
        accept(env, Box::new(stream), &self.policy, &self.acceptor, permit).await
    }

    async fn handshake(&self, env: &Env) -> (Accepted, Dialled) {
        let (near, far) = tokio::io::duplex(4096);
        tokio::join!(self.accept(env, near), dial(env, Box::new(far), &self.params))
    }

    /// Returns the master's error after a stranger sends these bytes and waits.
    async fn accept_bytes(&self, env: &Env, bytes: &[u8]) -> HandshakeError {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        far.write_all(bytes).await.expect("room");
        self.accept(env, near).await.expect_err("a stranger")
    }
}

async fn exchange_record(from: &mut SecureStream, to: &mut SecureStream) -> Vec<u8> {
    let mut record = Vec::new();
    from.sealer.seal(RecordKind::Data, b"hello", &mut record).expect("short");
    write_all(&mut from.stream, &record).await.expect("room");
    let (header, mut body) = read_record(&mut to.stream, PLAIN_MAX).await.expect("sent");
    assert_eq!(to.opener.open(header, &mut body), Ok(RecordKind::Data));
    body
}

#[test]
fn worker_joins_once_with_a_token_and_returns_with_its_own_guard() {
    run(|env| async move {
        let mut fixture = fixture();
        assert!(load_guard(&env).await.expect("no file yet").is_none());
        let (accepted, dialled) = fixture.handshake(&env).await;
        let ((mut at_master, ready), (mut at_worker, received)) =
            (accepted.expect("admitted"), dialled.expect("welcomed"));
        assert_eq!(ready.registration, Registration(7));
        assert_eq!(ready.epoch, received.keys.as_ref().map(|keys| keys.epoch()));
        assert_eq!(at_master.peer.node, fixture.params.identity.node());
        assert_eq!(at_worker.peer.node, fixture.master.node());
        assert_eq!(exchange_record(&mut at_master, &mut at_worker).await, b"hello");
        assert_eq!(exchange_record(&mut at_worker, &mut at_master).await, b"hello");

        let guard = load_guard(&env).await.expect("readable").expect("kept before Ready");
        assert_eq!(Some(guard.expose()), received.guard.as_ref().map(Guard::expose));
        assert!(fixture.policy.bearers_sha256.lock().expect("one thread").is_empty());

        // The token no longer enrols a node, but still works as a guard.
        assert!(fixture.handshake(&env).await.0.is_ok());
        fixture.policy.guards =
            vec![(GuardId::Node(fixture.params.identity.node()), guard.clone())];
        fixture.params.credential = Credential::Own(guard);
        let (accepted, dialled) = fixture.handshake(&env).await;
        assert!(accepted.is_ok() && dialled.is_ok());
    });
}

fn rejection<T>(dialled: Result<T, HandshakeError>) -> Option<Rejection> {
    match dialled {
        Err(HandshakeError::Fault(HandshakeFault::Rejected(reason))) => Some(reason),
        _ => None,
    }
}

#[test]
fn node_of_another_cluster_is_told_so_under_seal_and_its_token_is_not_spent() {
    run(|env| async move {
        let mut fixture = fixture();
        fixture.params.cluster = Some([9; 16]);
        let tokens = fixture.policy.bearers_sha256.lock().expect("one thread").len();
        let (accepted, dialled) = fixture.handshake(&env).await;
        assert!(matches!(accepted, Err(HandshakeError::OtherCluster { .. })));
        assert_eq!(rejection(dialled), Some(Rejection::OtherCluster));
        assert_eq!(fixture.policy.bearers_sha256.lock().expect("one thread").len(), tokens);
    });
}

#[test]
fn expelled_node_is_refused_as_itself_and_under_its_old_token() {
    run(|env| async move {
        let mut fixture = fixture();
        assert!(fixture.handshake(&env).await.0.is_ok());
        let signed = fixture.master.signatures();
        let node = fixture.params.identity.node();
        fixture.policy.denied.push(node);
        let (accepted, dialled) = fixture.handshake(&env).await;
        assert!(matches!(accepted, Err(HandshakeError::Denied { node: of }) if of == node));
        assert_eq!(rejection(dialled), Some(Rejection::Denied));
        assert_eq!(fixture.master.signatures(), signed + 1);

        fixture.params.identity = Arc::new(identity(3));
        let (accepted, dialled) = fixture.handshake(&env).await;
        assert!(matches!(accepted, Err(HandshakeError::NotAdmitted { .. })));
        assert_eq!(rejection(dialled), Some(Rejection::NotEnrolled));

        // Revoked: it does not work as a guard either.
        fixture.policy.guards.clear();
        let (accepted, dialled) = fixture.handshake(&env).await;
        assert!(matches!(accepted, Err(HandshakeError::UnknownGuard { .. })));
        assert!(matches!(dialled, Err(HandshakeError::Unanswered)));
        assert_eq!(fixture.master.signatures(), signed + 2);
    });
}

#[test]
fn stranger_costs_no_rsa_operation_and_sees_no_reason() {
    run(|env| async move {
        let mut fixture = fixture();
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            &u32::MAX.to_le_bytes(),
            &(PLAIN_LEN_MAX as u32 + 1).to_le_bytes(),
        ] {
            assert!(matches!(fixture.accept_bytes(&env, bytes).await, HandshakeError::Broken(_)));
        }
        let mut garbled = 20_u32.to_le_bytes().to_vec();
        garbled.extend([0xff; 20]);
        let fault = fixture.accept_bytes(&env, &garbled).await;
        assert!(matches!(fault, HandshakeError::Fault(HandshakeFault::Malformed { .. })));
        assert_eq!(fixture.policy.lookups.load(Ordering::Relaxed), 0);

        fixture.policy.guards[0].1 = Guard::random(&mut rng(99));
        let (accepted, dialled) = fixture.handshake(&env).await;
        let fault = accepted.expect_err("the wrong guard");
        assert!(matches!(fault, HandshakeError::Fault(HandshakeFault::BadGuard)));
        assert!(matches!(dialled, Err(HandshakeError::Unanswered)));
        assert_eq!(fixture.master.signatures(), 0);
    });
}

#[test]
fn a_replayed_hello_costs_no_second_rsa_operation() {
    run(|env| async move {
        let fixture = fixture();
        let (mut tap, far) = tokio::io::duplex(64 * 1024);
        let listen = async {
            let hello = read_frame(&mut tap, PLAIN_LEN_MAX).await.expect("sent");
            drop(tap);
            hello
        };
        let (hello, dialled) = tokio::join!(listen, dial(&env, Box::new(far), &fixture.params));
        assert!(matches!(dialled, Err(HandshakeError::Unanswered | HandshakeError::Broken(_))));

        let mut frame = (hello.len() as u32).to_le_bytes().to_vec();
        frame.extend(hello);
        let first = fixture.accept_bytes(&env, &frame).await;
        assert!(matches!(first, HandshakeError::TimedOut { .. }), "{first}");
        assert_eq!(fixture.master.signatures(), 1);
        for _ in 0..3 {
            assert!(matches!(fixture.accept_bytes(&env, &frame).await, HandshakeError::Replayed));
        }
        assert_eq!(fixture.master.signatures(), 1);
    });
}

#[test]
fn silent_peer_times_out_at_either_end() {
    run(|env| async move {
        let fixture = fixture();
        let began = env.now();
        let (near, _kept) = tokio::io::duplex(64);
        let given_up = fixture.accept(&env, near).await;
        assert!(matches!(given_up, Err(HandshakeError::TimedOut { limit: LIMIT })));
        let (near, _kept) = tokio::io::duplex(64 * 1024);
        let given_up = dial(&env, Box::new(near), &fixture.params).await;
        assert!(matches!(given_up, Err(HandshakeError::TimedOut { limit: LIMIT })));
        assert_eq!(env.now().since(began), 2 * LIMIT);
    });
}

#[test]
fn ten_thousand_half_open_handshakes_hold_a_bounded_number_of_slots() {
    run(|env| async move {
        let fixture = Arc::new(fixture());
        let timed_out = Arc::new(AtomicUsize::new(0));
        let mut kept = Vec::new();
        for nth in 0..10_000 {
            let from = format!("host-{}:{nth}", nth % 3);
            let Some(permit) = fixture.connections.take(&from) else { continue };
            let (near, mut far) = tokio::io::duplex(64);
            // A Hello of the greatest length that is never completed.
            far.write_all(&(PLAIN_LEN_MAX as u32).to_le_bytes()).await.expect("room");
            kept.push(far);
            let (of_task, fixture) = (env.clone(), Arc::clone(&fixture));
            let timed_out = Arc::clone(&timed_out);
            env.spawn("half-open", async move {
                let stream = Box::new(near);
                let done =
                    accept(&of_task, stream, &fixture.policy, &fixture.acceptor, permit).await;
                if matches!(done, Err(HandshakeError::TimedOut { .. })) {
                    timed_out.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        assert_eq!(kept.len(), PENDING_MAX);
        env.sleep(2 * LIMIT).await;
        assert_eq!(timed_out.load(Ordering::Relaxed), PENDING_MAX);
        let again: Vec<_> = (0..PENDING_MAX)
            .map(|nth| fixture.connections.take(&format!("host-{nth}:1")))
            .collect();
        assert!(again.iter().all(Option::is_some), "all are given back");
    });
}

#[test]
fn remembered_hellos_are_bounded() {
    let mut nonces = Recent::new(NONCES_MAX);
    let nonce = |n: usize| {
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&n.to_be_bytes());
        nonce
    };
    for n in 0..NONCES_MAX + 10 {
        assert!(nonces.insert(nonce(n)));
        assert!(!nonces.insert(nonce(n)));
    }
    assert_eq!(nonces.lens(), (NONCES_MAX, NONCES_MAX));
}
