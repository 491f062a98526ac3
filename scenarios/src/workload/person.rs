//! Person of a workload: a session, a stream, a sender for each board, and behaviour of its own.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chatchat::{
    api::StreamEvent,
    client::{Answer, ChatClient, FollowEvent, Limits, MasterList, Request},
    env::{Env, TaskGuard},
    model::{
        ids::{BoardName, Cursor, UserName},
        rows::Range,
        stream::Consistency,
    },
};
use dst_env::rng::{Rng, Seed};
use tokio::sync::{Notify, oneshot};

use super::{
    Stage,
    texts::{Writer, post_id},
};
use crate::history::{ReaderKind, Recorder, Who};

/// Person with a machine of its own.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) number: usize,
    pub(super) env: Env,
    pub(super) stage: Arc<Stage>,
    pub(super) recorder: Recorder,
}

/// Open session of a person. Dropping it closes its streams and stops its senders.
#[derive(Debug)]
pub(super) struct OpenPage {
    pub(super) who: Who,
    pub(super) client: ChatClient,
    pub(super) shared: Arc<Shared>,
    /// One receiver per sender of a board; it is told when the sender stops with nothing
    /// unsettled.
    senders: Vec<oneshot::Receiver<()>>,
    tasks: Vec<TaskGuard>,
}

/// State that the tasks of one session share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// No new posts.
    stop: AtomicBool,
    /// Tells the senders so.
    stopped: Notify,
    /// From where the stream would resume.
    cursor: Mutex<Option<Cursor>>,
    /// Number of the reader of that list and its streams.
    reader: Mutex<Option<usize>>,
    /// Time for which the reader stops reading next.
    look_away: Mutex<Duration>,
}

