//! Runs one fault story from Rust and prints its plan and verdict.
//!
//! ```text
//! cargo run -p chatchat-sim --example run_story -- coordinator-crash 3
//! ```

use std::{error::Error, sync::Arc};

use chatchat_scenarios::{plan::Plan, story::Story};
use chatchat_sim::{run::run, verdict::Verdict};
use dst_world::{Detail, Progress};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "calm".to_owned());
    let seed = args.next().map_or(Ok(1), |text| text.parse())?;

    let story = Story::load(&name)?;
    let plan = Plan::expand(&story, seed);
    print!("{plan}");

    let report = run(&plan, Detail::Events, &Arc::new(Progress::default()))?;
    print!("{}", report.block(&plan, None));
    if report.verdict == Verdict::Holds { Ok(()) } else { Err("the story does not hold".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calm_story_holds() {
        let story = Story::load("calm").expect("it is one of the project's");
        let plan = Plan::expand(&story, 1);
        let report = run(&plan, Detail::Events, &Arc::new(Progress::default()));
        let report = report.expect("the world can carry it out");
        assert_eq!(report.verdict, Verdict::Holds, "{}", report.block(&plan, None));
    }
}
