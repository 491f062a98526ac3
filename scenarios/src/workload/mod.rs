//! Seeded people: they post, read, stream, leave, come back and ask, and write down what they see.
//!
//! ```text
//! People::start --> each person lives on its own machine until the story's end
//! (the harness heals everything)
//! People::settle --> posts are settled, everything is read from every master --> History
//! ```
//!
//! 1. What a person does depends on the seed, its number and the answers it gets, never on the
//!    other people's draws.
//! 2. A person has one unsettled post per board, as every client of ours.

mod behaviours;
mod closed;
mod kept;
mod limits;
mod person;
mod reading;
mod texts;

use std::{sync::Arc, time::Duration};

use chatchat::env::{Env, TaskGuard};
use tokio::sync::oneshot;

use self::person::{OpenPage, Person};
pub use self::{closed::ClosedPages, texts::canary};
use crate::{
    history::{Clock, History, Recorder},
    story::Workload,
};

/// Settings that all people share.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Front ends, `http://host:port`.
    pub masters: Vec<String>,
    /// Workload of the story.
    pub workload: Workload,
    /// Seed of the run.
    pub seed: u64,
    /// Time at which people stop chatting, on the observer's clock.
    pub until: Duration,
    /// Clock of the observer.
    pub clock: Clock,
    /// Pages that a fault keeps closed.
    pub closed: Arc<ClosedPages>,
}

/// Living people.
#[derive(Debug)]
pub struct People {
    stage: Arc<Stage>,
    recorder: Recorder,
    /// Sleeps between the last steps.
    observer: Env,
    living: Vec<Living>,
}

#[derive(Debug)]
struct Living {
    person: Person,
    /// Its last session, when it stopped chatting. Its machine may die before.
    handed: oneshot::Receiver<Option<OpenPage>>,
    _task: TaskGuard,
}

/// Time beyond the last reading's bound until it counts as hung.
const SLACK: Duration = Duration::from_secs(3);

/// With nothing wrong, members and presence are the same everywhere after this (G11, G12).
const SPREADS_WITHIN: Duration = Duration::from_secs(16);

/// Longest time of the last reading.
const READING: Duration = Duration::from_secs(30);

impl People {
    /// Lets people live, one per machine; `observer` is a machine that no fault befalls.
    #[must_use]
    pub fn start(observer: Env, machines: Vec<Env>, stage: Stage) -> Self {
        let stage = Arc::new(stage);
        let recorder = Recorder::new(stage.clock.clone());
        recorder.history().masters.clone_from(&stage.masters);
        let living = machines.into_iter().enumerate().map(|(number, env)| {
            let person = Person::new(number, env.clone(), stage.clone(), recorder.clone());
            let (hand, handed) = oneshot::channel();
            let task = env.spawn("person", person.clone().live(hand)).abort_on_drop();
            Living { person, handed, _task: task }
        });
        let living = living.collect();
        Self { stage, recorder, observer, living }
    }

    /// Returns the recorder of the history.
    #[must_use]
    pub const fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Waits until people stopped chatting, settles within `within` what is unsettled, waits for
    /// what is still to be healed and for quiet, and has everything read from every master. Call
    /// it when all is healed that has to be for settling.
    pub async fn settle(self, within: Duration, heal: impl Future<Output = ()>) -> History {
        let Self { stage, recorder, observer, living } = self;
        recorder.history().settling_from = Some(stage.clock.now());
        let deadline = stage.clock.now() + within;
        // Each on its own machine, all at once: a dead machine's task just never tells.
        let mut settling = Vec::new();
        for Living { person, handed, _task } in living {
            let (number, (tell, told)) = (person.number, oneshot::channel());
            let env = person.env().clone();
            let task = env.spawn("person settles", async move {
                // Nobody is left to tell when the run was given up.
                let _ = tell.send(person.settle(handed, deadline).await);
            });
            settling.push((number, told, task.abort_on_drop(), _task));
        }
        let mut settled = Vec::new();
        let slack = within + Duration::from_secs(30);
        for (number, told, task, life_task) in settling {
            match observer.timeout(slack, told).await {
                Ok(Ok(Some(pair))) => settled.push((pair, task, life_task)),
                // It has no page any more, or its machine is gone.
                Ok(Ok(None) | Err(_)) => {}
                Err(_) => recorder.history().hung.push(number),
            }
        }
        heal.await;
        // Streams are quiet long before.
        observer.sleep(SPREADS_WITHIN).await;
        recorder.history().reading_from = Some(stage.clock.now());
        let mut readings = Vec::new();
        let mut kept = Vec::new();
        for ((person, page), task, life_task) in settled {
            let number = person.number;
            let (tell, told) = oneshot::channel();
            let env = person.env().clone();
            let read = env.spawn("person reads", async move {
                person.read_everything(&page, READING).await;
                let _ = tell.send(page);
            });
            readings.push((number, told));
            kept.push((read.abort_on_drop(), task, life_task));
        }
        // Sessions stay open until all have read: presence is part of what is read.
        let mut lives = Vec::new();
        for (number, told) in readings {
            let read = observer.timeout(READING + SLACK, told).await;
            let mut history = recorder.history();
            match &read {
                Ok(Ok(_)) => history.living.push(number),
                // Its machine is gone: nothing can be asked of it.
                Ok(Err(_)) => {}
                Err(_) => history.hung.push(number),
            }
            lives.push(read);
        }
        let history = std::mem::take(&mut *recorder.history());
        drop((lives, kept));
        history
    }
}
