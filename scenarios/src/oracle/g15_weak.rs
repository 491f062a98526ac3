//! G15 weak service: while the store is away a post is held on workers' disks, and it is committed
//! soon after the store is back, also when nobody sends it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chatchat::{
    api::StreamEvent,
    client::{Answer, Failure, Request},
    model::{
        event::Event,
        ids::{BoardName, PostId, UserId},
        stream::{Consistency, HeldState},
    },
};

use super::{
    Evidence, Violation, broken,
    holders::{Holders, SURELY_ROOM, held_by, places},
    line, seconds,
    troubles::AFTERMATH,
};
use crate::{
    fault::{Action, Direction, Links},
    history::Operation,
    plan::Incident,
    property::Property,
    target::{Place, Target},
};

/// Time within which masters and workers know that the store is away, and hold what is sent.
pub(super) const KNOWN_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let settled = settled(evidence);
    let mut found = held(evidence, &settled);
    found.extend(refused(evidence, &settled));
    found
}

/// Returns whether a run shows anything of weak service: a held post whose holders kept their disks, or
/// a call that ended while the store alone was away.
#[must_use]
pub fn shown_weak_service(evidence: &Evidence<'_>) -> bool {
    let holders = Holders::read(evidence);
    let is_held = |operation: &Operation| match operation.reply() {
        Some((at, Answer::Pending { copies })) => holders.keep(operation.invoked, at, *copies),
        _ => false,
    };
    let outages: Vec<_> = Outage::all(evidence).collect();
    let is_owed = |operation: &Operation| {
        let ended = operation.end.as_ref().map(|(at, _)| *at);
        board_of(&operation.request).is_some()
            && ended.is_some_and(|at| outages.iter().any(|it| it.spans(operation.invoked, at)))
    };
    evidence.history.operations.iter().any(|one| is_held(one) || is_owed(one))
}

/// Posts that were held, and are not in the store though all that they need was there for long, or came
/// into it long after it was.
fn held(evidence: &Evidence<'_>, settled: &Settled) -> Vec<Violation> {
    let mut found = Vec::new();
    let posts = evidence.store.boards.values().flatten();
    let stored: BTreeMap<_, _> = posts.map(|post| ((post.author.id, post.id), post)).collect();
    let clock = StoreTime::read(evidence);
    let (holders, given_up) = (Holders::read(evidence), given_up(evidence));
    for sent in evidence.history.sent() {
        let Some((at, Answer::Pending { copies })) = sent.operation.reply() else { continue };
        let mut complain = |rule, text: String| {
            found.push(broken(Property::G15, rule, text, [line(sent.operation)]));
        };
        if *copies == 0 {
            complain("copies", "a post was said to be held by nobody".to_owned());
        }
        let Some(id) = sent.user.map(|user| (user, sent.id)) else { continue };
        if settled.contains(&id) || given_up.contains(&sent.id) {
            continue;
        }
        let Some(due) = holders.due(sent.operation.invoked, at, *copies) else { continue };
        match (stored.get(&id), &clock) {
            (None, _) => {
                complain(
                    "lost",
                    format!("post {} was held and never came into its board", sent.id),
                );
            }
            (Some(post), Some(clock)) => {
                let came = clock.observed(post.posted_at_ms);
                if came > due {
                    let came = seconds(came);
                    complain("late", format!("post {} was held and came at {came} only", sent.id));
                }
            }
            _ => {}
        }
    }
    found
}

/// Returns the posts that may have become dead letters: their holders wait for the next registration.
fn given_up(evidence: &Evidence<'_>) -> BTreeSet<PostId> {
    let attempts_max = evidence.plan.cluster.config.attempts_max;
    let tried = evidence.events.iter().filter_map(|said| match &said.event {
        Event::Assign { posts, attempt, .. } if *attempt >= attempts_max => Some(posts),
        _ => None,
    });
    let streams = evidence.history.streams.iter().flat_map(|stream| &stream.deliveries);
    let told = streams.filter_map(|(_, delivery)| match &delivery.event {
        StreamEvent::Pending(event) if event.state == HeldState::DeadLetter => Some(event.id),
        _ => None,
    });
    tried.flatten().copied().chain(told).collect()
}

/// The store's clock beside the observer's, for a run in which no fault touches it.
struct StoreTime {
    /// Greatest time of the store less the observer's at which somebody was told of it.
    ahead_ms: u64,
}

