//! Ends of a master's lives: what it tells the store last, and the life that follows one off the list.

use std::{future::pending, sync::atomic::AtomicU64};

use super::{operators::Lone, *};
use crate::{
    api::ClusterState,
    model::{
        ids::{Author, Incarnation, Resource, SessionKey, Token, UserId},
        message::Task,
        rows::{Holder, Lease, MasterRow, Permission},
    },
    node::handle::SessionRequest,
};

/// Another master than the one that is tested.
const OTHER: Holder = Holder { node: NodeId([9; 16]), incarnation: Incarnation(1) };

/// Another store, with what a master writes to it last.
struct Recorded {
    inner: Store,
    ops: Arc<Mutex<Vec<Op>>>,
    /// Whether it never answers to uses of sessions.
    is_stuck: bool,
}

impl Backend for Recorded {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        Box::pin(async move {
            if matches!(op, Op::UseSessions(_) | Op::LeaveMaster(_)) {
                self.ops.lock().expect("not poisoned").push(op.clone());
            }
            if self.is_stuck && matches!(op, Op::UseSessions(_)) {
                return pending().await;
            }
            self.inner.call(op).await
        })
    }
}

/// Opens a session by the hand of another master.
async fn opened(store: &Store) -> SessionKey {
    let resource = Resource::Sessions(OTHER.node);
    let lease = store.acquire_lease(resource.clone(), OTHER, 3000).await;
    let Ok(Lease::Granted { epoch, lease, .. }) = lease else { panic!("{lease:?}") };
    let (token, worker) = (Token { epoch, lease, n: 1 }, NodeId([8; 16]));
    let user = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
    let key = SessionKey([1; 32]);
    let tasks = Arc::new(vec![Task::OpenSession { key, user }]);
    let permission = Permission { resource, token, after: None, worker };
    store.write(permission, tasks).await.expect("written");
    key
}

/// Has a session send a request to a master, which then leaves. Returns the session, and what the
/// master wrote to the store last.
async fn used_and_left(is_stuck: bool) -> (SessionKey, Vec<Op>) {
    let clock = env();
    let inner = memory::open(&new_cluster(&clock), move || clock.wall().ms).expect("opens");
    let key = opened(&inner).await;
    let ops = Arc::<Mutex<Vec<_>>>::default();
    let store = Recorded { inner, ops: Arc::clone(&ops), is_stuck };
    let lone = Lone::start(Store::new(store)).await;
    let alive = |reply| SessionRequest::Alive { reply };
    lone.asked(async || lone.handle.request(key, None, alive).await, Result::is_ok)
        .await
        .expect("it is open");
    let left = lone.env.timeout(SOON, lone.handle.leave()).await;
    assert_eq!(left, Ok(Ok(())));
    let ops = ops.lock().expect("not poisoned").clone();
    let leave = Op::LeaveMaster(Holder { node: lone.id, incarnation: Incarnation(1) });
    assert_eq!(ops.last(), Some(&leave));
    (key, ops)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_of_a_session_without_a_stream_is_told_before_its_master_leaves() {
    let (key, ops) = used_and_left(false).await;
    assert_eq!(ops[..ops.len() - 1], [Op::UseSessions(vec![key])]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn master_leaves_although_uses_of_sessions_are_not_answered() {
    used_and_left(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn master_that_is_off_the_list_for_its_silence_goes_on_with_a_new_life() {
    let (clock, ahead_ms) = (env(), Arc::<AtomicU64>::default());
    let ahead = Arc::clone(&ahead_ms);
    let new = new_cluster(&clock);
    let now_ms = move || clock.wall().ms + ahead.load(Ordering::SeqCst);
    let inner = memory::open(&new, now_ms).expect("opens");
    let is_cut = Arc::<AtomicBool>::default();
    let store = Cut { inner: inner.clone(), is_cut: Arc::clone(&is_cut), sessions: None };
    let lone = Lone::start(Store::new(store)).await;
    let life = async |wanted| {
        let is_wanted = |seen: &ClusterState| {
            let is_strong = seen.store == Consistency::Strong;
            is_strong && seen.domain.incarnation == Incarnation(wanted)
        };
        lone.asked(async || lone.handle.cluster().await, is_wanted).await
    };
    life(1).await;

    is_cut.store(true, Ordering::SeqCst);
    let row = MasterRow {
        node: OTHER.node,
        incarnation: Incarnation(0),
        beat: 0,
        http: String::new(),
        link: String::new(),
        spki: Vec::new(),
        name: "other".to_owned(),
        draining: false,
        guard: [9; 32],
    };
    inner.register_master(row).await.expect("registered");
    // A touch that was on its way is older than a day in the end, too.
    for _ in 0..52 {
        ahead_ms.fetch_add(60 * 60 * 1000, Ordering::SeqCst);
        inner.touch_master(OTHER, false).await.expect("touched");
        inner.keep_up(false).await.expect("a piece");
    }
    let listed = async || {
        let rows = inner.masters().await.expect("listed").into_iter();
        rows.map(|row| (row.node, row.incarnation)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(listed().await.get(&lone.id), None);
    is_cut.store(false, Ordering::SeqCst);
    // The same handle reaches it: its front end goes on.
    life(2).await;
    assert_eq!(listed().await.get(&lone.id), Some(&Incarnation(2)));
}
