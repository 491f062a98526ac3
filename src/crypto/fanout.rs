//! The envelope of a publish: sealed once for all members of a domain, however many.
//!
//! ```text
//! | form u8 | topic u8 | master 16, incarnation u64 | epoch u64 | sender 16 | start u64, salt 8 | counter u64 | AES-256-GCM(text), tag 16 |
//!   '------------------------------------ associated data ----------------------------------------------'
//! ```
//!
//! A sender's key is HKDF(group secret, sender ‖ start); a start is one registration of a worker
//! or one life of a master, and the salt keeps two that wrongly claim the same number apart, so
//! that no key seals two texts under one counter. Who relays reads the clear fields by [`peek`]
//! and holds the sender against the link that the envelope came over: inside a domain any member
//! could forge another, and that check is what forbids it.
//!
//! 1. An envelope opens at most once per member, within a window of 128 counters per sender.
//! 2. Only what was authenticated moves a window or takes one of the bounded places for senders.
//! 3. At most two epochs are held; what is dropped is erased. Epochs only grow.
//! 4. Of one sender, only the latest start is heard.

use std::{collections::BTreeMap, sync::Arc};

use aes_gcm::{
    AeadInOut, Aes256Gcm, KeyInit,
    aead::{Nonce, Tag, inout::InOutBuf},
};
use rand_core::CryptoRng;
use thiserror::Error;

use super::{epoch::EpochKeys, record::TAG_LEN, secret::Secret};
use crate::{
    model::{
        ids::{Domain, Incarnation, KeyEpoch, NodeId},
        message::Topic,
    },
    wire::FRAME_LEN_MAX,
};

/// The length of the clear fields, in bytes.
pub const HEAD_LEN: usize = 74;
/// The longest text of one envelope, in bytes: the envelope fits into a link's frame.
pub const TEXT_LEN_MAX: usize = FRAME_LEN_MAX - HEAD_LEN - TAG_LEN - 1;

const SENDER: &str = "chatchat/v1/fanout/sender";
const FORM: u8 = 1;
const WINDOW: u64 = 128;
const EPOCHS_MAX: usize = 2;
const SEALED_MAX: u64 = 1 << 32;

/// Why nothing was sealed, opened or installed. Unless the variant says so, nothing changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FanoutError {
    /// The bytes are no envelope.
    #[error("not an envelope: {0}")]
    Malformed(&'static str),
    /// It is of another domain.
    #[error("an envelope of another domain")]
    OtherDomain,
    /// Its epoch was removed, or never held by this member.
    #[error("epoch {0} is not held any more")]
    EpochGone(KeyEpoch),
    /// Its epoch is ahead of what is held: keep it shortly, the announcement may be on its way.
    #[error("epoch {0} is not held yet")]
    EpochAhead(KeyEpoch),
    /// It was not sealed under its sender's key, or was changed.
    #[error("an envelope failed authentication")]
    Forged,
    /// It was opened before, or its counter lies before the window.
    #[error("an envelope came twice or far too late")]
    Replayed,
    /// Its sender has a newer start.
    #[error("an envelope of an older start of its sender")]
    StaleStart,
    /// More senders than there can be members.
    #[error("more than {0} senders")]
    TooManySenders(usize),
    /// The text is over [`TEXT_LEN_MAX`].
    #[error("a text of {len} bytes is over the bound of {TEXT_LEN_MAX}")]
    TooLong {
        /// How long it is.
        len: usize,
    },
    /// This start has sealed all that it may under this epoch: it needs a new one.
    #[error("all counters of this epoch are used up")]
    Exhausted,
    /// The keys offered are older than those held.
    #[error("epoch {0} is older than what is held")]
    OldEpoch(KeyEpoch),
    /// Other keys under a number that is held: an alarm, for a master never does this.
    #[error("a second key for epoch {0}")]
    SecondKey(KeyEpoch),
    /// The newest epoch is not in use yet: a third cannot be installed before it is.
    #[error("epoch {0} is not in use yet")]
    NotInUse(KeyEpoch),
}

/// One start of a sender, never used again by the same node within an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    number: u64,
    salt: [u8; 8],
}

impl Start {
    /// A start of this number: a worker's registration, a master's incarnation.
    #[must_use]
    pub fn new(number: u64, rng: &mut impl CryptoRng) -> Self {
        let mut salt = [0; 8];
        rng.fill_bytes(&mut salt);
        Self { number, salt }
    }

    fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..].copy_from_slice(&self.salt);
        bytes
    }
}

/// The clear fields of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it is about.
    pub topic: Topic,
    /// Whose members it is for.
    pub domain: Domain,
    /// Under which epoch it was sealed.
    pub epoch: KeyEpoch,
    /// Who sealed it, if the relaying master checked its link.
    pub sender: NodeId,
    start: Start,
    counter: u64,
}

/// Reads the clear fields without believing them.
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
    if form != FORM {
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

/// Fields of fixed lengths, whose sum was checked before.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the head's length was checked");
        self.0 = rest;
        *field
    }
}

