//! Requests of operators: join tokens, the drain of workers, the expulsion of nodes, and dead letters.

use super::{
    Driver,
    input::{DrainReply, Input},
    reads::unread,
};
use crate::{
    api::{JoinInvitation, JoinTerms, JoinTokenList, JoinTokenState},
    comm::Link,
    crypto::{admission::JoinSecret, keys},
    model::{
        bounds::HAND_OVER_VERSION,
        event::Event,
        ids::{LinkId, NodeId, Role, TokenId},
        message::{Fact, MemberState, Request, Response},
        rows::{DeadLetter, StoreError},
    },
    node::handle::{Reply, RequestError, WorkerDrainError},
    protocol::{master::Effect, registry::Registry},
    store::Store,
};

/// Keeps a join token in the store on these terms; its life begins now.
///
/// # Errors
/// [`StoreError`]; the store may have the token, which ends by itself.
pub async fn keep_join_token(
    store: &Store,
    secret: &JoinSecret,
    terms: JoinTerms,
) -> Result<(), StoreError> {
    let ends_at_ms = store.cluster().await?.now_ms.saturating_add(terms.life_ms());
    store.put_join_token(secret.row(terms.uses(), ends_at_ms)).await
}

/// Lists the join tokens that have not ended.
async fn join_tokens(store: &Store) -> Result<JoinTokenList, StoreError> {
    let now = store.cluster().await?.now_ms;
    let tokens = store.admission().await?.tokens;
    let shown = tokens.into_iter().map(|token| JoinTokenState {
        id: TokenId(token.id),
        role: token.role,
        uses_left: token.uses_left,
        ends_at: token.ends_at_ms,
    });
    Ok(JoinTokenList { now, tokens: shown.collect() })
}

impl Driver {
    /// Makes a join token on these terms, and keeps it in the store before it is shown. Makes none before
    /// this master has read of itself in the store: it would name nobody to join.
    pub(super) fn invite(&self, terms: JoinTerms, reply: Reply<JoinInvitation>) {
        if self.core.watch().get(&self.me.holder.node).is_none() {
            let _ = reply.send(Err(RequestError::Away));
            return;
        }
        let rows = || self.core.watch().rows().filter(|(_, is_in)| *is_in).map(|(row, _)| row);
        let masters: Vec<_> = rows().map(|row| row.link.clone()).collect();
        let pins: Vec<_> = rows().map(|row| keys::fingerprint(&row.spki)).collect();
        let secret = JoinSecret::random(&mut self.env.rng("join-tokens"), &self.me.fingerprint);
        let store = self.store.clone();
        self.env.spawn("join-token", async move {
            let made = keep_join_token(&store, &secret, terms).await;
            let made = made.map_err(|error| unread(&error));
            let token = secret.text().to_string();
            let _ = reply.send(made.map(|()| JoinInvitation { token, masters, pins }));
        });
    }

    /// Lists the join tokens, as the store has them now.
    pub(super) fn list_join_tokens(&self, reply: Reply<JoinTokenList>) {
        let store = self.store.clone();
        self.env.spawn("join-tokens", async move {
            let _ = reply.send(join_tokens(&store).await.map_err(|error| unread(&error)));
        });
    }

    /// Revokes a join token. Nodes that it enrolled stay.
    pub(super) fn revoke_join_token(&self, id: TokenId, reply: Reply<()>) {
        let store = self.store.clone();
        self.env.spawn("revoke", async move {
            let known = async {
                let is_known = store.admission().await?.tokens.iter().any(|token| token.id == id.0);
                store.revoke_join_token(id.0).await?;
                Ok(is_known)
            };
            let _ = reply.send(match known.await {
                Ok(true) => Ok(()),
                Ok(false) => Err(RequestError::Unknown),
                Err(error) => Err(unread(&error)),
            });
        });
    }

    /// Lists the latest dead letters, as the store has them now.
    pub(super) fn list_dead_letters(
        &self,
        before: Option<u64>,
        limit: u32,
        reply: Reply<Vec<DeadLetter>>,
    ) {
        let store = self.store.clone();
        self.env.spawn("dead-letters", async move {
            let letters = store.dead_letters_before(before, limit).await;
            let _ = reply.send(letters.map_err(|error| unread(&error)));
        });
    }

