//! History of a run: every call and stream of every person, on the observer's clock.
//!
//! 1. A record is made before a request leaves and completed when its answer is read, so that a
//!    real order of two operations is never judged from times that lie inside them.
//! 2. An operation without an answer is *unknown*: it may have happened or not.
//! 3. The history grows only while people live; oracles read it whole afterwards.

mod operator;
mod recorder;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use chatchat::{
    api::{PostState, StreamEvent},
    client::{Answer, Delivery, Failure, Request, StreamEnd},
    model::{
        ids::{BoardName, Cursor, Post, PostId, PostText, UserId},
        stream::{HeldState, ResetReason},
    },
};

pub use self::{
    operator::{OperatorCall, post_of},
    recorder::Recorder,
};

/// Clock of the observer: time since the run's start, the same for all people.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// Returns a clock that asks `now`.
    #[must_use]
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Since the run's start.
    #[must_use]
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({:?})", self.now())
    }
}

/// Person in one of its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// Number of the person.
    pub person: usize,
    /// Number of the session, from 0.
    pub life: usize,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "person:{}", self.person)?;
        if self.life > 0 { write!(f, " (session {})", self.life) } else { Ok(()) }
    }
}

/// End of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With this answer.
    Answered(Result<Answer, Failure>),
    /// Its person stopped waiting.
    Dropped,
}

/// One try of one call at one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Number in the history, from 0.
    pub number: usize,
    /// Session that made the call.
    pub who: Who,
    /// Asked of whom: `http://host:port`.
    pub master: String,
    /// Request that was made.
    pub request: Request,
    /// Time just before the request left.
    pub invoked: Duration,
    /// Time and kind of the end; `None` when the person's machine died or the run ended first.
    pub end: Option<(Duration, End)>,
}

impl Operation {
    /// Its good answer and when it came.
    #[must_use]
    pub fn reply(&self) -> Option<(Duration, &Answer)> {
        match &self.end {
            Some((at, End::Answered(Ok(reply)))) => Some((*at, reply)),
            _ => None,
        }
    }

    /// Returns the failure and its time, if the operation failed.
    #[must_use]
    pub fn failure(&self) -> Option<(Duration, &Failure)> {
        match &self.end {
            Some((at, End::Answered(Err(failure)))) => Some((*at, failure)),
            _ => None,
        }
    }

    /// Returns whether it is certain that the operation did nothing.
    #[must_use]
    pub fn did_nothing(&self) -> bool {
        self.failure().is_some_and(|(_, failure)| failure.did_nothing())
    }

    /// Returns the post that the answer says is committed, and the time of the answer.
    #[must_use]
    pub fn committed(&self) -> Option<(Duration, &Post)> {
        match self.reply()? {
            (at, Answer::Posted(post) | Answer::Fate(Some(PostState::Committed(post)))) => {
                Some((at, post))
            }
            _ => None,
        }
    }
}

/// One stream at one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamLog {
    /// Number in the history, from 0.
    pub number: usize,
    /// Session that asked for the stream.
    pub who: Who,
    /// At which master.
    pub master: String,
    /// Boards that were asked for.
    pub boards: Vec<BoardName>,
    /// From where.
    pub cursor: Option<Cursor>,
    /// Time at which the stream was asked for.
    pub asked: Duration,
    /// Deliveries, each with its time.
    pub deliveries: Vec<(Duration, Delivery)>,
    /// Time and kind of the end; `None` when it was open at the end or the person's machine
    /// died.
    pub end: Option<(Duration, StreamEnd)>,
    /// Time and reason of the refusal, if the stream never began.
    pub refused: Option<(Duration, Failure)>,
    /// Its reader paused on purpose while it was open.
    pub looked_away: bool,
    /// Its reader paused on it, or on the stream before it: being closed is fair, and it begins far
    /// back.
    pub is_slow: bool,
    /// Number of the reader that asked for it in [`History::readers`], also of one that was refused.
    pub reader: Option<usize>,
}

/// Reader of boards: one page or tab that goes on from stream to stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Session of the reader.
    pub who: Who,
    /// Cursor from which its first stream is asked for.
    pub from: Option<Cursor>,
    /// Kind of the reader.
    pub kind: ReaderKind,
}

/// Kind of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderKind {
    /// The page of a session.
    Page,
    /// A second tab, closed after a while.
    Tab,
    /// One that asks from a cursor that nobody gave it.
    Stranger,
}

