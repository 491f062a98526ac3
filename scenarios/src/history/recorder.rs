//! Recorder of a history: notes what people do and see while they live.
//!
//! 1. A stream belongs to the reader in whose step it is asked for, whether it is opened or refused.
//! 2. Texts of posts are kept once, however many readers are shown them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chatchat::{
    api::{PostState, StreamEvent},
    client::{Answer, Delivery, Failure, Observer, Request, StreamEnd},
    model::ids::{BoardName, Cursor, PostId, PostText},
};

use super::{Clock, Draft, End, History, Operation, Reader, ReaderKind, StreamLog, Stuck, Who};

tokio::task_local! {
    /// Number of the reader whose step this is.
    static READER: usize;
}

/// Writes the history while people live.
#[derive(Clone, Debug)]
pub struct Recorder {
    clock: Clock,
    history: Arc<Mutex<History>>,
    texts: Arc<Mutex<BTreeSet<PostText>>>,
}

impl Recorder {
    /// An empty history.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, history: Arc::default(), texts: Arc::default() }
    }

    /// Returns the observer's clock.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the history so far; it is always consistent because records are made in one step.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets texts share the bytes that the history has already.
    fn share<'a>(&self, shown: impl IntoIterator<Item = &'a mut PostText>) {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        for text in shown {
            match texts.get(text) {
                Some(known) => *text = known.clone(),
                None => drop(texts.insert(text.clone())),
            }
        }
    }

    /// Returns an observer that records the calls and streams of one session.
    #[must_use]
    pub fn observer(&self, who: Who) -> Arc<dyn Observer> {
        Arc::new(RecordingObserver { recorder: self.clone(), who })
    }

    /// Notes that the reader of a stream stops reading it for a while.
    pub fn slows_down(&self, stream: u64) {
        if let Some(stream) = self.history().streams.get_mut(index(stream)) {
            stream.looked_away = true;
            stream.is_slow = true;
        }
    }

    /// Notes a new reader, and returns its number.
    pub fn reader(&self, who: Who, from: Option<Cursor>, kind: ReaderKind) -> usize {
        let mut history = self.history();
        history.readers.push(Reader { who, from, kind });
        history.readers.len() - 1
    }

    /// Takes a step of a reader: the streams that are asked for meanwhile are its own.
    pub async fn reading<T>(reader: usize, step: impl Future<Output = T>) -> T {
        READER.scope(reader, step).await
    }

    /// Notes that a person gives up what it could not settle, now.
    pub fn gives_up(&self, person: usize, post: Option<PostId>, what: String) {
        let at = self.clock.now();
        self.history().stuck.push(Stuck { person, post, at, what });
    }

    /// Notes that a person wrote a text.
    pub fn drafts(&self, person: usize, text: &PostText) {
        let mut text = text.clone();
        self.share([&mut text]);
        self.history().drafts.push(Draft { person, text });
    }
}

/// [`Observer`] that writes into the history.
struct RecordingObserver {
    recorder: Recorder,
    who: Who,
}

impl RecordingObserver {
    fn end_operation(&self, nth: u64, end: End) {
        let at = self.recorder.clock.now();
        let mut history = self.recorder.history();
        if let End::Answered(Ok(Answer::Opened(opened))) = &end {
            history.users.insert(self.who, opened.user.id);
        }
        if let Some(operation) = history.operations.get_mut(index(nth)) {
            operation.end = Some((at, end));
        }
    }

    fn with_stream(&self, nth: u64, change: impl FnOnce(&mut StreamLog, Duration)) {
        let at = self.recorder.clock.now();
        if let Some(stream) = self.recorder.history().streams.get_mut(index(nth)) {
            change(stream, at);
        }
    }
}

/// Returns whether the next stream of a reader begins far back: its reader paused on the last one, or
/// that one began so itself and showed nothing.
fn is_behind(history: &History, reader: usize) -> bool {
    let last = history.streams.iter().rev().find(|stream| stream.reader == Some(reader));
    last.is_some_and(|last| last.looked_away || last.is_slow && last.deliveries.is_empty())
}

fn index(nth: u64) -> usize {
    usize::try_from(nth).unwrap_or(usize::MAX)
}

impl Observer for RecordingObserver {
    fn on_call(&self, master: &str, request: &Request) -> u64 {
        let mut history = self.recorder.history();
        let number = history.operations.len();
        history.operations.push(Operation {
            number,
            who: self.who,
            master: master.to_owned(),
            request: request.clone(),
            invoked: self.recorder.clock.now(),
            end: None,
        });
        history.operations.len() as u64 - 1
    }

    fn on_answer(&self, asked: u64, answer: &Result<Answer, Failure>) {
        let mut answer = answer.clone();
        match &mut answer {
            Ok(Answer::Page(page)) => {
                self.recorder.share(page.posts.iter_mut().map(|post| &mut post.text));
            }
            Ok(Answer::Posted(post) | Answer::Fate(Some(PostState::Committed(post)))) => {
                self.recorder.share([&mut post.text]);
            }
            _ => {}
        }
        self.end_operation(asked, End::Answered(answer));
    }

    fn on_call_dropped(&self, asked: u64) {
        self.end_operation(asked, End::Dropped);
    }

