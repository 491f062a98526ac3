//! Ends of a worker: what is in flight is answered, and its link goes last.

use std::{cell::Cell, sync::atomic::Ordering, time::Duration};

use super::dir;
use crate::{
    comm::{Incoming, LinkEnd},
    config::Config,
    model::message::{AssignReply, Close, CloseReason, Request, Response},
    testing::{
        braked_world::braked,
        worker::{
            Taken, TestMaster, TestWorker, batch, config, env, lobby, post, store, worker,
            worker_in,
        },
    },
};

/// Tells a worker to end.
pub(super) fn stop(running: &mut TestWorker) {
    running.stop.take().expect("still there").send(()).expect("it listens");
}

/// Waits for the beat that says whether the worker can have anything written.
pub(super) async fn beats(taken: &mut Taken, says: bool) {
    let beat = taken.hear(|incoming| match incoming {
        Incoming::Beat(beat) if beat.reaches_store == says => Some(()),
        _ => None,
    });
    beat.await;
}

/// Waits for the end of the worker's link: it leaves.
pub(super) async fn leaves(taken: &mut Taken) {
    let end = taken.hear(|incoming| match incoming {
        Incoming::Closed(end) => Some(end),
        _ => None,
    });
    let leaving = Close { reason: CloseReason::Leaving, retry_ms: 0 };
    assert_eq!(end.await, LinkEnd::ClosedByPeer(leaving));
}

#[tokio::test]
async fn worker_that_ends_answers_what_is_in_flight_and_takes_no_more() {
    let (store, held) = store();
    let dir = dir();
    let mut master = TestMaster::start(&config()).await;
    let mut running = worker(&master, &store, &dir, true);
    let mut taken = master.take().await;
    let lease = lobby(&store, &master).await;
    held.gate.forget_permits(1000);
    let (first, next) =
        (batch(&taken, lease, 1, vec![post(1)]), batch(&taken, lease, 2, vec![post(2)]));
    let meanwhile = async {
        while held.writes.load(Ordering::SeqCst) == 0 {
            env().sleep(Duration::from_millis(5)).await;
        }
        stop(&mut running);
        env().sleep(Duration::from_millis(50)).await;
        assert_eq!(taken.assign(next).await, AssignReply::Busy);
        held.gate.add_permits(1000);
    };
    let (reply, ()) = tokio::join!(taken.assign(first), meanwhile);
    assert!(matches!(reply, AssignReply::Done(_)), "{reply:?}");
    let says = Cell::new(None);
    let end = taken.hear(|incoming| match incoming {
        Incoming::Beat(beat) => {
            says.set(Some(beat.reaches_store));
            None
        }
        Incoming::Closed(end) => Some(end),
        _ => None,
    });
    let leaving = Close { reason: CloseReason::Leaving, retry_ms: 0 };
    assert_eq!(end.await, LinkEnd::ClosedByPeer(leaving));
    assert_eq!(says.get(), Some(false), "its master gives it nothing more");
    assert_eq!(held.writes.load(Ordering::SeqCst), 1);
    running.ended.await.expect("it ended").expect("it ran");
}

#[tokio::test]
async fn worker_that_its_master_drains_says_how_long_it_takes_and_leaves() {
    let (store, _held) = store();
    let mut master = TestMaster::start(&config()).await;
    let dir = dir();
    let running = worker(&master, &store, &dir, true);
    let mut taken = master.take().await;
    let within_ms = 2500 + u64::try_from(config().store_timeout.as_millis()).expect("small");
    assert_eq!(taken.call(Request::Drain).await, Response::Draining { within_ms });
    leaves(&mut taken).await;
    running.ended.await.expect("it ended").expect("it ran");
}

/// Settings of nodes that take a clock that stands for no failure of the other.
fn tolerant() -> Config {
    Config { heartbeats_missed_max: 100, ..config() }
}

#[tokio::test]
async fn batch_that_crosses_with_the_end_of_a_worker_is_turned_back_and_not_lost() {
    let (store, writes) = store();
    let mut master = TestMaster::start(&tolerant()).await;
    let dir = dir();
    let (world, brake) = braked(&dir);
    let mut running = worker_in(world.clone(), tolerant(), &master, &store, true);
    let mut taken = master.take().await;
    let lease = lobby(&store, &master).await;
    beats(&mut taken, true).await;
    // So that no pause of a busy machine is longer than that for what crosses.
    brake.stop_clock(world.now());
    stop(&mut running);
    beats(&mut taken, false).await;
    let crosses = batch(&taken, lease, 1, vec![post(1)]);
    assert_eq!(taken.assign(crosses).await, AssignReply::Busy);
    brake.start_clock();
    leaves(&mut taken).await;
    running.ended.await.expect("it ended").expect("it ran");
    assert_eq!(writes.writes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn worker_that_is_drained_or_has_no_master_waits_for_nothing_that_crosses() {
    let (store, _held) = store();
    let mut master = TestMaster::start(&tolerant()).await;
    let (first, second) = (dir(), dir());
    let (world, brake) = braked(&first);
    let running = worker_in(world.clone(), tolerant(), &master, &store, true);
    let mut taken = master.take().await;
    beats(&mut taken, true).await;
    brake.stop_clock(world.now());
    let drained = taken.call(Request::Drain).await;
    assert!(matches!(drained, Response::Draining { .. }), "{drained:?}");
    leaves(&mut taken).await;
    brake.start_clock();
    running.ended.await.expect("it ended").expect("it ran");

    let (world, brake) = braked(&second);
    let mut running = worker_in(world.clone(), tolerant(), &master, &store, true);
    drop(master);
    brake.stop_clock(world.now());
    stop(&mut running);
    let ended = env().timeout(Duration::from_secs(20), running.ended).await.expect("in time");
    ended.expect("it ended").expect("it ran");
}
