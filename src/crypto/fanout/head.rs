//! Clear fields of an envelope: their layout, writing and reading.

use aes_gcm::{Aes256Gcm, aead::Nonce};
use rand_core::CryptoRng;

use super::{FanoutError, TEXT_LEN_MAX};
use crate::{
    crypto::record::TAG_LEN,
    model::{
        ids::{Domain, Incarnation, KeyEpoch, NodeId},
        message::Topic,
    },
};

/// Length of the clear fields, in bytes.
pub const HEAD_LEN: usize = 74;
const FORMAT: u8 = 1;

/// One run of a sender. A node never uses the same start twice within an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    pub(super) number: u64,
    salt: [u8; 8],
}

impl Start {
    /// Makes a start with this number: a worker's registration, or a master's incarnation.
    #[must_use]
    pub fn new(number: u64, rng: &mut impl CryptoRng) -> Self {
        let mut salt = [0; 8];
        rng.fill_bytes(&mut salt);
        Self { number, salt }
    }

    pub(super) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..].copy_from_slice(&self.salt);
        bytes
    }
}

/// Clear fields of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Topic of the envelope.
    pub topic: Topic,
    /// Domain whose members it is for.
    pub domain: Domain,
    /// Epoch that it was sealed under.
    pub epoch: KeyEpoch,
    /// Sender of the envelope. Trustworthy only if the relaying master checked it against its link.
    pub sender: NodeId,
    pub(super) start: Start,
    pub(super) counter: u64,
}

/// Reads the clear fields without authenticating them.
///
/// # Errors
/// [`FanoutError::Malformed`].
pub fn peek(envelope: &[u8]) -> Result<Head, FanoutError> {
    if envelope.len() < HEAD_LEN + TAG_LEN {
        return Err(FanoutError::Malformed("too short"));
    }
    if envelope.len() > HEAD_LEN + TAG_LEN + TEXT_LEN_MAX {
        return Err(FanoutError::Malformed("too long"));
    }
    let mut fields = Fields(envelope);
    let [form, topic] = fields.take();
    if form != FORMAT {
        return Err(FanoutError::Malformed("unknown form"));
    }
    Ok(Head {
        topic: topic_of(topic).ok_or(FanoutError::Malformed("unknown topic"))?,
        domain: Domain {
            master: NodeId(fields.take()),
            incarnation: Incarnation(u64::from_be_bytes(fields.take())),
        },
        epoch: KeyEpoch(u64::from_be_bytes(fields.take())),
        sender: NodeId(fields.take()),
        start: Start { number: u64::from_be_bytes(fields.take()), salt: fields.take() },
        counter: u64::from_be_bytes(fields.take()),
    })
}

/// Fields of fixed lengths. Their total length was checked before.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the head's length was checked");
        self.0 = rest;
        *field
    }
}

impl Head {
    /// Returns the sender's start. Counters begin again with a new start.
    #[must_use]
    pub const fn start(&self) -> Start {
        self.start
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[FORMAT, topic_code(self.topic)]);
        out.extend_from_slice(&self.domain.master.0);
        out.extend_from_slice(&self.domain.incarnation.0.to_be_bytes());
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
        out.extend_from_slice(&self.sender.0);
        out.extend_from_slice(&self.start.bytes());
        out.extend_from_slice(&self.counter.to_be_bytes());
    }

    pub(super) fn nonce(&self) -> Nonce<Aes256Gcm> {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        nonce.into()
    }
}

pub(super) const fn topic_code(topic: Topic) -> u8 {
    match topic {
        Topic::Membership => 1,
        Topic::Board => 2,
        Topic::Session => 3,
        Topic::Presence => 4,
        Topic::Keys => 5,
    }
}

pub(super) fn topic_of(code: u8) -> Option<Topic> {
    Topic::ALL.into_iter().find(|topic| topic_code(*topic) == code)
}
