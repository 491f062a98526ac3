//! Plan of a run: a story with everything drawn that the seed decides.
//!
//! 1. The same story and seed give the same plan, and it prints whole.
//! 2. Draws are made per fault. Those of a fault that a story names, and those that carrying it out
//!    takes from [`Plan::label_of`], are labelled by what the fault is, not by its number: taking one
//!    away does not change another, unless both are alike. Faults of a swarm are drawn once.

use std::{fmt, time::Duration};

use chatchat::{config::Config, model::ids::Role};
use dst_env::rng::{Rng, Seed};
use serde::Serialize;

use crate::{
    cluster::Cluster,
    fault::{self, Action, Direction, Dose, Fault, Kind, Links, Start, Step},
    knobs, reach,
    story::{Expect, Story, Swarm, Workload},
    target::{Place, Target},
};

mod write;

/// Plan that a world carries out.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the story.
    pub story: String,
    /// Seed that expanded the story; also the root of every stream of the run.
    pub seed: u64,
    /// Time that people chat before everything is healed.
    pub duration: Duration,
    /// Cluster to start.
    pub cluster: Cluster,
    /// People and what they do.
    pub workload: Workload,
    /// Faults; the index is the fault's number. First those that the story names, then those
    /// that its swarm drew.
    pub faults: Vec<Fault>,
    /// Number of faults that the story names.
    pub named: usize,
    /// Whether the story has a swarm.
    pub has_swarm: bool,
    /// Properties to check.
    pub expect: Expect,
}

/// Fault as it was carried out, on the observer's clock, for the oracles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Its number in the plan, or one beyond ([`Plan::core_number`]).
    pub fault: usize,
    /// Time at which it began.
    pub from: Duration,
    /// Time at which it was undone; `None` when it lasted until the end.
    pub until: Option<Duration>,
    /// Whether it touched anything.
    pub bit: bool,
}

impl Plan {
    /// Expands a story by a seed.
    #[must_use]
    pub fn expand(story: &Story, seed: u64) -> Self {
        let mut faults = Vec::new();
        for (nth, fault) in story.faults.iter().enumerate() {
            let label = fault::label(&story.faults, nth);
            let mut rng = Seed(seed).stream(&format!("faults/{label}"));
            let draw = |target: &Target| target.drawn(&mut rng, &story.cluster);
            faults.push(Fault { action: fault.action.clone().with_targets(draw), ..fault.clone() });
        }
        let named = faults.len();
        let (mut cluster, mut workload) = (story.cluster.clone(), story.workload.clone());
        if let Some(swarm) = story.swarm.as_ref().filter(|swarm| swarm.knobs) {
            (cluster.config, workload) = knobs::turn(&cluster.config, &workload, swarm.crowd, seed);
            if cluster.step_us == 0 {
                cluster.step_us = knobs::step_us(seed);
            }
        }
        if let Some(swarm) = &story.swarm {
            faults.extend(swarm_faults(story, swarm, seed));
        }
        for fault in &faults {
            debug_assert_eq!(reach::check(fault), Ok(()), "{fault}");
        }
        Self {
            story: story.name.clone(),
            seed,
            duration: story.duration,
            cluster,
            workload,
            faults,
            named,
            has_swarm: story.swarm.is_some(),
            expect: story.expect.clone(),
        }
    }

    /// Returns the label of the random draws that a world makes to carry a fault out. Leaving another
    /// fault out of the plan does not change it, unless both are alike.
    #[must_use]
    pub fn label_of(&self, fault: usize) -> String {
        fault::label(&self.faults, fault)
    }

    /// Returns the number of the incident that only a core is whole.
    #[must_use]
    pub const fn core_number(&self) -> usize {
        self.faults.len()
    }

    /// Returns the number of the incident that a worker outside of the core may lose what is on its disk.
    #[must_use]
    pub const fn core_disk_number(&self, worker: usize) -> usize {
        self.core_number() + 1 + worker
    }

