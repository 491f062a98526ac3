//! Worker that is started again, with what its earlier life left.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    copy_of, dir,
    ending::{leaves, stop},
};
use crate::{
    env::{BoxFuture, Env, real::RealWorld},
    model::{
        ids::{Role, Seq},
        rows::StoreError,
    },
    store::{Backend, Op, OpReply, Store},
    testing::worker::{TestMaster, batch, config, env, lobby, post, store, worker, worker_of},
};

/// Store in whose place an older copy without any post stands for a while. It notes what it is asked.
#[derive(Clone)]
struct Older {
    inner: Store,
    is_older: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<&'static str>>>,
}

impl Backend for Older {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        Box::pin(async move {
            self.asked.lock().expect("not poisoned").push(op.name());
            let mut reply = self.inner.call(op).await?;
            if let OpReply::Boards(boards) = &mut reply
                && self.is_older.load(Ordering::SeqCst)
            {
                boards.boards.iter_mut().for_each(|(_, last)| *last = Seq(0));
            }
            Ok(reply)
        })
    }
}

impl Older {
    fn new(inner: &Store) -> Self {
        let (is_older, asked) = (Arc::new(AtomicBool::new(true)), Arc::default());
        Self { inner: inner.clone(), is_older, asked }
    }

    fn asked(&self) -> Vec<&'static str> {
        self.asked.lock().expect("not poisoned").clone()
    }

    /// Waits until it was asked this so often.
    async fn is_asked(&self, name: &str, times: usize) {
        let env = env();
        let asked = async {
            while self.asked().iter().filter(|asked| **asked == name).count() < times {
                env.sleep(Duration::from_millis(10)).await;
            }
        };
        env.timeout(Duration::from_secs(20), asked).await.expect("asked in time");
    }
}

#[tokio::test]
async fn worker_started_again_without_pins_asks_an_older_copy_for_its_boards_alone() {
    let (store, _held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let mut first = worker(&master, &store, &dir, true);
    let taken = master.take().await;
    let mut itself = taken.peer.clone();
    itself.fact.node = master.identity.node();
    itself.fact.role = Role::Master;
    itself.spki = master.identity.spki().to_vec();
    itself.link = Some(master.addr.clone());
    master.set_directory(vec![itself]);
    drop(taken);
    let mut taken = master.take().await;
    let lease = lobby(&store, &master).await;
    taken.assign(batch(&taken, lease, 1, vec![post(1), post(2)])).await;
    assert_eq!(copy_of(&taken, 2).await.posts.len(), 2);
    stop(&mut first);
    leaves(&mut taken).await;
    first.ended.await.expect("it ended").expect("it ran");

    let older = Older::new(&store);
    let again = Store::new(older.clone());
    let env = Env::new(RealWorld::new(dir.path()).expect("usable"));
    let _again = worker_of(env, config(), (&master, Vec::new()), &again, false);
    let _taken = master.take().await;
    older.is_asked("boards", 2).await;
    assert!(older.asked().iter().all(|name| *name == "boards"), "{:?}", older.asked());
    older.is_older.store(false, Ordering::SeqCst);
    older.is_asked("closed_since", 1).await;
}