impl Shared {
    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.stopped.notify_waiters();
    }

    fn has_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn look_away(&self, by: Duration) {
        *self.look_away.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// Returns the number of the reader; a list that was read anew gets another one.
    fn reader(&self, new: impl FnOnce() -> usize) -> usize {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(new)
    }

    /// Begins another list, from here on.
    fn begin_list(&self, cursor: Option<Cursor>) {
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = cursor;
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns from where the stream would resume.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Time for which a person tries to get a session, a list or a log-out.
const PATIENCE: Duration = Duration::from_secs(20);

impl Person {
    pub(super) const fn new(
        number: usize,
        env: Env,
        stage: Arc<Stage>,
        recorder: Recorder,
    ) -> Self {
        Self { number, env, stage, recorder }
    }

    pub(super) const fn env(&self) -> &Env {
        &self.env
    }

    /// Returns a stream of random numbers of this person's own.
    pub(super) fn rng(&self, label: &str) -> Rng {
        Seed(self.stage.seed).stream(&format!("workload/person/{}/{label}", self.number))
    }

    pub(super) fn is_over(&self) -> bool {
        self.time_left().is_zero()
    }

    pub(super) fn time_left(&self) -> Duration {
        self.stage.until.saturating_sub(self.stage.clock.now())
    }

    /// Chats until the story's end and hands the last session over.
    pub(super) async fn live(self, hand: oneshot::Sender<Option<OpenPage>>) {
        let mut rng = self.rng("life");
        self.env.sleep(rng.duration_between(Duration::ZERO, Duration::from_secs(1))).await;
        let mut number = 0;
        let mut ended = None;
        let last = loop {
            let Some(page) = self.begin(number).await else { break None };
            let page = self.chat(page, ended.as_ref(), &mut rng).await;
            if self.is_over() {
                break Some(page);
            }
            ended = Some(page.client.clone());
            self.leave(page).await;
            self.env.sleep(rng.duration_between(Duration::ZERO, Duration::from_secs(3))).await;
            number += 1;
        };
        // Nobody takes it when the run was given up.
        let _ = hand.send(last);
    }

    /// Opens a session and begins to read and write; `None` if no master is named. Tries beyond the
    /// story's end: a person who came late must get in once all is healed.
    async fn begin(&self, life: usize) -> Option<OpenPage> {
        let who = Who { person: self.number, life };
        let roster = MasterList::new(&self.stage.masters, self.number)?;
        let observer = self.recorder.observer(who);
        let client = ChatClient::new(&self.env, roster, None, Limits::default(), observer);
        let name = format!("Person {}", self.number);
        let name: UserName = name.parse().expect("a plain short name");
        while client.open_session(name.clone(), PATIENCE).await.is_err() {
            self.env.sleep(Duration::from_secs(1)).await;
        }
        for board in &self.stage.workload.boards {
            if *board != BoardName::lobby() {
                let create = Request::CreateBoard { board: board.clone() };
                // Somebody else will have made it, or a post to it is refused and recorded.
                let _ = client.call(&create, PATIENCE).await;
            }
        }
        let mut page = OpenPage {
            who,
            client,
            shared: Arc::default(),
            senders: Vec::new(),
            tasks: Vec::new(),
        };
        self.show_boards(&page).await;
        self.open(&mut page, 0);
        Some(page)
    }

    /// Reads the end of each board, as a page does, and builds the cursor from it.
    pub(super) async fn show_boards(&self, page: &OpenPage) {
        let mut cursor = Cursor::default();
        for board in &self.stage.workload.boards {
            let last = Request::Read {
                board: board.clone(),
                range: Range::Last,
                limit: 50,
                wanted: Consistency::Strong,
            };
            if let Ok(Answer::Page(slice)) = page.client.call(&last, PATIENCE).await {
                cursor.epoch = slice.epoch;
                cursor.boards.insert(board.clone(), slice.last_seq);
            }
        }
        let cursor = (!cursor.boards.is_empty()).then_some(cursor);
        page.shared.begin_list(cursor);
    }

    /// Opens the stream and starts the senders; `nth` numbers the openings of one session apart.
    pub(super) fn open(&self, page: &mut OpenPage, nth: usize) {
        if !self.rng("without stream").chance(self.stage.workload.without_stream) {
            let reading = self.clone().read(page.who, page.client.clone(), page.shared.clone());
            page.tasks.push(self.env.spawn("person's stream", reading).abort_on_drop());
        }
        for board in self.stage.workload.boards.clone() {
            let (put_down, is_down) = oneshot::channel();
            let rng = self.rng(&format!("life/{}/{nth}/post/{board}", page.who.life));
            let (client, shared) = (page.client.clone(), page.shared.clone());
            let person = self.clone();
            let place = format!("{board}/{}.{nth}", page.who.life);
            let writing = async move {
                person.write(client, shared, board, place, rng).await;
                // Nobody waits while the session goes on.
                let _ = put_down.send(());
            };
            page.tasks.push(self.env.spawn("person's sender", writing).abort_on_drop());
            page.senders.push(is_down);
        }
    }

    /// Follows all boards for as long as the session lasts.
    async fn read(self, who: Who, client: ChatClient, shared: Arc<Shared>) {
        let boards = self.stage.workload.boards.clone();
        let cursor = shared.cursor();
        let reader = shared.reader(|| self.recorder.reader(who, cursor.clone(), ReaderKind::Page));
        let mut follow = client.follow(boards.clone(), cursor);
        loop {
            let step = Recorder::reading(reader, follow.next()).await;
            // A page that closes while it reads its list again goes on from what it was given.
            *shared.cursor.lock().unwrap_or_else(PoisonError::into_inner) =
                follow.cursor().cloned();
            match step {
                FollowEvent::Ended { .. } => return,
                FollowEvent::Event(StreamEvent::Reset(_)) => {
                    for board in &boards {
                        let again = Request::Read {
                            board: board.clone(),
                            range: Range::Last,
                            limit: 50,
                            wanted: Consistency::Strong,
                        };
                        // The stream goes on whether or not the list could be read again.
                        let _ = client.try_call(&again).await;
                    }
                }
                _ => {}
            }
            let away = std::mem::take(
                &mut *shared.look_away.lock().unwrap_or_else(PoisonError::into_inner),
            );
            if !away.is_zero() {
                // Only here it is known which stream waits for its reader meanwhile.
                if let Some(stream) = follow.observed() {
                    self.recorder.slows_down(stream);
                }
                self.env.sleep(away).await;
            }
        }
    }

    /// Returns the writer of this person's texts.
    pub(super) fn writer(&self) -> Writer {
        let Stage { seed, workload, .. } = &*self.stage;
        Writer { seed: *seed, person: self.number, long: workload.long_posts }
    }

    /// Posts to one board, one after another, at this person's share of the rate.
    async fn write(
        self,
        client: ChatClient,
        shared: Arc<Shared>,
        board: BoardName,
        place: String,
        mut rng: Rng,
    ) {
        let workload = &self.stage.workload;
        let senders = (workload.people * workload.boards.len()).max(1);
        let rate = workload.posts_per_second / senders as f64;
        // The past is written by those who come first.
        let past = if place.ends_with("/0.0") { workload.past.div_ceil(senders) as u64 } else { 0 };
        // A page that opens again sends what an earlier opening left unsettled at once.
        client.flush(&board).await;
        for nth in 0.. {
            if rate <= 0.0 && nth >= past {
                break;
            }
            let mut wait = Duration::ZERO;
            if nth >= past {
                wait = rng.exponential(rate);
                wait += workload.pause_left(self.stage.clock.now() + wait);
            }
            let next = self.env.now() + wait;
            let waits = || next.since(self.env.now()).min(self.time_left());
            // Its machine's clock may be wrong about the story's end.
            while !shared.has_stopped() && !waits().is_zero() {
                tokio::select! {
                    biased;
                    () = shared.stopped.notified() => {}
                    () = self.env.sleep(waits()) => {}
                }
            }
            if shared.has_stopped() || self.is_over() {
                break;
            }
            let text = self.writer().text(&mut rng, &place, nth);
            let id = post_id(&mut rng);
            self.recorder.drafts(self.number, &text);
            if nth < past {
                // A refusal is in the history.
                let _ = client.send(&board, id, text).await;
            } else {
                self.post(&client, &board, id, text, &mut rng, rate).await;
            }
        }
        // Posts whose writers were dropped.
        client.flush(&board).await;
    }

    /// Stops posting, waits for what is unsettled for a while, logs out.
    async fn leave(&self, mut page: OpenPage) {
        let until = self.stage.clock.now() + PATIENCE;
        page.stop_senders(&self.env, until, &self.stage.clock).await;
        let mut rng = self.rng(&format!("life/{}/leave", page.who.life));
        let looks_back = rng.chance(0.5);
        let master: &String = rng.pick(&self.stage.masters);
        // A log-out that nobody heard leaves the session to end by itself.
        if !looks_back {
            let _ = page.client.call(&Request::Leave, PATIENCE).await;
            // The stream may say goodbye.
            self.env.sleep(Duration::from_millis(500)).await;
            return;
        }
        // A master that looks the session up at this moment must not keep it.
        let later = rng.duration_between(Duration::ZERO, Duration::from_millis(60));
        let leave = async {
            self.env.sleep(later).await;
            let _ = page.client.call(&Request::Leave, PATIENCE).await;
        };
        let _ = tokio::join!(leave, page.client.call_at(master, &Request::Boards));
        self.env.sleep(Duration::from_millis(2500)).await;
        if !self.is_over() {
            let _ = page.client.call_at(master, &self.list_of_people()).await;
            let _ = page.client.call_at(master, &Request::Restore).await;
        }
    }

    /// Settles the last session's posts. `None` when there is no session.
    pub(super) async fn settle(
        self,
        handed: oneshot::Receiver<Option<OpenPage>>,
        deadline: Duration,
    ) -> Option<(Self, OpenPage)> {
        let clock = &self.stage.clock;
        let stuck = |post, what| self.recorder.gives_up(self.number, post, what);
        let left = deadline.saturating_sub(clock.now());
        let mut page = match self.env.timeout(left, handed).await {
            Ok(Ok(Some(page))) => page,
            // Its machine died, and it with it.
            Ok(Err(_)) => return None,
            Ok(Ok(None)) => return None,
            Err(_) => {
                let what = "got no session in time, or did not stop chatting";
                stuck(None, format!("person:{} {what}", self.number));
                return None;
            }
        };
        page.stop_senders(&self.env, deadline, clock).await;
        for left in page.client.unsettled() {
            let what = format!("{}: post {} to {} is not settled", page.who, left.id, left.board);
            stuck(Some(left.id), what);
        }
        self.ask_for_unknown(&page, deadline).await;
        Some((self, page))
    }
}

impl OpenPage {
    /// Stops new posts and waits until every sender has stopped, at most until `deadline` of the clock.
    async fn stop_senders(&mut self, env: &Env, deadline: Duration, clock: &crate::history::Clock) {
        self.shared.stop();
        for sender in self.senders.drain(..) {
            // A sender that is still at work, or gone with its page, shows in the outbox.
            let _ = env.timeout(deadline.saturating_sub(clock.now()), sender).await;
        }
    }

    /// Throws away all but session, outbox and cursor: what a page keeps over a reload.
    pub(super) fn close(&mut self) {
        self.senders.clear();
        self.tasks.clear();
    }
}
