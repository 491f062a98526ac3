//! Rounds of repairs of the node database's sessions, from the store or from another copy.
//!
//! 1. The boards of another copy only say where posts may lack here: masters and the store bring the posts.
//!    No epoch, board or time is learnt from a copy, or one bad worker would empty all others, and make
//!    the store look like an older one to them.

use std::{collections::BTreeSet, time::Duration};

use super::database::Database;
use crate::{
    comm::Link,
    env::Env,
    model::{
        copies::{CopyDigests, PAGE_SESSIONS_MAX, SessionDigests, SessionPage},
        ids::{BoardName, Seq, SessionKey},
        message::{Request, Response},
        rows::Boards,
    },
    protocol::session_repair::{
        BUCKETS_PER_ROUND, Source, are_comparable, differing, merge, of_round,
    },
    replica::{Replica, ReplicaError},
    store::Store,
};

/// Wait before the store is compared a second time: updates that were on their way are written then.
const ON_THEIR_WAY: Duration = Duration::from_millis(500);

/// Other side of a round, and the time-out of one answer.
pub(super) enum Other {
    /// The store.
    Store(Store, Duration),
    /// The master, which passes questions on to another worker; these take turns by the number.
    Copy(Link, Duration, u32),
}

impl Other {
    /// Returns the digests of the other side, and its boards if it is a copy.
    async fn digests(&self, env: &Env) -> Option<(SessionDigests, Option<Boards>)> {
        match self {
            Self::Store(store, limit) => {
                let digests = env.timeout(*limit, store.session_digests()).await;
                Some((digests.ok()?.ok()?, None))
            }
            Self::Copy(link, limit, turn) => {
                match link.call(Request::CopyDigests { turn: *turn }, *limit).await {
                    Ok(Response::CopyDigests(Some(copy))) => {
                        Some((copy.sessions, Some(copy.boards)))
                    }
                    _ => None,
                }
            }
        }
    }

    async fn page(&self, env: &Env, bucket: u8, after: Option<SessionKey>) -> Option<SessionPage> {
        match self {
            Self::Store(store, limit) => {
                env.timeout(*limit, store.sessions(bucket, after)).await.ok()?.ok()
            }
            Self::Copy(link, limit, turn) => {
                let request = Request::CopySessions { turn: *turn, bucket, after };
                match link.call(request, *limit).await {
                    Ok(Response::CopySessions(page)) => page,
                    _ => None,
                }
            }
        }
    }
}

/// End of a round.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Whether there is more to do at once.
    pub goes_on: bool,
    /// Boards of which another copy has more posts.
    pub gaps: Vec<BoardName>,
    /// Bucket behind the last one that it came to, if it came to any.
    pub next: Option<u8>,
}

/// Makes one round, in which the bucket `from` comes first; `None` when one side did not answer.
pub(super) async fn round(env: &Env, database: &Database, other: Other, from: u8) -> Option<Round> {
    let (ours, since) = database.read(Replica::digests).await?;
    let (theirs, boards) = other.digests(env).await?;
    let gaps = match boards {
        Some(boards) if are_comparable(ours.epoch, boards.epoch) => {
            look_at_boards(database, boards).await?
        }
        // Which of the two is out of date, the store says.
        Some(_) => return Some(Round::default()),
        // A poll of the store brings them. A new database knows no epoch until it knows the boards.
        None if ours.epoch < theirs.epoch => {
            return Some(Round { goes_on: true, ..Round::default() });
        }
        None => Vec::new(),
    };
    let mut round = Round { gaps, ..Round::default() };
    // A side that stops answering ends the round; what was repaired until then stays.
    let _ = repair(env, database, &other, (&ours, &theirs), (since, from), &mut round).await;
    Some(round)
}

/// Returns the boards of this node database of which another copy says that it has more posts.
async fn look_at_boards(database: &Database, theirs: Boards) -> Option<Vec<BoardName>> {
    let ours = database.read(|replica| replica.boards()).await?;
    let has_more =
        |(board, last): &(BoardName, Seq)| ours.last(board).is_some_and(|own| own < *last);
    Some(theirs.boards.into_iter().filter(has_more).map(|(board, _)| board).collect())
}

/// Repairs the buckets that differ, as many as one round takes; `None` when one side did not answer.
async fn repair(
    env: &Env,
    database: &Database,
    other: &Other,
    (ours, theirs): (&SessionDigests, &SessionDigests),
    (mut since, from): (u64, u8),
    round: &mut Round,
) -> Option<()> {
    let is_store = matches!(other, Other::Store(..));
    let source = |since| if is_store { Source::Store { since } } else { Source::Copy };
    let mut buckets = differing(ours, theirs, source(since));
    if is_store && !buckets.is_empty() {
        env.sleep(ON_THEIR_WAY).await;
        let (ours, now) = database.read(Replica::digests).await?;
        let (theirs, _) = other.digests(env).await?;
        let still: BTreeSet<_> = differing(&ours, &theirs, source(now)).into_iter().collect();
        buckets.retain(|bucket| still.contains(bucket));
        since = now;
    }
    let has_more = buckets.len() > BUCKETS_PER_ROUND;
    let (mut has_written, mut has_room) = (false, true);
    for bucket in of_round(buckets, from) {
        // At once: a bucket that cannot be read keeps no other one waiting.
        round.next = Some(bucket.wrapping_add(1));
        let repaired = repair_bucket(env, database, other, bucket, source(since)).await?;
        has_written |= repaired.has_written;
        has_room &= repaired.has_room;
    }
    // Buckets differ for ever where there is no room for their sessions: that is no reason to hurry.
    round.goes_on = has_more && has_written && has_room;
    Some(())
}

/// Result of the repair of a bucket.
struct Repaired {
    /// Whether sessions of this node database were written.
    has_written: bool,
    /// Whether there was room for open sessions throughout.
    has_room: bool,
}

/// Repairs one bucket; `None` when one side did not answer.
async fn repair_bucket(
    env: &Env,
    database: &Database,
    other: &Other,
    bucket: u8,
    source: Source,
) -> Option<Repaired> {
    let mut repaired = Repaired { has_written: false, has_room: true };
    let mut after = None;
    loop {
        let page = other.page(env, bucket, after).await?;
        let next = page.next.filter(|next| after.is_none_or(|after| *next > after));
        let read = move |replica: &Replica| {
            let local = replica.sessions(bucket, after, next, usize::MAX)?;
            Ok((local, replica.session_room()?))
        };
        let (local, room) = database.read(read).await?;
        repaired.has_room &= room.open > 0;
        let updates = merge((bucket, after), page, local, source, room);
        if !updates.is_empty() {
            env.sometimes("a node database's sessions were repaired");
            database.apply(updates).await?;
            repaired.has_written = true;
        }
        after = next;
        if after.is_none() {
            return Some(repaired);
        }
    }
}

/// Returns the digests of this node database, for another one.
pub(super) fn digests(replica: &Replica) -> Result<CopyDigests, ReplicaError> {
    Ok(CopyDigests { boards: replica.boards()?, sessions: replica.digests()?.0 })
}

/// Returns a page of this node database's sessions, for another one.
pub(super) fn page(
    replica: &Replica,
    bucket: u8,
    after: Option<SessionKey>,
) -> Result<SessionPage, ReplicaError> {
    let found = replica.sessions(bucket, after, None, PAGE_SESSIONS_MAX)?;
    Ok(SessionPage::of(found.into_iter().map(|(_, entry)| entry).collect()))
}

#[cfg(all(test, feature = "net"))]
mod tests;
