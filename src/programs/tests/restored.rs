//! Streams and sessions at running masters when the store begins a new epoch, as an older one.

use super::*;
use crate::{
    client::EventStream,
    model::stream::{ByeReason, ResetReason},
    store::sqlite::backup,
};

const STREAMS: usize = 12;
const BOARDS: [&str; 2] = ["lobby", "dev"];

/// Copies the store as it is now, in the epoch that follows.
fn copy_of_the_next_epoch(from: &std::path::Path, to: &std::path::Path) {
    backup::back_up(from, to, SOON).expect("backed up");
    let db = rusqlite::Connection::open(to).expect("opens");
    db.execute_batch(
        "UPDATE cluster SET epoch = epoch + 1;
         DELETE FROM tickets; DELETE FROM presence;
         UPDATE lease_terms SET node = NULL, ends_at = 0;",
    )
    .expect("it is a store");
}

/// Stream with the cursor that it gave last.
pub(super) struct Reader {
    stream: EventStream,
    cursor: Cursor,
}

impl Reader {
    /// Reads on to the first event that `wanted` takes. The stream must not end.
    pub(super) async fn next<T>(&mut self, mut wanted: impl FnMut(&StreamEvent) -> Option<T>) -> T {
        loop {
            let delivery = self.stream.next().await.expect("the stream stays open");
            self.cursor = delivery.cursor.unwrap_or_else(|| self.cursor.clone());
            if let Some(found) = wanted(&delivery.event) {
                return found;
            }
        }
    }

    /// Reads the posts up to these places; returns how many of each board there were.
    async fn up_to(&mut self, ends: &BTreeMap<BoardName, Seq>) -> BTreeMap<BoardName, Vec<u64>> {
        let mut shown = BTreeMap::<_, Vec<_>>::new();
        while self.cursor.boards != *ends {
            let post = self.next(|event| match event {
                StreamEvent::Post(post) => Some((post.board.clone(), post.seq.0)),
                StreamEvent::Reset(reset) => panic!("reset: {}", reset.reason),
                _ => None,
            });
            let (board, seq) = post.await;
            shown.entry(board).or_default().push(seq);
        }
        shown
    }
}

/// Opens a client's stream of the lobby from its beginning, in a store of this epoch.
async fn reads(client: &ChatClient, epoch: StoreEpoch) -> Reader {
    reads_at(client, &client.master(), epoch).await
}

/// Opens a client's stream at a master, as [`reads`] does at its own.
pub(super) async fn reads_at(client: &ChatClient, master: &str, epoch: StoreEpoch) -> Reader {
    let stream = client.api(master).stream(&[BoardName::lobby()], None).await;
    let cursor = Cursor { epoch, boards: BTreeMap::new() };
    Reader { stream: stream.expect("a stream"), cursor }
}

async fn say_on_all(client: &ChatClient, text: &str) {
    for board in BOARDS {
        let (board, text) = (board.parse().expect("a board"), text.parse().expect("short"));
        let sent = client.send(&board, client.new_post_id(), text);
        within(client, "a post", sent).await.expect("posted");
    }
}

