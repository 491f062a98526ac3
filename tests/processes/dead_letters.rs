//! Dead letters of a real master: posts that every worker failed are listed, sent again or dropped,
//! and the pages of their author learn the outcome.

use chatchat::{
    api::{PostState, StreamEvent},
    client::{Answer, ChatClient, Failure, Request},
    env::{Env, real::RealWorld},
    model::ids::{BoardName, PostId, Seq},
};

use crate::harness::{self, Cluster, chatctl, front_ends, next_of, person, signal};

const WORKERS: [&str; 2] = ["worker-0", "worker-1"];

/// Returns the number of workers that the master has.
fn workers_in(cluster: &Cluster) -> usize {
    let status = chatctl(cluster.dir.path(), &["status"]).unwrap_or_default();
    status.lines().filter(|line| line.starts_with("worker-") && line.contains(" in ")).count()
}

/// Sends a post once while both workers are stopped, until the master gives it up; then kills
/// them, so that neither writes it late, and waits for their next lives. Returns the number of the
/// letter.
async fn give_up(cluster: &Cluster, author: &ChatClient, post: &Request) -> u64 {
    let stopped = WORKERS.map(|name| cluster.pid(name));
    stopped.iter().for_each(|pid| signal("-STOP", *pid));
    let answer = author.call_at(&author.master(), post).await;
    let Err(Failure::Unknown { status: Some(504), why }) = &answer else {
        panic!("{answer:?}; {}", cluster.logs());
    };
    assert!(why.contains("every attempt failed"), "{why}");
    stopped.iter().for_each(|pid| signal("-KILL", *pid));
    let mut numbers = Vec::new();
    let is_listed = || {
        numbers = numbers_of(&letters(cluster));
        !numbers.is_empty()
    };
    harness::until("the letter is listed", is_listed, || cluster.logs());
    let all_are_new = || WORKERS.iter().zip(stopped).all(|(name, old)| is_new(cluster, name, old));
    harness::until("both workers are new", all_are_new, || cluster.logs());
    let both_are_in = || workers_in(cluster) == WORKERS.len();
    harness::until("both workers are in again", both_are_in, || cluster.logs());
    assert_eq!(numbers.len(), 1, "{}", letters(cluster));
    numbers[0]
}

fn is_new(cluster: &Cluster, name: &str, old: u32) -> bool {
    cluster.nodes().iter().any(|(node, pid)| node == name && *pid != old)
}

fn letters(cluster: &Cluster) -> String {
    chatctl(cluster.dir.path(), &["dead-letters", "list"]).expect("listed")
}

/// Returns the first column of a list of letters, below its head.
fn numbers_of(listed: &str) -> Vec<u64> {
    let first = |line: &str| line.split_whitespace().next()?.parse().ok();
    listed.lines().filter_map(first).collect()
}

fn post(id: PostId, text: &str) -> Request {
    Request::Post { board: BoardName::lobby(), id, text: text.parse().expect("a text") }
}

#[tokio::test]
async fn dead_letters_are_listed_sent_again_and_dropped_and_their_author_learns_it() {
    // Stopped workers fail by their tasks, not by their heartbeats.
    let args = ["--masters=1", "--workers=2", "--restart", "--heartbeats-missed-max=40"];
    let cluster = Cluster::start(&args);
    cluster.says("Chatchat is ready");
    harness::until("both are in", || workers_in(&cluster) == 2, || cluster.logs());
    let env = Env::new(RealWorld::temporary().expect("a directory"));
    let ctl = |args: &[&str]| chatctl(cluster.dir.path(), args);
    let ann = person(&env, &front_ends(&cluster, 1), 0, "ann").await;
    let mut page = ann.follow(vec![BoardName::lobby()], None);
    next_of(&env, &mut page, "a hello", |it| matches!(it, StreamEvent::Hello(_)).then_some(()))
        .await;
    assert_eq!(ctl(&["dead-letters", "list"]).expect("listed"), "no dead letters\n");

    let (again, never) = (ann.new_post_id(), ann.new_post_id());
    let first = post(again, "to be sent again");
    let number = give_up(&cluster, &ann, &first).await;
    let listed = letters(&cluster);
    for part in ["board:lobby", "ann", "to be sent again", "no worker answered to it"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let why = ctl(&["dead-letters", "retry", "987654"]).expect_err("no such letter");
    assert!(why.contains("no dead letter"), "{why}");
    let said = ctl(&["dead-letters", "retry", &number.to_string()]).expect("sent again");
    assert_eq!(said, "lobby 1\n");
    let shown = next_of(&env, &mut page, "the post on its author's page", |event| match event {
        StreamEvent::Post(post) => Some((post.id, post.seq)),
        _ => None,
    });
    assert_eq!(shown.await, (again, Seq(1)));
    assert_eq!(letters(&cluster), "no dead letters\n");
    // The page still has it in its outbox: it is a repeat.
    let repeated = ann.call_at(&ann.master(), &first).await;
    let is_first = |it: &Answer| matches!(it, Answer::Posted(post) if post.seq == Seq(1));
    assert!(repeated.as_ref().is_ok_and(is_first), "{repeated:?}");

    let second = post(never, "to be dropped");
    let number = give_up(&cluster, &ann, &second).await;
    assert!(letters(&cluster).contains("to be dropped"));
    let said = ctl(&["dead-letters", "drop", &number.to_string()]).expect("dropped");
    assert_eq!(said, format!("dead letter {number} is dropped\n"));
    assert_eq!(letters(&cluster), "no dead letters\n");
    let fate = ann.call_at(&ann.master(), &Request::Outcome { id: never }).await;
    assert_eq!(fate, Ok(Answer::Fate(Some(PostState::Cancelled { id: never }))));
    let refused = ann.call_at(&ann.master(), &second).await;
    assert!(matches!(refused, Err(Failure::Refused { status: 410, .. })), "{refused:?}");
    let shown = ctl(&["tail", "--once"]).expect("shown");
    assert!(shown.contains("to be sent again") && !shown.contains("to be dropped"), "{shown}");
}
