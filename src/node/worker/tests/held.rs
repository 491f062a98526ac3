//! Posts that a worker holds, from one life to the next and when it ends.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    dir,
    ending::{beats, leaves, stop},
};
use crate::{
    comm::{Incoming, link::CallError},
    config::Config,
    env::{
        Env,
        real::{RealWorld, TempDir},
    },
    model::{
        bounds::HAND_OVER_VERSION,
        held::{HandInReply, HeldKey, HeldPost, HoldReply},
        message::{AssignReply, Beat, Direct, Request, Response, Task},
    },
    replica::{Check, Replica, ReplicaLimits},
    testing::{
        braked_world::braked,
        logged::Logged,
        worker::{
            Taken, TestMaster, TestWorker, batch, config, env, lobby, post, store, worker,
            worker_in, worker_with,
        },
    },
};

/// Hour, in milliseconds.
const HOUR_MS: u64 = 3_600_000;

fn held_post(n: u8) -> HeldPost {
    match post(n) {
        Task::Post { board, post } => HeldPost { board, post },
        other => panic!("{other:?}"),
    }
}

/// Has a worker hold a post, as soon as its database is open.
async fn hold(taken: &Taken, request: Request) {
    for _ in 0..800 {
        match taken.call(request.clone()).await {
            Response::Hold(HoldReply::Failed) => env().sleep(Duration::from_millis(25)).await,
            Response::Hold(HoldReply::Held) => return,
            other => panic!("{other:?}"),
        }
    }
    panic!("the database never took the post");
}

/// Tells a worker to end. Returns its request about the post that it holds, once it has ended; the answer
/// is that so many others hold the post.
async fn ended_after(mut running: TestWorker, taken: &mut Taken, copies: u32) -> Request {
    stop(&mut running);
    let asked = taken.hear(|incoming| match incoming {
        Incoming::Request {
            request: request @ (Request::HandOver { .. } | Request::Hold { .. }),
            reply,
        } => Some((request, reply)),
        _ => None,
    });
    let (request, reply) = asked.await;
    let answer = match request {
        Request::HandOver { .. } => Response::HandOver { copies },
        _ => Response::Hold(HoldReply::Held),
    };
    reply.send(&answer).expect("it waits");
    running.ended.await.expect("it ended").expect("it ran");
    request
}

/// Returns the posts that wait in the database of a worker that has ended.
fn held_in(dir: &TempDir) -> Vec<HeldKey> {
    let disk = Env::new(RealWorld::new(dir.path()).expect("usable")).disk();
    let (replica, _) =
        Replica::open(&disk, ReplicaLimits::default(), Check::Whole, |_| ()).expect("opens");
    replica.held().expect("read").into_iter().map(|(key, _)| key).collect()
}

