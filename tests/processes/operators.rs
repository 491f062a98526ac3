//! Operations of people who run a cluster, on real processes: backup, restore, expulsion.

use std::{fs, path::Path, process::Command};

use chatchat::{
    env::{
        Env,
        real::{RealWorld, TempDir},
    },
    testing::postgres::Server,
};

use crate::harness::{self, Cluster, chatctl, signal};

#[test]
fn store_is_backed_up_while_the_cluster_runs_and_restored_when_it_stands() {
    go_back_to_a_backup("sqlite:", &["--masters=1", "--workers=1"]);
}

#[tokio::test]
async fn store_on_postgres_is_backed_up_and_restored_as_one_in_a_file() {
    let env = Env::new(RealWorld::temporary().expect("a directory"));
    let Some(server) = Server::start(&env, &[]).await else { return };
    server.sql(&env, "CREATE SCHEMA chat").await;
    let store = format!("--store={}", server.url("chat"));
    go_back_to_a_backup("postgres://", &["--masters=1", "--workers=1", &store]);
}

/// Backs up a cluster's store, whose name begins so, while it is used, and restores it.
fn go_back_to_a_backup(store: &str, args: &[&str]) {
    let mut cluster = Cluster::start(args);
    cluster.says("Chatchat is ready");
    let dir = cluster.dir.path().to_owned();
    let (backup, ctl) = (dir.join("backup.db"), |args: &[&str]| chatctl(&dir, args));
    let file = backup.to_str().expect("text");
    ctl(&["post", "kept"]).expect("posted");
    let said = ctl(&["backup", file]).expect("backed up");
    assert!(said.contains("1 board, 1 post, epoch "), "{said}");
    assert!(said.contains(&format!(", of {store}")), "{said}");
    ctl(&["post", "after the backup"]).expect("posted");
    let why = ctl(&["restore", file]).expect_err("nodes use it");
    assert!(why.contains("stop all nodes"), "{why}");
    signal("-TERM", cluster.process.id());
    assert!(cluster.process.wait().expect("it ends").success());

    let said = ctl(&["restore", file]).expect("restored");
    assert!(said.contains("the store before is kept as "), "{said}");
    assert!(said.contains(&format!("restored {store}")), "{said}");
    let moved = std::mem::replace(&mut cluster.dir, TempDir::new().expect("a directory"));
    let again = Cluster::start_in(moved, args);
    again.says("Chatchat is ready");
    let posted = ctl(&["post", "after the restore"]).expect("posted");
    assert_eq!(posted, "lobby 2\n", "the place is given anew, in a new epoch");
    let shown = ctl(&["tail", "--once"]).expect("shown");
    let texts: Vec<_> = shown.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(texts, ["kept", "after the restore"], "{shown}");
}

#[test]
fn store_in_the_environment_does_not_replace_that_of_a_named_data_directory() {
    let dir = TempDir::new().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    let (file, other) = (path("backup.db"), path("other.db"));
    let ctl = |args: &[&str]| {
        let ctl = Command::new(env!("CARGO_BIN_EXE_chatctl"))
            .env("CHATCHAT_STORE", format!("sqlite:{other}"))
            .args(args)
            .output()
            .expect("it starts");
        (ctl.status.code(), String::from_utf8(ctl.stderr).expect("text"))
    };
    for command in ["backup", "restore"] {
        let (code, why) = ctl(&[command, &file, "--data-dir", &path("data")]);
        assert_eq!(code, Some(2), "{why}");
        assert!(why.contains("CHATCHAT_STORE") && why.contains("--data-dir"), "{why}");
        let (code, why) = ctl(&[command, &file]);
        assert_eq!(code, Some(1), "the environment is enough, but neither file is there: {why}");
    }
}

/// Returns whether a node's database has this text in it.
fn holds(dir: &Path, node: &str, text: &str) -> bool {
    let bytes = fs::read(dir.join(node).join("replica.redb")).expect("a node database");
    bytes.windows(text.len()).any(|bytes| bytes == text.as_bytes())
}

/// Waits until this holds, and shows the nodes' logs when it never does.
fn until(cluster: &Cluster, what: &str, holds: impl FnMut() -> bool) {
    harness::until(what, holds, || cluster.logs());
}

#[test]
fn expelled_worker_reads_no_further_post_and_does_not_get_back_in() {
    let mut cluster = Cluster::start(&["--masters=2", "--workers=3", "--restart"]);
    cluster.says("Chatchat is ready");
    let dir = &cluster.dir.path().to_owned();
    let ctl = |args: &[&str]| chatctl(dir, args).expect("done");
    // Workers write their databases in groups: more posts bring the first to the disk.
    let reaches = |nodes: &[&str], text: &str| {
        until(&cluster, text, || {
            ctl(&["post", "and more"]);
            nodes.iter().all(|node| holds(dir, node, text))
        });
    };
    ctl(&["post", "before the expulsion"]);
    reaches(&["worker-0", "worker-1", "worker-2"], "before the expulsion");

    ctl(&["expel", "worker-1"]);
    // The other master follows within a second or two, and may take it in until then.
    until(&cluster, "both masters say that it is expelled, and it is out", || {
        let says = |master: &&str| {
            let lines = fs::read_to_string(dir.join(master).join("events.jsonl"));
            lines.unwrap_or_default().contains(r#""event":"expel""#)
        };
        let status = ctl(&["status"]);
        let line = status.lines().find(|line| line.contains("worker-1"));
        ["master-0", "master-1"].iter().all(says) && line.is_none_or(|line| !line.contains(" in "))
    });
    ctl(&["post", "behind the expulsion"]);
    reaches(&["worker-0", "worker-2"], "behind the expulsion");
    // A worker that ends saves what it has; its next process has the same identity.
    let log = || fs::read_to_string(dir.join("worker-1/log")).unwrap_or_default();
    let before = log().len();
    signal("-TERM", cluster.pid("worker-1"));
    cluster.says("worker-1 is started again");
    let refused = || {
        let log = log();
        let ended = log.get(before..).and_then(|log| log.split_once("it was asked to"));
        ended.is_some_and(|(_, next)| next.contains("expelled") || next.contains("denied"))
    };
    until(&cluster, "it is told why", refused);
    ctl(&["post", "after its restart"]);
    reaches(&["worker-0", "worker-2"], "after its restart");
    signal("-TERM", cluster.process.id());
    assert!(cluster.process.wait().expect("it ends").success());
    for text in ["behind the expulsion", "after its restart"] {
        assert!(!holds(dir, "worker-1", text), "{text}");
    }
}