    fn on_stream(&self, master: &str, boards: &[BoardName], cursor: Option<&Cursor>) -> u64 {
        let mut history = self.recorder.history();
        let number = history.streams.len();
        let reader = READER.try_with(|reader| *reader).ok();
        let is_slow = reader.is_some_and(|reader| is_behind(&history, reader));
        history.streams.push(StreamLog {
            number,
            who: self.who,
            master: master.to_owned(),
            boards: boards.to_vec(),
            cursor: cursor.cloned(),
            asked: self.recorder.clock.now(),
            deliveries: Vec::new(),
            end: None,
            refused: None,
            looked_away: false,
            is_slow,
            reader,
        });
        history.streams.len() as u64 - 1
    }

    fn on_delivery(&self, stream: u64, delivery: &Delivery) {
        let mut delivery = delivery.clone();
        if let StreamEvent::Post(post) = &mut delivery.event {
            self.recorder.share([&mut post.text]);
        }
        self.with_stream(stream, |stream, at| stream.deliveries.push((at, delivery)));
    }

    fn on_stream_refused(&self, stream: u64, why: &Failure) {
        self.with_stream(stream, |stream, at| stream.refused = Some((at, why.clone())));
    }

    fn on_stream_end(&self, stream: u64, why: &StreamEnd) {
        self.with_stream(stream, |stream, at| stream.end = Some((at, why.clone())));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use chatchat::model::ids::{Author, Post, Seq, UserId};

    use super::*;

    const WHO: Who = Who { person: 0, life: 0 };

    fn recorder() -> Recorder {
        Recorder::new(Clock::new(|| Duration::ZERO))
    }

    /// Asks for a stream in a step of a reader.
    fn ask(observer: &dyn Observer, reader: usize) -> u64 {
        let step =
            pin!(Recorder::reading(reader, async { observer.on_stream("http://m", &[], None) }));
        match step.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(stream) => stream,
            Poll::Pending => panic!("it waits for nothing"),
        }
    }

    fn show(observer: &dyn Observer, stream: u64) {
        observer.on_delivery(stream, &Delivery { event: StreamEvent::Beat, cursor: None });
    }

    #[test]
    fn stream_belongs_to_the_reader_that_asks_for_it_also_if_it_is_refused_or_silent() {
        let recorder = recorder();
        let observer = recorder.observer(WHO);
        let (page, tab) = (
            recorder.reader(WHO, None, ReaderKind::Page),
            recorder.reader(WHO, None, ReaderKind::Tab),
        );
        let refused = ask(&*observer, page);
        let why = Failure::Unknown { status: None, why: "a test".to_owned() };
        observer.on_stream_refused(refused, &why);
        // A step that still waits leaves nothing behind for another one.
        let mut waits = pin!(Recorder::reading(page, pending::<()>()));
        assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        ask(&*observer, tab);
        ask(&*observer, page);
        observer.on_stream("http://m", &[], None);
        let readers: Vec<_> = recorder.history().streams.iter().map(|s| s.reader).collect();
        assert_eq!(readers, [Some(page), Some(tab), Some(page), None]);
    }

    #[test]
    fn only_the_stream_after_a_pause_is_marked_with_the_paused_one() {
        let recorder = recorder();
        let observer = recorder.observer(WHO);
        let (page, tab) = (
            recorder.reader(WHO, None, ReaderKind::Page),
            recorder.reader(WHO, None, ReaderKind::Tab),
        );
        for (reader, pauses) in [(page, true), (tab, false), (page, false), (page, false)] {
            let stream = ask(&*observer, reader);
            show(&*observer, stream);
            if pauses {
                recorder.slows_down(stream);
            }
        }
        let slow: Vec<_> = recorder.history().streams.iter().map(|s| s.is_slow).collect();
        assert_eq!(slow, [true, false, true, false]);
    }

    #[test]
    fn stream_that_shows_nothing_after_a_pause_leaves_the_next_one_marked() {
        let recorder = recorder();
        let observer = recorder.observer(WHO);
        let page = recorder.reader(WHO, None, ReaderKind::Page);
        recorder.slows_down(ask(&*observer, page));
        for shows in [false, true, true] {
            let stream = ask(&*observer, page);
            if shows {
                show(&*observer, stream);
            }
        }
        let slow: Vec<_> = recorder.history().streams.iter().map(|s| s.is_slow).collect();
        assert_eq!(slow, [true, true, true, false]);
    }

    #[test]
    fn text_that_many_are_shown_is_kept_once() {
        let recorder = recorder();
        let observer = recorder.observer(WHO);
        let (mut stranger, streams) = (None, [(); 2].map(|()| observer.on_stream("m", &[], None)));
        for (stream, text) in [(streams[0], "long"), (streams[1], "long"), (streams[1], "other")] {
            let post = Post {
                id: PostId([1; 16]),
                board: BoardName::lobby(),
                seq: Seq(1),
                author: Author { id: UserId([1; 16]), name: "ann".parse().expect("a name") },
                text: text.parse().expect("a text"),
                posted_at_ms: 0,
            };
            stranger = Some(post.text.clone());
            let event = StreamEvent::Post(post);
            observer.on_delivery(stream, &Delivery { event, cursor: None });
        }
        let history = recorder.history();
        let texts = history.streams.iter().flat_map(|stream| &stream.deliveries);
        let texts: Vec<_> = texts
            .map(|(_, delivery)| match &delivery.event {
                StreamEvent::Post(post) => post.text.as_str().as_ptr(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(texts[0], texts[1]);
        assert_eq!(Some(texts[2]), stranger.map(|text| text.as_str().as_ptr()), "as it came");
    }
}
