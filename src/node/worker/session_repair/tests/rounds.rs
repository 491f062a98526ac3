//! Rounds with a store whose sessions change again and again, or are more than there is room for.

use std::{collections::BTreeMap, sync::Mutex};

use super::*;
use crate::{
    model::message::Update,
    protocol::session_repair::SessionRepair,
    replica::ReplicaLimits,
    testing::{
        memory_disk::MemDisk,
        stepped_world::{SECOND, run_on},
    },
};

/// Store that tells its open sessions and nothing else.
#[derive(Clone, Default)]
struct Sessions(Arc<Mutex<BTreeMap<SessionKey, SessionRow>>>);

impl Sessions {
    fn put(&self, row: SessionRow) {
        self.0.lock().expect("one thread").insert(row.key, row);
    }
}

impl Backend for Sessions {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        let rows = self.0.lock().expect("one thread");
        let reply = match op {
            Op::SessionDigests => {
                let mut digests = SessionDigests::empty(EPOCH);
                for row in rows.values() {
                    digests.open[usize::from(row.key.0[0])] ^= row.digest();
                }
                OpReply::SessionDigests(digests)
            }
            Op::Sessions { bucket, after: None } => {
                let of_bucket = rows.values().filter(|row| row.key.0[0] == bucket);
                let entries = of_bucket.cloned().map(SessionEntry::Open).collect();
                OpReply::Sessions(SessionPage { entries, next: None })
            }
            other => panic!("{other:?}"),
        };
        Box::pin(async move { Ok(reply) })
    }
}

/// Returns the session of a bucket, with this read mark.
fn row(bucket: u8, mark: u64) -> SessionRow {
    let user = Author { id: UserId([bucket; 16]), name: "ann".parse().expect("a name") };
    let read_marks = (mark > 0).then(|| (BoardName::lobby(), Seq(mark)));
    SessionRow { key: SessionKey([bucket; 32]), user, read_marks: read_marks.into_iter().collect() }
}

/// Node database that is repaired from a store in rounds.
struct Copying {
    env: Env,
    database: Database,
    store: Sessions,
    schedule: SessionRepair,
}

impl Copying {
    async fn new(env: Env, sessions_max: u64) -> Self {
        let limits = ReplicaLimits { sessions_max, ..ReplicaLimits::default() };
        let (database, members, _writing) = Database::start(&env, limits);
        members.await.expect("it opens");
        let boards = Boards { boards: Vec::new(), epoch: EPOCH, as_of_ms: 1 };
        database.observe(boards).await.expect("it learns the epoch");
        let schedule = SessionRepair::new(env.now());
        Self { env, database, store: Sessions::default(), schedule }
    }

    async fn write(&self, updates: Vec<Update>) {
        self.database.apply(updates).await.expect("written");
    }

    /// Makes the next round when it is due, and returns whether there is more to do at once.
    async fn round(&mut self) -> bool {
        self.env.sleep_until(self.schedule.next_deadline().expect("none is running")).await;
        let start = self.schedule.begin(self.env.now(), 0).expect("it is due");
        let other = Other::Store(Store::new(self.store.clone()), SECOND);
        let done = round(&self.env, &self.database, other, start.from).await.expect("answered");
        self.schedule.on_ended(self.env.now(), done.goes_on, done.next);
        done.goes_on
    }

    async fn has(&self, bucket: u8) -> bool {
        let key = SessionKey([bucket; 32]);
        let found = self.database.read(move |replica| replica.session(key)).await;
        found.expect("it reads").is_some()
    }

    async fn is_whole(&self) -> bool {
        let (ours, _) = self.database.read(Replica::digests).await.expect("it reads");
        let theirs = Store::new(self.store.clone()).session_digests().await.expect("told");
        ours.open == theirs.open
    }
}

#[test]
fn every_bucket_is_repaired_though_low_ones_differ_again_before_each_round() {
    run_on(Arc::new(MemDisk::default()), |env| async move {
        let mut copy = Copying::new(env, 10_000).await;
        for bucket in 0..=u8::MAX {
            copy.store.put(row(bucket, 0));
        }
        for mark in 1..=5 {
            for bucket in 0..=99 {
                copy.store.put(row(bucket, mark));
            }
            copy.round().await;
        }
        for bucket in 0..=u8::MAX {
            assert!(copy.has(bucket).await, "{bucket} was never repaired");
        }
    });
}

#[test]
fn open_session_outlives_closed_ones_and_rounds_end() {
    run_on(Arc::new(MemDisk::default()), |env| async move {
        let mut copy = Copying::new(env, 4).await;
        copy.store.put(row(1, 0));
        copy.write(vec![Update::Session(row(1, 0))]).await;
        for bucket in 2..=11 {
            let gone = row(bucket, 0);
            let key = gone.key;
            copy.write(vec![Update::Session(gone), Update::SessionClosed(key)]).await;
        }
        assert!(copy.has(1).await && copy.is_whole().await, "nothing is to be repaired");
        copy.store.put(row(200, 0));
        assert!(!copy.round().await, "all is repaired");
        assert!(copy.has(200).await && copy.is_whole().await, "a closed one made room");
    });
}

#[test]
fn rounds_do_not_hurry_where_there_is_no_room() {
    run_on(Arc::new(MemDisk::default()), |env| async move {
        let mut copy = Copying::new(env, 4).await;
        for bucket in 0..100 {
            copy.store.put(row(bucket, 0));
        }
        for nth in 0..3 {
            assert!(!copy.round().await, "round {nth}");
        }
        for bucket in 0..100 {
            assert_eq!(copy.has(bucket).await, bucket < 4, "{bucket}");
        }
    });
}
