//! Servers, databases and schemas that may hold no store, and two openers at once.

use super::*;

/// Opens the store of the schema `chat`, and returns what is refused.
pub(super) async fn refusal(env: &Env, server: &Server, limits: ServerLimits) -> String {
    match open(env, address(&server.url("chat")), limits).await {
        Err(StoreError::Refused { why }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_openers_at_once_make_one_store() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    server.sql(&env, "CREATE SCHEMA chat").await;
    let open = || open(&env, address(&server.url("chat")), ServerLimits::new(PATIENT));
    let (one, other, third) = tokio::join!(open(), open(), open());
    let mut clusters = Vec::new();
    for store in [one, other, third] {
        clusters.push(store.expect("opened").cluster().await.expect("a cluster").cluster);
    }
    assert!(clusters.iter().all(|cluster| *cluster == clusters[0]), "{clusters:?}");
    assert_eq!(server.sql(&env, "SELECT count(*) FROM chat.chatchat_store").await, ["1"]);
}

#[tokio::test]
async fn server_that_may_forget_a_commit_is_refused() {
    let env = real_env();
    let Some(mut server) = Server::start(&env, &["fsync=off"]).await else { return };
    server.sql(&env, "CREATE SCHEMA chat").await;
    let why = refusal(&env, &server, ServerLimits::new(PATIENT)).await;
    assert!(why.contains("fsync is off"), "{why}");
    server.set(&["fsync=on"]);
    server.restart(&env).await;
    server.sql(&env, "ALTER ROLE chatchat SET synchronous_commit = off").await;
    let why = refusal(&env, &server, ServerLimits::new(PATIENT)).await;
    assert!(why.contains("synchronous_commit is off"), "{why}");
    server.sql(&env, "ALTER ROLE chatchat RESET synchronous_commit").await;
    open(&env, address(&server.url("chat")), ServerLimits::new(PATIENT)).await.expect("a store");
}

#[tokio::test]
async fn schema_that_holds_no_store_is_refused_and_left_alone() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let limits = ServerLimits::new(PATIENT);
    let why = refusal(&env, &server, limits).await;
    assert!(why.contains("is not there"), "no schema: {why}");
    server.sql(&env, "CREATE SCHEMA chat; CREATE TABLE chat.posts (of_others TEXT)").await;
    let why = refusal(&env, &server, limits).await;
    assert!(why.contains("another program"), "{why}");
    server.sql(&env, "DROP TABLE chat.posts").await;
    let worker = ServerLimits { expected: Expected::Existing, may_upgrade: false, ..limits };
    let why = refusal(&env, &server, worker).await;
    assert!(why.contains("no store was made"), "a worker makes none: {why}");
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'chat'";
    assert_eq!(server.sql(&env, tables).await, ["0"]);

    let store = open(&env, address(&server.url("chat")), limits).await.expect("made");
    let cluster = store.cluster().await.expect("a cluster").cluster;
    let other = ServerLimits { expected: Expected::Cluster([0; 16]), ..limits };
    let why = refusal(&env, &server, other).await;
    assert!(why.contains("the store of cluster"), "{why}");
    let same = ServerLimits { expected: Expected::Cluster(cluster), ..limits };
    open(&env, address(&server.url("chat")), same).await.expect("its own");

    server.sql(&env, "UPDATE chat.chatchat_store SET min_reader = 99").await;
    let why = refusal(&env, &server, limits).await;
    assert!(why.contains("step 99"), "{why}");
    server.sql(&env, "UPDATE chat.chatchat_store SET min_reader = 1, steps = 0").await;
    let away = open(&env, address(&server.url("chat")), worker).await.expect("it may come");
    let why = away.boards().await.expect_err("a step is missing").to_string();
    assert!(why.contains("0 of the 1 steps"), "{why}");
}

#[tokio::test]
async fn store_that_lost_a_table_is_away_and_never_made_again() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    store.boards().await.expect("it is there");
    server.sql(&env, "DROP SCHEMA chat CASCADE; CREATE SCHEMA chat").await;
    let gone = store.boards().await.expect_err("it is gone");
    assert!(gone.is_away(), "{gone}");
    let gone = store.masters().await.expect_err("it is gone");
    assert!(gone.is_away(), "{gone}");
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'chat'";
    assert_eq!(server.sql(&env, tables).await, ["0"]);
}

#[tokio::test]
async fn wrong_password_is_refused_and_told_nowhere() {
    let env = real_env();
    let settings = ["listen_addresses=127.0.0.1"];
    let Some(mut server) = Server::start(&env, &settings).await else { return };
    server.sql(&env, "CREATE ROLE ada LOGIN PASSWORD 's3cret'").await;
    server.sql(&env, "CREATE SCHEMA chat AUTHORIZATION ada").await;
    let hba = server.dir().join("hba.conf");
    std::fs::write(&hba, "local all all trust\nhost all all all scram-sha-256\n").expect("written");
    server.set(&[&format!("hba_file={}", hba.display())]);
    server.restart(&env).await;
    let url = |password: &str| {
        let at = format!("127.0.0.1:{}", server.port());
        format!("postgres://ada:{password}@{at}/postgres?options=-csearch_path%3Dchat")
    };
    let limits = ServerLimits::new(PATIENT);
    let wrong = open(&env, address(&url("wr0ng")), limits).await.expect_err("refused");
    let text = format!("{wrong} {wrong:?}");
    assert!(matches!(wrong, StoreError::Refused { .. }) && !text.contains("wr0ng"), "{text}");
    let store = open(&env, address(&url("s3cret")), limits).await.expect("opened");
    store.boards().await.expect("as a role of its own");
    let file = server.dir().join("password");
    std::fs::write(&file, "s3cret\n").expect("written");
    let by_file = format!("{}&password_file={}", url(""), file.display()).replace("ada:@", "ada@");
    open(&env, address(&by_file), limits).await.expect("opened").boards().await.expect("read");
}
