//! Behaviour of people besides posting: looking around, reloading, sending twice, cancelling,
//! sending malformed requests.

use std::time::Duration;

use chatchat::{
    client::{Answer, ChatClient, FollowEvent, Method, Request},
    env::TaskGuard,
    model::{
        ids::{BoardName, Cursor, PostId, PostText, Seq},
        rows::Range,
        stream::Consistency,
    },
};
use dst_env::rng::Rng;

use super::{
    person::{OpenPage, Person},
    texts::post_id,
};
use crate::history::{Oddity, ReaderKind, Recorder};

/// Between two looks around, on the average.
const TICK: Duration = Duration::from_millis(1500);

/// Time for which a second tab is open.
const TAB_FOR: Duration = Duration::from_secs(10);

/// Odds that a person looks for its post once that is acknowledged.
const LOOKS_AFTER: f64 = 0.15;

/// Above the longest text.
const TEXT_LEN_OVER: usize = 9 * 1024;

/// Returns whether a behaviour of this rate is due at this tick.
pub(super) fn is_time(rng: &mut Rng, per_minute: f64) -> bool {
    rng.chance(per_minute * TICK.as_secs_f64() / 60.0)
}

impl Person {
    /// Looks around and keeps its habits until the story ends or it wants to leave.
    pub(super) async fn chat(
        &self,
        mut page: OpenPage,
        ended: Option<&ChatClient>,
        rng: &mut Rng,
    ) -> OpenPage {
        let habits = self.stage.workload.habits;
        // Read marks may only name places that were shown.
        let mut shown: Vec<(BoardName, Seq)> = Vec::new();
        let mut opening = 0;
        let mut tabs = Vec::new();
        loop {
            let pause = rng.duration_between(TICK / 3, TICK / 3 * 5);
            let closed = self.stage.closed.until(self.number, true);
            if self.env.timeout(pause, closed).await.is_ok() && !self.is_over() {
                opening += 1;
                self.restart(&mut page, opening).await;
            }
            if self.is_over() {
                return page;
            }
            self.look_around(&page, rng, &mut shown).await;
            // With broken masters one call may take longer than the story had left.
            if self.is_over() {
                return page;
            }
            if is_time(rng, habits.ask_outcome) {
                self.ask_for_one(&page, rng).await;
            }
            if is_time(rng, habits.reload) {
                opening += 1;
                page.close();
                // A page that cannot restore shows what it had and goes on.
                let _ = page.client.try_call(&Request::Restore).await;
                self.show_boards(&page).await;
                self.open(&mut page, opening);
            }
            if self.is_over() {
                return page;
            }
            if is_time(rng, habits.slow_reader) {
                page.shared.look_away(
                    rng.duration_between(Duration::from_secs(3), Duration::from_secs(20)),
                );
            }
            let second = is_time(rng, habits.two_tabs);
            if second {
                let (kind, lasts) = (ReaderKind::Tab, TAB_FOR);
                tabs.push(self.spare_stream(&page, None, kind, lasts));
            }
            tabs.extend(self.go_to_limits(&page, rng).await);
            // The oldest of four are closed for further ones.
            tabs.drain(..tabs.len().saturating_sub(4));
            if is_time(rng, habits.leave) {
                return page;
            }
            if is_time(rng, habits.hostile_bytes) {
                self.misbehave(&page, rng).await;
            }
            // Stories without the habit keep their draws.
            if habits.visit > 0.0 && is_time(rng, habits.visit) && !self.is_over() {
                let client = ended.filter(|_| rng.chance(0.5)).unwrap_or(&page.client);
                let master: &String = rng.pick(&self.stage.masters);
                let request = match rng.below(8) {
                    0 => self.list_of_people(),
                    1 => Request::Boards,
                    2 => Request::Alive,
                    _ => Request::Restore,
                };
                let _ = client.call_at(master, &request).await;
            }
        }
    }

