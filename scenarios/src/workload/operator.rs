//! Operator of a workload: it lists the dead letters again and again, and retries or drops each.
//!
//! 1. It asks the masters' listeners for operators from a machine of its own, as `chatctl dead-letters` does: each
//!    call once, at a master that is drawn. What fails is done in a later round.
//! 2. What is done with a letter is drawn by the seed. Some are handled at two masters at once, as two operators
//!    would who do not know of each other.
//! 3. Once all is healed and quiet it lists the letters at each master, and changes nothing any more.

use std::{sync::Arc, time::Duration};

use chatchat::{
    api::DeadLetter,
    client::{Answer, Api, Failure, Limits, Request},
    env::Env,
};
use dst_env::rng::{Rng, Seed};

use super::Stage;
use crate::history::Recorder;

/// Most letters that are handled in one round. The others wait for the next one.
const PER_ROUND_MAX: usize = 20;

/// Listener for operators of a master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// `http://host:port`.
    pub url: String,
    /// Token that an operator shows.
    pub token: String,
}

/// Way to end a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    /// Its post is sent again.
    Retry,
    /// Its post is cancelled.
    Drop,
}

impl Deed {
    const fn request(self, number: u64) -> Request {
        match self {
            Self::Retry => Request::RetryDeadLetter { number },
            Self::Drop => Request::DropDeadLetter { number },
        }
    }
}

/// Draws what is done with a letter, and what is done with it elsewhere at the same time.
fn drawn(rng: &mut Rng) -> (Deed, Option<Deed>) {
    match rng.below(8) {
        0..3 => (Deed::Retry, None),
        3..6 => (Deed::Drop, None),
        6 => (Deed::Retry, Some(Deed::Retry)),
        _ => (Deed::Retry, Some(Deed::Drop)),
    }
}

/// Operator with a machine of its own.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    env: Env,
    stage: Arc<Stage>,
    recorder: Recorder,
}

impl Operator {
    pub(super) const fn new(env: Env, stage: Arc<Stage>, recorder: Recorder) -> Self {
        Self { env, stage, recorder }
    }

    pub(super) const fn env(&self) -> &Env {
        &self.env
    }

    /// Handles the letters until the story's end.
    pub(super) async fn work(self) {
        let mut rng = Seed(self.stage.seed).stream("workload/operator");
        let per_minute = self.stage.workload.operator_rounds_per_minute;
        let pause = Duration::from_secs_f64(60.0 / per_minute);
        while !self.is_over() {
            self.env.sleep(pause).await;
            self.round(&mut rng).await;
        }
    }

    /// Lists the letters at each master.
    pub(super) async fn look(self) {
        for admin in &self.stage.admins {
            self.list(admin).await;
        }
    }

    fn is_over(&self) -> bool {
        self.stage.clock.now() >= self.stage.until
    }

    /// Handles the letters that one master lists, the oldest first.
    async fn round(&self, rng: &mut Rng) {
        let letters = self.list(rng.pick(&self.stage.admins)).await;
        for letter in letters.iter().rev().take(PER_ROUND_MAX) {
            if self.is_over() {
                return;
            }
            let (first, second) = drawn(rng);
            let (here, there) = (rng.pick(&self.stage.admins), rng.pick(&self.stage.admins));
            let elsewhere = async {
                if let Some(second) = second {
                    self.handle(there, letter, second).await;
                }
            };
            tokio::join!(self.handle(here, letter, first), elsewhere);
        }
    }

    async fn list(&self, admin: &Admin) -> Vec<DeadLetter> {
        match self.ask(admin, Request::DeadLetters { before: None }, None).await {
            Ok(Answer::DeadLetters(list)) => list.letters,
            _ => Vec::new(),
        }
    }

    async fn handle(&self, admin: &Admin, letter: &DeadLetter, deed: Deed) {
        let answer = self.ask(admin, deed.request(letter.number), Some(letter)).await;
        match (deed, answer) {
            (Deed::Retry, Ok(_)) => {
                self.env.sometimes("an operator sent the post of a dead letter again");
            }
            (Deed::Retry, Err(Failure::Refused { status: 410, .. })) => {
                self.env.sometimes("an operator retried a dead letter of a cancelled post");
            }
            (Deed::Drop, Ok(_)) => self.env.sometimes("an operator dropped a dead letter"),
            _ => {}
        }
    }

    /// Makes a call once, and records it.
    async fn ask(
        &self,
        admin: &Admin,
        request: Request,
        letter: Option<&DeadLetter>,
    ) -> Result<Answer, Failure> {
        let call = self.recorder.operator_asks(&admin.url, &request, letter);
        let token = Some(admin.token.clone());
        let mut api = Api::new(&self.env, &admin.url, token, Limits::default());
        let answer = api.call(&request).await;
        self.recorder.operator_is_told(call, &answer);
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn letters_are_retried_dropped_and_handled_at_two_masters_at_once() {
        let mut rng = Seed(1).stream("a test");
        let seen: BTreeSet<_> = (0..200).map(|_| drawn(&mut rng)).collect();
        let all = [
            (Deed::Retry, None),
            (Deed::Retry, Some(Deed::Retry)),
            (Deed::Retry, Some(Deed::Drop)),
            (Deed::Drop, None),
        ];
        assert_eq!(seen, BTreeSet::from(all));
    }
}
