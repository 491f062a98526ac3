//! Behaviour of people who go to the limits of the contract: cursors that nobody gave them, ids
//! that stand for another post, sessions moved by ticket, many posts at once.

use std::time::Duration;

use chatchat::{
    api::{Problem, SessionOpened, StreamEvent, TicketIssued},
    client::{Api, Method, RawAnswer, Request},
    env::TaskGuard,
    model::ids::{BoardName, PostId, PostText, Seq, StoreEpoch},
};
use dst_env::rng::Rng;

use super::{
    behaviours::is_time,
    person::{OpenPage, Person},
    texts::post_id,
};
use crate::history::{End, Handover, Operation, ReaderKind, Redeemed, Unreadable, UnreadableTold};

/// Time for which a stream from a strange cursor is read.
const STRANGE_FOR: Duration = Duration::from_secs(5);
/// Cursors that do not parse; `None` stands for one of too many boards.
const UNREADABLE: [Option<&str>; 9] = [
    Some("nonsense"),
    Some("7"),
    Some(";lobby:1"),
    Some("-7;lobby:1"),
    Some("7;lobby"),
    Some("7;lobby:one"),
    Some("7;lobby:1,lobby:2"),
    Some("7;-Lobby:1"),
    None,
];
/// Time after which the rest of a burst is left to the board's sender.
const BURST_FOR: Duration = Duration::from_secs(10);

impl Person {
    /// Keeps those habits that are due. Stories without a habit keep their draws.
    pub(super) async fn go_to_limits(&self, page: &OpenPage, rng: &mut Rng) -> Vec<TaskGuard> {
        let habits = self.stage.workload.habits;
        let mut is_due = |rate: f64| rate > 0.0 && is_time(rng, rate);
        let (same, moved, many, strange, kept) = (
            is_due(habits.same_id),
            is_due(habits.handover),
            is_due(habits.burst),
            is_due(habits.forged_cursor),
            is_due(habits.keep_alive),
        );
        if same {
            self.send_same_id(page, rng).await;
        }
        if moved && !self.is_over() {
            self.hand_over(page, rng).await;
        }
        if many && !self.is_over() {
            self.burst(page, rng).await;
        }
        let unreadable = if strange { self.read_from_unreadable_cursor(page) } else { None };
        let strange = strange.then(|| self.read_from_strange_cursor(page, rng));
        let kept = kept.then(|| self.keep_connection(page, rng));
        strange.into_iter().chain(kept).chain(unreadable).collect()
    }

    /// Sends one id for two posts: after the first one is settled, while it is not, or both at once.
    /// The choice among these has draws of its own.
    async fn send_same_id(&self, page: &OpenPage, rng: &mut Rng) {
        let now = self.stage.clock.now();
        let mut own = self.rng(&format!("same id/{}", now.as_nanos()));
        let first = match own.below(3) {
            0 => {
                self.send_two_at_once(page, &mut own).await;
                return;
            }
            1 => self.unsettled_posts(page),
            _ => Vec::new(),
        };
        let is_unsettled = !first.is_empty();
        let first = if is_unsettled { first } else { self.settled_posts(page) };
        if first.is_empty() {
            return;
        }
        let (board, id, first_text) = rng.pick(&first).clone();
        let (board, text) = self.other_post(rng, &board, &first_text);
        if is_unsettled && text != first_text {
            // It may be the one that stands.
            self.recorder.drafts(self.number, &text);
        }
        let master: &String = rng.pick(&self.stage.masters);
        // What came of it stands in the history.
        let _ = page.client.call_at(master, &Request::Post { board, id, text }).await;
    }

