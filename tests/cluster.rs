//! Tests of a whole cluster as an operator starts it: real processes, real signals.
#![expect(clippy::disallowed_methods, reason = "this watches processes from outside, in real time")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use chatchat::{crypto::admission::JoinSecret, env::real::TempDir, model::ids::Fingerprint};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

/// Longest time for one step on a busy machine.
const WAIT: Duration = Duration::from_secs(60);

struct Cluster {
    process: Child,
    lines: Receiver<String>,
    dir: TempDir,
    port: u16,
}

impl Cluster {
    fn start(args: &[&str]) -> Self {
        let dir = TempDir::new().expect("a directory");
        let port = free_ports();
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
    fn says(&self, what: &str) {
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

    fn logs(&self) -> String {
        let logs = self.nodes().into_iter().map(|(name, _)| {
            let log = fs::read_to_string(self.dir.path().join(&name).join("log"));
            format!("\n{name}: {}", log.unwrap_or_default())
        });
        logs.collect()
    }

    /// Returns the names and process ids of the nodes that run.
    fn nodes(&self) -> Vec<(String, u32)> {
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

    fn pid(&self, name: &str) -> u32 {
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
fn free_ports() -> u16 {
    (0..100)
        .find_map(|_| {
            let free = TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = free.local_addr().expect("bound").port() % 20_000 + 10_000;
            let all = [port, port + 100, port + 200].map(|p| TcpListener::bind(("127.0.0.1", p)));
            all.iter().all(Result::is_ok).then_some(port)
        })
        .expect("three ports are free")
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill is there");
    assert!(sent.success());
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

/// Returns whether a process runs. An orphan that ended may stay a zombie if nothing reaps it.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("Z", |(_, rest)| &rest[..1]);
    state != "Z" && state != "X"
}

/// Runs a master for a while, or until it ends, with stdout and stderr on a full disk.
fn run_on_full_disk(args: &[&str]) -> Option<i32> {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let (dir, port) = (TempDir::new().expect("a directory"), free_ports());
    let mut process = Command::new(env!("CARGO_BIN_EXE_chatchat-master"))
        .arg("--data-dir")
        .arg(dir.path())
        .arg(format!("--http=127.0.0.1:{port}"))
        .arg(format!("--link=127.0.0.1:{}", port + 100))
        .args(["--admin=off", "--identity-bits=2048"])
        .args(args)
        .stdout(full())
        .stderr(full())
        .spawn()
        .expect("it starts");
    let until = Instant::now() + WAIT;
    let code = loop {
        if let Some(status) = process.try_wait().expect("it is our child") {
            break status.code();
        }
        if Instant::now() > until {
            break None;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() && get(port, "/healthz").contains("200")
        {
            // Lines about its start are behind it; it has to live on.
            thread::sleep(Duration::from_secs(1));
            break process.try_wait().expect("it is our child").and_then(|status| status.code());
        }
        thread::sleep(Duration::from_millis(50));
    };
    let _ = process.kill();
    let _ = process.wait();
    code
}

#[test]
fn node_lives_on_a_full_log_disk_and_answers_that_cannot_be_written_are_errors() {
    assert_eq!(run_on_full_disk(&[]), None, "it serves on");
    assert_eq!(run_on_full_disk(&["--check-config"]), Some(1));
}

#[test]
fn cluster_reports_ready_restarts_a_killed_node_and_stops_on_sigint() {
    let mut cluster = Cluster::start(&["--masters=1", "--workers=2", "--restart"]);
    cluster.says("Chatchat is ready");
    cluster.says(&format!("http://127.0.0.1:{}", cluster.port));
    assert!(get(cluster.port, "/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(cluster.nodes().len(), 3);

    let victim = cluster.pid("worker-1");
    signal("-KILL", victim);
    cluster.says("worker-1 ended (signal 9)");
    cluster.says("worker-1 is started again");
    cluster.says("worker-1 joined master-0");
    assert_ne!(cluster.pid("worker-1"), victim);

    let nodes = cluster.nodes();
    signal("-INT", cluster.process.id());
    cluster.says("stopping");
    assert!(cluster.process.wait().expect("it ends").success());
    for (name, pid) in nodes {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{name} still runs");
    }
    assert!(cluster.nodes().is_empty(), "the listing says that nothing runs");
}

#[test]
fn cluster_outlives_a_listing_and_a_log_that_cannot_be_written_and_leaves_one_store_file() {
    let mut cluster = Cluster::start(&["--masters=1", "--workers=1", "--restart"]);
    cluster.says("Chatchat is ready");
    let (dir, worker) = (cluster.dir.path().to_owned(), cluster.pid("worker-0"));
    // Directories in the place of the files, so that neither can be written.
    fs::create_dir_all(dir.join(".cluster.json.new/full")).expect("made");
    fs::remove_file(dir.join("worker-0/log")).expect("removed");
    fs::create_dir(dir.join("worker-0/log")).expect("made");
    signal("-KILL", worker);
    cluster.says("cluster.json");
    cluster.says("worker-0 joined master-0");
    assert!(get(cluster.port, "/readyz").starts_with("HTTP/1.1 200"));
    signal("-TERM", cluster.process.id());
    assert!(cluster.process.wait().expect("it ends").success());
    let log = fs::metadata(dir.join("chatchat.db-wal")).map_or(0, |file| file.len());
    assert_eq!(log, 0, "the store's file is the whole store");
}

#[test]
fn nodes_end_when_their_supervisor_is_killed() {
    let mut cluster = Cluster::start(&["--masters=1", "--workers=1"]);
    cluster.says("Chatchat is ready");
    let nodes = cluster.nodes();
    assert_eq!(nodes.len(), 2);
    cluster.process.kill().expect("killed");
    cluster.process.wait().expect("gone");
    let until = Instant::now() + WAIT;
    while let Some((name, _)) = nodes.iter().find(|(_, pid)| runs(*pid)) {
        assert!(Instant::now() < until, "{name} still runs");
        thread::sleep(Duration::from_millis(20));
    }
}

fn refused(program: &str, args: &[&str]) -> String {
    let ended = Command::new(program).args(args).output().expect("it starts");
    let said = String::from_utf8(ended.stderr).expect("a text");
    assert_eq!(ended.status.code(), Some(2), "{said}");
    let mut lines: Vec<_> = said.lines().collect();
    let last = lines.pop().unwrap_or_default().to_owned();
    // The lines before the last are its log.
    let is_log =
        |line: &&str| [" INFO ", " WARN ", " ERROR "].iter().any(|level| line.contains(level));
    assert!(lines.iter().all(is_log), "{said}");
    last
}

#[test]
fn hang_up_opens_logs_anew_and_ends_nothing() {
    let cluster = Cluster::start(&["--masters=1", "--workers=1"]);
    cluster.says("Chatchat is ready");
    let log = cluster.dir.path().join("master-0/log");
    fs::rename(&log, log.with_extension("old")).expect("moved");
    signal("-HUP", cluster.process.id());
    let until = Instant::now() + WAIT;
    while !fs::read_to_string(&log).is_ok_and(|text| text.contains("SIGHUP")) {
        assert!(Instant::now() < until, "{}", cluster.logs());
        thread::sleep(Duration::from_millis(20));
    }
    assert!(get(cluster.port, "/readyz").starts_with("HTTP/1.1 200"));
}

#[test]
fn wrong_call_is_refused_with_one_line_and_exit_code_2() {
    let dir = TempDir::new().expect("a directory");
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let text = |path: &PathBuf| path.to_str().expect("a text").to_owned();
    let cluster = env!("CARGO_BIN_EXE_chatchat-cluster");
    let master = env!("CARGO_BIN_EXE_chatchat-master");
    let worker = env!("CARGO_BIN_EXE_chatchat-worker");
    let pin = format!("--pins={}", "ab".repeat(32));

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound").to_string();
    let data = text(&path("data"));
    let said = refused(master, &["--data-dir", &data, "--http", &addr, "--admin=off"]);
    assert!(said.contains(&addr) && said.contains("choose another with --http"), "{said}");

    let open = ["--data-dir", &data, "--http=0.0.0.0:1", "--http-public=http://chat.example"];
    let said = refused(master, &open);
    assert!(said.contains("--tls-cert FILE") && said.contains("--behind-proxy"), "{said}");

    let port = addr.rsplit_once(':').expect("a port").1;
    let said = refused(cluster, &["--data-dir", &text(&path("cluster")), "--http-port", port]);
    assert!(said.contains(&addr) && said.contains("choose another with --http-port"), "{said}");

    fs::write(path("typo.toml"), "lease_tll = \"3s\"\n").expect("written");
    let said = refused(cluster, &["--config", &text(&path("typo.toml"))]);
    assert!(said.contains("unknown key lease_tll"), "{said}");

    fs::create_dir_all(&data).expect("made");
    fs::write(path("data/identity.key"), "half a key").expect("written");
    let said = refused(worker, &["--data-dir", &data, "--masters=127.0.0.1:1", &pin]);
    assert!(said.contains("identity.key") && said.contains("restore it"), "{said}");

    let fresh = text(&path("fresh"));
    let args = ["--data-dir", &fresh, "--masters=127.0.0.1:1", &pin, "--identity-bits=2048"];
    let said = refused(worker, &args);
    assert!(said.contains("join token"), "{said}");

    fs::write(path("fresh/guard.key"), "half a guard").expect("written");
    let secret = JoinSecret::random(&mut ChaCha20Rng::from_seed([7; 32]), &Fingerprint([7; 32]));
    let token = format!("--token={}", *secret.text());
    let said = refused(worker, &[&args[..], &[&token]].concat());
    assert!(said.contains("guard.key"), "{said}");
}

/// Returns the link address of a node from the listing.
fn link_of(cluster: &Cluster, name: &str) -> String {
    let text = fs::read_to_string(cluster.dir.path().join("cluster.json")).expect("a listing");
    let listing: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let nodes = listing["nodes"].as_array().expect("a list");
    let node = nodes.iter().find(|node| node["name"] == name).expect("it runs");
    node["link"].as_str().expect("an address").to_owned()
}

#[test]
fn garbage_at_the_link_port_is_logged_once_with_a_reason_and_workers_still_join() {
    let cluster = Cluster::start(&["--masters=1", "--workers=1", "--restart"]);
    cluster.says("Chatchat is ready");
    let link = link_of(&cluster, "master-0");
    let over_long = [&[0xff; 8][..], &[0; 64]].concat();
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &over_long, &[0; 4096]] {
        let mut stream = TcpStream::connect(&link).expect("it listens");
        // The master may close the connection before it has read everything.
        let _ = stream.write_all(garbage);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "strangers are told nothing: {answer:?}");
    }
    // The log line may appear after the connection is closed.
    let until = Instant::now() + WAIT;
    loop {
        let log = fs::read_to_string(cluster.dir.path().join("master-0/log")).expect("a log");
        let told = log.lines().filter(|line| line.contains("a node was not taken in"));
        // What strangers cause is logged once a minute; the others are counted.
        if told.filter(|line| line.contains("error=")).count() == 1 {
            break;
        }
        assert!(Instant::now() < until, "{log}");
        thread::sleep(Duration::from_millis(20));
    }
    signal("-KILL", cluster.pid("worker-0"));
    cluster.says("worker-0 joined master-0");
    assert!(get(cluster.port, "/readyz").starts_with("HTTP/1.1 200"));
}

#[test]
fn check_config_prints_the_merged_settings_and_starts_nothing() {
    let dir = TempDir::new().expect("a directory");
    let data = dir.path().join("data");
    let shown = Command::new(env!("CARGO_BIN_EXE_chatchat-worker"))
        .arg("--check-config")
        .arg("--data-dir")
        .arg(&data)
        .args(["--masters=a:1,b:2", "--token=secret"])
        .env("CHATCHAT_LEASE_TTL", "2.5s")
        .output()
        .expect("it starts");
    let text = String::from_utf8(shown.stdout).expect("a text");
    assert!(shown.status.success(), "{text}");
    assert!(!data.exists() && !text.contains("secret"), "{text}");
    let table: toml::Table = text.parse().expect("it is a file of its own");
    assert_eq!(table["lease_ttl"].as_str(), Some("2500ms"));
    assert_eq!(table["masters"], toml::Value::from(vec!["a:1", "b:2"]));
    assert!(text.ends_with("# task_bound = \"8.9s\"\n"), "{text}");
}

/// Writes a certificate that vouches for itself, and its key, for this machine.
fn write_certificate(cert: &Path, key: &Path) {
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("names");
    fs::write(cert, made.cert.pem()).expect("written");
    fs::write(key, made.signing_key.serialize_pem()).expect("written");
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).expect("set");
}

/// Asks `url` by curl with this certificate; `None` where there is no curl.
fn curl(cert: &Path, url: &str) -> Option<String> {
    let asked = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "10", "--include", "--cacert"])
        .arg(cert)
        .arg(url)
        .output();
    match asked {
        Ok(out) => Some(String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()),
        Err(_) if env::var_os("CHATCHAT_REQUIRE_ALL").is_none() => None,
        Err(why) => panic!("curl is needed: {why}"),
    }
}

#[test]
fn cluster_speaks_tls_to_curl_and_chatctl_and_reads_its_certificate_again() {
    let dir = TempDir::new().expect("a directory");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    write_certificate(&cert, &key);
    let files = [format!("--tls-cert={}", cert.display()), format!("--tls-key={}", key.display())];
    let cluster = Cluster::start(&["--masters=1", "--workers=1", &files[0], &files[1]]);
    cluster.says("Chatchat is ready");
    let url = format!("https://127.0.0.1:{}", cluster.port);
    cluster.says(&url);

    let chatctl = |args: &[&str]| {
        let ended = Command::new(env!("CARGO_BIN_EXE_chatctl"))
            .env("XDG_STATE_HOME", dir.path())
            .args(args)
            .output()
            .expect("it starts");
        (ended.status.success(), String::from_utf8_lossy(&ended.stdout).into_owned())
    };
    let data = cluster.dir.path().to_str().expect("a text");
    assert_eq!(chatctl(&["--data-dir", data, "post", "one"]), (true, "lobby 1\n".to_owned()));
    let authority = cert.to_str().expect("a text");
    let posted = chatctl(&["--master", &url, "--cacert", authority, "post", "two"]);
    assert_eq!(posted, (true, "lobby 2\n".to_owned()));
    let (done, status) = chatctl(&["--data-dir", data, "status"]);
    assert!(done && status.contains(&url), "{status}");

    let mut plain = TcpStream::connect(("127.0.0.1", cluster.port)).expect("it listens");
    plain.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("asked");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "it answers nothing that came plain");

    let ready = format!("{url}/readyz");
    if let Some(said) = curl(&cert, &ready) {
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    }
    let old = dir.path().join("old.pem");
    fs::copy(&cert, &old).expect("copied");
    let hang_up = |until: &str| {
        signal("-HUP", cluster.process.id());
        let by = Instant::now() + WAIT;
        while !cluster.logs().contains(until) {
            assert!(Instant::now() < by, "{}", cluster.logs());
            thread::sleep(Duration::from_millis(20));
        }
    };
    fs::write(&cert, "half a certificate").expect("written");
    hang_up("certificate and key stay as they are");
    if let Some(said) = curl(&old, &ready) {
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    }
    write_certificate(&cert, &key);
    hang_up("certificate and key are read again");
    assert_eq!(chatctl(&["--data-dir", data, "post", "three"]), (true, "lobby 3\n".to_owned()));
    if let Some(said) = curl(&cert, &ready) {
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        let said = curl(&old, &ready).expect("there is curl");
        assert!(said.contains("curl: (60)"), "the old certificate is not served: {said}");
    }
}