    /// Closes the page, and opens it again with its session, its outbox and its cursor once the
    /// fault has ended, or the story.
    async fn restart(&self, page: &mut OpenPage, opening: usize) {
        page.close();
        self.stage.closed.goes_away();
        let opened = self.stage.closed.until(self.number, false);
        // Its machine's clock may be wrong about the story's end.
        let _ = self.env.timeout(self.time_left(), opened).await;
        // A page that cannot restore shows what it had and goes on.
        let _ = page.client.try_call(&Request::Restore).await;
        self.open(page, opening);
    }

    /// Makes one read or read mark, drawn at random.
    async fn look_around(&self, page: &OpenPage, rng: &mut Rng, shown: &mut Vec<(BoardName, Seq)>) {
        let board = rng.pick(&self.stage.workload.boards).clone();
        let known = shown.iter().find(|(name, _)| *name == board).map_or(Seq(0), |(_, seq)| *seq);
        let read =
            |range, limit, wanted| Request::Read { board: board.clone(), range, limit, wanted };
        let request = match rng.below(100) {
            0..30 => read(Range::Last, 50, Consistency::Strong),
            30..45 => read(Range::After(Seq(known.0.saturating_sub(20))), 100, Consistency::Weak),
            45..55 => read(Range::After(known), 100, Consistency::Strong),
            55..60 => read(Range::Before(known.next()), 20, Consistency::Strong),
            60..70 => self.list_of_people(),
            70..78 => Request::Boards,
            78..86 => Request::Restore,
            _ if known > Seq(0) => return self.mark(page, rng, &board, known).await,
            _ => Request::Boards,
        };
        // What came of it stands in the history.
        let Ok(Answer::Page(slice)) = page.client.try_call(&request).await else { return };
        let Some(last) = slice.posts.last() else { return };
        match shown.iter_mut().find(|(name, _)| *name == board) {
            Some((_, seq)) => *seq = last.seq.max(*seq),
            None => shown.push((board, last.seq)),
        }
    }

    /// Sets the read mark of a board: alone, after which a tab with an older page sets its own, or
    /// both at once while the session is restored. It looks at the mark in the end.
    async fn mark(&self, page: &OpenPage, rng: &mut Rng, board: &BoardName, seq: Seq) {
        let at = |seq| Request::ReadMark { board: board.clone(), seq };
        let (newer, older) = (at(seq), at(Seq(1 + rng.below(seq.0))));
        let client = &page.client;
        // What came of it stands in the history.
        match rng.below(4) {
            0 => {
                let _ = client.try_call(&newer).await;
                if !self.is_over() {
                    let _ = client.try_call(&older).await;
                }
            }
            1 => {
                let other: &String = rng.pick(&self.stage.masters);
                let restored = client.call_at(other, &Request::Restore);
                let _ = tokio::join!(client.try_call(&older), client.try_call(&newer), restored);
                if !self.is_over() {
                    let _ = client.call_at(other, &Request::Boards).await;
                }
            }
            _ => {
                let _ = client.try_call(&newer).await;
                return;
            }
        }
        if !self.is_over() {
            let _ = client.try_call(&Request::Restore).await;
        }
    }