    /// Sends two posts under one id, at two masters. The first one stands in the outbox and is sent
    /// until it, or the other one, is settled.
    async fn send_two_at_once(&self, page: &OpenPage, rng: &mut Rng) {
        let board = rng.pick(&self.stage.workload.boards).clone();
        let nth = rng.below(1_000_000_000);
        let (id, text) = (post_id(rng), self.writer().text(rng, "two", nth));
        let (other_board, other_text) = self.other_post(rng, &board, &text);
        let client = &page.client;
        let own = client.master();
        let others: Vec<_> = self.stage.masters.iter().filter(|master| **master != own).collect();
        let master = if others.is_empty() { &own } else { *rng.pick(&others) };
        let other = Request::Post { board: other_board, id, text: other_text.clone() };
        let both = async {
            // Earlier posts first, or the second way would overtake them.
            client.flush(&board).await;
            self.recorder.drafts(self.number, &text);
            if other_text != text {
                self.recorder.drafts(self.number, &other_text);
            }
            let _ =
                tokio::join!(client.send(&board, id, text.clone()), client.call_at(master, &other));
        };
        // The outbox keeps what is not settled by then.
        let _ = self.env.timeout(BURST_FOR, both).await;
    }

    /// Returns another text for the same board, or the same text for another board.
    fn other_post(
        &self,
        rng: &mut Rng,
        board: &BoardName,
        text: &PostText,
    ) -> (BoardName, PostText) {
        let other: &BoardName = rng.pick(&self.stage.workload.boards);
        if other == board {
            let nth = rng.below(1_000_000);
            (board.clone(), self.writer().text(rng, "again", nth))
        } else {
            (other.clone(), text.clone())
        }
    }

    /// Returns the posts of this session that were acknowledged.
    fn settled_posts(&self, page: &OpenPage) -> Vec<(BoardName, PostId, PostText)> {
        let history = self.recorder.history();
        let mine = history.sent().filter(|sent| sent.operation.who == page.who);
        let settled = mine.filter(|sent| sent.operation.committed().is_some());
        settled.map(|sent| (sent.board.clone(), sent.id, sent.text.clone())).collect()
    }

    /// Returns the posts of this session that were sent and are not settled: they are on their way,
    /// queued or held.
    fn unsettled_posts(&self, page: &OpenPage) -> Vec<(BoardName, PostId, PostText)> {
        let left = page.client.unsettled();
        let history = self.recorder.history();
        let is_sent =
            |id: PostId| history.sent().any(|sent| sent.id == id && sent.operation.who == page.who);
        let sent = left.into_iter().filter(|left| is_sent(left.id));
        sent.map(|left| (left.board, left.id, left.text)).collect()
    }

    /// Posts many texts to one board, one after another.
    async fn burst(&self, page: &OpenPage, rng: &mut Rng) {
        let board = rng.pick(&self.stage.workload.boards).clone();
        let place = format!("{board}/burst");
        let posts: Vec<(PostId, PostText)> = (0..10 + rng.below(20))
            .map(|_| {
                let nth = rng.below(1_000_000_000);
                (post_id(rng), self.writer().text(rng, &place, nth))
            })
            .collect();
        let sending = async {
            for (id, text) in posts {
                self.recorder.drafts(self.number, &text);
                let _ = page.client.send(&board, id, text).await;
            }
        };
        // The outbox keeps what is not settled by then.
        let _ = self.env.timeout(BURST_FOR, sending).await;
    }

    /// Reads for a while from a cursor of another store, of the future, of the past, or with a board
    /// that is not there.
    fn read_from_strange_cursor(&self, page: &OpenPage, rng: &mut Rng) -> TaskGuard {
        let mut cursor = page.shared.cursor().unwrap_or_default();
        match rng.below(5) {
            0 => cursor.epoch = StoreEpoch(cursor.epoch.0.saturating_sub(1)),
            1 => cursor.epoch = StoreEpoch(cursor.epoch.0 + 1 + rng.below(1_000_000)),
            2 => {
                let ahead = 1 + rng.below(2000);
                cursor.boards.values_mut().for_each(|seq| *seq = Seq(seq.0 + ahead));
            }
            3 => {
                let back = rng.below(400);
                cursor.boards.values_mut().for_each(|seq| *seq = Seq(seq.0.saturating_sub(back)));
            }
            _ => {
                let nowhere = "nowhere".parse().expect("a plain short name");
                cursor.boards.insert(nowhere, Seq(1 + rng.below(9)));
            }
        }
        self.spare_stream(page, Some(cursor), ReaderKind::Stranger, STRANGE_FOR)
    }

