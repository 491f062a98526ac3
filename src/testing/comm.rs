//! Contract of the links between any two nodes, as checks that run in both worlds and with the
//! roles swapped: each kind of communication begun by a worker, and begun by a master.
//!
//! A check is named by its property. It makes its own links over the lab's network, between keys
//! made for it, and panics with what it found instead. The handshake has checks of its own.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    comm::{
        CallError, DriverStamp, Incoming, Link, LinkEnd, LinkId, LinkLimits, Peer, Responder,
        SecureStream,
        fanout::{Fanout, ReceivedUpdates},
        key_source::{KeyKind, KeySource},
    },
    crypto::{
        epoch::EpochKeys,
        handshake::VERSIONS,
        keys::{Identity, IdentityKey},
        record::{self, Side},
        secret::Secret,
    },
    env::{BoxFuture, BoxStream, Env},
    model::{
        ids::{Domain, Incarnation, KeyEpoch, NodeId, Role, SessionKey},
        message::{Beat, Close, CloseReason, Direct, Request, Response, Topic, Update, Updates},
    },
};

/// Time limit of a check, by the master's clock.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Limit on one step, longer than any answer takes.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

const KEY_BITS: usize = 2048;

/// Two nodes with a network between them.
pub struct Lab {
    /// Environment of the worker, which dials.
    pub worker: Env,
    /// Environment of the master, which listens.
    pub master: Env,
    /// Host part of the address that the master listens on and the worker dials.
    pub master_host: String,
    /// Source of the domain's keys.
    pub keys: Arc<dyn KeySource>,
}

impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lab").field("master_host", &self.master_host).finish_non_exhaustive()
    }
}

/// Check of one property, whichever node begins.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Name of the property.
    pub name: &'static str,
    body: for<'a> fn(&'a Lab, Role) -> BoxFuture<'a, ()>,
}

impl Check {
    /// Runs the check, begun by the node of this role.
    ///
    /// # Panics
    /// When the property does not hold, or the check did not end within [`LIMIT`].
    pub async fn run(&self, lab: &Lab, beginner: Role) {
        let ended = lab.master.timeout(LIMIT, (self.body)(lab, beginner)).await;
        assert!(ended.is_ok(), "{} (begun by a {beginner}) did not end", self.name);
    }
}

macro_rules! checks {
    ($($name:ident,)*) => {
        /// All checks. Run each with both roles.
        pub const CHECKS: &[Check] = &[
            $(Check {
                name: stringify!($name),
                body: |lab, beginner| Box::pin($name(lab, beginner)),
            },)*
        ];
    };
}

checks! {
    call_is_answered_by_the_called_node,
    calls_cross_on_one_link,
    unanswered_call_times_out_and_is_cancelled,
    direct_messages_arrive_in_order,
    publish_reaches_a_subscriber,
    fanout_is_sealed_once_and_reaches_every_member,
    heartbeats_carry_the_content_that_the_node_set,
    close_is_the_last_event,
}

/// One end of a link.
struct End {
    env: Env,
    link: Link,
    events: mpsc::Receiver<(LinkId, Incoming)>,
}

impl End {
    fn start(env: &Env, stream: BoxStream, prk: &Secret, side: Side, peer: Peer) -> Self {
        let (sealer, opener) = record::link(prk, side);
        let secured = SecureStream { stream, sealer, opener, peer, renewal: None };
        let (incoming, events) = mpsc::channel(64);
        let limits = LinkLimits::default();
        let link = Link::start(env, LinkId(1), secured, limits, DriverStamp::default(), incoming);
        Self { env: env.clone(), link, events }
    }

    /// Returns the next event that is not a heartbeat.
    async fn next(&mut self) -> Incoming {
        loop {
            match self.events.recv().await.expect("no event after the last").1 {
                Incoming::Beat(_) => {}
                event => return event,
            }
        }
    }

