//! Log-outs, as other masters learn of them.

use super::{restored::reads_at, *};
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
    let epoch = new_cluster(ann.env()).epoch;
    let mut of_ann = Vec::new();
    for url in cluster.urls() {
        of_ann.push(reads_at(&ann, url, epoch).await);
    }
    let mut of_bob = reads_at(&bob, &cluster.urls()[0], epoch).await;
    ann.call_at(&cluster.urls()[0], &Request::Leave).await.expect("logged out");
    let began = ann.env().now();
    let ends = join_all(of_ann.iter_mut().map(|reader| {
        reader.next(|event| match event {
            StreamEvent::Bye(bye) => Some(bye.reason),
            _ => None,
        })
    }));
    let ends = within(&ann, "the ends of all streams", ends).await;
    assert_eq!(ends, [ByeReason::LoggedOut; 3]);
    let took = ann.env().now().since(began);
    assert!(took <= KNOWN_WITHIN, "{took:?}");
    say(&bob, "still here").await;
    let post = of_bob.next(|event| match event {
        StreamEvent::Post(post) => Some(post.seq),
        StreamEvent::Bye(bye) => panic!("it ended: {}", bye.reason),
        _ => None,
    });
    assert_eq!(within(&bob, "the post", post).await, Seq(1));
}
