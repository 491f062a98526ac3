//! Client of one person over all masters: session, outbox, retries.
//!
//! A client is cheap to clone. Clones are like the tabs of one browser: they share session, outbox
//! and current master.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand_chacha::{ChaCha20Rng, rand_core::Rng};
use tokio::sync::oneshot;

use crate::{
    api::{Problem, ProblemType, SessionOpened},
    client::{
        Answer, Api, Delivery, Failure, Follow, Limits, MasterList, Request, StreamEnd, Trust,
    },
    env::Env,
    model::ids::{BoardName, Cursor, Post, PostId, PostText, UserName},
};

/// Observer of every try of a call and every stream, as it begins and as it ends. One that begins
/// and never ends was cut off with its process.
pub trait Observer: Send + Sync + 'static {
    /// A try of a call begins. Returns a number for it.
    fn on_call(&self, _master: &str, _request: &Request) -> u64 {
        0
    }
    /// The try with this number ended.
    fn on_answer(&self, _asked: u64, _answer: &Result<Answer, Failure>) {}
    /// The caller of the try with this number stopped waiting; its end stays unknown.
    fn on_call_dropped(&self, _asked: u64) {}
    /// A stream is requested. Returns a number for it.
    fn on_stream(&self, _master: &str, _boards: &[BoardName], _cursor: Option<&Cursor>) -> u64 {
        0
    }
    /// The stream with this number delivered an event.
    fn on_delivery(&self, _stream: u64, _delivery: &Delivery) {}
    /// The stream with this number was not opened.
    fn on_stream_refused(&self, _stream: u64, _why: &Failure) {}
    /// The stream with this number ended.
    fn on_stream_end(&self, _stream: u64, _why: &StreamEnd) {}
}

/// Observer that does nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoObserver;

impl Observer for NoObserver {}

/// Post of the outbox: it may be in its board or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// Its board.
    pub board: BoardName,
    /// Its id, chosen by the client.
    pub id: PostId,
    /// Its text.
    pub text: PostText,
}

/// Client of one person, over all masters.
#[derive(Clone)]
pub struct ChatClient(Arc<Inner>);

struct Inner {
    env: Env,
    limits: Limits,
    observer: Arc<dyn Observer>,
    trust: Option<Trust>,
    /// Locked briefly, never across an await.
    state: Mutex<State>,
}

struct State {
    master_list: MasterList,
    token: Option<String>,
    /// Connections that no call is using.
    idle: Vec<Api>,
    outbox: BTreeMap<BoardName, Outbox>,
    rng: ChaCha20Rng,
}

/// Unsettled posts of one board, in the order written.
#[derive(Default)]
struct Outbox {
    drafts: VecDeque<Draft>,
    /// Lock of the task that sends the first draft.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct Draft {
    id: PostId,
    text: PostText,
    /// Channel to the writer, who may have stopped waiting.
    tell: oneshot::Sender<Result<Post, Failure>>,
}

/// Reports a try to the observer when its future is dropped.
struct Try<'a> {
    observer: &'a dyn Observer,
    asked: u64,
    is_heard: bool,
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        if !self.is_heard {
            self.observer.on_call_dropped(self.asked);
        }
    }
}

/// Most drafts in one board's outbox.
const DRAFTS_MAX: usize = 1000;
/// Most connections that are kept for later calls.
const IDLE_MAX: usize = 4;
/// First wait between two tries; it doubles with each.
const BACKOFF: Duration = Duration::from_millis(100);
/// Longest wait that a master may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// Time for which a master may owe an answer before it is asked whether it is ready.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// Questions in a row that a silent master does not answer before it is left.
const MISSED_MAX: u32 = 2;

impl fmt::Debug for ChatClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChatClient({})", self.master())
    }
}

impl ChatClient {
    /// Returns a client that begins with the list's current master.
    #[must_use]
    pub fn new(
        env: &Env,
        master_list: MasterList,
        token: Option<String>,
        limits: Limits,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self::trusting(env, master_list, token, limits, observer, None)
    }

