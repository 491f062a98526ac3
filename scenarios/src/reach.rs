//! Reach of faults: the sorts of places at which each kind can touch anything.
//!
//! A fault that is aimed beyond its reach would do nothing, or less than its story says, and is
//! refused before a run.

use chatchat::model::{event::FaultPoint, ids::Role};

use crate::{
    fault::{Fault, Kind, Start},
    target::{Place, Target},
};

/// Sort of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Master,
    Worker,
    Store,
    Person,
}

/// Sorts of places that a kind can hit.
struct Reach {
    sorts: &'static [Sort],
    /// Reason why it cannot hit others.
    why: &'static str,
}

const NODES: &[Sort] = &[Sort::Master, Sort::Worker];
const ALL: &[Sort] = &[Sort::Master, Sort::Worker, Sort::Store, Sort::Person];

const fn only(sorts: &'static [Sort], why: &'static str) -> Reach {
    Reach { sorts, why }
}

const fn reach(kind: Kind) -> Reach {
    match kind {
        Kind::Crash
        | Kind::Exit
        | Kind::Pause
        | Kind::Slow
        | Kind::Partition
        | Kind::Delay
        | Kind::Bandwidth
        | Kind::Loss
        | Kind::Reset
        | Kind::HalfOpen
        | Kind::ConnectHang
        | Kind::Swizzle
        | Kind::ClockOffset
        | Kind::ClockDrift
        | Kind::ClockJump
        | Kind::LostAck
        | Kind::StoreError
        | Kind::StoreConflict
        | Kind::StorePool
        | Kind::StorePromote
        | Kind::FdLimit
        | Kind::Stop
        | Kind::Restart => only(ALL, ""),
        Kind::Wipe
        | Kind::Torn
        | Kind::BitRot
        | Kind::SyncSlow
        | Kind::SyncError
        | Kind::DiskFull => {
            only(NODES, "neither the store nor people keep anything on a disk that faults act on")
        }
        Kind::Clone => only(NODES, "nobody else has an identity that a second process could use"),
        Kind::Rollback => {
            only(&[Sort::Master, Sort::Worker, Sort::Store], "people have no disk to put back")
        }
        Kind::Restore => only(&[Sort::Store], "only the store is backed up"),
        Kind::Corrupt | Kind::Inject => only(
            NODES,
            "the links to the store and to people are in clear, so that nothing could notice",
        ),
        Kind::Stranger => only(&[Sort::Master], "nobody else listens to strangers"),
        Kind::PersonRestart => only(&[Sort::Person], "nobody else has a page"),
        Kind::Expel => only(&[Sort::Worker], "operators expel nobody else"),
    }
}

/// Checks that a fault can touch every place that its targets may stand for.
pub(crate) fn check(fault: &Fault) -> Result<(), String> {
    let kind = fault.action.kind();
    let Reach { sorts, why } = reach(kind);
    for target in fault.action.targets() {
        let of_target = sorts_of(target, &fault.start);
        if of_target.iter().all(|sort| sorts.contains(sort)) {
            continue;
        }
        let is = if of_target.iter().any(|sort| sorts.contains(sort)) { "may be" } else { "is" };
        let list = |word: fn(Sort) -> &'static str, between: &str| {
            sorts.iter().map(|sort| word(*sort)).collect::<Vec<_>>().join(between)
        };
        return Err(format!(
            "{}: {target} {is} no {}: {why}; want {}",
            kind.name(),
            list(name, " or "),
            list(forms, ", ")
        ));
    }
    Ok(())
}

/// Returns whether a target of a fault may stand for the store.
pub(crate) fn may_hit_store(fault: &Fault) -> bool {
    let mut targets = fault.action.targets().into_iter();
    targets.any(|target| sorts_of(target, &fault.start).contains(&Sort::Store))
}

/// Returns the sorts of places that a target may stand for.
const fn sorts_of(target: &Target, start: &Start) -> &'static [Sort] {
    match target {
        Target::One(Place::Master(_))
        | Target::Role(Role::Master)
        | Target::Coordinator(_)
        | Target::MasterOf(_) => &[Sort::Master],
        Target::One(Place::Worker(_)) | Target::Role(Role::Worker) | Target::Assigned(_) => {
            &[Sort::Worker]
        }
        Target::One(Place::Store) => &[Sort::Store],
        Target::One(Place::Person(_)) | Target::People => &[Sort::Person],
        Target::Everything => &[Sort::Master, Sort::Worker, Sort::Store],
        Target::Random => NODES,
        Target::Announcer => match start {
            Start::At(_) => NODES,
            Start::When { point, .. } => announcers(*point),
        },
    }
}

/// Returns the sort of places that announce a fault point.
const fn announcers(point: FaultPoint) -> &'static [Sort] {
    match point {
        FaultPoint::AssignSent
        | FaultPoint::AckSent
        | FaultPoint::LeaseGranted
        | FaultPoint::TokenRaised
        | FaultPoint::KeyInstallSent => &[Sort::Master],
        FaultPoint::PendingHeld | FaultPoint::WorkerMigrating => &[Sort::Worker],
        FaultPoint::AppendCommitted => &[Sort::Store],
    }
}