impl Head {
    /// Which start of the sender: another one counts anew.
    #[must_use]
    pub const fn start(&self) -> Start {
        self.start
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[FORM, topic_code(self.topic)]);
        out.extend_from_slice(&self.domain.master.0);
        out.extend_from_slice(&self.domain.incarnation.0.to_be_bytes());
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
        out.extend_from_slice(&self.sender.0);
        out.extend_from_slice(&self.start.bytes());
        out.extend_from_slice(&self.counter.to_be_bytes());
    }

    fn nonce(&self) -> Nonce<Aes256Gcm> {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        nonce.into()
    }
}

const fn topic_code(topic: Topic) -> u8 {
    match topic {
        Topic::Membership => 1,
        Topic::Board => 2,
        Topic::Session => 3,
        Topic::Presence => 4,
        Topic::Keys => 5,
    }
}

fn topic_of(code: u8) -> Option<Topic> {
    Topic::ALL.into_iter().find(|topic| topic_code(*topic) == code)
}

fn sender_cipher(group: &Secret, sender: NodeId, start: Start) -> Aes256Gcm {
    Aes256Gcm::new(group.expand(SENDER, &[&sender.0, &start.bytes()]).expose().into())
}

/// An opened envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The clear fields, now authenticated.
    pub head: Head,
    /// What it says.
    pub text: Vec<u8>,
}

/// One member's place in its domain's fanout: the epochs it holds, its own counter, and what it
/// has heard of each sender. A worker that moves, or whose master restarted, makes a new one.
pub struct Fanout {
    me: NodeId,
    start: Start,
    senders_max: usize,
    /// One or two, ascending.
    epochs: Vec<Epoch>,
    in_use: KeyEpoch,
}

struct Epoch {
    // Shared with who grants them to further members.
    keys: Arc<EpochKeys>,
    own: Aes256Gcm,
    sealed: u64,
    senders: BTreeMap<NodeId, Heard>,
}

/// What was heard of one sender's latest start.
struct Heard {
    start: Start,
    cipher: Aes256Gcm,
    highest: u64,
    /// Bit i: counter `highest - i` was opened.
    opened: u128,
}

impl Heard {
    const fn is_new(&self, counter: u64) -> bool {
        if counter > self.highest {
            return true;
        }
        let back = self.highest - counter;
        back < WINDOW && self.opened & (1 << back) == 0
    }

    const fn mark(&mut self, counter: u64) {
        if counter > self.highest {
            let ahead = counter - self.highest;
            self.opened = if ahead < WINDOW { self.opened << ahead } else { 0 };
            self.highest = counter;
        }
        self.opened |= 1 << (self.highest - counter);
    }
}

impl Fanout {
    /// Joins a domain with its current keys. Bounds the senders that it listens to; a start is
    /// used for one `Fanout` only.
    #[must_use]
    pub fn new(
        me: NodeId,
        start: Start,
        keys: impl Into<Arc<EpochKeys>>,
        senders_max: usize,
    ) -> Self {
        let keys = keys.into();
        let in_use = keys.epoch();
        let mut fanout = Self { me, start, senders_max, epochs: Vec::new(), in_use };
        fanout.hold(keys);
        fanout
    }

    fn hold(&mut self, keys: Arc<EpochKeys>) {
        let own = sender_cipher(keys.group(), self.me, self.start);
        self.epochs.push(Epoch { keys, own, sealed: 0, senders: BTreeMap::new() });
    }

