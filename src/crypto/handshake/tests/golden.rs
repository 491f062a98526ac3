//! Every byte of one handshake, with keys and random numbers that never change.
//!
//! A difference is a change of the wire: nodes of the release before do not understand it, and the
//! version has to say so.

use super::*;
use crate::{crypto::keys::fingerprint, testing::snapshots};

fn lines(out: &mut String, what: &str, bytes: &[u8]) {
    out.push_str(&format!("\n{what}, {} bytes\n", bytes.len()));
    for line in bytes.chunks(48) {
        out.push_str(&hex::encode(line));
        out.push('\n');
    }
}

#[test]
fn handshake_with_fixed_keys_is_the_same_byte_for_byte() {
    // Later versions say the release, which is another each time.
    let (fixture, played) = play_version_1();
    let keys = [
        ("master", fixture.acceptor_params.identity.spki()),
        ("worker", fixture.worker.spki()),
        ("handshake", fixture.handshake.spki()),
    ];
    let mut seen = String::new();
    for (whose, spki) in keys {
        seen.push_str(&format!("{whose} key {}\n", fingerprint(spki)));
    }
    for (what, message) in ["Hello", "Reply", "Auth", "Welcome", "Ready"].iter().zip(&played.wire) {
        lines(&mut seen, what, message);
    }
    let (mut to_master, mut to_worker) = (played.dialer.1, played.acceptor.1);
    for (what, sealer) in
        [("First record of the dialer", &mut to_master), ("of the acceptor", &mut to_worker)]
    {
        let mut record = Vec::new();
        sealer.seal(RecordKind::Data, b"hello", &mut record).expect("short");
        lines(&mut seen, what, &record);
    }
    snapshots().bind(|| insta::assert_snapshot!("handshake_suite_1", seen));
}