const fn name(sort: Sort) -> &'static str {
    match sort {
        Sort::Master => "master",
        Sort::Worker => "worker",
        Sort::Store => "store",
        Sort::Person => "person",
    }
}

/// Returns the forms of targets that stand for a sort of places alone.
const fn forms(sort: Sort) -> &'static str {
    match sort {
        Sort::Master => "master:N, master:*, coordinator(RESOURCE), master_of(worker:N)",
        Sort::Worker => "worker:N, worker:*, assigned(RESOURCE)",
        Sort::Store => "store",
        Sort::Person => "person:N, person:*",
    }
}

#[cfg(test)]
mod tests {
    use crate::story::Story;

    const HEAD: &str =
        "about = \"a test\"\nduration = \"30s\"\n[cluster]\nmasters = 2\nworkers = 3\n";

    /// Reads a story of one fault: its kind with its keys, and the key that aims it.
    fn read(kind: &str, aim: &str) -> Result<Story, String> {
        let more = match kind {
            "bit_rot" | "corrupt" | "inject" => "rate = 0.1\n",
            "sync_slow" | "rollback" => "by = \"1s\"\n",
            _ => "",
        };
        let start = if aim.contains("announcer") { "" } else { "at = \"9s\"\n" };
        let text = format!("{HEAD}[[fault]]\n{start}kind = \"{kind}\"\n{more}{aim}\n");
        Story::parse("test", &text).map_err(|why| why.to_string())
    }

    #[test]
    fn fault_beyond_its_reach_is_refused_with_its_line_and_what_would_be_right() {
        let nodes = "want master:N, master:*, coordinator(RESOURCE), master_of(worker:N), \
                     worker:N, worker:*, assigned(RESOURCE)";
        for kind in ["wipe", "torn", "bit_rot", "sync_slow", "sync_error", "disk_full"] {
            let line = if ["bit_rot", "sync_slow"].contains(&kind) { 10 } else { 9 };
            for (target, is) in
                [("store", "is"), ("person:1", "is"), ("person:*", "is"), ("*", "may be")]
            {
                let said = read(kind, &format!("target = \"{target}\"")).expect_err(kind);
                assert_eq!(
                    said,
                    format!(
                        "test:{line}: fault 1: {kind}: {target} {is} no master or worker: neither \
                         the store nor people keep anything on a disk that faults act on; {nodes}"
                    )
                );
            }
        }
        for (kind, aim, says) in [
            ("clone", "target = \"store\"", "test:9: fault 1: clone: store is no master or worker"),
            ("clone", "target = \"person:0\"", "person:0 is no master or worker: nobody else has"),
            ("rollback", "target = \"person:2\"", "test:10: fault 1: rollback: person:2 is no"),
            ("rollback", "target = \"person:*\"", "people have no disk to put back; want master:N"),
            (
                "restore",
                "target = \"*\"",
                "test:9: fault 1: restore: * may be no store: only the store",
            ),
            (
                "restore",
                "target = \"master:0\"",
                "master:0 is no store: only the store is backed up",
            ),
            ("stranger", "to = \"worker:1\"", "test:9: fault 1: stranger: worker:1 is no master"),
            ("stranger", "to = [\"master:0\", \"random\"]", "random may be no master: nobody else"),
            ("stranger", "to = \"store\"", "listens to strangers; want master:N, master:*"),
            ("expel", "target = \"random\"", "random may be no worker"),
            ("person_restart", "target = \"*\"", "* is no person: nobody else has a page"),
            ("corrupt", "from = \"master:*\"\nto = \"store\"", "test:11: fault 1: corrupt: store"),
            ("inject", "from = \"person:0\"\nto = \"master:*\"", "fault 1: inject: person:0 is no"),
            (
                "wipe",
                "when = \"append_committed\"\ntarget = \"announcer\"",
                "test:9: fault 1: wipe: announcer is no master or worker",
            ),
        ] {
            let said = read(kind, aim).expect_err(aim);
            assert!(said.contains(says), "{kind} {aim}: {said}");
        }
    }

    #[test]
    fn fault_within_its_reach_is_read() {
        for (kind, aim) in [
            ("wipe", "target = \"random\""),
            ("torn", "target = \"assigned(board:lobby)\""),
            ("disk_full", "target = \"master_of(worker:2)\""),
            ("wipe", "when = \"pending_held\"\ntarget = \"announcer\""),
            ("clone", "target = \"random\""),
            ("rollback", "target = \"*\""),
            ("restore", "target = \"store\""),
            ("stranger", "to = [\"master:0\", \"coordinator(sessions:1)\"]"),
            ("expel", "target = \"worker:*\""),
            ("person_restart", "target = \"person:*\""),
            ("corrupt", "from = \"random\"\nto = \"worker:*\""),
            ("inject", "from = \"master:*\"\nto = \"worker:0\""),
            ("crash", "target = \"*\""),
            ("pause", "target = \"person:3\""),
        ] {
            let read = read(kind, aim);
            assert!(read.is_ok(), "{kind} {aim}: {read:?}");
        }
    }
}
