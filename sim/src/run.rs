//! One run of a plan: a cluster, people, faults, then peace, then judgement.
//!
//! ```text
//!  boot | people chat under faults .......... | all healed: settle, quiet, read | judge
//!       0                             duration                              ended
//! ```

use std::{
    future::pending,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chatchat::{env::Env, programs::OF_ONE_PEER};
use chatchat_scenarios::{
    history::{Clock, History},
    oracle::{self, EventLine, Evidence, StoreDump},
    plan::Plan,
    property::Property,
    target::Place,
    workload::{People, Stage},
};
use dst_world::{Detail, EventRecord, Panicked, Progress, Seed, Setup, World, simulate};

use crate::{
    cluster::Cluster,
    events::{UnreadableEvent, read_event},
    faults::{self, Faults, UnsupportedKinds},
    recovery::recoveries,
    verdict::{Report, Verdict},
    wiretap,
};

/// From the machines' start to the plan's: nodes find each other.
const WARM_UP: Duration = Duration::from_secs(3);
/// Time that the end may take beyond the plan's own bounds before the run is given up.
const SLACK: Duration = Duration::from_secs(240);
/// Bound on every answer in calm (G0).
const CALM_LIMIT: Duration = Duration::from_secs(1);

/// Change of the order of tasks in the middle of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detour {
    /// Virtual time, before which the run is the same as without it.
    pub at: Duration,
    /// Number of the detour, from 1; two of them may lead to the same place.
    pub nth: u32,
}

/// Carries a plan out and judges what was seen. A panic of a process ends that process, one of
/// the world or the harness ends the run; both are told, not passed on.
///
/// # Errors
/// [`UnsupportedKinds`] when the simulated world cannot carry out all of the plan's faults; then
/// nothing was run.
pub fn run(
    plan: &Plan,
    detail: Detail,
    progress: &Arc<Progress>,
) -> Result<Report, UnsupportedKinds> {
    run_with(plan, detail, progress, None)
}

/// Carries a plan out as [`run`] does, with a detour if one is asked for.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    plan: &Plan,
    detail: Detail,
    progress: &Arc<Progress>,
    detour: Option<Detour>,
) -> Result<Report, UnsupportedKinds> {
    faults::check(plan)?;
    let left: Arc<Mutex<Option<World>>> = Arc::default();
    let (keep, seed) = (Arc::clone(&left), Seed(plan.seed));
    let setup = Setup { seed, detail, progress: Arc::clone(progress) };
    let ran = panic::catch_unwind(AssertUnwindSafe(|| {
        simulate(setup, async |world| {
            *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(world.clone());
            let limit = plan.duration + plan.expect.recovers_within + SLACK;
            let report = tokio::select! {
                biased;
                report = live(&world, plan) => report,
                () = world.sleep(limit) => Report {
                    verdict: Verdict::TimedOut,
                    complaints: vec![format!("it is not over after {limit:?} of virtual time")],
                    ..Report::of(&world)
                },
                // Not a task of its own: one more would change the order from the start.
                report = take(&world, detour) => report,
            };
            report.with_panics(world.panics())
        })
    }));
    Ok(ran.unwrap_or_else(|panic| {
        let why = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
        let world = left.lock().unwrap_or_else(PoisonError::into_inner).take();
        let report = Report {
            verdict: Verdict::Crash,
            complaints: vec![format!("the run panicked: {why}")],
            ..world.as_ref().map(Report::of).unwrap_or_default()
        };
        report.with_panics(world.map(|world| world.panics()).unwrap_or_default())
    }))
}

