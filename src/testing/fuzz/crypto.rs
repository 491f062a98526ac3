//! Keys, sealed records and envelopes.

use std::sync::{Arc, LazyLock};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use crate::{
    crypto::{
        admission::JoinSecret,
        epoch::{EpochKeys, KeyGrant},
        fanout::{Fanout, FanoutError, Start, peek},
        keys::{Identity, IdentityKey, KeyBounds, KeyPair, Verified, WrapPair},
        record::{HEADER_LEN, RecordError, RecordKind, Side, body_len, link},
        secret::Secret,
    },
    model::{
        ids::{Domain, Incarnation, KeyEpoch, NodeId},
        message::Topic,
    },
    wire::codec,
};

/// Bounds that let small keys in, which are quick.
#[expect(clippy::disallowed_methods, reason = "these keys protect nothing")]
pub(super) const WEAK: KeyBounds = KeyBounds::weak_for_simulation();

pub(super) fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

pub(super) fn pair(seed: u8) -> KeyPair {
    KeyPair::generate(&mut rng(seed), 1024, WEAK).expect("1024 bits")
}

/// Keys of one epoch, and the master that drew them.
pub(super) fn epoch(master: &Identity) -> EpochKeys {
    let domain = Domain { master: master.node(), incarnation: Incarnation(1) };
    let keys = EpochKeys::draw(&mut rng(3), master, domain, KeyEpoch(1), pair(4), WEAK);
    keys.expect("its own domain")
}

/// Returns the signed part of a message with its proof, as the bytes have it.
pub(super) fn signed_part(bytes: &[u8]) -> Option<Vec<u8>> {
    codec::decode::<(Vec<u8>, Vec<u8>)>(bytes).ok().map(|(body, _)| body)
}

struct Keys {
    master: IdentityKey,
    grant: KeyGrant,
    epoch: Arc<EpochKeys>,
    spki: Vec<u8>,
    token: String,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let master = Identity::new(pair(2));
    let epoch = epoch(&master);
    let token = JoinSecret::random(&mut rng(5), &master.fingerprint());
    Keys {
        master: IdentityKey::from_spki(master.spki(), WEAK).expect("a key"),
        grant: epoch.grant().expect("it encodes"),
        epoch: Arc::new(epoch),
        spki: master.spki().to_vec(),
        token: token.text().to_string(),
    }
});

/// Reads a public key, a private key, an announcement or a join token, as the first byte says.
pub(super) fn keys(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else { return false };
    match kind {
        0 => {
            let Ok(key) = IdentityKey::from_spki(bytes, WEAK) else { return false };
            assert_eq!(key.spki(), bytes, "a key has one encoding, and so one fingerprint");
            assert!(key.verify("label", &[b"part"], &[7; 128]).is_err());
            true
        }
        1 => {
            let Ok(pair) = KeyPair::from_pkcs8_der(bytes, WEAK) else { return false };
            let pair = WrapPair::new(pair);
            assert!(
                pair.unwrap(Verified::without_signature(), &mut rng(1), "label", &[], &[7; 128])
                    .is_err()
            );
            true
        }
        2 => {
            let keys = &*KEYS;
            let grant = KeyGrant::new(keys.grant.pkcs8.to_vec(), bytes.to_vec());
            let domain = keys.epoch.domain();
            let read = EpochKeys::accept(&mut rng(1), &keys.master, domain, &grant, WEAK);
            let signed = signed_part(&keys.grant.announcement);
            assert!(read.is_err() || signed_part(bytes) == signed, "the master signed no other");
            read.is_ok()
        }
        3 => {
            let text = String::from_utf8_lossy(bytes);
            let Ok(read) = JoinSecret::parse(&text) else { return false };
            assert_eq!(*read.text(), text.trim(), "a token has one spelling");
            true
        }
        _ => false,
    }
}

pub(super) fn key_seeds() -> Vec<Vec<u8>> {
    let keys = &*KEYS;
    let of = |kind: u8, bytes: &[u8]| [&[kind][..], bytes].concat();
    vec![
        of(0, &keys.spki),
        of(1, &keys.grant.pkcs8),
        of(2, &keys.grant.announcement),
        of(3, keys.token.as_bytes()),
    ]
}

fn secret() -> Secret {
    Secret::from_slice(&[42; 32]).expect("32 bytes")
}

/// The first records of a direction, the last of which closes it.
static RECORDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let (mut sealer, _) = link(&secret(), Side::Dialer);
    let texts: [(_, &[u8]); 4] = [
        (RecordKind::Data, b"one"),
        (RecordKind::Data, &[2; 100]),
        (RecordKind::Data, b""),
        (RecordKind::Close, b"bye"),
    ];
    let seal = |(kind, text): (RecordKind, &[u8])| {
        let mut record = Vec::new();
        sealer.seal(kind, text, &mut record).expect("short");
        record
    };
    texts.map(seal).to_vec()
});

/// Opens records one after the other. Each that opens is the genuine one of its place, and after
/// the first that does not, none opens.
pub(super) fn records(mut bytes: &[u8]) -> bool {
    let (_, mut opener) = link(&secret(), Side::Acceptor);
    let mut open =
        |header: [u8; HEADER_LEN], body: &[u8]| opener.open(header, &mut body.to_vec()).map(|_| ());
    let mut place = 0;
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() {
        let Ok(len) = body_len(*header) else { return false };
        let (body, after) = rest.split_at(len.min(rest.len()));
        let genuine = RECORDS.get(place);
        if open(*header, body).is_err() {
            if let Some((header, body)) = genuine.and_then(|record| record.split_first_chunk()) {
                assert_eq!(open(*header, body), Err(RecordError::Closed), "it is dead");
            }
            return false;
        }
        let record = [&header[..], body].concat();
        assert_eq!(Some(&record), genuine, "nobody but the sealer made it, for this place");
        (place, bytes) = (place + 1, after);
    }
    place > 0
}

pub(super) fn record_seeds() -> Vec<Vec<u8>> {
    (1..=RECORDS.len()).map(|count| RECORDS[..count].concat()).collect()
}

/// Genuine envelopes of two senders.
static ENVELOPES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut envelopes = Vec::new();
    for sender in [7, 8] {
        let start = Start::new(1, &mut rng(sender));
        let keys = Arc::clone(&KEYS.epoch);
        let mut fanout = Fanout::new(NodeId([sender; 16]), start, keys, 4);
        for (topic, text) in [(Topic::Board, &b"one"[..]), (Topic::Session, &[3; 200])] {
            envelopes.push(fanout.seal(topic, text).expect("short"));
        }
    }
    envelopes
});

/// Opens an envelope. One that opens is genuine, and does not open again.
pub(super) fn envelopes(bytes: &[u8]) -> bool {
    let start = Start::new(1, &mut rng(9));
    let mut member = Fanout::new(NodeId([9; 16]), start, Arc::clone(&KEYS.epoch), 4);
    let head = peek(bytes);
    match member.open(bytes) {
        Ok(opened) => {
            assert!(ENVELOPES.iter().any(|genuine| genuine == bytes), "no member sealed it");
            assert_eq!(head, Ok(opened.head));
            assert_eq!(member.open(bytes).err(), Some(FanoutError::Replayed));
            true
        }
        Err(_) => {
            let genuine = ENVELOPES.iter().all(|genuine| member.open(genuine).is_ok());
            assert!(genuine, "a forged envelope moves no window");
            false
        }
    }
}

pub(super) fn envelope_seeds() -> Vec<Vec<u8>> {
    ENVELOPES.clone()
}