    /// Seals a text once for all members, under the epoch in use.
    ///
    /// # Errors
    /// [`FanoutError::TooLong`], [`FanoutError::Exhausted`].
    pub fn seal(&mut self, topic: Topic, text: &[u8]) -> Result<Vec<u8>, FanoutError> {
        if text.len() > TEXT_LEN_MAX {
            return Err(FanoutError::TooLong { len: text.len() });
        }
        let (sender, start, in_use) = (self.me, self.start, self.in_use);
        let epoch = self
            .epochs
            .iter_mut()
            .find(|epoch| epoch.keys.epoch() == in_use)
            .expect("the epoch in use is never dropped");
        if epoch.sealed >= SEALED_MAX {
            return Err(FanoutError::Exhausted);
        }
        epoch.sealed += 1;
        let (domain, counter) = (epoch.keys.domain(), epoch.sealed);
        let head = Head { topic, domain, epoch: in_use, sender, start, counter };
        let mut out = Vec::with_capacity(HEAD_LEN + text.len() + TAG_LEN);
        head.write(&mut out);
        out.extend_from_slice(text);
        let (clear, inner) = out.split_at_mut(HEAD_LEN);
        let tag = epoch
            .own
            .encrypt_inout_detached(&head.nonce(), clear, InOutBuf::from(inner))
            .expect("a text is far shorter than AES-GCM's bound");
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// Opens an envelope of the domain, once.
    ///
    /// # Errors
    /// Any of those about envelopes. After [`FanoutError::EpochAhead`] it may open later.
    pub fn open(&mut self, envelope: &[u8]) -> Result<Opened, FanoutError> {
        let head = peek(envelope)?;
        let senders_max = self.senders_max;
        let epoch = self.epoch_of(&head)?;
        let known = match epoch.senders.get(&head.sender) {
            Some(heard) if heard.start == head.start && heard.is_new(head.counter) => {
                Some(&heard.cipher)
            }
            Some(heard) if heard.start == head.start => return Err(FanoutError::Replayed),
            Some(heard) if heard.start.number >= head.start.number => {
                return Err(FanoutError::StaleStart);
            }
            None if epoch.senders.len() >= senders_max => {
                return Err(FanoutError::TooManySenders(senders_max));
            }
            _ => None,
        };
        let derive = || sender_cipher(epoch.keys.group(), head.sender, head.start);
        let fresh = known.is_none().then(derive);
        let cipher = known.or(fresh.as_ref()).expect("a cipher that is not known was derived");
        let (clear, inner) = envelope.split_at(HEAD_LEN);
        let (inner, tag) = inner.split_at(inner.len() - TAG_LEN);
        let tag = Tag::<Aes256Gcm>::try_from(tag).map_err(|_| FanoutError::Forged)?;
        let mut text = inner.to_vec();
        cipher
            .decrypt_inout_detached(&head.nonce(), clear, InOutBuf::from(&mut text[..]), &tag)
            .map_err(|_| FanoutError::Forged)?;

        if let Some(cipher) = fresh {
            let heard = Heard { start: head.start, cipher, highest: head.counter, opened: 0 };
            epoch.senders.insert(head.sender, heard);
        }
        if let Some(heard) = epoch.senders.get_mut(&head.sender) {
            heard.mark(head.counter);
        }
        Ok(Opened { head, text })
    }

    fn epoch_of(&mut self, head: &Head) -> Result<&mut Epoch, FanoutError> {
        if head.domain != self.domain() {
            return Err(FanoutError::OtherDomain);
        }
        let ahead = self.epochs.last().is_none_or(|last| head.epoch > last.keys.epoch());
        self.epochs.iter_mut().find(|epoch| epoch.keys.epoch() == head.epoch).ok_or(if ahead {
            FanoutError::EpochAhead(head.epoch)
        } else {
            FanoutError::EpochGone(head.epoch)
        })
    }

    /// Holds a further epoch beside the one in use; the oldest of two is dropped for it. The
    /// same keys again change nothing.
    ///
    /// # Errors
    /// [`FanoutError::OtherDomain`], [`FanoutError::OldEpoch`], [`FanoutError::SecondKey`],
    /// [`FanoutError::NotInUse`].
    pub fn install(&mut self, keys: impl Into<Arc<EpochKeys>>) -> Result<(), FanoutError> {
        let keys = keys.into();
        if keys.domain() != self.domain() {
            return Err(FanoutError::OtherDomain);
        }
        let number = keys.epoch();
        if let Some(held) = self.epochs.iter().find(|epoch| epoch.keys.epoch() == number) {
            let same = held.keys.digest() == keys.digest();
            return if same { Ok(()) } else { Err(FanoutError::SecondKey(number)) };
        }
        let newest = self.newest();
        if number < newest {
            return Err(FanoutError::OldEpoch(number));
        }
        if newest != self.in_use {
            return Err(FanoutError::NotInUse(newest));
        }
        if self.epochs.len() == EPOCHS_MAX {
            self.epochs.remove(0);
        }
        self.hold(keys);
        Ok(())
    }

    /// Seals under this epoch from now on.
    ///
    /// # Errors
    /// [`FanoutError::OldEpoch`] when a newer one is in use, [`FanoutError::EpochAhead`] when it
    /// is not held.
    pub fn use_epoch(&mut self, number: KeyEpoch) -> Result<(), FanoutError> {
        if number < self.in_use {
            return Err(FanoutError::OldEpoch(number));
        }
        if !self.epochs.iter().any(|epoch| epoch.keys.epoch() == number) {
            return Err(FanoutError::EpochAhead(number));
        }
        self.in_use = number;
        Ok(())
    }

    /// Erases every epoch before the one in use.
    pub fn remove_old(&mut self) {
        let in_use = self.in_use;
        self.epochs.retain(|epoch| epoch.keys.epoch() >= in_use);
    }

    /// The epoch that is sealed under.
    #[must_use]
    pub const fn in_use(&self) -> KeyEpoch {
        self.in_use
    }

    /// The domain that all epochs held are of.
    #[must_use]
    pub fn domain(&self) -> Domain {
        self.epochs.first().expect("an epoch is always held").keys.domain()
    }

    /// The keys in use, as a further member is to be given them.
    #[must_use]
    pub fn keys(&self) -> &Arc<EpochKeys> {
        let held = self.epochs.iter().find(|epoch| epoch.keys.epoch() == self.in_use);
        &held.expect("the epoch in use is never dropped").keys
    }

    fn newest(&self) -> KeyEpoch {
        self.epochs.last().expect("an epoch is always held").keys.epoch()
    }
}

#[cfg(test)]
mod tests;
