//! Tables that a campaign prints at its end.

use std::fmt::Write as _;

use chatchat_sim::verdict::Verdict;

use super::{
    histogram::{CLASSES_MS, Histogram},
    tally::End,
};

/// Heights of a bar, lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Returns the whole summary.
pub(super) fn text(end: &End) -> String {
    let parts = [
        stories(end),
        probes(end),
        kinds(end),
        roles(end),
        streams_again(end),
        failures(end),
        sums(end),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Lays cells out in columns; the first is flush left, the others flush right.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |nth: usize| {
        let cells = rows.iter().filter_map(|row: &Vec<String>| row.get(nth));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (nth, cell) in row.iter().enumerate() {
            let width = widths[nth];
            // Writing to a String cannot fail.
            let _ = match nth {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn shown(count: usize) -> String {
    if count == 0 { ".".to_owned() } else { count.to_string() }
}

fn stories(end: &End) -> String {
    let mut rows = vec![vec!["story".to_owned()]];
    rows[0].extend(Verdict::ALL.iter().map(ToString::to_string));
    rows[0].push("runs".to_owned());
    let mut sums = [0; Verdict::ALL.len()];
    for (story, verdicts) in &end.stories {
        let mut row = vec![story.clone()];
        for (sum, verdict) in sums.iter_mut().zip(Verdict::ALL) {
            let count = verdicts.get(&verdict).copied().unwrap_or(0);
            *sum += count;
            row.push(shown(count));
        }
        row.push(shown(verdicts.values().sum()));
        rows.push(row);
    }
    if end.stories.len() > 1 {
        let mut row = vec!["all".to_owned()];
        row.extend(sums.map(shown));
        row.push(shown(end.runs));
        rows.push(row);
    }
    columns(&rows)
}

fn probes(end: &End) -> String {
    if end.probes.is_empty() {
        return String::new();
    }
    let mut rows = vec![["probe", "runs", "times"].map(str::to_owned).to_vec()];
    for (probe, row) in &end.probes {
        let times = if row.times == 0 { "NEVER".to_owned() } else { row.times.to_string() };
        rows.push(vec![probe.clone(), shown(row.runs), times]);
    }
    columns(&rows)
}

fn kinds(end: &End) -> String {
    if end.kinds.is_empty() {
        return String::new();
    }
    let mut rows = vec![head(&["kind", "planned", "began", "bit"])];
    for (kind, row) in &end.kinds {
        let bit = if row.bit == 0 { "NEVER".to_owned() } else { row.bit.to_string() };
        let mut cells = vec![(*kind).to_owned(), shown(row.planned), shown(row.began), bit];
        cells.extend(row.recovery.iter().flat_map(times));
        rows.push(cells);
    }
    let about = "recovery: the longest wait for an acknowledgement while a fault stood\n";
    columns(&rows) + about
}

/// Returns the recovery times by the role of what was hit.
fn roles(end: &End) -> String {
    let roles = end.roles.iter().map(|(role, histogram)| (role.name(), histogram));
    histograms(["recovery by role", "faults"], roles)
}

/// Returns the times until clients of a dead master streamed again, by the kind of its death.
fn streams_again(end: &End) -> String {
    let kinds = end.streams_again.iter().map(|(kind, histogram)| (*kind, histogram));
    let table = histograms(["streams after", "clients"], kinds);
    if table.is_empty() {
        return table;
    }
    table + "streams: from a master's death until each client that read there streams again\n"
}

/// Returns a table of histograms, each with its name and its number of times; nothing without one.
fn histograms<'a>(
    heads: [&str; 2],
    named: impl Iterator<Item = (&'static str, &'a Histogram)>,
) -> String {
    let mut rows = vec![head(&heads)];
    for (name, histogram) in named {
        let count = histogram.classes.iter().sum::<usize>() + histogram.never;
        let mut cells = vec![name.to_owned(), shown(count)];
        cells.extend(times(histogram));
        rows.push(cells);
    }
    if rows.len() > 1 { columns(&rows) } else { String::new() }
}

/// Returns the heads of columns, these and those of a histogram.
fn head(first: &[&str]) -> Vec<String> {
    let parts = ["median", "90 %", "99 %", "longest"];
    let mut head: Vec<_> = first.iter().chain(&parts).map(|it| (*it).to_owned()).collect();
    head.extend(CLASSES_MS.map(|bound| format!("≤{}", span(bound))));
    head.extend(["more", "never", ""].map(str::to_owned));
    head
}

/// Returns the cells of a histogram: numbers, then bars.
fn times(histogram: &Histogram) -> Vec<String> {
    let time = |ms: Option<u64>| ms.map_or_else(|| "never".to_owned(), span);
    let parts = [histogram.p50_ms, histogram.p90_ms, histogram.p99_ms];
    let mut cells: Vec<_> = parts.into_iter().map(time).collect();
    cells.push(span(histogram.max_ms));
    cells.extend(histogram.classes.iter().copied().map(shown));
    cells.extend([shown(histogram.never), bars(histogram)]);
    cells
}

fn span(ms: u64) -> String {
    if ms < 1000 { format!("{ms}ms") } else { format!("{:.1}s", ms as f64 / 1000.0) }
}

fn bars(histogram: &Histogram) -> String {
    let counts = histogram.classes.iter().copied().chain([histogram.never]);
    let most = counts.clone().max().unwrap_or(0).max(1);
    let bar = |count: usize| match count {
        0 => ' ',
        // The highest bar is the last one; what is there at all is seen.
        _ => BARS[((count * BARS.len()).div_ceil(most) - 1).min(BARS.len() - 1)],
    };
    let bars: String = counts.map(bar).collect();
    format!("|{bars}|")
}

fn failures(end: &End) -> String {
    let mut text = String::new();
    for failure in &end.failures {
        let _ = writeln!(
            text,
            "{} seed {}: {}\n  {}\n  replay  {}",
            failure.story, failure.seed, failure.verdict, failure.complaint, failure.replay
        );
        if let Some(kept) = &failure.kept {
            let _ = writeln!(text, "  kept    {}", kept.display());
        }
    }
    text
}

fn sums(end: &End) -> String {
    let mut text = String::new();
    for missed in &end.missed {
        let _ = writeln!(text, "never seen  {missed}");
    }
    for why in &end.refused {
        let _ = writeln!(text, "refused  {why}");
    }
    if end.interrupted {
        let _ = writeln!(text, "interrupted after {} of {} runs", end.runs, end.wanted);
    }
    let _ = write!(
        text,
        "verdict  {}\nbuild    {}\nruns     {} in {:.1} s, {} at a time: {:.2} seeds a second\n\
         time     {:.2} virtual hours: {:.0} an hour\ncalls    {}, {} answered well\n",
        end.verdict,
        end.build,
        end.runs,
        end.real_seconds,
        end.jobs,
        end.seeds_per_second,
        end.virtual_hours,
        end.virtual_hours_per_hour,
        end.calls,
        end.answered
    );
    text
}

#[cfg(test)]
mod tests {
    use chatchat_sim::hits::Hit;

    use super::{
        super::tally::{FailureRow, KindRow, ProbeRow},
        *,
    };

    #[test]
    fn tables_show_stories_probes_kinds_failures_and_what_was_never_seen() {
        let histogram = Histogram {
            p50_ms: Some(90),
            p90_ms: None,
            p99_ms: None,
            max_ms: 2400,
            classes: vec![8, 1, 0, 0, 0, 2, 0, 0, 0],
            never: 2,
        };
        let streams = Histogram {
            p50_ms: Some(420),
            p90_ms: Some(1300),
            p99_ms: Some(1900),
            max_ms: 2100,
            classes: vec![0, 20, 160, 40, 29, 1, 0, 0, 0],
            never: 0,
        };
        let end = End {
            verdict: Verdict::Safety,
            build: "(this build)".to_owned(),
            interrupted: true,
            runs: 3,
            wanted: 4,
            jobs: 2,
            real_seconds: 1.5,
            seeds_per_second: 2.0,
            virtual_hours: 0.05,
            virtual_hours_per_hour: 120.0,
            calls: 3000,
            answered: 2990,
            stories: [
                ("calm".to_owned(), [(Verdict::Holds, 2)].into()),
                ("storm".to_owned(), [(Verdict::Safety, 1)].into()),
            ]
            .into(),
            probes: [
                ("a batch was split".to_owned(), ProbeRow::default()),
                ("a person posted".to_owned(), ProbeRow { runs: 3, times: 900 }),
            ]
            .into(),
            roles: [(Hit::Coordinator, histogram.clone()), (Hit::BusyWorker, histogram.clone())]
                .into(),
            streams_again: [("exit", streams)].into(),
            kinds: [
                ("crash", KindRow { planned: 14, began: 13, bit: 13, recovery: Some(histogram) }),
                ("pause", KindRow { planned: 1, began: 0, bit: 0, recovery: None }),
            ]
            .into(),
            missed: vec!["probe: a batch was split".to_owned()],
            failures: vec![FailureRow {
                story: "storm".to_owned(),
                seed: 1,
                verdict: Verdict::Safety,
                failures: Vec::new(),
                complaint: "G1 durable ack: a post is gone".to_owned(),
                kept: Some("failures/storm/seed-1".into()),
                replay: "chatchat-sim run storm --seed 1".to_owned(),
            }],
            refused: Vec::new(),
        };
        insta::assert_snapshot!(text(&end));
        let refused = End { refused: vec!["x.toml:3: why".to_owned()], ..end };
        assert!(text(&refused).contains("\nrefused  x.toml:3: why\n"));
    }
}
