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
        let is_no_node = |host| places.get(host).is_some_and(|place| !place.is_node());
        let is_said_by_person = places.get(&from).is_some_and(|place| is_person(*place));
        is_said_by_person || !is_no_node(&from) && !is_no_node(&to)
    });
}

const fn is_person(place: Place) -> bool {
    matches!(place, Place::Person(_))
}

/// Returns what crossed the links in clear, or under a nonce that was used before. Listens no more.
pub(crate) async fn judge(cluster: &Cluster, seed: u64, history: &History) -> Vec<Violation> {
    let of_nodes = cluster.secrets().await;
    let end = |host: HostId| {
        let name = cluster.world().name(host);
        End { place: cluster.place(&name), is_stranger: cluster.is_stranger(host), name }
    };
    let heard = cluster.world().end_capture().into_iter().map(|capture| Heard {
        from: end(capture.from),
        to: end(capture.to),
        port: capture.port,
        bytes: capture.bytes,
    });
    overheard(heard, secrets(seed, history), of_nodes, history.sent().count())
}

/// Bytes that one end of a connection said to the other one, in order.
struct Heard {
    from: End,
    to: End,
    port: u16,
    bytes: Vec<u8>,
}

/// Machine at an end of a connection.
struct End {
    name: String,
    /// Its place, unless it came later or is a stranger's.
    place: Option<Place>,
    is_stranger: bool,
}

