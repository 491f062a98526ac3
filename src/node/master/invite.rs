//! Join tokens for new workers, as operators ask for them.

use super::{Driver, reads::unread};
use crate::{
    api::JoinInvitation,
    crypto::{admission::JoinSecret, keys},
    model::rows::StoreError,
    node::handle::Reply,
    store::Store,
};

/// Life of a join token, ms.
const TOKEN_LIFE_MS: u64 = 24 * 3600 * 1000;

/// Keeps a join token for one worker in the store, good for 24 hours.
///
/// # Errors
/// [`StoreError`]; the store may have the token, which ends by itself.
pub async fn keep_join_token(store: &Store, secret: &JoinSecret) -> Result<(), StoreError> {
    let ends_at_ms = store.cluster().await?.now_ms + TOKEN_LIFE_MS;
    store.put_join_token(secret.row(1, ends_at_ms)).await
}

impl Driver {
    /// Makes a join token for one worker, and keeps it in the store before it is shown.
    pub(super) fn invite(&self, reply: Reply<JoinInvitation>) {
        let rows = || self.core.watch().rows().filter(|(_, is_in)| *is_in).map(|(row, _)| row);
        let masters: Vec<_> = rows().map(|row| row.link.clone()).collect();
        let pins: Vec<_> = rows().map(|row| keys::fingerprint(&row.spki)).collect();
        let secret = JoinSecret::random(&mut self.env.rng("join-tokens"), &self.me.fingerprint);
        let store = self.store.clone();
        self.env.spawn("join-token", async move {
            let made = keep_join_token(&store, &secret).await.map_err(|error| unread(&error));
            let token = secret.text().to_string();
            let _ = reply.send(made.map(|()| JoinInvitation { token, masters, pins }));
        });
    }
}
