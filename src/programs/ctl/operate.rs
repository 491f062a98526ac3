//! Commands of operators: join tokens, drains, the expulsion of nodes, dead letters. They need the
//! admin token.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::{
    CtlError, render, say,
    targets::{Admin, Targets},
};
use crate::{
    api::{JoinTerms, NodeState},
    client::{Answer, Api, Failure, Limits, Request, Trust},
    env::Env,
    model::{
        ids::{NodeId, Role, TokenId},
        message::MemberState,
    },
};

const STRANGE: &str = "it answered with something else";
const NO_TOKEN: &str = "no admin token was found; run it where the masters' --data-dir is, or name \
                        their address with --admin HOST:PORT";

/// Asks the first master that answers. A refusal is an answer.
async fn ask(env: &Env, places: &Targets, request: &Request) -> Result<Answer, CtlError> {
    let mut why = NO_TOKEN.to_owned();
    let trust = places.trust()?;
    for admin in &places.admins {
        match api_of(env, admin, trust.clone()).call(request).await {
            Ok(answer) => return Ok(answer),
            Err(Failure::Refused { problem, .. }) => {
                return Err(CtlError::Failed(problem.to_string()));
            }
            Err(failure) => why = format!("{}: {failure}", admin.name),
        }
    }
    Err(CtlError::Failed(why))
}

fn api_of(env: &Env, admin: &Admin, trust: Option<Trust>) -> Api {
    Api::new(env, &admin.url, Some(admin.token.clone()), Limits::default()).trusting(trust)
}

/// Makes a join token with so many uses that lasts so long.
pub(super) async fn new_token(
    env: &Env,
    places: &Targets,
    uses: u32,
    life: Duration,
) -> Result<(), CtlError> {
    let terms = JoinTerms::new(uses, life).map_err(|why| CtlError::Usage(why.to_string()))?;
    match ask(env, places, &Request::NewJoinToken { terms }).await? {
        Answer::Invitation(made) => say(&render::invitation(&made)),
        _ => Err(CtlError::Failed(STRANGE.to_owned())),
    }
}

/// Lists the join tokens that have not ended.
pub(super) async fn list_tokens(env: &Env, places: &Targets) -> Result<(), CtlError> {
    match ask(env, places, &Request::JoinTokens).await? {
        Answer::JoinTokens(list) => say(&render::join_tokens(&list)),
        _ => Err(CtlError::Failed(STRANGE.to_owned())),
    }
}

/// Revokes a join token.
pub(super) async fn revoke_token(env: &Env, places: &Targets, id: TokenId) -> Result<(), CtlError> {
    ask(env, places, &Request::RevokeJoinToken { id }).await?;
    say(&format!("{id} is revoked; workers that joined with it stay\n"))
}

/// Lists the latest dead letters, or the latest before this number.
pub(super) async fn list_letters(
    env: &Env,
    places: &Targets,
    before: Option<u64>,
) -> Result<(), CtlError> {
    match ask(env, places, &Request::DeadLetters { before }).await? {
        Answer::DeadLetters(list) => say(&render::dead_letters(&list, &TimeZone::system())),
        _ => Err(CtlError::Failed(STRANGE.to_owned())),
    }
}

/// Sends the post of a dead letter again.
pub(super) async fn retry_letter(env: &Env, places: &Targets, number: u64) -> Result<(), CtlError> {
    match ask(env, places, &Request::RetryDeadLetter { number }).await? {
        Answer::Posted(post) => say(&format!("{} {}\n", post.board, post.seq)),
        _ => Err(CtlError::Failed(STRANGE.to_owned())),
    }
}

/// Drops a dead letter, and cancels its post.
pub(super) async fn drop_letter(env: &Env, places: &Targets, number: u64) -> Result<(), CtlError> {
    ask(env, places, &Request::DropDeadLetter { number }).await?;
    say(&format!("dead letter {number} is dropped\n"))
}

/// Expels the worker of this name or id.
pub(super) async fn expel(env: &Env, places: &Targets, node: &str) -> Result<(), CtlError> {
    let id = match node.parse() {
        Ok(id) => id,
        Err(_) => match ask(env, places, &Request::ClusterState).await? {
            Answer::ClusterState(state) => named(&state.nodes, node)?,
            _ => return Err(CtlError::Failed(STRANGE.to_owned())),
        },
    };
    ask(env, places, &Request::Expel { node: id }).await?;
    say(&format!(
        "{id} is expelled: every master cuts its link within a second or two, and none takes it in \
         again\n"
    ))
}

/// Time between two looks whether a drained node still runs.
const LOOK: Duration = Duration::from_millis(100);
/// Time for a drained node to end beyond what it said.
const SPARE: Duration = Duration::from_secs(5);