impl StoreTime {
    fn read(evidence: &Evidence<'_>) -> Option<Self> {
        let told = evidence.history.operations.iter().filter_map(Operation::committed);
        let ahead = told.map(|(at, post)| post.posted_at_ms.saturating_sub(millis(at)));
        ahead.max().filter(|_| !evidence.is_store_clock_touched()).map(|ahead_ms| Self { ahead_ms })
    }

    /// Returns the latest time on the observer's clock at which it was so late at the store.
    fn observed(&self, store_ms: u64) -> Duration {
        Duration::from_millis(store_ms.saturating_sub(self.ahead_ms))
    }
}

fn millis(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

/// Ids that may have come to another end than a commit: they were cancelled, dropped or refused.
type Settled = BTreeSet<(UserId, PostId)>;

fn settled(evidence: &Evidence<'_>) -> Settled {
    let mut settled: Settled = evidence.history.drops().map(|(_, post)| post).collect();
    for operation in &evidence.history.operations {
        let is_refused = matches!(operation.failure(), Some((_, Failure::Refused { .. })));
        let (Request::Cancel { id } | Request::Post { id, .. }) = &operation.request else {
            continue;
        };
        let is_over = is_refused || matches!(operation.request, Request::Cancel { .. });
        if is_over && let Some(user) = evidence.history.users.get(&operation.who) {
            settled.insert((*user, *id));
        }
    }
    settled
}

/// Time in which the store was away from everybody, and nothing else was wrong.
pub(super) struct Outage<'a> {
    /// Fault that took the store away.
    pub(super) incident: &'a Incident,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

impl<'a> Outage<'a> {
    pub(super) fn all(evidence: &'a Evidence<'_>) -> impl Iterator<Item = Self> + 'a {
        let alone = evidence.incidents.iter().filter(|it| takes_the_store_alone(evidence, it));
        alone.filter_map(|incident| {
            let until = evidence.end_of(incident);
            let since = incident.from.saturating_sub(AFTERMATH);
            let mut nodes = places(evidence).filter(|place| *place != Place::Store);
            let is_other = |it: &Incident| it != incident;
            let is_touched = |node| evidence.incidents_between(node, since, until).any(is_other);
            let is_alone = !since.is_zero() && !nodes.any(is_touched);
            is_alone.then_some(Self { incident, from: incident.from, until })
        })
    }

    /// Returns whether it began so long before that all nodes know, and ended later.
    fn spans(&self, from: Duration, to: Duration) -> bool {
        self.from + KNOWN_WITHIN <= from && to < self.until
    }

    /// Returns the time by which a person has to be known for sure.
    fn known_by(&self) -> Duration {
        self.from.saturating_sub(KNOWN_WITHIN)
    }
}

/// Service that was owed, since nothing was wrong but the store: posts that were refused or held once
/// only, pages that were refused, and held posts that a session does not list.
fn refused(evidence: &Evidence<'_>, settled: &Settled) -> Vec<Violation> {
    let mut found = Vec::new();
    let contested = evidence.history.contested();
    // A worker that holds another post under the id holds no second one.
    let is_contested = |operation: &Operation| match &operation.request {
        Request::Post { id, .. } => {
            let user = evidence.history.users.get(&operation.who);
            user.is_some_and(|user| contested.contains(&(*user, *id)))
        }
        _ => false,
    };
    for outage in Outage::all(evidence) {
        let has_room = held_by(evidence, outage.until) < SURELY_ROOM;
        for operation in &evidence.history.operations {
            let Some(board) = board_of(&operation.request) else { continue };
            let (at, is_put_off) = match (operation.failure(), operation.reply()) {
                (Some((at, failure)), _) => {
                    let is_lost = || is_lost_on_the_way(evidence, operation, failure, at);
                    (at, is_put_off(failure) || is_lost())
                }
                (None, Some((at, _))) => (at, false),
                (None, None) => continue,
            };
            if !outage.spans(operation.invoked, at)
                || !is_known(evidence, operation, board, outage.known_by())
                || is_contested(operation)
            {
                continue;
            }
            let mut complain = |rule, text: &str| {
                found.push(broken(Property::G15, rule, text, [line(operation)]));
            };
            match (&operation.request, operation.reply()) {
                (Request::Post { .. }, None) if is_put_off && has_room => {
                    complain("refused", "a post was not held while the store alone was away");
                }
                (Request::Post { .. }, Some((_, Answer::Pending { copies: 1 })))
                    if has_room && evidence.plan.cluster.workers > 1 =>
                {
                    complain("once", "a post was held once while all workers were there");
                }
                (Request::Read { .. }, None) if is_put_off => {
                    complain("unread", "a page was refused while the store alone was away");
                }
                _ => {}
            }
        }
        found.extend(unlisted(evidence, settled, &outage));
    }
    found
}

