//! Worker whose node database was damaged between two of its lives.

use std::fs;

use super::{
    copy_of, dir,
    ending::{leaves, stop},
    read,
};
use crate::{
    model::message::AssignReply,
    replica::FILE,
    testing::{
        logged::Logged,
        worker::{TestMaster, batch, config, lobby, post, store, worker},
    },
};

/// Warning of a database that was replaced, up to the reason.
const WARNING: &str = " WARN chatchat::node::worker::database: the node database was unreadable; \
                       a new one is filled why=";

#[tokio::test]
async fn worker_with_a_damaged_database_warns_once_and_fills_a_new_one_from_the_store() {
    let log = Logged::here();
    let (store, _held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let mut running = worker(&master, &store, &dir, true);
    let mut taken = master.take().await;
    let lease = lobby(&store, &master).await;
    let reply = taken.assign(batch(&taken, lease, 1, vec![post(1), post(2)])).await;
    assert!(matches!(reply, AssignReply::Done(_)), "{reply:?}");
    copy_of(&taken, 2).await;
    stop(&mut running);
    leaves(&mut taken).await;
    running.ended.await.expect("it ended").expect("it ran");
    assert_eq!(log.count(WARNING), 0, "the first one was new");

    let file = dir.path().join(FILE);
    let len = fs::metadata(&file).expect("the worker made it").len();
    let damaged = vec![0xa5; usize::try_from(len).expect("small")];
    assert!(!damaged.is_empty());
    fs::write(&file, &damaged).expect("written");
    let mut running = worker(&master, &store, &dir, false);
    let mut taken = master.take().await;
    assert_eq!(copy_of(&taken, 2).await.posts, read(&store, 0).await.posts);
    assert_eq!(log.count(WARNING), 1);
    let why = format!("{WARNING}\"the node database is damaged: ");
    assert_eq!(log.count(&why), 1, "with the reason");
    stop(&mut running);
    leaves(&mut taken).await;
    running.ended.await.expect("it ended").expect("it ran");

    // The new one is sound.
    let _running = worker(&master, &store, &dir, false);
    copy_of(&master.take().await, 2).await;
    assert_eq!(log.count(WARNING), 1);
}
