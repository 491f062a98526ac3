//! Carries a plan's faults out: begins each at its time or moment, undoes it, heals all at the end.
//!
//! 1. A fault that is bound to a moment begins in the middle of the step that announced it.
//! 2. Whom a fault befalls is found when it begins; the same are healed.
//! 3. Where a core is left, faults that touch nothing of it stay on until the core ends.
//! 4. A fault *bit* when it changed something: a process ended or stopped, a segment was
//!    touched, a clock of a running machine moved; a promotion, when commits were under way; a restore,
//!    when the store's epoch changed.

mod common;
mod core;
mod expel;
mod stuck;
mod touched;

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chatchat_scenarios::{
    fault::{Action, Kind, Start},
    plan::{Incident, Plan},
    story::Story,
    target::{Place, Target},
    workload::ClosedPages,
};
use thiserror::Error;
use tokio::sync::Notify;

use self::touched::Touched;
pub use self::{core::Core, stuck::Excuse};
use crate::deployment::{Begun, Deployment, Step, Undo};

/// A plan or story needs kinds of fault that the simulated world cannot carry out. Nothing was run.
#[derive(Debug, Error)]
#[error("{at}: the simulated world cannot carry out {} yet; it can: {}", names(kinds), names(&supported()))]
pub struct UnsupportedKinds {
    /// File and line of the first one, or name of the plan's story.
    pub at: String,
    /// Kinds that the simulated world cannot carry out.
    pub kinds: Vec<Kind>,
}

/// Returns whether the simulated world can carry out a kind of fault.
#[must_use]
pub const fn is_supported(kind: Kind) -> bool {
    match kind {
        Kind::Crash
        | Kind::Exit
        | Kind::Pause
        | Kind::Slow
        | Kind::Wipe
        | Kind::Partition
        | Kind::Delay
        | Kind::Bandwidth
        | Kind::Loss
        | Kind::Reset
        | Kind::HalfOpen
        | Kind::ConnectHang
        | Kind::Corrupt
        | Kind::Inject
        | Kind::Swizzle
        | Kind::Torn
        | Kind::BitRot
        | Kind::SyncSlow
        | Kind::SyncError
        | Kind::DiskFull
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
        | Kind::Restart
        | Kind::Clone
        | Kind::Rollback
        | Kind::Restore
        | Kind::Stranger
        | Kind::PersonRestart
        | Kind::Expel => true,
    }
}

/// Checks that the simulated world can carry out all of a plan's faults.
///
/// # Errors
/// [`UnsupportedKinds`] with the ones that it cannot.
pub fn check(plan: &Plan) -> Result<(), UnsupportedKinds> {
    let kinds: Vec<_> = plan.kinds().into_iter().filter(|kind| !is_supported(*kind)).collect();
    if kinds.is_empty() { Ok(()) } else { Err(UnsupportedKinds { at: plan.story.clone(), kinds }) }
}

/// Checks that the simulated world can carry out a story with every seed.
///
/// # Errors
/// [`UnsupportedKinds`] with the ones that it cannot, and where the first of them stands.
pub fn check_story(story: &Story) -> Result<(), UnsupportedKinds> {
    check_story_by(story, is_supported)
}

