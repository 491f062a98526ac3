//! Users of workers: made by a master's user, with a worker's rights and no more, and closed with an
//! expulsion.

use super::*;
use crate::{
    model::{
        ids::{Fingerprint, Role, SessionKey},
        login::{StoreLogin, StorePassword, StoreUser},
        rows::{Enrolled, JoinToken},
    },
    store::LoginSlot,
};

/// Settings of a server that asks for passwords on its port, and none on its socket.
async fn with_passwords(env: &Env) -> Option<Server> {
    let mut server = Server::start(env, &["listen_addresses=127.0.0.1"]).await?;
    let hba = server.dir().join("hba.conf");
    std::fs::write(&hba, "local all all trust\nhost all all all scram-sha-256\n").expect("written");
    server.set(&[&format!("hba_file={}", hba.display())]);
    server.restart(env).await;
    Some(server)
}

/// URL of the schema on the server's port, for a user such as `ada:s3cret@`.
fn url(server: &Server, user: &str, schema: &str) -> String {
    let port = server.port();
    format!("postgres://{user}127.0.0.1:{port}/postgres?options=-csearch_path%3D{schema}")
}

fn password(n: u8) -> StorePassword {
    StorePassword::new([n; 32])
}

/// Enrols a node of this number.
async fn enrolled(store: &Store, n: u8) -> NodeId {
    let fingerprint = Fingerprint([n; 32]);
    let node = NodeId::of(&fingerprint);
    let ends_at_ms = store.cluster().await.expect("a cluster").now_ms + 60_000;
    let (role, guard) = (Role::Worker, [n; 32]);
    let token =
        JoinToken { id: [n; 8], guard, bearer_sha256: guard, role, uses_left: 1, ends_at_ms };
    store.put_join_token(token).await.expect("put");
    let row = Enrolled { node, fingerprint, role, guard };
    store.enrol([n; 8], guard, row).await.expect("enrolled");
    node
}

/// Makes a login, and opens the store with it as a worker does.
async fn worker(
    env: &Env,
    master: &Store,
    node: NodeId,
    url: &str,
) -> (Store, LoginSlot, StoreUser) {
    let slot = LoginSlot::default();
    let limits = ServerLimits {
        expected: Expected::Existing,
        may_upgrade: false,
        ..ServerLimits::new(PATIENT)
    };
    let store =
        open_with(env, address(url), Some(slot.clone()), limits).await.expect("it may come");
    let away = store.boards().await.expect_err("there is no login yet");
    assert!(away.is_away() && away.to_string().contains("no master has given"), "{away}");

    let user = master.put_login(node, password(1)).await.expect("made").expect("a user");
    slot.set(StoreLogin { user: user.clone(), password: password(9) });
    let away = store.boards().await.expect_err("a wrong password");
    assert!(away.is_away() && slot.is_wanted(), "{away}");
    assert!(!format!("{away} {away:?}").contains(password(9).text().as_str()), "{away}");

    let again = master.put_login(node, password(2)).await.expect("made again");
    assert_eq!(again.as_ref(), Some(&user));
    slot.set(StoreLogin { user: user.clone(), password: password(2) });
    store.boards().await.expect("it has the login");
    assert!(!slot.is_wanted());
    (store, slot, user)
}

/// Writes each kind of task and reads all that a worker reads.
async fn work(master: &Store, worker: &Store, node: NodeId) {
    let at = |resource: Resource| async {
        let lease = master.acquire_lease(resource.clone(), holder(1), 3000).await;
        let Ok(Lease::Granted { epoch, lease, .. }) = lease else { panic!("{lease:?}") };
        Permission { resource, token: Token { epoch, lease, n: 1 }, after: None, worker: node }
    };
    let board: BoardName = "garden".parse().expect("a name");
    let of_board = at(Resource::Board(board.clone())).await;
    let made = worker.write(of_board, Arc::new(vec![Task::CreateBoard { board: board.clone() }]));
    assert_eq!(made.await.expect("made"), [TaskResult::Done]);
    let of_lobby = at(Resource::Board(BoardName::lobby())).await;
    let posts: Vec<_> = (1..=3).chain([1]).map(post).collect();
    let posted = worker.write(of_lobby, Arc::new(posts)).await.expect("written");
    assert_eq!(posted.len(), 4);

    let (key, new_key) = (SessionKey([1; 32]), SessionKey([2; 32]));
    let user = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
    let ticket_sha256 = [4; 32];
    let tasks = vec![
        Task::OpenSession { key, user: user.clone() },
        Task::SetReadMark { key, board: BoardName::lobby(), seq: Seq(1) },
        Task::SetReadMark { key, board: BoardName::lobby(), seq: Seq(2) },
        Task::PutTicket { key, ticket_sha256 },
        Task::RedeemTicket { ticket_sha256, key: new_key },
        Task::CancelPost { user: user.id, id: PostId([9; 16]) },
        Task::CloseSession { key },
    ];
    let count = tasks.len();
    let of_people = at(Resource::Sessions(NodeId([1; 16]))).await;
    let results = worker.write(of_people, Arc::new(tasks)).await.expect("written");
    let is_refused = |it: &TaskResult| matches!(it, TaskResult::Refused { .. });
    assert!(results.len() == count && !results.iter().any(is_refused), "{results:?}");

    assert_eq!(seqs(worker).await, in_order(3));
    assert_eq!(worker.boards().await.expect("read").boards.len(), 2);
    worker.masters().await.expect("read");
    worker.closed_since(0).await.expect("read");
    worker.session_digests().await.expect("read");
    worker.sessions(new_key.0[0], None).await.expect("read");
    worker.find_session(new_key).await.expect("read").expect("it is open");
    worker.find_post(user.id, PostId([9; 16])).await.expect("read");
}

