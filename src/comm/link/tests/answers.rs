//! Order of answers and messages, and room for long answers.

use super::*;
use crate::{model::held::HoldReply, wire::FRAME_LEN_MAX};

#[test]
fn page_without_room_is_refused_at_once_and_pages_that_wait_keep_no_call_out() {
    run(async |env| {
        let ((near, mut near_events), (far, mut far_events)) = pair(&env, &LinkLimits::default());
        let before = env.now();
        let reads = (0..9).map(|n| near.call(echo(n), SECOND));
        let reads = futures_util::future::join_all(reads);
        let answers = async {
            let mut replies = Vec::new();
            for _ in 0..9 {
                replies.push(next_request(&mut far_events).await.1);
            }
            // The link's task does not run meanwhile, so nothing is sent.
            for reply in replies {
                let page = Response::Echo(vec![1; FRAME_LEN_MAX - 64]);
                assert_eq!(reply.send(&page), Ok(()));
            }
            far.call(echo(9), SECOND).await
        };
        let serves = async {
            let (request, reply) = next_request(&mut near_events).await;
            assert_eq!(request, echo(9));
            assert_eq!(reply.send(&Response::Echo(vec![9])), Ok(()));
        };
        let (mut told, called, ()) = tokio::join!(reads, answers, serves);
        assert_eq!(called, Ok(Response::Echo(vec![9])));
        assert_eq!(told.pop(), Some(Ok(Response::NotServed)), "eight fill the room of pages");
        assert!(told.iter().all(|one| matches!(one, Ok(Response::Echo(_)))));
        assert_eq!(env.now(), before, "nobody waited for a time-out");
    });
}

#[test]
fn number_of_held_posts_arrives_before_the_answer_that_one_is_held() {
    run(async |env| {
        let (link, mut events, mut peer) = raw(&env, small());
        peer.send(&Frame::Request { id: 1, deadline_ms: 500, request: echo(1) }).await;
        let (_, reply) = next_request(&mut events).await;
        assert_eq!(link.send(&digest(1)), Ok(()));
        assert_eq!(link.send(&Direct::Holds(1)), Ok(()));
        let response = Response::Hold(HoldReply::Held);
        assert_eq!(reply.send(&response), Ok(()));
        assert_eq!(peer.receive().await, Ok(Frame::Direct(Direct::Holds(1))));
        assert_eq!(peer.receive().await, Ok(Frame::Response { id: 1, response }));
        assert_eq!(peer.receive().await, Ok(Frame::Direct(digest(1))), "others wait");
    });
}
