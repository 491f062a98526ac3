//! Tests of the store over the simulated network: durability, and the answers that callers get.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chatchat::{
    env::Env,
    model::{
        absence::AwayReason,
        ids::{
            Author, BoardName, Incarnation, NodeId, PostId, Resource, StoreEpoch, Token, UserId,
        },
        message::Task,
        outcome::TaskResult,
        rows::{Holder, Lease, NewPost, Permission, Range},
    },
    store::{Op, Store, sqlite::NewCluster},
};

use chatchat_scenarios::fault::Dose;
use dst_world::{HostId, Link, Setup, World, simulate};

use super::{StoreHost, Trouble, remote};

mod connections;
mod older_copy;

const ADDR: &str = "store:5432";
const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_millis(800);

/// Write that each test can tell from the others by its node.
fn deny(node: u8) -> Op {
    Op::Deny(NodeId([node; 16]))
}

/// Returns the number of connections that were made so far.
fn made(world: &World) -> usize {
    world.log_lines().iter().filter(|line| line.contains("\"connected\"")).count()
}

/// Boots the store's host.
fn stored(world: &World) -> (StoreHost, HostId) {
    let at = world.add_host("store");
    let new = NewCluster { cluster: [7; 16], epoch: StoreEpoch(1), now_ms: world.wall(at).ms };
    let store = StoreHost::new(&new).expect("SQLite works");
    boot(world, &store, at);
    (store, at)
}

fn boot(world: &World, store: &StoreHost, at: HostId) {
    let store = store.clone();
    world.boot(at, |env| store.serve(env, "0.0.0.0:5432"));
}

async fn ask<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    world: &World,
    asker: HostId,
    act: impl FnOnce(Env, Store) -> F,
) -> T {
    world
        .run(asker, |env| {
            let store = remote(&env, ADDR, TIMEOUT);
            act(env, store)
        })
        .await
}

#[test]
fn concurrent_reads_share_two_connections_and_get_their_own_replies() {
    simulate(Setup::new(1), async |world| {
        let (_, _) = stored(&world);
        let asker = world.add_host("asker");
        world.sleep(SECOND).await;
        ask(&world, asker, |env, store| async move {
            let store = Arc::new(store);
            let mut asked = Vec::new();
            for nth in 0..50 {
                let (store, (tell, told)) = (Arc::clone(&store), tokio::sync::oneshot::channel());
                env.spawn("ask", async move {
                    let right = if nth % 2 == 0 {
                        store.masters().await.expect("the store is there").is_empty()
                    } else {
                        store.cluster().await.expect("the store is there").cluster == [7; 16]
                    };
                    // The test waits for it.
                    let _ = tell.send(right);
                });
                asked.push(told);
            }
            for told in asked {
                assert!(told.await.expect("asked"));
            }
        })
        .await;
        assert_eq!(made(&world), 2, "{:?}", world.log_lines());
    });
}

#[test]
fn read_that_was_asked_for_later_may_be_answered_first() {
    simulate(Setup::new(9), async |world| {
        let (_, at) = stored(&world);
        let asker = world.add_host("asker");
        world.sleep(SECOND).await;
        let jitter = Link { cut: false, jitter_ns: 200_000_000, ..Link::CUT };
        world.add_fault(at, asker, 0, jitter);
        let turns = ask(&world, asker, |env, store| async move {
            let (store, turns) = (Arc::new(store), Arc::new(AtomicU64::new(0)));
            let mut told = Vec::new();
            for _ in 0..20 {
                let (store, turns) = (Arc::clone(&store), Arc::clone(&turns));
                let (tell, answered) = tokio::sync::oneshot::channel();
                env.spawn("ask", async move {
                    store.masters().await.expect("the store is there");
                    // The test waits for it.
                    let _ = tell.send(turns.fetch_add(1, Ordering::Relaxed));
                });
                told.push(answered);
                env.sleep(Duration::from_millis(5)).await;
            }
            let mut turns = Vec::new();
            for answered in told {
                turns.push(answered.await.expect("asked"));
            }
            turns
        })
        .await;
        assert!(!turns.is_sorted(), "{turns:?}");
    });
}