/// Drains a master or a worker, and waits until it has ended.
pub(super) async fn drain(
    env: &Env,
    places: &Targets,
    name: Option<&str>,
    force: bool,
) -> Result<(), CtlError> {
    let is_master = |name| places.admins.iter().any(|admin| admin.name == name);
    match name {
        Some(name) if !places.admins.is_empty() && !is_master(name) => {
            drain_worker(env, places, name, force).await
        }
        _ => drain_master(env, places, name, force).await,
    }
}

async fn drain_master(
    env: &Env,
    places: &Targets,
    name: Option<&str>,
    force: bool,
) -> Result<(), CtlError> {
    let admin = one_of(&places.admins, name)?;
    let (began, trust) = (env.now(), places.trust()?);
    let within_ms = match api_of(env, admin, trust.clone()).call(&Request::Drain { force }).await {
        Ok(Answer::Draining(draining)) => draining.within_ms,
        Ok(_) => return Err(CtlError::Failed(STRANGE.to_owned())),
        Err(Failure::Refused { problem, .. }) => return Err(CtlError::Failed(problem.to_string())),
        Err(failure) => return Err(CtlError::Failed(format!("{}: {failure}", admin.name))),
    };
    say(&format!("{} is being drained, for {within_ms} ms at most\n", admin.name))?;
    let until = began + Duration::from_millis(within_ms) + SPARE;
    while env.now() < until {
        // One that is only slow has not ended: nobody listens where it was.
        let look = api_of(env, admin, trust.clone()).call(&Request::ClusterState).await;
        if matches!(look, Err(Failure::Unreached { .. })) {
            let took = env.now().since(began).as_secs_f64();
            return say(&format!("{} has ended after {took:.1} s\n", admin.name));
        }
        env.sleep(LOOK).await;
    }
    Err(CtlError::Failed(format!("{} still answers; see its log", admin.name)))
}

/// Drains the worker of this name or id: only its own master can ask it to end.
async fn drain_worker(
    env: &Env,
    places: &Targets,
    name: &str,
    force: bool,
) -> Result<(), CtlError> {
    let Answer::ClusterState(state) = ask(env, places, &Request::ClusterState).await? else {
        return Err(CtlError::Failed(STRANGE.to_owned()));
    };
    let worker = to_drain(&state.nodes, name)?;
    let (began, trust) = (env.now(), places.trust()?);
    let mut why = NO_TOKEN.to_owned();
    for admin in &places.admins {
        let mut api = api_of(env, admin, trust.clone());
        let within_ms = match api.call(&Request::DrainWorker { node: worker.id, force }).await {
            Ok(Answer::Draining(draining)) => draining.within_ms,
            Ok(_) => return Err(CtlError::Failed(STRANGE.to_owned())),
            // Another one may be the worker's master.
            Err(Failure::Refused { status: 404, problem }) => {
                why = problem.to_string();
                continue;
            }
            Err(Failure::Refused { problem, .. }) => {
                return Err(CtlError::Failed(problem.to_string()));
            }
            Err(failure @ Failure::Unreached { .. }) => {
                why = format!("{}: {failure}", admin.name);
                continue;
            }
            Err(failure) => return Err(CtlError::Failed(format!("{}: {failure}", admin.name))),
        };
        say(&format!("{name} is being drained, for {within_ms} ms at most\n"))?;
        let until = began + Duration::from_millis(within_ms) + SPARE;
        let mut answers = true;
        while env.now() < until {
            let look = api.call(&Request::ClusterState).await;
            answers = look.is_ok();
            if let Ok(Answer::ClusterState(state)) = look
                && !state.nodes.iter().any(|node| is_same_life(node, worker))
            {
                let took = env.now().since(began).as_secs_f64();
                return say(&format!("{name} has ended after {took:.1} s\n"));
            }
            env.sleep(LOOK).await;
        }
        return Err(CtlError::Failed(not_seen_to_end(name, answers)));
    }
    Err(CtlError::Failed(why))
}

/// Says why the end of a worker was not seen; `answers` is whether its master answered when last asked.
fn not_seen_to_end(name: &str, answers: bool) -> String {
    if answers {
        format!("{name} is still in; see its log")
    } else {
        format!("{name}: its master no longer answers; the worker may have ended")
    }
}

/// Returns whether a node is in under the registration that it had before.
fn is_same_life(node: &NodeState, before: &NodeState) -> bool {
    let is_in = node.state == MemberState::In;
    is_in && node.id == before.id && node.registration == before.registration
}

/// Returns the admin listener of this name, or the only one.
fn one_of<'a>(admins: &'a [Admin], name: Option<&str>) -> Result<&'a Admin, CtlError> {
    let names = || admins.iter().map(|admin| admin.name.as_str()).collect::<Vec<_>>().join(", ");
    match (admins, name) {
        ([], _) => Err(CtlError::Failed(NO_TOKEN.to_owned())),
        ([one], None) => Ok(one),
        (_, None) => Err(CtlError::Usage(format!("name the master; there are {}", names()))),
        (_, Some(name)) => admins.iter().find(|admin| admin.name == name).ok_or_else(|| {
            CtlError::Failed(format!("no master here is called {name}; there are {}", names()))
        }),
    }
}

