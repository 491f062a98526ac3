//! Notifications between the processes on a store: where posts were written (`LISTEN` and `NOTIFY`).
//!
//! ```text
//!   writer ──commit──> ends ──> notifier ──NOTIFY──> PostgreSQL ──> listener ──> ends of each reader
//! ```
//!
//! 1. They are hints. Whatever is lost is found by the next poll, as without any.
//! 2. A notification takes one lock of the whole server, for all commits with one. So it is never part of
//!    the transaction that writes: it follows the commit, on a connection of its own.
//! 3. One is on its way at a time, at most one in [`NOTIFY_INTERVAL`]; what is written meanwhile goes
//!    with the next one.
//! 4. A connection that is lost is replaced after a pause, which doubles up to [`PAUSE_MAX`].

use std::{sync::Arc, time::Duration};

use rand_chacha::rand_core::Rng;
use tokio::sync::mpsc;

use super::{connection::Db, shared::Shared, sql::Outcome};
use crate::{
    env::BoxFuture,
    model::{
        ids::{BoardName, Resource, Seq},
        outcome::TaskResult,
        rows::StoreError,
    },
    store::{Op, OpReply, job::Answer, new_ends::Ends},
};

/// Shortest time between two notifications of a process.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(20);

/// Silence after which the notifier's connection is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Silence after which the listener's connection is tried.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// First pause after a connection was lost, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Most bytes of one notification: PostgreSQL takes less than 8,000.
const PAYLOAD_MAX: usize = 7000;

/// Notifications that wait for the listener.
const HEARD_MAX: usize = 64;

const NOTIFY: &str = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload";

/// Returns the ends that an answered batch left, for others to hear of.
pub(super) fn ends_of(op: &Op, answer: &Answer) -> Option<(BoardName, Seq)> {
    let (Op::Write { permission, .. }, Ok(OpReply::Written(results))) = (op, answer) else {
        return None;
    };
    let Resource::Board(board) = &permission.resource else { return None };
    let places = results.iter().filter_map(|result| match result {
        TaskResult::Committed { seq, .. } | TaskResult::Duplicate { seq, .. } => Some(*seq),
        // A board that was made.
        TaskResult::Done => Some(Seq(0)),
        _ => None,
    });
    Some((board.clone(), places.max()?))
}

/// Channel of a cluster: a database may hold several stores.
pub(super) fn channel(db: &Db) -> String {
    format!("chatchat_{}", hex::encode(db.mark.cluster))
}

/// Returns ends as texts that each fit into a notification.
fn payloads(ends: &Ends) -> Vec<String> {
    let mut payloads = vec![String::new()];
    for (board, seq) in ends {
        let end = format!("{board}:{seq} ");
        match payloads.last_mut() {
            Some(last) if last.len() + end.len() <= PAYLOAD_MAX => last.push_str(&end),
            _ => payloads.push(end),
        }
    }
    payloads
}

/// Returns what a notification tells of. Anybody who may log in can send one: what does not parse is
/// left out.
fn parse(payload: &str) -> Ends {
    let end = |text: &str| {
        let (board, seq) = text.split_once(':')?;
        Some((board.parse().ok()?, Seq(seq.parse().ok()?)))
    };
    payload.split_ascii_whitespace().filter_map(end).collect()
}

/// Pause that doubles until it is over.
struct Pause(Duration);

impl Pause {
    const fn new() -> Self {
        Self(PAUSE_MIN)
    }

    /// Waits, give or take a quarter, so that nodes do not come back together.
    fn wait<'a>(&mut self, shared: &'a Shared) -> BoxFuture<'a, ()> {
        let quarter = u64::try_from(self.0.as_millis() / 4).unwrap_or(u64::MAX).max(1);
        let less = shared.env.rng("store-notify").next_u64() % quarter;
        let pause = self.0.saturating_sub(Duration::from_millis(less));
        self.0 = (self.0 * 2).min(PAUSE_MAX);
        Box::pin(async move { shared.env.sleep(pause).await })
    }
}