    /// Drops a dead letter.
    pub(super) fn drop_dead_letter(&self, number: u64, reply: Reply<()>) {
        let store = self.store.clone();
        self.env.spawn("dead-letters", async move {
            let dropped = store.drop_dead_letter(number).await;
            let _ = reply.send(dropped.map_err(|error| unread(&error)));
        });
    }

    /// Asks a worker of this master to hand its held posts over and end, and answers with the longest time
    /// that this takes, in milliseconds. From now on it counts as one that ends.
    pub(super) fn drain_worker(&mut self, node: NodeId, force: bool, reply: DrainReply) {
        let link = match self.to_drain(node, force) {
            Ok(link) => link,
            Err(why) => return drop(reply.send(Err(why))),
        };
        tracing::info!(%node, force, "a worker is being drained");
        self.core.on_worker_ends(link.id());
        let limit = self.config.store_timeout;
        self.spawn("drain-worker", async move {
            let answer = match link.call(Request::Drain, limit).await {
                Ok(Response::Draining { within_ms }) => Ok(within_ms),
                _ => Err(WorkerDrainError::NoAnswer),
            };
            Input::WorkerAnsweredDrain { link: link.id(), answer, reply }
        });
    }

    pub(super) fn on_worker_answered_drain(
        &mut self,
        link: LinkId,
        answer: Result<u64, WorkerDrainError>,
        reply: DrainReply,
    ) {
        if answer.is_err() {
            // If it ends all the same, it says so by its first held post, or by its link's end.
            self.core.on_worker_stays(self.env.now(), link, &mut self.out);
        }
        let _ = reply.send(answer);
    }

    /// Returns the link to a worker that may be drained.
    fn to_drain(&self, node: NodeId, force: bool) -> Result<Link, WorkerDrainError> {
        let registry = self.core.registry();
        let master = may_drain(registry, node, force, |other| self.core.is_worker_ending(other))?;
        let registered = self.core.registrations().get(&node);
        let Some(link) = registered.and_then(|worker| self.links.get(worker.link)) else {
            let name = registry.get(&master).map(|member| member.name.clone());
            let master = name.unwrap_or_else(|| master.to_string());
            return Err(WorkerDrainError::Elsewhere { master });
        };
        if link.peer().version < HAND_OVER_VERSION {
            return Err(WorkerDrainError::OldRelease);
        }
        Ok(link.clone())
    }

    /// Expels a worker: the store denies it for good before its link is cut. Other masters follow
    /// when they read the store next.
    pub(super) fn expel(&self, node: NodeId, reply: Reply<()>) {
        let known = self.core.registry().get(&node).map(|member| member.fact.role);
        // The front end refuses masters, and may have asked before this one had read of any.
        if known == Some(Role::Master) {
            let _ = reply.send(Err(RequestError::Unknown));
            return;
        }
        let (store, is_here) = (self.store.clone(), known.is_some());
        self.spawn("expel", async move {
            let known = async {
                let listed = store.admission().await?;
                let is_known = listed.denied.contains(&node)
                    || listed.allowed.iter().any(|row| row.node == node);
                if !is_here && !is_known {
                    return Ok(false);
                }
                store.deny(node).await?;
                Ok(true)
            };
            Input::Denied { node, answer: known.await, reply }
        });
    }

    pub(super) fn on_denied(
        &mut self,
        node: NodeId,
        answer: Result<bool, StoreError>,
        reply: Reply<()>,
    ) {
        // A refusal says that it was denied all the same: only its login of the store is open.
        if matches!(answer, Ok(true) | Err(StoreError::Refused { .. })) {
            self.gate.lists().on_denied(node);
            self.cut_expelled();
        }
        if let Err(StoreError::Refused { why }) = &answer {
            tracing::error!(%node, why, "an expelled worker may still use the store");
        }
        let answer = match answer {
            Ok(true) => Ok(()),
            Ok(false) => Err(RequestError::Unknown),
            Err(error) => Err(unread(&error)),
        };
        let _ = reply.send(answer);
    }

    /// Ends the registrations of workers that were expelled since the last call, and has the common
    /// key replaced: a Welcome with it may be on its way to such a worker.
    pub(super) fn cut_expelled(&mut self) {
        let now = self.env.now();
        let expelled = self.gate.lists().take_newly_denied();
        for node in expelled {
            self.out.push(Effect::Event(Event::Expel { node }));
            self.core.expel(now, node, &mut self.out);
        }
    }
}

