//! A small cluster in one process: whole nodes over real sockets, a store in memory, and the
//! real client.

use std::{net::TcpListener, sync::Arc, time::Duration};

use super::*;
use crate::{
    api::Node,
    client::{ChatClient, Limits, Reply, Request, Roster, Unwatched, Wanted},
    comm::key_source::for_tests::TestKeys,
    config::Config,
    crypto::{
        admission::JoinSecret,
        keys::for_tests::{identity, rng},
    },
    env::{
        Env, TaskGuard,
        real::{RealWorld, TempDir},
    },
    model::{
        ids::{BoardName, Role, Seq, StoreEpoch},
        message::MemberState,
        rows::{JoinToken, Range},
        stream::Consistency,
    },
    store::{
        Store,
        sqlite::{NewCluster, memory},
    },
};

const SOON: Duration = Duration::from_secs(40);

fn config() -> Config {
    Config::default()
}

/// A port that was free a moment ago.
fn free_addr() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has one").to_string()
}

struct Cluster {
    store: Store,
    token: Arc<JoinSecret>,
    dirs: Vec<TempDir>,
    links: Vec<String>,
    https: Vec<String>,
    nodes: Vec<Option<TaskGuard>>,
}

impl Cluster {
    async fn start(masters: u8, workers: u8) -> Self {
        let world = RealWorld::temporary().expect("a directory of its own");
        let clock = Env::new(world);
        let now_ms = clock.wall().ms;
        let new = NewCluster { cluster: [1; 16], epoch: StoreEpoch(7), now_ms };
        let store = memory::open(&new, move || clock.wall().ms).expect("opens");
        let token = JoinSecret::random(&mut rng(5), &identity(100).fingerprint());
        let row = JoinToken {
            id: token.id,
            guard: *token.guard().expose(),
            bearer_sha256: token.bearer_sha256(),
            role: Role::Worker,
            uses_left: 100,
            ends_at_ms: now_ms + 3_600_000,
        };
        store.put_join_token(row).await.expect("kept");
        let mut cluster = Self {
            store,
            token: Arc::new(token),
            dirs: vec![],
            links: vec![],
            https: vec![],
            nodes: vec![],
        };
        for n in 0..masters {
            cluster.links.push(free_addr());
            cluster.https.push(free_addr());
            cluster.start_master(n);
        }
        for n in 0..workers {
            cluster.start_worker(n);
        }
        cluster
    }

    fn env(&mut self) -> Env {
        let dir = TempDir::new().expect("a directory");
        let env = Env::new(RealWorld::new(dir.path()).expect("usable"));
        self.dirs.push(dir);
        env
    }

    fn start_master(&mut self, n: u8) {
        let env = self.env();
        let (link, http) = (self.links[usize::from(n)].clone(), self.https[usize::from(n)].clone());
        let params = MasterParams {
            name: format!("m{n}"),
            config: config(),
            http_public: format!("http://{http}"),
            http_listen: http,
            link_public: link.clone(),
            link_listen: link,
            admin_listen: None,
            store: self.store.clone(),
            keys: TestKeys::from(100 + 20 * n),
        };
        let task = env.clone().spawn("master", async move {
            run_master(env, params, std::future::pending()).await.expect("it runs");
        });
        self.nodes.push(Some(task.abort_on_drop()));
    }

    fn start_worker(&mut self, n: u8) {
        let env = self.env();
        let params = WorkerParams {
            name: format!("w{n}"),
            config: config(),
            masters: self.links.clone(),
            // The first key that a node takes is its identity.
            pins: vec![identity(100).fingerprint(), identity(120).fingerprint()],
            token: Some(self.token.text().to_string()),
            store: self.store.clone(),
            keys: TestKeys::from(180 + 10 * n),
        };
        let task = env.clone().spawn("worker", async move {
            run_worker(env, params, std::future::pending()).await.expect("it runs");
        });
        self.nodes.push(Some(task.abort_on_drop()));
    }

