//! Word to the service manager, by systemd's protocol: this process is ready, or it ends.
//!
//! A unit with `Type=notify` counts as started once this is said: by a master when its addresses
//! are listened on, so that units and scripts that come after it find it there; by a worker when
//! its store is open and it begins to look for a master. Nothing is said where no manager listens
//! ([`MANAGER`] is not set).

use sd_notify::NotifyState;

/// Variable that names the manager's socket.
pub(super) const MANAGER: &str = "NOTIFY_SOCKET";

/// Says that the process is ready.
pub(super) fn ready() {
    say(NotifyState::Ready);
}

/// Says that the process ends, and takes its time.
pub(super) fn stopping() {
    say(NotifyState::Stopping);
}

fn say(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager was not told");
    }
}