#[test]
fn commit_survives_a_crash_of_the_host_and_the_store_is_away_meanwhile() {
    simulate(Setup::new(2), async |world| {
        let (store, at) = stored(&world);
        let asker = world.add_host("asker");
        world.sleep(SECOND).await;
        let denied =
            |store: Store| async move { store.admission().await.map(|lists| lists.denied.len()) };
        ask(&world, asker, |_, store| async move { store.call(deny(1)).await })
            .await
            .expect("the store is there");
        world.crash(at);
        let (refused, took) = ask(&world, asker, |env, store| async move {
            let start = env.now();
            (denied(store).await, env.now().since(start))
        })
        .await;
        assert!(refused.expect_err("it has no power").is_away());
        assert!(took >= TIMEOUT && took < 2 * TIMEOUT, "{took:?}");
        boot(&world, &store, at);
        assert_eq!(ask(&world, asker, |_, store| denied(store)).await, Ok(1));
    });
}

#[test]
fn caller_reconnects_once_the_store_is_back() {
    simulate(Setup::new(3), async |world| {
        let (store, at) = stored(&world);
        let asker = world.add_host("asker");
        world.sleep(SECOND).await;
        let outage = world.clone();
        let answers = ask(&world, asker, |env, remote| async move {
            let mut answers = vec![remote.cluster().await.is_ok()];
            outage.exit(at);
            answers.push(remote.cluster().await.is_ok());
            boot(&outage, &store, at);
            env.sleep(SECOND).await;
            answers.push(remote.cluster().await.is_ok());
            outage.pause(at);
            answers.push(remote.cluster().await.is_ok());
            outage.resume(at);
            answers.push(remote.cluster().await.is_ok());
            answers
        })
        .await;
        assert_eq!(answers, [true, false, true, false, true]);
    });
}

#[test]
fn write_with_a_lost_reply_is_kept() {
    simulate(Setup::new(4), async |world| {
        let (store, at) = stored(&world);
        let asker = world.add_host("asker");
        world.sleep(SECOND).await;
        let cut = world.clone();
        let answer = ask(&world, asker, |_, remote| async move {
            // The connection for writes stands before the way back is cut.
            remote.call(Op::Deny(NodeId([2; 16]))).await.expect("the store is there");
            cut.add_fault(at, asker, 0, Link::CUT);
            remote.call(Op::Deny(NodeId([1; 16]))).await
        })
        .await;
        assert!(answer.expect_err("nothing comes back").is_away());
        let lists = store.apply(&Op::Admission, world.wall(at).ms).expect("read");
        assert!(format!("{lists:?}").contains("denied: [0101"), "{lists:?}");
    });
}

#[test]
fn troubled_write_is_kept_without_an_answer_or_refused_and_not_kept() {
    simulate(Setup::new(8), async |world| {
        let (store, at) = stored(&world);
        let asker = world.add_host("asker");
        world.sleep(SECOND).await;
        let troubled = store.clone();
        let seed = world.seed();
        let answers = ask(&world, asker, move |_, remote| async move {
            let call = |node: u8| remote.call(deny(node));
            troubled.begin_trouble(0, Trouble::LostAck, Dose::Count(1), seed.stream("lost"));
            let lost = call(1).await.expect_err("nothing comes back").is_away();
            let told = call(2).await.is_ok();
            troubled.begin_trouble(1, Trouble::Error, Dose::Count(1), seed.stream("fails"));
            let failed = call(3).await.expect_err("the disk fails").is_away();
            (lost, told, failed, call(4).await.is_ok())
        })
        .await;
        assert_eq!(answers, (true, true, true, true));
        assert_eq!((store.end_trouble(0), store.end_trouble(1)), (1, 1));
        let lists = format!("{:?}", store.apply(&Op::Admission, world.wall(at).ms).expect("read"));
        let is_kept = |node: u8| lists.contains(&format!("{node:02x}").repeat(16));
        assert_eq!([1, 2, 3, 4].map(is_kept), [true, true, false, true], "{lists}");
    });
}

