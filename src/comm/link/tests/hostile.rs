//! Links with a peer that breaks off, falls silent, or violates the protocol.

use super::*;

fn violation(end: LinkEnd) -> String {
    match end {
        LinkEnd::Violation(why) => why,
        other => panic!("want a violation, got {other:?}"),
    }
}

/// Returns the violation that the link reports after the peer does this; checks that the peer
/// receives it as a close.
fn violation_after(act: impl AsyncFnOnce(&mut Raw)) -> String {
    run(async |env| {
        let (link, mut events, mut peer) = raw(&env, small());
        act(&mut peer).await;
        let closed = async move {
            loop {
                if let Err(close) = peer.receive().await {
                    break close;
                }
            }
        };
        let (why, close) = tokio::join!(end(&mut events), closed);
        assert_eq!(close, Close { reason: CloseReason::Violation, retry_ms: 0 });
        assert!(!link.is_open());
        violation(why)
    })
}

#[test]
fn garbled_record_ends_the_link() {
    let why = violation_after(async |peer| {
        let mut record = peer.record(&digest_frame());
        record[HEADER_LEN + 2] ^= 1;
        peer.write(&record).await;
    });
    assert!(why.contains("authentication"), "{why}");
}

#[test]
fn replayed_record_ends_the_link() {
    let why = violation_after(async |peer| {
        let record = peer.record(&digest_frame());
        peer.write(&record).await;
        peer.write(&record).await;
    });
    assert!(why.contains("authentication"), "{why}");
}

#[test]
fn record_over_the_bound_ends_the_link_unread() {
    let why = violation_after(async |peer| {
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        header[4] = 1;
        peer.write(&header).await;
    });
    assert!(why.contains("over the bound"), "{why}");
}

#[test]
fn unknown_frame_and_unknown_message_end_the_link() {
    let why = violation_after(async |peer| {
        let record = peer.record(&[99, 1, 2, 3]);
        peer.write(&record).await;
    });
    assert_eq!(why, "unknown frame kind 99");
    let why = violation_after(async |peer| {
        // A direct message with a number that no version uses.
        let record = peer.record(&[4, 250]);
        peer.write(&record).await;
    });
    assert!(why.contains("direct message"), "{why}");
    let why = violation_after(async |peer| {
        let record = peer.record(&[]);
        peer.write(&record).await;
    });
    assert_eq!(why, "the frame is cut short");
}

#[test]
fn invalid_call_ids_end_the_link() {
    let ask = |id| Frame::Request { id, deadline_ms: 5, request: echo(1) };
    let why = violation_after(async |peer| {
        peer.send(&ask(7)).await;
        peer.send(&ask(7)).await;
    });
    assert_eq!(why, "call 7 after call 7");
    let why = violation_after(async |peer| {
        for id in 1..=5 {
            peer.send(&ask(id)).await;
        }
    });
    assert_eq!(why, "more than 4 calls at once");
    let why = violation_after(async |peer| {
        peer.send(&Frame::Response { id: 1, response: Response::NotServed }).await;
    });
    assert_eq!(why, "a response to call 1, which was never made");
    let why = violation_after(async |peer| peer.send(&Frame::Cancel { id: 1 }).await);
    assert_eq!(why, "a cancel of call 1, which was never made");
}

#[test]
fn call_that_was_given_up_keeps_its_place_until_its_handler_ends() {
    run(async |env| {
        let (_link, mut events, mut peer) = raw(&env, small());
        let ask = |id| Frame::Request { id, deadline_ms: 5, request: echo(1) };
        let mut handlers = Vec::new();
        for id in 1..=4 {
            peer.send(&ask(id)).await;
            peer.send(&Frame::Cancel { id }).await;
            handlers.push(next_request(&mut events).await.1);
        }
        peer.send(&ask(5)).await;
        peer.send(&Frame::Direct(digest(1))).await;
        assert!(matches!(next(&mut events).await, Incoming::Direct(_)), "a fifth handler began");
        assert!(handlers.iter().all(Responder::is_cancelled));
        drop(handlers.pop());
        peer.send(&Frame::Cancel { id: 5 }).await;
        peer.send(&ask(6)).await;
        assert!(!next_request(&mut events).await.1.is_cancelled(), "one handler has ended");
    });
}

#[test]
fn malformed_close_ends_the_link() {
    let why = violation_after(async |peer| {
        let mut out = Vec::new();
        peer.sealer.seal(RecordKind::Close, &[77], &mut out).expect("short");
        peer.write(&out).await;
    });
    assert!(why.starts_with("close: "), "{why}");
}

#[test]
fn late_and_repeated_answers_are_ignored() {
    run(async |env| {
        let (link, mut events, mut peer) = raw(&env, small());
        let answer = |id| Frame::Response { id, response: Response::Echo(vec![id as u8]) };
        let (first, ()) = tokio::join!(link.call(echo(1), SECOND), async {
            assert!(matches!(peer.receive().await, Ok(Frame::Request { id: 1, .. })));
            assert_eq!(peer.receive().await, Ok(Frame::Cancel { id: 1 }));
            peer.send(&answer(1)).await;
        });
        assert_eq!(first, Err(CallError::TimedOut));
        let (second, ()) = tokio::join!(link.call(echo(2), SECOND), async {
            assert!(matches!(peer.receive().await, Ok(Frame::Request { id: 2, .. })));
            peer.send(&answer(2)).await;
            peer.send(&answer(2)).await;
        });
        assert_eq!(second, Ok(Response::Echo(vec![2])));
        peer.send(&Frame::Direct(digest(1))).await;
        assert!(matches!(next(&mut events).await, Incoming::Direct(_)));
    });
}

