//! Following boards across masters, resuming at the cursor when one fails.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    api::{ByeEvent, HelloEvent, MastersEvent, StreamEvent},
    client::{
        ChatClient, Delivery, EventStream, Failure, Observer, PeopleList, Request, StreamEnd,
    },
    model::{
        ids::{BoardName, Cursor, Seq, StoreEpoch},
        stream::ByeReason,
        time::Mono,
    },
};

/// One step of following boards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowEvent {
    /// A stream was opened.
    Connected {
        /// Address of its master.
        master: String,
    },
    /// The stream delivered an event; repeated posts are left out.
    Event(StreamEvent),
    /// The stream ended; the next step opens another.
    Disconnected {
        /// Address of its master.
        master: String,
        /// The reason.
        why: StreamEnd,
    },
    /// The session was refused or closed: no event will come any more.
    Ended {
        /// The reason.
        why: String,
    },
}

/// Follower of some boards. It makes progress only while [`Follow::next`] is awaited.
#[derive(Debug)]
pub struct Follow {
    client: ChatClient,
    boards: Vec<BoardName>,
    cursor: Option<Cursor>,
    open: Option<Open>,
    /// Number of tries since a stream last delivered an event.
    tries: u32,
    /// Earliest time of the first try after a stream that ended.
    not_before: Mono,
    /// Last event of the stream that is ending.
    bye: Option<ByeEvent>,
    people: PeopleList,
    over: Option<String>,
}

#[derive(Debug)]
struct Open {
    stream: EventStream,
    master: String,
    observed: ObservedStream,
    alive_at: Mono,
}

/// Reports a stream to the observer, and its end also when it is dropped.
struct ObservedStream {
    observer: Arc<dyn Observer>,
    stream: u64,
    has_ended: bool,
}

impl ObservedStream {
    fn on_delivery(&self, delivery: &Delivery) {
        self.observer.on_delivery(self.stream, delivery);
    }

    fn on_end(&mut self, why: &StreamEnd) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.observer.on_stream_end(self.stream, why);
        }
    }

    fn on_refused(&mut self, why: &Failure) {
        self.has_ended = true;
        self.observer.on_stream_refused(self.stream, why);
    }
}

impl Drop for ObservedStream {
    fn drop(&mut self) {
        self.on_end(&StreamEnd::Left);
    }
}

impl fmt::Debug for ObservedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObservedStream({})", self.stream)
    }
}

/// Least time between two answers to beats; a master expects one in 15 s.
const ALIVE_AFTER: Duration = Duration::from_millis(7500);
/// Longest wait that a `bye` may ask for.
const BYE_MAX: Duration = Duration::from_secs(10);
/// Time at least over which the followers of one master come to another one.
const SPREAD: Duration = Duration::from_millis(250);

impl Follow {
    pub(super) fn new(client: ChatClient, boards: Vec<BoardName>, cursor: Option<Cursor>) -> Self {
        Self {
            client,
            boards,
            cursor,
            open: None,
            tries: 0,
            not_before: Mono::ZERO,
            bye: None,
            people: PeopleList::default(),
            over: None,
        }
    }

    /// Returns the active people as the stream told them last.
    #[must_use]
    pub const fn people(&self) -> &PeopleList {
        &self.people
    }