#[test]
fn transaction_that_others_undo_is_repeated_as_long_as_its_caller_waits() {
    simulate(Setup::new(10), async |world| {
        let (store, _) = stored(&world);
        let asker = world.add_host("asker");
        world.sleep(SECOND).await;
        let (troubled, seed) = (store.clone(), world.seed());
        let answers = ask(&world, asker, move |env, remote| async move {
            let call = |node: u8| remote.call(deny(node));
            troubled.begin_trouble(0, Trouble::Conflict, Dose::Count(5), seed.stream("a few"));
            let repeated = call(1).await.is_ok();
            troubled.begin_trouble(1, Trouble::Conflict, Dose::Rate(1.0), seed.stream("all"));
            let undone = call(2).await.expect_err("it is always undone").away_reason();
            env.sleep(SECOND).await;
            let hit = troubled.end_trouble(1);
            (repeated, undone, hit > 20, call(3).await.is_ok())
        })
        .await;
        assert_eq!(answers, (true, Some(AwayReason::NoAnswer), true, true));
        assert_eq!(store.end_trouble(0), 5);
        let lists = format!("{:?}", store.apply(&Op::Admission, world.wall(asker).ms));
        let is_kept = |node: u8| lists.contains(&format!("{node:02x}").repeat(16));
        assert_eq!([1, 2, 3].map(is_kept), [true, false, true], "{lists}");
    });
}

#[test]
fn statement_waits_for_a_connection_of_an_exhausted_pool_until_its_caller_gives_up() {
    simulate(Setup::new(11), async |world| {
        let (store, _) = stored(&world);
        let asker = world.add_host("asker");
        world.sleep(SECOND).await;
        let exhausted = store.clone();
        let (refused, took) = ask(&world, asker, move |env, remote| async move {
            exhausted.exhaust(0, 0, Duration::ZERO);
            let read = remote.masters().await.map(drop);
            let written = remote.call(Op::Deny(NodeId([1; 16]))).await.map(drop);
            let waited = exhausted.end_trouble(0);
            let refused =
                [read, written].map(|answer| answer.expect_err("none free").away_reason());
            exhausted.exhaust(1, 1, Duration::from_millis(100));
            let (start, mut told) = (env.now(), Vec::new());
            for _ in 0..4 {
                let (remote, (tell, answered)) = (remote.clone(), tokio::sync::oneshot::channel());
                env.spawn("ask", async move {
                    // The test waits for it.
                    let _ = tell.send(remote.masters().await.is_ok());
                });
                told.push(answered);
            }
            for answered in told {
                assert!(answered.await.expect("asked"));
            }
            ((waited, refused), env.now().since(start))
        })
        .await;
        assert_eq!(refused, (2, [Some(AwayReason::NoAnswer); 2]));
        assert!(took >= Duration::from_millis(400) && took < TIMEOUT, "{took:?}");
        assert_eq!(store.end_trouble(1), 3);
    });
}

