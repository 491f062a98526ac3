//! Hand-made evidence for the oracles' own tests.

use std::time::Duration;

use chatchat::{
    api::{
        DeadLetter, DeadLetterList, HelloEvent, PostList, Problem, SessionOpened, SessionRestored,
        StreamEvent, UnsentPost, User, UserList,
    },
    client::{Answer, Delivery, Failure, Request},
    model::{
        event::Event,
        ids::{
            Author, BoardName, Cursor, NodeId, Post, PostId, Registration, Resource, Seq,
            StoreEpoch, Token, UserId,
        },
        rows::{Range, WriteRow},
        stream::{Consistency, MasterInfo},
    },
};

use super::{EpochChange, EventLine, Evidence, StoreDump, Violation};
use crate::{
    history::{
        End, Handover, History, Operation, OperatorCall, Reader, ReaderKind, StreamLog, Who,
    },
    plan::{Incident, Plan},
    story::Story,
    target::Place,
};

/// Run of 60 s with two masters, filled by tests with observations. Times are milliseconds.
pub(super) struct Fixture {
    pub(super) plan: Plan,
    pub(super) incidents: Vec<Incident>,
    pub(super) history: History,
    pub(super) store: StoreDump,
    pub(super) events: Vec<EventLine>,
}

pub(super) const EPOCH: StoreEpoch = StoreEpoch(5);

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn who(person: usize) -> Who {
    Who { person, life: 0 }
}

pub(super) fn user(person: usize) -> UserId {
    UserId([person as u8 + 1; 16])
}

pub(super) fn id(n: u8) -> PostId {
    PostId([n; 16])
}

pub(super) fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}

pub(super) fn text(n: u8) -> String {
    format!("text {n}")
}

fn author(person: usize) -> Author {
    Author { id: user(person), name: format!("Person {person}").parse().unwrap() }
}

/// Answer to a person who opened a session under a name.
pub(super) fn opened(person: usize, name: &str) -> SessionOpened {
    SessionOpened {
        token: None,
        user: Author { id: user(person), name: name.parse().unwrap() },
        boards: Vec::new(),
        masters: Vec::new(),
        epoch: EPOCH,
        cluster: String::new(),
    }
}

/// Answer to a person named Ada who restored a session without boards.
pub(super) fn restored(person: usize, consistency: Consistency) -> SessionRestored {
    SessionRestored {
        user: Author { id: user(person), name: "Ada".parse().unwrap() },
        boards: Vec::new(),
        pending: Vec::new(),
        masters: Vec::new(),
        epoch: EPOCH,
        consistency,
        as_of: 9,
        cluster: String::new(),
    }
}

/// A master gives a worker these posts of the lobby, by number `n` of its first lease.
pub(super) fn assigned(worker: u8, n: u64, posts: &[u8], attempt: u32) -> Event {
    Event::Assign {
        worker: node(worker),
        registration: Registration(1),
        resource: Resource::Board(BoardName::lobby()),
        token: Token { epoch: EPOCH, lease: 1, n },
        after: None,
        posts: posts.iter().map(|n| id(*n)).collect(),
        attempt,
    }
}

pub(super) fn posted(person: usize, n: u8, seq: u64) -> Post {
    Post {
        id: id(n),
        board: BoardName::lobby(),
        seq: Seq(seq),
        author: author(person),
        text: text(n).parse().unwrap(),
        posted_at_ms: 1000 + seq,
    }
}

/// Returns the dead letter of a post, numbered as the post is.
pub(super) fn letter(person: usize, n: u8) -> DeadLetter {
    let post = UnsentPost { id: id(n), author: author(person), text: text(n).parse().unwrap() };
    let (number, resource) = (u64::from(n), "board:lobby".to_owned());
    DeadLetter { number, resource, post: Some(post), why: String::new(), at: 9 }
}

/// Returns a whole list of dead letters.
pub(super) fn letters(letters: Vec<DeadLetter>) -> Answer {
    Answer::DeadLetters(DeadLetterList { letters, truncated: false })
}

pub(super) fn busy(status: u16) -> Result<Answer, Failure> {
    let retry_after = Some(Duration::from_secs(1));
    Err(Failure::Busy { status, problem: Problem::default(), retry_after })
}

