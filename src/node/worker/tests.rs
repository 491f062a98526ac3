mod damaged;
mod ending;
mod held;
mod restarted;

use std::{sync::atomic::Ordering, time::Duration};

use self::ending::{leaves, stop};
use crate::{
    comm::Incoming,
    config::Config,
    env::real::TempDir,
    model::{
        copies::{CopyDigests, SessionDigests, SessionEntry, SessionPage, closed_digest},
        ids::{
            Author, BoardName, Incarnation, PostText, Registration, Resource, Seq, SessionKey,
            Token, UserId,
        },
        message::{
            AssignReply, Close, CloseReason, Direct, MemberState, Request, Response, Task, Update,
        },
        outcome::TaskResult,
        rows::{Boards, Holder, Lease, NewPost, Page, Permission, Range, SessionRow},
    },
    store::Store,
    testing::{
        long_list::LongList,
        worker::{
            EPOCH, Taken, TestMaster, batch, config, env, lobby, number, post, store, worker,
            worker_with,
        },
    },
};

fn dir() -> TempDir {
    TempDir::new().expect("a directory")
}

/// Waits until the worker's own copy of the lobby has so many posts, and returns it.
async fn copy_of(taken: &Taken, want: u64) -> Page {
    let env = env();
    for _ in 0..800 {
        let request =
            Request::Read { board: BoardName::lobby(), range: Range::After(Seq(0)), limit: 99 };
        if let Response::Page(Some(page)) = taken.call(request).await
            && page.last_seq == Seq(want)
        {
            return page;
        }
        env.sleep(Duration::from_millis(25)).await;
    }
    panic!("the copy never had {want} posts");
}

async fn read(store: &Store, after: u64) -> Page {
    store.read(BoardName::lobby(), Range::After(Seq(after)), 99).await.expect("read")
}

