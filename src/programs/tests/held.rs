//! Posts that were held for a board that the store does not have any more.

use super::*;
use crate::model::{ids::PostId, rows::Found};

/// Posts of each board: together several times as many as are handed in at a time.
const POSTS: u8 = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_posts_of_a_lost_board_end_and_hold_up_no_others() {
    let clock = env();
    let store = memory::open(&new_cluster(&clock), move || clock.wall().ms).expect("opens");
    let mut cluster = start_on(1, 1, store.clone(), &Config::default()).await;
    let ann = client(&cluster, 0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    let author = restored(&ann).await.user;
    let mut follow = ann.follow(vec![BoardName::lobby()], None);
    opens(&ann, &mut follow).await;

    let holder = env();
    let (replica, _) =
        Replica::open(&holder.disk(), ReplicaLimits::default(), Check::Whole, |_| ())
            .expect("opens");
    // In the order of their ids, the two boards take turns.
    let id = |n: u8, board: u8| PostId([n, board, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
    let names = [BoardName::lobby(), "lost".parse().expect("a name")];
    let mut posts = Vec::new();
    for n in 0..POSTS {
        for (board, nth) in names.iter().zip(0..) {
            let text = format!("post {n}").parse().expect("a text");
            let post = NewPost { id: id(n, nth), author: author.clone(), text };
            posts.push((HeldPost { board: board.clone(), post }, holder.wall().ms));
        }
    }
    replica.hold(&posts).expect("held");
    drop(replica);
    let parts = NodeParts { env: holder, store: store.clone(), keys: TestKeys::from(190) };
    cluster.add_worker(parts, &Config::default());

    let told = async {
        loop {
            if let FollowEvent::Event(StreamEvent::Pending(event)) = follow.next().await
                && event.state == HeldState::Refused
            {
                return event.id;
            }
        }
    };
    assert_eq!(within(&ann, "the end of a post", told).await.0[1], 1, "it is of the lost board");
    let done = async {
        loop {
            let boards = store.boards().await.expect("it is here");
            let pending = restored(&ann).await.pending;
            let is_written = boards.last(&names[0]) == Some(Seq(u64::from(POSTS)));
            if is_written && pending.is_empty() {
                return;
            }
            ann.env().sleep(Duration::from_millis(100)).await;
        }
    };
    within(&ann, "the end of all posts", done).await;
    for n in 0..POSTS {
        let found = store.find_post(author.id, id(n, 0)).await;
        assert!(matches!(found, Ok(Found::Committed(_))), "{found:?}");
        assert_eq!(store.find_post(author.id, id(n, 1)).await, Ok(Found::Nothing));
    }
    assert_eq!(store.dead_letters(1).await, Ok(Vec::new()));
    let boards: Vec<_> = store.boards().await.expect("it is here").boards;
    assert!(boards.iter().all(|(board, _)| *board != names[1]), "nothing makes it again");
}
