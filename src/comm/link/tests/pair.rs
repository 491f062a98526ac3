//! Two links that both keep to the protocol.

use futures_util::FutureExt;

use super::*;
use crate::wire::FRAME_LEN_MAX;

#[test]
fn call_is_answered_and_answers_may_come_in_any_order() {
    run(async |env| {
        let ((near, _near), (_far, mut far_events)) = pair(&env, &small());
        let calls = async { tokio::join!(near.call(echo(1), SECOND), near.call(echo(2), SECOND)) };
        let answers = async {
            let (first, first_reply) = next_request(&mut far_events).await;
            let (second, second_reply) = next_request(&mut far_events).await;
            assert_eq!((first, second), (echo(1), echo(2)));
            assert_eq!(second_reply.send(&Response::Echo(vec![2])), Ok(()));
            assert_eq!(first_reply.send(&Response::Echo(vec![1])), Ok(()));
        };
        let ((one, two), ()) = tokio::join!(calls, answers);
        assert_eq!((one, two), (Ok(Response::Echo(vec![1])), Ok(Response::Echo(vec![2]))));
    });
}

#[test]
fn unanswered_call_times_out_and_is_cancelled_and_a_late_answer_is_ignored() {
    run(async |env| {
        let ((near, _near), (_far, mut far_events)) = pair(&env, &small());
        let before = env.now();
        let (answer, (_, reply)) =
            tokio::join!(near.call(echo(1), SECOND), next_request(&mut far_events));
        assert_eq!(answer, Err(CallError::TimedOut));
        assert_eq!(env.now().since(before), SECOND);
        assert_eq!(reply.deadline(), before + SECOND);
        env.sleep(SECOND).await;
        assert!(reply.is_cancelled());
        assert_eq!(reply.send(&Response::NotServed), Err(SendError::Unwanted));
        // The link still works.
        let (answer, ()) = tokio::join!(near.call(echo(2), SECOND), async {
            let (_, reply) = next_request(&mut far_events).await;
            assert_eq!(reply.send(&Response::Echo(vec![2])), Ok(()));
        });
        assert_eq!(answer, Ok(Response::Echo(vec![2])));
    });
}

#[test]
fn calls_beyond_the_bound_are_refused_at_once_and_room_comes_back() {
    run(async |env| {
        let ((near, _near), (_far, mut far_events)) = pair(&env, &small());
        let calls = (0..5).map(|n| near.call(echo(n), SECOND));
        let all = futures_util::future::join_all(calls);
        let (answers, replies) = tokio::join!(all, async {
            let mut replies = Vec::new();
            for _ in 0..4 {
                replies.push(next_request(&mut far_events).await.1);
            }
            replies
        });
        let full = answers.iter().filter(|answer| **answer == Err(CallError::Full)).count();
        assert_eq!((full, answers[4].clone()), (1, Err(CallError::Full)));
        assert!(CallError::Full.nothing_was_done());
        // All timed out: the caller counts no call under way, even without an answer. The other end
        // does until its handlers have ended.
        assert_eq!(near.call(echo(8), SECOND).await, Err(CallError::TimedOut));
        drop(replies);
        let again =
            async { tokio::join!(near.call(echo(9), SECOND), next_request(&mut far_events)) };
        let (_, (request, _)) = again.await;
        assert_eq!(request, echo(9));
    });
}

#[test]
fn full_queue_refuses_messages_and_the_queued_ones_arrive_in_order() {
    run(async |env| {
        let ((near, _near), (_far, mut far_events)) = pair(&env, &small());
        // The link's task has not run yet, so nothing is sent meanwhile.
        for n in 0..8 {
            assert_eq!(near.send(&digest(n)), Ok(()));
        }
        assert_eq!(near.send(&digest(8)), Err(SendError::Full));
        assert_eq!(near.publish(Bytes::from_static(b"x")), Err(SendError::Full));
        assert_eq!(near.call(echo(1), SECOND).await, Err(CallError::Full));
        for n in 0..8 {
            assert!(
                matches!(next(&mut far_events).await, Incoming::Direct(got) if got == digest(n))
            );
        }
        assert_eq!(near.send(&digest(9)), Ok(()));
    });
}

#[test]
fn queued_bytes_are_bounded() {
    run(async |env| {
        let limits = LinkLimits { outgoing_bytes_max: FRAME_LEN_MAX, ..LinkLimits::default() };
        let ((near, _near), _far) = pair(&env, &limits);
        let third = Bytes::from(vec![0; FRAME_LEN_MAX / 3]);
        for _ in 0..3 {
            assert_eq!(near.publish(third.clone()), Ok(()));
        }
        assert_eq!(near.publish(third.clone()), Err(SendError::Full));
        let long = Bytes::from(vec![0; FRAME_LEN_MAX]);
        assert!(matches!(near.publish(long), Err(SendError::TooLong(_))));
    });
}

