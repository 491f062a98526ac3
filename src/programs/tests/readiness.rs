//! Answers of `GET /readyz`, by which clients decide whether to come to a master.

use super::*;
use crate::api::{MasterState, Readiness};

/// Another store, but for its list of boards, which it does not tell before a test lets it.
pub(super) struct Unlisted {
    pub(super) inner: Store,
    pub(super) is_listed: Arc<AtomicBool>,
}

impl Backend for Unlisted {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        Box::pin(async move {
            if op == Op::Boards && !self.is_listed.load(Ordering::SeqCst) {
                return Err(StoreError::away(AwayReason::Unreachable, "on purpose"));
            }
            self.inner.call(op).await
        })
    }
}

/// Asks the client's master whether it is ready, until the answer is one that is wanted. Returns the
/// answer and its status.
async fn readiness_once(
    client: &ChatClient,
    wanted: impl Fn(&Readiness) -> bool,
) -> (u16, Readiness) {
    let told = async {
        loop {
            let mut api = client.api(&client.master());
            // It may not listen yet.
            if let Ok(answer) = api.raw(Method::GET, "/readyz", None).await {
                let readiness = serde_json::from_slice(&answer.body).expect("an answer");
                if wanted(&readiness) {
                    break (answer.status, readiness);
                }
            }
            client.env().sleep(Duration::from_millis(20)).await;
        }
    };
    within(client, "the answer", told).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn master_is_ready_once_it_has_heard_of_the_boards() {
    let clock = env();
    let inner = memory::open(&new_cluster(&clock), move || clock.wall().ms).expect("opens");
    let is_listed = Arc::<AtomicBool>::default();
    let store = Unlisted { inner, is_listed: Arc::clone(&is_listed) };
    let cluster = start_on(1, 0, Store::new(store), &Config::default()).await;
    let ann = client(&cluster, 0, None);
    // It is registered, and writes to the store.
    let (status, told) = readiness_once(&ann, |told| told.store == StoreReach::Here).await;
    assert_eq!((status, told.ready, told.state), (503, false, MasterState::Starting));
    is_listed.store(true, Ordering::SeqCst);
    let (status, told) = readiness_once(&ann, |told| told.ready).await;
    assert_eq!((status, told.state), (200, MasterState::Serving));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn master_whose_store_goes_away_is_ready_for_weak_service_and_says_so() {
    let (store, failure) = Fragile::in_memory();
    let cluster = start_on(1, 1, store, &Config::default()).await;
    let ann = client(&cluster, 0, None);
    // Once something was written, there is a worker that serves without the store.
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    readiness_once(&ann, |told| told.ready && told.store == StoreReach::Here).await;
    *failure.lock().expect("not poisoned") = Some(AwayReason::Full);
    let (status, told) = readiness_once(&ann, |told| told.store == StoreReach::Away).await;
    assert_eq!((status, told.ready, told.state), (200, true, MasterState::Serving));
    assert_eq!(told.store_reason, Some(AwayReason::Full));
    *failure.lock().expect("not poisoned") = None;
    let (_, told) = readiness_once(&ann, |told| told.store == StoreReach::Here).await;
    assert_eq!(told.store_reason, None);
}
