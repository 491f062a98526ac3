//! The world's own behaviour, seen from nodes on it: each line of what real machines do.

mod faults;

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use dst_env::{BoxStream, Env, contract};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{HostId, Link, Setup, World, simulate};

const LONG: Duration = Duration::from_secs(3600);

fn setup(seed: u64) -> Setup {
    Setup::new(seed)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Two machines, `server` and `client`, and what they do, over some seeds.
fn each_seed<F>(run: impl Fn(World, HostId, HostId) -> F + Sync)
where
    F: Future<Output = ()>,
{
    for seed in 0..6 {
        simulate(setup(seed), async |world| {
            let (server, client) = (world.add_host("server"), world.add_host("client"));
            run(world, server, client).await;
        });
    }
}

/// Starts a server that hands each connection to `serve`, and waits until it listens.
async fn serve<F>(
    world: &World,
    host: HostId,
    serve: impl Fn(Env, BoxStream) -> F + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    world.boot(host, |env| async move {
        let mut listener = env.listen("0.0.0.0:80").await.expect("the port is free");
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            let served = serve(env.clone(), stream);
            held.push(env.spawn("serve", served));
        }
    });
    world.sleep(Duration::from_millis(10)).await;
}

async fn dial(env: &Env) -> BoxStream {
    env.connect("server:80", secs(10)).await.expect("the server listens")
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn bytes_arrive_in_order_each_once_whatever_the_splits() {
    each_seed(async |world, server, client| {
        serve(&world, server, |_, stream| async move {
            let (mut from, mut to) = tokio::io::split(stream);
            tokio::io::copy(&mut from, &mut to).await.expect("the client stays");
            to.shutdown().await.expect("the client stays");
        })
        .await;
        let (reads, echoed) = world
            .run(client, |env| async move {
                let (mut from, mut to) = tokio::io::split(dial(&env).await);
                env.spawn("write", async move {
                    to.write_all(&pattern(300_000)).await.expect("the server stays");
                    to.shutdown().await.expect("the server stays");
                });
                let (mut reads, mut echoed) = (0, Vec::new());
                while from.read_buf(&mut echoed).await.expect("the server stays") > 0 {
                    reads += 1;
                }
                (reads, echoed)
            })
            .await;
        assert!(echoed == pattern(300_000), "{} bytes came", echoed.len());
        assert!(reads > 10, "{reads} reads: they split what was written");
    });
}

#[test]
fn reader_that_does_not_read_stops_its_writer() {
    each_seed(async |world, server, client| {
        serve(&world, server, |env, stream| async move {
            env.sleep(LONG).await;
            drop(stream);
        })
        .await;
        let written = world
            .run(client, |env| async move {
                let mut stream = dial(&env).await;
                let mut written = 0;
                while let Ok(Ok(len)) = env.timeout(secs(30), stream.write(&[7; 10_000])).await {
                    written += len;
                }
                written
            })
            .await;
        // A buffer of each end, of at most 4 MiB.
        assert!((8_000..=8 << 20).contains(&written), "{written} bytes were taken");
    });
}

#[test]
fn half_closed_connection_still_carries_the_answer() {
    each_seed(async |world, server, client| {
        serve(&world, server, |_, mut stream| async move {
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).await.expect("the client shuts down");
            stream.write_all(&asked.repeat(2)).await.expect("the client still reads");
        })
        .await;
        let answer = world
            .run(client, |env| async move {
                let mut stream = dial(&env).await;
                stream.write_all(b"ask").await.expect("the server stays");
                stream.shutdown().await.expect("the server stays");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.expect("the server answers");
                let late = stream.write_all(b"late").await.map_err(|e| e.kind());
                assert_eq!(late, Err(io::ErrorKind::BrokenPipe));
                answer
            })
            .await;
        assert_eq!(answer, "askask");
    });
}

