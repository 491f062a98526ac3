//! Disks that hold posts: by when a held post must have come into its board, whoever holds it.
//!
//! Nobody tells which workers hold a post, only how many do. So a post is owed while fewer workers than
//! hold it are away, or may have lost what was on their disks since it was sent.

use std::{collections::BTreeSet, iter, time::Duration};

use chatchat::{client::Answer, model::event::Event};

use super::{Evidence, troubles::AFTERMATH};
use crate::{
    fault::{Action, Kind},
    history::Operation,
    plan::Incident,
    target::Place,
};

/// Bound on the time from the store, a master and a holder being connected to the commit.
const DRAINED_WITHIN: Duration = Duration::from_secs(10);
/// Time within which a worker that was stopped has handed over what it held.
const HANDED_OVER: Duration = Duration::from_secs(5);
/// Time before a send from which on a worker that comes or goes may be counted twice as its holder.
const COUNTED_TWICE: Duration = Duration::from_secs(2);
/// Step of a clock after which a post may seem to have been held for too long, in milliseconds.
const FAR_STEP_MS: u64 = 12 * 60 * 60 * 1000;
/// Posts that are held without doubt about the room for more.
pub(super) const SURELY_ROOM: usize = 500;

/// Time in which a fault may have done something to nodes.
struct Span {
    from: Duration,
    until: Duration,
    places: Vec<Place>,
}

/// Faults as they matter to held posts.
pub(super) struct Holders {
    /// Times in which nodes were kept from their work.
    away: Vec<Span>,
    /// Times in which disks may have lost what is on them. A post that is sent later is safe.
    losses: Vec<Span>,
    /// Times at which workers came or went, ascending.
    moves: Vec<Duration>,
    /// Workers whose posts are with others.
    handed_over: BTreeSet<Place>,
    /// One worker that died, whose posts are with others if two held them.
    spare: Option<Place>,
    ended: Duration,
}

impl Holders {
    pub(super) fn read(evidence: &Evidence<'_>) -> Self {
        let incidents = || evidence.incidents.iter();
        let hurt = incidents().filter(|incident| !evidence.is_harmless(incident));
        let away = hurt.map(|incident| Span {
            from: incident.from,
            until: evidence.end_of(incident),
            places: touched(evidence, incident),
        });
        let loss = |incident: &Incident| {
            let disk = evidence.disk_around_core(incident);
            let mut places = disk.map_or_else(|| touched(evidence, incident), |it| vec![it]);
            places.retain(|place| !matches!(place, Place::Master(_)));
            Some(Span { from: incident.from, until: loses_until(evidence, incident)?, places })
        };
        let is_move = |event: &Event| {
            matches!(event, Event::Join { .. } | Event::Leave { .. } | Event::Fail { .. })
        };
        let moves = evidence.events.iter().filter(|said| is_move(&said.event)).map(|said| said.at);
        let mut moves: Vec<_> = moves.collect();
        moves.sort_unstable();
        Self {
            away: away.collect(),
            losses: incidents().filter_map(loss).collect(),
            moves,
            handed_over: places(evidence).filter(|it| has_handed_over(evidence, *it)).collect(),
            spare: spare(evidence),
            ended: evidence.ended,
        }
    }

    /// Returns the time by which a post must have come that so many workers held: the end of the first
    /// time that is long enough, in which the store, all masters and one of its holders were there.
    /// `None` if there was no such time.
    pub(super) fn due(&self, sent: Duration, told: Duration, copies: u32) -> Option<Duration> {
        let copies = self.disks(sent, told, copies);
        let ends = self.away.iter().map(|span| span.until).filter(|until| *until > told);
        let mut begins: Vec<_> = iter::once(told).chain(ends).collect();
        begins.sort_unstable();
        let times = begins.into_iter().map(|from| (from, from + AFTERMATH + DRAINED_WITHIN));
        let mut times = times.take_while(|(_, to)| *to <= self.ended);
        times.find(|(from, to)| self.is_owed(sent, copies, *from, *to)).map(|(_, to)| to)
    }

