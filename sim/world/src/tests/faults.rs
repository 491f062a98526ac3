//! Faults of links, disks and processors, as the nodes that they befall see them.

use dst_env::Cancelled;

use super::*;
use crate::{DiskFault, take_longer};

#[test]
fn half_open_connection_is_gone_at_one_end_and_the_other_learns_it_when_it_sends() {
    each_seed(async |world, server, client| {
        let ended = Arc::new(AtomicBool::new(false));
        let sees = ended.clone();
        serve(&world, server, move |_, mut stream| {
            let sees = sees.clone();
            async move {
                let read = stream.read(&mut [0]).await.map_err(|e| e.kind());
                assert_eq!(read, Err(io::ErrorKind::ConnectionReset));
                sees.store(true, Ordering::Relaxed);
            }
        })
        .await;
        let heard = Arc::new(Mutex::new(None));
        let hears = heard.clone();
        world.boot(client, |env| async move {
            let mut stream = dial(&env).await;
            let silent = env.timeout(secs(20), stream.read(&mut [0])).await;
            assert!(silent.is_err(), "nothing is said to this end");
            stream.write_all(b"ping").await.expect("the kernel takes it");
            let ended = stream.read(&mut [0]).await.map_err(|e| e.kind());
            *hears.lock().expect("one thread") = Some(ended);
        });
        world.sleep(secs(2)).await;
        assert_eq!(world.half_open(client, server), 1);
        world.sleep(secs(10)).await;
        assert!(ended.load(Ordering::Relaxed), "the other end is told at once");
        assert_eq!(*heard.lock().expect("one thread"), None);
        world.sleep(secs(20)).await;
        let heard = heard.lock().expect("one thread").take();
        assert_eq!(heard, Some(Err(io::ErrorKind::ConnectionReset)));
    });
}

#[test]
fn corrupted_bytes_are_as_many_and_some_differ_by_a_bit() {
    each_seed(async |world, server, client| {
        serve(&world, server, |_, stream| async move {
            let (mut from, mut to) = tokio::io::split(stream);
            tokio::io::copy(&mut from, &mut to).await.expect("the client stays");
        })
        .await;
        world.begin_corruption(client, server, 0, "corrupt", 300_000);
        let flipped = world
            .run(client, |env| async move {
                let mut stream = dial(&env).await;
                let mut flipped = 0;
                for _ in 0..100 {
                    let sent = pattern(1_000);
                    stream.write_all(&sent).await.expect("the server stays");
                    let mut echoed = vec![0; sent.len()];
                    stream.read_exact(&mut echoed).await.expect("the server stays");
                    let pairs = sent.iter().zip(&echoed);
                    flipped += pairs.map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
                }
                flipped
            })
            .await;
        assert!((10..200).contains(&flipped), "{flipped}");
        assert_eq!(world.end_corruption(client, server, 0), u64::from(flipped));
    });
}

#[test]
fn slow_sync_is_waited_for_and_a_failed_one_makes_nothing_durable() {
    each_seed(async |world, server, _| {
        let synced = |env: Env| async move {
            let start = env.now();
            let disk = env.disk();
            let job = move || {
                let file = disk.open("db")?;
                file.write_at(0, b"new")?;
                file.sync()
            };
            let done = env.compute(job).await.expect("it runs").map_err(|e| e.kind());
            (done, env.now().since(start))
        };
        let slow = DiskFault { sync_takes_ns: 3_000_000_000, ..DiskFault::default() };
        world.add_disk_fault(server, 0, "disk", slow);
        let (done, took) = world.run(server, synced).await;
        assert!(done.is_ok() && took >= secs(3) && took < secs(4), "{done:?} {took:?}");
        assert_eq!(world.remove_disk_fault(server, 0), 1);
        let syncs = world.syncs(server);
        let failing = DiskFault { sync_error_ppm: 1_000_000, ..DiskFault::default() };
        world.add_disk_fault(server, 1, "disk", failing);
        let (done, took) = world.run(server, synced).await;
        assert_eq!(done, Err(io::ErrorKind::Other));
        assert!(took < secs(1), "{took:?}");
        assert_eq!((world.syncs(server), world.remove_disk_fault(server, 1)), (syncs, 1));
    });
}