    /// Returns a client that knows masters at `https://` by these certificates.
    #[must_use]
    pub fn trusting(
        env: &Env,
        master_list: MasterList,
        token: Option<String>,
        limits: Limits,
        observer: Arc<dyn Observer>,
        trust: Option<Trust>,
    ) -> Self {
        let rng = env.rng("client");
        let state = State { master_list, token, idle: Vec::new(), outbox: BTreeMap::new(), rng };
        let (env, state) = (env.clone(), Mutex::new(state));
        Self(Arc::new(Inner { env, limits, observer, trust, state }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it did, what it left is whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the world that the client runs in.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.0.env
    }

    /// Returns the client's time-outs.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    pub(super) fn observer(&self) -> &Arc<dyn Observer> {
        &self.0.observer
    }

    /// Returns the current master.
    #[must_use]
    pub fn master(&self) -> String {
        self.state().master_list.current().to_owned()
    }

    /// Returns all known masters.
    #[must_use]
    pub fn masters(&self) -> Vec<String> {
        self.state().master_list.all().to_vec()
    }

    /// Returns the session's secret, if there is a session.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        self.state().token.clone()
    }

    pub(super) fn with_masters(&self, change: impl FnOnce(&mut MasterList)) {
        change(&mut self.state().master_list);
    }