#[test]
fn promoted_standby_has_all_that_was_told_of_and_perhaps_the_last_of_the_rest() {
    let mut kept = [0; 2];
    for seed in 20..40 {
        let there = simulate(Setup::new(seed), async |world| {
            let (store, at) = stored(&world);
            let asker = world.add_host("asker");
            world.sleep(SECOND).await;
            let (outage, promoted) = (world.clone(), store.clone());
            let answers = ask(&world, asker, move |env, remote| async move {
                let call = |node: u8| {
                    let remote = remote.clone();
                    async move { remote.call(deny(node)).await.map(drop) }
                };
                let mut answers = vec![call(1).await.is_ok()];
                promoted.begin_promotion(0, outage.seed().stream("promoted"));
                let (tell, broken) = tokio::sync::oneshot::channel();
                let last = call(2);
                env.spawn("last", async move {
                    // The test waits for it.
                    let _ = tell.send(last.await);
                });
                env.sleep(Duration::from_millis(50)).await;
                outage.exit(at);
                boot(&outage, &promoted, at);
                answers.push(broken.await.expect("asked").is_ok());
                answers.push(promoted.is_promoting(0));
                answers.push(call(3).await.is_ok());
                answers
            })
            .await;
            assert_eq!(answers, [true, false, false, true]);
            let lists = format!("{:?}", store.apply(&Op::Admission, world.wall(at).ms));
            let is_kept = |node: u8| lists.contains(&format!("{node:02x}").repeat(16));
            assert_eq!([1, 3].map(is_kept), [true; 2], "{lists}");
            is_kept(2)
        });
        kept[usize::from(there)] += 1;
    }
    assert!(kept[0] > 0 && kept[1] > 0, "{kept:?}");
}

#[test]
fn batch_is_announced_once_if_it_committed_a_post() {
    simulate(Setup::new(5), async |world| {
        let (_, _) = stored(&world);
        let asker = world.add_host("asker");
        world.sleep(SECOND).await;
        ask(&world, asker, |_, store| async move {
            let resource = Resource::Board(BoardName::lobby());
            let holder = Holder { node: NodeId([1; 16]), incarnation: Incarnation(1) };
            let lease = store.acquire_lease(resource.clone(), holder, 3000).await;
            let Ok(Lease::Granted { epoch, lease, .. }) = lease else { panic!("{lease:?}") };
            let post = |id: u8| {
                let author = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
                let text = "a text".parse().expect("a text");
                let post = NewPost { id: PostId([id; 16]), author, text };
                Task::Post { board: BoardName::lobby(), post }
            };
            // Two posts, the same batch again, one new post among old ones, no new post.
            for (n, ids) in [(1, vec![1, 2]), (1, vec![1, 2]), (2, vec![1, 3]), (3, vec![3])] {
                let (token, worker) = (Token { epoch, lease, n }, NodeId([9; 16]));
                let permission =
                    Permission { resource: resource.clone(), token, after: None, worker };
                let tasks: Vec<_> = ids.into_iter().map(post).collect();
                store.write(permission, tasks.into()).await.expect("written");
            }
        })
        .await;
        let lines = world.log_lines();
        let announced = lines.iter().filter(|line| line.contains("append_committed")).count();
        assert_eq!(announced, 2, "{lines:?}");
    });
}

