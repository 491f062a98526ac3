//! Wrong calls and strangers are refused with a reason.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use chatchat::{
    crypto::admission::JoinSecret,
    env::real::TempDir,
    model::ids::{Fingerprint, StoreEpoch},
    store::sqlite::{NewCluster, SqliteCore},
    testing::small_disk::SmallDisk,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use crate::harness::{Cluster, WAIT, free_ports, get, link_of, metrics_of, runs, signal};

fn refused(program: &str, args: &[&str]) -> String {
    ends_with(2, Command::new(program).args(args))
}

/// Runs a program that ends with this exit code, and returns its only line that is no log.
fn ends_with(code: i32, program: &mut Command) -> String {
    // A program that is not refused would run for ever.
    let ended = Command::new("timeout")
        .arg(WAIT.as_secs().to_string())
        .arg(program.get_program())
        .args(program.get_args())
        .output()
        .expect("it starts");
    let said = String::from_utf8(ended.stderr).expect("a text");
    assert_eq!(ended.status.code(), Some(code), "{said}");
    let mut lines: Vec<_> = said.lines().collect();
    let last = lines.pop().unwrap_or_default().to_owned();
    // The lines before the last are its log.
    let is_log =
        |line: &&str| [" INFO ", " WARN ", " ERROR "].iter().any(|level| line.contains(level));
    assert!(lines.iter().all(is_log), "{said}");
    last
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

/// Makes a data directory whose store is this file of SQLite after `sql`, and returns that file.
fn store_after(dir: &Path, sql: &str) -> PathBuf {
    fs::create_dir_all(dir).expect("made");
    let file = dir.join("chatchat.db");
    let db = rusqlite::Connection::open(&file).expect("opened");
    db.execute_batch(sql).expect("changed");
    file
}

/// Returns the arguments of a master whose store lies in its data directory.
fn master_in(dir: &Path) -> Vec<String> {
    let port = free_ports();
    vec![
        "--data-dir".to_owned(),
        dir.to_str().expect("a text").to_owned(),
        format!("--http=127.0.0.1:{port}"),
        format!("--link=127.0.0.1:{}", port + 100),
        "--admin=off".to_owned(),
        "--identity-bits=2048".to_owned(),
    ]
}

/// Starts a master and a cluster on the store of a directory. Both name the file, and say this.
fn both_refuse(dir: &Path, file: &Path, why: &[&str]) {
    let (file, dir_text) = (file.to_str().expect("a text"), dir.to_str().expect("a text"));
    let master = master_in(dir);
    let master = ends_with(2, Command::new(env!("CARGO_BIN_EXE_chatchat-master")).args(master));
    let port = format!("--http-port={}", free_ports());
    let args = ["--data-dir", dir_text, &port, "--masters=1", "--workers=1"];
    let cluster = refused(env!("CARGO_BIN_EXE_chatchat-cluster"), &args);
    for said in [master, cluster] {
        assert!(said.contains(file), "{said}");
        assert!(why.iter().all(|why| said.contains(why)), "{said}");
        assert!(said.contains("--store sqlite:PATH"), "{said}");
    }
}

#[test]
fn store_file_that_is_not_ours_or_of_a_newer_release_is_refused_and_not_changed() {
    let temp = TempDir::new().expect("a directory");
    let text = temp.path().join("text");
    fs::create_dir_all(&text).expect("made");
    let file = text.join("chatchat.db");
    let words = "no database, but long enough ".repeat(99);
    fs::write(&file, &words).expect("written");
    both_refuse(&text, &file, &["not a database", "name the right one", "from a backup"]);
    assert_eq!(fs::read(&file).expect("read"), words.as_bytes());

    let other = temp.path().join("other");
    let theirs = "PRAGMA application_id = 7; PRAGMA user_version = 5; CREATE TABLE theirs (x)";
    let file = store_after(&other, theirs);
    let before = fs::read(&file).expect("read");
    both_refuse(&other, &file, &["another program's database", "name the right one"]);
    assert_eq!(fs::read(&file).expect("read"), before);

    let newer = temp.path().join("newer");
    fs::create_dir_all(&newer).expect("made");
    made_store(&newer.join("chatchat.db"));
    let file = store_after(&newer, "UPDATE cluster SET min_reader = 99");
    both_refuse(&newer, &file, &["step 99", "install a newer one"]);
}

/// Makes a store of this release.
fn made_store(file: &Path) {
    let new = NewCluster { cluster: [7; 16], epoch: StoreEpoch(1), now_ms: 1 };
    SqliteCore::open_file(file, &new, WAIT).expect("made");
}

#[test]
fn store_file_that_may_only_be_read_or_not_be_opened_is_refused_with_the_way_out() {
    let temp = TempDir::new().expect("a directory");
    let file = temp.path().join("chatchat.db");
    made_store(&file);
    let is_root = fs::metadata(temp.path()).expect("a directory").uid() == 0;
    for (mode, why) in [(0o444, "may only be read"), (0, "this user may not read and write")] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("set");
        // Root reads and writes whatever the mode says, unless it gave that right away.
        let mut command = Command::new(if is_root { "setpriv" } else { "env" });
        command.args(is_root.then_some("--bounding-set=-dac_override,-dac_read_search"));
        command.arg(env!("CARGO_BIN_EXE_chatchat-master")).args(master_in(temp.path()));
        let said = ends_with(2, &mut command);
        assert!(said.contains(file.to_str().expect("a text")), "{said}");
        assert!(said.contains(why) && said.contains("let this user write"), "{said}");
    }
}

#[test]
fn store_file_on_a_full_disk_is_refused_with_one_line() {
    let Some(disk) = SmallDisk::mounted() else { return };
    let file = disk.path("chatchat.db");
    made_store(&file);
    let ballast = disk.fill();
    let temp = TempDir::new().expect("a directory");
    let store = format!("--store=sqlite:{}", file.to_str().expect("a text"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatchat-master"));
    command.args(master_in(temp.path())).arg(store);
    let said = ends_with(2, &mut command);
    assert!(said.contains(file.to_str().expect("a text")), "{said}");
    assert!(said.contains("make room on its disk"), "{said}");
    drop(ballast);
}

#[test]
fn second_master_with_a_copied_identity_is_refused_and_the_first_goes_on() {
    let cluster = Cluster::start(&["--masters=1", "--workers=1"]);
    cluster.says("Chatchat is ready");
    let first = cluster.pid("master-0");
    let link = link_of(&cluster, "master-0");
    let copy = TempDir::new().expect("a directory");
    let key = "identity.key";
    fs::copy(cluster.dir.path().join("master-0").join(key), copy.path().join(key)).expect("copied");
    let store = format!("sqlite:{}", cluster.dir.path().join("chatchat.db").display());
    let mut second = Command::new(env!("CARGO_BIN_EXE_chatchat-master"));
    second.args(master_in(copy.path())).args(["--store", &store]);
    let said = ends_with(1, &mut second);
    assert!(said.contains("this identity is in use") && said.contains(&link), "{said}");
    assert!(said.contains("a data directory of its own"), "{said}");
    assert_eq!(cluster.pid("master-0"), first);
    assert!(runs(first), "{}", cluster.logs());
    assert!(get(cluster.port, "/readyz").starts_with("HTTP/1.1 200"));
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
    loop {
        let metrics = metrics_of(&cluster, "master-0");
        let kinds =
            metrics.lines().filter(|line| line.starts_with("chatchat_link_refusals_total{"));
        let times = kinds.filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
        if times.sum::<u32>() == 3 {
            break;
        }
        assert!(Instant::now() < until, "{metrics}");
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