#[test]
fn envelope_arrives_unchanged_and_subscriptions_are_remembered() {
    run(async |env| {
        let ((near, _near), (far, mut far_events)) = pair(&env, &small());
        assert_eq!(near.subscribe(&[Topic::Board, Topic::Keys]), Ok(()));
        let long = Bytes::from(vec![7; 300_000]);
        assert_eq!(near.publish(long.clone()), Ok(()));
        assert!(matches!(next(&mut far_events).await, Incoming::Subscribed(topics)
            if topics == [Topic::Board, Topic::Keys]));
        assert!(matches!(next(&mut far_events).await, Incoming::Envelope(got) if got == long));
        assert!(far.wants(Topic::Board) && far.wants(Topic::Keys) && !far.wants(Topic::Session));
    });
}

#[test]
fn heartbeats_keep_an_idle_link_alive_and_tell_changes_at_once() {
    run(async |env| {
        let ((near, mut near_events), (_far, mut far_events)) = pair(&env, &small());
        let first = far_events.recv().await;
        assert!(matches!(first, Some((LinkId(2), Incoming::Beat(Beat { reaches_store: false })))));
        env.sleep(3600 * SECOND).await;
        assert!(near.is_open());
        let before = env.now();
        near.beat(Beat { reaches_store: true });
        let changed = far_events.recv().await;
        assert!(matches!(changed, Some((_, Incoming::Beat(Beat { reaches_store: true })))));
        assert_eq!(env.now(), before);
        // An hour of equal heartbeats is one event.
        near_events.recv().await.expect("the first beat");
        assert!(near_events.try_recv().is_err());
    });
}

#[test]
fn close_comes_after_all_that_was_queued_and_ends_both() {
    run(async |env| {
        let ((near, mut near_events), (far, mut far_events)) = pair(&env, &small());
        for n in 0..5 {
            assert_eq!(near.send(&digest(n)), Ok(()));
        }
        near.close(BYE);
        near.close(Close { reason: CloseReason::Full, retry_ms: 0 });
        assert_eq!(near.send(&digest(9)), Err(SendError::Closed));
        assert_eq!(near.call(echo(1), SECOND).await, Err(CallError::Closed));
        let before = env.now();
        for _ in 0..5 {
            assert!(matches!(next(&mut far_events).await, Incoming::Direct(_)));
        }
        assert_eq!(end(&mut far_events).await, LinkEnd::ClosedByPeer(BYE));
        assert_eq!(end(&mut near_events).await, LinkEnd::Closed(BYE));
        assert_eq!(env.now(), before, "nobody waited for a time-out");
        assert!(!far.is_open());
        assert!(far_events.recv().await.is_none() && near_events.recv().await.is_none());
    });
}

#[test]
fn close_is_sent_after_its_link_is_dropped_and_a_drop_alone_is_a_break() {
    run(async |env| {
        let ((near, _near), (_far, mut far_events)) = pair(&env, &small());
        near.close(BYE);
        drop(near);
        assert_eq!(end(&mut far_events).await, LinkEnd::ClosedByPeer(BYE));

        // Also while the close is already queued behind data that the peer takes slowly.
        let limits = LinkLimits { close_timeout: 60 * SECOND, ..small() };
        let ((near, _near), (_far, mut far_events)) = pair(&env, &limits);
        for _ in 0..8 {
            assert_eq!(near.publish(vec![1; ROOM].into()), Ok(()));
        }
        near.close(BYE);
        assert!(matches!(next(&mut far_events).await, Incoming::Envelope(_)));
        drop(near);
        assert_eq!(end(&mut far_events).await, LinkEnd::ClosedByPeer(BYE));

        let ((near, _near), (_far, mut far_events)) = pair(&env, &small());
        let other = near.clone();
        drop(near);
        env.sleep(10 * SECOND).await;
        assert!(other.is_open());
        drop(other);
        assert!(matches!(end(&mut far_events).await, LinkEnd::Broken(_)));
    });
}

#[test]
fn sent_call_is_lost_with_its_link_and_an_unsent_one_was_not_made() {
    run(async |env| {
        let ((near, _near), (far, mut far_events)) = pair(&env, &small());
        let (answer, ()) = tokio::join!(near.call(echo(1), SECOND), async {
            let (_, reply) = next_request(&mut far_events).await;
            far.close(BYE);
            assert_eq!(reply.send(&Response::NotServed), Err(SendError::Closed));
        });
        assert_eq!(answer, Err(CallError::Lost));
        assert!(!CallError::Lost.nothing_was_done());

        // This pipe has almost no room: the call waits behind the first heartbeat.
        let (secured, _held) = secured_pair(1);
        let (near, _near) = start(&env, 3, secured, small());
        env.sleep(SECOND).await;
        assert_eq!(near.call(echo(1), 60 * SECOND).await, Err(CallError::Closed));
    });
}

#[test]
fn unsent_call_that_is_given_up_is_never_sent() {
    run(async |env| {
        let ((near, _near), (_far, mut far_events)) = pair(&env, &small());
        let mut call = Box::pin(near.call(echo(1), SECOND));
        assert!((&mut call).now_or_never().is_none());
        drop(call);
        assert_eq!(near.send(&digest(1)), Ok(()));
        assert!(matches!(next(&mut far_events).await, Incoming::Direct(_)));
    });
}

