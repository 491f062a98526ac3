//! Rules of what people see: which names one may choose, which texts are blank, which names look
//! alike.
//!
//! They hold for what people hand in. What is stored already is read as it is.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup as Group, UnicodeGeneralCategory};
use unicode_security::confusable_detection::skeleton;

use super::ids::{Malformed, UserName};

const ZERO_WIDTH_NON_JOINER: char = '\u{200c}';
const ZERO_WIDTH_JOINER: char = '\u{200d}';

/// Reads the name that a person chose: composed, with single spaces, and such that all of it can be
/// seen.
///
/// # Errors
/// It is not 1 to 40 characters, holds one that nobody sees, or ends like the tag by which the page
/// tells two people of one name apart.
pub fn chosen_name(text: &str) -> Result<UserName, Malformed> {
    let refused = |why| Err(Malformed { what: "name", why });
    let mut composed: String = text.nfc().collect();
    composed = composed.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut chars: Vec<char> = composed.chars().collect();
    // The same symbol in colour and without: keyboards add it, nobody asked for it.
    let mut before = ' ';
    chars.retain(|c| {
        let selects = matches!(c, '\u{fe0e}' | '\u{fe0f}');
        let of_symbol = before.general_category_group() == Group::Symbol;
        before = *c;
        !(selects && of_symbol)
    });
    let sees = |at: Option<usize>| at.and_then(|at| chars.get(at)).copied();
    for (at, c) in chars.iter().enumerate() {
        let joins = matches!(*c, ZERO_WIDTH_JOINER | ZERO_WIDTH_NON_JOINER)
            && sees(at.checked_sub(1)).is_some_and(|c| is_visible(c) || is_mark(c))
            && sees(at.checked_add(1)).is_some_and(is_visible);
        if c.is_control() || (is_ignorable(*c) && !joins) {
            return refused("holds control, text-direction or other characters that nobody sees");
        }
    }
    let name: String = chars.into_iter().collect();
    let name: UserName = name.parse()?;
    if !name.as_str().chars().any(is_visible) {
        return refused("want a character that can be seen");
    }
    if ends_in_a_tag(name.as_str()) {
        return refused("ends like the mark that tells people of one name apart");
    }
    Ok(name)
}

/// Whether nothing of a text would be seen.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || is_ignorable(c))
}

/// Returns the text by which names are compared that people cannot tell apart: two names look alike
/// if this is equal.
#[must_use]
pub fn look(name: &str) -> String {
    let seen: String = name.chars().filter(|c| !is_ignorable(*c)).collect();
    skeleton(&seen).collect()
}

/// Whether a character has the Unicode property `Default_Ignorable_Code_Point`: it is not shown.
#[must_use]
pub const fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a character alone leaves something on the screen.
fn is_visible(c: char) -> bool {
    /// Braille without a dot: a symbol to Unicode, a gap to everybody.
    const BLANK_BRAILLE: char = '\u{2800}';
    let group = c.general_category_group();
    let shown = matches!(group, Group::Letter | Group::Number | Group::Punctuation | Group::Symbol);
    // What is newer than this table is shown as something.
    let unknown = group == Group::Other && !c.is_control();
    (shown || unknown) && !is_ignorable(c) && c != BLANK_BRAILLE
}

fn is_mark(c: char) -> bool {
    c.general_category_group() == Group::Mark
}

fn ends_in_a_tag(name: &str) -> bool {
    let plain: Vec<char> = name.nfkc().filter(|c| !is_ignorable(*c)).collect();
    let Some((rest, digits)) = plain.split_last_chunk::<4>() else { return false };
    let hash = rest.iter().rev().find(|c| !c.is_whitespace());
    digits.iter().all(char::is_ascii_hexdigit)
        && matches!(hash, Some('#' | '\u{266f}' | '\u{2317}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(text: &str) -> Option<String> {
        chosen_name(text).ok().map(|name| name.as_str().to_owned())
    }

    #[test]
    fn chosen_name_is_composed_and_has_single_spaces() {
        for (text, name) in [
            (" Ada ", "Ada"),
            ("Ada\u{a0}  King", "Ada King"),
            ("Zoe\u{308}", "Zo\u{eb}"),
            ("\u{2764}\u{fe0f}", "\u{2764}"),
            // A joiner between characters that are seen: Persian, Hindi, a family.
            ("\u{645}\u{6cc}\u{200c}\u{62e}", "\u{645}\u{6cc}\u{200c}\u{62e}"),
            ("\u{915}\u{94d}\u{200d}\u{937}", "\u{915}\u{94d}\u{200d}\u{937}"),
            ("\u{1f469}\u{200d}\u{1f467}", "\u{1f469}\u{200d}\u{1f467}"),
            ("#1", "#1"),
            ("C#", "C#"),
            ("?", "?"),
        ] {
            assert_eq!(chosen(text).as_deref(), Some(name), "{text:?}");
        }
    }

    #[test]
    fn name_that_is_not_all_seen_or_looks_like_a_tag_is_refused() {
        for text in [
            "",
            "  ",
            "\u{200b}",
            "Ann\u{200b}",
            "Ann\u{fe0f}",
            "\u{3164}",
            "\u{301}",
            "\u{2800}",
            "a\u{200d}",
            "\u{200c}a",
            "a\u{200d}\u{200d}b",
            "a\u{202e}b",
            "a\u{ad}b",
            "a\0",
            "\u{e0041}",
            "Ann #3f0e",
            "Ann#3F0E",
            "Ann \u{ff03}3f0e",
            "#3f0e",
            &"x".repeat(41),
        ] {
            assert_eq!(chosen(text), None, "{text:?}");
        }
    }

    #[test]
    fn names_that_nobody_can_tell_apart_look_alike() {
        for (one, other) in [("Ann", "\u{391}nn"), ("Ann", "A\u{200d}nn"), ("Bill", "Bi\u{4cf}l")] {
            assert_eq!(look(one), look(other), "{one} {other:?}");
        }
        assert_ne!(look("Ann"), look("Anna"));
    }

    #[test]
    fn text_of_white_space_and_hidden_characters_is_blank() {
        for text in [" ", "\n\n", "\u{200b}", "\u{3000}\u{2060}"] {
            assert!(is_blank(text), "{text:?}");
        }
        for text in [".", " a ", "\u{1}", "\u{1f44d}\u{fe0f}"] {
            assert!(!is_blank(text), "{text:?}");
        }
    }
}