    /// Asks, at some of the times at which a strange cursor is due, for a stream from a cursor that
    /// does not parse, and notes what comes first. Its draws are its own.
    fn read_from_unreadable_cursor(&self, page: &OpenPage) -> Option<TaskGuard> {
        let asked = self.stage.clock.now();
        let mut rng = self.rng(&format!("unreadable/{}", asked.as_nanos()));
        if !rng.odds(1, 3) {
            return None;
        }
        let many: Vec<_> = (0..40).map(|nth| format!("b{nth}:1")).collect();
        let many = format!("7;{}", many.join(","));
        let cursor = rng.pick(&UNREADABLE).map_or(many, str::to_owned);
        let master = page.client.master();
        let api = page.client.api(&master);
        let (person, who) = (self.clone(), page.who);
        let asking = async move {
            let boards = person.stage.workload.boards.clone();
            let reading = async {
                let mut stream = match api.raw_stream(&boards, &cursor).await {
                    Ok(stream) => stream,
                    Err(failure) => return UnreadableTold::Refused(failure.status()),
                };
                while let Ok(delivery) = stream.next().await {
                    match delivery.event {
                        StreamEvent::Reset(reset) => return UnreadableTold::Reset(reset.reason),
                        StreamEvent::Post(_) => return UnreadableTold::Post,
                        _ => {}
                    }
                }
                UnreadableTold::Nothing
            };
            let told = person.env.timeout(STRANGE_FOR, reading).await;
            let told = told.unwrap_or(UnreadableTold::Nothing);
            let ended = person.stage.clock.now();
            let unreadable = Unreadable { who, master, cursor, asked, ended, told };
            person.recorder.history().unreadable.push(unreadable);
        };
        Some(self.env.spawn("person's unreadable cursor", asking).abort_on_drop())
    }

    /// Moves the session to another master by a ticket, as a browser does, and tries the ticket
    /// again, or at two masters at once. The session that it gives is used for a moment.
    async fn hand_over(&self, page: &OpenPage, rng: &mut Rng) {
        let issued_at = self.stage.clock.now();
        let mut own = self.rng(&format!("handover/{}", issued_at.as_nanos()));
        let mut api = page.client.api(&page.client.master());
        let issued = api.raw(Method::POST, "/api/v1/handover", None).await.ok();
        let mut handover = Handover {
            who: page.who,
            issued_at,
            status: issued.as_ref().map(|answer| answer.status),
            ticket: issued.as_ref().and_then(ticket),
            at_once: own.odds(1, 2),
            redeemed: Vec::new(),
            used: Vec::new(),
        };
        // A master that is broken for good would hold the person up beyond the end.
        if let Some(ticket) = handover.ticket.as_ref().filter(|_| !self.is_over()) {
            let first: &String = rng.pick(&self.stage.masters);
            if handover.at_once {
                let others = self.stage.masters.iter().filter(|master| *master != first);
                let others: Vec<_> = others.collect();
                let other = if others.is_empty() { first } else { *own.pick(&others) };
                let (one, other) = tokio::join!(
                    self.redeem(page, first, ticket),
                    self.redeem(page, other, ticket)
                );
                handover.redeemed.extend([one, other]);
            } else {
                handover.redeemed.push(self.redeem(page, first, ticket).await);
                if !self.is_over() {
                    let again: &String = rng.pick(&self.stage.masters);
                    handover.redeemed.push(self.redeem(page, again, ticket).await);
                }
            }
        }
        let given = handover.redeemed.iter().find_map(|it| Some((&it.master, it.token.as_ref()?)));
        if let Some((master, token)) = given {
            handover.used = self.use_moved(page, master, token, &mut own).await;
        }
        self.recorder.history().handovers.push(handover);
    }

