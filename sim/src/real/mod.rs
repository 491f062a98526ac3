//! One run of a plan on real processes: the same story, the same people, the same oracles.
//!
//! It starts `chatchat-master` and `chatchat-worker`, kills, stops and cuts them as the story says,
//! and judges what people saw, the store's content and the event lines that nodes write. `madsim`
//! replaces the clock and the entropy of libc in this program inside of a simulated world only, and
//! here none is entered.
//!
//! 1. A story that cannot be carried out whole is refused before anything is started.
//! 2. Evidence that a real cluster does not give is named as not judged.
//! 3. Every run proves that its evidence is judged: without one acknowledged post it is refused.

pub(crate) mod canary;
mod cluster;
mod detour;
mod frame;
mod lines;
mod network;
mod node;
pub mod refusal;
mod slow;

use std::{
    collections::BTreeMap,
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use chatchat_scenarios::{
    oracle::{EventLine, Violation},
    plan::Plan,
    property::Property,
    story::Story,
    target::{Place, Target},
};
use dst_world::Seed;
use thiserror::Error;
use tokio::{runtime, sync::Notify};

use self::{cluster::RealCluster, network::Network, node::PROGRAMS, refusal::Refused};
use crate::{
    build::PROBES,
    deployment::Deployment,
    judge::judge,
    play::play,
    units::ns,
    verdict::{Report, Verdict},
};

/// From the time when all nodes have found each other to the plan's start.
const WARM_UP: Duration = Duration::from_secs(3);
/// Bound on every answer in calm (G0).
pub(crate) const CALM_LIMIT: Duration = Duration::from_secs(5);

/// Properties that are not judged, with why.
const NOT_JUDGED: [(Property, &str); 1] =
    [(Property::G13, "lines of two nodes have no order within a millisecond")];
/// Part of a property that is not judged.
const NO_TAP: &str = "G14 secrecy: no wire between real nodes is tapped; expulsions are judged";

/// Folders whose code the programs of nodes are built from.
const SOURCES: [&str; 3] = ["src", "bin", "sim/env/src"];

/// Rules that need every event line of a master, and why they are not judged once one was killed.
const NEED_ALL_LINES: [&str; 2] = ["not-given", "no-batch"];
const LINES_LOST: &str = "G8 writes against assignments: a master was killed, and its last event \
                          lines with it";

/// Settings of a run on real processes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the programs.
    pub programs: PathBuf,
    /// Whether the folder of the run is left behind.
    pub keep: bool,
    /// Time after which the run is given up.
    pub limit: Duration,
    /// Told when the run is to be broken off.
    pub interrupt: Arc<Notify>,
}

/// A run that did not come to a verdict.
#[derive(Debug, Error)]
pub enum RealError {
    /// The story asks for too much. Nothing was started.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The run cannot begin here. What was made is removed.
    #[error("{0}")]
    Unable(String),
    /// It was broken off. Its processes are ended and its files removed.
    #[error("interrupted")]
    Interrupted,
}

/// Returns the folder in which this program lies, where the nodes' programs are built as well.
///
/// # Errors
/// A sentence for the person who asked.
pub fn beside_this_program() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|why| format!("this program: {why}"))?;
    Ok(program.parent().map(Path::to_owned).unwrap_or_default())
}

/// Checks that real processes can carry out all of a plan's faults on this machine.
///
/// # Errors
/// [`Refused`] with a line for each thing that they cannot.
pub fn suits(story: &Story, plan: &Plan) -> Result<(), Refused> {
    refusal::check(story, plan, Network::obstacle)
}

/// Checks that a plan can be carried out on real processes here.
///
/// # Errors
/// [`RealError::Refused`], or [`RealError::Unable`] when there are no programs.
pub fn check(story: &Story, plan: &Plan, options: &Options) -> Result<(), RealError> {
    suits(story, plan)?;
    let Some(missing) = PROGRAMS.iter().find(|name| !options.programs.join(name).exists()) else {
        return Ok(());
    };
    let folder = options.programs.display();
    Err(RealError::Unable(format!(
        "{missing} is not in {folder}: build it by `cargo build --bins`, or name its folder by \
         --programs"
    )))
}