#[test]
fn post_is_not_older_than_any_read_that_did_not_show_it() {
    simulate(Setup::new(6), async |world| {
        let (_, _) = stored(&world);
        let (writer, reader) = (world.add_host("writer"), world.add_host("reader"));
        world.sleep(SECOND).await;
        let reads = world.run(reader, |env| async move {
            let store = remote(&env, ADDR, TIMEOUT);
            let mut seen = Vec::new();
            for _ in 0..400 {
                let page = store.read(BoardName::lobby(), Range::Last, 1).await.expect("a page");
                seen.push((page.last_seq, page.as_of_ms));
                env.sleep(Duration::from_micros(100)).await;
            }
            seen
        });
        let posts = world.run(writer, |env| async move {
            let store = remote(&env, ADDR, TIMEOUT);
            let resource = Resource::Board(BoardName::lobby());
            let holder = Holder { node: NodeId([1; 16]), incarnation: Incarnation(1) };
            let lease = store.acquire_lease(resource.clone(), holder, 3000).await;
            let Ok(Lease::Granted { epoch, lease, .. }) = lease else { panic!("{lease:?}") };
            let mut times = Vec::new();
            for n in 1..=100 {
                let (token, worker) = (Token { epoch, lease, n }, NodeId([9; 16]));
                let permission =
                    Permission { resource: resource.clone(), token, after: None, worker };
                let author = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
                let text = "a text".parse().expect("a text");
                let post = NewPost { id: PostId([n as u8; 16]), author, text };
                let task = Task::Post { board: BoardName::lobby(), post };
                match store.write(permission, vec![task].into()).await.as_deref() {
                    Ok([TaskResult::Committed { seq, posted_at_ms }]) => {
                        times.push((*seq, *posted_at_ms));
                    }
                    other => panic!("{other:?}"),
                }
            }
            times
        });
        let (reads, posts) = tokio::join!(reads, posts);
        let mut beside = 0;
        for (last_seq, as_of_ms) in reads {
            for (seq, posted_at_ms) in &posts {
                let later = *seq > last_seq;
                beside += u32::from(later);
                assert!(
                    !later || *posted_at_ms >= as_of_ms,
                    "post {seq:?} of {posted_at_ms} came after a read as of {as_of_ms}"
                );
            }
        }
        assert!(beside > 0, "no read ran beside the writes");
    });
}

#[test]
fn batches_that_wait_together_share_a_transaction() {
    simulate(Setup::new(7), async |world| {
        let (_, _) = stored(&world);
        let asker = world.add_host("asker");
        world.sleep(SECOND).await;
        ask(&world, asker, |env, store| async move {
            let holder = Holder { node: NodeId([1; 16]), incarnation: Incarnation(1) };
            let mut calls = Vec::new();
            for n in 0..8 {
                let resource = Resource::Board(format!("b{n}").parse().expect("a name"));
                let lease = store.acquire_lease(resource.clone(), holder, 3000).await;
                let Ok(Lease::Granted { epoch, lease, .. }) = lease else { panic!("{lease:?}") };
                let token = Token { epoch, lease, n: 1 };
                let Resource::Board(board) = resource.clone() else { unreachable!() };
                let permission =
                    Permission { resource, token, after: None, worker: NodeId([9; 16]) };
                let tasks = Arc::new(vec![Task::CreateBoard { board }]);
                let (store, (tell, told)) = (store.clone(), tokio::sync::oneshot::channel());
                calls.push((async move { store.write(permission, tasks).await }, tell, told));
            }
            let mut answers = Vec::new();
            for (call, tell, told) in calls {
                // The test waits for it.
                env.spawn("write", async move { drop(tell.send(call.await)) });
                answers.push(told);
            }
            for answer in answers {
                answer.await.expect("answered").expect("written");
            }
        })
        .await;
        let lines = world.log_lines();
        assert!(
            lines.iter().any(|line| line.contains("batches shared a transaction")),
            "no group: {lines:?}"
        );
    });
}

#[test]
fn touch_passes_thousands_of_writes_and_reads_that_wait() {
    simulate(Setup::new(9), async |world| {
        let (_, _) = stored(&world);
        let asker = world.add_host("asker");
        world.sleep(SECOND).await;
        let (touched, before) = ask(&world, asker, |env, store| async move {
            let written = Arc::new(AtomicU64::new(0));
            for nth in 0..6000 {
                let (store, written) = (store.clone(), Arc::clone(&written));
                env.spawn("bulk", async move {
                    if nth % 2 == 0 {
                        let _ = store.active_users().await;
                    } else if store.drop_dead_letter(1).await.is_ok() {
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            env.sleep(Duration::from_millis(5)).await;
            let touched = store.touch_sessions(NodeId([1; 16]), Vec::new()).await.map(drop);
            let listed = store.masters().await.map(drop);
            ([touched, listed], written.load(Ordering::Relaxed))
        })
        .await;
        assert_eq!(touched, [Ok(()), Ok(())]);
        assert!(before < 50, "{before} writes went first");
    });
}
