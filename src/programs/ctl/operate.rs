//! Commands of operators: join tokens, the expulsion of nodes, dead letters. They need the admin
//! token.

use jiff::tz::TimeZone;

use super::{CtlError, render, say, targets::Targets};
use crate::{
    api::NodeState,
    client::{Answer, Api, Failure, Limits, Request},
    env::Env,
    model::ids::{NodeId, Role, TokenId},
};

const STRANGE: &str = "it answered with something else";

/// Asks the first master that answers. A refusal is an answer.
async fn ask(env: &Env, places: &Targets, request: &Request) -> Result<Answer, CtlError> {
    let mut why = "no admin token was found; run it where the masters' --data-dir is, or name \
                   their address with --admin HOST:PORT"
        .to_owned();
    let trust = places.trust()?;
    for admin in &places.admins {
        let mut api = Api::new(env, &admin.url, Some(admin.token.clone()), Limits::default())
            .trusting(trust.clone());
        match api.call(request).await {
            Ok(answer) => return Ok(answer),
            Err(Failure::Refused { problem, .. }) => {
                return Err(CtlError::Failed(problem.to_string()));
            }
            Err(failure) => why = format!("{}: {failure}", admin.name),
        }
    }
    Err(CtlError::Failed(why))
}

/// Makes a join token.
pub(super) async fn new_token(env: &Env, places: &Targets) -> Result<(), CtlError> {
    match ask(env, places, &Request::NewJoinToken).await? {
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

/// Lists the latest dead letters.
pub(super) async fn list_letters(env: &Env, places: &Targets) -> Result<(), CtlError> {
    match ask(env, places, &Request::DeadLetters).await? {
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

/// Drops a dead letter.
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

/// Returns the one worker of this name.
fn named(nodes: &[NodeState], name: &str) -> Result<NodeId, CtlError> {
    let of_name: Vec<_> = nodes.iter().filter(|node| node.name == name).collect();
    match of_name[..] {
        [] => Err(CtlError::Failed(format!(
            "no node is called {name}; status --data-dir shows names, and whole ids are taken too"
        ))),
        [one] if one.role == Role::Master => Err(CtlError::Failed(format!(
            "{name} is a master, which has the store's own credentials: stop it, and change them"
        ))),
        [one] => Ok(one.id),
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
    use crate::model::{ids::Registration, message::MemberState};

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
}
