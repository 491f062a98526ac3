//! New handshakes of a link that lives long: the end that dialled starts one whenever the link's
//! keys are old, the other end answers.
//!
//! The messages are [`crypto::handshake`](crate::crypto::handshake)'s, and [`Exchange`] says whose
//! turn it is; this module waits, with deadlines, and has the RSA work done off the async threads.
//! Records go on all the while.
//!
//! 1. A handshake that was begun ends within `handshake_timeout`, or ends the link.
//! 2. The link's secrets before it are erased in each direction at its change of keys; the
//!    dialer's handshake pair as soon as it has unwrapped.
//!
//! [`Exchange`]: super::exchange::Exchange

use std::{future::pending, sync::Arc};

use bytes::Bytes;
use rand_core::Rng;
use thiserror::Error;

use super::{LinkEnd, exchange::FreshSecret, responder::Shared, state::Outgoing};
use crate::{
    comm::{RenewalKeys, key_source::HandshakeKeys},
    crypto::{
        handshake::{HandshakeFault, RenewalParams},
        keys::KeyError,
        record::session_of,
        secret::Secret,
    },
    env::{Cancelled, Env, TimedOut},
    wire::frame::{self, FrameError},
};

/// Share of the interval by which links differ, so that a master's workers do not all ask at once.
const JITTER: f64 = 0.1;

/// Error of a new handshake: the link cannot go on.
#[derive(Debug, Error)]
enum Failure {
    /// The peer's message was refused.
    #[error("{0}")]
    OfPeer(HandshakeFault),
    /// This end could not make its own message.
    #[error("no message for a new handshake: {0}")]
    Own(HandshakeFault),
    #[error("no pair for a new handshake: {0}")]
    Key(#[from] KeyError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a new handshake was not finished in time")]
    TimedOut,
    #[error("the work was dropped before it ran")]
    Cancelled,
    /// The link is being closed already.
    #[error("the link is closing")]
    Closing,
}

impl From<Cancelled> for Failure {
    fn from(Cancelled: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl From<TimedOut> for Failure {
    fn from(TimedOut: TimedOut) -> Self {
        Self::TimedOut
    }
}

/// One end's part in the new handshakes of a link.
pub(super) struct Renewal {
    keys: Option<RenewalKeys>,
    /// Session of the keys that the link has now.
    session: Secret,
}

impl Renewal {
    pub(super) fn new(keys: Option<RenewalKeys>, session: Secret) -> Self {
        Self { keys, session }
    }

    /// Says whether this end answers the peer's requests.
    pub(super) fn answers(&self) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.starts_with.is_none())
    }

    /// Takes part in new handshakes until one fails.
    pub(super) async fn run(self, env: &Env, shared: &Shared) -> LinkEnd {
        let Self { keys: Some(keys), mut session } = self else { return pending().await };
        loop {
            let done = match &keys.starts_with {
                Some(pairs) => start(env, shared, &keys, pairs, &session).await,
                None => answer(env, shared, &keys, &session).await,
            };
            session = match done {
                Ok(session) => session,
                // The close has its own deadline.
                Err(Failure::Closing) => return pending().await,
                Err(Failure::OfPeer(fault)) => return LinkEnd::Violation(fault.to_string()),
                Err(other) => return LinkEnd::Broken(other.to_string()),
            };
            env.sometimes("a link made a new handshake");
        }
    }
}

/// Waits until the link's keys are old, and makes a new handshake. Returns the new session.
async fn start(
    env: &Env,
    shared: &Shared,
    keys: &RenewalKeys,
    pairs: &HandshakeKeys,
    session: &Secret,
) -> Result<Secret, Failure> {
    let mut rng = env.rng("link-handshake");
    let share = f64::from(rng.next_u32()) / f64::from(u32::MAX);
    env.sleep(shared.limits.handshake_interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * share)).await;
    let pair = pairs.pair_of_its_own(env).await?;
    let exchange = async {
        let params = params(shared, keys, session);
        let asked = move || params.request(pair, &mut rng).map(|asked| (asked, rng));
        let ((waiting, request), mut rng) = env.compute(asked).await?.map_err(Failure::Own)?;
        shared.exchange().expect_message();
        say(shared, &request)?;
        let reply = message(shared).await;
        let unwrapped = env.compute(move || waiting.on_reply(&reply, &mut rng)).await?;
        let fresh = FreshSecret::new(unwrapped.map_err(Failure::OfPeer)?);
        shared.exchange().expect_switch(fresh.clone());
        switch(shared, &fresh)?;
        switched(shared).await;
        Ok(session_of(fresh.get()))
    };
    env.timeout(shared.limits.handshake_timeout, exchange).await?
}

/// Waits for the peer's request, and makes a new handshake. Returns the new session.
async fn answer(
    env: &Env,
    shared: &Shared,
    keys: &RenewalKeys,
    session: &Secret,
) -> Result<Secret, Failure> {
    let request = message(shared).await;
    let exchange = async {
        let (params, mut rng) = (params(shared, keys, session), env.rng("link-handshake"));
        let answered = env.compute(move || params.answer(&request, &mut rng)).await?;
        let (secret, reply) = answered.map_err(Failure::OfPeer)?;
        let fresh = FreshSecret::new(secret);
        shared.exchange().expect_switch(fresh.clone());
        say(shared, &reply)?;
        switched(shared).await;
        switch(shared, &fresh)?;
        shared.exchange().expect_message();
        Ok(session_of(fresh.get()))
    };
    env.timeout(shared.limits.handshake_timeout, exchange).await?
}

fn params(shared: &Shared, keys: &RenewalKeys, session: &Secret) -> RenewalParams {
    RenewalParams {
        session: session.clone(),
        identity: Arc::clone(&keys.identity),
        peer_spki: shared.peer.spki.clone(),
        bounds: keys.bounds,
    }
}

/// Queues a message.
fn say(shared: &Shared, message: &[u8]) -> Result<(), Failure> {
    queue(shared, Outgoing::Frame(frame::handshake(message)?))
}

/// Queues the change of this direction's keys.
fn switch(shared: &Shared, fresh: &FreshSecret) -> Result<(), Failure> {
    queue(shared, Outgoing::Switch(fresh.clone()))
}

fn queue(shared: &Shared, out: Outgoing) -> Result<(), Failure> {
    if !shared.state().push_first(out) {
        return Err(Failure::Closing);
    }
    shared.work.notify_one();
    Ok(())
}

/// Waits for the peer's message.
async fn message(shared: &Shared) -> Bytes {
    loop {
        let message = shared.exchange().take_message();
        if let Some(message) = message {
            return message;
        }
        shared.turn.notified().await;
    }
}

/// Waits for the peer's change of keys.
async fn switched(shared: &Shared) {
    while shared.exchange().awaits_switch() {
        shared.turn.notified().await;
    }
}
