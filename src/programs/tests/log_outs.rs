//! Log-outs, as other masters learn of them.

use super::*;
use crate::model::stream::ByeReason;

/// Longest time until a log-out is known to all masters that reach the store.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_out_ends_the_streams_of_its_session_at_all_masters() {
    let cluster = start(3, 1).await;
    let ann = client(&cluster, 0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    let bob = client(&cluster, 1, None);
    bob.open_session("bob".parse().expect("a name"), SOON).await.expect("a session");
    let mut streams = Vec::new();
    for (client, urls) in [(&ann, cluster.urls()), (&bob, &cluster.urls()[..1])] {
        for url in urls {
            let stream = client.api(url).stream(&[BoardName::lobby()], None).await;
            streams.push(stream.expect("a stream"));
        }
    }
    let mut of_bob = streams.pop().expect("four");
    ann.call_at(&cluster.urls()[0], &Request::Leave).await.expect("logged out");
    let began = ann.env().now();
    let ends = streams.iter_mut().map(async |stream| {
        loop {
            if let StreamEvent::Bye(bye) = stream.next().await.expect("a bye first").event {
                break bye.reason;
            }
        }
    });
    let ends = within(&ann, "the ends of all streams", join_all(ends)).await;
    assert_eq!(ends, [ByeReason::LoggedOut; 3]);
    let took = ann.env().now().since(began);
    assert!(took <= KNOWN_WITHIN, "{took:?}");
    say(&bob, "still here").await;
    let post = async {
        loop {
            match of_bob.next().await.expect("it stays open").event {
                StreamEvent::Post(post) => break post.seq,
                StreamEvent::Bye(bye) => panic!("it ended: {}", bye.reason),
                _ => {}
            }
        }
    };
    assert_eq!(within(&bob, "the post", post).await, Seq(1));
}