/// Held posts that a session does not list, though the store is away and all who hold them are there.
fn unlisted(evidence: &Evidence<'_>, settled: &Settled, outage: &Outage<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for operation in &evidence.history.operations {
        let Some((at, Answer::Restored(restored))) = operation.reply() else { continue };
        if !outage.spans(operation.invoked, at) || restored.consistency == Consistency::Strong {
            continue;
        }
        for sent in evidence.history.sent() {
            let is_held = sent.operation.reply().is_some_and(|(held, answer)| {
                matches!(answer, Answer::Pending { .. })
                    && outage.spans(held, at)
                    && held < operation.invoked
            });
            let is_own = sent.operation.who == operation.who;
            let is_settled = settled.contains(&(restored.user.id, sent.id));
            if is_held && is_own && !is_settled && !restored.pending.contains(&sent.id) {
                let text = format!("post {} is held, and its session does not list it", sent.id);
                let lines = [line(sent.operation), line(operation)];
                found.push(broken(Property::G6, "pending-missing", text, lines));
            }
        }
    }
    found
}

/// Returns the board of a post or of a page.
const fn board_of(request: &Request) -> Option<&BoardName> {
    match request {
        Request::Post { board, .. } | Request::Read { board, .. } => Some(board),
        _ => None,
    }
}

/// Returns whether a master failed what it was asked, for no fault of the request and no overload.
const fn is_put_off(failure: &Failure) -> bool {
    match failure {
        Failure::Busy { status, .. } => *status == 503,
        Failure::Unknown { status, .. } => status.is_some(),
        Failure::Refused { .. } | Failure::Unreached { .. } => false,
    }
}

/// Returns whether no answer came to a person whose machine was whole.
fn is_lost_on_the_way(
    evidence: &Evidence<'_>,
    operation: &Operation,
    failure: &Failure,
    at: Duration,
) -> bool {
    let since = operation.invoked.saturating_sub(AFTERMATH);
    matches!(failure, Failure::Unknown { status: None, .. } | Failure::Unreached { .. })
        && !evidence.is_touched(evidence.machine_of(operation.who), since, at)
}

/// Returns whether a fault takes the store away from everybody, and does nothing else: its machine stands
/// still or does not run, or it is cut off from all nodes.
fn takes_the_store_alone(evidence: &Evidence<'_>, incident: &Incident) -> bool {
    let is_store = |target: &Target| *target == Target::One(Place::Store);
    let stands_for = |target: &Target, place| {
        let places = target.places(&evidence.plan.cluster, evidence.plan.workload.people);
        places.is_some_and(|places| places.contains(&place))
    };
    let is_all = |side: &[Target]| {
        let mut nodes = places(evidence).filter(|place| *place != Place::Store);
        nodes.all(|node| side.iter().any(|target| stands_for(target, node)))
    };
    let fault = evidence.plan.faults.get(incident.fault).filter(|_| incident.bit);
    fault.is_some_and(|fault| match &fault.action {
        Action::Crash { target } | Action::Exit { target } | Action::Pause { target } => {
            is_store(target)
        }
        Action::Partition { links: Links { from, to, direction: Direction::Both } } => {
            from.iter().all(is_store) && is_all(to) || to.iter().all(is_store) && is_all(from)
        }
        _ => false,
    })
}

/// Returns whether the masters knew a caller's session and a board by a time, for sure.
fn is_known(
    evidence: &Evidence<'_>,
    operation: &Operation,
    board: &BoardName,
    time: Duration,
) -> bool {
    let before = |one: &&Operation| one.reply().is_some_and(|(at, _)| at < time);
    let earlier = evidence.history.operations.iter().filter(before);
    let is_of = |one: &Operation| one.committed().is_some_and(|(_, post)| post.board == *board);
    let mut has_session = false;
    let mut has_board = *board == BoardName::lobby();
    for one in earlier {
        has_session |= one.who == operation.who && one.master == operation.master;
        has_board |= is_of(one);
        if has_session && has_board {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