#[tokio::test]
async fn held_post_goes_with_its_age_and_stays_until_two_others_hold_it() {
    let (store, _held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let held = held_post(1);
    for (copies, stays) in [(1, vec![held.key()]), (2, vec![])] {
        let is_first = copies == 1;
        let running = worker(&master, &store, &dir, is_first);
        let mut taken = master.take().await;
        if is_first {
            let held = held.clone();
            hold(&taken, Request::HandOver { held, copy: 0, age_ms: HOUR_MS }).await;
        }
        // It hands over what it knows that it holds.
        let knows = taken.hear(|incoming| match incoming {
            Incoming::Direct(Direct::Holds(1)) => Some(()),
            _ => None,
        });
        knows.await;
        let asked = ended_after(running, &mut taken, copies).await;
        let Request::HandOver { held: sent, copy: 0, age_ms } = asked else { panic!("{asked:?}") };
        assert_eq!(sent, held);
        assert!((HOUR_MS..HOUR_MS + 60_000).contains(&age_ms), "{age_ms}");
        assert_eq!(held_in(&dir), stays, "{copies}");
    }
}

#[tokio::test]
async fn held_post_ages_by_the_monotonic_clock_and_across_lives_by_the_wall_clock() {
    let (store, _held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let life = |master: &TestMaster, is_first, ahead_ms| {
        let (world, brake) = braked(&dir);
        brake.set_wall_ahead(ahead_ms);
        (worker_in(world, config(), master, &store, is_first), brake)
    };
    let (running, brake) = life(&master, true, 0);
    let mut taken = master.take().await;
    hold(&taken, Request::Hold { held: held_post(1), copy: 0 }).await;
    brake.set_wall_ahead(30 * HOUR_MS);
    taken.link.beat(Beat { reaches_store: true });
    let handed_in = taken.hear(|incoming| match incoming {
        Incoming::Request { request: Request::HandIn { age_ms, .. }, reply } => {
            Some((age_ms, reply))
        }
        _ => None,
    });
    let (age_ms, reply) = handed_in.await;
    assert!(age_ms < 60_000, "{age_ms}");
    taken.link.beat(Beat { reaches_store: false });
    reply.send(&Response::HandIn(HandInReply::Later)).expect("it waits");
    let Request::HandOver { age_ms, .. } = ended_after(running, &mut taken, 1).await else {
        panic!("not with its age")
    };
    assert!(age_ms < 60_000, "{age_ms}");

    let (running, _brake) = life(&master, false, 30 * HOUR_MS);
    let mut taken = master.take().await;
    let knows = taken.hear(|incoming| match incoming {
        Incoming::Direct(Direct::Holds(1)) => Some(()),
        _ => None,
    });
    knows.await;
    let Request::HandOver { age_ms, .. } = ended_after(running, &mut taken, 1).await else {
        panic!("not with its age")
    };
    assert!((30 * HOUR_MS..31 * HOUR_MS).contains(&age_ms), "{age_ms}");
}

#[tokio::test]
async fn batch_in_flight_is_answered_while_a_worker_that_ends_hands_its_posts_over() {
    let (store, writes) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let mut running = worker(&master, &store, &dir, true);
    let mut taken = master.take().await;
    hold(&taken, Request::Hold { held: held_post(1), copy: 0 }).await;
    let lease = lobby(&store, &master).await;
    writes.gate.forget_permits(1000);
    let link = taken.link.clone();
    let batch = Request::Assign(vec![batch(&taken, lease, 1, vec![post(2)])]);
    let in_flight = link.call(batch, Duration::from_secs(5));
    let meanwhile = async {
        while writes.writes.load(Ordering::SeqCst) == 0 {
            env().sleep(Duration::from_millis(5)).await;
        }
        stop(&mut running);
        let asked = taken.hear(|incoming| match incoming {
            Incoming::Request { request: Request::HandOver { .. }, reply } => Some(reply),
            _ => None,
        });
        let reply = asked.await;
        let another = Request::Hold { held: held_post(3), copy: 0 };
        assert_eq!(taken.call(another).await, Response::Hold(HoldReply::Full));
        writes.gate.add_permits(1000);
        reply
    };
    let (written, reply) = tokio::join!(in_flight, meanwhile);
    let Ok(Response::Assign(replies)) = written else { panic!("{written:?}") };
    assert!(matches!(replies[..], [AssignReply::Done(_)]), "{replies:?}");
    reply.send(&Response::HandOver { copies: 2 }).expect("it waits");
    running.ended.await.expect("it ended").expect("it ran");
    assert!(held_in(&dir).is_empty());
}

#[tokio::test]
async fn master_of_the_release_before_is_asked_to_hold_without_an_age() {
    let (store, _held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let older = Config { link_version_max: HAND_OVER_VERSION - 1, ..config() };
    let running = worker_with(older, &master, &store, &dir, true);
    let mut taken = master.take().await;
    let held = held_post(1);
    hold(&taken, Request::Hold { held: held.clone(), copy: 0 }).await;
    let asked = ended_after(running, &mut taken, 1).await;
    assert_eq!(asked, Request::Hold { held: held.clone(), copy: 0 });
    assert_eq!(held_in(&dir), [held.key()], "the other holder may have had it before");
}

/// Says to a worker that ends that two others hold each post that it hands over. Returns these posts once
/// its link has ended.
async fn handed_over(taken: &mut Taken) -> Vec<HeldKey> {
    let mut posts = Vec::new();
    loop {
        let said = taken.hear(|incoming| match incoming {
            Incoming::Request { request: Request::HandOver { held, .. }, reply } => {
                Some(Some((held.key(), reply)))
            }
            Incoming::Closed(_) => Some(None),
            _ => None,
        });
        let Some((key, reply)) = said.await else { break };
        posts.push(key);
        // On a busy machine it may not wait any more.
        let _ = reply.send(&Response::HandOver { copies: 2 });
    }
    posts.sort_unstable();
    posts
}

#[tokio::test]
async fn post_that_is_on_its_way_to_the_disk_when_a_worker_ends_is_handed_over_too() {
    let (store, _held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let (world, brake) = braked(&dir);
    let seconds = Duration::from_secs;
    let patient = Config {
        store_timeout: seconds(20),
        attempt_timeout: seconds(25),
        request_timeout: seconds(600),
        ..config()
    };
    let mut running = worker_in(world, patient, &master, &store, true);
    let mut taken = master.take().await;
    hold(&taken, Request::Hold { held: held_post(1), copy: 0 }).await;
    beats(&mut taken, true).await;
    brake.stop_disk();
    let link = taken.link.clone();
    let request = Request::Hold { held: held_post(2), copy: 0 };
    let on_its_way = link.call(request, seconds(30));
    let ends = async {
        // The answer says that what came before it has been taken.
        assert_eq!(taken.call(Request::Echo(vec![1])).await, Response::Echo(vec![1]));
        stop(&mut running);
        beats(&mut taken, false).await;
        brake.start_disk();
    };
    let (answer, ()) = tokio::join!(on_its_way, ends);
    assert_eq!(answer, Ok(Response::Hold(HoldReply::Held)));
    let both = [held_post(1).key(), held_post(2).key()];
    assert_eq!(handed_over(&mut taken).await, both);
    running.ended.await.expect("it ended").expect("it ran");
}

#[tokio::test]
async fn post_that_comes_onto_the_disk_too_late_to_be_handed_over_is_not_said_to_be_held() {
    let (store, _held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let (world, brake) = braked(&dir);
    let impatient = Config { store_timeout: Duration::from_millis(500), ..config() };
    let mut running = worker_in(world, impatient, &master, &store, true);
    let mut taken = master.take().await;
    hold(&taken, Request::Hold { held: held_post(1), copy: 0 }).await;
    brake.stop_disk();
    let link = taken.link.clone();
    let request = Request::Hold { held: held_post(2), copy: 0 };
    let on_its_way = link.call(request, Duration::from_secs(30));
    let ends = async {
        assert_eq!(taken.call(Request::Echo(vec![1])).await, Response::Echo(vec![1]));
        stop(&mut running);
        let asked = taken.hear(|incoming| match incoming {
            Incoming::Request { request: Request::HandOver { held, .. }, reply } => {
                Some((held, reply))
            }
            _ => None,
        });
        let (held, reply) = asked.await;
        assert_eq!(held, held_post(1));
        brake.start_disk();
        reply
    };
    let (answer, reply) = tokio::join!(on_its_way, ends);
    // On a busy machine the link may have ended before the disk was done.
    let in_doubt = [Ok(Response::Hold(HoldReply::Unknown)), Err(CallError::Lost)];
    assert!(in_doubt.contains(&answer), "{answer:?}");
    let _ = reply.send(&Response::HandOver { copies: 2 });
    running.ended.await.expect("it ended").expect("it ran");
    assert!(held_in(&dir).contains(&held_post(2).key()), "its next life hands it in");
}

#[tokio::test]
async fn worker_that_ends_before_its_database_is_open_warns_that_posts_may_be_in_it() {
    let log = Logged::here();
    let warns = || log.count("held posts may be on this disk") > 0;
    let (store, _held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let (world, brake) = braked(&dir);
    let mut running = worker_in(world.clone(), config(), &master, &store, true);
    let mut taken = master.take().await;
    hold(&taken, Request::Hold { held: held_post(1), copy: 0 }).await;
    stop(&mut running);
    assert_eq!(handed_over(&mut taken).await, [held_post(1).key()]);
    running.ended.await.expect("it ended").expect("it ran");
    assert!(!warns(), "it knew them all");

    brake.stop_disk();
    let mut running = worker_in(world, config(), &master, &store, false);
    let mut taken = master.take().await;
    stop(&mut running);
    leaves(&mut taken).await;
    running.ended.await.expect("it ended").expect("it ran");
    brake.start_disk();
    assert!(warns());
}
