//! Fanout of updates to a whole domain: sealed once under the common key, relayed unchanged,
//! opened by every member, with gaps noticed.
//!
//! ```text
//! member --seal--> envelope --link--> master: relay? --same bytes--> every other member --open--> update
//! ```
//!
//! A sender numbers its envelopes by topic, inside the sealed text. The count continues over key
//! epochs and begins again when the sender starts again. A receiver that finds a number missing
//! reports it in [`ReceivedUpdates::missed`] and asks for what it lacks: fanout is a hint, the
//! store is the truth.
//!
//! 1. A master relays only what its link's peer sealed, for the master's own domain.
//! 2. An envelope opens once; its updates belong to the topic that its clear field names.
//! 3. At most [`WAITING_MAX`] envelopes and [`WAITING_BYTES_MAX`] bytes wait for the keys of
//!    an epoch that is not held yet; the oldest make room.
//! 4. The first update received from a sender counts none before it as missed: a member that
//!    joins asks for all that it lacks anyway.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use thiserror::Error;

use crate::{
    crypto::{
        epoch::EpochKeys,
        fanout::{self as envelope, FanoutError as EnvelopeError, Head, Start, peek},
    },
    env::Env,
    model::{
        ids::{Domain, KeyEpoch, NodeId},
        message::{Topic, Updates},
    },
    wire::{
        FRAME_LEN_MAX,
        codec::{self, CodecError},
    },
};

/// Bound on the envelopes that wait for keys.
pub const WAITING_MAX: usize = 256;
/// Bound on the bytes of the envelopes that wait for keys.
pub const WAITING_BYTES_MAX: usize = 2 * FRAME_LEN_MAX;

/// Error of a member's fanout: nothing was sealed, relayed or received.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FanoutError {
    /// The envelope or the keys were refused. Nothing changed.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The updates are too long, or the text is none. The envelope counts as opened.
    #[error("update: {0}")]
    Update(#[from] CodecError),
    /// The update belongs to another topic than its envelope claims. The envelope counts as
    /// opened.
    #[error("update of {actual:?} in an envelope on {claimed:?}")]
    OtherTopic {
        /// Topic in the envelope's clear field.
        claimed: Topic,
        /// Topic of the update.
        actual: Topic,
    },
    /// The envelope came over the link of another node than its sender. It was not relayed.
    #[error("an envelope of {claimed} from {actual}")]
    OtherSender {
        /// Sender that the envelope names.
        claimed: NodeId,
        /// Peer of the link.
        actual: NodeId,
    },
}

/// Updates from another member of the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedUpdates {
    /// Node that sealed them.
    pub sender: NodeId,
    /// Updates themselves.
    pub updates: Updates,
    /// Number of earlier envelopes of this sender on this topic that have not arrived. Above 0,
    /// the receiver asks for what it lacks.
    pub missed: u64,
}

/// Counts of the updates that one sender sent.
struct Sender {
    start: Start,
    /// Set if an earlier start of this sender was known: then the count begins at its first
    /// update, not at the first that arrives.
    from_first: bool,
    /// Highest number received, by topic.
    numbers: BTreeMap<Topic, u64>,
    /// Value of [`Fanout::opened`] when its latest update arrived.
    last_heard: u64,
}

/// One member's part in its domain's fanout. A worker makes a new one at each registration, a
/// master at each start.
pub struct Fanout {
    crypt: envelope::Fanout,
    /// Last number given out, by topic.
    last_sent: BTreeMap<Topic, u64>,
    senders: BTreeMap<NodeId, Sender>,
    senders_max: usize,
    opened: u64,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
}

