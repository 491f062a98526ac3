//! Dialer of the other masters: of two, the one with the smaller id dials.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

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
    model::{
        ids::{Incarnation, NodeId, Registration, Role},
        rows::MasterRow,
        time::Mono,
    },
};

/// Pause between two tries to reach the same master.
const RETRY: Duration = Duration::from_secs(1);

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

/// Dials that are under way, and when those that failed may be repeated.
pub(super) struct Dialer {
    dials: Dials,
    under_way: BTreeSet<NodeId>,
    not_before: BTreeMap<NodeId, Mono>,
}

impl Dialer {
    pub(super) const fn new(dials: Dials) -> Self {
        Self { dials, under_way: BTreeSet::new(), not_before: BTreeMap::new() }
    }

    pub(super) fn on_dialed(&mut self, now: Mono, node: NodeId, reached: bool) {
        self.under_way.remove(&node);
        if !reached {
            self.not_before.insert(node, now + RETRY);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.not_before.values().min().copied()
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
    /// Dials the masters that are in and not linked.
    pub(super) fn dial(&mut self, now: Mono) {
        self.dialer.not_before.retain(|_, at| *at > now);
        let rows: Vec<MasterRow> = self
            .core
            .to_dial()
            .filter(|row| {
                !self.dialer.under_way.contains(&row.node)
                    && !self.dialer.not_before.contains_key(&row.node)
                    && !self.gate.lists().is_denied(&row.node)
            })
            .cloned()
            .collect();
        for row in rows {
            let node = row.node;
            self.dialer.under_way.insert(node);
            let (env, params) = (self.env.clone(), self.dialer.params(&row));
            self.spawn("dial", async move {
                let arrival = reach(&env, &row, &params).await.map(Box::new);
                Input::MasterDialed { node, arrival }
            });
        }
    }
}

async fn reach(env: &crate::env::Env, row: &MasterRow, params: &DialParams) -> Option<Arrival> {
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
