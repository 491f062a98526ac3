//! `real`: one story on real processes, one verdict.

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

use chatchat_scenarios::{plan::Plan, story::Story};
use chatchat_sim::{
    real::{self, Options, RealError},
    summary::Summary,
};
use tokio::sync::Notify;

use super::out;

/// Time that start and end may take beyond the plan's own bounds.
const SLACK: Duration = Duration::from_secs(240);
/// Time of a run beside the story's own: until all are up, until all is quiet, the last reading.
const ENDING: Duration = Duration::from_secs(23);
const SHOW_EVERY: Duration = Duration::from_millis(500);
pub(super) fn run(asked: &super::Real) -> Result<ExitCode, String> {
    let story = Story::load(&asked.story).map_err(|why| why.to_string())?;
    let plan = Plan::expand(&story, asked.seed);
    let interrupt = Arc::new(Notify::new());
    let on_interrupt = Arc::clone(&interrupt);
    ctrlc::set_handler(move || on_interrupt.notify_one())
        .map_err(|why| format!("the interrupt cannot be caught: {why}"))?;
    let limit = plan.duration + plan.expect.recovers_within + SLACK;
    let options = Options {
        programs: match &asked.programs {
            Some(programs) => programs.clone(),
            None => real::beside_this_program()?,
        },
        keep: asked.keep,
        limit: asked.limit.map_or(limit, Duration::from_secs),
        interrupt,
    };
    real::check(&story, &plan, &options).map_err(|why| why.to_string())?;
    if !asked.json {
        out::text(format_args!("{plan}"));
    }
    let start = super::once::real_now();
    let (over, lasts) = (Arc::new(AtomicBool::new(false)), plan.duration + ENDING);
    let ends = Arc::clone(&over);
    let shows = thread::Builder::new().name("progress".to_owned()).spawn(move || {
        show(&ends, start, lasts);
    });
    let ran = real::run(&story, &plan, &options);
    over.store(true, Ordering::Relaxed);
    if let Ok(shows) = shows {
        // Its end is cosmetic: it clears its line.
        let _ = shows.join();
    }
    let report = match ran {
        Ok(report) => report,
        Err(RealError::Interrupted) => {
            eprintln!("chatchat-sim: interrupted");
            return Ok(ExitCode::from(super::INTERRUPTED));
        }
        Err(why) => return Err(why.to_string()),
    };
    if let Some(path) = &asked.log {
        let text = report.log.join("\n") + "\n";
        fs::write(path, text).map_err(|why| format!("{}: {why}", path.display()))?;
    }
    if asked.json {
        out::line(format_args!(
            "{}",
            super::once::data(&Summary::new(&plan, &report, start.elapsed()))
        ));
    } else {
        out::text(format_args!("{}", report.block(&plan, None)));
    }
    Ok(report.verdict.into())
}

/// Tells on a terminal how far the run is.
fn show(over: &AtomicBool, start: Instant, lasts: Duration) {
    let mut err = io::stderr();
    if !err.is_terminal() {
        return;
    }
    while !over.load(Ordering::Relaxed) {
        // A line that cannot be shown is not missed.
        let _ = write!(
            err,
            "\r{:5.0} s of about {:.0} s ",
            start.elapsed().as_secs_f64(),
            lasts.as_secs_f64()
        );
        let _ = err.flush();
        thread::park_timeout(SHOW_EVERY);
    }
    // As above.
    let _ = write!(err, "\r\x1b[K");
    let _ = err.flush();
}
