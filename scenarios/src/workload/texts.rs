//! What people write: mostly unlike each other, sometimes alike, sometimes nasty.

use chatchat::model::ids::PostText;

use crate::dice::Dice;

/// A word that stands in the run's posts and nowhere else: no link between nodes may show it.
#[must_use]
pub fn canary(seed: u64) -> String {
    format!("canary{:016x}", seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995_27d4_eb2f)
}

/// The `nth` post of a person.
pub(super) fn text(dice: &mut Dice, seed: u64, person: usize, nth: u64) -> PostText {
    let canary = canary(seed);
    let text = match dice.below(100) {
        // Many posts of one text: who tells posts apart by their text loses some.
        0..8 => "ok".to_owned(),
        8..12 => format!("p{person} #{nth} {}", canary.repeat(40 + dice.index(160))),
        12..16 => format!("p{person} #{nth} <script>alert('{canary}')</script> &amp; 'x' \"y\""),
        16..20 => format!("p{person} #{nth} ¿Grüße? 👩‍👩‍👧 \u{202e}odd {canary}\n\tline"),
        _ => format!("p{person} #{nth} {canary}"),
    };
    text.parse().expect("every text above fits in 8 KiB and holds no U+0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_one_that_a_client_may_send() {
        let mut dice = Dice::new(1, "texts");
        let alike = (0..2000).filter(|n| text(&mut dice, 1, 3, *n).as_str() == "ok").count();
        assert!(alike > 50, "{alike}");
        assert_ne!(canary(1), canary(2));
    }
}
