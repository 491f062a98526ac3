//! Envelopes of the master: opens each, and looks for the posts of those that were lost.

use bytes::Bytes;

use super::{driver::Driver, input::Input};
use crate::{
    comm::fanout::{FanoutError, ReceivedUpdate},
    crypto::fanout::FanoutError as EnvelopeError,
    model::{
        event::Event,
        message::{Topic, Update},
    },
};

impl Driver {
    /// Opens a publish of the master; `None` when it has to be ignored. Fanout is a hint: lost posts
    /// are repaired.
    pub(super) fn open(&mut self, envelope: &Bytes) -> Option<Update> {
        let fanout = self.fanout.as_mut()?;
        match fanout.open(envelope) {
            Ok(Some(heard)) => self.accept_update(heard),
            // Its keys are on their way.
            Ok(None) => None,
            Err(error) => {
                self.refuse_envelope(&error);
                None
            }
        }
    }

    /// Notes that an envelope was refused, and says so if no honest member can have sent it.
    fn refuse_envelope(&mut self, error: &FanoutError) {
        let Some(fanout) = &self.fanout else { return };
        let (domain, epoch) = (fanout.domain(), fanout.in_use());
        tracing::debug!(%error, "an envelope");
        let is_alarm =
            matches!(error, FanoutError::Envelope(EnvelopeError::Replayed | EnvelopeError::Forged));
        if is_alarm && self.envelope_alarm.replace((domain, epoch)) != Some((domain, epoch)) {
            tracing::warn!(%error, %epoch, "an envelope that no honest member sends");
            self.parts.env.event(&Event::EnvelopeAlarm { domain, epoch });
        }
    }

    /// Returns an opened update, and has what was lost before it looked for.
    pub(super) fn accept_update(&self, heard: ReceivedUpdate) -> Option<Update> {
        let master = self.fanout.as_ref()?.domain().master;
        if heard.sender != master {
            // Workers publish nothing: this one is forged.
            tracing::warn!(sender = %heard.sender, "a publish of a member that is no master");
            return None;
        }
        if heard.missed > 0 && heard.update.topic() == Topic::Board {
            self.look_for_gaps();
        }
        Some(heard.update)
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
