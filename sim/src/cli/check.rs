//! `check`: reads a story, expands it by a seed and says what a run would do.

use std::process::ExitCode;

use chatchat_scenarios::{oracle, plan::Plan, story::Story};
use chatchat_sim::{faults, real};

use super::out;

pub(super) fn run(check: &super::Check) -> Result<ExitCode, String> {
    let mut refused = Vec::new();
    for name in &check.stories {
        match told(name, check.seed) {
            Ok(text) => out::text(format_args!("{text}")),
            Err(why) => refused.push(why),
        }
    }
    if refused.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(refused.join("\n")) }
}

fn told(name: &str, seed: u64) -> Result<String, String> {
    let story = Story::load(name).map_err(|why| why.to_string())?;
    faults::check_story(&story).map_err(|why| why.to_string())?;
    let plan = Plan::expand(&story, seed);
    let mut text = format!("{}\n{plan}", story.about);
    if let Some(swarm) = &story.swarm {
        let kinds: Vec<_> = swarm.kinds.iter().map(|kind| kind.name()).collect();
        let drawn = plan.faults.len() - plan.named;
        text.push_str(&format!(
            "  {} of these faults are from the story; this seed drew {drawn} from {}\n",
            plan.named,
            kinds.join(", ")
        ));
    }
    let (of_oracles, others): (Vec<_>, Vec<_>) =
        plan.expect.properties.iter().partition(|property| oracle::is_judged(**property));
    let numbers = |properties: Vec<&chatchat_scenarios::property::Property>| {
        properties.iter().map(|property| property.number()).collect::<Vec<_>>().join(" ")
    };
    text.push_str(&format!("  judged by oracles: {}\n", numbers(of_oracles)));
    if !others.is_empty() {
        text.push_str(&format!("  judged otherwise or not yet: {}\n", numbers(others)));
    }
    text.push_str(&format!(
        "  works again within {:?} after the faults, or the run fails\n",
        plan.expect.recovers_within
    ));
    if let Some(at_most) = plan.expect.waits_at_most {
        text.push_str(&format!(
            "  no post waits longer than {at_most:?}, also while faults stand\n"
        ));
    }
    match real::suits(&story, &plan) {
        Ok(()) => text.push_str("  real processes can carry it out\n"),
        Err(why) => {
            text.push_str("  real processes cannot carry it out:\n");
            text.extend(why.0.iter().map(|line| format!("    {line}\n")));
        }
    }
    Ok(text)
}
