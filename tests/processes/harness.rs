//! A cluster of real processes, as its launcher starts it, and what a test asks of it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use chatchat::{
    api::StreamEvent,
    client::{ChatClient, Follow, FollowEvent, Limits, MasterList, NoObserver},
    env::{Env, real::TempDir},
};

/// Longest time for one step on a busy machine.
pub(crate) const WAIT: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub(crate) process: Child,
    lines: Receiver<String>,
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
}

impl Cluster {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_in(TempDir::new().expect("a directory"), args)
    }

    pub(crate) fn start_in(dir: TempDir, args: &[&str]) -> Self {
        Self::start_at(free_ports(), dir, args)
    }

    /// Starts a cluster whose first master listens on this port and the two that go with it.
    pub(crate) fn start_at(port: u16, dir: TempDir, args: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_chatchat-cluster"))
            .arg("--data-dir")
            .arg(dir.path())
            .arg(format!("--http-port={port}"))
            // Smaller keys than the default, because those take long in a test.
            .args(["--identity-bits=2048"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let out = process.stdout.take().expect("it is piped");
        let (tell, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                println!("{line}");
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        Self { process, lines, dir, port }
    }

    /// Waits for a line on stdout that contains this.
    pub(crate) fn says(&self, what: &str) {
        let until = Instant::now() + WAIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|e| {
                panic!("never said {what:?}: {e}; {}", self.logs());
            });
            if line.contains(what) {
                return;
            }
        }
    }

    pub(crate) fn logs(&self) -> String {
        let logs = self.nodes().into_iter().map(|(name, _)| {
            let log = fs::read_to_string(self.dir.path().join(&name).join("log"));
            format!("\n{name}: {}", log.unwrap_or_default())
        });
        logs.collect()
    }

    /// Returns the names and process ids of the nodes that run.
    pub(crate) fn nodes(&self) -> Vec<(String, u32)> {
        let Ok(text) = fs::read_to_string(self.dir.path().join("cluster.json")) else {
            return Vec::new();
        };
        let listing: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let nodes = listing["nodes"].as_array().expect("a list").iter();
        nodes
            .filter_map(|node| {
                let pid = u32::try_from(node["pid"].as_u64()?).expect("a pid");
                Some((node["name"].as_str().expect("a name").to_owned(), pid))
            })
            .collect()
    }

    pub(crate) fn pid(&self, name: &str) -> u32 {
        let nodes = self.nodes();
        nodes.iter().find(|node| node.0 == name).unwrap_or_else(|| panic!("{name} runs")).1
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Fails only for a process that has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the first of the three ports of one master, all of them free.
pub(crate) fn free_ports() -> u16 {
    (0..100)
        .find_map(|_| {
            let free = TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = free.local_addr().expect("bound").port() % 20_000 + 10_000;
            let all = [port, port + 100, port + 200].map(|p| TcpListener::bind(("127.0.0.1", p)));
            all.iter().all(Result::is_ok).then_some(port)
        })
        .expect("three ports are free")
}

pub(crate) fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill is there");
    assert!(sent.success());
}

pub(crate) fn get(port: u16, path: &str) -> String {
    get_with(&format!("127.0.0.1:{port}"), path, "")
}

/// Asks with further lines of the header, each with its end.
fn get_with(addr: &str, path: &str, lines: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}Connection: close\r\n\r\n")
        .expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

/// Returns whether a process runs. An orphan that ended may stay a zombie if nothing reaps it.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("Z", |(_, rest)| &rest[..1]);
    state != "Z" && state != "X"
}

/// Runs `chatctl` on a cluster's directory; its output, or what it complains of.
pub(crate) fn chatctl(dir: &Path, args: &[&str]) -> Result<String, String> {
    let on = ["--data-dir", dir.to_str().expect("text")];
    chatctl_with_state(&dir.join("ctl"), &[&on[..], args].concat())
}

/// Runs `chatctl`, which keeps its sessions in this directory; as [`chatctl`].
pub(crate) fn chatctl_with_state(state: &Path, args: &[&str]) -> Result<String, String> {
    let ctl = Command::new(env!("CARGO_BIN_EXE_chatctl"))
        .env("XDG_STATE_HOME", state)
        .env_remove("CHATCHAT_STORE")
        .args(args)
        .output()
        .expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    if ctl.status.success() { Ok(text(ctl.stdout)) } else { Err(text(ctl.stderr)) }
}

/// Waits until this holds; `why` says what was seen when it never does.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool, why: impl Fn() -> String) {
    let until = Instant::now() + WAIT;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}; {}", why());
        thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the link address of a node from the listing.
pub(crate) fn link_of(cluster: &Cluster, name: &str) -> String {
    of_listing(cluster, name, "link")
}

/// Returns a text of a node's entry in `cluster.json`.
fn of_listing(cluster: &Cluster, name: &str, key: &str) -> String {
    let text = fs::read_to_string(cluster.dir.path().join("cluster.json")).expect("a listing");
    let listing: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let nodes = listing["nodes"].as_array().expect("a list");
    let node = nodes.iter().find(|node| node["name"] == name).expect("it runs");
    node[key].as_str().expect("an address").to_owned()
}

/// Returns what `/metrics` of a master says.
pub(crate) fn metrics_of(cluster: &Cluster, name: &str) -> String {
    let admin = of_listing(cluster, name, "admin");
    let addr = admin.strip_prefix("http://").expect("a plain listener");
    let token = cluster.dir.path().join(name).join("admin.token");
    let token = fs::read_to_string(token).expect("a token");
    get_with(addr, "/metrics", &format!("Authorization: Bearer {}\r\n", token.trim()))
}

/// Returns a client of these masters that begins at one of them, with a session of its own.
pub(crate) async fn person(env: &Env, masters: &[String], first: usize, name: &str) -> ChatClient {
    let masters = MasterList::new(masters, first).expect("there is a master");
    let client = ChatClient::new(env, masters, None, Limits::default(), Arc::new(NoObserver));
    client.open_session(name.parse().expect("a name"), WAIT).await.expect("a session");
    client
}

/// Returns the addresses of the first masters' front ends.
pub(crate) fn front_ends(cluster: &Cluster, count: u16) -> Vec<String> {
    (0..count).map(|nth| format!("http://127.0.0.1:{}", cluster.port + nth)).collect()
}

/// Waits for the next event of a page that `wanted` takes.
pub(crate) async fn next_of<T>(
    env: &Env,
    page: &mut Follow,
    what: &str,
    mut wanted: impl FnMut(&StreamEvent) -> Option<T>,
) -> T {
    let found = async {
        loop {
            match page.next().await {
                FollowEvent::Event(event) => {
                    if let Some(found) = wanted(&event) {
                        return found;
                    }
                }
                FollowEvent::Ended { why } => panic!("the session ended: {why}"),
                FollowEvent::Connected { .. } | FollowEvent::Disconnected { .. } => {}
            }
        }
    };
    env.timeout(WAIT, found).await.unwrap_or_else(|_| panic!("never: {what}"))
}
