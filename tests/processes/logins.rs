//! Logins of workers at a private PostgreSQL server: given by masters, and ended by an expulsion.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use chatchat::{
    env::{Env, real::RealWorld},
    testing::postgres::Server,
};

use crate::harness::{Cluster, WAIT, chatctl};

/// Starts a server that asks for passwords on its port.
async fn server(env: &Env) -> Option<Server> {
    let mut server = Server::start(env, &["listen_addresses=127.0.0.1"]).await?;
    let hba = server.dir().join("hba.conf");
    fs::write(&hba, "local all all trust\nhost all all all scram-sha-256\n").expect("written");
    server.set(&[&format!("hba_file={}", hba.display())]);
    server.restart(env).await;
    server.sql(env, "CREATE ROLE chat LOGIN CREATEROLE PASSWORD 's3cret'").await;
    server.sql(env, "CREATE SCHEMA chat AUTHORIZATION chat").await;
    Some(server)
}

#[tokio::test]
async fn workers_of_a_launcher_have_logins_of_their_own_and_an_expelled_one_has_none() {
    let env = Env::new(RealWorld::temporary().expect("a directory"));
    let Some(server) = server(&env).await else { return };
    let at = format!("127.0.0.1:{}/postgres?options=-csearch_path%3Dchat", server.port());
    let store = format!("--store=postgres://chat:s3cret@{at}");
    let cluster = Cluster::start(&["--masters=1", "--workers=2", &store]);
    cluster.says("Chatchat is ready");
    let dir = cluster.dir.path();
    chatctl(dir, &["post", "written by a worker"]).expect("posted");

    for worker in ["worker-0", "worker-1"] {
        let files = fs::read_dir(dir.join(worker)).expect("a directory").flatten();
        for path in files.map(|entry| entry.path()).filter(|path| path.is_file()) {
            let bytes = fs::read(&path).expect("readable");
            let holds = bytes.windows(6).any(|bytes| bytes == b"s3cret");
            assert!(!holds, "{} holds the masters' password", path.display());
        }
    }
    let file = dir.join("worker-0/store.login");
    let mode = fs::metadata(&file).expect("a login").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(&file).expect("readable");
    let (user, password) = text.split_once('\n').expect("two lines");
    assert!(!cluster.logs().contains(password.trim_end()), "a password is logged");

    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}'");
    let until = async |what: &str, sql: &str, want: &dyn Fn(&str) -> bool| {
        let until = Instant::now() + WAIT;
        while !want(&server.sql(&env, sql).await[0]) {
            assert!(Instant::now() < until, "never: {what}; {}", cluster.logs());
            env.sleep(Duration::from_millis(50)).await;
        }
    };
    until("it is logged in", &sessions, &|count| count != "0").await;
    chatctl(dir, &["expel", "worker-0"]).expect("expelled");
    until("its sessions end", &sessions, &|count| count == "0").await;
    let may_log_in = format!("SELECT rolcanlogin FROM pg_roles WHERE rolname = '{user}'");
    assert_eq!(server.sql(&env, &may_log_in).await, ["f"]);
    chatctl(dir, &["post", "written by the other"]).expect("posted");
}
