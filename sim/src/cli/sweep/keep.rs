//! Failures on disk: `FOLDER/STORY/seed-N/` with summary, verdict and replay commands.
//!
//! A campaign overwrites what an earlier one kept of the same story and seed, and nothing else.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use chatchat_scenarios::{plan::Plan, story::Story};
use chatchat_sim::summary::Summary;

use crate::cli::child::Job;

/// Keeps a failure. Answers its folder.
///
/// # Errors
/// The system's.
pub(super) fn keep(folder: &Path, job: &Job, summary: &Summary) -> io::Result<PathBuf> {
    let story = if summary.story.is_empty() { "unknown" } else { &summary.story };
    let folder = folder.join(story).join(format!("seed-{}", job.seed));
    fs::create_dir_all(&folder)?;
    let data = serde_json::to_string_pretty(summary).map_err(io::Error::other)?;
    fs::write(folder.join("summary.json"), data + "\n")?;
    fs::write(folder.join("verdict.txt"), text(job, summary))?;
    if let Ok(story) = Story::load(&job.story) {
        let about = format!("{} with seed {}, written down as it was drawn.", story.name, job.seed);
        let plan = Plan::expand(&story, job.seed).to_story(&about);
        fs::write(folder.join("plan.toml"), plan)?;
    }
    Ok(folder)
}

fn text(job: &Job, summary: &Summary) -> String {
    let mut text = format!("verdict  {}\n", summary.verdict);
    for complaint in &summary.complaints {
        text.push_str(&format!("         {complaint}\n"));
    }
    text.push_str(&format!("story    {}, seed {}\n", summary.story, summary.seed));
    text.push_str(&format!("build    {}\ndigest   {}\n", summary.build, summary.digest));
    for (nth, fault) in summary.faults.iter().enumerate() {
        let course = match (fault.began, fault.bit) {
            (false, _) => "never began",
            (true, false) => "never touched anything",
            (true, true) => "bit",
        };
        let head = if nth == 0 { "faults" } else { "" };
        text.push_str(&format!("{head:<8} {}: {course}\n", fault.text));
    }
    text.push_str(&format!("replay   {}\n", job.replay()));
    text
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use chatchat_sim::verdict::Verdict;

    use super::*;

    #[test]
    fn failure_is_kept_with_its_replay_command_and_reads_back() {
        let root = env::temp_dir().join(format!("chatchat-sim-keep-{}", process::id()));
        let job = Job { story: "path/storm.toml".to_owned(), seed: 9 };
        let summary = Summary {
            story: "storm".to_owned(),
            seed: 9,
            verdict: Verdict::Safety,
            complaints: vec!["G1 durable ack: a post is gone".to_owned()],
            ..Summary::default()
        };
        let folder = keep(&root, &job, &summary).expect("a temporary folder");
        assert_eq!(folder, root.join("storm/seed-9"));
        let verdict = fs::read_to_string(folder.join("verdict.txt")).expect("it was written");
        assert!(verdict.contains("chatchat-sim run path/storm.toml --seed 9"), "{verdict}");
        assert!(verdict.contains("a post is gone"), "{verdict}");
        let data = fs::read_to_string(folder.join("summary.json")).expect("it was written");
        assert_eq!(serde_json::from_str::<Summary>(&data).expect("reads back"), summary);
        fs::remove_dir_all(root).expect("it is ours");
    }
}
