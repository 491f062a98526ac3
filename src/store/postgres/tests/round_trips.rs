//! Round trips to the server: how many a batch takes, and that those of one fit into the time-out where
//! each takes a while.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
};

use super::{
    silent::{behind, listener},
    *,
};
use crate::{
    config::Config,
    model::ids::SessionKey,
    protocol::{
        task_queue::{Bounds, Entry, Origin, TaskId, TaskQueue},
        tries::FailedTries,
    },
};

/// Acquires the lease of the sessions of master 1.
async fn sessions(store: &Store) -> Permission {
    acquired(store, Resource::Sessions(holder(1).node), 1).await
}

fn author(n: u8) -> Author {
    Author { id: UserId([n; 16]), name: "Ada".parse().expect("a name") }
}

#[tokio::test]
async fn read_mark_takes_one_statement_for_the_digests_of_all_sessions_of_its_user() {
    let env = real_env();
    let Some(server) = Server::start(&env, &["log_statement=all"]).await else { return };
    let store = opened(&env, &server).await;
    let board = lobby(&store, 1).await;
    write(&store, &board, 1).await.expect("posted");
    let permission = sessions(&store).await;
    let key = SessionKey([1; 32]);
    let open = vec![Task::OpenSession { key, user: author(1) }];
    assert_eq!(write_at(&store, &permission, 1, open).await, Ok(vec![TaskResult::Done]));
    // In 240 other buckets.
    let more = "INSERT INTO chat.sessions (key, author, name, opened_at, used_at)
                SELECT decode(rpad(to_hex(n), 64, '0'), 'hex'), author, name, opened_at, used_at
                FROM chat.sessions, generate_series(16, 255) n";
    server.sql(&env, more).await;
    let statements = || {
        let log = std::fs::read_to_string(server.dir().join("log")).expect("a log");
        let of_digests = "INSERT INTO session_digests";
        log.lines().filter(|line| line.contains("execute") && line.contains(of_digests)).count()
    };
    let before = statements();
    assert!(before > 0, "statements are logged");
    let mark = vec![Task::SetReadMark { key, board: BoardName::lobby(), seq: Seq(1) }];
    assert_eq!(write_at(&store, &permission, 2, mark).await, Ok(vec![TaskResult::Done]));
    assert_eq!(statements() - before, 1);
    let changed = server.sql(&env, "SELECT count(*) FROM chat.session_digests").await;
    assert_eq!(changed, ["241"]);
}

/// Round trips of each connection: how often something was asked on it after an answer.
type Trips = Arc<Mutex<Vec<Arc<AtomicUsize>>>>;

/// Returns the round trips of each connection so far.
fn counts(trips: &Trips) -> Vec<usize> {
    let all = trips.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().map(|count| count.load(Ordering::Relaxed)).collect()
}

/// Relays connections to a server, and passes each answer on after a while.
async fn relay(env: Env, from: TcpListener, socket: PathBuf, late: Duration, trips: Trips) {
    loop {
        let (client, _) = from.accept().await.expect("a connection");
        let count = Arc::<AtomicUsize>::default();
        trips.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&count));
        let one = relay_one(env.clone(), client, socket.clone(), late, count);
        drop(env.spawn("test-relay", one));
    }
}

async fn relay_one(
    env: Env,
    mut client: TcpStream,
    socket: PathBuf,
    late: Duration,
    count: Arc<AtomicUsize>,
) {
    let is_answered = AtomicBool::new(false);
    client.set_nodelay(true).expect("set");
    let mut server = UnixStream::connect(socket).await.expect("it is up");
    let (mut requests, mut answered) = client.split();
    let (mut answers, mut asked) = server.split();
    let ask = async {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let read = requests.read(&mut chunk).await.unwrap_or(0);
            if is_answered.swap(false, Ordering::Relaxed) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            if read == 0 || asked.write_all(&chunk[..read]).await.is_err() {
                break;
            }
        }
    };
    let answer = async {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let read = answers.read(&mut chunk).await.unwrap_or(0);
            env.sleep(late).await;
            is_answered.store(true, Ordering::Relaxed);
            if read == 0 || answered.write_all(&chunk[..read]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        biased;
        () = ask => {}
        () = answer => {}
    }
}