#[test]
fn slow_node_slows_its_peer_and_loses_nothing_while_heartbeats_continue() {
    run(async |env| {
        let limits = LinkLimits { stall_timeout: 3600 * SECOND, ..LinkLimits::default() };
        let ((near, mut near_events), (far, mut far_events)) = pair(&env, &limits);
        let mut sent = 0;
        let piece = Bytes::from(vec![1; 32 * 1024]);
        for _ in 0..100 {
            while near.publish(piece.clone()).is_ok() {
                sent += 1;
            }
            env.sleep(SECOND).await;
        }
        // The far node took no event: what near sends reaches nobody, but far can still send.
        assert!(near.is_open() && far.is_open());
        far.beat(Beat { reaches_store: true });
        loop {
            let (_, event) = near_events.recv().await.expect("open");
            if matches!(event, Incoming::Beat(Beat { reaches_store: true })) {
                break;
            }
        }
        for _ in 0..sent {
            assert!(matches!(next(&mut far_events).await, Incoming::Envelope(_)));
        }
        assert!(near.is_open() && far.is_open());
    });
}

#[test]
fn keys_change_over_a_day_without_loss() {
    run(async |env| {
        let ((near, _near), (_far, mut far_events)) = pair(&env, &small());
        for n in 0..24 {
            env.sleep(3600 * SECOND).await;
            assert_eq!(near.send(&digest(n)), Ok(()));
            assert!(matches!(next(&mut far_events).await, Incoming::Direct(_)));
        }
    });
}

#[test]
fn batch_has_room_that_calls_and_messages_of_other_kinds_cannot_fill() {
    run(async |env| {
        let limits = LinkLimits { outgoing_frames_max: 8, ..LinkLimits::default() };
        let ((near, _near), (_far, mut far_events)) = pair(&env, &limits);
        for n in 0..8 {
            assert_eq!(near.send(&digest(n)), Ok(()));
        }
        assert_eq!(near.call(echo(1), SECOND).await, Err(CallError::Full));
        let assign = Request::Assign(vec![Assign {
            registration: Registration(1),
            permission: Permission {
                resource: Resource::Board(BoardName::lobby()),
                token: Token::default(),
                after: None,
                worker: NodeId([2; 16]),
            },
            tasks: vec![Task::CreateBoard { board: BoardName::lobby() }].into(),
        }]);
        let (answer, ()) = tokio::join!(near.call(assign, SECOND), async {
            while !matches!(next(&mut far_events).await, Incoming::Request { .. }) {}
        });
        assert_eq!(answer, Err(CallError::TimedOut), "it arrived");
        // Calls of other kinds leave it places among those under way, too.
        let mut calls: Vec<_> = (0..2000).map(|_| Box::pin(near.call(echo(2), SECOND))).collect();
        let mut full = 0;
        for call in &mut calls {
            if futures_util::FutureExt::now_or_never(call) == Some(Err(CallError::Full)) {
                full += 1;
            }
        }
        assert!(full > 0, "they are bounded");
    });
}

#[test]
fn link_falls_silent_when_the_driver_of_its_node_hangs() {
    run(async |env| {
        let driver = DriverStamp::default();
        let (near, far) = secured_pair(ROOM);
        let (_near, _near_events) = start_driven(&env, 1, near, small(), driver.clone());
        let (far, mut far_events) = start(&env, 2, far, small());
        for _ in 0..100 {
            driver.set(env.now());
            env.sleep(SECOND / 2).await;
        }
        assert!(far.is_open(), "it made progress");
        let hung_at = env.now();
        assert_eq!(end(&mut far_events).await, LinkEnd::Silent);
        assert!(env.now().since(hung_at) <= 2 * small().silence());
    });
}

/// Has the driver of some nodes take its turns for so many seconds.
async fn turns(env: &Env, driver: &DriverStamp, seconds: u32) {
    for _ in 0..4 * seconds {
        driver.set(env.now());
        env.sleep(SECOND / 4).await;
    }
}

#[test]
fn link_of_two_nodes_that_stood_still_together_goes_on() {
    for tenths in [11, 13, 16, 21, 50, 600] {
        run(async |env| {
            let (near, far) = secured_pair(ROOM);
            let driver = DriverStamp::default();
            let (near, mut near_events) = start_driven(&env, 1, near, small(), driver.clone());
            let (far, mut far_events) = start_driven(&env, 2, far, small(), driver.clone());
            turns(&env, &driver, 10).await;
            for _ in 0..3 {
                stand_still(SECOND / 10 * tenths).await;
                // Their drivers need a moment, too.
                env.sleep(SECOND / 50).await;
                turns(&env, &driver, 5).await;
            }
            assert!(near.is_open() && far.is_open(), "{tenths} tenths");
            for events in [&mut near_events, &mut far_events] {
                while let Ok((_, event)) = events.try_recv() {
                    assert!(matches!(event, Incoming::Beat(_)), "{event:?}");
                }
            }
        });
    }
}
