//! Log lines about the store: one when it goes, one when it is back.

use crate::{
    model::time::Mono,
    protocol::store_watch::{Absence, StoreChange},
};

/// Writes a change of the store's state to the log, if there is one.
pub(super) fn log_store_change(now: Mono, change: Option<StoreChange>) {
    match change {
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
