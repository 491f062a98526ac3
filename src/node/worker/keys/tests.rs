use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    comm::{Incoming, link::KeyFrame},
    crypto::epoch::EpochKeys,
    env::real::TempDir,
    model::{
        ids::{Author, KeyEpoch, SessionKey, UserId},
        message::{Direct, Request, Response, Update},
        rows::SessionRow,
    },
    store::Store,
    testing::{
        keys::{epoch_of, pair},
        worker::{Taken, TestMaster, TestWorker, config, env, store, worker},
    },
};

struct Site {
    master: TestMaster,
    taken: Taken,
    _worker: TestWorker,
    _kept: (Store, TempDir),
}

impl Site {
    async fn new() -> Self {
        let (store, held) = store();
        // It would say that there are no such sessions.
        held.away.store(true, Ordering::SeqCst);
        let mut master = TestMaster::start(&config()).await;
        let dir = TempDir::new().expect("a directory");
        let worker = worker(&master, &store, &dir, true);
        let taken = master.take().await;
        Self { master, taken, _worker: worker, _kept: (store, dir) }
    }

    fn send(&self, direct: &Direct) {
        self.taken.link.send_key(KeyFrame::new(direct).expect("short")).expect("queued");
    }

    fn install(&self, keys: &EpochKeys) {
        self.send(&Direct::KeyInstall(keys.grant().expect("it encodes").into()));
    }

    /// Waits for the worker's next word about keys.
    async fn says(&mut self) -> Direct {
        let about_keys = |incoming| match incoming {
            Incoming::Direct(said @ (Direct::KeyHeld(_) | Direct::KeyAlarm(_))) => Some(said),
            _ => None,
        };
        self.taken.hear(about_keys).await
    }

    /// Publishes a session, and waits until the worker's copy has it.
    async fn hears(&mut self, n: u8) {
        self.publish(n);
        self.knows(n).await;
    }

    fn publish(&mut self, n: u8) {
        self.master.publish(&self.taken, &Update::Session(session(n)));
    }

    async fn knows(&self, n: u8) {
        let env = env();
        let known = Response::Session(Some(session(n)));
        for _ in 0..200 {
            if self.taken.call(Request::Session(session(n).key)).await == known {
                return;
            }
            env.sleep(Duration::from_millis(25)).await;
        }
        panic!("session {n} never came");
    }
}

fn session(n: u8) -> SessionRow {
    let user = Author { id: UserId([n; 16]), name: "ann".parse().expect("a name") };
    SessionRow { key: SessionKey([n; 32]), user, read_marks: Vec::new() }
}

#[tokio::test]
async fn installed_key_opens_what_its_master_seals_from_its_use_on() {
    let mut site = Site::new().await;
    site.hears(1).await;
    let keys = Arc::new(site.master.keys(2, 90));
    site.install(&keys);
    assert_eq!(site.says().await, Direct::KeyHeld(KeyEpoch(2)));
    site.master.fanout.install(Arc::clone(&keys)).expect("installed");
    site.hears(2).await;
    site.master.fanout.use_epoch(KeyEpoch(2)).expect("held");
    // Before the worker is told.
    site.hears(3).await;
    site.send(&Direct::KeyUse(KeyEpoch(2)));
    site.hears(4).await;
    // The same key again is no alarm, and another one waits for no use but that of epoch 2.
    site.install(&keys);
    assert_eq!(site.says().await, Direct::KeyHeld(KeyEpoch(2)));
    site.install(&site.master.keys(3, 91));
    assert_eq!(site.says().await, Direct::KeyHeld(KeyEpoch(3)));
}

#[tokio::test]
async fn publish_of_an_epoch_that_is_not_held_yet_waits_for_its_key() {
    let mut site = Site::new().await;
    site.hears(1).await;
    let keys = Arc::new(site.master.keys(2, 90));
    site.master.fanout.install(Arc::clone(&keys)).expect("installed");
    site.master.fanout.use_epoch(KeyEpoch(2)).expect("held");
    site.publish(2);
    site.install(&keys);
    site.knows(2).await;
}

#[tokio::test]
async fn second_key_for_an_epoch_is_an_alarm_and_changes_nothing() {
    let mut site = Site::new().await;
    let keys = Arc::new(site.master.keys(2, 90));
    site.install(&keys);
    assert_eq!(site.says().await, Direct::KeyHeld(KeyEpoch(2)));
    site.install(&site.master.keys(2, 91));
    assert_eq!(site.says().await, Direct::KeyAlarm(KeyEpoch(2)));
    site.master.fanout.install(keys).expect("installed");
    site.master.fanout.use_epoch(KeyEpoch(2)).expect("held");
    site.hears(1).await;
}

#[tokio::test]
async fn key_of_another_master_or_with_another_pair_is_refused() {
    let mut site = Site::new().await;
    site.install(&epoch_of(1, 2));
    let mut swapped = site.master.keys(2, 90).grant().expect("it encodes");
    swapped.pkcs8 = pair(91).to_pkcs8_der().expect("it encodes");
    site.send(&Direct::KeyInstall(swapped.into()));
    site.install(&site.master.keys(3, 92));
    assert_eq!(site.says().await, Direct::KeyHeld(KeyEpoch(3)), "the only one that it holds");
}
