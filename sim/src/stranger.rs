//! Somebody who belongs to nothing: says again what was said, forges, floods, asks to join, and passes
//! for others.
//!
//! 1. It knows every byte that crossed the network until it began, and no key.
//! 2. It asks to join with join tokens that admit nobody: one that nobody made, one that was used up,
//!    one that ended. G14: it never joins.
//! 3. It passes for members under another key, and for a master towards those who look for one
//!    ([`Deceits`]): there it knows all guards and all public keys. G14: nobody believes it.
//! 4. What is said to it is heard by the tap of G14 as well.

mod deceits;
pub(crate) mod fake;
mod forger;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chatchat::{
    env::{BoxStream, Env},
    model::{event::Event, ids::NodeId},
    store::Store,
};
use chatchat_scenarios::{
    oracle::{EventLine, Rule, Violation},
    property::Property,
};
use dst_world::{Capture, Rng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) use self::{
    deceits::{Believed, Deceits},
    forger::{Answer, Forger, Guise, Known},
};

/// Name of its machine.
pub(crate) const HOST: &str = "stranger";

/// Time that it waits for what it is told.
const LISTENS: Duration = Duration::from_millis(800);
/// Recorded streams that it keeps of each port.
const TAPES_MAX: usize = 12;
/// Bytes that it says at most of one stream.
const SAYS_MAX: usize = 256 * 1024;
/// Connections of one flood.
const FLOOD: usize = 60;

/// Recorded streams, by the address that they went to.
pub(crate) type Tapes = BTreeMap<String, Vec<Vec<u8>>>;

/// Sorts the newest of what was recorded; `name` names a capture's receiver.
pub(crate) fn tapes(captures: &[Capture], name: impl Fn(&Capture) -> Option<String>) -> Tapes {
    let mut tapes = Tapes::new();
    for capture in captures.iter().rev() {
        let Some(to) = name(capture) else { continue };
        let of_port = tapes.entry(format!("{to}:{}", capture.port)).or_default();
        if of_port.len() < TAPES_MAX && !capture.bytes.is_empty() {
            let len = capture.bytes.len().min(SAYS_MAX);
            of_port.push(capture.bytes[..len].to_vec());
        }
    }
    tapes
}

/// Stranger on its machine.
pub(crate) struct Stranger {
    pub(crate) env: Env,
    pub(crate) rng: Rng,
    /// Addresses that it speaks to.
    pub(crate) addrs: Vec<String>,
    pub(crate) tapes: Tapes,
    /// Port at which people speak plainly.
    pub(crate) plain_port: u16,
    /// Number of its connections that were taken.
    pub(crate) heard: Arc<AtomicU64>,
}

impl Stranger {
    /// Goes on until its machine is switched off.
    pub(crate) async fn live(mut self) {
        loop {
            self.env.sleep(Duration::from_millis(20 + self.rng.below(200))).await;
            if self.addrs.is_empty() {
                continue;
            }
            let addr = self.rng.pick(&self.addrs).clone();
            if self.rng.odds(1, 8) {
                self.flood(&addr).await;
                continue;
            }
            let said = self.words(&addr);
            if let Some(mut stream) = self.connect(&addr).await {
                let (env, heard) = (self.env.clone(), Arc::clone(&self.heard));
                env.clone().spawn("stranger speaks", async move {
                    heard.fetch_add(1, Ordering::Relaxed);
                    // Whatever ends it ends it.
                    let _ = stream.write_all(&said).await;
                    let mut sink = Vec::new();
                    let _ = env.timeout(LISTENS, stream.read_to_end(&mut sink)).await;
                });
            }
        }
    }

    async fn connect(&self, addr: &str) -> Option<BoxStream> {
        self.env.connect(addr, LISTENS).await.ok()
    }

    /// Returns what it says: recorded bytes as they were, changed or cut, or noise.
    fn words(&mut self, addr: &str) -> Vec<u8> {
        let tapes = self.tapes.get(addr).filter(|tapes| !tapes.is_empty());
        let (mut said, is_recorded) = match tapes {
            Some(tapes) if self.rng.odds(7, 8) => (self.rng.pick(tapes).clone(), true),
            _ => {
                let mut noise = vec![0; 1 + self.rng.index(4096)];
                self.rng.fill(&mut noise);
                (noise, false)
            }
        };
        // Plain HTTP carries the person's token: with another body it is a request of that person.
        let is_plain = is_recorded && addr.ends_with(&format!(":{}", self.plain_port));
        match self.rng.below(4) {
            0 | 1 => {}
            2 if is_plain => {}
            2 => {
                for _ in 0..=self.rng.below(3) {
                    let at = self.rng.index(said.len());
                    said[at] ^= 1 << self.rng.below(8);
                }
            }
            _ => said.truncate(1 + self.rng.index(said.len())),
        }
        said
    }

    /// Opens many connections at once, says the beginning of something on each, and holds them.
    async fn flood(&mut self, addr: &str) {
        let mut held = Vec::new();
        for _ in 0..FLOOD {
            let mut said = self.words(addr);
            said.truncate(64);
            let Some(mut stream) = self.connect(addr).await else { break };
            self.heard.fetch_add(1, Ordering::Relaxed);
            // A reset is an answer as well.
            let _ = stream.write_all(&said).await;
            held.push(stream);
        }
        self.env.sleep(LISTENS).await;
    }
}