    /// Returns the cursor at which the next stream would resume.
    #[must_use]
    pub const fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// Returns the number that the observer gave the open stream.
    #[must_use]
    pub fn observed(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.observed.stream)
    }

    /// Waits for the next step. Cancel-safe, but a stream that is being opened is given up.
    pub async fn next(&mut self) -> FollowEvent {
        loop {
            if let Some(why) = &self.over {
                return FollowEvent::Ended { why: why.clone() };
            }
            let Some(open) = &mut self.open else {
                if let Some(seen) = self.open().await {
                    return seen;
                }
                continue;
            };
            match open.stream.next().await {
                Ok(delivery) => {
                    open.observed.on_delivery(&delivery);
                    self.tries = 0;
                    if let StreamEvent::Presence(event) = &delivery.event
                        && !self.people.apply(event)
                    {
                        return self.ask_people_again();
                    }
                    if let Some(event) = self.on_delivery(delivery) {
                        return FollowEvent::Event(event);
                    }
                }
                Err(why) => {
                    open.observed.on_end(&why);
                    let master = open.master.clone();
                    self.open = None;
                    self.on_end(&master);
                    return FollowEvent::Disconnected { master, why };
                }
            }
        }
    }

    /// Ends a stream that left out a version of the people: the next one begins with a window.
    fn ask_people_again(&mut self) -> FollowEvent {
        let why = StreamEnd::Garbled { why: "presence: a version is missing".to_owned() };
        let master = self.client.master();
        match self.open.take() {
            None => FollowEvent::Disconnected { master, why },
            Some(mut open) => {
                open.observed.on_end(&why);
                FollowEvent::Disconnected { master: open.master, why }
            }
        }
    }

    /// Tries once to open a stream. Returns `None` when it failed and another try may follow.
    async fn open(&mut self) -> Option<FollowEvent> {
        let now = self.client.env().now();
        let retry = self.tries.checked_sub(1).map(|nth| now + self.client.backoff(nth));
        let at = retry.map_or(self.not_before, |retry| retry.max(self.not_before));
        if now < at {
            self.client.env().sleep_until(at).await;
        }
        let master = self.client.master();
        let moving = self.tries > 0 || self.cursor.is_some();
        self.tries = self.tries.saturating_add(1);
        if moving && !self.client.is_ready(&master).await {
            return None;
        }
        let observer = self.client.observer().clone();
        let stream = observer.on_stream(&master, &self.boards, self.cursor.as_ref());
        let mut observed = ObservedStream { observer, stream, has_ended: false };
        let api = self.client.api(&master);
        match api.stream(&self.boards, self.cursor.as_ref()).await {
            Ok(stream) => {
                let alive_at = self.client.env().now();
                self.open = Some(Open { stream, master: master.clone(), observed, alive_at });
                Some(FollowEvent::Connected { master })
            }
            Err(why) => {
                observed.on_refused(&why);
                match why {
                    Failure::Refused { status: 401, .. } => self.over = Some(why.to_string()),
                    _ => self.client.with_masters(|masters| masters.on_failed(&master)),
                }
                None
            }
        }
    }

    /// Takes over cursor and masters, and returns the event unless its post is a repeat.
    fn on_delivery(&mut self, Delivery { event, cursor }: Delivery) -> Option<StreamEvent> {
        let is_repeat = match &event {
            StreamEvent::Post(post) => {
                let at = cursor.as_ref().map(|cursor| cursor.epoch);
                self.seen(&post.board, at) >= Some(post.seq)
            }
            _ => false,
        };
        if let Some(cursor) = cursor {
            self.cursor = Some(cursor);
        }
        match &event {
            StreamEvent::Hello(HelloEvent { masters, .. })
            | StreamEvent::Masters(MastersEvent { masters }) => {
                let told: Vec<_> = masters.iter().map(|master| master.http.clone()).collect();
                self.client.with_masters(|masters| masters.on_list(told));
            }
            StreamEvent::Beat => self.answer_beat(),
            StreamEvent::Bye(bye) => self.bye = Some(bye.clone()),
            _ => {}
        }
        (!is_repeat).then_some(event)
    }

    /// Returns the last post of a board that was delivered, if it is of the same epoch.
    fn seen(&self, board: &BoardName, epoch: Option<StoreEpoch>) -> Option<Seq> {
        let cursor = self.cursor.as_ref()?;
        if epoch.is_some_and(|epoch| epoch != cursor.epoch) {
            return None;
        }
        cursor.boards.get(board).copied()
    }

    fn answer_beat(&mut self) {
        let Some(open) = &mut self.open else { return };
        let now = self.client.env().now();
        if now.since(open.alive_at) < ALIVE_AFTER {
            return;
        }
        open.alive_at = now;
        let (client, master) = (self.client.clone(), open.master.clone());
        // Beside the stream: a slow answer must not hold it up. The call has a time-out.
        drop(self.client.env().spawn("client alive", async move {
            // If it fails, the stream will tell.
            let _ = client.call_at(&master, &Request::Alive).await;
        }));
    }

    /// Chooses the next master: one that the `bye` named, or the next of the list.
    fn on_end(&mut self, master: &str) {
        match self.bye.take() {
            Some(ByeEvent { reason: reason @ ByeReason::LoggedOut, .. }) => {
                self.over = Some(reason.to_string());
            }
            Some(ByeEvent { reason, to, retry_ms }) => {
                let told: Vec<_> = to.iter().map(|next| next.http.clone()).collect();
                self.client.with_masters(|masters| match reason {
                    // A slow reader may stay.
                    ByeReason::Slow => {}
                    // One that ends names first who is to take its readers.
                    ByeReason::Draining => {
                        if let Some(next) = told.iter().find(|next| *next != master) {
                            masters.move_to(next);
                        }
                    }
                    // Its list says who there is, not who has room: the others are tried in turn.
                    _ => {
                        if !told.is_empty() {
                            masters.on_list(told);
                        }
                        masters.on_failed(master);
                    }
                });
                // Those who were turned away together come back apart.
                let wait = Duration::from_millis(retry_ms).min(BYE_MAX);
                let spread = self.client.part_of(SPREAD.max(wait / 2));
                self.not_before = self.client.env().now() + wait + spread;
            }
            None => {
                self.client.with_masters(|masters| masters.on_failed(master));
                self.not_before = self.client.env().now() + self.client.part_of(SPREAD);
            }
        }
    }
}
