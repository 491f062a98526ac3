//! Refusal of stories that real processes cannot carry out, before anything is started.

use std::collections::BTreeSet;

use chatchat::model::event::FaultPoint;
use chatchat_scenarios::{
    fault::{Action, Kind, Start},
    plan::Plan,
    story::Story,
    target::{Place, Target},
};
use thiserror::Error;

/// A story asks for something that cannot be carried out on real processes. Nothing was started.
#[derive(Debug, Error)]
#[error("{}", .0.join("\n"))]
pub struct Refused(pub Vec<String>);

/// Says why a kind of fault cannot break lines here; nothing for one that can, or that breaks none.
pub type WhyNoLine = fn(Kind) -> Option<&'static str>;

/// Fault points that nodes tell of in time, and places to read them.
const POINTS: [FaultPoint; 3] =
    [FaultPoint::AssignSent, FaultPoint::TokenRaised, FaultPoint::LeaseGranted];

/// Returns why a kind of fault cannot be carried out on real processes; nothing for one that can.
#[must_use]
pub const fn obstacle(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Crash
        | Kind::Exit
        | Kind::Pause
        | Kind::Slow
        | Kind::Wipe
        | Kind::Stop
        | Kind::Restart
        | Kind::Partition
        | Kind::Delay
        | Kind::Bandwidth
        | Kind::Loss
        | Kind::ConnectHang
        | Kind::PersonRestart
        | Kind::Expel => None,
        Kind::Reset | Kind::HalfOpen | Kind::Corrupt | Kind::Inject => {
            Some("packets between real nodes are held up or lost, never made or changed")
        }
        Kind::Swizzle => Some("a real node cannot be cut off from the store, which is a file"),
        Kind::Torn | Kind::BitRot | Kind::SyncSlow | Kind::SyncError | Kind::DiskFull => {
            Some("the disk is this machine's")
        }
        Kind::ClockOffset | Kind::ClockDrift | Kind::ClockJump => {
            Some("all processes share this machine's clock")
        }
        Kind::LostAck | Kind::StoreError => {
            Some("every node opens the store's file itself: nothing stands between")
        }
        Kind::StoreConflict | Kind::StorePool | Kind::StorePromote => {
            Some("the store is a file: it has no server whose connections and standbys could fail")
        }
        Kind::FdLimit => Some("the system would count a process's files as well as its sockets"),
        Kind::Clone => Some("no second process with a node's identity is started"),
        Kind::Rollback => Some("no copies of the disk are kept"),
        Kind::Restore => {
            Some("`chatctl restore` refuses a store that nodes use, and here they run")
        }
        Kind::Stranger => Some("a stranger needs recorded bytes, and no real line is tapped"),
    }
}

/// Checks that real processes can carry out a plan of this story. `why_no_line` says why a kind of fault cannot
/// break lines here.
///
/// # Errors
/// [`Refused`] with a line for each thing that cannot be: file, line, and what would be right.
pub fn check(story: &Story, plan: &Plan, why_no_line: WhyNoLine) -> Result<(), Refused> {
    let mut refused = Vec::new();
    for (nth, fault) in plan.faults.iter().enumerate() {
        let is_named = nth < plan.named;
        let part = if is_named { format!("fault {}", nth + 1) } else { "swarm".to_owned() };
        if let Some((word, why)) = why_not(&fault.start, &fault.action, why_no_line) {
            let word = if is_named { word } else { "kinds".to_owned() };
            let at = story.line_of(&part, &word);
            refused.push(format!("{at}: {part}: {}: {why}", fault.action.kind().name()));
        }
    }
    if plan.cluster.upgrade {
        let at = story.line_of("cluster", "upgrade");
        let why = "every node is started from one program; leave it out";
        refused.push(format!("{at}: cluster: `upgrade`: {why}"));
    }
    if plan.expect.core {
        let at = story.line_of("expect", "core");
        let why = "a real node cannot be cut off from the store, which is a file; leave it out";
        refused.push(format!("{at}: expect: `core`: {why}"));
    }
    // A swarm asks for the same thing again and again.
    let mut seen = BTreeSet::new();
    refused.retain(|line| seen.insert(line.clone()));
    if refused.is_empty() { Ok(()) } else { Err(Refused(refused)) }
}

