//! Operators of the simulated cluster: join tokens that they make, and their way to the masters.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
};

use chatchat::{
    crypto::admission::JoinSecret,
    env::{BoxFuture, Env},
};
use chatchat_scenarios::{fault::Action, plan::Plan, target::Place, workload::Admin};

use super::{ADMIN_PORT, Cluster, host_name};
use crate::keys::private_windows;

/// Beginning of the names of operators' machines.
const OPERATOR: &str = "operator";
/// Admin token of a cluster that is made for a story: operators write it into each master's directory.
pub(crate) const ADMIN_TOKEN: &str = "operators-of-a-story";
/// File that holds it.
pub(crate) const ADMIN_TOKEN_FILE: &str = "admin.token";

/// Returns how often the faults of a plan expel one worker at most.
pub(crate) fn expulsions_max(plan: &Plan) -> usize {
    plan.faults.iter().filter(|fault| matches!(fault.action, Action::Expel { .. })).count()
}

/// Returns whether a plan has operators, whom each master has to listen to.
pub(crate) fn has_operators(plan: &Plan) -> bool {
    plan.workload.has_operator() || expulsions_max(plan) > 0
}

/// Returns what nobody but a token's node may see of it.
pub(super) fn parts(secret: &JoinSecret) -> [Vec<u8>; 3] {
    let (guard, bearer) = (secret.guard(), secret.bearer());
    [secret.text().as_bytes().to_vec(), guard.expose().to_vec(), bearer.expose().to_vec()]
}

/// Join tokens of the workers: each has one, and some that nobody has shown yet.
#[derive(Default)]
pub(crate) struct JoinTokens(BTreeMap<usize, Vec<String>>);

impl JoinTokens {
    /// Deals tokens out, `each` to every worker.
    pub(crate) fn new(secrets: &[JoinSecret], each: usize) -> Self {
        let texts = |secrets: &[JoinSecret]| {
            secrets.iter().rev().map(|secret| secret.text().to_string()).collect()
        };
        Self(secrets.chunks(each).map(texts).enumerate().collect())
    }

    /// Returns the token that a worker has now.
    pub(crate) fn of(&self, worker: usize) -> Option<String> {
        self.0.get(&worker)?.last().cloned()
    }

    /// Gives a worker a fresh one in the place of that, as long as there are any.
    pub(crate) fn replace(&mut self, worker: usize) {
        if let Some(tokens) = self.0.get_mut(&worker).filter(|tokens| tokens.len() > 1) {
            tokens.pop();
        }
    }
}

impl Cluster {
    fn tokens(&self) -> MutexGuard<'_, JoinTokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the secrets of nodes, tokens and keys: join tokens and what is derived from them, the guards
    /// of the nodes that are enrolled, and a part of each private key.
    pub(crate) async fn secrets(&self) -> Vec<Vec<u8>> {
        let enrolled = self.direct_store().admission().await.map(|lists| lists.allowed);
        let guards = enrolled.unwrap_or_default().into_iter().map(|row| row.guard.to_vec());
        let keys = private_windows().iter().map(|window| window.to_vec());
        guards.chain(keys).chain(self.join_secrets.iter().cloned()).collect()
    }

    /// Returns the join token in the settings of a worker.
    pub(super) fn token(&self, worker: usize) -> Option<String> {
        self.tokens().of(worker)
    }

    /// Writes a token that no node ever had into the settings of a worker.
    pub(super) fn invite(&self, place: Place) {
        if let Place::Worker(worker) = place {
            self.tokens().replace(worker);
        }
    }

    /// Writes the operators' token into a master's directory, if the story has operators.
    pub(super) fn let_operators_in(&self, master: &Env) {
        if self.has_operators {
            // A disk that refuses it refuses the master's own files as well: it does not begin.
            let _ = master.disk().write_atomic(ADMIN_TOKEN_FILE, ADMIN_TOKEN.as_bytes());
        }
    }

    /// Switches on a machine for an operator.
    pub(super) fn operator(&self) -> BoxFuture<'_, Env> {
        let mut names = (0..).map(|nth: u32| format!("{OPERATOR}{nth}"));
        let name = names.find(|name| self.world.host(name).is_none()).unwrap_or_default();
        Box::pin(self.world.idle(self.world.add_host(&name)))
    }

    /// Returns the masters' listeners for operators.
    pub(super) fn admins(&self) -> Vec<Admin> {
        let admin = |nth| Admin {
            url: format!("http://{}:{ADMIN_PORT}", host_name(Place::Master(nth))),
            token: ADMIN_TOKEN.to_owned(),
        };
        let masters = if self.has_operators { self.shape.masters } else { 0 };
        (0..masters).map(admin).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chatchat::model::ids::Fingerprint;
    use chatchat_scenarios::story::Story;
    use dst_world::Detail;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::{run::run, verdict::Verdict};

    /// A single try is all that a task gets, so that workers which stand still make dead letters.
    const LETTERS: &str = r#"
about = ""
duration = "14s"
[cluster]
masters = 2
workers = 2
[cluster.config]
attempts_per_worker = 1
attempts_max = 1
attempt_timeout = "400ms"
store_timeout = "280ms"
[workload]
people = 4
posts_per_second = 12.0
operator_rounds_per_minute = 60.0
[[fault]]
at = "4s"
kind = "pause"
target = "worker:*"
for = "1500ms"
"#;

    #[test]
    fn operator_ends_dead_letters_and_looks_at_each_master_when_all_is_quiet() {
        let plan = Plan::expand(&Story::parse("letters", LETTERS).expect("a story"), 1);
        let report = run(&plan, Detail::Events, &Arc::default()).expect("supported");
        assert_eq!(report.verdict, Verdict::Holds, "{:?}", report.complaints);
        let calls = &report.history.operator;
        let mut about_letters = calls.iter().filter(|call| call.letter.is_some());
        assert!(about_letters.any(|call| call.reply().is_some()), "{calls:?}");
        let last: Vec<_> = calls.iter().rev().take(2).map(|call| call.master.as_str()).collect();
        assert_eq!(last, ["http://master1:81", "http://master0:81"]);
        assert!(calls.iter().rev().take(2).all(|call| call.reply().is_some()), "{calls:?}");
    }

    #[test]
    fn only_stories_with_an_operator_or_an_expulsion_have_listeners_for_them() {
        let has = |text: &str| {
            let story = Story::parse("letters", text).expect("a story");
            has_operators(&Plan::expand(&story, 1))
        };
        assert!(has(LETTERS));
        let without = LETTERS.replace("operator_rounds_per_minute = 60.0\n", "");
        assert!(!has(&without));
        assert!(has(&without.replace("kind = \"pause\"", "kind = \"expel\"")));
    }

    #[test]
    fn worker_keeps_its_token_until_it_is_given_another_that_nobody_had() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let secrets: Vec<_> =
            (0..4).map(|_| JoinSecret::random(&mut rng, &Fingerprint([1; 32]))).collect();
        let mut tokens = JoinTokens::new(&secrets, 2);
        let texts: Vec<_> = secrets.iter().map(|secret| Some(secret.text().to_string())).collect();
        assert_eq!([tokens.of(0), tokens.of(1)], [texts[0].clone(), texts[2].clone()]);
        tokens.replace(0);
        assert_eq!([tokens.of(0), tokens.of(1)], [texts[1].clone(), texts[2].clone()]);
        assert_eq!(tokens.of(2), None);
    }
}
