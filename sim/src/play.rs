//! One run of a plan on a deployment: people chat under faults, then all is healed and read.
//!
//! ```text
//!  people chat under faults .......... | all healed: settle, quiet, read | judge
//!  0                             duration                              ended
//! ```
//!
//! Where the story asks for a core, only that is healed at first, and all else once people settled.

use std::{sync::Arc, time::Duration};

use chatchat::env::Env;
use chatchat_scenarios::{
    history::{Clock, History},
    oracle::{EpochChange, EventLine, Evidence, PageTaken, StoreDump},
    plan::{Incident, Plan},
    target::Place,
    workload::{People, Stage},
};

use crate::{
    deployment::Deployment,
    faults::{Excuse, Faults},
};

/// Evidence of a run that was carried out, for its judgement.
pub(crate) struct Played {
    /// Everything that people saw.
    pub(crate) history: History,
    /// Faults as they were carried out.
    pub(crate) incidents: Vec<Incident>,
    /// Content of the store at the end.
    pub(crate) store: StoreDump,
    /// Ends of the nodes' processes.
    pub(crate) ends: Vec<(Place, Duration)>,
    /// Time of the deployment at which the plan's time began.
    pub(crate) started: Duration,
    /// Time since then at which the run ended.
    pub(crate) ended: Duration,
    /// Reason for which a run that is stuck had a right to be.
    pub(crate) rightly_stuck: Option<Excuse>,
}

impl Played {
    /// Returns what the oracles judge, with the nodes' event lines in the plan's time.
    pub(crate) fn evidence<'a>(
        &'a self,
        plan: &'a Plan,
        events: &'a [EventLine],
        calm_limit: Duration,
    ) -> Evidence<'a> {
        Evidence {
            plan,
            incidents: &self.incidents,
            history: &self.history,
            store: &self.store,
            events,
            ends: &self.ends,
            ended: self.ended,
            calm_limit,
        }
    }
}

/// Carries a plan out on a deployment that is up. `observer` is an environment that no fault
/// touches.
///
/// # Panics
/// When the store cannot be read at the end: then there is nothing to judge.
pub(crate) async fn play<D: Deployment>(on: &Arc<D>, plan: &Plan, observer: Env) -> Played {
    let faults = Faults::start(on, plan);
    let mut machines: Vec<Env> = Vec::new();
    for nth in 0..plan.workload.people {
        let machine = plan.workload.machine_of(nth);
        machines.push(match machine == nth {
            true => on.person(nth).await,
            false => machines[machine].clone(),
        });
    }
    let has_operator = plan.workload.has_operator();
    let operator = if has_operator { Some(on.operator().await) } else { None };
    let told = Arc::clone(&faults);
    let stage = Stage {
        masters: on.front_ends(),
        workload: plan.workload.clone(),
        seed: plan.seed,
        until: plan.duration,
        clock: Clock::new(move || told.now()),
        closed: Arc::clone(faults.closed_pages()),
        admins: if has_operator { on.admins() } else { Vec::new() },
    };
    let people = People::start(observer, machines, operator, stage);
    on.sleep(plan.duration.saturating_sub(faults.now())).await;
    let within = plan.expect.recovers_within;
    let core = if plan.expect.core { faults.leave_core() } else { None };
    if core.is_none() {
        faults.heal();
    }
    let mut rightly_stuck = None;
    let healed = async {
        rightly_stuck = faults.rightly_stuck(core);
        if core.is_some() {
            faults.end_core();
            on.sleep(within).await;
        }
    };
    let history = people.settle(within, healed).await;

    let store = StoreDump::read(&on.direct_store()).await;
    let mut store = store.expect("the store can be read");
    let started = faults.started();
    let changes = on.epoch_changes().into_iter();
    let in_plan = |it: EpochChange| EpochChange { at: it.at.saturating_sub(started), ..it };
    store.epoch_changes = changes.map(in_plan).collect();
    let pages = on.pages_taken().into_iter();
    let in_plan = |it: PageTaken| PageTaken { at: it.at.saturating_sub(started), ..it };
    store.pages_taken = pages.map(in_plan).collect();
    let ends = on.ends().into_iter().map(|(place, at)| (place, at.saturating_sub(started)));
    Played {
        history,
        incidents: faults.incidents(),
        ends: ends.collect(),
        store,
        started,
        ended: faults.now(),
        rightly_stuck,
    }
}
