//! Faults that every deployment carries out by the same steps: ends of processes, pauses, broken lines.

use std::{sync::Arc, time::Duration};

use chatchat_scenarios::{
    fault::{Action, Links},
    plan::Plan,
    target::{Place, Target},
    workload::ClosedPages,
};
use dst_world::{Link, Seed};

use super::expel;
use crate::{
    deployment::{Begun, Deployment, FaultId, Step},
    units::{ns, ppm},
};

/// Length of a fault with several steps whose story names none.
const STEPS_LAST: Duration = Duration::from_secs(8);

/// Shortest and longest time in which a primary commits without the answer of its standby: long enough for
/// people at work to write something.
const UNCONFIRMED_MIN: Duration = Duration::from_millis(250);
const UNCONFIRMED_MAX: Duration = Duration::from_millis(400);

/// Begins a fault of the plan.
pub(super) fn act<D: Deployment>(
    on: &Arc<D>,
    plan: &Plan,
    pages: &Arc<ClosedPages>,
    nth: FaultId,
    action: &Action,
) -> Begun<D> {
    match action {
        Action::Swizzle { targets } => swizzled(on, plan, nth, targets),
        Action::Restart { targets } => restarted(on, plan, nth, targets),
        Action::PersonRestart { target } => pages_closed(on, plan, pages, target),
        Action::Expel { target } => expel::begin(on, plan, nth, target),
        Action::StorePromote => promoted(on, plan, nth, action),
        _ => act_at_once(on, nth, &plan.label_of(nth), action),
    }
}

/// Begins a fault that has one step, which need not be in the plan. `label` is that of its random draws.
pub(super) fn act_at_once<D: Deployment>(
    on: &Arc<D>,
    nth: FaultId,
    label: &str,
    action: &Action,
) -> Begun<D> {
    let clear = Link::default();
    match action {
        Action::Crash { target } => killed(on, target, D::crash),
        Action::Exit { target } => killed(on, target, D::exit),
        Action::Wipe { target } => killed(on, target, D::wipe),
        Action::Stop { target } => ended(on, target, D::stop),
        Action::Pause { target } => paused(on, target),
        Action::Partition { links } => on_lines(on, nth, links, Link::CUT),
        Action::Delay { links, by, jitter } => {
            let link = Link { delay_ns: ns(*by), jitter_ns: ns(*jitter), ..clear };
            on_lines(on, nth, links, link)
        }
        Action::Bandwidth { links, bytes_per_second } => {
            let link = Link { bytes_per_second: Some(*bytes_per_second), ..clear };
            on_lines(on, nth, links, link)
        }
        Action::Loss { links, rate } => {
            on_lines(on, nth, links, Link { loss_ppm: ppm(*rate), ..clear })
        }
        Action::ConnectHang { links, rate } => {
            on_lines(on, nth, links, Link { syn_loss_ppm: ppm(*rate), ..clear })
        }
        _ => on.act(nth, label, action),
    }
}

/// Ends the processes of a target at one moment, in some way.
fn killed<D: Deployment>(
    on: &Arc<D>,
    target: &Target,
    end: impl Fn(&D, Place) -> bool,
) -> Begun<D> {
    on.hold(&on.places_of(std::slice::from_ref(target)));
    ended(on, target, end)
}

/// Ends the processes of a target in some way; they are started again.
fn ended<D: Deployment>(on: &Arc<D>, target: &Target, end: impl Fn(&D, Place) -> bool) -> Begun<D> {
    let mut places = on.places_of(std::slice::from_ref(target));
    places.retain(|place| end(on, *place));
    Begun::at_once(!places.is_empty(), move |on: &Arc<D>| {
        for place in places {
            on.start_again(place);
        }
    })
}

fn paused<D: Deployment>(on: &Arc<D>, target: &Target) -> Begun<D> {
    let mut places = on.places_of(std::slice::from_ref(target));
    places.retain(|place| on.pause(*place));
    Begun::at_once(!places.is_empty(), move |on: &Arc<D>| {
        for place in places {
            on.resume(place);
        }
    })
}

/// Closes the pages of people; they are opened again.
fn pages_closed<D: Deployment>(
    on: &Arc<D>,
    plan: &Plan,
    pages: &Arc<ClosedPages>,
    target: &Target,
) -> Begun<D> {
    let people = target.places(on.shape(), plan.workload.people).unwrap_or_default().into_iter();
    let people: Vec<_> = people
        .filter_map(|place| match place {
            Place::Person(nth) => Some(nth),
            _ => None,
        })
        .collect();
    let pages = Arc::clone(pages);
    let before = pages.went_away();
    people.iter().for_each(|nth| pages.close(*nth));
    Begun::until(move |_: &Arc<D>| {
        people.iter().for_each(|nth| pages.open(*nth));
        pages.went_away() > before
    })
}

