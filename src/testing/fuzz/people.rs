//! Bodies of people's requests, events as a client reads them, and cursors and other names in
//! paths and queries.

use std::{fmt::Display, str::FromStr};

use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    api::{OpenSession, Problem, ReadMark, RedeemTicket, StreamEvent, WritePost},
    model::{
        ids::{BoardName, Cursor, NodeId, PostId, PostText, TokenId, UserId},
        names,
    },
};

/// Names of the events of a stream.
const EVENTS: [&str; 7] = ["hello", "post", "presence", "state", "masters", "reset", "bye"];

/// Reads a body or an event; the first byte says of which kind.
pub(super) fn bodies(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else { return false };
    match kind {
        0 => read::<OpenSession>(bytes).is_some_and(|asked| {
            let Ok(name) = names::chosen_name(&asked.name) else { return false };
            assert_eq!(names::chosen_name(name.as_str()), Ok(name), "it stays as it was chosen");
            true
        }),
        1 => read::<WritePost>(bytes).is_some_and(|asked| {
            let text = asked.text.parse::<PostText>();
            assert!(text.is_err() || asked.text.len() <= PostText::LEN_MAX);
            let _ = names::is_blank(&asked.text);
            reads_back::<PostId>(&asked.id.to_ascii_lowercase()) && text.is_ok()
        }),
        2 => read::<ReadMark>(bytes).is_some(),
        3 => read::<RedeemTicket>(bytes).is_some(),
        4 => read::<Problem>(bytes).is_some(),
        5..=11 => {
            let (name, text) = (EVENTS[usize::from(*kind) - 5], String::from_utf8_lossy(bytes));
            let Ok(event) = StreamEvent::read(name, &text) else { return false };
            let again = StreamEvent::read(name, &event.data());
            assert_eq!(again.ok().as_ref(), Some(&event), "it is written as it was read");
            true
        }
        _ => false,
    }
}

pub(super) fn body_seeds() -> Vec<Vec<u8>> {
    const ID: &str = "3f0e8c5a-9d0b-4b6e-8a57-6f2f0d9a7c11";
    let author = json!({ "id": "01".repeat(16), "name": "Ann" });
    let master = json!({ "id": "02".repeat(16), "name": "north", "http": "http://127.0.0.1:8080" });
    let post = json!({
        "id": ID, "board": "lobby", "seq": 7, "author": author, "text": "hello",
        "posted_at": 1_700_000_000_000_u64,
    });
    let user = json!({ "id": "01".repeat(16), "name": "Ann", "since": 1, "last_seen": 2 });
    let bodies = [
        (0, json!({ "name": "Ann\u{301} \u{1f469}\u{200d}\u{1f52c}", "cookie": true })),
        (1, json!({ "id": ID, "text": "a \"text\"\n\u{202e}" })),
        (2, json!({ "seq": 9 })),
        (3, json!({ "ticket": "AAAA" })),
        (4, json!({ "type": "urn:chatchat:overloaded", "status": 503, "retry_after_ms": 100 })),
        (6, post),
        (7, json!({ "version": 2, "since": 1, "total": 1, "came": [user], "left": [] })),
        (9, json!({ "masters": [master] })),
    ];
    bodies.iter().map(|(kind, body)| [&[*kind][..], body.to_string().as_bytes()].concat()).collect()
}

/// Reads a text as each kind of name that requests hold. One that is read has one spelling.
pub(super) fn cursors(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let cursor = text.parse::<Cursor>();
    if let Ok(cursor) = &cursor {
        assert!(cursor.boards.len() <= Cursor::BOARDS_MAX);
        assert_eq!(cursor.to_string().parse().as_ref(), Ok(cursor));
    }
    // Ids are hex digits of either case.
    let lower = text.to_ascii_lowercase();
    let others = [
        reads_back::<BoardName>(&text),
        reads_back::<PostId>(&lower),
        reads_back::<NodeId>(&lower),
        reads_back::<TokenId>(&lower),
        reads_back::<UserId>(&lower),
    ];
    cursor.is_ok() || others.contains(&true)
}

pub(super) fn cursor_seeds() -> Vec<Vec<u8>> {
    let many: Vec<_> = (0..Cursor::BOARDS_MAX).map(|n| format!("b{n:02}:{n}")).collect();
    let texts = [
        "7;".to_owned(),
        "7;dev:7,lobby:42".to_owned(),
        format!("{};{}", u64::MAX, many.join(",")),
        "lobby".to_owned(),
        "3f0e8c5a-9d0b-4b6e-8a57-6f2f0d9a7c11".to_owned(),
        "ab".repeat(16),
        "ab".repeat(8),
    ];
    texts.map(String::into_bytes).to_vec()
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// Whether a text is a name of this kind, which is then its only spelling.
fn reads_back<T: FromStr + Display>(text: &str) -> bool {
    let Ok(read) = text.parse::<T>() else { return false };
    assert_eq!(read.to_string(), text);
    true
}