/// Returns whether a source in the tree of this program is newer than the programs of nodes. A
/// build of this program alone leaves them as they were.
fn is_outdated(programs: &Path) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let newest = SOURCES.iter().filter_map(|folder| newest_in(&root.join(folder))).max();
    let changed = |name: &&str| fs::metadata(programs.join(name)).ok()?.modified().ok();
    let oldest = PROGRAMS.iter().filter_map(changed).min();
    matches!((newest, oldest), (Some(newest), Some(oldest)) if newest > oldest)
}

/// Returns the time of the newest file in a folder, at any depth.
fn newest_in(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let time = |entry: fs::DirEntry| match entry.path() {
        path if path.is_dir() => newest_in(&path),
        _ => entry.metadata().ok()?.modified().ok(),
    };
    entries.filter_map(time).max()
}

/// Carries a plan out on real processes and judges what was seen.
///
/// # Errors
/// [`RealError`]; there is no verdict then.
pub fn run(story: &Story, plan: &Plan, options: &Options) -> Result<Report, RealError> {
    check(story, plan, options)?;
    let kinds = plan.kinds();
    let ran = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut network = None;
        if kinds.iter().any(|kind| Network::is_needed_for(*kind)) {
            let masters = Target::Role(chatchat::model::ids::Role::Master);
            let workers = Target::Role(chatchat::model::ids::Role::Worker);
            let places = |target: &Target| target.places(&plan.cluster, 0).unwrap_or_default();
            let nodes: Vec<Place> = [places(&masters), places(&workers)].concat();
            let made = Network::new(nodes, &kinds, Seed(plan.seed));
            network = Some(made.map_err(RealError::Unable)?);
        }
        // On this thread, which may be in a namespace of its own.
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|why| RealError::Unable(format!("no runtime: {why}")))?;
        runtime.block_on(live(plan, options, network))
    }));
    ran.unwrap_or_else(|panic| {
        let why = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
        Ok(Report {
            verdict: Verdict::Crash,
            complaints: vec![format!("the run panicked: {why}")],
            real: Some(options.programs.display().to_string()),
            ..Report::default()
        })
    })
}

async fn live(
    plan: &Plan,
    options: &Options,
    network: Option<Network>,
) -> Result<Report, RealError> {
    let how = match network {
        Some(_) => "each in a network namespace",
        None => "on 127.0.0.1",
    };
    let age = if is_outdated(&options.programs) { " (older than their sources)" } else { "" };
    let real = format!("processes of {}{age}, {how}", options.programs.display());
    let cluster = RealCluster::new(plan, &options.programs, network, options.keep);
    let cluster = Arc::new(cluster.await.map_err(RealError::Unable)?);
    // Whatever ends this, a panic as well, ends the processes.
    let ends = Ending(Arc::clone(&cluster));
    let _watch = cluster.env().spawn("watch", Arc::clone(&cluster).watch()).abort_on_drop();
    let _carry = cluster.env().spawn("carry", Arc::clone(&cluster).carry()).abort_on_drop();
    let report = tokio::select! {
        biased;
        () = options.interrupt.notified() => Err(RealError::Interrupted),
        () = cluster.sleep(options.limit) => Ok(Report {
            verdict: Verdict::TimedOut,
            complaints: vec![format!("it is not over after {:?}", options.limit)],
            virtual_time: cluster.elapsed(),
            real: Some(real.clone()),
            ..Report::default()
        }),
        report = told(&cluster, plan, &real) => Ok(report),
    };
    drop(ends);
    if options.keep {
        eprintln!("kept     {}", cluster.path().display());
    }
    report
}