    /// Returns whether a post that so many workers held is surely on a disk until the end, unless it is
    /// in the store by then.
    pub(super) fn keep(&self, sent: Duration, told: Duration, copies: u32) -> bool {
        let lost = self.lost(sent, self.ended);
        !lost.contains(&Place::Store) && lost.len() < self.disks(sent, told, copies)
    }

    /// Returns the number of disks that a post was on for sure, of those that were told.
    fn disks(&self, sent: Duration, told: Duration, copies: u32) -> usize {
        let since = sent.saturating_sub(COUNTED_TWICE);
        let next = self.moves.partition_point(|at| *at < since);
        let is_calm = self.moves.get(next).is_none_or(|at| *at > told);
        let copies = usize::try_from(copies).unwrap_or(usize::MAX);
        if is_calm { copies } else { copies.min(1) }
    }

    /// Returns whether a post must have come after a time in which all was there that it needs.
    fn is_owed(&self, sent: Duration, copies: usize, from: Duration, to: Duration) -> bool {
        let is_then = |span: &&Span| span.from < to && span.until > from;
        let away = self.away.iter().filter(is_then).flat_map(|span| span.places.iter().copied());
        let away: BTreeSet<_> = away.collect();
        let lost = self.lost(sent, to);
        if copies == 0
            || lost.contains(&Place::Store)
            || away.iter().any(|place| !matches!(place, Place::Worker(_)))
        {
            return false;
        }
        if away.union(&lost).count() < copies {
            return true;
        }
        let needed: Vec<_> = away.difference(&self.handed_over).copied().collect();
        lost.is_empty()
            && match needed[..] {
                [] => true,
                // Who lacks one of two holders has the other one.
                [one] => copies > 1 && self.spare == Some(one),
                _ => false,
            }
    }

    /// Returns the workers, and the store, that may have lost by a time what was sent at another.
    fn lost(&self, sent: Duration, by: Duration) -> BTreeSet<Place> {
        let harms = self.losses.iter().filter(|span| span.from <= by && span.until >= sent);
        harms.flat_map(|span| span.places.iter().copied()).collect()
    }
}

/// Returns the masters, workers and the store that a fault may have touched. The store is in every
/// core.
fn touched(evidence: &Evidence<'_>, incident: &Incident) -> Vec<Place> {
    let is_whole = |place: Place| place == Place::Store && evidence.is_core(incident);
    let may = |place: &Place| evidence.may_touch(incident, *place) && !is_whole(*place);
    places(evidence).filter(may).collect()
}

/// Returns until when what comes onto a disk may be lost by a fault there; `None` for one that loses
/// nothing. One that was over long before is none; what rotted may be read at any time.
fn loses_until(evidence: &Evidence<'_>, incident: &Incident) -> Option<Duration> {
    let soon = evidence.end_of(incident).saturating_add(AFTERMATH);
    if evidence.is_core(incident) {
        return evidence.disk_around_core(incident).map(|_| soon);
    }
    match evidence.plan.faults.get(incident.fault).map(|fault| &fault.action) {
        None | Some(Action::BitRot { .. }) => Some(Duration::MAX),
        Some(
            Action::Clone { .. }
            | Action::DiskFull { .. }
            | Action::Expel { .. }
            | Action::Rollback { .. }
            | Action::SyncError { .. }
            | Action::Wipe { .. },
        ) => Some(soon),
        Some(Action::ClockOffset { by, .. } | Action::ClockJump { by, .. })
            if by.ms.unsigned_abs() >= FAR_STEP_MS =>
        {
            Some(Duration::MAX)
        }
        Some(_) => None,
    }
}

