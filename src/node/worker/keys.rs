//! Common keys of a worker's domain: installs, uses and erases them as its master says.
//!
//! ```text
//! KeyInstall ──► verified and unwrapped, in a task ──► held, KeyHeld to the master
//! KeyUse ──────► used ──► the key before erased after `key_overlap`
//! ```
//!
//! 1. Messages about keys are taken in order, one at a time; at most [`WAITING_MAX`] wait.
//! 2. Only a key that the master of this domain signed is held, and only for a higher epoch.
//! 3. A second key for an epoch that is held changes nothing and is an alarm.
//! 4. With the link to its master a worker erases all keys of the domain.

use std::sync::Arc;

use super::{
    driver::Driver,
    input::Input,
    key_messages::{KeyMessage, KeyMessages, WAITING_MAX},
};
use crate::{
    comm::{
        LinkId,
        fanout::{Fanout, FanoutError},
        link::KeyFrame,
    },
    crypto::{
        epoch::{EpochError, EpochKeys, KeyGrant},
        fanout::FanoutError as EnvelopeError,
        keys::{IdentityKey, KeyError},
    },
    model::{
        event::Event,
        ids::KeyEpoch,
        message::{Direct, KeyInstall},
        time::Mono,
    },
};

impl Driver {
    /// Begins with the keys of a Welcome. Those of every other domain are gone.
    pub(super) fn begin_keys(&mut self, fanout: Fanout) {
        self.drop_keys();
        let (domain, epoch) = (fanout.domain(), fanout.in_use());
        self.parts.env.event(&fanout.keys().held_event());
        self.parts.env.event(&Event::Epoch { domain, epoch });
        self.last_epoch = Some((domain, epoch));
        self.fanout = Some(fanout);
    }

    /// Erases all keys: the link to the master is gone.
    pub(super) fn drop_keys(&mut self) {
        self.keys = KeyMessages::default();
        let Some(fanout) = self.fanout.take() else { return };
        let domain = fanout.domain();
        for keys in fanout.held() {
            self.parts.env.event(&Event::KeyErased { domain, epoch: keys.epoch() });
        }
    }

    /// Erases the key before the one in use when its overlap is over.
    pub(super) fn expire_keys(&mut self, now: Mono) {
        if self.keys.remove_at.take_if(|at| now >= *at).is_some() {
            self.change_keys(Fanout::remove_old);
        }
    }

    pub(super) fn on_key_message(&mut self, message: KeyMessage) {
        if self.keys.waiting.len() >= WAITING_MAX {
            // Without an answer the master cuts this worker off, and it joins again.
            tracing::warn!("too many messages about keys");
            return;
        }
        self.keys.waiting.push_back(message);
        self.carry_key_messages();
    }

    fn carry_key_messages(&mut self) {
        while !self.keys.is_busy
            && let Some(message) = self.keys.waiting.pop_front()
        {
            match message {
                KeyMessage::Install(install) => self.verify_key(install),
                KeyMessage::Use(epoch) => self.use_key(epoch),
            }
        }
    }

    /// Verifies and unwraps a key off the async threads.
    fn verify_key(&mut self, install: KeyInstall) {
        let (Some(link), Some(fanout)) = (&self.link, &self.fanout) else { return };
        let known = fanout.held().find(|keys| keys.announcement() == install.announcement);
        if let Some(epoch) = known.map(|keys| keys.epoch()) {
            return self.send_key(&Direct::KeyHeld(epoch));
        }
        let (id, spki, domain) = (link.id(), link.peer().spki.clone(), fanout.domain());
        let (env, mut rng) = (self.parts.env.clone(), self.parts.env.rng("key-install"));
        let bounds = self.parts.dialer.handshake.bounds();
        self.keys.is_busy = true;
        self.spawn("verify-key", async move {
            let accept = move || {
                let master = IdentityKey::from_spki(&spki, bounds)?;
                let grant = KeyGrant::from(install);
                EpochKeys::accept(&mut rng, &master, domain, &grant, bounds)
            };
            let result = env.compute(accept).await.unwrap_or(Err(KeyError::Cancelled.into()));
            Some(Input::KeyVerified { link: id, result: result.map(Arc::new) })
        });
    }

    pub(super) fn on_key_verified(
        &mut self,
        link: LinkId,
        result: Result<Arc<EpochKeys>, EpochError>,
    ) {
        if self.link.as_ref().is_none_or(|now| now.id() != link) {
            return;
        }
        self.keys.is_busy = false;
        match result {
            Ok(keys) => self.hold_key(keys),
            Err(error) => tracing::warn!(%error, "a common key was refused"),
        }
        self.carry_key_messages();
    }

    fn hold_key(&mut self, keys: Arc<EpochKeys>) {
        let (domain, epoch, line) = (keys.domain(), keys.epoch(), keys.held_event());
        match self.change_keys(|fanout| fanout.install(keys)) {
            None => {}
            Some(Ok(waited)) => {
                self.parts.env.event(&line);
                self.send_key(&Direct::KeyHeld(epoch));
                let now = self.parts.env.now();
                for opened in waited {
                    for update in self.accept_envelope(opened).into_iter().flatten() {
                        self.parts.worker.on_update(now, update, &mut self.out);
                    }
                }
            }
            Some(Err(FanoutError::Envelope(EnvelopeError::SecondKey(_)))) => {
                tracing::error!(%epoch, "a second key for an epoch that is held");
                self.parts.env.event(&Event::KeyAlarm { domain, epoch });
                self.send_key(&Direct::KeyAlarm(epoch));
            }
            Some(Err(error)) => tracing::warn!(%error, "a common key was refused"),
        }
    }

    fn use_key(&mut self, epoch: KeyEpoch) {
        let Some(fanout) = &mut self.fanout else { return };
        if fanout.in_use() == epoch {
            return;
        }
        match fanout.use_epoch(epoch) {
            Ok(()) => {
                let domain = fanout.domain();
                self.last_epoch = Some((domain, epoch));
                self.keys.remove_at = Some(self.parts.env.now() + self.parts.config.key_overlap);
                self.parts.env.event(&Event::Epoch { domain, epoch });
            }
            Err(error) => tracing::warn!(%error, "a common key is not used"),
        }
    }

    /// Changes the keys that are held, and tells of each that was erased.
    fn change_keys<T>(&mut self, change: impl FnOnce(&mut Fanout) -> T) -> Option<T> {
        let fanout = self.fanout.as_mut()?;
        let domain = fanout.domain();
        let before: Vec<KeyEpoch> = fanout.held().map(|keys| keys.epoch()).collect();
        let changed = change(fanout);
        for epoch in before {
            if !fanout.held().any(|keys| keys.epoch() == epoch) {
                self.parts.env.event(&Event::KeyErased { domain, epoch });
            }
        }
        Some(changed)
    }

    fn send_key(&self, message: &Direct) {
        if let Some(link) = &self.link
            && let Err(error) = KeyFrame::new(message).and_then(|frame| link.send_key(frame))
        {
            // Without it the master cuts this worker off, and it joins again.
            tracing::info!(%error, "a message about keys");
        }
    }
}

#[cfg(all(test, feature = "net"))]
mod tests;