pub(super) fn refused(status: u16) -> Result<Answer, Failure> {
    Err(Failure::Refused { status, problem: Problem::default() })
}

/// Returns an answer after which nobody knows what was done.
pub(super) fn unsettled() -> Result<Answer, Failure> {
    let why = "504 send the same again, or cancel it, to learn what became of it".to_owned();
    Err(Failure::Unknown { status: Some(504), why })
}

/// Returns the answer to a send that became a dead letter.
pub(super) fn dead_letter() -> Result<Answer, Failure> {
    let why = "504 every attempt failed; send the same again, or cancel it".to_owned();
    Err(Failure::Unknown { status: Some(504), why })
}

impl Fixture {
    pub(super) fn new() -> Self {
        let text = "about = \"\"\nduration = \"60s\"\n[cluster]\nmasters = 2\nworkers = 2\n";
        let plan = Plan::expand(&Story::parse("made", text).unwrap(), 1);
        let mut history = History::default();
        for person in 0..4 {
            history.users.insert(who(person), user(person));
        }
        let store = StoreDump { epoch: EPOCH, ..StoreDump::default() };
        Self { plan, incidents: Vec::new(), history, store, events: Vec::new() }
    }

    /// Makes a run with these faults: their kinds, keys, and from when to when they were on.
    pub(super) fn with_faults(faults: &[(&str, &str, u64, u64)]) -> Self {
        let mut text =
            "about = \"\"\nduration = \"60s\"\n[cluster]\nmasters = 2\nworkers = 2\n".to_owned();
        for (kind, keys, ..) in faults {
            text.push_str(&format!("[[fault]]\nat = \"5s\"\nkind = \"{kind}\"\n{keys}\n"));
        }
        let plan = Plan::expand(&Story::parse("made", &text).unwrap(), 1);
        let mut made = Self { plan, ..Self::new() };
        for (_, _, from, until) in faults {
            made.trouble(*from, *until);
        }
        made
    }

    /// A run whose lobby holds so many posts of the first person.
    pub(super) fn with_posts(count: u8) -> Self {
        let mut made = Self::new();
        for n in 1..=count {
            made.stored(0, n);
        }
        made
    }

