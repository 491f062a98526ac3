//! Turns of a link's new handshakes: what the peer may send next. No I/O, no clock.
//!
//! ```text
//!  dialer                     acceptor
//!  message ─────────────────► expects a message
//!  expects a message ◄─────── message
//!  switch ──────────────────► expects a switch
//!  expects a switch ◄──────── switch              each direction has fresh keys from its switch on
//! ```
//!
//! 1. One handshake is under way at a time, and one message of it waits at most.
//! 2. An end announces the fresh keys only when the other can open what follows: nobody stops
//!    reading meanwhile.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use thiserror::Error;

use crate::{crypto::secret::Secret, model::time::Mono};

/// Shortest time from one new handshake of a peer to the next. Settings ask for twice as much.
const GAP_MIN: Duration = Duration::from_millis(500);

/// Secret of a new handshake, which the record layer takes in.
#[derive(Clone)]
pub(super) struct FreshSecret(Arc<Secret>);

impl FreshSecret {
    pub(super) fn new(secret: Secret) -> Self {
        Self(Arc::new(secret))
    }

    pub(super) fn get(&self) -> &Secret {
        &self.0
    }
}

impl fmt::Debug for FreshSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreshSecret(..)")
    }
}

/// Identity, not content: two secrets are never compared.
impl PartialEq for FreshSecret {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for FreshSecret {}

/// Violation of the turns by the peer. The link ends.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum OutOfTurn {
    #[error("a message of a new handshake out of turn")]
    Message,
    #[error("a new handshake too soon after the last one")]
    TooSoon,
    #[error("a change to fresh keys out of turn")]
    Switch,
}

#[derive(Debug)]
enum Expected {
    Nothing,
    Message,
    Switch(FreshSecret),
}

/// State of a link's new handshakes.
#[derive(Debug)]
pub(super) struct Exchange {
    expected: Expected,
    /// Message that arrived and was not taken yet.
    message: Option<Bytes>,
    /// End of the last new handshake.
    ended_at: Option<Mono>,
}

impl Exchange {
    /// Returns the state of a link that starts. The peer may begin if this end `answers`: its first
    /// message may be there before the link.
    pub(super) const fn new(answers: bool) -> Self {
        let expected = if answers { Expected::Message } else { Expected::Nothing };
        Self { expected, message: None, ended_at: None }
    }

    /// Lets the peer send one message: an acceptor for the next handshake, a dialer for the reply.
    pub(super) fn expect_message(&mut self) {
        self.expected = Expected::Message;
    }

    /// Lets the peer change to the keys of this secret.
    pub(super) fn expect_switch(&mut self, fresh: FreshSecret) {
        self.expected = Expected::Switch(fresh);
    }

    /// Says whether the peer's change of keys is still to come.
    pub(super) const fn awaits_switch(&self) -> bool {
        matches!(self.expected, Expected::Switch(_))
    }

    /// Takes note of a message of the peer.
    ///
    /// # Errors
    /// [`OutOfTurn`]; nothing was kept of it.
    pub(super) fn on_message(&mut self, now: Mono, message: Bytes) -> Result<(), OutOfTurn> {
        if !matches!(self.expected, Expected::Message) {
            return Err(OutOfTurn::Message);
        }
        if self.ended_at.is_some_and(|at| now.since(at) < GAP_MIN) {
            return Err(OutOfTurn::TooSoon);
        }
        self.expected = Expected::Nothing;
        self.message = Some(message);
        Ok(())
    }

    /// Returns the message that arrived, once.
    pub(super) const fn take_message(&mut self) -> Option<Bytes> {
        self.message.take()
    }

    /// Takes note that the peer changes its keys. Returns the secret that it changes to.
    ///
    /// # Errors
    /// [`OutOfTurn::Switch`]; the state is as it was.
    pub(super) fn on_switch(&mut self, now: Mono) -> Result<FreshSecret, OutOfTurn> {
        match std::mem::replace(&mut self.expected, Expected::Nothing) {
            Expected::Switch(fresh) => {
                self.ended_at = Some(now);
                Ok(fresh)
            }
            other => {
                self.expected = other;
                Err(OutOfTurn::Switch)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    fn secret(byte: u8) -> FreshSecret {
        FreshSecret::new(Secret::from_slice(&[byte; 32]).expect("32 bytes"))
    }

    const MESSAGE: Bytes = Bytes::from_static(b"message");

    #[test]
    fn only_the_expected_message_and_the_expected_switch_are_taken() {
        let mut exchange = Exchange::new(false);
        assert_eq!(exchange.on_message(at(0), MESSAGE), Err(OutOfTurn::Message));
        assert_eq!(exchange.on_switch(at(0)), Err(OutOfTurn::Switch));
        exchange.expect_message();
        assert_eq!(exchange.on_switch(at(0)), Err(OutOfTurn::Switch));
        assert_eq!(exchange.on_message(at(0), MESSAGE), Ok(()));
        assert_eq!(exchange.on_message(at(0), MESSAGE), Err(OutOfTurn::Message));
        assert_eq!(exchange.take_message(), Some(MESSAGE));
        assert_eq!(exchange.take_message(), None);

        let fresh = secret(1);
        exchange.expect_switch(fresh.clone());
        assert!(exchange.awaits_switch());
        assert_eq!(exchange.on_message(at(1), MESSAGE), Err(OutOfTurn::Message));
        assert_eq!(exchange.on_switch(at(1)), Ok(fresh));
        assert!(!exchange.awaits_switch());
        assert_eq!(exchange.on_switch(at(1)), Err(OutOfTurn::Switch));
    }

    #[test]
    fn handshake_too_soon_after_the_last_one_is_refused() {
        let mut exchange = Exchange::new(true);
        exchange.expect_switch(secret(1));
        exchange.on_switch(at(1000)).expect("expected");
        exchange.expect_message();
        assert_eq!(exchange.on_message(at(1499), MESSAGE), Err(OutOfTurn::TooSoon));
        assert_eq!(exchange.on_message(at(1500), MESSAGE), Ok(()));
    }
}
