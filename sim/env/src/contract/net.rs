//! Streams and listeners.

use std::io::ErrorKind;

use futures_util::future::join;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{LIMIT, Lab, QUIET};
use crate::{BoxStream, Listener};

/// Returns the dialled end, the accepted end and the listener.
async fn pair(lab: &Lab) -> (BoxStream, BoxStream, Box<dyn Listener>) {
    let mut listener = lab.right.listen(&lab.any_port()).await.expect("a port is free");
    let addr = listener.local_addr();
    let (dialled, accepted) = join(lab.left.connect(&addr, LIMIT), listener.accept()).await;
    (dialled.expect("connects"), accepted.expect("accepts").0, listener)
}

/// Bytes in which a lost, doubled or moved piece shows.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at / 251 % 256) as u8).collect()
}

pub(super) async fn a_dial_to_a_free_port_is_refused(lab: &Lab) {
    let listener = lab.right.listen(&lab.any_port()).await.expect("a port is free");
    let addr = listener.local_addr();
    drop(listener);
    let refused = lab.left.connect(&addr, LIMIT).await.err().expect("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
}

pub(super) async fn a_taken_port_is_in_use_and_free_again_after_its_listener(lab: &Lab) {
    let listener = lab.right.listen(&lab.any_port()).await.expect("a port is free");
    let addr = listener.local_addr();
    let refused = lab.right.listen(&addr).await.err().expect("it is taken");
    assert_eq!(refused.kind(), ErrorKind::AddrInUse, "{refused}");
    drop(listener);
    let again = lab.right.listen(&addr).await.expect("it is free again");
    assert_eq!(again.local_addr(), addr);
}

pub(super) async fn an_accept_that_was_given_up_loses_nobody(lab: &Lab) {
    let mut listener = lab.right.listen(&lab.any_port()).await.expect("a port is free");
    let addr = listener.local_addr();
    let nobody = lab.right.timeout(QUIET, listener.accept()).await;
    assert!(nobody.is_err(), "nobody dialled");
    let (dialled, accepted) = join(lab.left.connect(&addr, LIMIT), listener.accept()).await;
    let (mut dialled, mut accepted) = (dialled.expect("connects"), accepted.expect("accepts").0);
    dialled.write_all(b"here").await.expect("written");
    let mut got = [0; 4];
    accepted.read_exact(&mut got).await.expect("read");
    assert_eq!(&got, b"here");
}

pub(super) async fn bytes_arrive_whole_and_in_order_both_ways_at_once(lab: &Lab) {
    const LEN: usize = 1024 * 1024;
    let (left, right, _listener) = pair(lab).await;
    let one_end = |stream: BoxStream| async {
        let (mut read, mut write) = tokio::io::split(stream);
        let send = async move {
            write.write_all(&pattern(LEN)).await.expect("written");
            write.shutdown().await.expect("shut down");
        };
        let mut got = Vec::new();
        let ((), read) = join(send, read.read_to_end(&mut got)).await;
        read.expect("read to the end");
        assert!(got == pattern(LEN), "{} bytes came, not the ones sent", got.len());
    };
    join(one_end(left), one_end(right)).await;
}

pub(super) async fn bytes_leave_without_a_flush_and_an_empty_flush_wakes_nobody(lab: &Lab) {
    let (mut left, mut right, _listener) = pair(lab).await;
    let mut got = [0; 2];
    left.write_all(b"hi").await.expect("written");
    right.read_exact(&mut got).await.expect("read");
    assert_eq!(&got, b"hi");
    left.flush().await.expect("flushed");
    let woken = lab.right.timeout(QUIET, right.read(&mut got)).await;
    assert!(woken.is_err(), "nothing was sent, and yet: {woken:?}");
}

pub(super) async fn reads_split_and_join_writes(lab: &Lab) {
    let (mut left, mut right, _listener) = pair(lab).await;
    left.write_all(b"0123456789").await.expect("written");
    let mut got = Vec::new();
    while got.len() < 10 {
        let mut few = [0; 3];
        let n = right.read(&mut few).await.expect("read");
        assert!((1..=3).contains(&n), "{n} bytes into room for 3");
        got.extend_from_slice(&few[..n]);
    }
    assert_eq!(got, b"0123456789", "what a small read leaves is there for the next");
    for byte in b"abcdef" {
        left.write_all(&[*byte]).await.expect("written");
    }
    let mut six = [0; 6];
    right.read_exact(&mut six).await.expect("read");
    assert_eq!(&six, b"abcdef");
}

pub(super) async fn half_close_ends_one_direction_only(lab: &Lab) {
    let (mut left, mut right, _listener) = pair(lab).await;
    left.write_all(b"question").await.expect("written");
    left.shutdown().await.expect("shut down");
    let mut question = Vec::new();
    right.read_to_end(&mut question).await.expect("the end is seen");
    assert_eq!(question, b"question");
    right.write_all(b"answer").await.expect("the other direction goes on");
    right.shutdown().await.expect("shut down");
    let mut answer = Vec::new();
    left.read_to_end(&mut answer).await.expect("the end is seen");
    assert_eq!(answer, b"answer");
    assert!(left.write_all(b"more").await.is_err(), "this direction is shut");
}

pub(super) async fn a_dropped_stream_delivers_its_last_words_then_ends(lab: &Lab) {
    let (mut left, mut right, _listener) = pair(lab).await;
    left.write_all(b"last words").await.expect("written");
    drop(left);
    let mut got = Vec::new();
    right.read_to_end(&mut got).await.expect("the end is seen");
    assert_eq!(got, b"last words");
}

pub(super) async fn writes_to_a_peer_that_dropped_the_stream_fail_at_last(lab: &Lab) {
    let (left, mut right, _listener) = pair(lab).await;
    drop(left);
    let refused = loop {
        match right.write_all(b"anyone?").await {
            Ok(()) => lab.right.sleep(QUIET / 10).await,
            Err(refused) => break refused,
        }
    };
    let kind = refused.kind();
    assert!(matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{refused}");
}

pub(super) async fn a_writer_to_a_peer_that_never_reads_waits(lab: &Lab) {
    const LEN_MAX: usize = 64 * 1024 * 1024;
    let (mut left, mut right, _listener) = pair(lab).await;
    let chunk = pattern(64 * 1024);
    let mut sent = 0;
    // The loop leaves a write half done, so count bytes, not chunks.
    while let Ok(wrote) = lab.left.timeout(QUIET, left.write(&chunk[sent % chunk.len()..])).await {
        sent += wrote.expect("the peer is there");
        assert!(sent < LEN_MAX, "{sent} bytes went to a peer that never reads");
    }
    let finish = async {
        left.write_all(&chunk[sent % chunk.len()..]).await.expect("it goes on");
        left.shutdown().await.expect("shut down");
    };
    let mut got = Vec::new();
    let ((), read) = join(finish, right.read_to_end(&mut got)).await;
    read.expect("read to the end");
    assert!(got.len() >= sent, "{} bytes of {sent} came", got.len());
    assert!(got.chunks(chunk.len()).all(|got| got == &chunk[..got.len()]), "out of order");
}

pub(super) async fn an_aborted_task_closes_its_streams(lab: &Lab) {
    let (left, mut right, _listener) = pair(lab).await;
    let task = lab.left.spawn("holds a stream", async move {
        let _held = left;
        std::future::pending::<()>().await;
    });
    let mut got = Vec::new();
    let open = lab.right.timeout(QUIET, right.read_to_end(&mut got)).await;
    assert!(open.is_err(), "the task still holds it");
    task.abort();
    // A reset says as well as an end that nobody is there.
    let _ = right.read_to_end(&mut got).await;
}
