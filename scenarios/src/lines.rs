//! Lines of a story file, so that a refusal says where to look.

/// Returns the number of the line at a byte of a text, from 1.
pub(crate) fn number(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    1 + before.filter(|byte| **byte == b'\n').count()
}

/// Returns the line that a refusal is about: that of the first key or value which `why` names,
/// within the part `place` (such as `fault 2` or `workload`), else that of the part's head. The
/// kind of the fault, with which `why` may begin, counts only when nothing else is named.
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
    if !is_head(lines[head]) {
        return 1 + head;
    }
    let body = lines.iter().enumerate().skip(head + 1);
    let body: Vec<_> = body.take_while(|(_, line)| !line.starts_with("[[")).collect();
    let of_word = |word: &str| {
        let found = body.iter().find(|(_, line)| is_about(line, word));
        found.map(|(at, _)| *at)
    };
    let is_kind =
        |word: &str| body.iter().any(|(_, line)| is_key(line, "kind") && is_about(line, word));
    let kind = why.split_once(": ").filter(|pair| is_kind(pair.0));
    let rest = kind.map_or(why, |(_, rest)| rest);
    let about = words(rest).into_iter().find_map(of_word);
    let about = about.or_else(|| kind.and_then(|(kind, _)| of_word(kind)));
    1 + about.unwrap_or(head)
}

/// Returns whether a line has a word as its key, as its value or as one of its values.
fn is_about(line: &str, word: &str) -> bool {
    let (key, value) = line.split_once('=').unwrap_or((line, ""));
    let key = key.trim();
    let is_key = !key.is_empty() && (word == key || word.rsplit('.').next() == Some(key));
    is_key || value.trim() == word || line.contains(&format!("\"{word}\""))
}

fn is_key(line: &str, key: &str) -> bool {
    line.split_once('=').is_some_and(|(left, _)| left.trim() == key)
}

/// Returns the words of a sentence without the marks around them.
fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().map(bare).filter(|word| !word.is_empty()).collect()
}

/// Returns a word without the marks around it. A target keeps the brackets that are its own.
fn bare(word: &str) -> &str {
    let is_mark = |c: char| matches!(c, '`' | '"' | ',' | ';' | ':' | '.');
    let word = word.trim_matches(is_mark);
    if word.contains('(') && !word.starts_with('(') {
        return word;
    }
    word.trim_matches(|c: char| is_mark(c) || matches!(c, '(' | ')'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "about = \"a\"\nduration = \"0s\"\n[workload]\npeople = 3\nboards = []\n\
                        [[fault]]\nat = \"1s\"\n[[fault]]\nkind = \"crash\"\ntarget = \"worker:9\"\n\
                        [[fault]]\nkind = \"exit\"\ntargets = [\"*\", \"worker:8\"]\n\
                        to = \"cordinator(board:dev)\"\n";

    #[test]
    fn refusal_is_found_at_its_key_at_its_value_or_at_its_head() {
        for (place, why, line) in [
            ("duration", "is zero", 2),
            ("workload", "`boards` is empty", 5),
            ("workload", "`habits.people` is odd", 4),
            ("fault 1", "`kind` is missing", 6),
            ("fault 2", "worker:9: there are 3 workers, numbered from 0", 10),
            ("fault 2", "crash: worker:9: there are 3 workers, numbered from 0", 10),
            ("fault 2", "crash: `when` is missing", 9),
            ("fault 3", "exit: cordinator(board:dev) is no target", 14),
            ("fault 3", "exit: \"worker:8\" is no target (want another)", 13),
            ("cluster", "is not there", 1),
        ] {
            assert_eq!(of_place(TEXT, place, why), line, "{place}: {why}");
        }
        assert_eq!(number(TEXT, 0), 1);
        assert_eq!(number(TEXT, 13), 2);
    }
}
