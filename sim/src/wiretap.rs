//! G14 on the wire: what nodes say to each other holds no word of a post and no secret of a session, a
//! node or a key.
//!
//! 1. Links between masters and workers are judged, both ways, byte by byte, whatever the
//!    segments were. The links to the store and to people are left out, by name.
//!    What link ports say to a stranger is judged as well.
//! 2. No two records of those links begin alike, as they do when one key and one nonce sealed two
//!    texts that begin alike.
//! 3. The tap proves that it hears: people's links, which are in clear, must show the word, and
//!    links between nodes must show records.

mod records;

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use chatchat::client::Answer;
use chatchat_scenarios::{
    history::History,
    oracle::{Rule, Violation},
    property::Property,
    target::Place,
    workload::canary,
};
use dst_world::HostId;

use self::records::Records;
use crate::cluster::{Cluster, LINK_PORT};

/// Shortest secret that is looked for: a shorter one might be there by chance.
const SECRET_LEN_MIN: usize = 8;
/// Number of posts that must hold the canary word for the tap to count as working.
const POSTS_MIN: usize = 20;

/// Listens, from now on, to the links between nodes and to what people say.
pub(crate) fn listen(cluster: &Cluster) {
    let places: BTreeMap<HostId, Place> = cluster.places_of_hosts().collect();
    cluster.world().capture(move |from, to| {
        // A machine that comes later is a second life of a node.
        let is_no_node = |host| places.get(host).is_some_and(|place| !is_node(*place));
        let is_said_by_person = places.get(&from).is_some_and(|place| is_person(*place));
        is_said_by_person || !is_no_node(&from) && !is_no_node(&to)
    });
}

const fn is_node(place: Place) -> bool {
    matches!(place, Place::Master(_) | Place::Worker(_))
}

const fn is_person(place: Place) -> bool {
    matches!(place, Place::Person(_))
}

/// Returns what crossed the links in clear, or under a nonce that was used before. Listens no more.
pub(crate) async fn judge(cluster: &Cluster, seed: u64, history: &History) -> Vec<Violation> {
    let said_by_people = secrets(seed, history);
    let people = Words::new(said_by_people.clone());
    let all = Words::new([said_by_people, cluster.secrets().await].concat());
    let place = |host: HostId| cluster.place(&cluster.world().name(host));
    let (mut said, mut records) = (Vec::new(), Records::default());
    let is_quiet = history.sent().count() < POSTS_MIN;
    let mut hears = is_quiet;
    for capture in cluster.world().end_capture() {
        let secret =
            || all.first_in(&capture.bytes).map(|secret| secret.escape_ascii().to_string());
        if cluster.is_stranger(capture.to)
            && capture.port == LINK_PORT
            && let Some(secret) = secret()
        {
            let who = cluster.world().name(capture.from);
            said.push(broken("stranger", format!("{who} said {secret} to a stranger")));
        }
        let (Some(from), Some(to)) = (place(capture.from), place(capture.to)) else { continue };
        if is_node(from) && is_node(to) {
            if let Some(secret) = secret() {
                said.push(broken("clear", format!("{from} said {secret} to {to} in clear")));
            }
            if capture.port == LINK_PORT {
                records.take(&capture.bytes);
            }
        } else if !hears && is_person(from) {
            hears = people.first_in(&capture.bytes).is_some();
        }
    }
    if !hears {
        said.push(broken("deaf", "the tap is deaf: people's links show nothing".to_owned()));
    }
    if !is_quiet && records.len() == 0 {
        said.push(broken("deaf", "the tap is deaf: nodes' links show no record".to_owned()));
    }
    let repeated = records.repeated();
    if repeated > 0 {
        let text =
            format!("{repeated} records begin as others do: one key and one nonce sealed both");
        said.push(broken("nonce", text));
    }
    said
}

fn broken(name: &'static str, text: String) -> Violation {
    let rule = Rule { property: Property::G14, name };
    Violation { rule, text, evidence: Vec::new() }
}

/// Returns the secrets of people that must not be seen: the canary word of the posts, and every session's
/// token.
fn secrets(seed: u64, history: &History) -> Vec<Vec<u8>> {
    let tokens = history.operations.iter().filter_map(|operation| match operation.reply() {
        Some((_, Answer::Opened(opened))) => opened.token.clone(),
        _ => None,
    });
    tokens.chain([canary(seed)]).map(String::into_bytes).collect()
}

/// Looks for many words at once, each of them in time that does not grow with their number.
struct Words(AhoCorasick);

impl Words {
    fn new(words: Vec<Vec<u8>>) -> Self {
        let words = words.into_iter().filter(|word| word.len() >= SECRET_LEN_MIN);
        // Sealed bytes are random, and nearly each of them begins a word: of the kinds, only this one
        // takes one step for each byte then.
        let whole = AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(words);
        Self(whole.expect("a run's secrets are short and few"))
    }

    fn first_in<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.0.find(bytes).map(|word| &bytes[word.range()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_found_at_any_position() {
        let words = [&b"a canary"[..], b"some token", b"short", b""];
        let words = Words::new(words.map(<[u8]>::to_vec).to_vec());
        let found = |text: &str| words.first_in(text.as_bytes()).map(<[u8]>::to_vec);
        for text in ["a canary", "a a canary", "x a canary y", "a caa canary"] {
            assert_eq!(found(text).as_deref(), Some(&b"a canary"[..]), "{text}");
        }
        assert_eq!(found("for some tokens").as_deref(), Some(&b"some token"[..]));
        for text in ["", "a canar", "some tok a canar", "short"] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
