//! Start, restart and end of a cluster's processes.

use std::{
    fs,
    net::TcpStream,
    os::unix::net::UnixDatagram,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use chatchat::env::real::TempDir;

use crate::harness::{Cluster, WAIT, free_ports, get, runs, signal};

/// End of a process that was watched for a while.
#[derive(Debug, PartialEq, Eq)]
enum End {
    ServesOn,
    Code(Option<i32>),
    NeverServed,
}

/// Runs a master for a while, or until it ends, with stdout and stderr on a full disk. One that a signal
/// ended has no code.
fn run_on_full_disk(args: &[&str]) -> End {
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
    let end = loop {
        if let Some(status) = process.try_wait().expect("it is our child") {
            break End::Code(status.code());
        }
        if Instant::now() > until {
            break End::NeverServed;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() && get(port, "/healthz").contains("200")
        {
            // Lines about its start are behind it; it has to live on.
            thread::sleep(Duration::from_secs(1));
            let ended = process.try_wait().expect("it is our child");
            break ended.map_or(End::ServesOn, |status| End::Code(status.code()));
        }
        thread::sleep(Duration::from_millis(50));
    };
    let _ = process.kill();
    let _ = process.wait();
    end
}

#[test]
fn node_lives_on_a_full_log_disk_and_answers_that_cannot_be_written_are_errors() {
    assert_eq!(run_on_full_disk(&[]), End::ServesOn);
    assert_eq!(run_on_full_disk(&["--check-config"]), End::Code(Some(1)));
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
fn service_manager_is_told_when_a_master_listens_and_when_it_ends() {
    let (dir, port) = (TempDir::new().expect("a directory"), free_ports());
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(WAIT)).expect("set");
    let hears = || {
        let mut said = [0; 256];
        let len = manager.recv(&mut said).expect("something is said");
        String::from_utf8_lossy(&said[..len]).into_owned()
    };
    let mut process = Command::new(env!("CARGO_BIN_EXE_chatchat-master"))
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .arg(format!("--http=127.0.0.1:{port}"))
        .arg(format!("--link=127.0.0.1:{}", port + 100))
        .args(["--admin=off", "--identity-bits=2048"])
        .env("NOTIFY_SOCKET", &path)
        .spawn()
        .expect("it starts");
    assert_eq!(hears(), "READY=1\n");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok(), "it listens by then");
    signal("-TERM", process.id());
    assert_eq!(hears(), "STOPPING=1\n");
    assert!(process.wait().expect("it is our child").success());
}