    async fn request(&mut self) -> (Request, Responder) {
        match self.next().await {
            Incoming::Request { request, reply } => (request, reply),
            other => panic!("want a request, got {other:?}"),
        }
    }

    async fn envelope(&mut self) -> Bytes {
        match self.next().await {
            Incoming::Envelope(envelope) => envelope,
            other => panic!("want an envelope, got {other:?}"),
        }
    }

    async fn subscribed(&mut self) {
        let next = self.next().await;
        assert!(matches!(next, Incoming::Subscribed(_)), "want a subscription, got {next:?}");
    }

    /// Answers one echo, as any node does.
    async fn echo(&mut self) {
        let (request, reply) = self.request().await;
        let Request::Echo(bytes) = request else { panic!("want an echo, got {request:?}") };
        reply.send(&Response::Echo(bytes)).expect("the caller waits");
    }
}

impl Lab {
    /// Connects a worker to a master. Returns the worker's end and the master's.
    async fn connect(&self, worker: NodeId, master: NodeId) -> (End, End) {
        let any_port = format!("{}:0", self.master_host);
        let mut listener = self.master.listen(&any_port).await.expect("a free port");
        let addr = listener.local_addr();
        let (dialled, accepted) =
            tokio::join!(self.worker.connect(&addr, STEP_TIMEOUT), listener.accept());
        let (dialled, (accepted, _)) = (dialled.expect("it listens"), accepted.expect("a dial"));
        // Both ends are in one process, so they can share the secret of a handshake directly.
        let prk = Secret::random(&mut self.master.rng("comm-contract"));
        let peer = |node, role| Peer {
            node,
            role,
            spki: Vec::new(),
            name: format!("the {role}"),
            version: VERSIONS.1,
            release: None,
        };
        (
            End::start(&self.worker, dialled, &prk, Side::Dialer, peer(master, Role::Master)),
            End::start(&self.master, accepted, &prk, Side::Acceptor, peer(worker, Role::Worker)),
        )
    }

    /// Returns the two ends of a link: the one that begins, then the other.
    async fn ends(&self, beginner: Role) -> (End, End) {
        let (worker, master) = self.connect(NodeId([2; 16]), NodeId([1; 16])).await;
        match beginner {
            Role::Worker => (worker, master),
            Role::Master => (master, worker),
        }
    }

    /// Returns the keys of a domain's first epoch, and the master's key to verify its grants with.
    async fn epoch(&self) -> (EpochKeys, IdentityKey) {
        let pair = |kind| self.keys.generate(&self.master, kind, KEY_BITS);
        let identity = Identity::new(pair(KeyKind::Identity).await.expect("a pair"));
        let common = pair(KeyKind::Common).await.expect("a pair");
        let domain = Domain { master: identity.node(), incarnation: Incarnation(1) };
        let bounds = self.keys.bounds();
        let mut rng = self.master.rng("comm-contract");
        let keys = EpochKeys::draw(&mut rng, &identity, domain, KeyEpoch(1), common, bounds)
            .expect("its own domain");
        let key = IdentityKey::from_spki(identity.spki(), bounds).expect("a key within bounds");
        (keys, key)
    }

    /// Grants the keys to a worker and returns the copy that it accepts.
    fn accept(&self, keys: &EpochKeys, master: &IdentityKey) -> EpochKeys {
        let grant = keys.grant().expect("the pair encodes");
        let mut rng = self.worker.rng("comm-contract");
        EpochKeys::accept(&mut rng, master, keys.domain(), &grant, self.keys.bounds())
            .expect("its own master granted it")
    }
}

fn digest(n: u8) -> Direct {
    Direct::Digest { digest: [n; 16] }
}

