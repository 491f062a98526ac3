//! Violation of a property: which rule was broken, how it shows, and where to look.

use std::{fmt, time::Duration};

use crate::property::Property;

/// Rule of an oracle. Its text, such as `g05.gap`, is stable: what reduces or compares failures
/// tells them apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Property that the rule is part of.
    pub property: Property,
    /// Name of the rule among those of its property.
    pub name: &'static str,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{:02}.{}", self.property as u8, self.name)
    }
}

/// Place in the evidence of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// Operation of the history, by its number.
    Operation(usize),
    /// Stream of the history at a time.
    Stream {
        /// Number of the stream.
        number: usize,
        /// Time at which it shows, on the observer's clock.
        at: Duration,
    },
    /// Line of the event log, by its number.
    Line(usize),
    /// Row of the store's record of writes, by its number.
    Write(u64),
    /// Time at which a person did or saw what is no operation, by the person's number.
    Person(usize, Duration),
}

/// Piece of evidence: what it says, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clue {
    /// Evidence in one line.
    pub text: String,
    /// Place of it, if it is in one.
    pub point: Option<Point>,
}

impl From<String> for Clue {
    fn from(text: String) -> Self {
        Self { text, point: None }
    }
}

/// Violation of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Rule that is broken.
    pub rule: Rule,
    /// Observation that breaks it, in a sentence.
    pub text: String,
    /// Evidence: operations, streams, posts, writes, event lines.
    pub evidence: Vec<Clue>,
}

impl Violation {
    /// Returns the property that is violated.
    #[must_use]
    pub const fn property(&self) -> Property {
        self.rule.property
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]: {}", self.property(), self.rule, self.text)?;
        for clue in &self.evidence {
            write!(f, "\n    {}", clue.text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_is_written_with_the_number_of_its_property() {
        for property in Property::ALL {
            let rule = Rule { property: *property, name: "gap" }.to_string();
            let number: u8 = rule[1..3].parse().expect("two digits");
            assert_eq!(format!("G{number}"), property.number(), "{rule}");
        }
    }
}
