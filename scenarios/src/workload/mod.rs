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
//! 3. Where the story asks for an operator, it handles dead letters beside them.

mod behaviours;
mod closed;
mod kept;
mod limits;
mod operator;
mod person;
mod reading;
mod texts;

use std::{sync::Arc, time::Duration};

use chatchat::env::{Env, TaskGuard, TimedOut};
use tokio::sync::oneshot;

pub use self::{closed::ClosedPages, operator::Admin, texts::canary};
use self::{
    operator::Operator,
    person::{OpenPage, Person},
};
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
    /// Masters' listeners for operators; none in a story without an operator of dead letters.
    pub admins: Vec<Admin>,
}

/// Living people.
#[derive(Debug)]
pub struct People {
    stage: Arc<Stage>,
    recorder: Recorder,
    /// Sleeps between the last steps.
    observer: Env,
    living: Vec<Living>,
    /// Operator of dead letters and its work.
    operator: Option<(Operator, TaskGuard)>,
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

/// Time beyond the bound of settling until a person counts as hung.
const SETTLING_SLACK: Duration = Duration::from_secs(30);

/// With nothing wrong, members and presence are the same everywhere after this (G11, G12).
const SPREADS_WITHIN: Duration = Duration::from_secs(16);

/// Longest time of the operator's last look at the dead letters.
const LOOKING: Duration = Duration::from_secs(10);

/// Longest time of the last reading.
const READING: Duration = Duration::from_secs(30);

impl People {
    /// Lets people live, one per machine; `observer` is a machine that no fault befalls, and so is that
    /// of the operator, if there is one.
    #[must_use]
    pub fn start(observer: Env, machines: Vec<Env>, operator: Option<Env>, stage: Stage) -> Self {
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
        let operator = operator.filter(|_| !stage.admins.is_empty()).map(|env| {
            let operator = Operator::new(env.clone(), stage.clone(), recorder.clone());
            let task = env.spawn("operator", operator.clone().work()).abort_on_drop();
            (operator, task)
        });
        Self { stage, recorder, observer, living, operator }
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
        let Self { stage, recorder, observer, living, operator } = self;
        recorder.history().settling_from = Some(stage.clock.now());
        let deadline = stage.clock.now() + within;
        // Each on its own machine, all at once: a dead machine's task just never tells.
        let (mut settling, mut tasks) = (Vec::new(), Vec::new());
        for Living { person, handed, _task } in living {
            let (number, (tell, told)) = (person.number, oneshot::channel());
            let env = person.env().clone();
            let task = env.spawn("person settles", async move {
                // Nobody is left to tell when the run was given up.
                let _ = tell.send(person.settle(handed, deadline).await);
            });
            settling.push((number, told));
            tasks.push((task.abort_on_drop(), _task));
        }
        let mut settled = Vec::new();
        let all = all_told(&observer, within + SETTLING_SLACK, settling).await;
        for ((number, told), tasks) in all.into_iter().zip(tasks) {
            match told {
                Ok(Some(Some(pair))) => settled.push((pair, tasks)),
                // It has no page any more, or its machine is gone.
                Ok(Some(None) | None) => {}
                Err(_) => recorder.history().hung.push(number),
            }
        }
        heal.await;
        // Streams are quiet long before.
        observer.sleep(SPREADS_WITHIN).await;
        if let Some((operator, work)) = operator {
            // What it still waits for stays unknown.
            drop(work);
            let (tell, told) = oneshot::channel();
            let env = operator.env().clone();
            let look = async move {
                operator.look().await;
                let _ = tell.send(());
            };
            let _look = env.spawn("operator looks", look).abort_on_drop();
            // A list that does not come in time is none.
            let _ = observer.timeout(LOOKING, told).await;
        }
        recorder.history().reading_from = Some(stage.clock.now());
        let mut readings = Vec::new();
        let mut kept = Vec::new();
        for ((person, page), tasks) in settled {
            let number = person.number;
            let (tell, told) = oneshot::channel();
            let env = person.env().clone();
            let read = env.spawn("person reads", async move {
                person.read_everything(&page, READING).await;
                let _ = tell.send(page);
            });
            readings.push((number, told));
            kept.push((read.abort_on_drop(), tasks));
        }
        // Sessions stay open until all have read: presence is part of what is read.
        let lives = all_told(&observer, READING + SLACK, readings).await;
        let mut history = std::mem::take(&mut *recorder.history());
        for (number, read) in &lives {
            match read {
                Ok(Some(_)) => history.living.push(*number),
                // Its machine is gone: nothing can be asked of it.
                Ok(None) => {}
                Err(_) => history.hung.push(*number),
            }
        }
        drop((lives, kept));
        history
    }
}

/// Waits until each person told what it has to tell, at most for `within` in all, however many are
/// silent: `None` stands for one that is gone.
async fn all_told<T>(
    observer: &Env,
    within: Duration,
    people: Vec<(usize, oneshot::Receiver<T>)>,
) -> Vec<(usize, Result<Option<T>, TimedOut>)> {
    let until = observer.now() + within;
    let mut all = Vec::new();
    for (number, told) in people {
        let left = until.since(observer.now());
        all.push((number, observer.timeout(left, told).await.map(Result::ok)));
    }
    all
}

#[cfg(test)]
mod tests {
    use chatchat::env::real::RealWorld;

    use super::*;

    #[tokio::test]
    async fn silent_people_cost_one_wait_and_hide_nobody_behind_them() {
        let observer = Env::new(RealWorld::temporary().expect("a directory"));
        let (mut silent, mut people) = (Vec::new(), Vec::new());
        for number in 0..20 {
            let (tell, told) = oneshot::channel();
            people.push((number, told));
            match number {
                18 => drop(tell),
                19 => tell.send("it is well").expect("it is waited for"),
                _ => silent.push(tell),
            }
        }
        let (began, within) = (observer.now(), Duration::from_millis(200));
        let all = all_told(&observer, within, people).await;
        assert!(observer.now().since(began) < within * 10, "one deadline for all");
        let told: Vec<_> = all.iter().map(|(_, told)| told.as_ref().ok().copied()).collect();
        assert_eq!(told[..18], [None; 18]);
        assert_eq!(told[18..], [Some(None), Some(Some("it is well"))]);
    }
}