/// Waits until nobody is logged in as this user.
async fn is_out(env: &Env, server: &Server, user: &StoreUser) {
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}'");
    let out = async {
        while server.sql(env, &count).await != ["0"] {
            env.sleep(Duration::from_millis(20)).await;
        }
    };
    env.timeout(PATIENT, out).await.expect("its sessions end");
}

#[tokio::test]
async fn worker_has_a_login_of_its_own_until_it_is_expelled() {
    let env = real_env();
    let Some(server) = with_passwords(&env).await else { return };
    server.sql(&env, "CREATE ROLE boss LOGIN CREATEROLE PASSWORD 's3cret'").await;
    server.sql(&env, "CREATE SCHEMA one; CREATE SCHEMA two AUTHORIZATION boss").await;
    for (schema, master) in
        [("one", server.url("one")), ("two", url(&server, "boss:s3cret@", "two"))]
    {
        let master = open(&env, address(&master), ServerLimits::new(PATIENT)).await.expect("made");
        assert_eq!(master.makes_logins().await, Ok(true));
        let (node, other) = (enrolled(&master, 1).await, enrolled(&master, 2).await);
        let (store, slot, user) = worker(&env, &master, node, &url(&server, "", schema)).await;
        let reader = master.new_ends();
        let owner = if schema == "one" { "chatchat" } else { "boss" };
        let listens = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE query LIKE 'LISTEN%' AND state = 'idle' AND usename = '{owner}'"
        );
        away::until_some(&env, &server, &listens).await;
        work(&master, &store, node).await;
        env.timeout(PATIENT, reader.next()).await.expect("the worker's login notifies");

        let refused = [
            store.admission().await.err(),
            store
                .put_join_token(master.admission().await.expect("lists").tokens[0].clone())
                .await
                .err(),
            store.put_login(node, password(3)).await.err(),
            store.deny(other).await.err(),
        ];
        assert!(refused.iter().all(Option::is_some), "{refused:?}");
        let rights = format!(
            "SELECT has_table_privilege(u, '{schema}.enrolled', 'SELECT')
                 OR has_table_privilege(u, '{schema}.join_tokens', 'SELECT')
                 OR has_column_privilege(u, '{schema}.masters', 'guard', 'SELECT')
                 OR has_schema_privilege(u, '{schema}', 'CREATE')
                 OR has_table_privilege(u, '{schema}.posts', 'UPDATE, DELETE, TRUNCATE')
                 OR (SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = u)
             FROM (SELECT '{user}'::name) of (u)"
        );
        assert_eq!(server.sql(&env, &rights).await, ["f"]);
        let kept = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'");
        let kept = server.sql(&env, &kept).await;
        assert!(kept[0].starts_with("SCRAM-SHA-256$4096:"), "{kept:?}");

        let logged_in =
            format!("SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = '{user}'");
        assert_eq!(server.sql(&env, &logged_in).await, ["t"]);
        for _ in 0..2 {
            master.deny(node).await.expect("denied");
            is_out(&env, &server, &user).await;
            let away = store.boards().await.expect_err("it may not log in");
            assert!(away.is_away() && slot.is_wanted(), "{away}");
        }
        let refused = master.put_login(node, password(4)).await;
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
        master.deny(other).await.expect("one that never had a login");
    }
}

#[tokio::test]
async fn user_that_may_make_no_others_says_so_and_still_expels() {
    let env = real_env();
    let Some(server) = with_passwords(&env).await else { return };
    server.sql(&env, "CREATE ROLE ada LOGIN CREATEROLE PASSWORD 's3cret'").await;
    server.sql(&env, "CREATE SCHEMA chat AUTHORIZATION ada").await;
    let at = address(&url(&server, "ada:s3cret@", "chat"));
    let master = open(&env, at, ServerLimits::new(PATIENT)).await.expect("made");
    let (node, other) = (enrolled(&master, 1).await, enrolled(&master, 2).await);
    let user = master.put_login(node, password(1)).await.expect("made").expect("a user");
    server.sql(&env, "ALTER ROLE ada NOCREATEROLE").await;
    assert_eq!(master.makes_logins().await, Ok(false));
    let Err(StoreError::Refused { why }) = master.put_login(other, password(1)).await else {
        panic!("it made one");
    };
    assert!(why.contains("CREATEROLE"), "{why}");
    master.deny(other).await.expect("it has no user");
    let Err(StoreError::Refused { why }) = master.deny(node).await else { panic!("it did") };
    assert!(why.contains(&format!("ALTER ROLE {user} NOLOGIN")), "{why}");
    assert!(master.admission().await.expect("lists").denied.contains(&node), "all the same");
    server.sql(&env, "ALTER ROLE ada CREATEROLE").await;
    master.deny(node).await.expect("it may again");
    let closed = format!("SELECT rolcanlogin FROM pg_roles WHERE rolname = '{user}'");
    assert_eq!(server.sql(&env, &closed).await, ["f"]);
}
