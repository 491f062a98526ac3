//! Machines of those who pass for others: an impostor that asks masters to take it in as a member, and a
//! fake master.
//!
//! 1. Both have a copy of the store and of all files of nodes, and a key that is no member's. Of a
//!    member's private key they use the public half alone.

use std::{sync::Arc, time::Duration};

use chatchat::{
    comm::{
        handshake::{AcceptorParams, GUARD_FILE},
        key_source::{IDENTITY_FILE, KeyKind, KeySource},
    },
    crypto::{
        admission::{Guard, GuardId},
        handshake::VERSIONS,
        keys::{Identity, KeyBounds, KeyPair, WrapPair},
    },
    env::Env,
    model::ids::Role,
    store::{Op, OpReply},
};
use chatchat_scenarios::target::Place;
use dst_world::Rng;

use super::{Cluster, LINK_PORT, host_name};
use crate::stranger::{
    Answer, Believed, Forger, Guise, Known,
    fake::{self, Fake},
};

/// Name of the impostor's machine.
pub(super) const IMPOSTOR: &str = "impostor";

/// Time that an impostor waits for a master.
const PATIENCE: Duration = Duration::from_secs(5);

impl Cluster {
    /// Asks masters to take an impostor in, in each guise in turn, until its machine is switched off.
    pub(super) async fn pass_for_members(
        self: Arc<Self>,
        env: Env,
        mut rng: Rng,
        masters: Vec<Place>,
    ) {
        let Some(mut forger) = self.forger(&env).await else { return };
        let members = self.hosts.keys().copied().filter(|place| place.is_node());
        let members: Vec<_> = members.collect();
        if masters.is_empty() {
            return;
        }
        for guise in Guise::ALL.into_iter().cycle() {
            env.sleep(Duration::from_millis(50 + rng.below(400))).await;
            let (master, member) = (*rng.pick(&masters), *rng.pick(&members));
            // No master links itself, whatever the key.
            let known = self.known(member, forger.bounds).filter(|_| member != master);
            let face = known.and_then(|known| forger.face(guise, known, self.open_token()));
            let Some(face) = face else { continue };
            let addr = format!("{}:{LINK_PORT}", host_name(master));
            let Ok(mut stream) = env.connect(&addr, PATIENCE).await else { continue };
            let asked = env.timeout(PATIENCE, forger.ask(&mut stream, &face)).await;
            match asked.ok().flatten() {
                Some(Answer::Welcome) => {
                    let (by, member) = (host_name(master), host_name(member));
                    self.deceits.on_believed(Believed::Welcomed { by, member, guise });
                }
                Some(Answer::Refused) if guise == Guise::Bearer => {
                    env.sometimes("a join token's guard without its bearer was refused");
                }
                Some(Answer::Refused) => {
                    env.sometimes("a member's guard under another key was refused");
                    self.deceits.on_refused();
                }
                Some(Answer::Unheard) | None => {}
            }
        }
    }

    /// Passes for a master, until its machine is switched off.
    pub(super) async fn pass_for_a_master(self: Arc<Self>, env: Env) {
        let Some((identity, keys)) = self.foreign_key(&env).await else { return };
        let Some(cluster) = self.cluster_id() else { return };
        let params = AcceptorParams {
            identity: Arc::new(identity),
            name: fake::HOST.to_owned(),
            cluster,
            bounds: keys.bounds(),
            version_max: VERSIONS.1,
        };
        let (it, deceits) = (Arc::clone(&self), Arc::clone(&self.deceits));
        let guards: fake::Guards = Box::new(move |id| it.guard(id));
        let listen = format!("0.0.0.0:{LINK_PORT}");
        Fake { env, listen, params, guards, deceits }.live().await;
    }

    async fn forger(&self, env: &Env) -> Option<Forger> {
        let (own, keys) = self.foreign_key(env).await?;
        let handshake = keys.generate(env, KeyKind::Handshake, 0).await.ok()?;
        Some(Forger {
            own,
            handshake: Arc::new(WrapPair::new(handshake)),
            bounds: keys.bounds(),
            cluster: self.cluster_id()?,
            rng: env.rng(IMPOSTOR),
        })
    }

    /// Returns an identity that is no member's: that of the first machine that nobody admits.
    async fn foreign_key(&self, env: &Env) -> Option<(Identity, Arc<dyn KeySource>)> {
        let (number, _) = self.unadmitted().next()?;
        let keys = self.keys.source(number);
        let pair = keys.generate(env, KeyKind::Identity, 0).await.ok()?;
        Some((Identity::new(pair), keys))
    }

    /// Returns what the files of a node and the store tell of a member; nothing before it was a member.
    fn known(&self, place: Place, bounds: KeyBounds) -> Option<Known> {
        let file = |name| self.world.read_file(self.host(place), name);
        let pair = KeyPair::from_pkcs8_der(&file(IDENTITY_FILE)?, bounds).ok()?;
        let identity = Identity::new(pair);
        let node = identity.node();
        let (role, guard) = match place {
            Place::Worker(_) => (Role::Worker, Guard::from_slice(&file(GUARD_FILE)?)?),
            _ => (Role::Master, self.guard(GuardId::Node(node))?),
        };
        Some(Known { name: host_name(place), node, role, guard, spki: identity.spki().to_vec() })
    }

    /// Returns the guard of this id in the store.
    fn guard(&self, id: GuardId) -> Option<Guard> {
        let OpReply::Admission(lists) = self.look_up(&Op::Admission)? else { return None };
        let OpReply::Masters(masters) = self.look_up(&Op::Masters)? else { return None };
        let guard = match id {
            GuardId::Token(id) => lists.tokens.iter().find(|row| row.id == id)?.guard,
            GuardId::Node(node) => {
                let worker = lists.allowed.iter().find(|row| row.node == node);
                let master = masters.iter().find(|row| row.node == node);
                worker.map(|row| row.guard).or_else(|| master.map(|row| row.guard))?
            }
        };
        Guard::from_slice(&guard)
    }

    /// Returns the guard of a join token that still admits somebody, with its id.
    fn open_token(&self) -> Option<(GuardId, Guard)> {
        let OpReply::Admission(lists) = self.look_up(&Op::Admission)? else { return None };
        let open = lists.tokens.iter().find(|row| row.uses_left > 0)?;
        Some((GuardId::Token(open.id), Guard::from_slice(&open.guard)?))
    }

    fn cluster_id(&self) -> Option<[u8; 16]> {
        match self.look_up(&Op::Cluster)? {
            OpReply::Cluster(row) => Some(row.cluster),
            _ => None,
        }
    }

    /// Reads the store without the network between.
    fn look_up(&self, op: &Op) -> Option<OpReply> {
        let now_ms = self.world.wall(self.host(Place::Store)).ms;
        self.store.apply(op, now_ms).ok()
    }
}
