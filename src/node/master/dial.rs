//! Dialer of the other masters: dials those that the table names (`protocol/master/dials.rs`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Driver,
    input::{Arrival, Input},
};
use crate::{
    comm::{
        handshake::{Credential, DialParams, Ready, dial},
        key_source::HandshakeKeys,
    },
    crypto::{
        admission::Guard,
        keys::{Identity, fingerprint},
    },
    env::{Env, TaskGuard},
    model::{
        ids::{Incarnation, NodeId, Registration, Role},
        rows::MasterRow,
        time::Mono,
    },
};

/// Parts that all dials have in common.
pub(super) struct Dials {
    pub(super) identity: Arc<Identity>,
    pub(super) handshake: Arc<HandshakeKeys>,
    pub(super) name: String,
    pub(super) guard: Guard,
    pub(super) cluster: [u8; 16],
    pub(super) registration: Incarnation,
    pub(super) directory_max: usize,
    pub(super) timeout: Duration,
    pub(super) version_max: u16,
}

/// Dials that are under way.
pub(super) struct Dialer {
    dials: Dials,
    /// One for each master at most, with its number; a dial ends with its guard.
    under_way: BTreeMap<NodeId, (u64, TaskGuard)>,
    /// Number of the next dial.
    next: u64,
}

impl Dialer {
    pub(super) const fn new(dials: Dials) -> Self {
        Self { dials, under_way: BTreeMap::new(), next: 0 }
    }

    fn params(&self, row: &MasterRow) -> DialParams {
        let dials = &self.dials;
        DialParams {
            identity: Arc::clone(&dials.identity),
            handshake: Arc::clone(&dials.handshake),
            role: Role::Master,
            name: dials.name.clone(),
            credential: Credential::Own(dials.guard.clone()),
            pins: vec![fingerprint(&row.spki)],
            cluster: Some(dials.cluster),
            last_epoch: None,
            wants_login: false,
            registration: Registration(dials.registration.0),
            directory_max: dials.directory_max,
            timeout: dials.timeout,
            version_max: dials.version_max,
        }
    }
}

impl Driver {
    /// Dials the masters that are due, each instead of a dial of it that is under way.
    pub(super) fn dial(&mut self, now: Mono) {
        let gate = &self.gate;
        let rows = self.core.begin_dials(now, |node| gate.lists().is_denied(node));
        for row in rows {
            let (node, number) = (row.node, self.dialer.next);
            self.dialer.next += 1;
            let (env, params) = (self.env.clone(), self.dialer.params(&row));
            let inputs = self.inputs.clone();
            let dial = async move {
                let arrival = reach(&env, &row, &params).await.map(Box::new);
                // Without a driver nobody wants it.
                let _ = inputs.send(Input::MasterDialed { node, number, arrival }).await;
            };
            let task = self.env.spawn("dial", dial).abort_on_drop();
            self.dialer.under_way.insert(node, (number, task));
        }
    }

    pub(super) fn on_dialed(
        &mut self,
        now: Mono,
        node: NodeId,
        number: u64,
        arrival: Option<Arrival>,
    ) {
        if self.dialer.under_way.get(&node).is_none_or(|(newest, _)| *newest != number) {
            // Another dial took its place after it had ended.
            return;
        }
        self.dialer.under_way.remove(&node);
        self.core.on_dialed(now, node, arrival.is_some());
        if let Some(arrival) = arrival {
            self.on_arrival(arrival);
        }
    }
}

async fn reach(env: &Env, row: &MasterRow, params: &DialParams) -> Option<Arrival> {
    let stream = match env.connect(&row.link, params.timeout).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::info!(master = row.name, at = row.link, %error, "a master is not reached");
            return None;
        }
    };
    match dial(env, stream, params).await {
        Ok((secured, welcomed)) => {
            // The store says who lives there; nobody else will do.
            if secured.peer.node != row.node {
                return None;
            }
            drop(welcomed);
            let ready = Ready { epoch: None, registration: Registration(row.incarnation.0) };
            Some(Arrival { secured, ready })
        }
        Err(error) => {
            tracing::info!(master = row.name, %error, "no link to a master");
            None
        }
    }
}
