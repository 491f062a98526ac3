//! Drain of masters and workers on real processes, by an operator and by SIGTERM.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::harness::{Cluster, chatctl, get, signal, until};

/// Sends one request on a connection of its own, and returns the answer.
fn ask(port: u16, method: &str, path: &str, token: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn session(port: u16) -> String {
    let opened = ask(port, "POST", "/api/v1/sessions", "", r#"{"name":"Ann"}"#).expect("answered");
    let (_, body) = opened.split_once("\r\n\r\n").expect("a body");
    let opened: serde_json::Value = serde_json::from_str(body).expect("JSON");
    opened["token"].as_str().expect("a token").to_owned()
}

fn is_ready(port: u16) -> bool {
    ask(port, "GET", "/readyz", "", "").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Posts at each master that says it is ready, until `stop`, as a balancer would have it. Returns
/// how many posts there were, and the answers that are no success.
fn post_until(stop: &AtomicBool, ports: [u16; 2], token: &str) -> (u64, Vec<String>) {
    let (mut sent, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        for port in ports.into_iter().filter(|port| is_ready(*port)) {
            sent += 1;
            let body = format!(r#"{{"id":"00000000-0000-4000-8000-{sent:012}","text":"{sent}"}}"#);
            match ask(port, "POST", "/api/v1/boards/lobby/posts", token, &body) {
                // 200: a try before this one wrote it.
                Ok(answer) if answer.starts_with("HTTP/1.1 20") => {}
                Ok(answer) => failed.push(format!("{port}: {answer}")),
                Err(why) => failed.push(format!("{port}: {why}")),
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    (sent, failed)
}

/// Time beyond `drain_timeout` that a busy machine may take to notice that a process has ended.
const MARGIN: Duration = Duration::from_secs(5);

/// Returns the `drain_timeout` of a master, which `chatctl drain` shows, once this master has ended
/// within it.
fn ended_in_time(said: &str, name: &str) -> Duration {
    let number = |before: &str, after: &str| {
        let (_, rest) = said.split_once(before).unwrap_or_else(|| panic!("no {before:?}: {said}"));
        let (number, _) = rest.split_once(after).unwrap_or_else(|| panic!("no {after:?}: {said}"));
        number.parse::<f64>().unwrap_or_else(|why| panic!("{why}: {said}"))
    };
    let within = number(&format!("{name} is being drained, for "), " ms at most\n") / 1000.0;
    let took = number(&format!("{name} has ended after "), " s\n");
    let (within, took) = (Duration::from_secs_f64(within), Duration::from_secs_f64(took));
    assert!(took <= within + MARGIN, "{name} took {took:?}, where it has {within:?}");
    within
}

/// Sets a flag when it is dropped.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn drained_masters_hand_over_one_after_another_and_no_post_fails() {
    let cluster = Cluster::start(&["--masters=2", "--workers=2", "--restart"]);
    cluster.says("Chatchat is ready");
    let ports = [cluster.port, cluster.port + 1];
    let (dir, token) = (cluster.dir.path(), session(cluster.port));
    let why = chatctl(dir, &["drain"]).expect_err("there are two");
    assert!(why.contains("there are master-0, master-1"), "{why}");
    let stop = AtomicBool::new(false);
    let (sent, failed) = thread::scope(|scope| {
        let posting = scope.spawn(|| post_until(&stop, ports, &token));
        // A step that fails must not leave it posting for ever.
        let stop = SetOnDrop(&stop);
        thread::sleep(Duration::from_secs(1));
        for (name, port) in [("master-0", ports[0]), ("master-1", ports[1])] {
            // A master that was started again needs a moment to know the other.
            let mut said = Err(String::new());
            let is_done = || {
                said = chatctl(dir, &["drain", name]);
                said.as_ref().map_or_else(|why| !why.contains("no other master"), |_| true)
            };
            until(name, is_done, || cluster.logs());
            let said = said.expect("drained");
            ended_in_time(&said, name);
            cluster.says(&format!("{name} ended (exit code 0)"));
            cluster.says(&format!("{name} is started again"));
            until(name, || is_ready(port), || cluster.logs());
        }
        drop(stop);
        posting.join().expect("it posted")
    });
    assert_eq!(failed, Vec::<String>::new(), "of {sent}");
    assert!(sent > 100, "{sent}");
    let read = ask(ports[0], "GET", "/api/v1/boards", &token, "").expect("answered");
    assert!(read.contains(&format!(r#""last_seq":{sent}"#)), "{sent} posts, once each: {read}");
}

/// Returns the status of an answer; nothing if it has none.
fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

/// Returns whether a stream is told where to go, and nothing else.
fn is_bye_alone(answer: &str) -> bool {
    let events = answer.lines().filter_map(|line| line.strip_prefix("event: "));
    events.eq(["bye"])
}

/// Time without a request after which a master that is being drained closes its front end, and a little less:
/// the clocks are two.
const QUIET: Duration = Duration::from_millis(900);

#[test]
fn master_that_is_drained_takes_no_newcomer_and_serves_who_is_here_to_the_end() {
    let cluster = Cluster::start(&["--masters=2", "--workers=2"]);
    cluster.says("Chatchat is ready");
    let port = cluster.port;
    let token = session(port);
    let other = format!(":{}", port + 1);
    let knows = || {
        ask(port, "GET", "/api/v1/session", &token, "").is_ok_and(|answer| answer.contains(&other))
    };
    until("it knows the other master", knows, || cluster.logs());
    signal("-TERM", cluster.pid("master-0"));
    until("it drains", || !is_ready(port), || cluster.logs());
    let (mut newcomers, mut posts) = (Vec::new(), Vec::new());
    let mut asked = Instant::now();
    for n in 0..40 {
        let body = format!(r#"{{"id":"00000000-0000-4000-8000-{n:012}","text":"{n}"}}"#);
        let ticket = format!(r#"{{"ticket":"{}"}}"#, "A".repeat(43));
        let asks = [
            ("POST", "/api/v1/boards/lobby/posts", &*token, &*body),
            ("POST", "/api/v1/sessions", "", r#"{"name":"Bob"}"#),
            ("POST", "/api/v1/handover/redeem", "", &ticket),
            ("GET", "/api/v1/stream", &token, ""),
        ];
        let mut answers = Vec::new();
        for (method, path, token, body) in asks {
            let since = asked.elapsed();
            asked = Instant::now();
            match ask(port, method, path, token, body) {
                Ok(answer) if is_bye_alone(&answer) => answers.push("bye".to_owned()),
                Ok(answer) => answers.push(status(&answer).to_owned()),
                // Its front end closes once nobody has asked for a second; this machine may have been slow.
                Err(why) => {
                    assert!(since.max(asked.elapsed()) >= QUIET, "{path}, the {n}th: {why}");
                    break;
                }
            }
        }
        let [post, newcomer @ ..] = &answers[..] else { break };
        posts.push(post.clone());
        newcomers.extend_from_slice(newcomer);
        thread::sleep(Duration::from_millis(20));
    }
    assert!(newcomers.len() >= 3, "it closed at once: {}", cluster.logs());
    let refused = ["503", "503", "bye"];
    assert!(
        newcomers.iter().zip(refused.iter().cycle()).all(|(told, want)| told == want),
        "{newcomers:?}"
    );
    assert!(posts.iter().all(|status| status == "201"), "{posts:?}");
    let other = ask(port + 1, "POST", "/api/v1/sessions", "", r#"{"name":"Bob"}"#);
    assert_eq!(status(&other.expect("it listens")), "201");
    cluster.says("master-0 ended (exit code 0)");
}

#[test]
fn last_master_is_drained_only_by_force_or_by_a_signal() {
    let cluster = Cluster::start(&["--masters=1", "--workers=1", "--restart"]);
    cluster.says("Chatchat is ready");
    let dir = cluster.dir.path();
    let why = chatctl(dir, &["drain"]).expect_err("people would be left alone");
    assert!(why.contains("no other master"), "{why}");
    assert!(get(cluster.port, "/readyz").starts_with("HTTP/1.1 200"));
    let said = chatctl(dir, &["drain", "--force"]).expect("drained");
    let within = ended_in_time(&said, "master-0");
    cluster.says("master-0 ended (exit code 0)");
    cluster.says("master-0 is started again");
    // A process that does not take signals yet is killed by one.
    let is_up = || {
        cluster.nodes().iter().any(|node| node.0 == "master-0")
            && TcpStream::connect(("127.0.0.1", cluster.port)).is_ok()
    };
    until("listed and serving", is_up, || cluster.logs());
    let (pid, began) = (cluster.pid("master-0"), Instant::now());
    signal("-TERM", pid);
    cluster.says("master-0 ended (exit code 0)");
    let took = began.elapsed();
    assert!(took <= within + MARGIN, "master-0 took {took:?}, where it has {within:?}");
}

#[test]
fn workers_are_drained_by_their_masters_one_after_another() {
    let cluster = Cluster::start(&["--masters=2", "--workers=3"]);
    cluster.says("Chatchat is ready");
    let dir = cluster.dir.path();
    let why = chatctl(dir, &["drain", "worker-7"]).expect_err("nobody is called so");
    assert!(why.contains("no node is called worker-7"), "{why}");
    for name in ["worker-0", "worker-1"] {
        let mut said = Err(String::new());
        // Masters may not have heard of each other's workers yet.
        let is_yet_to_hear = |why: &str| {
            ["no other worker is in", "no node is called"].iter().any(|text| why.contains(text))
        };
        let is_done = || {
            said = chatctl(dir, &["drain", name]);
            said.as_ref().map_or_else(|why| !is_yet_to_hear(why), |_| true)
        };
        until(name, is_done, || cluster.logs());
        ended_in_time(&said.expect("drained"), name);
        cluster.says(&format!("{name} ended (exit code 0)"));
    }
}

#[test]
fn last_worker_is_drained_only_by_force() {
    let cluster = Cluster::start(&["--masters=1", "--workers=1"]);
    cluster.says("Chatchat is ready");
    let dir = cluster.dir.path();
    let why = chatctl(dir, &["drain", "worker-0"]).expect_err("nothing could be written");
    assert!(why.contains("no other worker is in"), "{why}");
    let said = chatctl(dir, &["drain", "worker-0", "--force"]).expect("drained");
    ended_in_time(&said, "worker-0");
    cluster.says("worker-0 ended (exit code 0)");
    let why = chatctl(dir, &["drain", "worker-0", "--force"]).expect_err("it is gone");
    assert!(why.contains("worker-0 is not in"), "{why}");
}
