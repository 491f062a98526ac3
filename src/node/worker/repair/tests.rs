use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::{
    env::{BoxFuture, Task},
    model::{
        ids::{Author, Post, PostId, StoreEpoch, UserId},
        message::Update,
        rows::{Boards, StoreError},
    },
    replica::ReplicaLimits,
    store::{Backend, Op, OpReply},
    testing::{
        memory_disk::MemDisk,
        stepped_world::{SECOND, run_on},
    },
};

const EPOCH: StoreEpoch = StoreEpoch(7);

fn board(name: &str) -> BoardName {
    name.parse().expect("a board's name")
}

/// Returns posts of a board up to this place, with times that begin at `from_ms`.
fn posts(name: &str, last: u64, from_ms: u64) -> Vec<Post> {
    let author = Author { id: UserId([3; 16]), name: "ann".parse().expect("a name") };
    let post = |seq: u64| Post {
        id: PostId(u128::from(seq).to_be_bytes()),
        board: board(name),
        seq: Seq(seq),
        author: author.clone(),
        text: "hello".parse().expect("a text"),
        posted_at_ms: from_ms + seq,
    };
    (1..=last).map(post).collect()
}

/// Store that has these posts, and tells nothing but pages behind a place.
#[derive(Clone)]
struct Posts(Arc<BTreeMap<BoardName, Vec<Post>>>);

impl Posts {
    fn of(boards: impl IntoIterator<Item = Vec<Post>>) -> Self {
        let named = boards.into_iter().map(|posts| (posts[0].board.clone(), posts));
        Self(Arc::new(named.collect()))
    }

    fn boards(&self) -> Boards {
        let last = |posts: &Vec<Post>| posts.last().map_or(Seq(0), |last| last.seq);
        let boards = self.0.iter().map(|(board, posts)| (board.clone(), last(posts))).collect();
        Boards { boards, epoch: EPOCH, as_of_ms: 1_000_000 }
    }

    fn page(&self, board: &BoardName, after: Seq, limit: u32) -> Page {
        let all = &self.0[board];
        let behind = all.iter().filter(|post| post.seq > after).take(limit as usize);
        Page {
            posts: behind.cloned().collect(),
            last_seq: all.last().map_or(Seq(0), |last| last.seq),
            epoch: EPOCH,
            as_of_ms: 1_000_000,
        }
    }
}

impl Backend for Posts {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        let page = match op {
            Op::Read { board, range: Range::After(after), limit } => {
                self.page(&board, after, limit)
            }
            other => panic!("{other:?}"),
        };
        Box::pin(async move { Ok(OpReply::Page(page)) })
    }
}

fn sources(store: &Posts) -> Sources {
    Sources {
        link: None,
        store: Store::new(store.clone()),
        master_timeout: SECOND,
        store_timeout: SECOND,
    }
}

/// Opens a node database with room for so many posts.
async fn database(env: &Env, posts_max: u64) -> (Database, Task) {
    let limits = ReplicaLimits { posts_max, ..ReplicaLimits::default() };
    let (database, members, writing) = Database::start(env, limits);
    members.await.expect("it opens");
    (database, writing)
}

/// Writes posts as a publish brings them.
async fn publish(database: &Database, posts: &[Post]) {
    let update = Update::Posts {
        epoch: EPOCH,
        board: posts[0].board.clone(),
        posts: posts.to_vec(),
        as_of_ms: 0,
    };
    database.apply(vec![update]).await.expect("written");
}

/// Returns the places of a board's last posts, if its page is given.
async fn last_posts(database: &Database, name: &str) -> Option<Vec<u64>> {
    let board = board(name);
    let page = database.read(move |replica| replica.read(&board, Range::Last, 500)).await;
    let page = page.expect("it reads")?;
    Some(page.posts.iter().map(|post| post.seq.0).collect())
}

/// Compares with the store and returns the boards that lack posts.
async fn lacking(database: &Database, store: &Posts) -> Vec<BoardName> {
    let seen = database.observe(store.boards()).await.expect("compared");
    seen.gaps.into_iter().map(|gap| gap.board).collect()
}

#[test]
fn board_whose_posts_were_all_dropped_is_read_on_from_its_last_place() {
    run_on(Arc::new(MemDisk::default()), |env| async move {
        let (database, _writing) = database(&env, 10).await;
        let (mut dev, lobby) = (posts("dev", 600, 0), posts("lobby", 20, 10_000));
        publish(&database, &dev).await;
        publish(&database, &lobby).await;
        assert_eq!(last_posts(&database, "dev").await, None, "all of it went");
        let newest = Post { seq: Seq(601), posted_at_ms: 20_000, ..dev[599].clone() };
        dev.push(newest);
        let store = Posts::of([dev, lobby]);
        assert_eq!(lacking(&database, &store).await, [board("dev")]);
        let repaired = try_repair(&env, &database, sources(&store), &board("dev")).await;
        assert_eq!(repaired, Some((1, false)), "one post came, and none is lacking");
        assert_eq!(last_posts(&database, "dev").await, Some(vec![601]));
        assert_eq!(lacking(&database, &store).await, []);
    });
}

#[test]
fn new_database_with_less_room_than_the_store_has_posts_is_filled_with_the_newest() {
    run_on(Arc::new(MemDisk::default()), |env| async move {
        let (database, _writing) = database(&env, 100).await;
        let store = Posts::of([posts("busy", 1500, 10_000), posts("quiet", 1200, 0)]);
        assert_eq!(lacking(&database, &store).await, [board("busy"), board("quiet")]);
        let mut pages = 0;
        for name in ["busy", "quiet"] {
            while let Some((new, true)) =
                try_repair(&env, &database, sources(&store), &board(name)).await
            {
                pages += 1;
                assert!(new > 0 && pages < 10, "{name} gets no further");
            }
        }
        assert_eq!(lacking(&database, &store).await, [], "both were read to their ends");
        let kept = last_posts(&database, "busy").await.expect("it has the newest posts");
        assert!(kept.len() > 90 && kept.last() == Some(&1500), "{kept:?}");
        assert_eq!(last_posts(&database, "quiet").await, None, "it is older");
    });
}