#[test]
fn connect_is_refused_without_a_listener_and_hangs_without_a_machine() {
    each_seed(async |world, server, client| {
        let hung = world
            .run(client, |env| async move {
                env.connect("server:80", secs(20)).await.map(drop).map_err(|e| e.kind())
            })
            .await;
        assert_eq!(hung, Err(io::ErrorKind::TimedOut));
        world.boot(server, |env| async move { env.sleep(LONG).await });
        let (refused, took) = world
            .run(client, |env| async move {
                let start = env.now();
                let refused = env.connect("server:80", secs(20)).await.map(drop);
                (refused.map_err(|e| e.kind()), env.now().since(start))
            })
            .await;
        assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused));
        assert!(took < Duration::from_millis(5), "{took:?}");
    });
}

#[test]
fn power_loss_is_silent_until_the_machine_is_back_and_resets() {
    each_seed(async |world, server, client| {
        let boot = async || {
            serve(&world, server, |_, mut stream| async move {
                let mut sink = Vec::new();
                // Whatever ends it ends it.
                let _ = stream.read_to_end(&mut sink).await;
            })
            .await;
        };
        boot().await;
        let (silent, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let (seen, result) = (silent.clone(), ended.clone());
        world.boot(client, |env| async move {
            let mut stream = dial(&env).await;
            stream.write_all(b"before").await.expect("the server is there");
            env.sleep(secs(2)).await;
            let mut byte = [0];
            let read = env.timeout(secs(20), stream.read(&mut byte)).await;
            seen.store(read.is_err(), Ordering::Relaxed);
            stream.write_all(b"into the void").await.expect("the kernel takes it");
            let ended = stream.read(&mut byte).await.map_err(|e| e.kind());
            *result.lock().expect("one thread") = Some(ended);
        });
        world.sleep(secs(1)).await;
        assert!(world.crash(server) && !world.crash(server));
        world.sleep(secs(30)).await;
        assert!(silent.load(Ordering::Relaxed), "nothing is heard of a machine without power");
        assert_eq!(*ended.lock().expect("one thread"), None, "a write is just not answered");
        boot().await;
        world.sleep(secs(60)).await;
        let ended = ended.lock().expect("one thread").take();
        assert_eq!(ended, Some(Err(io::ErrorKind::ConnectionReset)));
    });
}

#[test]
fn process_end_closes_its_connections_and_its_port() {
    each_seed(async |world, server, client| {
        serve(&world, server, |env, mut stream| async move {
            stream.write_all(b"said before the end").await.expect("the client stays");
            env.sleep(LONG).await;
        })
        .await;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = heard.clone();
        world.boot(client, |env| async move {
            let mut stream = dial(&env).await;
            let mut said = String::new();
            let ended = stream.read_to_string(&mut said).await.is_ok();
            let again = env.connect("server:80", secs(5)).await.map(drop).map_err(|e| e.kind());
            hears.lock().expect("one thread").push((said, ended, again));
        });
        world.sleep(secs(1)).await;
        assert!(world.exit(server));
        world.sleep(secs(1)).await;
        let heard = heard.lock().expect("one thread").pop().expect("the end was heard");
        let refused = Err(io::ErrorKind::ConnectionRefused);
        assert_eq!(heard, ("said before the end".to_owned(), true, refused));
    });
}

#[test]
fn cut_stalls_a_connection_and_retransmission_heals_it() {
    each_seed(async |world, server, client| {
        serve(&world, server, |_, stream| async move {
            let (mut from, mut to) = tokio::io::split(stream);
            // The client may go first.
            let _ = tokio::io::copy(&mut from, &mut to).await;
        })
        .await;
        let echoes = Arc::new(AtomicU64::new(0));
        let counts = echoes.clone();
        world.boot(client, |env| async move {
            let mut stream = dial(&env).await;
            loop {
                stream.write_all(b"ping").await.expect("the connection lives");
                let mut pong = [0; 4];
                stream.read_exact(&mut pong).await.expect("the connection lives");
                assert_eq!(&pong, b"ping");
                counts.fetch_add(1, Ordering::Relaxed);
                env.sleep(Duration::from_millis(100)).await;
            }
        });
        world.sleep(secs(2)).await;
        let before = echoes.load(Ordering::Relaxed);
        assert!(before > 10, "{before}");
        // Either direction alone stalls it.
        for (from, to) in [(client, server), (server, client)] {
            world.add_fault(from, to, 0, Link::CUT);
            world.sleep(secs(1)).await;
            let stalled = echoes.load(Ordering::Relaxed);
            world.sleep(secs(5)).await;
            assert_eq!(echoes.load(Ordering::Relaxed), stalled, "nothing passes a cut");
            assert!(world.remove_fault(from, to, 0) > 0, "the fault bit");
            world.sleep(secs(15)).await;
            assert!(echoes.load(Ordering::Relaxed) > stalled + 10, "it goes on");
        }
    });
}

#[test]
fn connect_hangs_when_only_the_way_back_is_cut() {
    each_seed(async |world, server, client| {
        let accepted = Arc::new(AtomicU64::new(0));
        let counts = accepted.clone();
        serve(&world, server, move |_, _| {
            counts.fetch_add(1, Ordering::Relaxed);
            async {}
        })
        .await;
        world.add_fault(server, client, 0, Link::CUT);
        let hung = world
            .run(client, |env| async move {
                env.connect("server:80", secs(20)).await.map(drop).map_err(|e| e.kind())
            })
            .await;
        assert_eq!(hung, Err(io::ErrorKind::TimedOut));
        assert_eq!(accepted.load(Ordering::Relaxed), 0, "a half-open SYN is never accepted");
    });
}

#[test]
fn kernel_of_a_stopped_process_goes_on() {
    each_seed(async |world, server, client| {
        serve(&world, server, |_, stream| async move {
            let (mut from, mut to) = tokio::io::split(stream);
            // The client may go first.
            let _ = tokio::io::copy(&mut from, &mut to).await;
        })
        .await;
        assert!(world.pause(server) && !world.pause(server));
        let echoed = Arc::new(AtomicBool::new(false));
        let sees = echoed.clone();
        world.boot(client, |env| async move {
            let mut stream = dial(&env).await;
            stream.write_all(b"ping").await.expect("the kernel takes it");
            let mut pong = [0; 4];
            stream.read_exact(&mut pong).await.expect("the server wakes");
            sees.store(true, Ordering::Relaxed);
        });
        world.sleep(secs(20)).await;
        assert!(!echoed.load(Ordering::Relaxed), "it connects and gets no answer");
        assert!(world.resume(server) && !world.resume(server));
        world.sleep(secs(1)).await;
        assert!(echoed.load(Ordering::Relaxed));
    });
}

#[test]
fn a_dead_process_says_does_and_keeps_nothing_more() {
    each_seed(async |world, server, client| {
        let alive = Arc::new(AtomicU64::new(0));
        let counts = alive.clone();
        serve(&world, server, move |env, stream| {
            let counts = counts.clone();
            async move {
                let _stream = stream;
                loop {
                    env.sleep(Duration::from_millis(1)).await;
                    counts.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
        .await;
        world.boot(client, |env| async move {
            let _stream = dial(&env).await;
            env.sleep(LONG).await;
        });
        world.sleep(secs(1)).await;
        world.crash(server);
        let dead = alive.load(Ordering::Relaxed);
        let lines = world.log_lines().len();
        serve(&world, server, |_, _| async {}).await;
        world.sleep(secs(5)).await;
        assert_eq!(alive.load(Ordering::Relaxed), dead, "tasks of an ended life do not run");
        let said: Vec<_> = world.log_lines().split_off(lines);
        let resets = said.iter().filter(|line| line.contains("\"reset\"")).count();
        assert_eq!(resets, 0, "what an ended life drops is not closed by the next one: {said:?}");
    });
}

#[test]
fn unsynced_bytes_may_go_with_the_power_and_stay_when_a_process_ends() {
    let mut lost = 0;
    for seed in 0..8 {
        lost += simulate(setup(seed), async |world| {
            let host = world.add_host("server");
            let write = |env: Env| async move {
                let file = env.disk().open("db").expect("a disk");
                file.write_at(0, b"synced").expect("room");
                file.sync().expect("a disk");
                file.write_at(0, b"unsync").expect("room");
            };
            world.run(host, write).await;
            assert_eq!(world.read_file(host, "db").as_deref(), Some(&b"unsync"[..]));
            world.boot(host, |env| async move { env.sleep(LONG).await });
            world.crash(host);
            u32::from(world.read_file(host, "db").as_deref() == Some(&b"synced"[..]))
        });
    }
    assert!((1..8).contains(&lost), "{lost} of 8");
}

#[test]
fn each_node_sleeps_by_its_own_clock_and_a_jump_wakes_it() {
    simulate(setup(1), async |world| {
        let host = world.add_host("server");
        world.set_drift(host, 500_000_000);
        let start = world.elapsed();
        world.run(host, |env| async move { env.sleep(secs(30)).await }).await;
        let took = world.elapsed() - start;
        assert!((19..=21).contains(&took.as_secs()), "{took:?}");

        world.set_drift(host, 0);
        let woke = Arc::new(AtomicBool::new(false));
        let wakes = woke.clone();
        world.boot(host, |env| async move {
            let (mono, wall) = (env.now(), env.wall());
            env.sleep(secs(60)).await;
            assert!(env.now().since(mono) >= secs(60) && env.wall().since(wall) >= secs(59));
            wakes.store(true, Ordering::Relaxed);
        });
        world.sleep(secs(5)).await;
        world.jump_clock(host, 53_000_000_000);
        world.sleep(secs(1)).await;
        assert!(!woke.load(Ordering::Relaxed));
        world.sleep(secs(2)).await;
        assert!(woke.load(Ordering::Relaxed), "a jump of the clock is a jump of its timers");
    });
}

#[test]
fn no_two_draws_of_entropy_are_alike_and_labels_do_not_move_each_other() {
    let draw = |before: bool| {
        simulate(setup(3), async move |world| {
            let host = world.add_host("server");
            let mut seen = Vec::new();
            for _ in 0..2 {
                let draws = world
                    .run(host, move |env| async move {
                        use rand_core::Rng;
                        let word = |label: &str| env.rng(label).next_u64();
                        if before {
                            word("other");
                        }
                        [word("key"), word("key")]
                    })
                    .await;
                seen.extend(draws);
            }
            seen
        })
    };
    let seen = draw(false);
    assert_eq!(seen, draw(true));
    let mut unique = seen.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), 4, "not even across restarts");
}

#[test]
fn one_seed_gives_one_log() {
    let log = |seed| {
        simulate(setup(seed), async |world| {
            let (server, client) = (world.add_host("server"), world.add_host("client"));
            serve(&world, server, |_, stream| async move {
                let (mut from, mut to) = tokio::io::split(stream);
                // The client may go first.
                let _ = tokio::io::copy(&mut from, &mut to).await;
            })
            .await;
            world
                .run(client, |env| async move {
                    for _ in 0..20 {
                        let mut stream = dial(&env).await;
                        stream.write_all(&pattern(5_000)).await.expect("the server stays");
                        let mut echoed = vec![0; 5_000];
                        stream.read_exact(&mut echoed).await.expect("the server stays");
                    }
                })
                .await;
            (world.log_lines(), world.digest())
        })
    };
    assert_eq!(log(1), log(1));
    assert_ne!(log(1).1, log(2).1);
}

#[test]
fn the_simulated_world_does_all_that_every_world_must() {
    for check in contract::CHECKS {
        for seed in 0..4 {
            simulate(setup(seed), async |world| {
                let (left, right) = (world.add_host("left"), world.add_host("right"));
                let right = world.idle(right).await;
                world
                    .run(left, |left| async move {
                        let right_host = "right".to_owned();
                        check.run(&contract::Lab { left, right, right_host }).await;
                    })
                    .await;
            });
        }
    }
}