#[test]
fn full_disk_refuses_what_needs_room_and_a_rotten_one_flips_bits_of_reads() {
    each_seed(async |world, server, _| {
        world
            .run(server, |env| async move {
                env.disk().write_atomic("key", b"old").expect("room");
                env.disk().open("db").expect("a disk").write_at(0, &[0; 64]).expect("room");
            })
            .await;
        world.add_disk_fault(
            server,
            0,
            "disk",
            DiskFault { is_full: true, ..DiskFault::default() },
        );
        let kinds = world
            .run(server, |env| async move {
                let file = env.disk().open("db").expect("a disk");
                let cut = file.set_len(32).map_err(|e| e.kind());
                let grown = file.set_len(4096).map_err(|e| e.kind());
                let written = env.disk().write_atomic("key", b"new").map_err(|e| e.kind());
                (cut, grown, written)
            })
            .await;
        let full = Err(io::ErrorKind::StorageFull);
        assert_eq!(kinds, (Ok(()), full, full));
        assert_eq!(world.read_file(server, "key").as_deref(), Some(&b"old"[..]));
        assert_eq!(world.remove_disk_fault(server, 0), 2);
        world.add_disk_fault(
            server,
            1,
            "disk",
            DiskFault { rot_ppm: 1_000_000, ..DiskFault::default() },
        );
        let bits = world
            .run(server, |env| async move {
                let mut bytes = [0; 32];
                env.disk().open("db").expect("a disk").read_at(0, &mut bytes).expect("read");
                bytes.iter().map(|byte| byte.count_ones()).sum::<u32>()
            })
            .await;
        assert_eq!((bits, world.remove_disk_fault(server, 1)), (1, 1));
        assert_eq!(world.read_file(server, "db"), Some(vec![0; 32]), "the disk has it right");
    });
}

#[test]
fn draws_of_a_fault_follow_its_label_whatever_was_begun_before() {
    let flips = |label: &'static str, before: bool| {
        simulate(setup(5), move |world| async move {
            let server = world.add_host("server");
            world
                .run(server, |env| async move {
                    env.disk().open("db").expect("a disk").write_at(0, &[0; 64]).expect("room");
                })
                .await;
            let rot = DiskFault { rot_ppm: 500_000, ..DiskFault::default() };
            if before {
                world.add_disk_fault(server, 7, "before", rot);
                world.remove_disk_fault(server, 7);
            }
            world.add_disk_fault(server, 1, label, rot);
            world
                .run(server, |env| async move {
                    let file = env.disk().open("db").expect("a disk");
                    let read = |_| {
                        let mut bytes = [0; 32];
                        file.read_at(0, &mut bytes).expect("read");
                        bytes
                    };
                    (0..40).map(read).collect::<Vec<_>>()
                })
                .await
        })
    };
    let alone = flips("rot", false);
    assert_eq!(flips("rot", true), alone);
    assert_ne!(flips("other", false), alone);
}

#[test]
fn jobs_take_time_run_beside_each_other_and_go_on_when_nobody_waits() {
    each_seed(async |world, server, _| {
        let done = Arc::new(AtomicU64::new(0));
        let counts = done.clone();
        let order = Arc::new(Mutex::new(Vec::new()));
        let (first, second) = (order.clone(), order.clone());
        world.boot(server, |env| async move {
            let start = env.now();
            for nth in 0..200 {
                let order = first.clone();
                let job = move || order.lock().expect("one thread").push(nth);
                let counts = counts.clone();
                let of_job = env.clone();
                env.spawn("ask", async move {
                    of_job.compute(job).await.expect("it runs");
                    counts.fetch_add(1, Ordering::Relaxed);
                });
            }
            let given_up = env.timeout(Duration::from_nanos(1), env.compute(move || 1)).await;
            assert!(given_up.is_err(), "a job takes time");
            let job = move || second.lock().expect("one thread").push(1000);
            let given_up = env.timeout(Duration::from_nanos(1), env.compute(job)).await;
            assert!(given_up.is_err());
            env.sleep(Duration::from_millis(20)).await;
            assert!(env.now().since(start) < Duration::from_millis(40));
            env.sleep(LONG).await;
        });
        world.sleep(secs(1)).await;
        let order = order.lock().expect("one thread").clone();
        assert_eq!((order.len(), done.load(Ordering::Relaxed)), (201, 200));
        assert!(order.contains(&1000), "it went on without its asker");
        assert!(!order.is_sorted(), "they run beside each other");
    });
}

#[test]
fn job_dies_with_its_process_and_never_half_done() {
    let mut cut_off = 0;
    for seed in 0..40 {
        cut_off += simulate(setup(seed), async |world| {
            let host = world.add_host("server");
            world.slow_down(host, 0, 10_000);
            world.boot(host, |env| async move {
                let disk = env.disk();
                let write = move || disk.write_atomic("done", b"whole").expect("room");
                let done: Result<(), Cancelled> = env.compute(write).await;
                done.expect("it runs");
                env.disk().write_atomic("told", b"").expect("room");
            });
            // The harness cannot wait for less than a millisecond: hence a slow machine.
            world.sleep(Duration::from_millis(1)).await;
            world.crash(host);
            let (done, told) = (world.read_file(host, "done"), world.read_file(host, "told"));
            assert!(done.is_some() || told.is_none());
            u32::from(done.is_some() && told.is_none())
        });
    }
    assert!(cut_off > 0, "no job was cut off between its effect and its result");
}

