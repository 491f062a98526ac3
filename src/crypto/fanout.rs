//! Envelope of a publish, sealed once for all members of a domain.
//!
//! ```text
//! | format u8 | topic u8 | master 16, incarnation u64 | epoch u64 | sender 16 | start u64, salt 8 | counter u64 | AES-256-GCM(text), tag 16 |
//!   '------------------------------------- associated data -----------------------------------------------'
//! ```
//!
//! A sender's key is HKDF(group secret, sender ‖ start). A start is one registration of a worker or
//! one life of a master. Its salt keeps two starts apart that wrongly claim the same number, so
//! that no key seals two texts under one counter. A relaying master reads the clear fields by
//! [`peek`] and compares the sender with the link that the envelope came over. Only this check
//! stops a member from forging another: all members hold the same group secret.
//!
//! 1. An envelope opens at most once per member, within a window of 128 counters per sender.
//! 2. Only authenticated envelopes move a window or take one of the bounded places for senders.
//! 3. At most two epochs are held, and a dropped epoch is erased. Epochs only grow.
//! 4. Only the latest start of a sender is accepted.

mod head;

use std::{collections::BTreeMap, sync::Arc};

use aes_gcm::{
    AeadInOut, Aes256Gcm, KeyInit,
    aead::{Tag, inout::InOutBuf},
};
use thiserror::Error;

pub use self::head::{HEAD_LEN, Head, Start, peek};
use super::{epoch::EpochKeys, record::TAG_LEN, secret::Secret};
use crate::{
    model::bounds::{FRAME_HEAD_MAX, LIST_BYTES_MAX},
    model::{
        ids::{Domain, KeyEpoch, NodeId},
        message::Topic,
    },
    wire::FRAME_LEN_MAX,
};

/// Longest text of one envelope, in bytes. The envelope then fits into a link's frame.
pub const TEXT_LEN_MAX: usize = FRAME_LEN_MAX - HEAD_LEN - TAG_LEN - 1;
const _: () = assert!(TEXT_LEN_MAX >= LIST_BYTES_MAX + FRAME_HEAD_MAX / 2, "an update fits");

const SENDER: &str = "chatchat/v1/fanout/sender";
const WINDOW: u64 = 128;
const EPOCHS_MAX: usize = 2;
const SEALED_MAX: u64 = 1 << 32;

/// Error from sealing, opening or installing. Nothing changed, unless the variant says otherwise.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FanoutError {
    /// The bytes are not an envelope.
    #[error("not an envelope: {0}")]
    Malformed(&'static str),
    /// The envelope or the keys belong to another domain.
    #[error("an envelope of another domain")]
    OtherDomain,
    /// The envelope's epoch was removed, or this member never held it.
    #[error("epoch {0} is not held any more")]
    EpochGone(KeyEpoch),
    /// The epoch is ahead of the newest one held. Keep the envelope for a short time: the
    /// announcement may be on its way.
    #[error("epoch {0} is not held yet")]
    EpochAhead(KeyEpoch),
    /// The envelope was changed, or not sealed under its sender's key.
    #[error("an envelope failed authentication")]
    Forged,
    /// The envelope was opened before, or its counter lies before the window.
    #[error("an envelope came twice or far too late")]
    Replayed,
    /// The envelope's sender has a newer start.
    #[error("an envelope of an older start of its sender")]
    StaleStart,
    /// The sender is new, and the bound on senders is reached.
    #[error("more than {0} senders")]
    TooManySenders(usize),
    /// The text is longer than [`TEXT_LEN_MAX`].
    #[error("a text of {len} bytes is over the bound of {TEXT_LEN_MAX}")]
    TooLong {
        /// Length of the text, in bytes.
        len: usize,
    },
    /// This start has used up its counters under this epoch. The member needs a new start.
    #[error("all counters of this epoch are used up")]
    Exhausted,
    /// The epoch is older than the ones held or in use.
    #[error("epoch {0} is older than what is held")]
    OldEpoch(KeyEpoch),
    /// The keys differ from those held under the same number. This is an alarm: a master never does
    /// it.
    #[error("a second key for epoch {0}")]
    SecondKey(KeyEpoch),
    /// The newest epoch is not in use yet, and a third cannot be installed before it is.
    #[error("epoch {0} is not in use yet")]
    NotInUse(KeyEpoch),
}

