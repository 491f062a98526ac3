//! Table of the planted bugs and of what finds them, as Markdown.

use std::fmt::Write as _;

use chatchat_sim::bugs::Bug;

use super::hunt::Found;

/// Bug, and what became of the hunts for it.
pub(super) struct Row {
    pub(super) bug: Bug,
    /// Result of each start.
    pub(super) found: Vec<Option<Found>>,
    /// Faults in the smallest plan.
    pub(super) faults: Option<usize>,
    /// Reason why it could not be hunted.
    pub(super) why: Option<String>,
}

impl Row {
    /// Returns whether every start found it.
    pub(super) fn is_found(&self) -> bool {
        !self.found.is_empty() && self.found.iter().all(Option::is_some)
    }

    /// Returns the median of the seeds needed; a start that found nothing counts as the most.
    fn median(&self) -> Option<u64> {
        let mut seeds: Vec<_> =
            self.found.iter().map(|it| it.as_ref().map_or(u64::MAX, |it| it.seeds)).collect();
        seeds.sort_unstable();
        seeds.get(seeds.len() / 2).copied().filter(|seeds| *seeds != u64::MAX)
    }

    /// Returns the row in a line, for the progress.
    pub(super) fn line(&self) -> String {
        let first = self.found.iter().flatten().next();
        match (first, &self.why) {
            (_, Some(why)) => format!("{}: {why}", self.bug.name),
            (None, None) => format!("{}: not found", self.bug.name),
            (Some(found), None) => format!(
                "{}: {} by {} after {} seeds",
                self.bug.name, found.failure.rule, found.job.story, found.seeds
            ),
        }
    }
}

/// Returns the table.
pub(super) fn text(rows: &[Row], seeds_max: u64) -> String {
    let mut text = String::from(
        "| Bug | Breaks | Found by | Rule | Seeds (median) | Faults |\n|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (bug, property) = (&row.bug.name, row.bug.property.number());
        let first = row.found.iter().flatten().next();
        let (story, rule) = first.map_or_else(
            || (row.why.clone().unwrap_or_else(|| "**not found**".to_owned()), String::new()),
            |found| (format!("`{}`", found.job.story), format!("`{}`", found.failure.rule)),
        );
        let median = row.median().map_or_else(|| format!("> {seeds_max}"), |it| it.to_string());
        let faults = row.faults.map_or_else(String::new, |faults| faults.to_string());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {bug} | {property} | {story} | {rule} | {median} | {faults} |");
    }
    let found = rows.iter().filter(|row| row.is_found()).count();
    let _ = writeln!(text, "\n{found} of {} found from every start.", rows.len());
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use chatchat_scenarios::property::Property;
    use chatchat_sim::summary::Failure;

    use super::*;
    use crate::cli::child::Job;

    fn row(name: &str, seeds: &[Option<u64>]) -> Row {
        let found = |seeds: &Option<u64>| {
            seeds.map(|seeds| Found {
                seeds,
                job: Job { story: "storm".to_owned(), seed: 4 },
                failure: Failure { property: "G8".to_owned(), rule: "g08.two".to_owned() },
            })
        };
        let bug = Bug {
            name: name.to_owned(),
            property: Property::G8,
            about: "a test".to_owned(),
            file: PathBuf::from("src/x.rs"),
            diff: String::new(),
        };
        Row { bug, found: seeds.iter().map(found).collect(), faults: Some(2), why: None }
    }

    #[test]
    fn median_counts_a_start_that_found_nothing_as_the_most() {
        assert_eq!(row("a", &[Some(9), None, Some(4)]).median(), Some(9));
        assert_eq!(row("a", &[None, None, Some(4)]).median(), None);
        assert!(!row("a", &[Some(9), None, Some(4)]).is_found());
        assert!(row("a", &[Some(9)]).is_found());
    }

    #[test]
    fn table_has_a_row_for_each_bug_and_counts_those_found() {
        let rows = [row("one", &[Some(3), Some(5), Some(40)]), row("two", &[None, None, None])];
        insta::assert_snapshot!(text(&rows, 200), @r"
        | Bug | Breaks | Found by | Rule | Seeds (median) | Faults |
        |---|---|---|---|---|---|
        | one | G8 | `storm` | `g08.two` | 5 | 2 |
        | two | G8 | **not found** |  | > 200 | 2 |

        1 of 2 found from every start.
        ");
    }
}
