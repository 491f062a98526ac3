//! Servers that take connections and answer nothing, or late.

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, UnixStream},
};

use super::{
    queue::{JobReceiver, JobSender, queue},
    *,
};
use crate::store::job::WAITING_MAX;

/// Time between two calls of one queue.
const CALL_INTERVAL: Duration = Duration::from_millis(2);

/// Number of calls of one queue: more than its places before the first try to connect has ended, and
/// some after that.
const CALLS: u32 = 1750;

const _: () = assert!(CALLS as usize > WAITING_MAX);

/// Address of the store behind a listener.
pub(super) fn behind(listener: &TcpListener) -> Address {
    let at = listener.local_addr().expect("bound");
    address(&format!("postgres://chatchat@{at}/postgres?options=-csearch_path%3Dchat"))
}

pub(super) async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port")
}

#[tokio::test]
async fn every_call_is_away_and_none_busy_while_the_server_is_silent() {
    let env = real_env();
    // The system takes the connections; nobody reads from them.
    let silent = listener().await;
    let limits = ServerLimits::new(Duration::from_millis(20));
    let (store, _opened) = start(&env, behind(&silent), None, limits, None);
    let (user, id) = (UserId([1; 16]), PostId([1; 16]));
    let one_of_each_queue = |nth: u32| {
        let (env, store) = (&env, &store);
        async move {
            env.sleep(CALL_INTERVAL * nth).await;
            let lobby = Resource::Board(BoardName::lobby());
            let (life, lease, write, read) = tokio::join!(
                store.boards(),
                store.wish(lobby, holder(1)),
                store.drop_dead_letter(1),
                store.find_post(user, id),
            );
            [life.err(), lease.err(), write.err(), read.err()]
        }
    };
    let answers = futures_util::future::join_all((0..CALLS).map(one_of_each_queue)).await;
    for error in answers.iter().flatten() {
        assert!(error.as_ref().is_some_and(StoreError::is_away), "{error:?}");
    }
}

#[tokio::test]
async fn step_of_connecting_that_takes_too_long_is_named_with_its_time() {
    let env = real_env();
    let silent = listener().await;
    let shared = Shared::new(&env, behind(&silent), None, ServerLimits::new(PATIENT), None);
    let endless = std::future::pending::<Result<(), StoreError>>();
    let undone = "the tables were not made or upgraded";
    let late = shared.in_time(Duration::from_secs(1), undone, endless).await;
    let why = "the tables were not made or upgraded within 1 s";
    assert_eq!(late, Err(StoreError::away(AwayReason::Unreachable, why)));
    let late = shared.connect().await.map(drop).expect_err("nobody answers");
    assert!(late.to_string().contains("no connection within 3 s"), "{late}");
}

/// Starts a worker of the pool for the store behind a listener; its queue has these ends.
fn working(env: &Env, listener: &TcpListener) -> (JobSender, JobReceiver) {
    let limits = ServerLimits::new(PATIENT);
    let shared = Arc::new(Shared::new(env, behind(listener), None, limits, None));
    let (to, from) = queue();
    let worker = Worker { shared, queue: from.clone(), ready: None };
    drop(env.spawn("store-worker", worker.run()));
    (to, from)
}

/// Calls without waiting for the answer.
fn call(to: &JobSender) -> oneshot::Receiver<Answer> {
    let (reply, answer) = oneshot::channel();
    to.send(Job { op: Op::Boards, reply }).expect("room");
    answer
}

#[tokio::test]
async fn connection_that_fails_is_the_answer_to_all_who_wait_for_it() {
    let env = real_env();
    let server = listener().await;
    let (to, from) = working(&env, &server);
    let mut waiting = vec![call(&to)];
    let tried = env.timeout(PATIENT, server.accept()).await.expect("in time");
    waiting.extend((0..10).map(|_| call(&to)));
    drop(call(&to));
    drop(tried);
    for answer in waiting {
        let answer = env.timeout(PATIENT, answer).await.expect("in time").expect("answered");
        assert!(answer.as_ref().is_err_and(StoreError::is_away), "{answer:?}");
    }
    assert_eq!(from.len(), 0);

    drop(call(&to));
    let again = env.timeout(Duration::from_millis(200), server.accept()).await;
    assert!(again.is_err(), "nobody waits for a connection any more");

    let _waits = call(&to);
    let again = env.timeout(PATIENT, server.accept()).await;
    assert!(again.is_ok(), "somebody waits for one");
}

#[tokio::test]
async fn connection_that_comes_late_serves_the_next_call() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    drop(opened(&env, &server).await);
    let slow = listener().await;
    let limits = ServerLimits::new(Duration::from_secs(1));
    let (store, _opened) = start(&env, behind(&slow), None, limits, None);
    let socket = server.dir().join(format!(".s.PGSQL.{}", server.port()));
    let proxy = async {
        loop {
            let (mut client, _) = slow.accept().await.expect("a connection");
            let (late, socket) = (env.clone(), socket.clone());
            let forward = async move {
                late.sleep(Duration::from_millis(1500)).await;
                let mut server = UnixStream::connect(socket).await.expect("it is up");
                let _ = copy_bidirectional(&mut client, &mut server).await;
            };
            drop(env.spawn("test-proxy", forward));
        }
    };
    let calls = async {
        let early = store.boards().await.expect_err("there is no connection yet");
        assert!(early.is_away(), "{early}");
        while let Err(error) = store.boards().await {
            assert!(error.is_away(), "{error}");
            env.sleep(Duration::from_millis(10)).await;
        }
    };
    let called = env.timeout(PATIENT, async {
        tokio::select! {
            biased;
            () = calls => {}
            () = proxy => {}
        }
    });
    called.await.expect("a call is served");
}