    pub(super) fn judge(&self, oracle: fn(&Evidence<'_>) -> Vec<Violation>) -> Vec<Violation> {
        self.with(oracle)
    }

    /// Returns the rules that an oracle finds broken, each as often as it does.
    pub(super) fn rules(&self, oracle: fn(&Evidence<'_>) -> Vec<Violation>) -> Vec<String> {
        self.judge(oracle).iter().map(|found| found.rule.to_string()).collect()
    }

    /// Counts the breaks of a rule; no other rule may be broken.
    pub(super) fn breaks(&self, oracle: fn(&Evidence<'_>) -> Vec<Violation>, rule: &str) -> usize {
        let rules = self.rules(oracle);
        assert!(rules.iter().all(|broken| broken == rule), "{rules:?}");
        rules.len()
    }

    pub(super) fn with<T>(&self, ask: impl FnOnce(&Evidence<'_>) -> T) -> T {
        ask(&Evidence {
            plan: &self.plan,
            incidents: &self.incidents,
            history: &self.history,
            store: &self.store,
            events: &self.events,
            ends: &self.ends(),
            ended: ms(60_000),
            calm_limit: ms(1000),
        })
    }

    /// Ends of the processes that the faults end.
    fn ends(&self) -> Vec<(Place, Duration)> {
        use crate::fault::Kind as K;
        let deadly = [K::Crash, K::Exit, K::Wipe, K::Stop, K::Restart, K::Rollback];
        let mut ends = Vec::new();
        for incident in &self.incidents {
            let action = self.plan.faults.get(incident.fault).map(|fault| &fault.action);
            if let Some(action) = action.filter(|action| deadly.contains(&action.kind())) {
                for target in action.targets() {
                    let places = target.places(&self.plan.cluster, 4).unwrap_or_default();
                    ends.extend(places.into_iter().map(|place| (place, incident.from)));
                }
            }
        }
        ends
    }

    /// Makes all streams those of one reader that began at a cursor.
    pub(super) fn one_reader(&mut self, from: Cursor) -> &mut Self {
        let who = who(1);
        self.history.readers.push(Reader { who, from: Some(from), kind: ReaderKind::Page });
        for stream in &mut self.history.streams {
            stream.reader = Some(0);
        }
        self
    }

    /// Anything that was asked and answered.
    pub(super) fn did(
        &mut self,
        person: usize,
        from: u64,
        to: u64,
        request: Request,
        answer: Result<Answer, Failure>,
    ) -> &mut Self {
        let end = Some((ms(to), End::Answered(answer)));
        self.asked(person, from, request, end)
    }

    pub(super) fn asked(
        &mut self,
        person: usize,
        from: u64,
        request: Request,
        end: Option<(Duration, End)>,
    ) -> &mut Self {
        self.history.operations.push(Operation {
            number: self.history.operations.len(),
            who: who(person),
            master: "http://m".to_owned(),
            request,
            invoked: ms(from),
            end,
        });
        self
    }

    pub(super) fn request(n: u8) -> Request {
        let (board, text) = (BoardName::lobby(), text(n).parse().unwrap());
        Request::Post { board, id: id(n), text }
    }

    /// Adds a post that was acked at this place. It is not put into the store.
    pub(super) fn acked(
        &mut self,
        person: usize,
        n: u8,
        from: u64,
        to: u64,
        seq: u64,
    ) -> &mut Self {
        let reply = Answer::Posted(posted(person, n, seq));
        self.did(person, from, to, Self::request(n), Ok(reply))
    }

    /// Adds a post without an answer.
    pub(super) fn unknown(&mut self, person: usize, n: u8, from: u64) -> &mut Self {
        self.asked(person, from, Self::request(n), None)
    }

    /// Adds the next post to the store's lobby.
    pub(super) fn stored(&mut self, person: usize, n: u8) -> &mut Self {
        let seq = self.store.boards.get(&BoardName::lobby()).map_or(0, Vec::len) as u64 + 1;
        self.stored_at(person, n, seq)
    }

    pub(super) fn stored_at(&mut self, person: usize, n: u8, seq: u64) -> &mut Self {
        let posts = self.store.boards.entry(BoardName::lobby()).or_default();
        posts.push(posted(person, n, seq));
        self
    }

    /// Adds a read of the lobby that showed these `(author, post, seq)`.
    pub(super) fn read(
        &mut self,
        person: usize,
        from: u64,
        to: u64,
        consistency: Consistency,
        shown: &[(usize, u8, u64)],
    ) -> &mut Self {
        let request = Request::Read {
            board: BoardName::lobby(),
            range: Range::Last,
            limit: 50,
            wanted: Consistency::Strong,
        };
        let posts: Vec<_> =
            shown.iter().map(|(person, n, seq)| posted(*person, *n, *seq)).collect();
        let last_seq = posts.last().map_or(Seq(0), |post| post.seq);
        let page =
            PostList { posts, last_seq, epoch: EPOCH, consistency, as_of: 9, truncated: false };
        self.did(person, from, to, request, Ok(Answer::Page(page)))
    }

    /// Adds a stream of the lobby from this place on that delivered these events.
    pub(super) fn stream(
        &mut self,
        person: usize,
        from: u64,
        events: Vec<(u64, StreamEvent)>,
    ) -> &mut Self {
        let mut cursor = Cursor { epoch: EPOCH, ..Cursor::default() };
        cursor.boards.insert(BoardName::lobby(), Seq(from));
        let deliveries = events.into_iter().map(|(at, event)| {
            let cursor = match &event {
                StreamEvent::Hello(hello) => Some(hello.cursor.clone()),
                StreamEvent::Post(post) => Some(lobby_cursor(post.seq.0)),
                StreamEvent::Reset(_) => Some(lobby_cursor(9)),
                _ => None,
            };
            (ms(at), Delivery { event, cursor })
        });
        self.history.streams.push(StreamLog {
            number: self.history.streams.len(),
            who: who(person),
            master: "http://m".to_owned(),
            boards: vec![BoardName::lobby()],
            cursor: Some(cursor),
            asked: ms(20_000),
            deliveries: deliveries.collect(),
            end: None,
            refused: None,
            looked_away: false,
            is_slow: false,
            reader: None,
        });
        self
    }

    /// Adds a retry of a dead letter by an operator, or without one a list, that was answered 100 ms later.
    pub(super) fn operated(
        &mut self,
        letter: Option<DeadLetter>,
        at: u64,
        answer: Result<Answer, Failure>,
    ) -> &mut Self {
        let request = match &letter {
            Some(letter) => Request::RetryDeadLetter { number: letter.number },
            None => Request::DeadLetters { before: None },
        };
        let (master, end) = ("http://m:81".to_owned(), Some((ms(at + 100), answer)));
        self.history.operator.push(OperatorCall { master, request, letter, invoked: ms(at), end });
        self
    }

    /// Adds a drop of a dead letter by an operator, that was answered 100 ms later.
    pub(super) fn dropped(
        &mut self,
        letter: DeadLetter,
        at: u64,
        answer: Result<Answer, Failure>,
    ) -> &mut Self {
        let request = Request::DropDeadLetter { number: letter.number };
        self.operated(Some(letter), at, answer);
        if let Some(call) = self.history.operator.last_mut() {
            call.request = request;
        }
        self
    }

    /// Adds a row of the record of writes of the lobby.
    pub(super) fn write(&mut self, kind: &str, worker: u8, lease: u64, n: u64) -> &mut Self {
        self.store.writes.push(WriteRow {
            number: self.store.writes.len() as u64 + 1,
            resource: Resource::Board(BoardName::lobby()),
            token: Token { epoch: EPOCH, lease, n },
            node: node(worker),
            kind: kind.to_owned(),
            rows: 1,
            at_ms: 5,
        });
        self
    }

    pub(super) fn said(&mut self, at: u64, place: &str, event: Event) -> &mut Self {
        let number = self.events.len();
        self.events.push(EventLine { at: ms(at), node: place.to_owned(), event, number });
        self
    }

    /// Makes the store's content have been restored at a time, in the epoch that follows the last one.
    pub(super) fn restored_at(&mut self, at: u64) -> &mut Self {
        let before = self.store.epoch;
        let after = StoreEpoch(before.0 + 1);
        self.store.epoch_changes.push(EpochChange { at: ms(at), before, after });
        self.store.epoch = after;
        self
    }

    /// Adds a fault that was on between two times.
    pub(super) fn trouble(&mut self, from: u64, until: u64) -> &mut Self {
        let fault = self.incidents.len();
        self.incidents.push(Incident { fault, from: ms(from), until: Some(ms(until)), bit: true });
        self
    }
}

/// Handover of the first person at 20 s, whose session made these calls.
pub(super) fn moved(used: Vec<Operation>) -> Handover {
    let (who, issued_at, status) = (who(0), ms(20_000), Some(201));
    let (ticket, at_once, redeemed) = (None, false, Vec::new());
    Handover { who, issued_at, status, ticket, at_once, redeemed, used }
}

/// Returns the rules that are broken, each of which must say where to look.
pub(super) fn located(told: &[Violation]) -> Vec<String> {
    for violation in told {
        assert!(violation.evidence.iter().any(|clue| clue.point.is_some()), "{violation}");
    }
    told.iter().map(|violation| violation.rule.to_string()).collect()
}

pub(super) fn lobby_cursor(seq: u64) -> Cursor {
    Cursor { epoch: EPOCH, boards: [(BoardName::lobby(), Seq(seq))].into() }
}

/// Returns the first event of a stream that begins at a place of the lobby.
pub(super) fn hello(seq: u64) -> StreamEvent {
    StreamEvent::Hello(HelloEvent {
        node: MasterInfo { id: node(1), name: "m".into(), http: "http://m".into() },
        masters: Vec::new(),
        cursor: lobby_cursor(seq),
        beat_ms: 4000,
    })
}

/// Returns a delivered post.
pub(super) fn delivered(person: usize, n: u8, seq: u64) -> StreamEvent {
    StreamEvent::Post(posted(person, n, seq))
}

/// Returns a strong list of these people.
pub(super) fn list_of(people: &[usize]) -> UserList {
    let person = |n: &usize| User {
        id: user(*n),
        name: "x".parse().unwrap(),
        look: None,
        since: 1,
        last_seen: 2,
    };
    let users: Vec<_> = people.iter().map(person).collect();
    let total = users.len() as u64;
    UserList { users, next: None, total, version: 1, consistency: Consistency::Strong }
}
