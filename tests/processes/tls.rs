//! Front ends with a certificate.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use chatchat::{env::real::TempDir, testing::skip::skip};

use crate::harness::{Cluster, WAIT, chatctl_with_state, signal};

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
        Err(why) => {
            skip(&format!("there is no curl: {why}"));
            None
        }
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

    let chatctl = |args: &[&str]| chatctl_with_state(dir.path(), args);
    let data = cluster.dir.path().to_str().expect("a text");
    assert_eq!(chatctl(&["--data-dir", data, "post", "one"]).as_deref(), Ok("lobby 1\n"));
    let authority = cert.to_str().expect("a text");
    let posted = chatctl(&["--master", &url, "--cacert", authority, "post", "two"]);
    assert_eq!(posted.as_deref(), Ok("lobby 2\n"));
    let status = chatctl(&["--data-dir", data, "status"]).expect("it answers");
    assert!(status.contains(&url), "{status}");

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
    assert_eq!(chatctl(&["--data-dir", data, "post", "three"]).as_deref(), Ok("lobby 3\n"));
    if let Some(said) = curl(&cert, &ready) {
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        let said = curl(&old, &ready).expect("there is curl");
        assert!(said.contains("curl: (60)"), "the old certificate is not served: {said}");
    }
}
