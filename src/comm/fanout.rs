//! Update for a whole domain: sealed once under its common key, relayed as they are, opened by
//! every member, with gaps noticed.
//!
//! ```text
//! member --seal--> envelope --link--> master: relay? --same bytes--> every other member --open--> update
//! ```
//!
//! A sender numbers what it says on each topic, inside the sealed text, over all epochs of one
//! start of it. A receiver that finds a number missing reports a [`ReceivedUpdate::missed`] and asks
//! for what it lacks: fanout is a hint, the store is the truth.
//!
//! 1. A master relays only what its link's peer sealed, for the master's own domain.
//! 2. An envelope opens once; what it says is of the topic that its clear field names.
//! 3. At most [`WAITING_MAX`] envelopes and [`WAITING_BYTES_MAX`] bytes wait for the keys of
//!    an epoch that is not held yet; the oldest make room.
//! 4. The first that is heard of a sender says nothing of what came before: who joins asks for
//!    all that it lacks anyway.

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
        message::{Topic, Update},
    },
    wire::{
        FRAME_LEN_MAX,
        codec::{self, CodecError},
    },
};

/// The most envelopes that wait for keys.
pub const WAITING_MAX: usize = 256;
/// The most bytes that wait for keys.
pub const WAITING_BYTES_MAX: usize = 2 * FRAME_LEN_MAX;

/// Nothing was sealed, relayed or heard.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FanoutError {
    /// The envelope, or the keys, are refused. Nothing changed.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The text is no news, or too long. The envelope counts as opened.
    #[error("update: {0}")]
    Update(#[from] CodecError),
    /// The news are of another topic than the envelope says. It counts as opened.
    #[error("update of {actual:?} in an envelope on {claimed:?}")]
    OtherTopic {
        /// What the envelope says.
        claimed: Topic,
        /// What the news are of.
        actual: Topic,
    },
    /// It came from another than it says. Not relayed.
    #[error("an envelope of {claimed} from {actual}")]
    OtherSender {
        /// Who it says sealed it.
        claimed: NodeId,
        /// Whose link it came over.
        actual: NodeId,
    },
}

/// Update that were opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedUpdate {
    /// Who said it.
    pub sender: NodeId,
    /// What.
    pub update: Update,
    /// So many of this sender on this topic came not, or not yet: ask for what is lacking.
    pub missed: u64,
}

/// What was heard of one sender.
struct Sender {
    start: Start,
    /// Whether an earlier start was heard: then this one is heard from its beginning on.
    from_first: bool,
    /// The highest number of each topic.
    numbers: BTreeMap<Topic, u64>,
    /// When it was last heard, in envelopes.
    last_heard: u64,
}

/// One member's part in its domain's fanout. Made anew with each registration, and by a master
/// with each life.
pub struct Fanout {
    crypt: envelope::Fanout,
    /// The last number given out, by topic.
    last_sent: BTreeMap<Topic, u64>,
    senders: BTreeMap<NodeId, Sender>,
    senders_max: usize,
    opened: u64,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
}

impl Fanout {
    /// Joins the domain of these keys. `start` is a worker's registration or a master's
    /// incarnation; `senders_max` bounds whom it keeps counts of.
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

    /// Seals news once for all members. Each envelope that is sealed is to be published:
    /// receivers miss it otherwise.
    ///
    /// # Errors
    /// [`FanoutError::Update`] when too long, [`FanoutError::Envelope`].
    pub fn seal(&mut self, update: &Update) -> Result<Bytes, FanoutError> {
        let topic = update.topic();
        let last_sent = self.last_sent.entry(topic).or_default();
        let text = codec::encode(&(*last_sent + 1, update))?;
        let sealed = self.crypt.seal(topic, &text)?;
        *last_sent += 1;
        Ok(sealed.into())
    }

    /// Whether a master may relay this envelope, which came over `sender`'s link; and on which
    /// topic, so that only members that want it get it. Opens nothing.
    ///
    /// # Errors
    /// [`FanoutError::OtherSender`] or [`FanoutError::Envelope`]: that link is to be closed.
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

    /// Opens an envelope. `None` when its epoch is not held yet: it waits for
    /// [`Fanout::install`].
    ///
    /// # Errors
    /// [`FanoutError`]: it says nothing to this member.
    pub fn open(&mut self, envelope: &Bytes) -> Result<Option<ReceivedUpdate>, FanoutError> {
        match self.open_now(envelope) {
            Err(FanoutError::Envelope(EnvelopeError::EpochAhead(_))) => {
                self.keep(envelope.clone());
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    fn open_now(&mut self, envelope: &[u8]) -> Result<ReceivedUpdate, FanoutError> {
        let opened = self.crypt.open(envelope)?;
        let (number, update): (u64, Update) = codec::decode(&opened.text)?;
        if update.topic() != opened.head.topic {
            return Err(FanoutError::OtherTopic {
                claimed: opened.head.topic,
                actual: update.topic(),
            });
        }
        let missed = self.note(&opened.head, number);
        Ok(ReceivedUpdate { sender: opened.head.sender, update, missed })
    }

    /// Counts a number as heard. Says how many before it were not.
    fn note(&mut self, head: &Head, number: u64) -> u64 {
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

    /// Keeps an envelope until its keys come, dropping the oldest that do not fit beside it.
    fn keep(&mut self, envelope: Bytes) {
        self.waiting_bytes += envelope.len();
        self.waiting.push_back(envelope);
        while self.waiting.len() > WAITING_MAX || self.waiting_bytes > WAITING_BYTES_MAX {
            let Some(dropped) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= dropped.len();
        }
    }

    /// Holds a further epoch's keys, and opens what waited for them.
    ///
    /// # Errors
    /// [`FanoutError::Envelope`]: the keys are refused. Of what waited, what does not open is
    /// dropped in silence: it was never believed.
    pub fn install(
        &mut self,
        keys: impl Into<Arc<EpochKeys>>,
    ) -> Result<Vec<ReceivedUpdate>, FanoutError> {
        self.crypt.install(keys)?;
        self.waiting_bytes = 0;
        let waited = std::mem::take(&mut self.waiting);
        Ok(waited.iter().filter_map(|envelope| self.open(envelope).ok().flatten()).collect())
    }

    /// Seals under this epoch from now on.
    ///
    /// # Errors
    /// [`FanoutError::Envelope`] when it is not held, or a newer one is in use.
    pub fn use_epoch(&mut self, number: KeyEpoch) -> Result<(), FanoutError> {
        Ok(self.crypt.use_epoch(number)?)
    }

    /// Erases the keys of every epoch before the one in use.
    pub fn remove_old(&mut self) {
        self.crypt.remove_old();
    }

    /// The epoch that is sealed under.
    #[must_use]
    pub const fn in_use(&self) -> KeyEpoch {
        self.crypt.in_use()
    }

    /// The keys in use, as a further member is to be given them.
    #[must_use]
    pub fn keys(&self) -> &Arc<EpochKeys> {
        self.crypt.keys()
    }

    /// Whose fanout this is.
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
