//! `list`: the stories of this project, each with its sentence.

use std::process::ExitCode;

use chatchat_scenarios::story::Story;

use super::out;

pub(super) fn run() -> Result<ExitCode, String> {
    let names = Story::names();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    let mut refused = Vec::new();
    for name in &names {
        match Story::load(name) {
            Ok(story) => out::line(format_args!("{name:<width$}  {}", story.about)),
            Err(why) => refused.push(why.to_string()),
        }
    }
    if refused.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(refused.join("\n")) }
}