async fn call_is_answered_by_the_called_node(lab: &Lab, beginner: Role) {
    let (caller, mut callee) = lab.ends(beginner).await;
    for len in [0, 1, 1000, 256 * 1024] {
        let bytes = vec![7; len];
        let call = caller.link.call(Request::Echo(bytes.clone()), STEP_TIMEOUT);
        let (answer, ()) = tokio::join!(call, callee.echo());
        assert_eq!(answer, Ok(Response::Echo(bytes)));
    }
}

async fn calls_cross_on_one_link(lab: &Lab, beginner: Role) {
    const EACH: u8 = 50;
    let (mut one, mut two) = lab.ends(beginner).await;
    let (from_one, from_two) = (one.link.clone(), two.link.clone());
    let ask = async |link: Link, mark: u8| {
        let call = |n| link.call(Request::Echo(vec![mark, n]), STEP_TIMEOUT);
        let answers = futures_util::future::join_all((0..EACH).map(call)).await;
        for (n, answer) in (0..EACH).zip(answers) {
            assert_eq!(answer, Ok(Response::Echo(vec![mark, n])));
        }
    };
    let serve = async |end: &mut End| {
        for _ in 0..EACH {
            end.echo().await;
        }
    };
    tokio::join!(ask(from_one, 1), ask(from_two, 2), serve(&mut one), serve(&mut two));
}

async fn unanswered_call_times_out_and_is_cancelled(lab: &Lab, beginner: Role) {
    let (caller, mut callee) = lab.ends(beginner).await;
    let limit = Duration::from_millis(200);
    let begin = caller.env.now();
    let call = caller.link.call(Request::Echo(vec![1]), limit);
    let (answer, (_, reply)) = tokio::join!(call, callee.request());
    assert_eq!(answer, Err(CallError::TimedOut));
    assert!(caller.env.now().since(begin) >= limit);
    while !reply.is_cancelled() {
        callee.env.sleep(limit).await;
    }
    drop(reply);
    let (answer, ()) =
        tokio::join!(caller.link.call(Request::Echo(vec![2]), STEP_TIMEOUT), callee.echo());
    assert_eq!(answer, Ok(Response::Echo(vec![2])));
}

async fn direct_messages_arrive_in_order(lab: &Lab, beginner: Role) {
    let (sender, mut receiver) = lab.ends(beginner).await;
    for n in 0..100 {
        assert_eq!(sender.link.send(&digest(n)), Ok(()));
    }
    for n in 0..100 {
        let next = receiver.next().await;
        assert!(matches!(&next, Incoming::Direct(got) if *got == digest(n)), "got {next:?}");
    }
}

async fn publish_reaches_a_subscriber(lab: &Lab, beginner: Role) {
    let (mut publisher, mut subscriber) = lab.ends(beginner).await;
    assert!(!publisher.link.wants(Topic::Board));
    assert_eq!(subscriber.link.subscribe(&[Topic::Board, Topic::Presence]), Ok(()));
    publisher.subscribed().await;
    assert!(publisher.link.wants(Topic::Board) && publisher.link.wants(Topic::Presence));
    assert!(!publisher.link.wants(Topic::Session));
    let envelope = Bytes::from(vec![9; 5000]);
    assert_eq!(publisher.link.publish(envelope.clone()), Ok(()));
    assert_eq!(subscriber.envelope().await, envelope);
    // A later subscription replaces the one before.
    assert_eq!(subscriber.link.subscribe(&[]), Ok(()));
    publisher.subscribed().await;
    assert!(!publisher.link.wants(Topic::Board));
}