    /// Returns a new post id, a version 4 UUID.
    #[must_use]
    pub fn new_post_id(&self) -> PostId {
        let mut bytes = [0; 16];
        self.state().rng.fill_bytes(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        PostId(bytes)
    }

    /// Returns a connection to a master with this session, for calls that are not observed.
    #[must_use]
    pub fn api(&self, master: &str) -> Api {
        Api::new(&self.0.env, master, self.token(), self.0.limits).trusting(self.0.trust.clone())
    }

    /// Tries a call once, at this master. Dropping the future leaves the outcome unknown.
    ///
    /// # Errors
    /// Any [`Failure`].
    pub async fn call_at(&self, master: &str, request: &Request) -> Result<Answer, Failure> {
        let kept = {
            let mut state = self.state();
            let kept = state.idle.iter().position(|api| api.master() == master);
            kept.map(|nth| state.idle.swap_remove(nth))
        };
        let mut api = kept.unwrap_or_else(|| self.api(master));
        api.set_token(self.token());
        let asked = self.observer().on_call(master, request);
        let mut try_ = Try { observer: &**self.observer(), asked, is_heard: false };
        let answer = api.call(request).await;
        try_.is_heard = true;
        self.observer().on_answer(asked, &answer);
        let mut state = self.state();
        if state.idle.len() >= IDLE_MAX {
            state.idle.remove(0);
        }
        state.idle.push(api);
        answer
    }

    /// Asks a master whether it is ready, and leaves it if it is not or does not say so in time.
    pub(super) async fn is_ready(&self, master: &str) -> bool {
        let is_ready = self.api(master).call(&Request::Readyz).await.is_ok();
        self.with_masters(|masters| match is_ready {
            true => masters.on_answer(master),
            false => masters.on_failed(master),
        });
        is_ready
    }

    /// Returns the current master. One in doubt is asked first whether it is ready: a call that
    /// writes would wait for a silent one much longer. If none is ready, returns the next in turn.
    async fn ready_master(&self) -> String {
        for _ in self.masters() {
            let (master, is_doubted) = {
                let masters = &self.state().master_list;
                (masters.current().to_owned(), masters.is_doubted())
            };
            if !is_doubted || self.is_ready(&master).await {
                return master;
            }
        }
        self.master()
    }

    /// Tries a call once, at the current master, and moves on to the next one if it is silent.
    ///
    /// # Errors
    /// Any [`Failure`].
    pub async fn try_call(&self, request: &Request) -> Result<Answer, Failure> {
        self.try_current(request).await.1
    }

    /// Does as [`Self::try_call`], and says which master was asked.
    async fn try_current(&self, request: &Request) -> (String, Result<Answer, Failure>) {
        let master = self.ready_master().await;
        let answer = self.call_watched(&master, request).await;
        self.with_masters(|masters| match &answer {
            Ok(_) | Err(Failure::Refused { .. }) => masters.on_answer(&master),
            Err(failure) if failure.is_silence() => masters.on_failed(&master),
            Err(_) => masters.on_doubt(&master),
        });
        (master, answer)
    }

    /// Calls a master, and gives the call up when the master has fallen silent. Without another one to
    /// turn to the call waits as long as it may.
    async fn call_watched(&self, master: &str, request: &Request) -> Result<Answer, Failure> {
        if self.masters().len() < 2 {
            return self.call_at(master, request).await;
        }
        tokio::select! {
            biased;
            answer = self.call_at(master, request) => answer,
            () = self.silence_of(master) => {
                let why = "the master fell silent".to_owned();
                Err(Failure::Unknown { status: None, why })
            }
        }
    }

    /// Waits until a master that owes an answer does not say either whether it is ready.
    async fn silence_of(&self, master: &str) {
        self.0.env.sleep(SILENT_AFTER).await;
        let mut missed = 0;
        while missed < MISSED_MAX {
            let said = self.api(master).call(&Request::Readyz).await;
            missed = match said {
                Err(failure) if failure.is_silence() => missed + 1,
                _ => {
                    self.0.env.sleep(SILENT_AFTER).await;
                    0
                }
            };
        }
    }

    /// Tries a call at one master after another until the answer is final, for about `within`.
    ///
    /// # Errors
    /// The last [`Failure`] when the time is over; [`Failure::Refused`] at once.
    pub async fn call(&self, request: &Request, within: Duration) -> Result<Answer, Failure> {
        let deadline = self.0.env.now() + within;
        let mut nth = 0;
        loop {
            let (master, failure) = match self.try_current(request).await {
                (master, Err(failure)) if !matches!(failure, Failure::Refused { .. }) => {
                    (master, failure)
                }
                (_, settled) => return settled,
            };
            if self.0.env.now() >= deadline {
                return Err(failure);
            }
            self.back_off(nth, &master, &failure).await;
            nth += 1;
        }
    }

    /// Waits as the master asked, or longer with each try. From the second try on the client also
    /// leaves a master that answers but cannot serve it; the call itself leaves a silent one. A
    /// master that another call has left meanwhile is not left twice: its successor was not asked.
    async fn back_off(&self, nth: u32, master: &str, failure: &Failure) {
        let asked_for = match failure {
            Failure::Busy { retry_after, .. } => *retry_after,
            _ => None,
        };
        if nth > 0 && !failure.is_silence() {
            self.with_masters(|masters| masters.on_failed(master));
        }
        let wait = asked_for.map_or_else(|| self.backoff(nth), |wait| wait.min(RETRY_AFTER_MAX));
        self.0.env.sleep(wait).await;
    }

    /// Returns the wait before the next try: doubled from [`BACKOFF`], half of it random, so that
    /// clients do not retry in step.
    pub(super) fn backoff(&self, nth: u32) -> Duration {
        let whole = BACKOFF.saturating_mul(1 << nth.min(10)).min(self.0.limits.backoff_max);
        whole / 2 + self.part_of(whole / 2)
    }

    /// Returns a random part of a wait.
    pub(super) fn part_of(&self, whole: Duration) -> Duration {
        whole.mul_f64(f64::from(self.state().rng.next_u32()) / f64::from(u32::MAX))
    }

    /// Opens a session and uses it from now on.
    ///
    /// # Errors
    /// As [`ChatClient::call`]. A try without an answer may leave a session that nobody uses.
    pub async fn open_session(
        &self,
        name: UserName,
        within: Duration,
    ) -> Result<SessionOpened, Failure> {
        let opened = match self.call(&Request::OpenSession { name }, within).await? {
            Answer::Opened(opened) => opened,
            other => return Err(strange(&other)),
        };
        let mut state = self.state();
        state.token.clone_from(&opened.token);
        state.master_list.on_list(opened.masters.iter().map(|master| master.http.clone()));
        Ok(opened)
    }

    /// Sends a post under the same id until it is in its board or refused. Tries without end: drop
    /// the future to bound it. The post then stays in the outbox, and the next post to this board
    /// sends it first.
    ///
    /// # Errors
    /// [`Failure::Refused`]; [`Failure::Busy`] when the outbox is full.
    pub async fn send(
        &self,
        board: &BoardName,
        id: PostId,
        text: PostText,
    ) -> Result<Post, Failure> {
        let (tell, mut told) = oneshot::channel();
        let turn = {
            let mut state = self.state();
            let outbox = state.outbox.entry(board.clone()).or_default();
            if outbox.drafts.len() >= DRAFTS_MAX {
                let detail = format!("{DRAFTS_MAX} posts wait in the outbox");
                let problem = Problem::new(ProblemType::Overloaded, detail);
                return Err(Failure::Busy { status: 429, problem, retry_after: None });
            }
            outbox.drafts.push_back(Draft { id, text, tell });
            outbox.turn.clone()
        };
        let _turn = turn.lock().await;
        loop {
            if let Ok(outcome) = told.try_recv() {
                return outcome;
            }
            self.send_first(board).await;
        }
    }

    /// Sends what is left in a board's outbox, as [`ChatClient::send`] would.
    pub async fn flush(&self, board: &BoardName) {
        let turn = match self.state().outbox.get(board) {
            Some(outbox) => outbox.turn.clone(),
            None => return,
        };
        let _turn = turn.lock().await;
        let left = || self.state().outbox.get(board).map_or(0, |outbox| outbox.drafts.len());
        while left() > 0 {
            self.send_first(board).await;
        }
    }

    /// Settles the board's first draft and reports to its writer. The caller holds the turn.
    async fn send_first(&self, board: &BoardName) {
        let first = {
            let state = self.state();
            let first = state.outbox.get(board).and_then(|outbox| outbox.drafts.front());
            first.map(|draft| (draft.id, draft.text.clone()))
        };
        let Some((id, text)) = first else { return };
        let outcome = self.settle(Request::Post { board: board.clone(), id, text }).await;
        let mut state = self.state();
        let drafts = state.outbox.get_mut(board).map(|outbox| &mut outbox.drafts);
        if let Some(draft) = drafts.and_then(VecDeque::pop_front) {
            // Nobody waits for a draft whose writer was dropped.
            let _ = draft.tell.send(outcome);
        }
    }

    /// Sends a post until the answer is final.
    async fn settle(&self, post: Request) -> Result<Post, Failure> {
        let mut nth = 0;
        loop {
            let (master, answer) = self.try_current(&post).await;
            match answer {
                Ok(Answer::Posted(posted)) => return Ok(posted),
                Ok(Answer::Pending { .. }) => self.0.env.sleep(Duration::from_secs(1)).await,
                Ok(other) => return Err(strange(&other)),
                Err(refused @ Failure::Refused { .. }) => return Err(refused),
                Err(failure) => {
                    self.back_off(nth, &master, &failure).await;
                    nth += 1;
                }
            }
        }
    }

    /// Returns the posts of the outbox, board by board, in the order written.
    #[must_use]
    pub fn unsettled(&self) -> Vec<Unsettled> {
        let state = self.state();
        let of = |(board, outbox): (&BoardName, &Outbox)| {
            let unsettled = |draft: &Draft| Unsettled {
                board: board.clone(),
                id: draft.id,
                text: draft.text.clone(),
            };
            outbox.drafts.iter().map(unsettled).collect::<Vec<_>>()
        };
        state.outbox.iter().flat_map(of).collect()
    }

    /// Follows boards across masters, from a cursor or from their ends.
    #[must_use]
    pub fn follow(&self, boards: Vec<BoardName>, cursor: Option<Cursor>) -> Follow {
        Follow::new(self.clone(), boards, cursor)
    }
}

/// Failure of an answer that does not belong to its call; [`Request::read`] returns none.
pub(super) fn strange(reply: &Answer) -> Failure {
    let text = format!("{reply:?}");
    let kind = text.split(['(', ' ', '{']).next().unwrap_or_default();
    Failure::Unknown { status: None, why: format!("unexpected answer {kind}") }
}