/// Opens a store whose answers are late, and counts its round trips.
async fn far(env: &Env, server: &Server, late: Duration) -> (Store, Trips, TaskGuard) {
    let from = listener().await;
    let address = behind(&from);
    let socket = server.dir().join(format!(".s.PGSQL.{}", server.port()));
    let trips = Trips::default();
    let relay = relay(env.clone(), from, socket, late, Arc::clone(&trips));
    let relay = env.spawn("test-relay", relay).abort_on_drop();
    let store = open(env, address, ServerLimits::new(Duration::from_secs(1))).await;
    (store.expect("a store"), trips, relay)
}

#[tokio::test]
async fn batch_of_new_posts_takes_two_round_trips() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let near = opened(&env, &server).await;
    let permission = lobby(&near, 1).await;
    // What is sent without waiting leaves well within this time.
    let (store, trips, _relay) = far(&env, &server, Duration::from_millis(20)).await;
    let posts = |from: u64| (from..from + 64).map(post).collect();
    // Connects and prepares.
    write_at(&store, &permission, 1, posts(1)).await.expect("written");
    let before = counts(&trips);
    let written = write_at(&store, &permission, 2, posts(65)).await.expect("written");
    assert_eq!(written.len(), 64);
    let each = counts(&trips).into_iter().zip(before).map(|(now, before)| now - before);
    // Others are told on a connection of its own.
    assert_eq!(each.max(), Some(2));
}

#[tokio::test]
async fn many_redemptions_that_wait_settle_where_a_round_trip_takes_a_millisecond() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let near = opened(&env, &server).await;
    let permission = sessions(&near).await;
    // Eight tickets of each of 16 sessions.
    let key = |n: u8| SessionKey([200 + n / 8; 32]);
    let openings =
        (0..16).map(|n| Task::OpenSession { key: key(8 * n), user: author(n) }).collect();
    write_at(&near, &permission, 1, openings).await.expect("opened");
    let ticket = |n| Task::PutTicket { key: key(n), ticket_sha256: [n; 32] };
    write_at(&near, &permission, 2, (0..128).map(ticket).collect()).await.expect("kept");

    let (store, _, _relay) = far(&env, &server, Duration::from_millis(1)).await;

    // As a master has them written.
    let config = Config::default();
    let bounds = Bounds { tasks_max: 128, total_max: 128, resources_max: 1 };
    let mut queue = TaskQueue::new(bounds);
    let slot = queue.slot(&permission.resource).expect("room");
    for n in 0..128 {
        let task = Task::RedeemTicket { ticket_sha256: [n; 32], key: SessionKey([n; 32]) };
        let (id, origin, failed) = (TaskId(n.into()), Origin::Local, FailedTries::default());
        let entry = Entry { id, origin, sent: false, alone: false, failed, task };
        queue.push(slot, entry).expect("room");
    }
    let mut n = 2;
    let settled = async {
        while queue.waiting(slot) > 0 {
            let mut batches = Vec::new();
            for _ in 0..config.batches_in_flight {
                let mut batch = Vec::new();
                let (tasks_max, bytes_max) = (config.batch_tasks_max, config.batch_bytes_max);
                queue.take_batch(slot, tasks_max, bytes_max, &mut batch);
                if !batch.is_empty() {
                    batches.push(batch);
                }
            }
            let write = |batch: &Vec<Entry>| {
                n += 1;
                let tasks = batch.iter().map(|entry| entry.task.clone()).collect();
                write_at(&store, &permission, n, tasks)
            };
            let answers = join_all(batches.iter().map(write)).await;
            for (batch, answer) in batches.into_iter().zip(answers).rev() {
                match answer {
                    Ok(results) => {
                        let is_session = |it: &TaskResult| matches!(it, TaskResult::Session(_));
                        assert!(results.iter().all(is_session), "{results:?}");
                        queue.end(slot, batch.len());
                    }
                    Err(error) if error.is_away() => queue.put_back(slot, batch.into_iter()),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    env.timeout(Duration::from_secs(60), settled).await.expect("all settle");
    let sessions = server.sql(&env, "SELECT count(*) FROM chat.sessions").await;
    assert_eq!(sessions, ["144"]);
}
