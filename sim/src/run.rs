//! One run of a plan: a cluster, people, faults, then peace, then judgement.
//!
//! ```text
//!  boot | people chat under faults .......... | all healed: settle, quiet, read | judge
//!       0                             duration                              ended
//! ```

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chatchat_scenarios::{
    history::{Clock, History},
    oracle::{self, EventLine, Evidence, StoreDump},
    plan::Plan,
    property::Property,
    target::Place,
    workload::{People, Stage},
};
use dst_world::{Detail, EventRecord, Progress, Seed, Setup, World, simulate};

use crate::{
    cluster::Cluster,
    events::{UnreadableEvent, read_event},
    faults::{self, Faults, UnsupportedKinds},
    verdict::{Report, Verdict},
    wiretap,
};

/// From the machines' start to the plan's: nodes find each other.
const WARM_UP: Duration = Duration::from_secs(3);
/// Time that the end may take beyond the plan's own bounds before the run is given up.
const SLACK: Duration = Duration::from_secs(240);
/// Bound on every answer in calm (G0).
const CALM_LIMIT: Duration = Duration::from_secs(1);

/// Carries a plan out and judges what was seen. A panic anywhere inside is told, not passed on.
///
/// # Errors
/// [`UnsupportedKinds`] when the simulated world cannot carry out all of the plan's faults; then
/// nothing was run.
pub fn run(
    plan: &Plan,
    detail: Detail,
    progress: &Arc<Progress>,
) -> Result<Report, UnsupportedKinds> {
    faults::check(plan)?;
    let panicked = note_panics();
    let left: Arc<Mutex<Option<World>>> = Arc::default();
    let (keep, seed) = (Arc::clone(&left), Seed(plan.seed));
    let setup = Setup { seed, detail, progress: Arc::clone(progress) };
    let ran = panic::catch_unwind(AssertUnwindSafe(|| {
        simulate(setup, async |world| {
            *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(world.clone());
            let limit = plan.duration + plan.expect.recovers_within + SLACK;
            tokio::select! {
                biased;
                report = live(&world, plan) => report,
                () = world.sleep(limit) => Report {
                    verdict: Verdict::TimedOut,
                    complaints: vec![format!("it is not over after {limit:?} of virtual time")],
                    ..Report::of(&world)
                },
            }
        })
    }));
    Ok(ran.unwrap_or_else(|_| {
        let why = panicked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let world = left.lock().unwrap_or_else(PoisonError::into_inner).take();
        Report {
            verdict: Verdict::Crash,
            complaints: vec![why.unwrap_or_else(|| "a panic".to_owned())],
            ..world.as_ref().map(Report::of).unwrap_or_default()
        }
    }))
}

/// Keeps what the first panic says, besides printing it.
fn note_panics() -> Arc<Mutex<Option<String>>> {
    let noted: Arc<Mutex<Option<String>>> = Arc::default();
    let (note, print) = (Arc::clone(&noted), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        note.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| info.to_string());
        print(info);
    }));
    noted
}

impl Report {
    /// Returns the state of a run that can be told at any time.
    fn of(world: &World) -> Self {
        Self {
            digest: world.digest(),
            virtual_time: world.elapsed(),
            probes: world.probes(),
            log: world.log_lines(),
            ..Self::default()
        }
    }
}

async fn live(world: &World, plan: &Plan) -> Report {
    world.capture();
    let observer = world.idle(world.add_host("observer")).await;
    let cluster = Cluster::new(world, plan).expect("SQLite works in memory");
    cluster.start();
    world.sleep(WARM_UP).await;

    let faults = Faults::start(&cluster, plan);
    let mut machines = Vec::new();
    for nth in 0..plan.workload.people {
        machines.push(world.idle(cluster.host(Place::Person(nth))).await);
    }
    let told = Arc::clone(&faults);
    let stage = Stage {
        masters: cluster.front_ends(),
        workload: plan.workload.clone(),
        seed: plan.seed,
        until: plan.duration,
        clock: Clock::new(move || told.now()),
    };
    let people = People::start(observer, machines, stage);
    world.sleep(plan.duration.saturating_sub(faults.now())).await;
    faults.heal();
    let history = people.settle(plan.expect.recovers_within).await;

    let store = StoreDump::read(&cluster.direct_store()).await;
    judge(&cluster, plan, &faults, &history, &store.expect("the store can be read"))
}

fn judge(
    cluster: &Cluster,
    plan: &Plan,
    faults: &Faults,
    history: &History,
    store: &StoreDump,
) -> Report {
    let world = cluster.world();
    let incidents = faults.incidents();
    let events = match event_lines(cluster, faults) {
        Ok(events) => events,
        Err(why) => {
            return Report {
                verdict: Verdict::Crash,
                complaints: vec![why.to_string()],
                operations: history.counts(),
                incidents,
                ..Report::of(world)
            };
        }
    };
    let evidence = Evidence {
        plan,
        incidents: &incidents,
        history,
        store,
        events: &events,
        ended: faults.now(),
        calm_limit: CALM_LIMIT,
    };
    let violations = oracle::judge(&evidence);
    let is_safety = violations.iter().any(|violation| !violation.promise.is_liveness());
    let mut complaints: Vec<_> = violations.iter().map(ToString::to_string).collect();
    let spoken = if plan.expect.promises.contains(&Property::G14) {
        wiretap::judge(cluster, plan.seed, history)
    } else {
        Vec::new()
    };
    complaints.extend(spoken.iter().cloned());
    let ended = cluster.ended();
    let toothless = plan.toothless(&incidents);
    complaints.extend(ended.iter().map(|(place, why)| format!("{place} ended by itself: {why}")));
    let verdict = match (ended.is_empty(), is_safety || !spoken.is_empty(), violations.is_empty()) {
        (false, ..) => Verdict::Crash,
        (_, true, _) => Verdict::Safety,
        (_, _, false) => Verdict::Liveness,
        _ if toothless.is_empty() => Verdict::Holds,
        _ => Verdict::Toothless,
    };
    complaints.extend(toothless);
    Report { verdict, complaints, operations: history.counts(), incidents, ..Report::of(world) }
}

fn event_lines(cluster: &Cluster, faults: &Faults) -> Result<Vec<EventLine>, UnreadableEvent> {
    let records = cluster.world().events().into_iter();
    let line = |record: EventRecord| {
        Ok(EventLine {
            at: Duration::from_nanos(record.at_ns).saturating_sub(faults.started()),
            event: read_event(&record)?,
            node: cluster.place(&record.host).map_or(record.host, |place| place.to_string()),
        })
    };
    records.map(line).collect()
}