#[test]
fn job_that_asks_for_more_time_is_slow_only_while_its_machine_is() {
    each_seed(async |world, server, _| {
        let heavy = |env: Env| async move {
            let start = env.now();
            let job = || take_longer(Duration::from_millis(100));
            env.compute(job).await.expect("it runs");
            env.now().since(start)
        };
        let took = world.run(server, heavy).await;
        let usual = Duration::from_millis(100)..Duration::from_millis(110);
        assert!(usual.contains(&took), "{took:?}");
        world.slow_down(server, 7, 200_000);
        let ended = Arc::new(Mutex::new(None));
        let tells = ended.clone();
        world.boot(server, |env| async move {
            let took = heavy(env.clone()).await;
            *tells.lock().expect("one thread") = Some(took);
            env.sleep(LONG).await;
        });
        world.sleep(secs(2)).await;
        assert_eq!(*ended.lock().expect("one thread"), None, "20 s at this speed");
        assert!(world.speed_up(server, 7) > 0);
        world.sleep(secs(3)).await;
        let took = ended.lock().expect("one thread").take();
        assert!(took.is_some_and(|took| took > secs(2)), "{took:?}");
    });
}

#[test]
fn slow_machine_makes_few_steps_and_is_itself_again_afterwards() {
    each_seed(async |world, server, _| {
        let steps = Arc::new(AtomicU64::new(0));
        let counts = steps.clone();
        world.boot(server, |env| async move {
            for _ in 0..4 {
                let (env_of, counts) = (env.clone(), counts.clone());
                env.spawn("steps", async move {
                    loop {
                        env_of.sleep(Duration::from_millis(1)).await;
                        counts.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            env.sleep(LONG).await;
        });
        let in_a_second = async || {
            let before = steps.load(Ordering::Relaxed);
            world.sleep(secs(1)).await;
            steps.load(Ordering::Relaxed) - before
        };
        assert!(in_a_second().await > 3000);
        world.slow_down(server, 7, 1_000_000);
        let slow = in_a_second().await;
        assert!((50..110).contains(&slow), "{slow} steps of 10 ms");
        assert!(world.speed_up(server, 7) > 0);
        assert!(in_a_second().await > 2900);
    });
}

#[test]
fn process_without_room_for_files_refuses_connects_and_leaves_peers_waiting() {
    each_seed(async |world, server, client| {
        let accepted = Arc::new(AtomicU64::new(0));
        let refused = Arc::new(AtomicU64::new(0));
        let (counts, fails) = (accepted.clone(), refused.clone());
        world.boot(server, |env| async move {
            let mut listener = env.listen("0.0.0.0:80").await.expect("the port is free");
            let mut held = Vec::new();
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        counts.fetch_add(1, Ordering::Relaxed);
                        held.push(stream);
                    }
                    Err(_) => {
                        fails.fetch_add(1, Ordering::Relaxed);
                        env.sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        world.bound_fds(server, 0, 3);
        world.boot(client, |env| async move {
            let mut held = Vec::new();
            for _ in 0..5 {
                held.push(dial(&env).await);
            }
            env.sleep(LONG).await;
        });
        world.sleep(secs(1)).await;
        assert_eq!(accepted.load(Ordering::Relaxed), 3, "the kernel connects, nobody accepts");
        assert!(refused.load(Ordering::Relaxed) > 5);
        assert!(world.unbound_fds(server, 0) > 5);
        world.sleep(secs(1)).await;
        assert_eq!(accepted.load(Ordering::Relaxed), 5, "they waited");
        world.bound_fds(client, 1, 5);
        world.exit(client);
        let dialled = world
            .run(client, |env| async move {
                let mut held = Vec::new();
                loop {
                    match env.connect("server:80", secs(5)).await {
                        Ok(stream) => held.push(stream),
                        Err(why) => return (held.len(), why.raw_os_error()),
                    }
                }
            })
            .await;
        assert_eq!(dialled, (5, Some(24)));
    });
}

#[test]
fn two_reads_of_a_clock_in_one_step_differ_and_never_go_back() {
    each_seed(async |world, server, _| {
        let (reads, walls) = world
            .run(server, |env| async move {
                let mut reads = Vec::new();
                let mut walls = Vec::new();
                for _ in 0..500 {
                    reads.extend((0..10).map(|_| env.now()));
                    walls.push((env.wall(), env.wall()));
                    env.sleep(Duration::from_micros(300)).await;
                }
                (reads, walls)
            })
            .await;
        assert!(reads.is_sorted());
        assert!(reads.windows(2).filter(|pair| pair[0] < pair[1]).count() > 4000);
        assert!(walls.iter().all(|(one, other)| one <= other));
        let took = reads[reads.len() - 1].since(reads[0]);
        assert!(took < Duration::from_millis(180), "reads do not move time: {took:?}");
    });
}
