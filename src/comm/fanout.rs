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
mod tests {
    use super::*;
    use crate::{
        crypto::{epoch::for_tests::epoch_of, keys::for_tests::identity},
        model::ids::SessionKey,
        testing::stepped_world::run,
    };

    const PRESENCE: Update = Update::PresenceChanged;

    fn closed(n: u8) -> Update {
        Update::SessionClosed(SessionKey([n; 32]))
    }

    fn node(number: u8) -> NodeId {
        identity(number).node()
    }

    /// A member of master 1's domain at its first epoch.
    fn member(env: &Env, number: u8, start: u64) -> Fanout {
        Fanout::new(env, node(number), start, epoch_of(1, 1), 4)
    }

    fn seal(sender: &mut Fanout, update: &Update) -> Bytes {
        sender.seal(update).expect("short")
    }

    /// What was missed, when the news are opened.
    fn missed(receiver: &mut Fanout, envelope: &Bytes) -> u64 {
        receiver.open(envelope).expect("sealed for it").expect("its epoch is held").missed
    }

    #[test]
    fn one_sealing_is_heard_by_every_member_once() {
        run(async |env| {
            let [mut sender, mut one, mut two] = [1, 2, 3].map(|n| member(&env, n, 1));
            let envelope = seal(&mut sender, &closed(1));
            let heard = ReceivedUpdate { sender: node(1), update: closed(1), missed: 0 };
            for receiver in [&mut one, &mut two] {
                assert_eq!(receiver.open(&envelope), Ok(Some(heard.clone())));
                let again = receiver.open(&envelope);
                assert_eq!(again, Err(FanoutError::Envelope(EnvelopeError::Replayed)));
            }
        });
    }

    #[test]
    fn what_is_missing_is_reported_by_topic_and_what_comes_late_is_heard() {
        run(async |env| {
            let [mut sender, mut receiver] = [1, 2].map(|n| member(&env, n, 1));
            let posts: Vec<_> = (0..6).map(|n| seal(&mut sender, &closed(n))).collect();
            let presence = seal(&mut sender, &PRESENCE);
            assert_eq!(missed(&mut receiver, &posts[1]), 0, "who joins late lacks nothing");
            assert_eq!(missed(&mut receiver, &posts[2]), 0);
            assert_eq!(missed(&mut receiver, &presence), 0, "topics count apart");
            assert_eq!(missed(&mut receiver, &posts[5]), 2);
            assert_eq!(missed(&mut receiver, &posts[4]), 0);
            let next = seal(&mut sender, &closed(9));
            assert_eq!(missed(&mut receiver, &next), 0);
        });
    }

    #[test]
    fn a_sender_that_starts_again_is_heard_from_its_first() {
        run(async |env| {
            let [mut before, mut after, mut receiver] =
                [(1, 1), (1, 2), (2, 1)].map(|(n, start)| member(&env, n, start));
            assert_eq!(missed(&mut receiver, &seal(&mut before, &PRESENCE)), 0);
            seal(&mut after, &PRESENCE);
            assert_eq!(missed(&mut receiver, &seal(&mut after, &PRESENCE)), 1);
        });
    }

    #[test]
    fn counts_go_on_over_epochs_and_what_came_before_its_keys_waits() {
        run(async |env| {
            let [mut sender, mut receiver] = [1, 2].map(|n| member(&env, n, 1));
            assert_eq!(missed(&mut receiver, &seal(&mut sender, &closed(1))), 0);
            assert_eq!(sender.install(epoch_of(1, 2)), Ok(vec![]));
            assert_eq!(sender.use_epoch(KeyEpoch(2)), Ok(()));
            seal(&mut sender, &closed(2));
            let early = seal(&mut sender, &closed(3));
            assert_eq!(receiver.open(&early), Ok(None));
            let heard = receiver.install(epoch_of(1, 2)).expect("the next epoch");
            assert_eq!(heard, [ReceivedUpdate { sender: node(1), update: closed(3), missed: 1 }]);
            assert!(receiver.waiting.is_empty() && receiver.waiting_bytes == 0);
        });
    }

    #[test]
    fn what_waits_is_bounded_and_the_newest_stay() {
        run(async |env| {
            let [mut sender, mut receiver] = [1, 2].map(|n| member(&env, n, 1));
            sender.install(epoch_of(1, 2)).expect("the next epoch");
            sender.use_epoch(KeyEpoch(2)).expect("held");
            for _ in 0..WAITING_MAX + 10 {
                assert_eq!(receiver.open(&seal(&mut sender, &PRESENCE)), Ok(None));
            }
            assert_eq!(receiver.waiting.len(), WAITING_MAX);
            let size: usize = receiver.waiting.iter().map(Bytes::len).sum();
            assert_eq!(receiver.waiting_bytes, size);
            receiver.keep(Bytes::from(vec![0; WAITING_BYTES_MAX]));
            assert_eq!(receiver.waiting.len(), 1);
            receiver.keep(Bytes::from(vec![0; 1]));
            assert_eq!((receiver.waiting.len(), receiver.waiting_bytes), (1, 1));
        });
    }

    #[test]
    fn senders_that_are_counted_are_bounded() {
        run(async |env| {
            let mut receiver = member(&env, 9, 1);
            for number in 2..6 {
                let first = seal(&mut member(&env, number, 1), &PRESENCE);
                assert_eq!(missed(&mut receiver, &first), 0);
            }
            receiver.install(epoch_of(1, 2)).expect("the next epoch");
            let mut newcomer = Fanout::new(&env, node(7), 1, epoch_of(1, 2), 4);
            assert_eq!(missed(&mut receiver, &seal(&mut newcomer, &PRESENCE)), 0);
            assert_eq!(receiver.senders.len(), 4);
            assert!(!receiver.senders.contains_key(&node(2)), "the longest unheard is forgotten");
        });
    }

    #[test]
    fn a_master_relays_only_what_the_links_peer_sealed_for_its_domain() {
        run(async |env| {
            let [master, mut sender] = [1, 2].map(|n| member(&env, n, 1));
            let mut stranger = Fanout::new(&env, node(2), 1, epoch_of(5, 1), 4);
            let envelope = seal(&mut sender, &closed(1));
            assert_eq!(master.relay(node(2), &envelope), Ok(Topic::Session));
            let forged = FanoutError::OtherSender { claimed: node(2), actual: node(3) };
            assert_eq!(master.relay(node(3), &envelope), Err(forged));
            let other = FanoutError::Envelope(EnvelopeError::OtherDomain);
            assert_eq!(master.relay(node(2), &seal(&mut stranger, &PRESENCE)), Err(other));
            let garbled = master.relay(node(2), b"garbage");
            assert!(matches!(garbled, Err(FanoutError::Envelope(EnvelopeError::Malformed(_)))));
        });
    }

    #[test]
    fn news_under_a_wrong_topic_and_texts_that_are_no_news_are_refused() {
        run(async |env| {
            let [mut sender, mut receiver] = [1, 2].map(|n| member(&env, n, 1));
            let text = codec::encode(&(1_u64, PRESENCE)).expect("short");
            let sealed = sender.crypt.seal(Topic::Board, &text).expect("short");
            let wrong = FanoutError::OtherTopic { claimed: Topic::Board, actual: Topic::Presence };
            assert_eq!(receiver.open(&sealed.into()), Err(wrong));
            let sealed = sender.crypt.seal(Topic::Board, b"no update").expect("short");
            assert!(matches!(receiver.open(&sealed.into()), Err(FanoutError::Update(_))));
        });
    }
}
