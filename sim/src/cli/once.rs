//! `run`: one story, one seed, one verdict.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use chatchat_scenarios::plan::Plan;
use chatchat_sim::{
    run::Detour,
    summary::Summary,
    verdict::{Report, Verdict},
};
use dst_world::{Detail, Progress};

use super::out;

const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) fn run(run: &super::Run) -> Result<ExitCode, String> {
    let plan = super::plan(&run.which)?;
    if !run.json {
        out::text(format_args!("{plan}"));
    }
    let start = real_now();
    let told = if run.json { Told::Data } else { Told::Text };
    let at = run.detour_at.map(Duration::from_millis);
    let detour = at.map(|at| Detour { at, nth: run.detour });
    let report = watched_with(&plan, Detail::Events, run.which.limit, told, detour)?;
    if let Some(path) = &run.log {
        let text = report.log.join("\n") + "\n";
        fs::write(path, text).map_err(|why| format!("{}: {why}", path.display()))?;
    }
    if run.json {
        out::line(format_args!("{}", data(&Summary::new(&plan, &report, start.elapsed()))));
        return Ok(report.verdict.into());
    }
    out::text(format_args!("{}", report.block(&plan, Some(start.elapsed()))));
    if report.verdict != Verdict::Holds {
        out::line(format_args!(
            "replay   chatchat-sim run {} --seed {}",
            run.which.story, run.which.seed
        ));
    }
    Ok(report.verdict.into())
}

/// Form in which a run that is given up is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Text,
    Data,
}

pub(super) fn data(summary: &Summary) -> String {
    serde_json::to_string(summary).expect("a summary is plain data")
}

/// Outside of the simulated world.
#[expect(clippy::disallowed_methods, reason = "this is the harness: real time is meant")]
pub(super) fn real_now() -> Instant {
    Instant::now()
}

/// Runs a plan under the eyes of a thread that tells how far it is and gives up after `limit`
/// seconds of real time.
///
/// # Errors
/// A sentence for the person who asked: the simulated world cannot carry the plan out.
pub(super) fn watched(
    plan: &Plan,
    detail: Detail,
    limit: u64,
    told: Told,
) -> Result<Report, String> {
    watched_with(plan, detail, limit, told, None)
}

/// Runs a plan as [`watched`] does, with a detour if one is asked for.
fn watched_with(
    plan: &Plan,
    detail: Detail,
    limit: u64,
    told: Told,
    detour: Option<Detour>,
) -> Result<Report, String> {
    let progress = Arc::new(Progress::default());
    let over = Arc::new(AtomicBool::new(false));
    let (looks, ends, watched) = (Arc::clone(&progress), Arc::clone(&over), plan.clone());
    let watch = thread::Builder::new().name("watch".to_owned()).spawn(move || {
        watch(&looks, &ends, &watched, Duration::from_secs(limit), told);
    });
    let report = chatchat_sim::run::run_with(plan, detail, &progress, detour);
    over.store(true, Ordering::Relaxed);
    if let Ok(watch) = watch {
        // It would sleep on, half a look long on average, in each run of a campaign.
        watch.thread().unpark();
        // Its end is cosmetic: it clears its line.
        let _ = watch.join();
    }
    report.map_err(|why| why.to_string())
}

fn watch(progress: &Progress, over: &AtomicBool, plan: &Plan, limit: Duration, told: Told) {
    let (start, mut err) = (real_now(), io::stderr());
    let shows = err.is_terminal();
    while !over.load(Ordering::Relaxed) {
        thread::park_timeout(LOOK_EVERY);
        let real = start.elapsed();
        let ms = progress.virtual_ms.load(Ordering::Relaxed);
        let events = progress.events.load(Ordering::Relaxed);
        if shows {
            let (virtual_s, real_s) = (ms as f64 / 1000.0, real.as_secs_f64());
            // A line that cannot be shown is not missed.
            let _ = write!(
                err,
                "\r{virtual_s:7.1} s virtual (story: {:?}), {real_s:.1} s real, {events} events ",
                plan.duration
            );
            let _ = err.flush();
        }
        if real >= limit {
            let why =
                format!("it is not over after {limit:?}; virtual time {ms} ms, {events} events");
            let report = Report {
                verdict: Verdict::TimedOut,
                virtual_time: Duration::from_millis(ms),
                complaints: vec![why.clone()],
                ..Report::default()
            };
            match told {
                Told::Text => {
                    out::line(format_args!("\nverdict  {}\n         {why}", Verdict::TimedOut))
                }
                Told::Data => {
                    out::line(format_args!("{}", data(&Summary::new(plan, &report, real))))
                }
            }
            std::process::exit(Verdict::TimedOut.code().into());
        }
    }
    if shows {
        // As above.
        let _ = write!(err, "\r\x1b[K");
        let _ = err.flush();
    }
}