    /// Tries to redeem a ticket at a master.
    async fn redeem(&self, page: &OpenPage, master: &str, ticket: &str) -> Redeemed {
        let mut other = Api::new(&self.env, master, None, page.client.limits());
        let body = format!("{{\"ticket\":\"{ticket}\"}}").into_bytes();
        let at = self.stage.clock.now();
        let path = "/api/v1/handover/redeem";
        let answer = other.raw(Method::POST, path, Some(body)).await.ok();
        Redeemed {
            at,
            master: master.to_owned(),
            status: answer.as_ref().map(|answer| answer.status),
            user: answer.as_ref().and_then(user),
            token: answer.as_ref().and_then(token),
            is_put_off: answer.as_ref().is_some_and(is_put_off),
        }
    }

    /// Restores a session that a ticket gave at the master that gave it, and then lists the boards at
    /// any.
    async fn use_moved(
        &self,
        page: &OpenPage,
        master: &str,
        token: &str,
        rng: &mut Rng,
    ) -> Vec<Operation> {
        let any: &String = rng.pick(&self.stage.masters);
        let mut used = Vec::new();
        for (master, request) in [(master, Request::Restore), (any.as_str(), Request::Boards)] {
            if self.is_over() {
                break;
            }
            let mut api = Api::new(&self.env, master, Some(token.to_owned()), page.client.limits());
            let invoked = self.stage.clock.now();
            let answer = api.call(&request).await;
            used.push(Operation {
                number: used.len(),
                who: page.who,
                master: master.to_owned(),
                request,
                invoked,
                end: Some((self.stage.clock.now(), End::Answered(answer))),
            });
        }
        used
    }
}

fn ticket(answer: &RawAnswer) -> Option<String> {
    let issued: TicketIssued = serde_json::from_slice(&answer.body).ok()?;
    (answer.status == 201).then_some(issued.ticket)
}

fn user(answer: &RawAnswer) -> Option<chatchat::model::ids::UserId> {
    let opened: SessionOpened = serde_json::from_slice(&answer.body).ok()?;
    (answer.status == 201).then_some(opened.user.id)
}

/// Returns the secret of the session that a ticket gave, which is in its cookie.
fn token(answer: &RawAnswer) -> Option<String> {
    let (_, value) = answer.cookie.as_ref()?.split(';').next()?.split_once('=')?;
    (answer.status == 201).then(|| value.to_owned())
}

/// Returns whether an answer says that the request did nothing, as [`Failure::Busy`] does.
///
/// [`Failure::Busy`]: chatchat::client::Failure::Busy
fn is_put_off(answer: &RawAnswer) -> bool {
    Problem::read(&answer.body).puts_off(answer.status)
}

#[cfg(test)]
mod tests {
    use chatchat::{api::ProblemType, model::ids::Cursor};

    use super::*;

    #[test]
    fn secret_of_a_session_is_read_from_its_cookie() {
        let answer = |status, cookie: Option<&str>| RawAnswer {
            status,
            retry_after: None,
            cookie: cookie.map(str::to_owned),
            body: Default::default(),
        };
        let cookie = Some("chatchat-00=abc; Path=/; HttpOnly");
        assert_eq!(token(&answer(201, cookie)).as_deref(), Some("abc"));
        assert_eq!(token(&answer(404, cookie)), None);
        assert_eq!(token(&answer(201, None)), None);
    }

    #[test]
    fn answer_that_puts_off_says_that_nothing_was_done() {
        let told = |status, body: Vec<u8>| {
            is_put_off(&RawAnswer { status, retry_after: None, cookie: None, body: body.into() })
        };
        let of = |kind: ProblemType| {
            told(kind.status(), serde_json::to_vec(&Problem::new(kind, "")).unwrap())
        };
        assert!(of(ProblemType::Unavailable));
        assert!(of(ProblemType::RateLimited));
        assert!(!of(ProblemType::OutcomeUnknown));
        assert!(!of(ProblemType::UnknownTicket));
        assert!(!told(503, b"<html>".to_vec()), "a proxy's");
    }

    #[test]
    fn no_unreadable_cursor_parses() {
        for cursor in UNREADABLE.into_iter().flatten() {
            assert!(cursor.parse::<Cursor>().is_err(), "{cursor}");
        }
    }
}
