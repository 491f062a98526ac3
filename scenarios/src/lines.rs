//! Lines of a story file, so that a refusal says where to look.

/// Returns the number of the line at a byte of a text, from 1.
pub(crate) fn number(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    1 + before.filter(|byte| **byte == b'\n').count()
}

/// Returns the line that a refusal is about: that of the key or value which `why` names, within
/// the part `place` (such as `fault 2` or `workload`), else that of the part's head.
pub(crate) fn of_place(text: &str, place: &str, why: &str) -> usize {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let is_head = |line: &str| line.starts_with('[');
    let head = match place.strip_prefix("fault ").and_then(|nth| nth.parse::<usize>().ok()) {
        Some(nth) => {
            let faults = lines.iter().enumerate().filter(|(_, line)| line.starts_with("[[fault]]"));
            faults.map(|(at, _)| at).nth(nth.saturating_sub(1))
        }
        None => lines.iter().position(|line| {
            is_head(line) && line.trim_start_matches('[').starts_with(place) || is_key(line, place)
        }),
    };
    let Some(head) = head else { return 1 };
    let body = lines.iter().enumerate().skip(head + 1);
    let mut body = body.take_while(|(_, line)| !is_head(line) || !line.starts_with("[["));
    let named: Vec<&str> = words(why);
    let about = body.find(|(_, line)| {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let value = value.trim().trim_matches('"');
        let key = key.trim();
        !key.is_empty()
            && named.iter().any(|word| {
                *word == key
                    || word.rsplit('.').next() == Some(key)
                    || !value.is_empty() && *word == value
            })
    });
    1 + about.map_or(head, |(at, _)| at)
}

fn is_key(line: &str, key: &str) -> bool {
    line.split_once('=').is_some_and(|(left, _)| left.trim() == key)
}

/// Returns the words of a sentence without the marks around them.
fn words(text: &str) -> Vec<&str> {
    let is_mark = |c: char| matches!(c, '`' | '"' | ',' | ';' | ':' | '.' | '(' | ')');
    let words = text.split_whitespace().map(|word| word.trim_matches(is_mark));
    words.filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "about = \"a\"\nduration = \"0s\"\n[workload]\npeople = 3\nboards = []\n\
                        [[fault]]\nat = \"1s\"\n[[fault]]\nkind = \"crash\"\ntarget = \"worker:9\"\n";

    #[test]
    fn refusal_is_found_at_its_key_at_its_value_or_at_its_head() {
        for (place, why, line) in [
            ("duration", "is zero", 2),
            ("workload", "`boards` is empty", 5),
            ("workload", "`habits.people` is odd", 4),
            ("fault 1", "`kind` is missing", 6),
            ("fault 2", "worker:9: there are 3 workers, numbered from 0", 10),
            ("cluster", "is not there", 1),
        ] {
            assert_eq!(of_place(TEXT, place, why), line, "{place}: {why}");
        }
        assert_eq!(number(TEXT, 0), 1);
        assert_eq!(number(TEXT, 13), 2);
    }
}