/// Returns whether a worker was asked to end, and nothing else befell it, while another one of its domain
/// was there all the time and took what it held. With one master there is one domain.
fn has_handed_over(evidence: &Evidence<'_>, place: Place) -> bool {
    let is_stopped = |place| {
        let mut all = evidence.incidents_at(place).peekable();
        all.peek().is_some() && all.all(|it| evidence.kind_of(it) == Some(Kind::Stop))
    };
    let cluster = &evidence.plan.cluster;
    let mut workers = (0..cluster.workers).map(Place::Worker);
    let is_untouched = |place| evidence.incidents_at(place).next().is_none();
    cluster.masters == 1
        && matches!(place, Place::Worker(_))
        && is_stopped(place)
        && workers.any(is_untouched)
}

/// Returns the one worker that died, where each post that two held was with another worker by then: all
/// others were there all the time, or were stopped so long before that two workers had what they held.
fn spare(evidence: &Evidence<'_>) -> Option<Place> {
    let cluster = &evidence.plan.cluster;
    let is_calm = evidence.incidents_at(Place::Master(0)).next().is_none();
    if cluster.masters != 1 || !is_calm || held_by(evidence, evidence.ended) >= SURELY_ROOM {
        return None;
    }
    let workers = || (0..cluster.workers).map(Place::Worker);
    let kinds_at = |place| {
        evidence.incidents_at(place).map(|it| (it.from, evidence.kind_of(it))).collect::<Vec<_>>()
    };
    let died = workers().filter_map(|place| match kinds_at(place)[..] {
        [(at, Some(Kind::Crash | Kind::Exit))] => Some((place, at)),
        _ => None,
    });
    let died: Vec<_> = died.collect();
    let &[(spare, at)] = &died[..] else { return None };
    let was_stopped_before = |(from, kind): &(Duration, Option<Kind>)| {
        *kind == Some(Kind::Stop) && *from + HANDED_OVER < at
    };
    let mut others = workers().filter(|place| *place != spare).map(kinds_at);
    let has_untouched = workers().any(|place| kinds_at(place).is_empty());
    let is_kept = others.all(|kinds| kinds.iter().all(was_stopped_before));
    (has_untouched && is_kept).then_some(spare)
}

/// Returns the masters, the workers and the store.
pub(super) fn places(evidence: &Evidence<'_>) -> impl Iterator<Item = Place> {
    let cluster = &evidence.plan.cluster;
    let masters = (0..cluster.masters).map(Place::Master);
    masters.chain((0..cluster.workers).map(Place::Worker)).chain([Place::Store])
}