/// Returns the word of the story that asks for too much, and why it does.
fn why_not(start: &Start, action: &Action, why_no_line: WhyNoLine) -> Option<(String, String)> {
    let kind = action.kind();
    if let Some(why) = obstacle(kind) {
        let can = Kind::ALL.iter().filter(|kind| obstacle(**kind).is_none());
        let can: Vec<_> = can.map(|kind| kind.name()).collect();
        let why = format!("{why}; real processes can be given {}", can.join(", "));
        return Some((kind.name().to_owned(), why));
    }
    if let Some(why) = why_no_line(kind) {
        return Some((
            kind.name().to_owned(),
            format!("{why}, without which no line can be given this fault"),
        ));
    }
    if let Start::When { point, .. } = start
        && !POINTS.contains(point)
    {
        let can: Vec<_> = POINTS.iter().map(|point| point.name()).collect();
        let why = format!(
            "`{}` is over before anybody outside of the node can know; want `at`, or {}",
            point.name(),
            can.join(", ")
        );
        return Some((point.name().to_owned(), why));
    }
    if kind == Kind::PersonRestart {
        return None;
    }
    action.targets().into_iter().find_map(|target| {
        let why = match target {
            Target::One(Place::Store) | Target::Everything => {
                "the store of real nodes is a file, which has no process and no line; want \
                 masters and workers"
            }
            Target::One(Place::Person(_)) | Target::People => {
                "real people share the process that runs the story; want masters and workers"
            }
            _ => return None,
        };
        Some((target.to_string(), format!("{target}: {why}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_LINES: WhyNoLine = |_| None;

    fn refusals(faults: &str, why_no_line: WhyNoLine) -> String {
        let text = format!(
            "about = \"a test\"\nduration = \"20s\"\n[cluster]\nmasters = 2\nworkers = 1\n{faults}"
        );
        let story = Story::parse("test", &text).expect("a story");
        let plan = Plan::expand(&story, 1);
        check(&story, &plan, why_no_line).err().map_or_else(String::new, |why| why.to_string())
    }

    #[test]
    fn fault_that_cannot_be_carried_out_is_refused_with_its_line_and_a_remedy() {
        let faults = r#"
[[fault]]
at = "5s"
kind = "clock_jump"
target = "worker:0"
by = "5s"
[[fault]]
at = "5s"
kind = "pause"
target = "store"
for = "4s"
[[fault]]
when = "ack_sent"
kind = "exit"
target = "announcer"
for = "4s"
[[fault]]
at = "6s"
kind = "partition"
from = "master:0"
to = "worker:0"
for = "4s"
[[fault]]
at = "7s"
kind = "crash"
target = "person:1"
for = "4s"
"#;
        let why_no_line: WhyNoLine =
            |kind| (kind == Kind::Partition).then_some("network namespaces need root");
        insta::assert_snapshot!(refusals(faults, why_no_line), @r"
        test:9: fault 1: clock_jump: all processes share this machine's clock; real processes can be given crash, exit, pause, slow, wipe, partition, delay, bandwidth, loss, connect_hang, stop, restart, person_restart, expel
        test:15: fault 2: pause: store: the store of real nodes is a file, which has no process and no line; want masters and workers
        test:18: fault 3: exit: `ack_sent` is over before anybody outside of the node can know; want `at`, or assign_sent, token_raised, lease_granted
        test:24: fault 4: partition: network namespaces need root, without which no line can be given this fault
        test:31: fault 5: crash: person:1: real people share the process that runs the story; want masters and workers
        ");
    }

    #[test]
    fn restore_under_running_nodes_is_refused_by_name() {
        let restore = "[[fault]]\nat = \"5s\"\nkind = \"restore\"\ntarget = \"store\"\n";
        let said = refusals(restore, ALL_LINES);
        let why = "test:8: fault 1: restore: `chatctl restore` refuses a store that nodes use";
        assert!(said.starts_with(why), "{said}");
    }

    #[test]
    fn story_that_only_ends_stops_and_cuts_is_carried_out() {
        let faults = r#"
[[fault]]
when = "assign_sent"
when_nth = 3
kind = "pause"
target = "assigned(board:lobby)"
for = "4s"
[[fault]]
at = "6s"
kind = "partition"
from = "master:*"
to = ["worker:0"]
for = "4s"
[[fault]]
at = "7s"
kind = "wipe"
target = "coordinator(board:lobby)"
for = "4s"
"#;
        assert_eq!(refusals(faults, ALL_LINES), "");
    }

    #[test]
    fn healed_core_and_kinds_of_a_swarm_are_refused_where_the_story_names_them() {
        let rest = "[swarm]\nkinds = [\"bit_rot\"]\nper_minute = 30.0\n[expect]\nall = true\n\
                    core = true\n";
        let said = refusals(rest, ALL_LINES);
        let lines: Vec<_> = said.lines().map(|line| line.split(": ").next()).collect();
        assert_eq!(lines, [Some("test:7"), Some("test:11")], "{said}");
    }
}