    /// A client that begins at master `first`, with a session if it has one.
    fn client(&self, first: usize, token: Option<String>) -> ChatClient {
        let https: Vec<_> = self.https.iter().map(|http| format!("http://{http}")).collect();
        let roster = Roster::new(&https, first).expect("there is a master");
        let env = Env::new(RealWorld::temporary().expect("a directory of its own"));
        ChatClient::new(&env, roster, token, Limits::default(), Arc::new(Unwatched))
    }
}

async fn within<T>(client: &ChatClient, what: &str, work: impl Future<Output = T>) -> T {
    client.env().timeout(SOON, work).await.unwrap_or_else(|_| panic!("{what} took over {SOON:?}"))
}

async fn say(client: &ChatClient, text: &str) -> Seq {
    let text = text.parse().expect("a text");
    let lobby = BoardName::lobby();
    let sent = client.send(&lobby, client.new_post_id(), text);
    within(client, "a post", sent).await.expect("posted").seq
}

async fn read(client: &ChatClient, wanted: Wanted) -> (Vec<String>, Consistency) {
    let (board, range) = (BoardName::lobby(), Range::After(Seq(0)));
    let request = Request::Read { board, range, limit: 50, wanted };
    match client.call(&request, SOON).await {
        Ok(Reply::Page(page)) => {
            let texts = page.posts.iter().map(|post| post.text.as_str().to_owned()).collect();
            (texts, page.consistency)
        }
        other => panic!("{other:?}"),
    }
}

/// How many workers are registered with the client's master.
async fn workers_of_its_own(client: &ChatClient) -> usize {
    match client.call(&Request::Cluster, SOON).await {
        Ok(Reply::Cluster(seen)) => {
            let is_its_own = |node: &&Node| {
                (node.role, node.state, node.master) == (Role::Worker, MemberState::In, seen.node)
            };
            seen.nodes.iter().filter(is_its_own).count()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_go_in_over_any_master_and_outlive_the_worker_that_wrote_them() {
    let mut cluster = Cluster::start(2, 2).await;
    let ann = cluster.client(0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    assert_eq!(say(&ann, "one").await, Seq(1));
    let elsewhere = cluster.client(1, ann.token());
    assert_eq!(say(&elsewhere, "two").await, Seq(2));
    let strong = (vec!["one".to_owned(), "two".to_owned()], Consistency::Strong);
    assert_eq!(read(&ann, Wanted::Strong).await, strong);
    let weak = async {
        loop {
            let (texts, consistency) = read(&ann, Wanted::Weak).await;
            assert_eq!(consistency, Consistency::Weak);
            if texts == strong.0 {
                break;
            }
            ann.env().sleep(Duration::from_millis(50)).await;
        }
    };
    within(&ann, "a weak read of all", weak).await;
    // Of two workers one dies.
    cluster.nodes[2] = None;
    assert_eq!(say(&ann, "three").await, Seq(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_masters_death_moves_its_workers_and_its_people() {
    let mut cluster = Cluster::start(2, 2).await;
    let ann = cluster.client(0, None);
    ann.open_session("ann".parse().expect("a name"), SOON).await.expect("a session");
    assert_eq!(say(&ann, "one").await, Seq(1));
    let bob = cluster.client(1, None);
    bob.open_session("bob".parse().expect("a name"), SOON).await.expect("a session");
    // The coordinator of the lobby dies.
    cluster.nodes[0] = None;
    assert_eq!(say(&bob, "two").await, Seq(2));
    assert_eq!(say(&ann, "three").await, Seq(3));
    assert!(ann.master().ends_with(&cluster.https[1]), "{ann:?}");
    let moved = async {
        while workers_of_its_own(&bob).await < 2 {
            bob.env().sleep(Duration::from_millis(100)).await;
        }
    };
    within(&bob, "the move of both workers", moved).await;
}