/// Returns the number of posts that were held by a time.
pub(super) fn held_by(evidence: &Evidence<'_>, time: Duration) -> usize {
    let is_held = |one: &Operation| {
        one.reply()
            .is_some_and(|(at, answer)| at < time && matches!(answer, Answer::Pending { .. }))
    };
    evidence.history.operations.iter().filter(|one| is_held(one)).count()
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::Registration;

    use super::*;
    use crate::oracle::fixtures::{Fixture, ms, node};

    const STORE: (&str, &str, u64, u64) = ("crash", "target = \"store\"", 20_000, 30_000);

    /// Returns when a post is due that is sent at 26 s and told to be held at once.
    fn due(made: &Fixture, copies: u32) -> Option<Duration> {
        made.with(|evidence| Holders::read(evidence).due(ms(26_000), ms(26_010), copies))
    }

    /// Makes a cluster of one more worker, with these faults besides the store's.
    fn with(faults: &[(&str, &str, u64, u64)]) -> Fixture {
        let mut made = Fixture::with_faults(&[&[STORE], faults].concat());
        made.plan.cluster.workers = 3;
        made
    }

    const DUE: Option<Duration> = Some(Duration::from_secs(55));

    #[test]
    fn post_is_due_after_the_first_time_in_which_all_was_there_that_it_needs() {
        assert_eq!(due(&with(&[]), 1), DUE);
        let later = with(&[("pause", "target = \"master:1\"", 31_000, 32_000)]);
        assert_eq!(due(&later, 2), Some(ms(57_000)));
        let too_late = with(&[("pause", "target = \"master:1\"", 31_000, 36_000)]);
        assert_eq!(due(&too_late, 2), None);
        let after = with(&[("pause", "target = \"master:1\"", 55_000, 60_000)]);
        assert_eq!(due(&after, 2), DUE, "by then it has come");
    }

    #[test]
    fn workers_that_are_away_or_lost_their_disks_excuse_as_many_copies() {
        let crash = ("crash", "target = \"worker:0\"", 27_000, 60_000);
        let wipe = ("wipe", "target = \"worker:1\"", 27_000, 28_000);
        for (faults, copies, is_due) in [
            (&[crash][..], 1, false),
            (&[crash][..], 2, true),
            (&[wipe][..], 1, false),
            (&[wipe][..], 2, true),
            (&[crash, wipe][..], 2, false),
            (&[crash, wipe][..], 3, true),
        ] {
            assert_eq!(due(&with(faults), copies).is_some(), is_due, "{faults:?} {copies}");
        }
        let assigned = ("wipe", "target = \"assigned(board:lobby)\"", 27_000, 28_000);
        assert_eq!(due(&with(&[assigned]), 2), None, "one or another");
    }

    #[test]
    fn disk_is_lost_from_shortly_before_a_send_until_the_post_is_due() {
        let wiped = |from, until| {
            due(&with(&[("wipe", "target = \"worker:*\"", from, until)]), 2).is_some()
        };
        assert!(wiped(10_000, 10_999) && !wiped(10_000, 11_001));
        assert!(wiped(55_001, 56_000) && !wiped(29_000, 30_000));
        let store = |kind, keys: &str| due(&with(&[(kind, keys, 14_000, 15_000)]), 2);
        let back = store("rollback", "target = \"store\"\nby = \"1s\"");
        assert_eq!(back, None, "the store may have lost it");
        assert_eq!(store("pause", "target = \"store\""), DUE);
        let master = ("wipe", "target = \"master:1\"", 14_000, 15_000);
        assert_eq!(due(&with(&[master]), 1), DUE, "a master holds nothing");
    }

    #[test]
    fn copies_that_were_counted_while_a_worker_came_or_went_may_be_one() {
        let crash = ("crash", "target = \"worker:0\"", 27_000, 60_000);
        for (at, is_due) in [(23_999, true), (24_000, false), (26_010, false), (26_011, true)] {
            let mut made = with(&[crash]);
            let registration = Registration(1);
            let join = Event::Join { node: node(1), registration, master: node(9) };
            made.said(at, "master:0", join);
            assert_eq!(due(&made, 2).is_some(), is_due, "{at}");
        }
    }

    #[test]
    fn all_but_the_store_may_be_broken_outside_of_a_core_and_no_disk_is_lost() {
        let core = |from, until| {
            let mut made = with(&[]);
            made.trouble(from, until);
            made.plan.expect.core = true;
            due(&made, 2)
        };
        let mut unknown = with(&[]);
        unknown.trouble(27_000, 33_000);
        assert_eq!(due(&unknown, 2), None, "nothing is known of it");
        assert_eq!(core(27_000, 33_000), Some(ms(58_000)), "when all is whole again");
        assert_eq!(core(27_000, 60_000), None, "its holders may all be outside");
        assert_eq!(core(56_000, 60_000), DUE, "before it begins");
    }

    #[test]
    fn disk_that_is_broken_around_a_core_excuses_one_copy() {
        let with_disk = |from, until, copies| {
            let mut made = with(&[]);
            made.trouble(from, until);
            made.plan.expect.core = true;
            let disk =
                Incident { fault: made.plan.core_disk_number(1), ..made.incidents[1].clone() };
            made.incidents.push(disk);
            due(&made, copies)
        };
        assert_eq!(with_disk(27_000, 33_000, 1), None, "it may have been the holder's");
        assert_eq!(with_disk(27_000, 33_000, 2), Some(ms(58_000)), "the other one kept it");
        assert_eq!(with_disk(56_000, 60_000, 1), DUE, "before it begins");
    }
}