fn sender_cipher(group: &Secret, sender: NodeId, start: Start) -> Aes256Gcm {
    Aes256Gcm::new(group.expand(SENDER, &[&sender.0, &start.bytes()]).expose().into())
}

/// Opened envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Clear fields, now authenticated.
    pub head: Head,
    /// Decrypted text.
    pub text: Vec<u8>,
}

/// State of one member in its domain's fanout: the epochs it holds, its own counters, and a replay
/// window for each sender. A worker that moves, or whose master restarted, makes a new one.
pub struct Fanout {
    me: NodeId,
    start: Start,
    senders_max: usize,
    /// One or two epochs, in ascending order.
    epochs: Vec<Epoch>,
    in_use: KeyEpoch,
}

struct Epoch {
    // Shared with the code that grants the keys to further members.
    keys: Arc<EpochKeys>,
    own: Aes256Gcm,
    sealed: u64,
    senders: BTreeMap<NodeId, SenderWindow>,
}

/// Replay window over the latest start of one sender.
struct SenderWindow {
    start: Start,
    cipher: Aes256Gcm,
    highest: u64,
    /// Opened counters: bit i stands for `highest - i`.
    opened: u128,
}

impl SenderWindow {
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
    /// Joins a domain with its current keys. Accepts at most `senders_max` senders. Use a start for
    /// one `Fanout` only.
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
        fanout.add_epoch(keys);
        fanout
    }

    fn add_epoch(&mut self, keys: Arc<EpochKeys>) {
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
    /// Any error about envelopes. After [`FanoutError::EpochAhead`] it may open later.
    pub fn open(&mut self, envelope: &[u8]) -> Result<Opened, FanoutError> {
        let head = peek(envelope)?;
        let senders_max = self.senders_max;
        let epoch = self.epoch_of(&head)?;
        let known = match epoch.senders.get(&head.sender) {
            Some(window) if window.start == head.start && window.is_new(head.counter) => {
                Some(&window.cipher)
            }
            Some(window) if window.start == head.start => return Err(FanoutError::Replayed),
            Some(window) if window.start.number >= head.start.number => {
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
            let window =
                SenderWindow { start: head.start, cipher, highest: head.counter, opened: 0 };
            epoch.senders.insert(head.sender, window);
        }
        if let Some(window) = epoch.senders.get_mut(&head.sender) {
            window.mark(head.counter);
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

    /// Installs a further epoch beside the one in use, and drops the oldest if two are held.
    /// Installing the same keys again changes nothing.
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
        self.add_epoch(keys);
        Ok(())
    }

    /// Makes this epoch the one that texts are sealed under.
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

    /// Returns the epoch that texts are sealed under.
    #[must_use]
    pub const fn in_use(&self) -> KeyEpoch {
        self.in_use
    }

    /// Returns the domain of all epochs held.
    #[must_use]
    pub fn domain(&self) -> Domain {
        self.epochs.first().expect("an epoch is always held").keys.domain()
    }

    /// Returns the keys in use, for a further member.
    #[must_use]
    pub fn keys(&self) -> &Arc<EpochKeys> {
        let in_use = self.held().find(|keys| keys.epoch() == self.in_use);
        in_use.expect("the epoch in use is never dropped")
    }

    /// Returns the keys of all epochs held, one or two, in ascending order.
    pub fn held(&self) -> impl Iterator<Item = &Arc<EpochKeys>> {
        self.epochs.iter().map(|epoch| &epoch.keys)
    }

    fn newest(&self) -> KeyEpoch {
        self.epochs.last().expect("an epoch is always held").keys.epoch()
    }
}

#[cfg(test)]
mod tests;