impl Fanout {
    /// Joins the domain of these keys. `start` is a worker's registration or a master's
    /// incarnation; `senders_max` bounds the senders that are counted.
    #[must_use]
    pub fn new(
        env: &Env,
        me: NodeId,
        start: u64,
        keys: impl Into<Arc<EpochKeys>>,
        senders_max: usize,
    ) -> Self {
        let start = Start::new(start, &mut env.rng("fanout-start"));
        Self {
            crypt: envelope::Fanout::new(me, start, keys, senders_max),
            last_sent: BTreeMap::new(),
            senders: BTreeMap::new(),
            senders_max,
            opened: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Seals updates once for all members. The caller has to publish the envelope: receivers
    /// count it as missed otherwise.
    ///
    /// # Errors
    /// [`FanoutError::Update`] when the updates are too long, [`FanoutError::Envelope`].
    pub fn seal(&mut self, updates: &Updates) -> Result<Bytes, FanoutError> {
        let topic = updates.topic();
        let last_sent = self.last_sent.entry(topic).or_default();
        let text = codec::encode(&(*last_sent + 1, updates))?;
        let sealed = self.crypt.seal(topic, &text)?;
        *last_sent += 1;
        Ok(sealed.into())
    }

    /// Checks that a master may relay an envelope that came over `sender`'s link. Returns its
    /// topic, so that only subscribed members get it. Opens nothing.
    ///
    /// # Errors
    /// [`FanoutError::OtherSender`] or [`FanoutError::Envelope`]: the caller closes that link.
    pub fn relay(&self, sender: NodeId, envelope: &[u8]) -> Result<Topic, FanoutError> {
        let head = peek(envelope)?;
        if head.domain != self.domain() {
            return Err(EnvelopeError::OtherDomain.into());
        }
        if head.sender != sender {
            return Err(FanoutError::OtherSender { claimed: head.sender, actual: sender });
        }
        Ok(head.topic)
    }

    /// Opens an envelope. Returns `None` when its epoch's keys are missing: the envelope then
    /// waits for [`Fanout::install`].
    ///
    /// # Errors
    /// Any [`FanoutError`]: the envelope is of no use to this member.
    pub fn open(&mut self, envelope: &Bytes) -> Result<Option<ReceivedUpdates>, FanoutError> {
        match self.open_now(envelope) {
            Err(FanoutError::Envelope(EnvelopeError::EpochAhead(_))) => {
                self.keep(envelope.clone());
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    fn open_now(&mut self, envelope: &[u8]) -> Result<ReceivedUpdates, FanoutError> {
        let opened = self.crypt.open(envelope)?;
        let (number, updates): (u64, Updates) = codec::decode(&opened.text)?;
        if updates.topic() != opened.head.topic {
            return Err(FanoutError::OtherTopic {
                claimed: opened.head.topic,
                actual: updates.topic(),
            });
        }
        let missed = self.count(&opened.head, number);
        Ok(ReceivedUpdates { sender: opened.head.sender, updates, missed })
    }

    /// Counts a number as received. Returns how many before it were missed.
    fn count(&mut self, head: &Head, number: u64) -> u64 {
        self.opened += 1;
        if self.senders.len() >= self.senders_max && !self.senders.contains_key(&head.sender) {
            let longest = self.senders.iter().min_by_key(|(_, sender)| sender.last_heard);
            if let Some(longest) = longest.map(|(node, _)| *node) {
                self.senders.remove(&longest);
            }
        }
        let fresh = |from_first| Sender {
            start: head.start(),
            from_first,
            numbers: BTreeMap::new(),
            last_heard: 0,
        };
        let sender = self.senders.entry(head.sender).or_insert_with(|| fresh(false));
        if sender.start != head.start() {
            *sender = fresh(true);
        }
        sender.last_heard = self.opened;
        let unheard = if sender.from_first { 0 } else { number.saturating_sub(1) };
        let last = sender.numbers.entry(head.topic).or_insert(unheard);
        let missed = number.saturating_sub(last.saturating_add(1));
        *last = number.max(*last);
        missed
    }

    /// Keeps an envelope until its keys arrive. Drops the oldest ones while a bound is exceeded.
    fn keep(&mut self, envelope: Bytes) {
        self.waiting_bytes += envelope.len();
        self.waiting.push_back(envelope);
        while self.waiting.len() > WAITING_MAX || self.waiting_bytes > WAITING_BYTES_MAX {
            let Some(dropped) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= dropped.len();
        }
    }

    /// Adds the keys of a further epoch, and opens the envelopes that waited for them, in the order
    /// in which they came.
    ///
    /// # Errors
    /// [`FanoutError::Envelope`]: the keys were refused.
    pub fn install(
        &mut self,
        keys: impl Into<Arc<EpochKeys>>,
    ) -> Result<Vec<Result<ReceivedUpdates, FanoutError>>, FanoutError> {
        self.crypt.install(keys)?;
        self.waiting_bytes = 0;
        let waited = std::mem::take(&mut self.waiting);
        // One of an epoch further ahead goes on waiting.
        Ok(waited.iter().filter_map(|envelope| self.open(envelope).transpose()).collect())
    }

    /// Seals under this epoch from now on.
    ///
    /// # Errors
    /// [`FanoutError::Envelope`] when its keys are missing, or a newer epoch is in use.
    pub fn use_epoch(&mut self, number: KeyEpoch) -> Result<(), FanoutError> {
        Ok(self.crypt.use_epoch(number)?)
    }

    /// Erases the keys of every epoch before the one in use.
    pub fn remove_old(&mut self) {
        self.crypt.remove_old();
    }

    /// Returns the epoch that this member seals under.
    #[must_use]
    pub const fn in_use(&self) -> KeyEpoch {
        self.crypt.in_use()
    }

    /// Returns the keys in use, for the grant of a further member.
    #[must_use]
    pub fn keys(&self) -> &Arc<EpochKeys> {
        self.crypt.keys()
    }

    /// Returns the keys of all epochs held, one or two, in ascending order.
    pub fn held(&self) -> impl Iterator<Item = &Arc<EpochKeys>> {
        self.crypt.held()
    }

    /// Returns the domain that this fanout belongs to.
    #[must_use]
    pub fn domain(&self) -> Domain {
        self.crypt.domain()
    }
}

impl fmt::Debug for Fanout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fanout")
            .field("domain", &self.domain())
            .field("in_use", &self.in_use())
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
