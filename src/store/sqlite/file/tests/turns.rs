//! Processes that share a file and are never without work take turns at writing. Their turns are judged
//! by the record of commits, which is the same however long each of them takes.

use std::collections::BTreeSet;

use super::*;

/// Number of processes.
const PROCESSES: u8 = 5;

/// Number of posts that each of them appends, one per transaction.
const POSTS: u64 = 150;

/// The most posts of others while a process waits to write one of its own: half of all that others write.
const OTHERS_MAX: u64 = (PROCESSES as u64 - 1) * POSTS / 2;

/// Time for which a write waits. One that is given up says nothing of turns, so this is far more than any
/// run takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Appends posts to a board of its own, one by one, once it is told to. Meanwhile its writing thread is
/// never without work, so that it asks for the lock as soon as it released it.
pub(super) async fn append_under_load(path: &Path, node: u8) {
    let env = real_env();
    let store = open(&env, path, PATIENCE).expect("a store");
    let board: BoardName = format!("board-{node}").parse().expect("a name");
    let resource = Resource::Board(board.clone());
    let lease = store.acquire_lease(resource.clone(), holder(node), 60_000).await;
    let Ok(Lease::Granted { epoch, lease, .. }) = lease else { panic!("not granted: {lease:?}") };
    let permission = |n| Permission {
        resource: resource.clone(),
        token: Token { epoch, lease, n },
        after: None,
        worker: NodeId([node; 16]),
    };
    let create = vec![Task::CreateBoard { board: board.clone() }];
    store.write(permission(1), create.into()).await.expect("created");
    println!("\nready");
    while !beside(path, ".go").exists() {
        env.sleep(Duration::from_millis(2)).await;
    }
    let posting = async {
        for n in 0..POSTS {
            let author = Author { id: UserId([node; 16]), name: "Ada".parse().expect("a name") };
            let mut id = [node; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            let text = format!("post {n}").parse().expect("a text");
            let post = NewPost { id: PostId(id), author, text };
            let tasks = vec![Task::Post { board: board.clone(), post }];
            let done = store.write(permission(n + 2), tasks.into()).await.expect("written");
            assert!(matches!(done[0], TaskResult::Committed { seq, .. } if seq == Seq(n + 1)));
        }
    };
    let load = join_all((0..4).map(|_| async {
        loop {
            store.touch_sessions(NodeId([node; 16]), Vec::new()).await.expect("touched");
        }
    }));
    tokio::select! {
        biased;
        () = posting => {}
        _ = load => unreachable!("the load never ends"),
    }
    println!("\ndone");
}

/// Returns the most posts of others while one writer waited for its next one, by the writers of all posts
/// in the order of commits.
fn longest_wait<T: Ord>(writers: &[T]) -> u64 {
    let each: BTreeSet<&T> = writers.iter().collect();
    let mut longest = 0_u64;
    for one in each {
        let mut others = 0_u64;
        for writer in writers {
            if writer == one {
                longest = longest.max(others);
                others = 0;
            } else {
                others += 1;
            }
        }
    }
    longest
}

#[test]
fn writers_that_let_nobody_in_are_no_turns() {
    let turns: Vec<_> = (0..POSTS).flat_map(|_| 0..PROCESSES).collect();
    assert_eq!(longest_wait(&turns), u64::from(PROCESSES) - 1);
    let mut hogged = turns;
    hogged.sort_unstable();
    assert!(longest_wait(&hogged) > OTHERS_MAX, "each writes all that it has to write");
    // One waits until all others have written, and they take turns.
    let starved: Vec<_> =
        (0..POSTS).flat_map(|_| 1..PROCESSES).chain((0..POSTS).map(|_| 0)).collect();
    assert!(longest_wait(&starved) > OTHERS_MAX);
}

#[tokio::test]
async fn processes_that_share_a_file_take_turns() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    // None of them finds the file there: one makes it, the others wait.
    let mut children: Vec<_> =
        (1..=PROCESSES).map(|node| Process::start(&format!("append {node}"), &path)).collect();
    for child in &mut children {
        child.said("ready");
    }
    std::fs::write(beside(&path, ".go"), "").expect("written");
    for child in &mut children {
        child.said("done");
    }
    let env = real_env();
    let store = open(&env, &path, PATIENCE).expect("a store");
    let boards = store.boards().await.expect("boards").boards;
    assert_eq!(boards.len(), usize::from(PROCESSES) + 1, "theirs and the lobby");
    for (board, last_seq) in &boards[..usize::from(PROCESSES)] {
        assert_eq!(*last_seq, Seq(POSTS), "{board}");
        let page = store.read(board.clone(), Range::After(Seq(0)), 1000).await.expect("a page");
        let seqs: Vec<_> = page.posts.iter().map(|post| post.seq.0).collect();
        assert_eq!(seqs, (1..=POSTS).collect::<Vec<_>>());
    }
    let mut rows = store.writes(0, 10_000).await.expect("the record");
    // Without the creations, which come before all are there.
    rows.retain(|row| row.kind == "write" && row.token.n > 1);
    assert_eq!(rows.len() as u64, u64::from(PROCESSES) * POSTS);
    let writers: Vec<_> = rows.into_iter().map(|row| row.resource).collect();
    let waited = longest_wait(&writers);
    assert!(waited <= OTHERS_MAX, "others wrote {waited} posts while one waited");
}