/// Tells other processes of the ends in `shared.written`, for ever.
pub(super) async fn notify_all(shared: Arc<Shared>) {
    let (mut db, mut pause) = (None, Pause::new());
    loop {
        let waited: BoxFuture<'_, _> = Box::pin(shared.written.next());
        let Ok(ends) = shared.env.timeout(IDLE_MAX, waited).await else {
            db = None;
            continue;
        };
        match notify(&shared, db.take(), &ends).await {
            Ok(open) => {
                db = Some(open);
                pause = Pause::new();
                shared.env.sleep(NOTIFY_INTERVAL).await;
            }
            Err(error) => {
                tracing::debug!(%error, "others are not notified of new posts");
                pause.wait(&shared).await;
            }
        }
    }
}

/// Sends ends over a connection that is opened if there is none; gives it back.
async fn notify(shared: &Shared, db: Option<Db>, ends: &Ends) -> Result<Db, StoreError> {
    let db = match db.filter(|db| !db.is_closed()) {
        Some(db) => db,
        None => shared.connect().await?,
    };
    let sent: BoxFuture<'_, Outcome<()>> =
        Box::pin(async { db.rows(NOTIFY, &[&channel(&db), &payloads(ends)]).await.map(drop) });
    in_time(shared, sent).await?;
    Ok(db)
}

/// Hears what other processes tell, and passes it on to the readers, for ever.
pub(super) async fn listen(shared: Arc<Shared>) {
    let mut pause = Pause::new();
    loop {
        let mut heard_any = false;
        if let Err(error) = listen_once(&shared, &mut heard_any).await {
            tracing::debug!(%error, "this node polls: it is not notified of new posts");
        }
        if heard_any {
            pause = Pause::new();
        }
        pause.wait(&shared).await;
    }
}

/// Listens on one connection until that ends. `listens` says whether it got so far.
async fn listen_once(shared: &Shared, listens: &mut bool) -> Result<(), StoreError> {
    let (to, mut heard) = mpsc::channel(HEARD_MAX);
    let db = shared.connect_with(Some(&to)).await?;
    // The connection has the only other one, so that the channel closes with it.
    drop(to);
    let begun: BoxFuture<'_, Outcome<()>> =
        Box::pin(async { db.batch_of(&format!("LISTEN {}", channel(&db))).await });
    in_time(shared, begun).await?;
    *listens = true;
    loop {
        let next: BoxFuture<'_, Option<String>> = Box::pin(heard.recv());
        match shared.env.timeout(PROBE_INTERVAL, next).await {
            Ok(Some(payload)) => shared.readers.tell(&parse(&payload)),
            Ok(None) => return Ok(()),
            // A connection may be cut without a word.
            Err(_) => in_time(shared, Box::pin(db.batch("SELECT 1"))).await?,
        }
    }
}

/// Waits for a statement as long as the store's time-out.
async fn in_time<T>(
    shared: &Shared,
    statement: BoxFuture<'_, Outcome<T>>,
) -> Result<T, StoreError> {
    match shared.env.timeout(shared.timeout, statement).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(shared.no_answer()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::bounds::BOARDS_MAX;

    #[test]
    fn ends_of_all_boards_fit_into_notifications_and_are_read_back() {
        let name = |n: usize| format!("{n:0>32}").parse().expect("a name");
        let ends: Ends = (0..BOARDS_MAX).map(|n| (name(n), Seq(u64::MAX - n as u64))).collect();
        let payloads = payloads(&ends);
        assert!(payloads.len() < 10 && payloads.iter().all(|payload| payload.len() <= PAYLOAD_MAX));
        let read: Ends = payloads.iter().flat_map(|payload| parse(payload)).collect();
        assert_eq!(read, ends);
    }

    #[test]
    fn notification_of_a_stranger_is_read_as_far_as_it_parses() {
        let lobby = Ends::from([(BoardName::lobby(), Seq(3))]);
        assert_eq!(parse("lobby:3"), lobby);
        assert_eq!(parse(" x lobby:3 lobby:-1 UPPER:1 :: lobby:99999999999999999999 \u{0}"), lobby);
        assert_eq!(parse(""), Ends::new());
    }
}