/// Takes a detour at its time, and never ends.
async fn take(world: &World, detour: Option<Detour>) -> Report {
    if let Some(Detour { at, nth }) = detour {
        world.sleep(at).await;
        world.detour(nth);
    }
    pending().await
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

    /// Adds why a run that is stuck had a right to be: then it shows nothing.
    fn with_excuse(mut self, rightly_stuck: Option<String>) -> Self {
        if let (Verdict::Liveness, Some(why)) = (self.verdict, rightly_stuck) {
            self.verdict = Verdict::Toothless;
            self.complaints.insert(0, format!("rightly stuck: {why}"));
        }
        self
    }

    /// Adds the panics of processes: with one, whatever else it shows, the run is broken.
    fn with_panics(mut self, panics: Vec<Panicked>) -> Self {
        if !panics.is_empty() {
            self.verdict = Verdict::Crash;
            self.complaints.splice(0..0, panics.iter().map(ToString::to_string));
        }
        self
    }
}

async fn live(world: &World, plan: &Plan) -> Report {
    world.contain_panics_of(&OF_ONE_PEER);
    let observer = world.idle(world.add_host("observer")).await;
    let cluster = Cluster::new(world, plan).expect("SQLite works in memory");
    wiretap::listen(&cluster);
    cluster.start();
    world.sleep(WARM_UP).await;

    let faults = Faults::start(&cluster, plan);
    let mut machines: Vec<Env> = Vec::new();
    for nth in 0..plan.workload.people {
        let machine = plan.workload.machine_of(nth);
        machines.push(match machine == nth {
            true => world.idle(cluster.host(Place::Person(nth))).await,
            false => machines[machine].clone(),
        });
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
    let within = plan.expect.recovers_within;
    let core = if plan.expect.core { faults.leave_core() } else { None };
    faults.heal();
    let mut rightly_stuck = None;
    let healed = async {
        if let Some(core) = core {
            rightly_stuck = faults.rightly_stuck(core);
            faults.end_core();
            world.sleep(within).await;
        }
    };
    let history = people.settle(within, healed).await;

    let store = StoreDump::read(&cluster.direct_store()).await;
    let store = store.expect("the store can be read");
    let report = judge(&cluster, plan, &faults, &history, &store);
    Report { history, started: faults.started(), ..report }.with_excuse(rightly_stuck)
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
    let mut violations = oracle::judge(&evidence);
    if plan.expect.properties.contains(&Property::G14) {
        violations.extend(wiretap::judge(cluster, plan.seed, history));
    }
    let is_safety = violations.iter().any(|violation| !violation.property().is_liveness());
    let mut complaints: Vec<_> = violations.iter().map(ToString::to_string).collect();
    let ended = cluster.ended();
    let mut toothless = plan.toothless(&incidents);
    toothless.extend(oracle::shown_nothing(history, plan.workload.people));
    complaints.extend(ended.iter().map(|(place, why)| format!("{place} ended by itself: {why}")));
    let verdict = match (ended.is_empty(), is_safety, violations.is_empty()) {
        (false, ..) => Verdict::Crash,
        (_, true, _) => Verdict::Safety,
        (_, _, false) => Verdict::Liveness,
        _ if toothless.is_empty() => Verdict::Holds,
        _ => Verdict::Toothless,
    };
    complaints.extend(toothless);
    Report {
        verdict,
        complaints,
        violations,
        operations: history.counts(),
        recoveries: recoveries(history, &incidents),
        incidents,
        ..Report::of(world)
    }
}

fn event_lines(cluster: &Cluster, faults: &Faults) -> Result<Vec<EventLine>, UnreadableEvent> {
    let records = cluster.world().events().into_iter();
    let line = |record: EventRecord| {
        Ok(EventLine {
            at: Duration::from_nanos(record.at_ns).saturating_sub(faults.started()),
            event: read_event(&record)?,
            number: record.number,
            node: cluster.place(&record.host).map_or(record.host, |place| place.to_string()),
        })
    };
    records.map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chatchat_scenarios::story::Story;

    use super::*;

    /// Runs the story of calm, while `host` panics at its first `point` after five seconds.
    fn with_a_panic(host: &'static str, point: &'static str) -> Report {
        let plan = Plan::expand(&Story::load("calm").expect("a story"), 1);
        simulate(Setup::new(plan.seed), async |world| {
            let later = world.clone();
            world.supervise(async move {
                later.sleep(Duration::from_secs(5)).await;
                later.panic_at(later.host(host).expect("in the story"), point);
            });
            live(&world, &plan).await.with_panics(world.panics())
        })
    }

    #[test]
    fn detour_leaves_what_was_before_it_and_changes_what_comes_after() {
        let mut story = Story::load("calm").expect("a story");
        story.duration = Duration::from_secs(6);
        let plan = Plan::expand(&story, 1);
        let log = |detour| {
            run_with(&plan, Detail::Events, &Arc::default(), detour).expect("supported").log
        };
        let at = Duration::from_secs(6);
        let plain = log(None);
        let detours: BTreeSet<_> = (1..=8).map(|nth| log(Some(Detour { at, nth }))).collect();
        // Two detours may choose alike wherever the order of tasks matters.
        assert!(detours.len() > 1, "all lead to one place");
        let one = detours.iter().find(|log| **log != plain).expect("they differ from one another");
        let common = plain.iter().zip(one).take_while(|(one, other)| one == other).count();
        assert!(common > 100 && common < plain.len(), "{common} of {}", plain.len());
        let begins_at = |line: &str| {
            line.strip_prefix("{\"t\":")
                .and_then(|rest| rest.split(',').next()?.parse::<u64>().ok())
        };
        assert!(begins_at(&plain[common]) >= Some(6_000_000_000), "{}", plain[common]);
    }

    fn complaint(report: &Report, text: &str) -> bool {
        report.complaints.iter().any(|complaint| complaint.contains(text))
    }

    #[test]
    fn stuck_run_shows_nothing_if_nobody_was_there_to_do_the_work() {
        let report = |verdict| Report { verdict, ..Report::default() };
        let why = || Some("worker:1 did not run any more".to_owned());
        let excused = report(Verdict::Liveness).with_excuse(why());
        assert_eq!(excused.verdict, Verdict::Toothless);
        assert!(complaint(&excused, "rightly stuck: worker:1"), "{:?}", excused.complaints);
        assert_eq!(report(Verdict::Liveness).with_excuse(None).verdict, Verdict::Liveness);
        for verdict in [Verdict::Holds, Verdict::Safety, Verdict::Crash] {
            assert_eq!(report(verdict).with_excuse(why()).verdict, verdict, "no excuse for that");
        }
    }

    #[test]
    fn panic_of_a_part_that_a_node_needs_ends_the_node_and_the_run_goes_on() {
        let report = with_a_panic("master1", "assign_sent");
        assert_eq!(report.verdict, Verdict::Crash, "{:?}", report.complaints);
        assert!(complaint(&report, "master1 panicked in its task \"main\", at sim/"));
        assert!(report.virtual_time > Duration::from_secs(40), "{:?}", report.virtual_time);
        let of = |kind: &str| {
            let wanted = format!(r#""host":"master1","kind":"{kind}""#);
            report.log.iter().filter(|line| line.contains(&wanted)).count()
        };
        assert_eq!((of("panicked"), of("exit"), of("boot")), (1, 1, 1), "it stays down");
        assert!(report.operations.0 > 300, "people go on with the other: {:?}", report.operations);
    }

    #[test]
    fn panic_of_what_serves_one_peer_ends_its_connection_only() {
        let report = with_a_panic("master1", "ack_sent");
        assert_eq!(report.verdict, Verdict::Crash, "{:?}", report.complaints);
        assert!(complaint(&report, "asked to panic at ack_sent"), "{:?}", report.complaints);
        assert!(report.log.iter().any(|line| line.contains(r#""kind":"panicked""#)));
        assert!(!report.log.iter().any(|line| line.contains(r#""kind":"exit""#)));
    }
}