/// Checks that a worker is in and, without `force`, that another one is too and does not end. Returns the
/// worker's master.
fn may_drain(
    registry: &Registry,
    node: NodeId,
    force: bool,
    ends: impl Fn(&NodeId) -> bool,
) -> Result<NodeId, WorkerDrainError> {
    let is_in = |fact: &&Fact| fact.role == Role::Worker && fact.state == MemberState::In;
    let (mut master, mut has_others) = (None, false);
    for fact in registry.facts().filter(is_in) {
        if fact.node == node {
            master = Some(fact.master);
        } else {
            has_others |= !ends(&fact.node);
        }
    }
    let master = master.ok_or(WorkerDrainError::Unknown)?;
    if has_others || force { Ok(master) } else { Err(WorkerDrainError::LastWorker) }
}

#[cfg(all(test, feature = "net"))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::{
            ids::{Registration, StoreEpoch},
            message::Member,
            rows::Enrolled,
            time::Mono,
        },
        store::sqlite::{NewCluster, memory},
        testing::keys::{identity, rng},
    };

    #[test]
    fn last_worker_that_is_in_is_drained_by_force_alone() {
        let mut registry = Registry::new(8);
        let ids = [2, 3, 4].map(|number| NodeId::of(&identity(number).fingerprint()));
        let mut add = |number: u8, role, state| {
            let identity = identity(number);
            let node = NodeId::of(&identity.fingerprint());
            let registration = Registration(1);
            let fact = Fact { node, role, registration, state, master: ids[2] };
            let (name, spki) = ("x".to_owned(), identity.spki().to_vec());
            registry.apply(Mono::ZERO, Member { fact, name, link: None, http: None, spki });
        };
        add(2, Role::Worker, MemberState::In);
        add(3, Role::Worker, MemberState::In);
        add(4, Role::Master, MemberState::In);
        let may = |registry: &Registry, node, force| may_drain(registry, node, force, |_| false);
        assert_eq!(may(&registry, ids[0], false), Ok(ids[2]));
        assert_eq!(may(&registry, ids[2], true), Err(WorkerDrainError::Unknown));
        // The other one is being drained: it is in until it has ended.
        let ends = |node: &NodeId| *node == ids[1];
        let may_with = |node, force| may_drain(&registry, node, force, ends);
        assert_eq!(may_with(ids[0], false), Err(WorkerDrainError::LastWorker));
        assert_eq!(may_with(ids[0], true), Ok(ids[2]));
        assert_eq!(may_with(ids[1], false), Ok(ids[2]), "it is asked once more");
        registry.end(Mono::ZERO, ids[1], Registration(1), MemberState::Left);
        assert_eq!(may(&registry, ids[0], false), Err(WorkerDrainError::LastWorker));
        assert_eq!(may(&registry, ids[0], true), Ok(ids[2]));
        assert_eq!(may(&registry, ids[1], true), Err(WorkerDrainError::Unknown));
    }

    #[tokio::test]
    async fn token_of_two_uses_enrols_two_workers_and_not_three() {
        let new = NewCluster { cluster: [1; 16], epoch: StoreEpoch(7), now_ms: 1000 };
        let store = memory::open(&new, || 1000).expect("opens");
        let secret = JoinSecret::random(&mut rng(7), &identity(1).fingerprint());
        let terms = JoinTerms::new(2, Duration::from_secs(3 * 24 * 3600)).expect("in bounds");
        keep_join_token(&store, &secret, terms).await.expect("kept");
        let listed = join_tokens(&store).await.expect("listed").tokens;
        let [token] = &listed[..] else { panic!("one token: {listed:?}") };
        assert_eq!((token.uses_left, token.ends_at), (2, 1000 + 3 * 24 * 3600 * 1000));
        for (number, is_taken) in [(2, true), (3, true), (4, false)] {
            let fingerprint = identity(number).fingerprint();
            let node = NodeId::of(&fingerprint);
            let row = Enrolled { node, fingerprint, role: Role::Worker, guard: [number; 32] };
            let enrolled = store.enrol(secret.id, secret.bearer_sha256(), row).await;
            assert_eq!(enrolled.is_ok(), is_taken, "{number}: {enrolled:?}");
        }
    }
}
