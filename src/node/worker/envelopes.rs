//! Envelopes of the master: opens each, and looks for the posts of those that were lost.

use bytes::Bytes;

use super::{driver::Driver, input::Input};
use crate::{
    comm::fanout::{FanoutError, ReceivedUpdates},
    crypto::fanout::FanoutError as EnvelopeError,
    model::{
        event::Event,
        message::{Topic, Updates},
    },
};

impl Driver {
    /// Opens a publish of the master; `None` when it has to be ignored. Fanout is a hint: lost posts
    /// are repaired.
    pub(super) fn open(&mut self, envelope: &Bytes) -> Option<Updates> {
        // While its keys are on their way it waits for them.
        let opened = self.fanout.as_mut()?.open(envelope).transpose()?;
        self.accept_envelope(opened)
    }

    /// Returns the updates of an envelope, unless it was refused or is to be ignored.
    pub(super) fn accept_envelope(
        &mut self,
        opened: Result<ReceivedUpdates, FanoutError>,
    ) -> Option<Updates> {
        match opened {
            Ok(heard) => self.accept_updates(heard),
            Err(error) => {
                self.refuse_envelope(&error);
                None
            }
        }
    }

    /// Notes that an envelope was refused, and says so if no honest member can have sent it.
    fn refuse_envelope(&mut self, error: &FanoutError) {
        tracing::debug!(%error, "an envelope");
        if matches!(error, FanoutError::Envelope(EnvelopeError::Replayed | EnvelopeError::Forged)) {
            self.alarm(&error.to_string());
        }
    }

    /// Tells once an epoch of an envelope that no honest member sends.
    fn alarm(&mut self, why: &str) {
        let Some(fanout) = &self.fanout else { return };
        let (domain, epoch) = (fanout.domain(), fanout.in_use());
        if self.envelope_alarm.replace((domain, epoch)) != Some((domain, epoch)) {
            tracing::warn!(why, %epoch, "an envelope that no honest member sends");
            self.parts.env.event(&Event::EnvelopeAlarm { domain, epoch });
        }
    }

    /// Returns opened updates, and has what was lost before it looked for.
    fn accept_updates(&mut self, heard: ReceivedUpdates) -> Option<Updates> {
        let master = self.fanout.as_ref()?.domain().master;
        if heard.sender != master {
            // Workers publish nothing: this one is forged.
            self.alarm(&format!("{} is no master and published", heard.sender));
            return None;
        }
        if heard.missed > 0 {
            self.tell_lost(heard.missed);
            if heard.updates.topic() == Topic::Board {
                self.look_for_gaps();
            }
        }
        Some(heard.updates)
    }

    /// Tells once an epoch that envelopes did not arrive.
    fn tell_lost(&mut self, missed: u64) {
        let Some(fanout) = &self.fanout else { return };
        let (domain, epoch) = (fanout.domain(), fanout.in_use());
        if self.fanout_lost.replace((domain, epoch)) != Some((domain, epoch)) {
            self.parts.env.event(&Event::FanoutLost { domain, epoch, missed });
        }
    }

    /// Finds the boards whose posts fanout lost: by the store, and without it by repairing every
    /// board.
    fn look_for_gaps(&self) {
        self.parts.env.sometimes("fanout_lost_posts");
        if self.reaches_store {
            self.parts.poll_now.notify_one();
            return;
        }
        let database = self.parts.database.clone();
        self.spawn("all-boards", async move {
            let known = database.read(|replica| replica.boards()).await?;
            let boards = known.boards.into_iter().map(|(board, _)| board).collect();
            Some(Input::GapsFound(boards))
        });
    }
}
