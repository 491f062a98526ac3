//! Common keys of this master's domain: makes the next one ahead, and carries out the steps of a
//! refresh.
//!
//! 1. Keys are made in tasks of their own; the driver only sends what is ready.
//! 2. Nothing keeps a key that the fanout dropped: the admission gate holds the one in use, and
//!    this module the one that is not installed yet.

use std::sync::Arc;

use rand_chacha::rand_core::Rng;

use super::{
    Driver, NodeError,
    input::Input,
    key_maker::{KeyMaker, MadeKeys, install_message},
    links::Links,
};
use crate::{
    comm::link::KeyFrame,
    model::{
        event::{Event, FaultPoint, RefreshReason},
        ids::{KeyEpoch, LinkId},
        message::{Close, CloseReason, Direct},
    },
    protocol::key_refresh::KeyStep,
};

/// Keys of the domain besides those that the fanout holds.
pub(super) struct CommonKeys {
    maker: KeyMaker,
    /// Keys of the next epoch.
    ready: Option<MadeKeys>,
    /// Second keys that members were sent for an epoch, by their word.
    alarms: u64,
}

impl CommonKeys {
    pub(super) const fn new(maker: KeyMaker) -> Self {
        Self { maker, ready: None, alarms: 0 }
    }

    pub(super) const fn alarms(&self) -> u64 {
        self.alarms
    }
}

impl Links {
    fn send_key(&self, to: &[LinkId], message: &Direct) {
        let message = KeyFrame::new(message);
        for link in to.iter().filter_map(|id| self.get(*id)) {
            if let Err(error) = message.clone().and_then(|message| link.send_key(message)) {
                // It cannot follow any more. As a failed worker it joins again.
                tracing::info!(peer = %link.peer().node.short(), %error, "a key was not sent");
                link.close(Close { reason: CloseReason::Listed, retry_ms: 0 });
            }
        }
    }
}

impl Driver {
    /// Carries out one step of the common key's refresh.
    pub(super) fn carry_key(&mut self, step: KeyStep<LinkId>) {
        match step {
            KeyStep::Make(epoch) => {
                let (env, maker) = (self.env.clone(), self.keys.maker.clone());
                self.spawn("make-key", async move {
                    let draw = env.rng("key-refresh").next_u64();
                    let made = maker.make(&env, epoch).await.map(Box::new);
                    Input::KeyMade { epoch, draw, made }
                });
            }
            KeyStep::Install { epoch, why, to } => self.install_key(epoch, why, &to),
            KeyStep::Use { epoch, to } => self.use_key(epoch, &to),
            KeyStep::Remove(epoch) => {
                let fanout = self.links.fanout();
                fanout.remove_old();
                let domain = fanout.domain();
                self.env.event(&Event::KeyErased { domain, epoch });
            }
            KeyStep::Give { to, epoch, is_used } => self.give_key(to, epoch, is_used),
            // The tables turn it into a failed worker.
            KeyStep::Cut { .. } => {}
        }
    }

    pub(super) fn on_key_made(
        &mut self,
        epoch: KeyEpoch,
        draw: u64,
        made: Result<Box<MadeKeys>, NodeError>,
    ) {
        let is_made = made.is_ok();
        match made {
            Ok(made) => self.keys.ready = Some(*made),
            Err(error) => tracing::error!(%epoch, %error, "the next common key was not made"),
        }
        self.core.on_key_made(self.env.now(), epoch, is_made, draw);
    }

    fn install_key(&mut self, epoch: KeyEpoch, why: RefreshReason, to: &[LinkId]) {
        let Some(MadeKeys { keys, message }) = self.keys.ready.take() else { return };
        let held = keys.held_event();
        if let Err(error) = self.links.fanout().install(keys) {
            // Its use fails too, so the members keep the key before.
            tracing::error!(%epoch, %error, "the next common key was refused");
            return;
        }
        let domain = self.links.fanout().domain();
        self.env.event(&Event::KeyRefresh { domain, epoch, why });
        self.env.event(&held);
        self.links.send_key(to, &message);
        self.env.fault_point(FaultPoint::KeyInstallSent.name());
    }

    fn use_key(&mut self, epoch: KeyEpoch, to: &[LinkId]) {
        let fanout = self.links.fanout();
        if let Err(error) = fanout.use_epoch(epoch) {
            tracing::error!(%epoch, %error, "the next common key cannot be used");
            return;
        }
        self.gate.set_keys(Arc::clone(fanout.keys()));
        let domain = fanout.domain();
        tracing::info!(%epoch, members = to.len(), "a new common key is in use");
        self.env.event(&Event::Epoch { domain, epoch });
        self.links.send_key(to, &Direct::KeyUse(epoch));
    }

    fn give_key(&mut self, to: LinkId, epoch: KeyEpoch, is_used: bool) {
        let held = self.links.fanout().held().find(|keys| keys.epoch() == epoch);
        let Some(message) = held.and_then(|keys| install_message(keys).ok()) else { return };
        self.env.sometimes("a worker joined with an older common key");
        self.links.send_key(&[to], &message);
        if is_used {
            self.links.send_key(&[to], &Direct::KeyUse(epoch));
        }
    }

    pub(super) fn on_key_alarm(&mut self, from: LinkId, epoch: KeyEpoch) {
        self.keys.alarms += 1;
        let from = self.links.get(from).map(|link| link.peer().node);
        tracing::error!(?from, %epoch, "a worker was sent a second key for an epoch");
    }
}