    /// Returns the settings of the cluster and the keys of the workload that are not the usual
    /// ones, with their values.
    fn unusual(&self) -> Vec<(String, String)> {
        let usual = (Config::default(), Workload::default());
        let mut found = differing(&self.cluster.config, &usual.0);
        let people = Workload { people: 0, posts_per_second: 0.0, ..self.workload.clone() };
        let none = Workload { people: 0, posts_per_second: 0.0, ..usual.1 };
        found.extend(differing(&people, &none));
        found
    }

    /// Returns the kinds that the plan needs, without repeats, in the catalogue's order. A world
    /// refuses a plan with a kind that it cannot carry out.
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<_> = self.faults.iter().map(|fault| fault.action.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// Returns what made the run show less than its story says, a sentence each: a named fault
    /// that never began or touched nothing, or a swarm of which no fault touched anything. One
    /// fault of a swarm may well meet a machine that another has taken away.
    #[must_use]
    pub fn toothless(&self, incidents: &[Incident]) -> Vec<String> {
        let of = |nth: usize| incidents.iter().filter(move |incident| incident.fault == nth);
        let has_bitten = |nth: usize| of(nth).any(|incident| incident.bit);
        let (named, drawn) = self.faults.split_at(self.named.min(self.faults.len()));
        let idle = named.iter().enumerate().filter(|(nth, _)| !has_bitten(*nth));
        let mut found: Vec<_> = idle
            .map(|(nth, fault)| {
                let why = if of(nth).next().is_none() { "began" } else { "touched anything" };
                format!("fault {nth} ({fault}) never {why}")
            })
            .collect();
        if self.has_swarm && !(self.named..self.faults.len()).any(has_bitten) {
            found.push(format!("none of the swarm's {} faults touched anything", drawn.len()));
        }
        found
    }
}

/// Returns the fields of a value that differ from those of another.
fn differing<T: Serialize>(value: &T, other: &T) -> Vec<(String, String)> {
    let fields = |value: &T| match serde_json::to_value(value) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let other = fields(other);
    let differs = |(key, value): &(String, serde_json::Value)| other.get(key) != Some(value);
    let show = |(key, value): (String, serde_json::Value)| (key, value.to_string());
    fields(value).into_iter().filter(differs).map(show).collect()
}

/// Earliest start of a swarm's fault: a cluster that was never up shows nothing.
const SWARM_FROM: Duration = Duration::from_secs(3);

fn swarm_faults(story: &Story, swarm: &Swarm, seed: u64) -> Vec<Fault> {
    let mut rng = Seed(seed).stream("faults/swarm");
    // Each kind is out with even odds, in with weight 1 to 4 otherwise; one at least is in.
    let kept = rng.index(swarm.kinds.len());
    let mut bag = Vec::new();
    for (nth, kind) in swarm.kinds.iter().enumerate() {
        let weight = 1 + rng.below(4);
        if rng.chance(0.5) || nth == kept {
            bag.extend((0..weight).map(|_| *kind));
        }
    }
    let minutes = story.duration.as_secs_f64() / 60.0;
    let count = (swarm.per_minute * minutes).round() as u64;
    let latest = story.duration.mul_f64(0.9).max(SWARM_FROM);
    let mut faults: Vec<_> = (0..count)
        .map(|nth| {
            let mut rng = Seed(seed).stream(&format!("faults/swarm/{nth}"));
            let at = rng.duration_between(SWARM_FROM, latest);
            let kind = *rng.pick(&bag);
            let lasts = rng.duration_between(Duration::from_millis(300), Duration::from_secs(8));
            Fault {
                start: Start::At(at),
                lasts: (!kind.is_instant()).then_some(lasts),
                action: swarm_action(kind, &mut rng, &story.cluster, story.workload.people),
            }
        })
        .collect();
    faults.sort_by_key(|fault| match fault.start {
        Start::At(at) => at,
        Start::When { .. } => Duration::ZERO,
    });
    faults
}

/// Draws a fault of a kind, of a size that a cluster should survive.
fn swarm_action(kind: Kind, rng: &mut Rng, cluster: &Cluster, people: usize) -> Action {
    let ms = Duration::from_millis;
    let target = Target::Random.drawn(rng, cluster);
    let other = match rng.below(4) {
        0 => Target::One(Place::Store),
        1 => Target::Role(Role::Master),
        2 => Target::Role(Role::Worker),
        _ => Target::Random.drawn(rng, cluster),
    };
    let direction = *rng.pick(&[Direction::Both, Direction::Forward, Direction::Back]);
    let back = rng.chance(0.5);
    let rate = 0.01 + 0.3 * rng.fraction();
    let by = rng.duration_between(ms(10), ms(900));
    let far = rng.duration_between(ms(500), ms(60_000)).as_millis();
    let step = Step { ms: i64::try_from(far).unwrap_or(0) * if back { -1 } else { 1 } };
    let links = Links { from: vec![target.clone()], to: vec![other.clone()], direction };
    let whole = Links { direction: Direction::Both, ..links.clone() };
    // Now and then the store's machine, or somebody's own.
    let machine = match rng.below(12) {
        0 => Target::One(Place::Store),
        1 if people > 0 => Target::One(Place::Person(rng.index(people))),
        _ => target.clone(),
    };
    let target = match kind {
        Kind::Pause | Kind::Slow => machine,
        Kind::ClockOffset | Kind::ClockDrift | Kind::ClockJump => machine,
        Kind::Crash | Kind::Exit if machine == Target::One(Place::Store) => machine,
        _ => target,
    };
    match kind {
        Kind::Crash => Action::Crash { target },
        Kind::Exit => Action::Exit { target },
        Kind::Pause => Action::Pause { target },
        Kind::Slow => Action::Slow { target, factor: 1.0 + 30.0 * rate },
        Kind::Wipe => Action::Wipe { target },
        Kind::Partition => Action::Partition { links },
        Kind::Delay => Action::Delay { links, by, jitter: by / 2 },
        Kind::Bandwidth => Action::Bandwidth { links, bytes_per_second: 1000 + rng.below(100_000) },
        Kind::Loss => Action::Loss { links, rate },
        Kind::Reset => Action::Reset { links: whole },
        Kind::HalfOpen => Action::HalfOpen { links: whole },
        Kind::ConnectHang => Action::ConnectHang { links: whole, rate },
        // What goes to people and the store is in clear: nobody could notice.
        Kind::Corrupt => {
            let to = vec![Target::Random.drawn(rng, cluster)];
            Action::Corrupt { links: Links { to, ..whole }, rate: rate / 10.0 }
        }
        Kind::Inject => {
            let to = vec![Target::Random.drawn(rng, cluster)];
            Action::Inject { links: Links { to, ..whole }, rate: rate / 10.0 }
        }
        Kind::Swizzle => Action::Swizzle { targets: vec![target, other] },
        Kind::Torn => Action::Torn { target, rate },
        Kind::BitRot => Action::BitRot { target, rate: rate / 100.0 },
        Kind::SyncSlow => Action::SyncSlow { target, by },
        Kind::SyncError => Action::SyncError { target, rate },
        Kind::DiskFull => Action::DiskFull { target },
        Kind::ClockOffset => Action::ClockOffset { target, by: step },
        Kind::ClockDrift => Action::ClockDrift { target, rate: if back { -rate } else { rate } },
        Kind::ClockJump => Action::ClockJump { target, by: step },
        Kind::LostAck => Action::LostAck { dose: Dose::Rate(rate) },
        Kind::StoreError => Action::StoreError { dose: Dose::Rate(rate) },
        Kind::StoreConflict => Action::StoreConflict { dose: Dose::Rate(3.0 * rate) },
        Kind::StorePool => Action::StorePool { count: rng.below(4) as u32, by: by / 6 },
        Kind::StorePromote => Action::StorePromote,
        Kind::FdLimit => Action::FdLimit { target, count: 8 + rng.below(40) as u32 },
        Kind::Stop => Action::Stop { target },
        Kind::Restart => {
            Action::Restart { targets: vec![target, Target::Random.drawn(rng, cluster)] }
        }
        Kind::Clone => Action::Clone { target },
        Kind::Rollback => Action::Rollback { target, by: by * 3 },
        Kind::Restore => Action::Restore { target: Target::One(Place::Store) },
        Kind::Stranger => {
            let to = match target {
                // Only masters listen to strangers.
                Target::One(Place::Worker(_)) => {
                    Target::One(Place::Master(rng.index(cluster.masters)))
                }
                master => master,
            };
            Action::Stranger { to: vec![to] }
        }
        Kind::PersonRestart => Action::PersonRestart { target: Target::People },
        Kind::Expel => Action::Expel {
            target: match cluster.workers {
                0 => Target::Role(Role::Worker),
                workers => Target::One(Place::Worker(rng.index(workers))),
            },
        },
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seed {}: {} masters, {} workers, {} people, {:?}",
            self.story,
            self.seed,
            self.cluster.masters,
            self.cluster.workers,
            self.workload.people,
            self.duration
        )?;
        if self.cluster.step_us > 0 {
            writeln!(f, "  step_us = {}", self.cluster.step_us)?;
        }
        for (key, value) in self.unusual() {
            writeln!(f, "  {key} = {value}")?;
        }
        for (nth, fault) in self.faults.iter().enumerate() {
            writeln!(f, "  fault {nth}: {fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORY: &str = r#"
        about = "a test"
        duration = "60s"
        [cluster]
        masters = 2
        workers = 3
        [[fault]]
        at = "5s"
        kind = "crash"
        target = "random"
        for = "4s"
        [[fault]]
        at = "20s"
        kind = "partition"
        from = "random"
        to = ["worker:*", "store"]
        [swarm]
        kinds = ["pause", "delay", "reset", "clock_jump", "lost_ack"]
        per_minute = 12.0
    "#;

    fn plan(seed: u64) -> Plan {
        Plan::expand(&Story::parse("test", STORY).unwrap(), seed)
    }

    #[test]
    fn same_seed_gives_the_same_plan_and_another_seed_another() {
        assert_eq!(plan(3).to_string(), plan(3).to_string());
        assert_ne!(plan(3).to_string(), plan(4).to_string());
        assert_eq!(plan(3).faults.len(), 14);
        for seed in 0..50 {
            let plan = plan(seed);
            assert!(!plan.to_string().contains("random"), "{plan}");
            for fault in &plan.faults {
                assert!(matches!(fault.start, Start::At(at) if at < plan.duration), "{fault}");
            }
        }
    }

    #[test]
    fn swarm_turns_knobs_and_prints_what_is_not_usual() {
        let turned = (0..40).find(|seed| plan(*seed).cluster.config.batch_tasks_max == 4);
        let printed = plan(turned.expect("a seed turns it")).to_string();
        assert!(printed.contains("\n  batch_tasks_max = 4\n"), "{printed}");
        let still = STORY.replace("per_minute = 12.0", "per_minute = 12.0\nknobs = false");
        let story = Story::parse("test", &still).unwrap();
        for seed in 0..40 {
            let plan = Plan::expand(&story, seed);
            assert_eq!(plan.cluster.config, Config::default(), "{seed}");
        }
    }

    #[test]
    fn swarm_raises_the_number_of_people_where_a_story_is_open_to_a_crowd() {
        let open = STORY.replace("per_minute = 12.0", "per_minute = 12.0\ncrowd = true");
        let open = Story::parse("test", &open).unwrap();
        let mut crowds = 0;
        for seed in 0..200 {
            let (few, many) = (plan(seed), Plan::expand(&open, seed));
            assert_eq!((few.workload.people, &few.faults), (10, &many.faults), "{seed}");
            crowds += usize::from(many.workload.people > 10);
        }
        assert!((8..50).contains(&crowds), "{crowds} of 200");
    }

    #[test]
    fn swarm_keeps_the_time_of_steps_that_a_story_names() {
        let named = STORY.replace("workers = 3", "workers = 3\nstep_us = 7");
        let story = Story::parse("test", &named).unwrap();
        assert!((0..20).all(|seed| Plan::expand(&story, seed).cluster.step_us == 7));
        assert!((0..20).any(|seed| plan(seed).cluster.step_us > 0));
    }

    #[test]
    fn swarm_leaves_a_kind_out_for_some_seeds_only() {
        let with: Vec<_> =
            (0..40).filter(|seed| plan(*seed).kinds().contains(&Kind::LostAck)).collect();
        assert!(!with.is_empty() && with.len() < 40, "{with:?}");
    }

    #[test]
    fn swarm_draws_no_fault_beyond_its_reach() {
        for kind in Kind::ALL {
            let kinds = format!("kinds = [\"{}\"]", kind.name());
            let text = STORY.replace(
                "kinds = [\"pause\", \"delay\", \"reset\", \"clock_jump\", \"lost_ack\"]",
                &kinds,
            );
            let story = Story::parse("test", &text).unwrap();
            for seed in 0..40 {
                let plan = Plan::expand(&story, seed);
                assert!(plan.faults[plan.named..].iter().all(|it| it.action.kind() == *kind));
                for fault in &plan.faults {
                    assert_eq!(reach::check(fault), Ok(()), "seed {seed}: {fault}");
                }
            }
        }
    }

    #[test]
    fn fault_that_did_nothing_makes_a_run_toothless() {
        let plan = plan(3);
        let incident = |fault, bit| Incident { fault, from: Duration::ZERO, until: None, bit };
        let all = [incident(0, true), incident(1, true), incident(7, true), incident(8, false)];
        assert_eq!(plan.toothless(&all), [""; 0]);
        let found = plan.toothless(&[incident(1, false), incident(2, false)]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("fault 0 (at 5s crash ") && found[0].ends_with("never began"));
        assert!(found[1].ends_with("never touched anything"), "{found:?}");
        assert_eq!(found[2], "none of the swarm's 12 faults touched anything");
    }

    const THIRD: &str = r#"
        [[fault]]
        at = "30s"
        kind = "pause"
        target = "random"
        [swarm]
    "#;

    #[test]
    fn removing_a_fault_changes_no_other() {
        let story = Story::parse("test", &STORY.replace("[swarm]", THIRD)).unwrap();
        for seed in 0..20 {
            let whole = Plan::expand(&story, seed);
            for nth in 0..story.faults.len() {
                let mut less = story.clone();
                less.faults.remove(nth);
                let mut left = whole.faults.clone();
                left.remove(nth);
                assert_eq!(Plan::expand(&less, seed).faults, left, "{seed} without {nth}");
            }
        }
    }

    #[test]
    fn removing_a_fault_of_a_plan_changes_no_draw_of_another() {
        let story = Story::parse("test", &STORY.replace("[swarm]", THIRD)).unwrap();
        let whole = Plan::expand(&story, 9);
        let labels = |plan: &Plan| -> Vec<_> {
            (0..plan.faults.len()).map(|nth| plan.label_of(nth)).collect()
        };
        for nth in 0..whole.faults.len() {
            let (mut less, mut left) = (whole.clone(), labels(&whole));
            less.faults.remove(nth);
            left.remove(nth);
            assert_eq!(labels(&less), left, "without {nth}");
            let written = Story::parse("test", &less.to_story("without it")).unwrap();
            assert_eq!(Plan::expand(&written, 9).faults, less.faults, "without {nth}");
        }
    }

    #[test]
    fn faults_that_are_alike_draw_for_themselves() {
        let alike = STORY.replace("[swarm]", &THIRD.replace("[swarm]", THIRD));
        let story = Story::parse("test", &alike).unwrap();
        let differ = |seed: &u64| {
            let faults = Plan::expand(&story, *seed).faults;
            faults[2] != faults[3]
        };
        assert_eq!(story.faults[2], story.faults[3]);
        assert!((0..20).any(|seed| differ(&seed)));
    }
}