/// Text that a person wrote, once, to be sent until it is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Number of the person.
    pub person: usize,
    /// Its text.
    pub text: PostText,
}

/// Bytes that no client of ours would send, and what came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oddity {
    /// Session that sent them.
    pub who: Who,
    /// Name of what was sent.
    pub what: &'static str,
    /// Time of sending.
    pub sent: Duration,
    /// HTTP status of the answer, if there was one.
    pub status: Option<u16>,
}

/// Session that was moved by a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// Session that asked for the ticket.
    pub who: Who,
    /// Time at which it asked.
    pub issued_at: Duration,
    /// HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    /// Ticket that it got.
    pub ticket: Option<String>,
    /// Whether the ticket was tried at two masters at once, and not at one after another.
    pub at_once: bool,
    /// Tries to redeem the ticket, in order.
    pub redeemed: Vec<Redeemed>,
    /// Calls of the session that it gave, of the same user as `who`. They are none of
    /// [`History::operations`] and are numbered on their own.
    pub used: Vec<Operation>,
}

/// One try to redeem a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeemed {
    /// Time of the try.
    pub at: Duration,
    /// At which master.
    pub master: String,
    /// HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    /// User of the session that it gave.
    pub user: Option<UserId>,
    /// Secret of the session that it gave.
    pub token: Option<String>,
    /// Whether the answer says that it did nothing, and may be repeated.
    pub is_put_off: bool,
}

/// Stream that was asked for from a cursor that does not parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Session that asked.
    pub who: Who,
    /// Master that it asked.
    pub master: String,
    /// Text that it sent as its cursor.
    pub cursor: String,
    /// Time of asking.
    pub asked: Duration,
    /// Time at which the answer was known.
    pub ended: Duration,
    /// First thing that it was told of its cursor.
    pub told: UnreadableTold,
}

/// First thing that a stream said of a cursor that does not parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnreadableTold {
    /// A reset with this reason.
    Reset(ResetReason),
    /// A post, without a reset before it.
    Post,
    /// There is no stream: this HTTP status, if there was an answer.
    Refused(Option<u16>),
    /// It ended, or said neither in time.
    Nothing,
}

/// Connection that a person kept open between two requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Session that kept it.
    pub who: Who,
    /// Master that it leads to.
    pub master: String,
    /// Time for which nothing was said on it.
    pub idle: Duration,
    /// Time of the second request.
    pub asked: Duration,
    /// Time at which its outcome was known.
    pub ended: Duration,
    /// Outcome of the second request.
    pub end: KeptEnd,
}

/// Outcome of a request over a connection that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptEnd {
    /// An answer with this status.
    Answered(u16),
    /// The connection was closed.
    Closed,
    /// Nothing came.
    Silent,
}

/// Post, session or question that a person could not settle in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Number of the person.
    pub person: usize,
    /// Id of the post, if it is about one.
    pub post: Option<PostId>,
    /// Time at which the person gave up.
    pub at: Duration,
    /// Sentence that tells it.
    pub what: String,
}

/// Everything that people saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Operations in the order in which they began.
    pub operations: Vec<Operation>,
    /// Streams in the order in which they were asked for.
    pub streams: Vec<StreamLog>,
    /// Malformed requests in the order in which they were sent.
    pub oddities: Vec<Oddity>,
    /// Readers in the order in which they began.
    pub readers: Vec<Reader>,
    /// Texts that people wrote, in the order in which they did.
    pub drafts: Vec<Draft>,
    /// Front ends in the order of the masters' numbers.
    pub masters: Vec<String>,
    /// Streams from cursors that do not parse, in the order of their answers.
    pub unreadable: Vec<Unreadable>,
    /// Connections that were kept, in the order of their second requests' ends.
    pub kept: Vec<Kept>,
    /// Sessions that were moved by a ticket, in the order in which they were.
    pub handovers: Vec<Handover>,
    /// Calls of an operator about dead letters, in the order in which they began.
    pub operator: Vec<OperatorCall>,
    /// User of each session.
    pub users: BTreeMap<Who, UserId>,
    /// Time at which everything was healed and people began to settle.
    pub settling_from: Option<Duration>,
    /// Time at which all posts were settled or given up, and the last reading began.
    pub reading_from: Option<Duration>,
    /// Posts, sessions and questions that people could not settle in time.
    pub stuck: Vec<Stuck>,
    /// People who were alive at the end and went through the last reading.
    pub living: Vec<usize>,
    /// People whose last reading did not end in time.
    pub hung: Vec<usize>,
}

