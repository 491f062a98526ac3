//! Connections of a node to the store: who waits for one, how long, and which are used again.

use chatchat::store::OpReply;

use super::*;

/// Returns the number of nodes that the store has on its deny list.
fn denied(store: &StoreHost, world: &World, at: HostId) -> usize {
    match store.apply(&Op::Admission, world.wall(at).ms) {
        Ok(OpReply::Admission(lists)) => lists.denied.len(),
        other => panic!("{other:?}"),
    }
}

fn is_about(limit: Duration, took: Duration) -> bool {
    took >= limit && took < limit + limit / 10
}

#[test]
fn connection_whose_first_caller_gave_up_while_it_was_made_serves_the_next_one() {
    simulate(Setup::new(12), async |world| {
        let (store, at) = stored(&world);
        let asker = world.add_host("asker");
        world.sleep(SECOND).await;
        // Its first frame comes after 600 ms, and the first answer after 900.
        let slow = Link { cut: false, delay_ns: 150_000_000, ..Link::CUT };
        for (from, to) in [(at, asker), (asker, at)] {
            world.add_fault(from, to, 0, slow);
        }
        let (first, took, second) = ask(&world, asker, |env, remote| async move {
            let start = env.now();
            let first = remote.call(deny(1)).await.map(drop);
            let took = env.now().since(start);
            (first, took, remote.call(deny(2)).await.map(drop))
        })
        .await;
        let why = first.expect_err("its answer comes too late").away_reason();
        assert_eq!(why, Some(AwayReason::NoAnswer));
        assert!(is_about(TIMEOUT, took), "{took:?}");
        assert_eq!(second, Ok(()));
        assert_eq!(denied(&store, &world, at), 2, "the first one was written, too");
        assert_eq!(made(&world), 1);
    });
}

#[test]
fn connection_to_a_host_that_stands_still_is_waited_for_for_three_seconds() {
    for (stands_ms, connections) in [(2500, 1), (3500, 2)] {
        simulate(Setup::new(13), async |world| {
            let (_, at) = stored(&world);
            let asker = world.add_host("asker");
            world.sleep(SECOND).await;
            let (outage, stands) = (world.clone(), Duration::from_millis(stands_ms));
            let (answers, took) = ask(&world, asker, move |env, remote| async move {
                outage.pause(at);
                let start = env.now();
                let first = remote.call(deny(1)).await.is_ok();
                let took = env.now().since(start);
                env.sleep(stands.saturating_sub(took)).await;
                outage.resume(at);
                ([first, remote.call(deny(2)).await.is_ok()], took)
            })
            .await;
            assert_eq!(answers, [false, true]);
            assert!(is_about(TIMEOUT, took), "{took:?}");
            assert_eq!(made(&world), connections, "after {stands_ms} ms");
        });
    }
}

#[test]
fn connection_on_which_a_call_is_overdue_is_not_used_again() {
    // Whoever called gave up after 100 ms, so that nobody notices when it is overdue.
    for (cut_ms, connections) in [(200, 1), (900, 2)] {
        simulate(Setup::new(14), async |world| {
            let (_, at) = stored(&world);
            let asker = world.add_host("asker");
            world.sleep(SECOND).await;
            let (cut, healed) = (world.clone(), Duration::from_millis(cut_ms));
            let answers = ask(&world, asker, move |env, remote| async move {
                let first = remote.call(deny(1)).await.is_ok();
                cut.add_fault(at, asker, 0, Link::CUT);
                let patience = Duration::from_millis(100);
                let given_up = env.timeout(patience, remote.call(deny(2))).await.is_err();
                env.sleep(healed.saturating_sub(patience)).await;
                cut.remove_fault(at, asker, 0);
                [first, given_up, remote.call(deny(3)).await.is_ok()]
            })
            .await;
            assert_eq!(answers, [true; 3]);
            assert_eq!(made(&world), connections, "after {cut_ms} ms");
        });
    }
}

#[test]
fn call_is_told_why_there_is_no_connection_once_that_is_known() {
    simulate(Setup::new(15), async |world| {
        let (store, at) = stored(&world);
        let asker = world.add_host("asker");
        world.sleep(SECOND).await;
        world.crash(at);
        let outage = world.clone();
        let (reasons, back) = ask(&world, asker, move |env, remote| async move {
            let mut reasons = Vec::new();
            for pause in [Duration::ZERO, 3 * SECOND, Duration::ZERO] {
                env.sleep(pause).await;
                let failed = remote.call(deny(1)).await.expect_err("it has no power");
                reasons.extend(failed.away_reason());
            }
            boot(&outage, &store, at);
            env.sleep(3 * SECOND).await;
            (reasons, remote.call(deny(1)).await.is_ok())
        })
        .await;
        let (unknown, known) = (AwayReason::NoAnswer, AwayReason::Unreachable);
        assert_eq!(reasons, [unknown, known, known]);
        assert!(back);
    });
}
