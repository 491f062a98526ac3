//! Nearest valid word to one that is misspelt, for refusals.

use std::collections::BTreeSet;

/// Returns the candidate that needs the fewest changed letters, if it is near enough to be meant.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = (word.chars().count() / 3).max(1) + 1;
    let distances = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    let best = distances.filter(|(distance, _)| *distance > 0 && *distance <= near).min();
    best.map(|(_, candidate)| candidate)
}

/// Returns the sentence `; did you mean ..?` for a refusal that names a wrong word first and the
/// valid ones after it, all in backticks or double quotes; nothing when none is near.
#[must_use]
pub(crate) fn hint(refusal: &str) -> String {
    let mut words = quoted(refusal).into_iter();
    let Some(wrong) = words.next() else { return String::new() };
    let valid: BTreeSet<_> = words.collect();
    nearest(wrong, valid).map_or_else(String::new, did_you_mean)
}

/// Returns the end of a refusal that names the word which was meant.
#[must_use]
pub(crate) fn did_you_mean(word: &str) -> String {
    format!("; did you mean `{word}`?")
}

fn quoted(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '"']) {
        let mark = &rest[at..=at];
        let after = &rest[at + 1..];
        let Some(end) = after.find(mark) else { break };
        words.push(&after[..end]);
        rest = &after[end + 1..];
    }
    words
}

/// Number of letters to insert, remove, replace or swap with their neighbour.
fn distance(one: &str, two: &str) -> usize {
    let (one, two): (Vec<_>, Vec<_>) = (one.chars().collect(), two.chars().collect());
    let mut rows = vec![vec![0; two.len() + 1]; one.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=two.len()).collect();
    for i in 1..=one.len() {
        for j in 1..=two.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != two[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            let swapped = i > 1 && j > 1 && one[i - 1] == two[j - 2] && one[i - 2] == two[j - 1];
            if swapped {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[one.len()][two.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_word_finds_its_neighbour_and_a_foreign_one_finds_none() {
        let kinds = ["crash", "exit", "pause", "partition"];
        for (wrong, meant) in [
            ("crush", Some("crash")),
            ("pasue", Some("pause")),
            ("partitoin", Some("partition")),
            ("thunderstorm", None),
            ("crash", None),
        ] {
            assert_eq!(nearest(wrong, kinds), meant, "{wrong}");
        }
    }

    #[test]
    fn hint_reads_the_wrong_word_and_the_valid_ones_from_the_refusal() {
        let refusal = "unknown field `peeple`, expected one of `people`, `boards`";
        assert_eq!(hint(refusal), "; did you mean `people`?");
        assert_eq!(hint("`at` is missing"), "");
        assert_eq!(hint("nothing is quoted"), "");
    }
}