#[tokio::test]
async fn registered_worker_writes_a_batch_and_answers_reads_from_its_copy() {
    let (store, held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let _worker = worker(&master, &store, &dir, true);
    let taken = master.take().await;
    assert_eq!(number(&taken), 1);
    let lease = lobby(&store, &master).await;
    let reply = taken.assign(batch(&taken, lease, 1, vec![post(1), post(2), post(1)])).await;
    let AssignReply::Done(results) = reply else { panic!("{reply:?}") };
    let seqs: Vec<_> = results
        .iter()
        .map(|result| match result {
            TaskResult::Committed { seq, .. } => (true, seq.0),
            TaskResult::Duplicate { seq, .. } => (false, seq.0),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seqs, [(true, 1), (true, 2), (false, 1)]);
    assert_eq!(held.writes.load(Ordering::SeqCst), 1);
    let page = copy_of(&taken, 2).await;
    assert_eq!(page.posts, read(&store, 0).await.posts);
    assert_eq!(taken.call(Request::Echo(vec![1, 2])).await, Response::Echo(vec![1, 2]));
    let late = taken.assign(batch(&taken, lease, 0, vec![post(3)])).await;
    assert_eq!(late, AssignReply::Fenced);
    let mut old = batch(&taken, lease, 2, vec![post(3)]);
    old.registration = Registration(0);
    assert_eq!(taken.assign(old).await, AssignReply::StaleRegistration);
    assert_eq!(read(&store, 0).await.last_seq, Seq(2));
}

#[tokio::test]
async fn posts_lost_by_fanout_are_repaired_from_the_store() {
    let (store, _held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let _worker = worker(&master, &store, &dir, true);
    let taken = master.take().await;
    let lease = lobby(&store, &master).await;
    // Another worker's writes: this one hears of the last only.
    let mut theirs = batch(&taken, lease, 1, vec![post(1), post(2), post(3)]);
    theirs.permission.worker = master.domain.master;
    store.write(theirs.permission, theirs.tasks).await.expect("written");
    let all = read(&store, 0).await.posts;
    let news = Update::Posts {
        epoch: EPOCH,
        board: BoardName::lobby(),
        posts: all[2..].to_vec(),
        as_of_ms: 5,
    };
    master.publish(&taken, &news);
    assert_eq!(copy_of(&taken, 3).await.posts, all);
}

#[tokio::test]
async fn store_away_is_answered_in_time_and_shown_in_heartbeats() {
    let (store, held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let impatient = Config { store_timeout: Duration::from_secs(1), ..config() };
    let _worker = worker_with(impatient, &master, &store, &dir, true);
    let mut taken = master.take().await;
    let lease = lobby(&store, &master).await;
    let beat = |says: bool| {
        move |incoming| match incoming {
            Incoming::Beat(beat) if beat.reaches_store == says => Some(()),
            _ => None,
        }
    };
    taken.hear(beat(true)).await;
    // A write that does not come back.
    held.gate.forget_permits(1000);
    let written = taken.assign(batch(&taken, lease, 1, vec![post(1)]));
    let away_meanwhile = async {
        while held.writes.load(Ordering::SeqCst) == 0 {
            env().sleep(Duration::from_millis(5)).await;
        }
        // A poll that succeeds at once could overtake the beat.
        held.away.store(true, Ordering::SeqCst);
    };
    let (reply, ()) = tokio::join!(written, away_meanwhile);
    assert!(matches!(reply, AssignReply::StoreAway { .. }), "{reply:?}");
    taken.hear(beat(false)).await;
    held.away.store(false, Ordering::SeqCst);
    held.gate.add_permits(1000);
    taken.hear(beat(true)).await;
    held.away.store(true, Ordering::SeqCst);
    taken.hear(beat(false)).await;
    let reply = taken.assign(batch(&taken, lease, 1, vec![post(1)])).await;
    assert_eq!(reply, AssignReply::StoreAway { why: "unplugged".to_owned() });
    held.away.store(false, Ordering::SeqCst);
    taken.hear(beat(true)).await;
    let reply = taken.assign(batch(&taken, lease, 1, vec![post(1)])).await;
    assert!(matches!(reply, AssignReply::Done(_)), "{reply:?}");
}

#[tokio::test]
async fn batch_asked_for_twice_in_flight_is_written_once() {
    let (store, held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let _worker = worker(&master, &store, &dir, true);
    let taken = master.take().await;
    let lease = lobby(&store, &master).await;
    held.gate.forget_permits(1000);
    let ask = || taken.assign(batch(&taken, lease, 1, vec![post(1)]));
    let let_go = async {
        while held.writes.load(Ordering::SeqCst) == 0 {
            env().sleep(Duration::from_millis(5)).await;
        }
        env().sleep(Duration::from_millis(50)).await;
        held.gate.add_permits(1000);
    };
    let other = taken.assign(batch(&taken, lease, 1, vec![post(2)]));
    let (one, same, other, ()) = tokio::join!(ask(), ask(), other, let_go);
    assert_eq!(one, same);
    assert!(matches!(one, AssignReply::Done(_)), "{one:?}");
    assert!(matches!(other, AssignReply::Broken { .. }), "{other:?}");
    assert_eq!(held.writes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn batches_of_one_call_are_answered_together_each_with_its_own_end() {
    let (store, held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let _worker = worker(&master, &store, &dir, true);
    let taken = master.take().await;
    let lease = lobby(&store, &master).await;
    held.gate.forget_permits(1000);
    let mut old = batch(&taken, lease, 9, vec![post(9)]);
    old.registration = Registration(0);
    let first = batch(&taken, lease, 1, vec![post(1)]);
    let mut second = batch(&taken, lease, 2, vec![post(2), post(3)]);
    second.permission.after = Some(1);
    let too_old = batch(&taken, lease, 1, vec![post(4)]);
    let all = vec![old, first.clone(), second.clone(), too_old];
    let let_go = async {
        while held.writes.load(Ordering::SeqCst) < 2 {
            env().sleep(Duration::from_millis(5)).await;
        }
        env().sleep(Duration::from_millis(50)).await;
        held.gate.add_permits(1000);
    };
    // Another call asks for one of them meanwhile, and for another one.
    let third = batch(&taken, lease, 3, vec![post(5)]);
    let (replies, others, ()) =
        tokio::join!(taken.assign_all(all), taken.assign_all(vec![second, third]), let_go);
    let [
        AssignReply::StaleRegistration,
        AssignReply::Done(one),
        AssignReply::Done(two),
        AssignReply::Broken { .. },
    ] = &replies[..]
    else {
        panic!("{replies:?}")
    };
    assert_eq!((one.len(), two.len()), (1, 2));
    let [same, AssignReply::Done(three)] = &others[..] else { panic!("{others:?}") };
    assert_eq!((same, three.len()), (&replies[2], 1));
    assert_eq!(held.writes.load(Ordering::SeqCst), 3);
    assert_eq!(read(&store, 0).await.last_seq, Seq(4));
    assert_eq!(taken.call(Request::Assign(vec![])).await, Response::Assign(vec![]));
}

#[tokio::test]
async fn worker_registers_again_under_a_higher_number_without_its_token() {
    let (store, _held) = store();
    let dir = dir();
    let mut master = TestMaster::start(&config()).await;
    let first = worker(&master, &store, &dir, true);
    let taken = master.take().await;
    // The link is cut without a word.
    drop(taken);
    let taken = master.take().await;
    assert_eq!(number(&taken), 2);
    // The master lists it, and says when it may come back.
    taken.link.close(Close { reason: CloseReason::Listed, retry_ms: 10 });
    let taken = master.take().await;
    assert_eq!(number(&taken), 3);
    // Others say that this registration failed.
    let mut failed = taken.peer.clone();
    failed.fact.state = MemberState::Failed;
    taken.link.send(&Direct::Members(vec![failed])).expect("queued");
    let mut again = master.take().await;
    assert_eq!(number(&again), 4);
    // The node is started again; the master's directory has a higher number than its own file.
    drop(first);
    let lost = again.hear(|incoming| match incoming {
        Incoming::Closed(end) => Some(end),
        _ => None,
    });
    lost.await;
    let mut known = again.peer.clone();
    known.fact.registration = Registration(900);
    master.set_directory(vec![known]);
    let _second = worker(&master, &store, &dir, false);
    assert_eq!(number(&master.take().await), 901);
}

#[tokio::test]
async fn worker_whose_disk_takes_no_more_files_registers_again() {
    let (store, _held) = store();
    let dir = dir();
    let mut master = TestMaster::start(&config()).await;
    let _worker = worker(&master, &store, &dir, true);
    let taken = master.take().await;
    // Directories in the place of the new files, so that none can be written.
    for name in ["registration", "guard.key"] {
        std::fs::create_dir_all(dir.path().join(format!(".{name}.new/full"))).expect("made");
    }
    drop(taken);
    assert_eq!(number(&master.take().await), 2);
}

#[tokio::test]
async fn stopped_worker_says_goodbye_and_unenrolled_worker_does_not_start() {
    let (store, _held) = store();
    let dir = dir();
    let mut master = TestMaster::start(&config()).await;
    let nobody = worker(&master, &store, &dir, false);
    let refused = nobody.ended.await.expect("it ended").expect_err("it was never enrolled");
    assert_eq!(refused.to_string(), "this worker was never enrolled: start it with a join token");
    let mut running = worker(&master, &store, &dir, true);
    let mut taken = master.take().await;
    stop(&mut running);
    leaves(&mut taken).await;
    running.ended.await.expect("it ended").expect("it ran");
}

#[tokio::test]
async fn worker_sends_its_status_and_its_directory() {
    let (store, _held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let _worker = worker(&master, &store, &dir, true);
    let mut taken = master.take().await;
    let status = taken.hear(|incoming| match incoming {
        Incoming::Direct(Direct::WorkerStatus(status)) => Some(status),
        _ => None,
    });
    assert_eq!(status.await.in_flight, 0);
    taken.link.send(&Direct::Digest { digest: [0; 16] }).expect("queued");
    let members = taken.hear(|incoming| match incoming {
        Incoming::Direct(Direct::Members(members)) => Some(members),
        _ => None,
    });
    assert_eq!(members.await, [taken.peer.clone()]);
}

#[tokio::test]
async fn board_of_longest_posts_is_read_over_a_link_in_pages() {
    let (store, _held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let _worker = worker(&master, &store, &dir, true);
    let taken = master.take().await;
    let lease = lobby(&store, &master).await;
    let longest: PostText = "x".repeat(PostText::LEN_MAX).parse().expect("a text");
    for n in 0..15 {
        let tasks = (1..=10).map(|nth| match post(10 * n + nth) {
            Task::Post { board, post } => {
                Task::Post { board, post: NewPost { text: longest.clone(), ..post } }
            }
            other => other,
        });
        let reply = taken.assign(batch(&taken, lease, u64::from(n) + 1, tasks.collect())).await;
        assert!(matches!(reply, AssignReply::Done(_)), "{reply:?}");
    }
    let (mut have, mut pages) = (Seq(0), 0);
    let (env, board) = (env(), BoardName::lobby());
    while have < Seq(150) {
        let request = Request::Read { board: board.clone(), range: Range::After(have), limit: 500 };
        let response = taken.call(request).await;
        let Response::Page(page) = response else { panic!("{response:?}") };
        // There is no page of the board before the node database is open and has heard of it.
        match page.as_ref().and_then(|page| page.posts.last()) {
            Some(last) => (have, pages) = (last.seq, pages + 1),
            None => env.sleep(Duration::from_millis(10)).await,
        }
    }
    assert!(pages > 1, "150 times 8 KiB fit into one frame?");
}

fn session(n: u8) -> SessionRow {
    let user = Author { id: UserId([n; 16]), name: "ann".parse().expect("a name") };
    SessionRow { key: SessionKey([n; 32]), user, read_marks: Vec::new() }
}

/// Opens sessions in the store, as another master's worker does.
async fn open_sessions(store: &Store, master: &TestMaster, numbers: impl Iterator<Item = u8>) {
    let holder = Holder { node: master.domain.master, incarnation: Incarnation(1) };
    let resource = Resource::Sessions(holder.node);
    let lease = store.acquire_lease(resource.clone(), holder, 3000).await.expect("asked");
    let Lease::Granted { epoch, lease, .. } = lease else { panic!("{lease:?}") };
    let token = Token { epoch, lease, n: 1 };
    let open = |n| Task::OpenSession { key: SessionKey([n; 32]), user: session(n).user };
    let tasks: Vec<_> = numbers.map(open).collect();
    let permission = Permission { resource, token, after: None, worker: holder.node };
    let opened = store.write(permission, tasks.into()).await.expect("written");
    assert!(opened.iter().all(|one| matches!(one, TaskResult::Done)), "{opened:?}");
}

/// Waits until the worker's own copy of a session is this, while `taken` has it.
async fn knows_session(taken: &Taken, n: u8, want: Option<SessionRow>) {
    let env = env();
    for _ in 0..800 {
        let request = Request::Session(SessionKey([n; 32]));
        if taken.call(request).await == Response::Session(want.clone()) {
            return;
        }
        env.sleep(Duration::from_millis(25)).await;
    }
    panic!("the copy of session {n} never was {want:?}");
}

#[tokio::test]
async fn sessions_that_updates_lost_are_repaired_from_the_store() {
    let (store, _held) = store();
    let mut master = TestMaster::start(&config()).await;
    open_sessions(&store, &master, 1..=40).await;
    let dir = dir();
    let _worker = worker(&master, &store, &dir, true);
    let taken = master.take().await;
    for n in [1, 40] {
        knows_session(&taken, n, Some(session(n))).await;
    }
    // The store has no such session, and no word of its end will come.
    master.publish(&taken, &Update::Session(session(99)));
    knows_session(&taken, 99, Some(session(99))).await;
    knows_session(&taken, 99, None).await;
    knows_session(&taken, 40, Some(session(40))).await;
}

#[tokio::test]
async fn sessions_are_repaired_from_another_copy_while_the_store_is_away() {
    let (store, held) = store();
    held.away.store(true, Ordering::SeqCst);
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let _worker = worker(&master, &store, &dir, true);
    let mut taken = master.take().await;
    master.publish(&taken, &Update::Session(session(2)));
    knows_session(&taken, 2, Some(session(2))).await;
    // Another worker knows the end of session 2, and one session more.
    let (env, link) = (env(), taken.link.clone());
    let answering = async {
        loop {
            let (request, reply) = taken
                .hear(|incoming| match incoming {
                    Incoming::Request { request, reply } => Some((request, reply)),
                    _ => None,
                })
                .await;
            let answer = match request {
                Request::CopyDigests { .. } => {
                    let mut sessions = SessionDigests::empty(EPOCH);
                    sessions.open[3] = session(3).digest();
                    sessions.closed[2] = closed_digest(&session(2).key);
                    let boards = vec![(BoardName::lobby(), Seq(0))];
                    let boards = Boards { boards, epoch: EPOCH, as_of_ms: 5 };
                    Response::CopyDigests(Some(CopyDigests { boards, sessions }))
                }
                Request::CopySessions { bucket, .. } => {
                    let entries = match bucket {
                        2 => vec![SessionEntry::Closed(session(2).key)],
                        3 => vec![SessionEntry::Open(session(3))],
                        _ => Vec::new(),
                    };
                    Response::CopySessions(Some(SessionPage { entries, next: None }))
                }
                _ => Response::NotServed,
            };
            reply.send(&answer).expect("sent");
        }
    };
    let learning = async {
        for (n, want) in [(2, None), (3, Some(session(3)))] {
            loop {
                let request = Request::Session(SessionKey([n; 32]));
                let known = link.call(request, Duration::from_secs(5)).await.expect("answered");
                if known == Response::Session(want.clone()) {
                    break;
                }
                env.sleep(Duration::from_millis(25)).await;
            }
        }
    };
    tokio::select! {
        biased;
        learnt = env.timeout(Duration::from_secs(20), learning) => learnt.expect("in time"),
        () = answering => unreachable!("it goes on"),
    }
}

#[tokio::test]
async fn worker_that_starts_reads_a_long_list_of_closed_sessions_at_once() {
    let (store, _held) = store();
    let list = LongList::new(store);
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let rarely = Config { store_poll_interval: Duration::from_secs(600), ..config() };
    let _worker = worker_with(rarely, &master, &Store::new(list.clone()), &dir, true);
    let _taken = master.take().await;
    list.is_read(&env(), Duration::from_secs(40)).await;
}