/// Returns the id of the one worker of this name.
fn named(nodes: &[NodeState], name: &str) -> Result<NodeId, CtlError> {
    match only(nodes, name, |node| node.name == name)? {
        one if one.role == Role::Master => Err(CtlError::Failed(format!(
            "{name} is a master, which has the store's own credentials: stop it, and change them"
        ))),
        one => Ok(one.id),
    }
}

/// Returns the one worker of this name or id that is in.
fn to_drain<'a>(nodes: &'a [NodeState], name: &str) -> Result<&'a NodeState, CtlError> {
    let id: Option<NodeId> = name.parse().ok();
    let is_it = |node: &NodeState| id.map_or(node.name == name, |id| node.id == id);
    let is_in = |node: &NodeState| node.state == MemberState::In && is_it(node);
    // One that is gone is named too when there is no other.
    let any_in = nodes.iter().any(is_in);
    match only(nodes, name, |node| if any_in { is_in(node) } else { is_it(node) })? {
        one if one.role == Role::Master => Err(CtlError::Failed(format!(
            "{name} is a master whose admin listener is not known here: name that with --admin \
             HOST:PORT and no node"
        ))),
        one if !any_in => Err(CtlError::Failed(format!("{} is not in", one.name))),
        one => Ok(one),
    }
}

/// Returns the one node that fits; `name` is what the operator called it.
fn only<'a>(
    nodes: &'a [NodeState],
    name: &str,
    fits: impl Fn(&NodeState) -> bool,
) -> Result<&'a NodeState, CtlError> {
    let of_name: Vec<_> = nodes.iter().filter(|node| fits(node)).collect();
    match of_name[..] {
        [] => Err(CtlError::Failed(format!(
            "no node is called {name}; status --data-dir shows names, and whole ids are taken too"
        ))),
        [one] => Ok(one),
        _ => {
            let ids: Vec<_> = of_name.iter().map(|node| node.id.to_string()).collect();
            let why = format!("several nodes are called {name}; name one by its id: ");
            Err(CtlError::Failed(why + &ids.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::Registration;

    fn node(n: u8, role: Role, name: &str) -> NodeState {
        NodeState {
            id: NodeId([n; 16]),
            name: name.to_owned(),
            role,
            registration: Registration(1),
            state: MemberState::In,
            master: NodeId([1; 16]),
            http: None,
            reaches_store: None,
            in_flight: 0,
            resident_bytes: None,
            held_posts: 0,
            release: None,
        }
    }

    #[test]
    fn name_stands_for_the_only_worker_that_has_it() {
        let nodes = [
            node(1, Role::Master, "north"),
            node(2, Role::Worker, "w1"),
            node(3, Role::Worker, "w2"),
            node(4, Role::Worker, "w2"),
        ];
        assert_eq!(named(&nodes, "w1").ok(), Some(NodeId([2; 16])));
        let why = |name| named(&nodes, name).expect_err("refused").to_string();
        assert!(why("w3").contains("no node is called w3"), "{}", why("w3"));
        assert!(why("north").contains("is a master"), "{}", why("north"));
        assert!(why("w2").contains(&NodeId([4; 16]).to_string()), "{}", why("w2"));
    }

    #[test]
    fn worker_is_not_said_to_be_in_by_a_master_that_is_gone() {
        assert_eq!(not_seen_to_end("w1", true), "w1 is still in; see its log");
        assert!(not_seen_to_end("w1", false).ends_with("the worker may have ended"));
    }

    #[test]
    fn worker_to_drain_is_the_one_that_is_in() {
        let mut nodes = [
            node(1, Role::Master, "north"),
            node(2, Role::Worker, "w1"),
            node(3, Role::Worker, "w1"),
            node(4, Role::Worker, "w2"),
        ];
        nodes[1].state = MemberState::Left;
        nodes[3].state = MemberState::Failed;
        let id =
            |name: &str| to_drain(&nodes, name).map(|node| node.id).map_err(|why| why.to_string());
        assert_eq!(id("w1"), Ok(NodeId([3; 16])));
        assert_eq!(id(&NodeId([3; 16]).to_string()), Ok(NodeId([3; 16])));
        for (name, says) in [("w2", "w2 is not in"), ("north", "is a master"), ("w3", "no node")] {
            let why = id(name).expect_err("refused");
            assert!(why.contains(says), "{name}: {why}");
        }
        let before = nodes[2].clone();
        let mut now = before.clone();
        assert!(is_same_life(&now, &before));
        now.registration = Registration(2);
        assert!(!is_same_life(&now, &before), "it was started again");
    }
}
