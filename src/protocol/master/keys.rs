//! Common key of the domain: members that come and go, and what they hold.

use super::{Effect, Master};
use crate::{
    model::{
        ids::{KeyEpoch, LinkId, NodeId},
        time::Mono,
    },
    protocol::key_refresh::KeyStep,
};

/// Returns the draw of a life's first refresh and of its waits. A node's id is a hash, so it spreads
/// as well as a random number.
pub(super) fn first_draw(me: NodeId) -> u64 {
    me.0.iter().fold(0, |draw, byte| draw << 8 | u64::from(*byte))
}

impl Master {
    /// Notes that a worker holds the key of an epoch.
    pub fn on_key_held(&mut self, link: LinkId, epoch: KeyEpoch) {
        self.keys.on_held(link, epoch);
    }

    /// Notes that the key of an epoch was made, or could not be. `draw` is a random number.
    pub fn on_key_made(&mut self, now: Mono, epoch: KeyEpoch, is_made: bool, draw: u64) {
        self.keys.on_made(now, epoch, is_made, draw);
    }

    /// Carries out what is due for the common key.
    pub(super) fn refresh_key(&mut self, now: Mono, out: &mut Vec<Effect>) {
        let mut steps = Vec::new();
        self.keys.on_time(now, &mut steps);
        for step in steps {
            match step {
                KeyStep::Cut { member, epoch } => {
                    let Some(node) = self.registrations.by_link(member) else { continue };
                    out.push(Effect::Probe("a worker did not install a common key in time"));
                    self.fail_worker(now, node, &format!("did not install key epoch {epoch}"), out);
                }
                step => out.push(Effect::Keys(step)),
            }
        }
    }

    /// Gives a worker that joins the keys that it lacks.
    pub(super) fn join_keys(
        &mut self,
        now: Mono,
        link: LinkId,
        held: Option<KeyEpoch>,
        out: &mut Vec<Effect>,
    ) {
        let mut steps = Vec::new();
        self.keys.on_join(now, link, held, &mut steps);
        out.extend(steps.into_iter().map(Effect::Keys));
    }
}