#[test]
fn peer_without_a_byte_becomes_silent_in_time() {
    run(async |env| {
        let (_link, mut events, mut peer) = raw(&env, small());
        env.sleep(SECOND).await;
        peer.send(&Frame::Beat(Beat { reaches_store: true })).await;
        let last_byte = env.now();
        assert_eq!(end(&mut events).await, LinkEnd::Silent);
        assert_eq!(env.now().since(last_byte), small().silence());
    });
}

#[test]
fn peer_that_went_while_its_node_stood_still_is_found_in_time() {
    run(async |env| {
        let (_link, mut events, peer) = raw(&env, small());
        env.sleep(SECOND).await;
        drop(peer);
        let before = env.now();
        stand_still(5 * SECOND).await;
        assert!(matches!(end(&mut events).await, LinkEnd::Broken(_)));
        assert!(env.now().since(before) < 6 * SECOND, "its end is heard at once");
    });
    for further in [0, 20] {
        run(async |env| {
            // It is gone without a word.
            let (_link, mut events, _peer) = raw(&env, small());
            env.sleep(SECOND).await;
            stand_still(5 * SECOND).await;
            let woken_at = env.now();
            let standstills = async {
                for _ in 0..further {
                    env.sleep(SECOND / 10).await;
                    stand_still(SECOND).await;
                }
            };
            let heard = async {
                let end = end(&mut events).await;
                (end, env.now().since(woken_at))
            };
            let ((end, after), ()) = tokio::join!(heard, standstills);
            assert_eq!(end, LinkEnd::Silent, "{further} more");
            assert!(after <= 2 * small().silence(), "{further} more: {after:?}");
        });
    }
}

#[test]
fn slow_long_record_is_not_silence_but_an_endless_one_is_broken() {
    run(async |env| {
        let (_link, mut events, mut peer) = raw(&env, small());
        let frame = Frame::Publish(vec![1; 10_000].into()).encode().expect("below the bound");
        let record = peer.record(&frame);
        for piece in record.chunks(1024) {
            peer.write(piece).await;
            env.sleep(SECOND).await;
        }
        assert!(matches!(next(&mut events).await, Incoming::Envelope(_)));
        let record = peer.record(&frame);
        let trickle = async {
            for piece in record.chunks(1) {
                peer.write(piece).await;
                env.sleep(SECOND).await;
            }
        };
        tokio::select! {
            biased;
            end = end(&mut events) => {
                assert_eq!(end, LinkEnd::Broken("a record was never finished".to_owned()));
            }
            () = trickle => panic!("the link did not end"),
        }
    });
}

#[test]
fn end_without_a_close_is_broken_even_if_only_half_closed() {
    run(async |env| {
        let (_link, mut events, peer) = raw(&env, small());
        drop(peer);
        let why = "the stream ended without a close".to_owned();
        assert_eq!(end(&mut events).await, LinkEnd::Broken(why.clone()));

        let (link, mut events, mut peer) = raw(&env, small());
        peer.stream.shutdown().await.expect("open");
        assert_eq!(end(&mut events).await, LinkEnd::Broken(why));
        assert_eq!(link.send(&digest(1)), Err(SendError::Closed));
        // The link's own end is closed too.
        let mut rest = Vec::new();
        peer.stream.read_to_end(&mut rest).await.expect("an end");
    });
}

#[test]
fn peer_that_never_reads_ends_the_link() {
    run(async |env| {
        let (link, mut events, mut peer) = raw(&env, small());
        let begin = env.now();
        let piece = Bytes::from(vec![1; ROOM]);
        while link.publish(piece.clone()).is_ok() {}
        let talks = async {
            loop {
                // The peer sends all the time but never reads.
                peer.send(&Frame::Beat(Beat { reaches_store: true })).await;
                env.sleep(SECOND / 4).await;
            }
        };
        tokio::select! {
            biased;
            end = end(&mut events) => {
                let why = "the peer does not take what is sent".to_owned();
                assert_eq!(end, LinkEnd::Broken(why));
            }
            () = talks => {}
        }
        assert!(env.now().since(begin) <= small().stall_timeout + small().silence());
    });
}

#[test]
fn close_does_not_wait_for_a_peer_that_never_reads() {
    run(async |env| {
        let (secured, _held) = secured_pair(1);
        let (link, mut events) = start(&env, 1, secured, small());
        env.sleep(SECOND / 10).await;
        let begin = env.now();
        link.close(BYE);
        assert_eq!(end(&mut events).await, LinkEnd::Closed(BYE));
        assert_eq!(env.now().since(begin), 2 * small().close_timeout);
    });
}

#[test]
fn link_ends_when_its_node_is_gone() {
    run(async |env| {
        let (_link, events, mut peer) = raw(&env, small());
        drop(events);
        peer.send(&Frame::Direct(digest(1))).await;
        let mut rest = Vec::new();
        peer.stream.read_to_end(&mut rest).await.expect("an end");
    });
}

mod garbage {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Garbage, sealed or not, ends the link and nothing else.
        #[test]
        fn garbage_ends_the_link_and_nothing_else(
            bytes in proptest::collection::vec(any::<u8>(), 5..400),
            sealed in any::<bool>(),
        ) {
            run(async |env| {
                let (_link, mut events, mut peer) = raw(&env, small());
                if sealed {
                    let record = peer.record(&bytes);
                    peer.write(&record).await;
                } else {
                    peer.write(&bytes).await;
                }
                drop(peer);
                let end = end(&mut events).await;
                assert!(matches!(end, LinkEnd::Violation(_) | LinkEnd::Broken(_)), "{end:?}");
            });
        }
    }
}

fn digest_frame() -> Vec<u8> {
    Frame::Direct(digest(1)).encode().expect("short")
}