/// Ends all processes when it goes.
struct Ending(Arc<RealCluster>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

async fn told(cluster: &Arc<RealCluster>, plan: &Plan, real: &str) -> Report {
    // Without the properties that nothing here can show.
    let mut plan = plan.clone();
    let unjudged: BTreeMap<_, _> = NOT_JUDGED.into_iter().collect();
    plan.expect.properties.retain(|property| !unjudged.contains_key(property));
    let mut unjudged: Vec<_> =
        unjudged.iter().map(|(property, why)| format!("{property}: {why}")).collect();
    unjudged.push(NO_TAP.to_owned());
    let base = || Report { real: Some(real.to_owned()), ..Report::default() };

    cluster.start();
    if let Err(why) = cluster.is_up().await {
        return Report { verdict: Verdict::Crash, complaints: vec![why], ..base() };
    }
    cluster.sleep(WARM_UP).await;
    let played = play(cluster, &plan, cluster.env().clone()).await;

    let (events, probes, unreadable) = cluster.said(|lines, deaths, start_ms| {
        let mut events = lines.events(start_ms, deaths);
        for line in &mut events {
            line.at = line.at.saturating_sub(played.started);
        }
        (events, lines.probes(PROBES), lines.unreadable().to_vec())
    });
    let has_lost = cluster.has_killed_a_master();
    if has_lost {
        unjudged.push(LINES_LOST.to_owned());
    }
    let evidence = played.evidence(&plan, &events, CALM_LIMIT);
    let base = Report {
        virtual_time: cluster.elapsed(),
        probes,
        log: log(cluster, &events, played.started),
        started: played.started,
        unjudged,
        ..base()
    };
    let canary = canary::judge(&evidence);
    let counts = |violation: &Violation| !has_lost || !needs_all_lines(violation);
    let mut report = judge(&evidence, Vec::new(), counts, &cluster.ended(), base);
    match canary {
        Ok(refused) => report.canary = Some(refused),
        Err(why) => {
            report.verdict = report.verdict.max(Verdict::Toothless);
            report.complaints.push(why);
        }
    }
    let broken: Vec<_> = cluster.panics().into_iter().chain(unreadable).collect();
    if !broken.is_empty() {
        report.verdict = Verdict::Crash;
        report.complaints.splice(0..0, broken);
    }
    Report { history: played.history, ..report }
}

fn needs_all_lines(violation: &Violation) -> bool {
    violation.property() == Property::G8 && NEED_ALL_LINES.contains(&violation.rule.name)
}

/// Returns the lines of the harness and those of the nodes.
fn log(cluster: &RealCluster, events: &[EventLine], started: Duration) -> Vec<String> {
    let mut log = cluster.notes();
    log.extend(events.iter().map(|line| {
        let at = ns(line.at + started);
        serde_json::json!({ "t": at, "host": line.node, "event": line.event }).to_string()
    }));
    log
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use chatchat::env::{
        Env,
        real::{RealWorld, TempDir},
    };

    use super::*;

    #[test]
    fn clock_and_entropy_outside_of_a_simulated_world_are_the_systems_own() {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let (env, other) = runtime.expect("a runtime").block_on(async {
            let world = || Env::new(RealWorld::temporary().expect("a folder"));
            (world(), world())
        });
        let folder = TempDir::new().expect("a folder");
        let file = File::create(folder.path().join("now")).expect("made");
        // The file system asks the kernel, not libc.
        let made = file.metadata().and_then(|file| file.modified()).expect("it has a time");
        let made = made.duration_since(SystemTime::UNIX_EPOCH).expect("later").as_millis();
        assert!(made.abs_diff(env.wall().ms.into()) < 60_000, "{made} and {}", env.wall());
        use rand_core::Rng;
        assert_ne!(env.rng("a test").next_u64(), other.rng("a test").next_u64());
    }

    #[test]
    fn program_that_is_older_than_a_source_is_outdated() {
        let folder = TempDir::new().expect("a folder");
        let files = PROGRAMS.map(|name| {
            let path = folder.path().join(name);
            File::create(path).expect("made")
        });
        assert!(!is_outdated(folder.path()), "both were made now");
        files[1].set_modified(SystemTime::UNIX_EPOCH).expect("set");
        assert!(is_outdated(folder.path()));
    }
}
