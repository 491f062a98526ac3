//! Each rule of an oracle is named in a test: made-up evidence that the rule must refuse.

use crate::source::{code, root, rust_files, tests};

/// Words in the code of an oracle that name no rule, by file.
const NO_RULES: &[(&str, &[&str])] = &[
    ("g00_calm.rs", &["ended"]),
    ("g04_total_order.rs", &["nothing"]),
    ("g05_gap_free.rs", &["never", "none"]),
    ("g08_one_permission.rs", &["grant"]),
    ("g08_writes.rs", &["grant", "never"]),
    ("g11_membership.rs", &["master"]),
    ("g13_keys.rs", &["worker"]),
    ("g16_overload.rs", &["grant"]),
    ("stranger.rs", &["stranger"]),
];

/// Code of the world's own judges that makes a rule.
const MAKES_A_RULE: &str = "Rule { property: Property::";

#[test]
fn every_rule_of_an_oracle_stands_in_its_tests() {
    let root = root();
    let (mut oracles, mut others) = (Vec::new(), Vec::new());
    rust_files(&root.join("scenarios/src/oracle"), &mut oracles);
    rust_files(&root.join("sim/src"), &mut others);
    oracles.retain(|path| path.file_name().is_some_and(|name| is_oracle(&name.to_string_lossy())));
    others.retain(|path| code(path).join("\n").contains(MAKES_A_RULE));
    assert!(oracles.len() > 30 && others.len() > 1, "is this the tree?");
    let (mut count, mut untested) = (0, Vec::new());
    for path in oracles.into_iter().chain(others) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let no_rules = NO_RULES.iter().filter(|(file, _)| *file == name);
        let no_rules: Vec<_> = no_rules.flat_map(|(_, words)| words.iter().copied()).collect();
        let code = code(&path).join("\n");
        let tests = tests(&path);
        let rules = words(&code).filter(|word| !no_rules.contains(word));
        for rule in rules {
            count += 1;
            if !is_named(rule, &tests) {
                untested.push(format!("{name}: {rule}"));
            }
        }
    }
    assert!(count > 80, "{count} rules: are they read?");
    assert!(
        untested.is_empty(),
        "rules without made-up evidence that they must refuse, or words that belong to `NO_RULES`:\n{}",
        untested.join("\n")
    );
}

/// Returns whether a file is named as an oracle's, such as `g05_gap_free.rs`.
fn is_oracle(name: &str) -> bool {
    let number = name.strip_prefix('g').and_then(|rest| rest.split_once('_'));
    number.is_some_and(|(number, _)| is_number(number))
}

fn is_number(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the texts in quotes that may name a rule: one word of small letters and hyphens.
fn words(code: &str) -> impl Iterator<Item = &str> {
    let quoted = code.split('"').skip(1).step_by(2);
    quoted.filter(|text| {
        let is_small = |c: char| c.is_ascii_lowercase() || c == '-';
        text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(is_small)
    })
}

/// Returns whether tests name a rule in quotes, alone or after its property, such as `g05.`.
fn is_named(rule: &str, tests: &str) -> bool {
    tests.match_indices(&format!("{rule}\"")).any(|(at, _)| {
        let before = &tests[..at];
        let property = before.strip_suffix('.').and_then(|before| before.rsplit_once("\"g"));
        before.ends_with('"') || property.is_some_and(|(_, number)| is_number(number))
    })
}

#[test]
fn rule_counts_as_named_in_quotes_only() {
    for (tests, found) in [
        ("assert_eq!(rules, [\"gap\"]);", true),
        ("assert_eq!(rules, [\"g05.gap\"]);", true),
        ("assert_eq!(rules, [\"g5.gap\"]);", false),
        ("assert_eq!(rules, [\"no-gap\"]);", false),
        ("assert!(told, \"there is a gap\");", false),
        ("fn gap() {}", false),
    ] {
        assert_eq!(is_named("gap", tests), found, "{tests}");
    }
    let code =
        "found.push(broken(Property::G5, \"cursor-given\", \"a text\", [])); f(\"\", \"Ab\")";
    assert_eq!(words(code).collect::<Vec<_>>(), ["cursor-given"]);
}