/// Strangers of a run: nodes that nobody may admit, and deceits that somebody believed.
pub(crate) struct Strangers {
    /// Nodes that nobody may admit, with the names of their machines.
    pub(crate) nodes: BTreeMap<NodeId, &'static str>,
    pub(crate) believed: Vec<Believed>,
}

/// Returns what shows that one of the nodes that nobody may admit was taken in, by the lines of a run
/// and by the store at its end, and the deceits that were believed.
pub(crate) async fn judge(
    strangers: &Strangers,
    events: &[EventLine],
    store: &Store,
) -> Vec<Violation> {
    let enrolled = store.admission().await.map(|lists| lists.allowed).unwrap_or_default();
    let enrolled: Vec<_> = enrolled.iter().map(|row| row.node).collect();
    let mut found = taken_in(&strangers.nodes, events, &enrolled);
    found.extend(strangers.believed.iter().map(deceived));
    found
}

/// Returns the violation that a deceit is which was believed.
fn deceived(believed: &Believed) -> Violation {
    match believed {
        Believed::Welcomed { by, member, guise } => {
            broken("admitted", format!("{by} welcomed an impostor of {member} with {guise}"), None)
        }
        Believed::Followed(node) => {
            broken("followed", format!("{node} went on with a fake master"), None)
        }
    }
}

/// Returns what shows that one of these nodes was taken in, by event lines and by the nodes that are
/// enrolled.
fn taken_in(
    strangers: &BTreeMap<NodeId, &'static str>,
    events: &[EventLine],
    enrolled: &[NodeId],
) -> Vec<Violation> {
    let enrolled = enrolled.iter().filter_map(|node| strangers.get(node));
    let mut said: Vec<_> =
        enrolled.map(|name| broken("admitted", format!("{name} is enrolled"), None)).collect();
    for line in events {
        let text = match &line.event {
            Event::Join { node, .. } | Event::Assign { worker: node, .. } => {
                match strangers.get(node) {
                    Some(name) => format!("{} took {name} in", line.node),
                    None => continue,
                }
            }
            Event::KeyHeld { .. } if strangers.values().any(|name| *name == line.node) => {
                format!("{} holds a common key", line.node)
            }
            _ => continue,
        };
        said.push(broken("admitted", text, Some(line)));
    }
    said
}

fn broken(name: &'static str, text: String, line: Option<&EventLine>) -> Violation {
    let rule = Rule { property: Property::G14, name };
    Violation { rule, text, evidence: line.map(EventLine::clue).into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::{
        BoardName, Domain, Fingerprint, Incarnation, KeyEpoch, Registration, Resource, Token,
    };

    use super::*;

    const MEMBER: NodeId = NodeId([1; 16]);
    const STRANGER: NodeId = NodeId([2; 16]);
    const MASTER: NodeId = NodeId([9; 16]);

    /// Returns the rules that a line of a node and an enrolled node break.
    fn broken_by(by: &str, event: Event, enrolled: NodeId) -> Vec<String> {
        let strangers = BTreeMap::from([(STRANGER, "unadmitted0")]);
        let line = EventLine { at: Duration::ZERO, node: by.to_owned(), event, number: 0 };
        let found = taken_in(&strangers, &[line], &[MASTER, enrolled]);
        found.iter().map(|it| it.rule.to_string()).collect()
    }

    fn join(node: NodeId) -> Event {
        Event::Join { node, registration: Registration(1), master: MASTER }
    }

    fn assign(worker: NodeId) -> Event {
        Event::Assign {
            worker,
            registration: Registration(1),
            resource: Resource::Board(BoardName::lobby()),
            token: Token::default(),
            after: None,
            posts: Vec::new(),
            attempt: 1,
        }
    }

    fn key_held() -> Event {
        let domain = Domain { master: MASTER, incarnation: Incarnation(1) };
        Event::KeyHeld { domain, epoch: KeyEpoch(1), print: Fingerprint([1; 32]) }
    }

    #[test]
    fn member_that_is_taken_in_is_accepted() {
        assert_eq!(broken_by("master:0", join(MEMBER), MEMBER), [""; 0]);
        assert_eq!(broken_by("master:0", assign(MEMBER), MEMBER), [""; 0]);
        assert_eq!(broken_by("worker:0", key_held(), MEMBER), [""; 0]);
    }

    #[test]
    fn stranger_that_is_enrolled_registered_given_a_task_or_a_key_is_reported() {
        let rule = ["g14.admitted"];
        assert_eq!(broken_by("master:0", join(MEMBER), STRANGER), rule, "enrolled");
        assert_eq!(broken_by("master:0", join(STRANGER), MEMBER), rule, "registered");
        assert_eq!(broken_by("master:0", assign(STRANGER), MEMBER), rule, "given a task");
        assert_eq!(broken_by("unadmitted0", key_held(), MEMBER), rule, "given a key");
    }

    #[test]
    fn deceit_that_is_believed_is_reported() {
        let rule = |believed: Believed| deceived(&believed).rule.to_string();
        for guise in Guise::ALL {
            let (by, member) = ("master0".to_owned(), "worker1".to_owned());
            assert_eq!(rule(Believed::Welcomed { by, member, guise }), "g14.admitted");
        }
        assert_eq!(rule(Believed::Followed(MEMBER)), "g14.followed");
    }
}
