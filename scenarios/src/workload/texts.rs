//! Texts of people's posts: mostly different, sometimes equal, sometimes hard to handle.

use chatchat::model::ids::{PostId, PostText};
use dst_env::rng::Rng;

/// Returns a word that occurs in the run's posts and nowhere else: no link between nodes may
/// show it.
#[must_use]
pub fn canary(seed: u64) -> String {
    format!("canary{:016x}", seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995_27d4_eb2f)
}

/// Writer of texts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    /// Seed of the run.
    pub(super) seed: u64,
    /// Number of the person.
    pub(super) person: usize,
    /// Share of texts that are as long as a text may be.
    pub(super) long: f64,
}

impl Writer {
    /// Returns the `nth` text that the person writes at a place of its life, such as `lobby/0.1`.
    pub(super) fn text(self, rng: &mut Rng, place: &str, nth: u64) -> PostText {
        let canary = canary(self.seed);
        let head = format!("p{} {place} #{nth}", self.person);
        // Runs without long texts keep their draws.
        let text = if self.long > 0.0 && rng.chance(self.long) {
            let room = PostText::LEN_MAX - head.len();
            format!("{head}{}", format!(" {canary}").repeat(room / (canary.len() + 1)))
        } else {
            usual(rng, &head, &canary)
        };
        text.parse().expect("every text here fits in 8 KiB and holds no U+0000")
    }
}

fn usual(rng: &mut Rng, head: &str, canary: &str) -> String {
    match rng.below(100) {
        // Many posts of one text: who tells posts apart by their text loses some.
        0..8 => "ok".to_owned(),
        8..12 => format!("{head} {}", canary.repeat(40 + rng.index(160))),
        12..16 => format!("{head} <script>alert('{canary}')</script> &amp; 'x' \"y\""),
        16..20 => format!("{head} ¿Grüße? 👩‍👩‍👧 \u{202e}odd {canary}\n\tline"),
        _ => format!("{head} {canary}"),
    }
}

/// Returns a fresh post id: a version 4 UUID.
pub(super) fn post_id(rng: &mut Rng) -> PostId {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    PostId(bytes)
}

#[cfg(test)]
mod tests {
    use dst_env::rng::Seed;

    use super::*;

    #[test]
    fn post_ids_are_version_4_uuids_that_read_back() {
        let id = post_id(&mut Seed(7).stream("ids"));
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert_eq!((&text[14..15], "89ab".contains(&text[19..20])), ("4", true), "{text}");
    }

    #[test]
    fn every_text_is_one_that_a_client_may_send() {
        let mut rng = Seed(1).stream("texts");
        let mut writer = Writer { seed: 1, person: 3, long: 0.0 };
        let alike =
            (0..2000).filter(|n| writer.text(&mut rng, "lobby/0.0", *n).as_str() == "ok").count();
        assert!(alike > 50, "{alike}");
        writer.long = 0.5;
        let long = (0..100).filter(|n| writer.text(&mut rng, "a", *n).as_str().len() > 8000);
        assert!((30..70).contains(&long.count()));
        assert_ne!(canary(1), canary(2));
    }
}