fn on_lines<D: Deployment>(on: &Arc<D>, nth: FaultId, links: &Links, link: Link) -> Begun<D> {
    let directions = on.directions(links);
    for (from, to) in &directions {
        on.break_line(nth, *from, *to, link);
    }
    Begun::until(move |on: &Arc<D>| {
        let end = |(from, to): &(_, _)| on.mend(nth, *from, *to);
        directions.iter().map(end).sum::<u64>() > 0
    })
}

/// Ends the store's primary a moment after its last answer. Its standby answers from a later time on.
fn promoted<D: Deployment>(on: &Arc<D>, plan: &Plan, nth: FaultId, action: &Action) -> Begun<D> {
    let mut rng = Seed(plan.seed).stream(&format!("faults/promote/{}", plan.label_of(nth)));
    let lasts = lasts(plan, nth);
    let ends = rng.duration_between(UNCONFIRMED_MIN, UNCONFIRMED_MAX).min(lasts / 2);
    let answers = rng.duration_between(ends, lasts);
    let steps = vec![(ends, Step::Exit(Place::Store)), (answers, Step::Start(Place::Store))];
    on.act(nth, &plan.label_of(nth), action).then(steps)
}

/// Returns how long a fault lasts.
fn lasts(plan: &Plan, nth: FaultId) -> Duration {
    plan.faults[nth].lasts.unwrap_or(STEPS_LAST)
}

/// Cuts places off one by one in the first half of the fault's time, and lets them back in
/// another order in the second half.
fn swizzled<D: Deployment>(on: &Arc<D>, plan: &Plan, nth: FaultId, targets: &[Target]) -> Begun<D> {
    let mut places = on.places_of(targets);
    let mut rng = Seed(plan.seed).stream(&format!("faults/swizzle/{}", plan.label_of(nth)));
    let (half, faults) = (lasts(plan, nth) / 2, plan.faults.len());
    let turns = u32::try_from(places.len().max(1)).unwrap_or(u32::MAX);
    let mut steps = Vec::new();
    for (begins, step) in
        [(Duration::ZERO, Step::Cut as fn(Place) -> Step), (half, Step::Mend as fn(Place) -> Step)]
    {
        for turn in (1..places.len()).rev() {
            places.swap(turn, rng.index(turn + 1));
        }
        for (turn, place) in (0..turns).zip(&places) {
            steps.push((begins + half * turn / turns, step(*place)));
        }
    }
    let begun = Begun::until(move |on: &Arc<D>| {
        let mended = places.iter().filter(|place| carry_out(on, faults, nth, Step::Mend(**place)));
        mended.count() > 0
    });
    begun.then(steps)
}

/// Stops places one after another, and starts each before the next one's turn.
fn restarted<D: Deployment>(
    on: &Arc<D>,
    plan: &Plan,
    nth: FaultId,
    targets: &[Target],
) -> Begun<D> {
    let places = on.places_of(targets);
    let turns = u32::try_from(places.len().max(1)).unwrap_or(u32::MAX);
    let turn_lasts = lasts(plan, nth) / turns;
    let mut steps = Vec::new();
    for (turn, place) in (0..turns).zip(&places) {
        steps.push((turn_lasts * turn, Step::Stop(*place)));
        steps.push((turn_lasts * turn + turn_lasts / 2, Step::Start(*place)));
    }
    let begun = Begun::at_once(false, move |on: &Arc<D>| {
        for place in places {
            on.start_again(place);
        }
    });
    begun.then(steps)
}

/// Carries out a step of a fault that stands, and returns whether it touched anything. `faults` is
/// the number of all faults.
pub(super) fn carry_out<D: Deployment>(
    on: &Arc<D>,
    faults: usize,
    nth: FaultId,
    step: Step,
) -> bool {
    match step {
        Step::Begin | Step::Keep | Step::Undo => false,
        Step::Cut(place) => {
            for (from, to) in around(&**on, place) {
                on.break_line(cut_of(&**on, faults, nth, place), from, to, Link::CUT);
            }
            false
        }
        Step::Mend(place) => {
            let cut = cut_of(&**on, faults, nth, place);
            let end = |(from, to)| on.mend(cut, from, to);
            around(&**on, place).into_iter().map(end).sum::<u64>() > 0
        }
        Step::Stop(place) => on.stop(place),
        Step::Exit(place) => {
            on.exit(place);
            // Its undo knows whether this ended the process in the middle of anything.
            false
        }
        Step::Start(place) => {
            on.start_again(place);
            false
        }
    }
}

/// Returns the number of a cut of one place, which no other fault has.
fn cut_of(on: &impl Deployment, faults: usize, nth: FaultId, place: Place) -> FaultId {
    let number = on.everything().iter().position(|other| *other == place).unwrap_or_default();
    nth + faults * (1 + number)
}

/// Returns all directions between a place and the others of the cluster.
fn around(on: &impl Deployment, here: Place) -> Vec<(Place, Place)> {
    let others = on.everything().into_iter().filter(|place| *place != here);
    others.flat_map(|there| [(here, there), (there, here)]).collect()
}
