mod rounds;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::*;
use crate::{
    comm::Incoming,
    env::{BoxFuture, real::TempDir},
    model::{
        copies::SessionEntry,
        ids::{Author, StoreEpoch, UserId},
        message::AssignReply,
        rows::{Page, Range, SessionRow, StoreError},
    },
    store::{Backend, Op, OpReply},
    testing::worker::{EPOCH, Taken, TestMaster, batch, config, env, lobby, post, store, worker},
};

/// Longest wait for what a worker does in a few seconds.
const IN_TIME: Duration = Duration::from_secs(40);
/// Wait between two looks.
const LOOK: Duration = Duration::from_millis(25);

/// Another store, which counts how often it tells its boards.
struct Counted {
    inner: Store,
    polls: Arc<AtomicU64>,
}

impl Backend for Counted {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        let is_poll = op == Op::Boards;
        Box::pin(async move {
            let reply = self.inner.call(op).await;
            self.polls.fetch_add(u64::from(is_poll && reply.is_ok()), Ordering::SeqCst);
            reply
        })
    }
}

fn session() -> SessionRow {
    let user = Author { id: UserId([3; 16]), name: "ann".parse().expect("a name") };
    SessionRow { key: SessionKey([3; 32]), user, read_marks: Vec::new() }
}

/// Returns what another copy says that is of this epoch, and has a session and two boards with posts;
/// `None` if it is not asked.
fn copy_says(request: &Request, epoch: StoreEpoch) -> Option<Response> {
    match request {
        Request::CopyDigests { .. } => {
            let mut sessions = SessionDigests::empty(epoch);
            sessions.open[3] = session().digest();
            let made_up = "made-up".parse().expect("a name");
            let boards = vec![(BoardName::lobby(), Seq(90)), (made_up, Seq(90))];
            let boards = Boards { boards, epoch, as_of_ms: 5 };
            Some(Response::CopyDigests(Some(CopyDigests { boards, sessions })))
        }
        Request::CopySessions { bucket, .. } => {
            let entries = (*bucket == 3).then(|| SessionEntry::Open(session()));
            let page = SessionPage { entries: entries.into_iter().collect(), next: None };
            Some(Response::CopySessions(Some(page)))
        }
        _ => None,
    }
}

/// Answers the worker's questions to another copy of this epoch for ever, and counts the rounds.
async fn answer_for_copy(taken: &mut Taken, epoch: StoreEpoch, rounds: &AtomicU64) {
    loop {
        let asked = taken.hear(|incoming| match incoming {
            Incoming::Request { request, reply } => Some((request, reply)),
            _ => None,
        });
        let (request, reply) = asked.await;
        let Some(answer) = copy_says(&request, epoch) else { continue };
        // What waited here for too long is not wanted any more.
        let is_wanted = reply.send(&answer).is_ok();
        let is_round = is_wanted && matches!(request, Request::CopyDigests { .. });
        rounds.fetch_add(u64::from(is_round), Ordering::SeqCst);
    }
}

/// Waits until a number is at least this.
async fn reaches(number: &AtomicU64, least: u64) {
    let env = env();
    let reached = async {
        while number.load(Ordering::SeqCst) < least {
            env.sleep(LOOK).await;
        }
    };
    env.timeout(IN_TIME, reached).await.expect("in time");
}

async fn page_of(link: &Link, board: BoardName) -> Option<Page> {
    let request = Request::Read { board, range: Range::After(Seq(0)), limit: 9 };
    match link.call(request, Duration::from_secs(5)).await.expect("answered") {
        Response::Page(page) => page,
        other => panic!("{other:?}"),
    }
}

/// Waits until the worker says that it reaches the store.
async fn store_is_back(taken: &mut Taken) {
    let told = taken.hear(|incoming| match incoming {
        Incoming::Beat(beat) if beat.reaches_store => Some(()),
        _ => None,
    });
    told.await;
}

/// Lets the worker compare its copy with the store's boards, then has it write a post.
async fn store_is_used(taken: &Taken, lease: u64, polls: &AtomicU64, n: u8) {
    reaches(polls, polls.load(Ordering::SeqCst) + 3).await;
    let reply = taken.assign(batch(taken, lease, u64::from(n), vec![post(n)])).await;
    assert!(matches!(reply, AssignReply::Done(_)), "{reply:?}");
}

#[tokio::test]
async fn copy_of_a_later_epoch_empties_nothing_and_shuts_nobody_out_of_the_store() {
    let (inner, held) = store();
    let (polls, rounds) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
    let counted = Store::new(Counted { inner: inner.clone(), polls: Arc::clone(&polls) });
    let mut master = TestMaster::start(&config()).await;
    let dir = TempDir::new().expect("a directory");
    let _worker = worker(&master, &counted, &dir, true);
    let mut taken = master.take().await;
    let lease = lobby(&inner, &master).await;
    store_is_used(&taken, lease, &polls, 1).await;
    let (env, link) = (env(), taken.link.clone());
    let copied = async {
        while page_of(&link, BoardName::lobby()).await.is_none_or(|page| page.last_seq != Seq(1)) {
            env.sleep(LOOK).await;
        }
    };
    env.timeout(IN_TIME, copied).await.expect("in time");

    held.away.store(true, Ordering::SeqCst);
    tokio::select! {
        biased;
        // A round begins when the one before has ended, and the first one may be of before.
        () = reaches(&rounds, 3) => {}
        () = answer_for_copy(&mut taken, StoreEpoch(EPOCH.0 + 1), &rounds) => {
            unreachable!("it goes on")
        }
    }
    let page = page_of(&link, BoardName::lobby()).await.expect("it still has the board");
    assert_eq!((page.epoch, page.last_seq, page.posts.len()), (EPOCH, Seq(1), 1));
    held.away.store(false, Ordering::SeqCst);
    store_is_back(&mut taken).await;
    store_is_used(&taken, lease, &polls, 2).await;
}

#[tokio::test]
async fn new_worker_learns_sessions_from_a_copy_but_no_epoch_and_no_board() {
    let (inner, held) = store();
    held.away.store(true, Ordering::SeqCst);
    let (polls, rounds) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
    let counted = Store::new(Counted { inner: inner.clone(), polls: Arc::clone(&polls) });
    let mut master = TestMaster::start(&config()).await;
    let dir = TempDir::new().expect("a directory");
    let _worker = worker(&master, &counted, &dir, true);
    let mut taken = master.take().await;
    let (env, link) = (env(), taken.link.clone());
    let learning = async {
        loop {
            let request = Request::Session(session().key);
            let known = link.call(request, Duration::from_secs(5)).await.expect("answered");
            if known == Response::Session(Some(session())) {
                return;
            }
            env.sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        learnt = env.timeout(IN_TIME, learning) => learnt.expect("in time"),
        () = answer_for_copy(&mut taken, StoreEpoch(u64::MAX), &rounds) => {
            unreachable!("it goes on")
        }
    }
    held.away.store(false, Ordering::SeqCst);
    store_is_back(&mut taken).await;
    let lease = lobby(&inner, &master).await;
    store_is_used(&taken, lease, &polls, 1).await;
    let made_up = "made-up".parse().expect("a name");
    assert_eq!(page_of(&link, made_up).await, None, "only a copy told of it");
}