/// Returns what was heard that should not be: the secrets of people and of nodes, and nonces that come
/// again. Where people sent so many posts that something must be heard, silence is told as well.
fn overheard(
    heard: impl IntoIterator<Item = Heard>,
    of_people: Vec<Vec<u8>>,
    of_nodes: Vec<Vec<u8>>,
    sent: usize,
) -> Vec<Violation> {
    let people = Words::of_few_bytes(of_people.clone());
    let all = Words::of_many_bytes([of_people, of_nodes].concat());
    let (mut said, mut records) = (Vec::new(), Records::default());
    let is_quiet = sent < POSTS_MIN;
    let mut hears = is_quiet;
    for capture in heard {
        let secret =
            || all.first_in(&capture.bytes).map(|secret| secret.escape_ascii().to_string());
        if capture.to.is_stranger
            && capture.port == LINK_PORT
            && let Some(secret) = secret()
        {
            let who = &capture.from.name;
            said.push(broken("stranger", format!("{who} said {secret} to a stranger")));
        }
        let (Some(from), Some(to)) = (capture.from.place, capture.to.place) else { continue };
        if from.is_node() && to.is_node() {
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

/// Returns the secrets of people that must not be seen: the canary word of the posts, every session's
/// token, and every ticket.
fn secrets(seed: u64, history: &History) -> Vec<Vec<u8>> {
    let tokens = history.operations.iter().filter_map(|operation| match operation.reply() {
        Some((_, Answer::Opened(opened))) => opened.token.clone(),
        _ => None,
    });
    let handovers = &history.handovers;
    let tickets = handovers.iter().filter_map(|handover| handover.ticket.clone());
    let moved = handovers.iter().flat_map(|handover| &handover.redeemed);
    let moved = moved.filter_map(|redeemed| redeemed.token.clone());
    tokens.chain(tickets).chain(moved).chain([canary(seed)]).map(String::into_bytes).collect()
}

/// Looks for many words at once, in time that does not grow with their number. It looks for their
/// beginnings, which random bytes hardly ever hold, and compares the rest there: an automaton of whole
/// words is as large as they are.
struct Words {
    beginnings: AhoCorasick,
    words: Vec<Vec<u8>>,
}

impl Words {
    /// Looks through many bytes. Sealed ones are random, and nearly each of them begins a word: of the kinds,
    /// only this one takes one step for each byte then. It takes the longest to make.
    fn of_many_bytes(words: Vec<Vec<u8>>) -> Self {
        Self::new(words, AhoCorasickKind::DFA)
    }

    /// Looks through a few bytes.
    fn of_few_bytes(words: Vec<Vec<u8>>) -> Self {
        Self::new(words, AhoCorasickKind::NoncontiguousNFA)
    }

    fn new(mut words: Vec<Vec<u8>>, kind: AhoCorasickKind) -> Self {
        words.retain(|word| word.len() >= SECRET_LEN_MIN);
        let beginnings = words.iter().map(|word| &word[..SECRET_LEN_MIN]);
        let beginnings = AhoCorasick::builder().kind(Some(kind)).build(beginnings);
        Self { beginnings: beginnings.expect("a run's secrets are few"), words }
    }

    fn first_in(&self, bytes: &[u8]) -> Option<&[u8]> {
        let begun = self.beginnings.find_overlapping_iter(bytes);
        let mut words = begun.map(|it| (&self.words[it.pattern().as_usize()], it.start()));
        words.find(|(word, at)| bytes[*at..].starts_with(word)).map(|(word, _)| word.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chatchat::crypto::{
        record::{RecordKind, Side, link},
        secret::Secret,
    };
    use chatchat_scenarios::history::{Handover, Redeemed, Who};

    use super::*;

    const PERSON: Place = Place::Person(0);
    const MASTER: Place = Place::Master(0);
    const WORKER: Place = Place::Worker(0);
    const HTTP_PORT: u16 = 80;
    const WORD: &[u8] = b"a word of people";
    const SECRET: &[u8] = b"a secret of nodes";

    fn heard(from: Place, to: Place, port: u16, bytes: &[u8]) -> Heard {
        let end =
            |place: Place| End { name: place.to_string(), place: Some(place), is_stranger: false };
        Heard { from: end(from), to: end(to), port, bytes: bytes.to_vec() }
    }

    /// A post on its way to a master.
    fn post() -> Heard {
        heard(PERSON, MASTER, HTTP_PORT, &[&b"text="[..], WORD].concat())
    }

    /// A handshake and one record, sealed with the key of this number and its first nonce.
    fn record(key: u8) -> Heard {
        let (mut sealer, _) =
            link(&Secret::from_slice(&[key; 32]).expect("32 bytes"), Side::Dialer);
        let mut bytes = vec![3, 0, 0, 0, 1, 2, 3];
        sealer.seal(RecordKind::Data, WORD, &mut bytes).expect("short");
        heard(MASTER, WORKER, LINK_PORT, &bytes)
    }

    /// Returns the rules that are broken where people sent so many posts.
    fn rules(heard: Vec<Heard>, sent: usize) -> Vec<String> {
        let found = overheard(heard, vec![WORD.to_vec()], vec![SECRET.to_vec()], sent);
        found.iter().map(|it| it.rule.to_string()).collect()
    }

    #[test]
    fn sealed_links_beside_plain_ones_of_people_are_accepted() {
        assert_eq!(rules(vec![post(), record(1), record(2)], POSTS_MIN), [""; 0]);
        let to_store = heard(MASTER, Place::Store, HTTP_PORT, SECRET);
        assert_eq!(rules(vec![post(), record(1), to_store], POSTS_MIN), [""; 0]);
    }

    #[test]
    fn ticket_and_the_session_that_it_gave_are_secrets() {
        let (who, at) = (Who { person: 0, life: 0 }, Duration::from_secs(20));
        let (ticket, token) = ("a whole ticket", "token of a session");
        let redeemed = Redeemed {
            at,
            master: "http://m".to_owned(),
            status: Some(201),
            user: None,
            token: Some(token.to_owned()),
            is_put_off: false,
        };
        let mut history = History::default();
        history.handovers.push(Handover {
            who,
            issued_at: at,
            status: Some(201),
            ticket: Some(ticket.to_owned()),
            at_once: false,
            redeemed: vec![redeemed],
            used: Vec::new(),
        });
        for said in [ticket, token] {
            let clear = heard(MASTER, WORKER, LINK_PORT, said.as_bytes());
            let found = overheard([clear], secrets(1, &history), Vec::new(), 0);
            let found: Vec<_> = found.iter().map(|it| it.rule.to_string()).collect();
            assert_eq!(found, ["g14.clear"], "{said}");
        }
    }

    #[test]
    fn secret_or_word_between_nodes_is_reported() {
        for said in [SECRET, WORD] {
            for (from, to, port) in
                [(MASTER, WORKER, LINK_PORT), (WORKER, MASTER, HTTP_PORT), (MASTER, MASTER, 1)]
            {
                let clear = heard(from, to, port, &[&b"say: "[..], said].concat());
                let told = rules(vec![post(), record(1), clear], POSTS_MIN);
                assert_eq!(told, ["g14.clear"], "{from} to {to} at {port}");
            }
        }
    }

    #[test]
    fn secret_that_a_stranger_is_told_on_a_link_is_reported() {
        let told = |port: u16, said: &[u8]| {
            let stranger = End { name: "stranger".to_owned(), place: None, is_stranger: true };
            let said = Heard { to: stranger, ..heard(MASTER, WORKER, port, said) };
            rules(vec![post(), record(1), said], POSTS_MIN)
        };
        assert_eq!(told(LINK_PORT, SECRET), ["g14.stranger"]);
        assert_eq!(told(LINK_PORT, WORD), ["g14.stranger"]);
        assert_eq!(told(LINK_PORT, b"no such thing"), [""; 0]);
        assert_eq!(told(HTTP_PORT, WORD), [""; 0], "it speaks plainly as people do");
    }

    #[test]
    fn tap_that_hears_nothing_of_people_or_of_nodes_is_reported() {
        assert_eq!(rules(vec![record(1)], POSTS_MIN), ["g14.deaf"], "no word");
        assert_eq!(rules(vec![post()], POSTS_MIN), ["g14.deaf"], "no record");
        assert_eq!(rules(Vec::new(), POSTS_MIN), ["g14.deaf"; 2]);
        assert_eq!(rules(Vec::new(), POSTS_MIN - 1), [""; 0], "people said little");
    }

    #[test]
    fn nonce_that_is_used_again_is_reported() {
        assert_eq!(rules(vec![post(), record(1), record(1)], POSTS_MIN), ["g14.nonce"]);
    }

    #[test]
    fn secret_is_found_at_any_position() {
        let words = [&b"a canary"[..], b"some token", b"short", b""];
        for make in [Words::of_many_bytes, Words::of_few_bytes] {
            let words = make(words.map(<[u8]>::to_vec).to_vec());
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

    #[test]
    fn words_that_begin_alike_or_within_each_other_are_told_apart() {
        let words = [&b"secret of a"[..], b"secret of b", b"cret of another"];
        for make in [Words::of_many_bytes, Words::of_few_bytes] {
            let words = make(words.map(<[u8]>::to_vec).to_vec());
            let found = |text: &str| words.first_in(text.as_bytes()).map(<[u8]>::to_vec);
            for (text, word) in [
                ("the secret of b", Some(&b"secret of b"[..])),
                ("secret of another", Some(b"secret of a")),
                ("sacret of another", Some(b"cret of another")),
                ("secret of secret of b", Some(b"secret of b")),
                ("secret of c", None),
                ("secret of ", None),
            ] {
                assert_eq!(found(text).as_deref(), word, "{text}");
            }
        }
    }
}