    /// Sends a post: as usual, through two masters at once, or with second thoughts.
    pub(super) async fn post(
        &self,
        client: &ChatClient,
        board: &BoardName,
        id: PostId,
        text: PostText,
        rng: &mut Rng,
        per_second: f64,
    ) {
        let habits = self.stage.workload.habits;
        let boards = self.stage.workload.boards.len() as f64;
        // A rate per minute and person as odds per post of one sender.
        let mut now = |per_minute: f64| rng.chance(per_minute / (per_second * boards * 60.0));
        // A refusal is in the history, with the status that the oracles judge.
        if now(habits.duplicate_send) {
            let others: Vec<_> =
                self.stage.masters.iter().filter(|m| **m != client.master()).cloned().collect();
            // Earlier posts first, or the second way would overtake them.
            client.flush(board).await;
            let request = Request::Post { board: board.clone(), id, text: text.clone() };
            let twice = async {
                if !others.is_empty() {
                    let other: &String = rng.pick(&others);
                    let _ = client.call_at(other, &request).await;
                }
            };
            let _ = tokio::join!(client.send(board, id, text), twice);
        } else if now(habits.ask_outcome / 4.0) {
            let patience = rng.duration_between(Duration::ZERO, Duration::from_millis(60));
            let sent = self.env.timeout(patience, client.send(board, id, text)).await;
            if sent.is_err() {
                let _ = client.try_call(&Request::Cancel { id }).await;
                client.flush(board).await;
            }
        } else if client.send(board, id, text).await.is_ok() && rng.chance(LOOKS_AFTER) {
            // At any master: a post that was acknowledged is there.
            let last = Request::Read {
                board: board.clone(),
                range: Range::Last,
                limit: 10,
                wanted: Consistency::Strong,
            };
            let request = if rng.chance(0.5) { last } else { Request::Boards };
            let master: &String = rng.pick(&self.stage.masters);
            let _ = client.call_at(master, &request).await;
        }
    }

    /// Asks what became of a post of this session.
    async fn ask_for_one(&self, page: &OpenPage, rng: &mut Rng) {
        let ids: Vec<PostId> = {
            let history = self.recorder.history();
            let mine = history.sent().filter(|sent| sent.operation.who == page.who);
            mine.map(|sent| sent.id).collect()
        };
        if !ids.is_empty() {
            let _ = page.client.try_call(&Request::Outcome { id: *rng.pick(&ids) }).await;
        }
    }

    /// Opens a further stream of the same session for a while.
    pub(super) fn spare_stream(
        &self,
        page: &OpenPage,
        from: Option<Cursor>,
        kind: ReaderKind,
        lasts: Duration,
    ) -> TaskGuard {
        let mut follow = page.client.follow(self.stage.workload.boards.clone(), from.clone());
        let env = self.env.clone();
        let reader = self.recorder.reader(page.who, from, kind);
        let tab = async move {
            let reading = async {
                loop {
                    let step = Recorder::reading(reader, follow.next()).await;
                    if matches!(step, FollowEvent::Ended { .. }) {
                        break;
                    }
                }
            };
            // It is closed in the middle of whatever it reads.
            let _ = env.timeout(lasts, reading).await;
        };
        self.env.spawn("person's spare stream", tab).abort_on_drop()
    }

    /// Sends what no client of ours would, and notes the status.
    async fn misbehave(&self, page: &OpenPage, rng: &mut Rng) {
        let id = post_id(rng);
        let long = "x".repeat(TEXT_LEN_OVER);
        let (what, method, path, body) = match rng.below(6) {
            0 => ("broken JSON", Method::POST, "boards/lobby/posts", "{\"id\":".to_owned()),
            1 => {
                let body = format!("{{\"id\":\"{id}\",\"text\":\"{long}\"}}");
                ("a long text", Method::POST, "boards/lobby/posts", body)
            }
            2 => {
                let body = format!("{{\"id\":\"{id}\",\"text\":\"\"}}");
                ("an empty text", Method::POST, "boards/lobby/posts", body)
            }
            3 => (
                "a bad id",
                Method::POST,
                "boards/lobby/posts",
                "{\"id\":\"7\",\"text\":\"x\"}".into(),
            ),
            4 => ("a bad board name", Method::PUT, "boards/-Lobby", String::new()),
            _ => ("a bad method", Method::PATCH, "users", "{}".to_owned()),
        };
        let mut api = page.client.api(&page.client.master());
        let sent = self.stage.clock.now();
        let body = (!body.is_empty()).then(|| body.into_bytes());
        let answer = api.raw(method, &format!("/api/v1/{path}"), body).await;
        let status = answer.ok().map(|answer| answer.status);
        self.recorder.history().oddities.push(Oddity { who: page.who, what, sent, status });
    }
}