fn check_story_by(
    story: &Story,
    is_supported: impl Fn(Kind) -> bool,
) -> Result<(), UnsupportedKinds> {
    let named = story.faults.iter().enumerate();
    let named = named.map(|(nth, fault)| (format!("fault {}", nth + 1), fault.action.kind()));
    let drawn = story.swarm.iter().flat_map(|swarm| &swarm.kinds);
    let drawn = drawn.map(|kind| ("swarm".to_owned(), *kind));
    let found: Vec<_> = named.chain(drawn).filter(|(_, kind)| !is_supported(*kind)).collect();
    let Some((part, first)) = found.first() else { return Ok(()) };
    let at = story.line_of(part, first.name());
    let mut kinds: Vec<_> = found.iter().map(|(_, kind)| *kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    Err(UnsupportedKinds { at, kinds })
}

fn supported() -> Vec<Kind> {
    Kind::ALL.iter().copied().filter(|kind| is_supported(*kind)).collect()
}

fn names(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

/// Faults of one run.
pub struct Faults<D> {
    on: Arc<D>,
    plan: Plan,
    /// Time of the deployment at which the plan's time began.
    start: Duration,
    state: Mutex<State<D>>,
    changed: Notify,
    /// Pages of people that a fault keeps closed.
    closed_pages: Arc<ClosedPages>,
}

struct State<D> {
    /// Steps by their time since the plan's start, their fault and their own number.
    agenda: BTreeMap<(Duration, usize, usize), Step>,
    steps: usize,
    announced: BTreeMap<&'static str, u32>,
    active: BTreeMap<usize, Active<D>>,
    incidents: Vec<Incident>,
    /// Incidents that say how long only a core was whole.
    core_incidents: Range<usize>,
    /// Undoes what was broken around the core, in the order of its beginning.
    around_core: Vec<Undo<D>>,
    is_over: bool,
}

/// Fault that is on, with what undoes it.
struct Active<D> {
    incident: usize,
    touched: Touched,
    undo: Undo<D>,
}

impl<D> State<D> {
    const fn new() -> Self {
        Self {
            agenda: BTreeMap::new(),
            steps: 0,
            announced: BTreeMap::new(),
            active: BTreeMap::new(),
            incidents: Vec::new(),
            core_incidents: 0..0,
            around_core: Vec::new(),
            is_over: false,
        }
    }

    /// Puts a step on the agenda. Steps of one time are carried out in the order of their faults.
    fn plan_step(&mut self, at: Duration, nth: usize, step: Step) {
        self.steps += 1;
        self.agenda.insert((at, nth, self.steps), step);
    }
}

impl<D: Deployment> Faults<D> {
    /// Begins to carry out a plan. Its time starts now.
    pub fn start(on: &Arc<D>, plan: &Plan) -> Arc<Self> {
        let mut state = State::new();
        for (nth, fault) in plan.faults.iter().enumerate() {
            if let Start::At(at) = fault.start {
                state.plan_step(at, nth, Step::Begin);
                if let Action::Rollback { by, .. } = fault.action {
                    state.plan_step(at.saturating_sub(by), nth, Step::Keep);
                }
            }
        }
        let it = Arc::new(Self {
            on: Arc::clone(on),
            plan: plan.clone(),
            start: on.elapsed(),
            state: Mutex::new(state),
            changed: Notify::new(),
            closed_pages: Arc::default(),
        });
        let listens = Arc::clone(&it);
        on.on_fault_point(Box::new(move |name, place| listens.on_fault_point(name, place)));
        let drives = Arc::clone(&it);
        on.supervise(Box::pin(async move { drives.drive().await }));
        it
    }

    /// Time since the plan's start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.on.elapsed().saturating_sub(self.start)
    }

    /// Time of the deployment at which the plan's time began.
    #[must_use]
    pub const fn started(&self) -> Duration {
        self.start
    }

    /// Pages of people that a fault keeps closed: each person looks at its own.
    #[must_use]
    pub const fn closed_pages(&self) -> &Arc<ClosedPages> {
        &self.closed_pages
    }

    fn state(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn drive(&self) {
        loop {
            let changed = self.changed.notified();
            let next = self.state().agenda.first_key_value().map(|((at, ..), _)| *at);
            match next {
                Some(at) if at <= self.now() => {
                    let first = self.state().agenda.pop_first();
                    match first {
                        Some(((_, nth, _), Step::Begin)) => self.begin(nth, None),
                        Some(((_, nth, _), Step::Keep)) => {
                            self.on.keep(nth, &self.plan.faults[nth].action);
                        }
                        Some(((_, nth, _), Step::Undo)) => self.undo(nth),
                        Some(((_, nth, _), step)) => self.go_on(nth, step),
                        None => {}
                    }
                }
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = self.on.sleep(at.saturating_sub(self.now())) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    fn on_fault_point(&self, name: &'static str, place: &dyn Fn() -> Option<Place>) {
        let due: Vec<usize> = {
            let mut state = self.state();
            if state.is_over {
                return;
            }
            let count = state.announced.entry(name).or_default();
            *count += 1;
            let count = *count;
            let is_due = |start: &Start| match start {
                Start::When { point, nth } => point.name() == name && *nth == count,
                Start::At(_) => false,
            };
            let faults = self.plan.faults.iter().enumerate();
            faults.filter(|(_, fault)| is_due(&fault.start)).map(|(nth, _)| nth).collect()
        };
        if due.is_empty() {
            return;
        }
        let announcer = place();
        for nth in due {
            self.begin(nth, announcer);
        }
    }

    fn begin(&self, nth: usize, announcer: Option<Place>) {
        let fault = &self.plan.faults[nth];
        let now = self.now();
        let action = fault.action.clone().with_targets(|target| match (target, announcer) {
            (Target::Announcer, Some(place)) => Target::One(place),
            _ => target.clone(),
        });
        let members = [("fault", nth.into()), ("action", action.to_string().into())];
        self.on.note("fault", &members);
        // Before it begins: some change who plays a role.
        let touched = if self.plan.expect.core {
            Touched::of(&*self.on, &action)
        } else {
            Touched::Everything
        };
        let Begun { undo, bit, steps } =
            common::act(&self.on, &self.plan, &self.closed_pages, nth, &action);
        let mut state = self.state();
        let incident = state.incidents.len();
        let is_instant = fault.action.kind().is_instant();
        let until = is_instant.then_some(now);
        state.incidents.push(Incident { fault: nth, from: now, until, bit });
        if !is_instant {
            for (after, step) in steps {
                state.plan_step(now + after, nth, step);
                self.changed.notify_one();
            }
            state.active.insert(nth, Active { incident, touched, undo });
            if let Some(lasts) = fault.lasts {
                state.plan_step(now + lasts, nth, Step::Undo);
                self.changed.notify_one();
            }
        }
    }

    /// Carries out a later step of a fault, unless it was undone before.
    fn go_on(&self, nth: usize, step: Step) {
        let Some(incident) = self.state().active.get(&nth).map(|active| active.incident) else {
            return;
        };
        let members = [("fault", nth.into()), ("step", format!("{step:?}").into())];
        self.on.note("step", &members);
        let bit = common::carry_out(&self.on, self.plan.faults.len(), nth, step);
        let now = self.now();
        let mut state = self.state();
        if let Some(incident) = state.incidents.get_mut(incident) {
            incident.bit |= bit;
        }
        if matches!(step, Step::Stop(_) | Step::Exit(_)) {
            // A process ended now, not when the fault began.
            state.incidents.push(Incident { fault: nth, from: now, until: Some(now), bit });
        }
    }

    fn undo(&self, nth: usize) {
        let Some(active) = self.state().active.remove(&nth) else { return };
        self.on.note("heal", &[("fault", nth.into())]);
        let has_bitten = (active.undo)(&self.on);
        let now = self.now();
        if let Some(incident) = self.state().incidents.get_mut(active.incident) {
            incident.until = Some(now);
            incident.bit |= has_bitten;
        }
    }

    /// Ends the plan: undoes what stands, begins nothing more.
    pub fn heal(&self) {
        self.heal_but(|_| false);
    }

    /// Ends the plan as [`Faults::heal`] does, but leaves what `stays` as it is, unless it shares a
    /// machine with a fault that is undone.
    fn heal_but(&self, stays: impl Fn(&Touched) -> bool) {
        let (left, ended) = {
            let mut state = self.state();
            state.is_over = true;
            state.agenda.clear();
            let active = state.active.iter().map(|(nth, active)| (*nth, &active.touched));
            let (mut left, mut ended): (Vec<_>, Vec<_>) =
                active.partition(|(_, touched)| stays(touched));
            let mut looked_at = 0;
            while let Some((_, undone)) = ended.get(looked_at).copied() {
                looked_at += 1;
                let (shares, others): (Vec<_>, Vec<_>) =
                    left.into_iter().partition(|(_, touched)| touched.shares_machine(undone));
                ended.extend(shares);
                left = others;
            }
            ended.sort_unstable_by_key(|(nth, _)| *nth);
            let left: Vec<_> = left.into_iter().map(|(nth, _)| nth).collect();
            let ended: Vec<_> = ended.into_iter().map(|(nth, _)| nth).collect();
            (left, ended)
        };
        for nth in left {
            self.on.note("stays", &[("fault", nth.into())]);
        }
        for nth in ended {
            self.undo(nth);
        }
    }

    /// Returns the faults as they were carried out.
    #[must_use]
    pub fn incidents(&self) -> Vec<Incident> {
        self.state().incidents.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORY: &str = r#"
about = "A worker is shaken."
duration = "10s"

[cluster]
masters = 1
workers = 1

[[fault]]
at = "1s"
kind = "pause"
target = "worker:0"
for = "1s"

[[fault]]
at = "3s"
kind = "crash"
target = "worker:0"
for = "1s"

[swarm]
kinds = ["exit", "delay"]
per_minute = 1.0
"#;

    #[test]
    fn story_with_unsupported_kinds_is_refused_with_its_file_and_line() {
        let story = Story::parse("shaken", STORY).expect("a whole story");
        let refusal = |without: &[Kind]| {
            let refused = check_story_by(&story, |kind| !without.contains(&kind));
            refused.err().map(|why| why.to_string())
        };
        assert_eq!(refusal(&[]), None);
        assert_eq!(refusal(&[Kind::Torn]), None, "it needs none");
        let why = refusal(&[Kind::Crash, Kind::Delay]).expect("it needs both");
        assert!(why.starts_with("shaken:17: "), "{why}");
        assert!(why.contains("cannot carry out crash, delay yet"), "{why}");
        let why = refusal(&[Kind::Delay]).expect("its swarm may draw it");
        assert!(why.starts_with("shaken:22: "), "{why}");
        assert!(check_story(&story).is_ok());
    }
}