/// Wait of a post for its acknowledgement, whatever masters it went to meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'a> {
    /// First try.
    pub first: Sent<'a>,
    /// Time of the first acknowledgement; `None` if it was never acknowledged.
    pub until: Option<Duration>,
}

/// One try to post.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The operation.
    pub operation: &'a Operation,
    /// Board of the post.
    pub board: &'a BoardName,
    /// Under which id.
    pub id: PostId,
    /// Text of the post.
    pub text: &'a PostText,
    /// By whom; `None` when the session's user was never learnt.
    pub user: Option<UserId>,
}

/// State of a post that a stream told its reader of.
#[derive(Clone, Copy, Debug)]
pub struct StateTold<'a> {
    /// The stream.
    pub stream: &'a StreamLog,
    /// Time at which it was read.
    pub at: Duration,
    /// The reader as the author, and the post.
    pub key: (UserId, PostId),
    /// State of the post, as it was told.
    pub state: HeldState,
}

impl History {
    /// Every state of a post that a stream told, stream by stream, of readers whose user is known.
    pub fn states_told(&self) -> impl Iterator<Item = StateTold<'_>> {
        let streams = self.streams.iter();
        let known = streams.filter_map(|stream| Some((stream, *self.users.get(&stream.who)?)));
        known.flat_map(|(stream, user)| {
            stream.deliveries.iter().filter_map(move |(at, delivery)| match &delivery.event {
                StreamEvent::Pending(event) => {
                    let (key, state) = ((user, event.id), event.state);
                    Some(StateTold { stream, at: *at, key, state })
                }
                _ => None,
            })
        })
    }

    /// Every try to post, in the order in which they began.
    pub fn sent(&self) -> impl Iterator<Item = Sent<'_>> {
        self.operations.iter().filter_map(|operation| match &operation.request {
            Request::Post { board, id, text } => {
                let user = self.users.get(&operation.who).copied();
                Some(Sent { operation, board, id: *id, text, user })
            }
            _ => None,
        })
    }

    /// Every post that was sent, with its first try and its first acknowledgement.
    #[must_use]
    pub fn waits(&self) -> BTreeMap<PostId, Wait<'_>> {
        let mut waits = BTreeMap::new();
        for sent in self.sent() {
            waits.entry(sent.id).or_insert(Wait { first: sent, until: None });
        }
        for (at, post) in self.operations.iter().filter_map(Operation::committed) {
            if let Some(wait) = waits.get_mut(&post.id) {
                wait.until = Some(wait.until.map_or(at, |until| until.min(at)));
            }
        }
        waits
    }

    /// Ids under which a user sent two posts, of other texts or boards, before it was told that one of
    /// them is in its board. Either may be the one that is.
    #[must_use]
    pub fn contested(&self) -> BTreeSet<(UserId, PostId)> {
        let mut first: BTreeMap<(UserId, PostId), Sent<'_>> = BTreeMap::new();
        let mut acked: BTreeMap<(UserId, PostId), Duration> = BTreeMap::new();
        for sent in self.sent() {
            let Some(key) = sent.user.map(|user| (user, sent.id)) else { continue };
            first.entry(key).or_insert(sent);
            if let Some((at, _)) = sent.operation.committed() {
                let known = acked.entry(key).or_insert(at);
                *known = at.min(*known);
            }
        }
        let is_contested = |sent: &Sent<'_>, key: &(UserId, PostId)| {
            let is_other =
                first.get(key).is_some_and(|it| (it.board, it.text) != (sent.board, sent.text));
            is_other && acked.get(key).is_none_or(|at| sent.operation.invoked <= *at)
        };
        let all = self.sent().filter_map(|sent| Some((sent, (sent.user?, sent.id))));
        all.filter(|(sent, key)| is_contested(sent, key)).map(|(_, key)| key).collect()
    }

    /// Every call of a session that a ticket gave.
    pub fn moved(&self) -> impl Iterator<Item = &Operation> {
        self.handovers.iter().flat_map(|handover| &handover.used)
    }

    /// Returns the number of calls with a good answer, and of all calls.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let well = self.operations.iter().filter(|op| op.reply().is_some()).count();
        (well, self.operations.len())
    }
}