async fn fanout_is_sealed_once_and_reaches_every_member(lab: &Lab, beginner: Role) {
    let (keys, master_key) = lab.epoch().await;
    let domain = keys.domain();
    let workers = [NodeId([2; 16]), NodeId([3; 16])];
    let member =
        |node| Fanout::new(&lab.worker, node, 1, lab.accept(&keys, &master_key), workers.len() + 1);
    let [mut near, mut far] = workers.map(member);
    let mut master = Fanout::new(&lab.master, domain.master, 1, keys, workers.len() + 1);
    let (mut near_end, mut to_near) = lab.connect(workers[0], domain.master).await;
    let (mut far_end, mut to_far) = lab.connect(workers[1], domain.master).await;
    for (end, at_master) in [(&near_end, &mut to_near), (&far_end, &mut to_far)] {
        assert_eq!(end.link.subscribe(&Topic::ALL), Ok(()));
        at_master.subscribed().await;
    }

    for n in 0..10 {
        let updates = Updates::from(Update::SessionClosed(SessionKey([n; 32])));
        let received =
            |sender| Ok(Some(ReceivedUpdates { sender, updates: updates.clone(), missed: 0 }));
        if beginner == Role::Master {
            let envelope = master.seal(&updates).expect("short");
            for link in [&to_near.link, &to_far.link] {
                assert_eq!(link.publish(envelope.clone()), Ok(()));
            }
            assert_eq!(near.open(&near_end.envelope().await), received(domain.master));
            assert_eq!(far.open(&far_end.envelope().await), received(domain.master));
        } else {
            let sealed = near.seal(&updates).expect("short");
            assert_eq!(near_end.link.publish(sealed.clone()), Ok(()));
            let relayed = to_near.envelope().await;
            assert!(master.relay(to_far.link.peer().node, &relayed).is_err());
            assert_eq!(master.relay(to_near.link.peer().node, &relayed), Ok(Topic::Session));
            assert_eq!(to_far.link.publish(relayed.clone()), Ok(()));
            assert_eq!(master.open(&relayed), received(workers[0]));
            let arrived = far_end.envelope().await;
            assert_eq!(arrived, sealed, "relayed as it was sealed");
            assert_eq!(far.open(&arrived), received(workers[0]));
        }
    }
}

async fn heartbeats_carry_the_content_that_the_node_set(lab: &Lab, beginner: Role) {
    let (sender, mut receiver) = lab.ends(beginner).await;
    for reaches_store in [true, false, true] {
        sender.link.beat(Beat { reaches_store });
        loop {
            let (_, event) = receiver.events.recv().await.expect("open");
            let Incoming::Beat(beat) = event else { panic!("want a beat, got {event:?}") };
            if beat.reaches_store == reaches_store {
                break;
            }
        }
    }
    // Heartbeats alone keep an idle link alive.
    sender.env.sleep(3 * LinkLimits::default().silence()).await;
    assert!(sender.link.is_open() && receiver.link.is_open());
}

async fn close_is_the_last_event(lab: &Lab, beginner: Role) {
    let (mut closer, mut other) = lab.ends(beginner).await;
    let close = Close { reason: CloseReason::Leaving, retry_ms: 1500 };
    assert_eq!(closer.link.send(&digest(1)), Ok(()));
    closer.link.close(close);
    assert!(matches!(other.next().await, Incoming::Direct(_)));
    let end = other.next().await;
    assert!(matches!(end, Incoming::Closed(LinkEnd::ClosedByPeer(got)) if got == close), "{end:?}");
    let end = closer.next().await;
    assert!(matches!(end, Incoming::Closed(LinkEnd::Closed(got)) if got == close), "{end:?}");
    assert!(other.events.recv().await.is_none() && closer.events.recv().await.is_none());
}

#[cfg(all(test, feature = "net"))]
mod tests {
    use super::*;
    use crate::{comm::key_source::GeneratedKeys, env::real::RealWorld};

    async fn all(beginner: Role) {
        let node = || Env::new(RealWorld::temporary().expect("a directory"));
        let lab = Lab {
            worker: node(),
            master: node(),
            master_host: "127.0.0.1".to_owned(),
            keys: Arc::new(GeneratedKeys),
        };
        for check in CHECKS {
            check.run(&lab, beginner).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_checks_hold_when_a_worker_begins() {
        all(Role::Worker).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_checks_hold_when_a_master_begins() {
        all(Role::Master).await;
    }
}
