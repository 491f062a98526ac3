//! Requests of operators: join tokens, the expulsion of nodes, and dead letters.

use super::{Driver, input::Input, reads::unread};
use crate::{
    api::{JoinInvitation, JoinTerms, JoinTokenList, JoinTokenState},
    crypto::{admission::JoinSecret, keys},
    model::{
        event::Event,
        ids::{NodeId, TokenId},
        rows::{DeadLetter, StoreError},
    },
    node::handle::{Reply, RequestError},
    protocol::master::Effect,
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
    /// Makes a join token on these terms, and keeps it in the store before it is shown.
    pub(super) fn invite(&self, terms: JoinTerms, reply: Reply<JoinInvitation>) {
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

    /// Expels a worker: the store denies it for good before its link is cut. Other masters follow
    /// when they read the store next.
    pub(super) fn expel(&self, node: NodeId, reply: Reply<()>) {
        let store = self.store.clone();
        let is_here = self.core.registry().get(&node).is_some();
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

#[cfg(all(test, feature = "net"))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::{
            ids::{Role, StoreEpoch},
            rows::Enrolled,
        },
        store::sqlite::{NewCluster, memory},
        testing::keys::{identity, rng},
    };

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
