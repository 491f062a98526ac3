//! Log lines about the store: one when it goes, one when it is back.

use crate::{
    model::{absence::AwayReason, time::Mono},
    protocol::store_watch::{Absence, StoreChange},
};

/// Writes a change of the store's state to the log, if there is one.
pub(super) fn log_store_change(now: Mono, change: Option<StoreChange>) {
    match change {
        // Each worker's first start is like that: its master's Welcome brings one.
        Some(StoreChange::Away(Absence { reason: AwayReason::NoLogin, why })) => {
            tracing::info!(why, "the store is not used yet");
        }
        Some(StoreChange::Away(Absence { reason, why })) => {
            tracing::warn!(%reason, why, "the store is away");
        }
        Some(StoreChange::Back(Absence { reason, .. }, since)) => {
            let away_ms = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
            tracing::info!(%reason, away_ms, "the store is back");
        }
        None => {}
    }
}
