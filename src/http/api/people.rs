//! Active people, and the cluster as people see it.

use axum::extract::{Query, State, rejection::QueryRejection};
use serde::Deserialize;

use super::{HandlerResult, LongJson};
use crate::{
    api::{Cluster, Node, ProblemType, User, UserList},
    http::{App, auth::Caller, body, problem::ErrorResponse},
    model::{ids::UserId, rows::ActiveUser},
    node::handle::{People, SessionRequest},
};

/// The most people that a limit may ask for.
const LIMIT_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
pub(super) struct UsersQuery {
    after: Option<String>,
    limit: Option<usize>,
}

/// Place in the list of active people: after a person, whose name is known if an earlier answer
/// named the place.
struct Place<'a> {
    id: UserId,
    name: Option<&'a str>,
}

impl<'a> Place<'a> {
    /// Reads `ID`, or `ID:NAME` as [`UserList::next`] has it.
    fn parse(text: &'a str) -> Option<Self> {
        let (id, name) = text.split_once(':').map_or((text, None), |(id, name)| (id, Some(name)));
        Some(Self { id: id.parse().ok()?, name })
    }

    fn of(user: &ActiveUser) -> String {
        format!("{}:{}", user.user.id, user.user.name)
    }

    /// Returns the index of the first person after the place; `None` if its person left and only
    /// the name would tell where it stood.
    fn index(&self, users: &[ActiveUser]) -> Option<usize> {
        match self.name {
            Some(name) => Some(users.partition_point(|user| {
                (user.user.name.as_str(), user.user.id) <= (name, self.id)
            })),
            None => users.iter().position(|user| user.user.id == self.id).map(|at| at + 1),
        }
    }
}

/// `GET /api/v1/users`
pub(super) async fn users(
    State(app): State<App>,
    caller: Caller,
    asked: Result<Query<UsersQuery>, QueryRejection>,
) -> HandlerResult {
    let malformed = |detail: &str| ErrorResponse::new(ProblemType::MalformedQuery, detail);
    let UsersQuery { after, limit } = body::query(asked)?;
    let limit = match limit {
        None => usize::MAX,
        Some(0) => return Err(malformed("limit: want 1 or more")),
        Some(limit) => limit.min(LIMIT_MAX),
    };
    let place = after
        .as_deref()
        .map(|text| {
            Place::parse(text).ok_or_else(|| malformed("after: want a person's id or a `next`"))
        })
        .transpose()?;
    let answer = LongJson::begin(&app, &caller)?;
    let read = app.ask(caller, |reply| SessionRequest::Users { reply }).await?;
    let People { version, users } = read.value;
    let first = match &place {
        None => 0,
        Some(place) => place.index(&users).ok_or_else(|| {
            malformed("after: this person is no longer active; ask with the `next` of an answer")
        })?,
    };
    let rest = users.get(first..).unwrap_or_default();
    let shown = rest.get(..limit).unwrap_or(rest);
    let list = UserList {
        users: shown.iter().map(User::from).collect(),
        next: shown.last().filter(|_| shown.len() < rest.len()).map(Place::of),
        total: users.len() as u64,
        version,
        consistency: read.consistency,
    };
    answer.end(&list)
}

/// `GET /api/v1/cluster`
pub(super) async fn cluster(State(app): State<App>, caller: Caller) -> HandlerResult {
    let answer = LongJson::begin(&app, &caller)?;
    let view = app.ask(caller, |reply| SessionRequest::Cluster { reply }).await?;
    let shape = Cluster {
        node: view.node,
        store: view.store.into(),
        store_reason: view.store_away.map(|away| away.reason),
        key_epoch: view.key_epoch,
        key_age_ms: view.keys.age_ms,
        nodes: view.nodes.into_iter().map(|node| Node::new(node, &view.failed)).collect(),
    };
    answer.end(&shape)
}
