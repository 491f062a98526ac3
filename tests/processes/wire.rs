//! Taps on the links of real nodes, and a look into their store: neither shows a secret.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chatchat::env::real::TempDir;

use crate::harness::{self, chatctl_with_state, free_ports, get};

/// Tap on the way to an address: passes everything on, and keeps it.
struct Tap {
    addr: String,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    fn before(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound").to_string();
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&seen);
        thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                let Ok(to) = TcpStream::connect(&target) else { continue };
                let (back, forth) = (to.try_clone().expect("one more"), from.try_clone());
                pass(from, to, &kept);
                pass(back, forth.expect("one more"), &kept);
            }
        });
        Self { addr, seen }
    }

    fn seen(&self) -> Vec<u8> {
        self.seen.lock().expect("no thread panics with it").clone()
    }
}

/// Passes one direction of a connection on, on a thread of its own.
fn pass(mut from: TcpStream, mut to: TcpStream, kept: &Arc<Mutex<Vec<u8>>>) {
    let kept = Arc::clone(kept);
    thread::spawn(move || {
        let mut bytes = [0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            kept.lock().expect("no thread panics with it").extend(&bytes[..count]);
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// Process that is killed with its handle.
struct Process(Child);

impl Process {
    fn start(program: &str, args: &[String]) -> Self {
        let log = || Stdio::null();
        Self(Command::new(program).args(args).stdout(log()).stderr(log()).spawn().expect("starts"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Secrets by their names, each in all the forms in which it may be written.
struct Secrets(Vec<(&'static str, Vec<Vec<u8>>)>);

impl Secrets {
    fn text(&mut self, name: &'static str, text: &str) {
        let mut forms = vec![text.as_bytes().to_vec()];
        forms.extend(BASE64_URL_SAFE_NO_PAD.decode(text));
        self.0.push((name, forms));
    }

    /// Adds a private key by a part of it that is in no public form of it.
    fn key(&mut self, name: &'static str, dir: &Path) {
        let der = fs::read(dir.join("identity.key")).expect("an identity");
        let part = der[der.len() - 200..][..48].to_vec();
        self.0.push((name, vec![part]));
    }

    /// Returns the names of those that are found in these bytes.
    fn found_in(&self, bytes: &[u8]) -> Vec<&'static str> {
        let is_in = |form: &Vec<u8>| bytes.windows(form.len()).any(|part| part == &form[..]);
        let found = self.0.iter().filter(|(_, forms)| forms.iter().any(is_in));
        found.map(|(name, _)| *name).collect()
    }
}

fn chatctl(args: &[&str], state: &Path) -> String {
    chatctl_with_state(state, args).expect("it is done")
}

#[test]
fn links_and_store_of_real_nodes_hold_no_secret() {
    let temp = TempDir::new().expect("a directory");
    let at = |name: &str| temp.path().join(name);
    let path = |name: &str| at(name).to_str().expect("text").to_owned();
    let common = |name: &str| {
        [
            format!("--data-dir={}", path(name)),
            format!("--store=sqlite:{}", path("store.db")),
            "--identity-bits=2048".to_owned(),
        ]
    };
    let ports = [free_ports(), free_ports()];
    let taps = ports.map(|port| Tap::before(format!("127.0.0.1:{}", port + 100)));
    let front = Tap::before(format!("127.0.0.1:{}", ports[0]));
    let masters: Vec<_> = (0..2)
        .map(|n| {
            let own = [
                format!("--http=127.0.0.1:{}", ports[n]),
                format!("--link=127.0.0.1:{}", ports[n] + 100),
                format!("--link-public={}", taps[n].addr),
                format!("--admin=127.0.0.1:{}", ports[n] + 200),
                "--key-refresh-gap=2s".to_owned(),
                "--key-refresh-interval=3s".to_owned(),
            ];
            let args = [&common(&format!("master-{n}"))[..], &own].concat();
            let master = Process::start(env!("CARGO_BIN_EXE_chatchat-master"), &args);
            until("a master serves", || {
                TcpStream::connect(("127.0.0.1", ports[n])).is_ok()
                    && !get(ports[n], "/readyz").contains("starting")
            });
            master
        })
        .collect();
    let admin = format!("127.0.0.1:{}", ports[0] + 200);
    let invitation =
        chatctl(&["--data-dir", &path("master-0"), "--admin", &admin, "token", "new"], &at("ctl"));
    fs::write(at("worker.toml"), &invitation).expect("written");
    let args = [&common("worker")[..], &[format!("--config={}", path("worker.toml"))]].concat();
    let worker = Process::start(env!("CARGO_BIN_EXE_chatchat-worker"), &args);
    until("a worker joined", || get(ports[0], "/readyz").starts_with("HTTP/1.1 200"));

    let canary = "the heron waits in the reeds";
    let front_url = format!("http://{}", front.addr);
    for port in [&front_url, &format!("http://127.0.0.1:{}", ports[1])] {
        chatctl(&["--master", port, "post", canary], &at("ctl"));
    }
    // A refresh of the common key, and updates to the node database.
    thread::sleep(Duration::from_secs(5));
    chatctl(&["--master", &front_url, "post", canary], &at("ctl"));

    let mut secrets = Secrets(Vec::new());
    secrets.text("a post", canary);
    for entry in fs::read_dir(at("ctl/chatchat")).expect("listed") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a session");
        let session: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        secrets.text("a session's token", session["token"].as_str().expect("a token"));
    }
    let table: toml::Table = invitation.parse().expect("settings");
    let token = table["token"].as_str().expect("a token");
    secrets.text("a join token", token.rsplit_once('.').expect("parts").1);
    let admin_token = fs::read_to_string(at("master-0/admin.token")).expect("a token");
    secrets.text("the admin token", admin_token.trim());
    for name in ["master-0", "master-1", "worker"] {
        secrets.key("a private key", &at(name));
    }

    assert_eq!(secrets.found_in(&front.seen()), ["a post", "a session's token"], "in plain HTTP");
    let mut tapped = 0;
    for tap in &taps {
        let seen = tap.seen();
        assert_eq!(secrets.found_in(&seen), [""; 0], "on a link, {} bytes", seen.len());
        tapped += seen.len();
    }
    assert!(tapped > 10_000, "{tapped} bytes of links were seen");
    drop((masters, worker));
    for file in ["store.db", "store.db-wal"] {
        let kept = secrets.found_in(&fs::read(at(file)).unwrap_or_default());
        assert!(kept.iter().all(|name| *name == "a post"), "{file} holds {kept:?}");
    }
    println!("{tapped} bytes of links, {} of a front end", front.seen().len());
}

fn until(what: &str, holds: impl FnMut() -> bool) {
    harness::until(what, holds, String::new);
}