fn ends(seq: u64) -> BTreeMap<BoardName, Seq> {
    BOARDS.map(|board| (board.parse().expect("a board"), Seq(seq))).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_are_reset_by_a_new_epoch_of_the_store_and_go_on_without_a_gap() {
    let file = StoreFile::new();
    let cluster = start_on(2, 2, file.store(), &Config::default()).await;
    let ann = client(&cluster, 0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    let dev = Request::CreateBoard { board: "dev".parse().expect("a board") };
    ann.call(&dev, SOON).await.expect("made");
    say_on_all(&ann, "kept").await;
    copy_of_the_next_epoch(&file.path(StoreFile::NAME), &file.path("older.db"));
    say_on_all(&ann, "lost").await;

    let boards: Vec<_> = ends(0).into_keys().collect();
    let mut readers = Vec::new();
    for nth in 0..STREAMS {
        let from = Cursor { epoch: file.new.epoch, boards: ends(0) };
        let api = ann.api(&cluster.urls()[nth % 2]);
        let stream = api.stream(&boards, Some(&from)).await.expect("a stream");
        readers.push(Reader { stream, cursor: from });
    }
    let all_see = async |readers: &mut [Reader], from: u64, to: u64| {
        let ends = ends(to);
        let shown = join_all(readers.iter_mut().map(|reader| reader.up_to(&ends)));
        for shown in within(&ann, "the ends of both boards", shown).await {
            for board in ends.keys() {
                assert_eq!(shown[board], (from..=to).collect::<Vec<_>>(), "{board}");
            }
        }
    };
    all_see(&mut readers, 1, 2).await;

    drop(file.replace(file.open("older.db")));
    let resets = join_all(readers.iter_mut().map(|reader| {
        reader.next(|event| match event {
            StreamEvent::Reset(reset) => Some(reset.reason),
            StreamEvent::Post(post) => panic!("{} came before the reset", post.seq),
            _ => None,
        })
    }));
    assert_eq!(within(&ann, "the resets", resets).await, [ResetReason::Epoch; STREAMS]);
    for Reader { cursor, .. } in &readers {
        assert_eq!(*cursor, Cursor { epoch: StoreEpoch(file.new.epoch.0 + 1), boards: ends(1) });
    }
    for text in ["new", "newer"] {
        say_on_all(&ann, text).await;
    }
    all_see(&mut readers, 2, 3).await;
    let strong = read(&ann, Consistency::Strong).await;
    let texts = ["kept", "new", "newer"].map(str::to_owned).to_vec();
    assert_eq!(strong, (texts, Consistency::Strong));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_that_an_older_store_lacks_posts_nothing_more_at_a_master_that_runs_on() {
    let file = StoreFile::new();
    let cluster = start_on(1, 1, file.store(), &Config::default()).await;
    let [ann, bob] = [(), ()].map(|()| client(&cluster, 0, None));
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    say(&ann, "kept").await;
    copy_of_the_next_epoch(&file.path(StoreFile::NAME), &file.path("older.db"));
    bob.open_session("bob".parse().expect("a name"), SOON).await.expect("a session");
    say(&bob, "lost").await;
    let mut reader = reads(&ann, file.new.epoch).await;

    drop(file.replace(file.open("older.db")));
    let reset = reader.next(|event| match event {
        StreamEvent::Reset(reset) => Some(reset.reason),
        _ => None,
    });
    assert_eq!(within(&ann, "the reset", reset).await, ResetReason::Epoch);
    // The master had both sessions in memory.
    assert_eq!(say(&ann, "new").await, Seq(2));
    let (board, id) = (BoardName::lobby(), bob.new_post_id());
    let post = Request::Post { board, id, text: "of nobody".parse().expect("a text") };
    let refused = bob.call_at(&bob.master(), &post).await;
    assert!(matches!(refused, Err(Failure::Refused { status: 401, .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_of_a_session_that_an_older_store_lacks_is_logged_out_though_it_asks_nothing() {
    let file = StoreFile::new();
    let cluster = start_on(1, 1, file.store(), &Config::default()).await;
    let [ann, bob] = [(), ()].map(|()| client(&cluster, 0, None));
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    say(&ann, "kept").await;
    copy_of_the_next_epoch(&file.path(StoreFile::NAME), &file.path("older.db"));
    bob.open_session("bob".parse().expect("a name"), SOON).await.expect("a session");
    let epoch = file.new.epoch;
    let (mut stays, mut ends) = (reads(&ann, epoch).await, reads(&bob, epoch).await);

    drop(file.replace(file.open("older.db")));
    let bye = ends.next(|event| match event {
        StreamEvent::Bye(bye) => Some(bye.reason),
        _ => None,
    });
    assert_eq!(within(&bob, "the end of a stream", bye).await, ByeReason::LoggedOut);
    assert_eq!(say(&ann, "new").await, Seq(2));
    let post = stays.next(|event| match event {
        StreamEvent::Post(post) => Some(post.seq),
        StreamEvent::Bye(bye) => panic!("it ended: {}", bye.reason),
        _ => None,
    });
    assert_eq!(within(&ann, "the post", post).await, Seq(2));
}
