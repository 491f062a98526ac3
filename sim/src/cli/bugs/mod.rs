//! `bugs`: plants bugs into a copy of the tree, builds it, and hunts for each.
//!
//! 1. One seed is one run: seed after seed takes the next story in turn.
//! 2. A bug is found by the first run that fails while the same run holds, or fails otherwise, in a
//!    build without any bug. A run that never comes to a bug's switch is the same with it, and is
//!    counted without being carried out.
//! 3. All bugs stand in one program, each behind a switch. One that cannot gets a build of its own,
//!    made while another is hunted. The copy lies at a fixed path with a target folder of its own,
//!    and only files that differ are written, so that such a build is a small one.

mod hunt;
mod switch;
mod table;
mod tree;

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::Duration,
};

use chatchat_scenarios::story::Story;
use chatchat_sim::{
    bugs::{Bug, root},
    verdict::Verdict,
};

use self::{
    hunt::{Found, Hunt},
    table::Row,
    tree::Tree,
};

use super::{child::Program, out};

pub(super) fn run(bugs: &super::Bugs) -> Result<ExitCode, String> {
    let planted = chosen(&bugs.names)?;
    let stories = if bugs.story.is_empty() { Story::names() } else { bugs.story.clone() };
    let tree = Tree::at(&root().join("target/bugs"))?;
    let alone = tree.plant_switched(&planted)?;
    eprintln!("building {} bugs behind switches", planted.len() - alone.len());
    let clean = Program { path: tree.build("switched")?, planted: None };
    let hunt = Hunt {
        clean: clean.clone(),
        folder: tree.programs(),
        stories,
        seeds: bugs.seeds,
        starts: bugs.starts.max(1),
        jobs: bugs.jobs.unwrap_or_else(super::cores).max(1),
        limit: Duration::from_secs(bugs.limit),
        known: Mutex::default(),
    };
    let mut rows = Vec::new();
    for bug in planted.into_iter().filter(|bug| !alone.contains(bug)) {
        let program = Program { planted: Some(bug.name.clone()), ..clean.clone() };
        rows.push(told(hunted(bug, &hunt, &program, bugs.shrink)));
    }
    for (bug, program) in built(alone)? {
        rows.push(told(match program {
            Err(why) => Row { bug, found: Vec::new(), faults: None, why: Some(why) },
            Ok(path) => hunted(bug, &hunt, &Program { path, planted: None }, bugs.shrink),
        }));
    }
    rows.sort_by(|one, other| one.bug.name.cmp(&other.bug.name));
    let text = table::text(&rows, bugs.seeds);
    out::text(format_args!("{text}"));
    if let Some(path) = &bugs.table {
        fs::write(path, &text).map_err(|why| format!("{}: {why}", path.display()))?;
    }
    let all_found = rows.iter().all(|row| row.is_found());
    Ok(if all_found { Verdict::Holds } else { Verdict::Toothless }.into())
}

/// Tells a row at once.
fn told(row: Row) -> Row {
    eprintln!("{}", row.line());
    row
}

/// Bug, and the path of a program that holds it alone.
type Built = (Bug, Result<PathBuf, String>);

/// Builds bugs one by one, each while the one before is hunted.
fn built(bugs: Vec<Bug>) -> Result<Receiver<Built>, String> {
    let (send, built) = sync_channel(1);
    if bugs.is_empty() {
        return Ok(built);
    }
    let builder = thread::Builder::new().name("builder".to_owned()).spawn(move || {
        let tree = Tree::at(&root().join("target/bugs"));
        for bug in bugs {
            let made = tree.as_ref().map_err(String::clone).and_then(|tree| {
                let program = tree.plant(&bug).and_then(|()| tree.build(&bug.name));
                tree.restore(&bug).and(program)
            });
            if send.send((bug, made)).is_err() {
                return;
            }
        }
    });
    builder.map_err(|why| format!("a thread cannot be started: {why}"))?;
    Ok(built)
}

/// Returns the bugs of these names, or all.
fn chosen(names: &[String]) -> Result<Vec<Bug>, String> {
    let all = Bug::all().map_err(|why| why.to_string())?;
    if names.is_empty() {
        return Ok(all);
    }
    let known: BTreeSet<_> = all.iter().map(|bug| bug.name.as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name.as_str())) {
        let near = chatchat_scenarios::nearest::nearest(unknown, known.iter().copied());
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        return Err(format!("there is no planted bug {unknown}{hint}"));
    }
    Ok(all.into_iter().filter(|bug| names.contains(&bug.name)).collect())
}

fn hunted(bug: Bug, hunt: &Hunt, program: &Program, shrinks: bool) -> Row {
    let found: Vec<Option<Found>> = hunt.hunt(program);
    let first = found.iter().flatten().next();
    let faults = first.filter(|_| shrinks).and_then(|found| hunt.shrink(&bug.name, program, found));
    Row { bug, found, faults, why: None }
}
