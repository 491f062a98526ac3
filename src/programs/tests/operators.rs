//! Commands of operators to a master that has just started.

use super::{readiness::Unlisted, *};
use crate::{
    api::{ClusterState, JoinTerms},
    comm::key_source::load_or_make_identity,
    env::TaskGuard,
    model::ids::Fingerprint,
    node::{
        handle::{MasterHandle, RequestError, Stopped},
        master::{self, MasterParams},
    },
};

/// Running master without a front end, stopped with this.
pub(super) struct Lone {
    pub(super) env: Env,
    pub(super) handle: MasterHandle,
    link: String,
    pin: Fingerprint,
    pub(super) id: NodeId,
    _task: TaskGuard,
}

impl Lone {
    pub(super) async fn start(store: Store) -> Self {
        let (env, keys, config) = (env(), TestKeys::from(100), Config::default());
        let identity = load_or_make_identity(&env, &*keys, config.identity_bits);
        let identity = identity.await.expect("an identity");
        let listener = env.listen("127.0.0.1:0").await.expect("a port");
        let link = listener.local_addr();
        let (handle, commands) = master::channel();
        let params = MasterParams {
            name: "lone".to_owned(),
            config,
            http_public: "http://127.0.0.1:1".to_owned(),
            link_public: link.clone(),
            store,
            keys,
        };
        let running = master::run(env.clone(), params, listener, commands);
        let task = env.spawn("master", async move {
            let ended = running.await;
            assert!(ended.is_ok(), "the master ended: {ended:?}");
        });
        let (pin, id) = (identity.fingerprint(), identity.node());
        Self { env, handle, link, pin, id, _task: task.abort_on_drop() }
    }

    /// Asks until the answer is one that is wanted. A master that has yet to register gives none.
    pub(super) async fn asked<T>(
        &self,
        ask: impl AsyncFn() -> Result<T, Stopped>,
        wanted: impl Fn(&T) -> bool,
    ) -> T {
        let answered = async {
            loop {
                if let Ok(answer) = ask().await
                    && wanted(&answer)
                {
                    break answer;
                }
                self.env.sleep(Duration::from_millis(10)).await;
            }
        };
        self.env.timeout(SOON, answered).await.expect("an answer in time")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn join_token_is_made_once_the_master_has_read_of_itself_and_names_it() {
    let clock = env();
    let inner = memory::open(&new_cluster(&clock), move || clock.wall().ms).expect("opens");
    let is_listed = Arc::<AtomicBool>::default();
    let store = Unlisted { inner: inner.clone(), is_listed: Arc::clone(&is_listed) };
    let lone = Lone::start(Store::new(store)).await;
    let invite = async || lone.handle.new_join_token(JoinTerms::default()).await;
    let early = lone.asked(&invite, |_| true).await;
    assert_eq!(early, Err(RequestError::Away), "nobody could be joined with it");
    let kept = async || inner.admission().await.expect("read").tokens.len();
    assert_eq!(kept().await, 0);

    is_listed.store(true, Ordering::SeqCst);
    let made = lone.asked(&invite, Result::is_ok).await.expect("made");
    assert_eq!(made.masters, std::slice::from_ref(&lone.link));
    assert_eq!(made.pins, [lone.pin]);
    assert_eq!(kept().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn master_is_not_expelled_by_an_operator_whom_the_front_end_let_through() {
    let clock = env();
    let store = memory::open(&new_cluster(&clock), move || clock.wall().ms).expect("opens");
    let lone = Lone::start(store.clone()).await;
    let knows_itself = |seen: &ClusterState| seen.nodes.iter().any(|node| node.id == lone.id);
    lone.asked(async || lone.handle.cluster().await, knows_itself).await;
    assert_eq!(lone.handle.expel(lone.id).await, Ok(Err(RequestError::Unknown)));
    assert!(store.admission().await.expect("read").denied.is_empty());
}
