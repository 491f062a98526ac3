//! One run of a plan in the simulated world.

use std::{
    future::pending,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chatchat::programs::OF_ONE_PEER;
use chatchat_scenarios::{oracle::EventLine, plan::Plan, property::Property};
use dst_world::{Detail, EventRecord, Panicked, Progress, Seed, Setup, World, simulate};

use crate::{
    cluster::Cluster,
    events::{UnreadableEvent, read_event},
    faults::{self, UnsupportedKinds},
    judge::judge,
    play::play,
    stranger,
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
                    ..Report::default()
                }
                .at_the_end_of(&world),
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
            ..Report::default()
        };
        let report = match &world {
            Some(world) => report.at_the_end_of(world),
            None => report,
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
    /// Adds what the world tells of a run, whatever became of it. It takes the log out of the world, so
    /// it comes last: a panic of an oracle must find the log still there.
    fn at_the_end_of(self, world: &World) -> Self {
        let digest = world.digest();
        Self {
            digest,
            virtual_time: world.elapsed(),
            probes: world.probes(),
            log: world.take_log(),
            ..self
        }
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
    world.set_step_cost(Duration::from_micros(plan.cluster.step_us));
    let observer = world.idle(world.add_host("observer")).await;
    let cluster = Cluster::new(world, plan).expect("SQLite works");
    let _files = cluster.store().removes_files();
    wiretap::listen(&cluster);
    cluster.start();
    world.sleep(WARM_UP).await;
    let played = play(&cluster, plan, observer).await;
    let base = Report { started: played.started, ..Report::default() };
    let events = match event_lines(&cluster, played.started) {
        Ok(events) => events,
        Err(why) => {
            return Report {
                verdict: Verdict::Crash,
                complaints: vec![why.to_string()],
                operations: played.history.counts(),
                incidents: played.incidents,
                ..base
            }
            .at_the_end_of(world);
        }
    };
    let mut more = Vec::new();
    if plan.expect.properties.contains(&Property::G14) {
        more = wiretap::judge(&cluster, plan.seed, &played.history).await;
        let strangers = cluster.strangers();
        more.extend(stranger::judge(&strangers, &events, &cluster.direct_store()).await);
    }
    let evidence = played.evidence(plan, &events, CALM_LIMIT);
    let judged = judge(&evidence, more, |_| true, &cluster.ended(), base);
    let rightly_stuck = played.rightly_stuck;
    Report { history: played.history, ..judged }.with_excuse(rightly_stuck).at_the_end_of(world)
}

fn event_lines(cluster: &Cluster, started: Duration) -> Result<Vec<EventLine>, UnreadableEvent> {
    let line = |record: &EventRecord| -> Result<EventLine, UnreadableEvent> {
        let place = cluster.place(&record.host);
        Ok(EventLine {
            at: Duration::from_nanos(record.at_ns).saturating_sub(started),
            event: read_event(record)?,
            number: record.number,
            node: place.map_or_else(|| record.host.clone(), |place| place.to_string()),
        })
    };
    cluster.world().read_events(line).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chatchat_scenarios::story::Story;
    use dst_world::{HostId, Link};

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

    #[test]
    fn end_of_a_run_takes_the_log_out_of_the_world_after_its_digest() {
        simulate(Setup::new(1), async |world| {
            world.note("server", "made", &[]);
            let (digest, log) = (world.digest(), world.log_lines());
            let report = Report { verdict: Verdict::Crash, ..Report::default() };
            let report = report.at_the_end_of(&world);
            assert!(!log.is_empty());
            assert_eq!((report.digest, report.log), (digest, log));
            assert_eq!(report.verdict, Verdict::Crash, "the rest stays");
            assert!(world.log_lines().is_empty(), "it is moved, not copied");
        });
    }

    /// Runs a core of one worker. Three seconds before the plan's end, while people post, `harm` is
    /// done to its machines, by nobody's fault.
    fn with_a_core(harm: fn(&World)) -> Report {
        let text = "about = \"\"\nduration = \"9s\"\n[cluster]\nmasters = 2\nworkers = 1\n\
                    [workload]\npeople = 4\nposts_per_second = 8.0\nboards = [\"lobby\"]\n\
                    [expect]\npromises = [\"G3\"]\nrecovers_within = \"15s\"\ncore = true\n";
        let plan = Plan::expand(&Story::parse("stuck", text).expect("a story"), 1);
        simulate(Setup::new(plan.seed), async |world| {
            let later = world.clone();
            let at = WARM_UP + plan.duration.saturating_sub(Duration::from_secs(3));
            world.supervise(async move {
                later.sleep(at).await;
                harm(&later);
            });
            live(&world, &plan).await
        })
    }

    fn host(world: &World, name: &str) -> HostId {
        world.host(name).expect("in the story")
    }

    #[test]
    fn core_that_works_is_not_stuck() {
        let report = with_a_core(|_| {});
        assert_eq!(report.verdict, Verdict::Holds, "{:?}", report.complaints);
    }

    #[test]
    fn core_whose_worker_or_store_is_dead_or_stopped_is_rightly_stuck() {
        let kill_worker: fn(&World) = |world| {
            world.crash(host(world, "worker0"));
        };
        let stop_worker: fn(&World) = |world| {
            world.pause(host(world, "worker0"));
        };
        let kill_store: fn(&World) = |world| {
            world.crash(host(world, "store"));
        };
        let harms = [("worker:0", kill_worker), ("worker:0", stop_worker), ("store", kill_store)];
        for (idle, harm) in harms {
            let report = with_a_core(harm);
            assert_eq!(report.verdict, Verdict::Toothless, "{idle}: {:?}", report.complaints);
            let why = &report.complaints[0];
            assert!(
                why.starts_with("rightly stuck: ") && why.contains(&format!("{idle} did")),
                "{why}"
            );
            assert!(complaint(&report, "g03."), "{:?}", report.complaints);
        }
    }

    #[test]
    fn core_that_runs_and_gets_nothing_done_has_no_excuse() {
        // Nobody mends these cuts: they are no fault of the plan.
        let report = with_a_core(|world| {
            for nth in 0..2 {
                let (master, worker) =
                    (host(world, &format!("master{nth}")), host(world, "worker0"));
                for (from, to) in [(master, worker), (worker, master)] {
                    world.add_fault(from, to, 1_000, Link::CUT);
                }
            }
        });
        assert_eq!(report.verdict, Verdict::Liveness, "{:?}", report.complaints);
        assert!(!complaint(&report, "rightly stuck"), "{:?}", report.complaints);
    }

    fn complaint(report: &Report, text: &str) -> bool {
        report.complaints.iter().any(|complaint| complaint.contains(text))
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
