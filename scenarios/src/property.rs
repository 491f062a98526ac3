//! Properties that the design promises (G0 to G18), by name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::nearest::{did_you_mean, nearest};

macro_rules! properties {
    ($($name:ident $text:literal $title:literal,)*) => {
        /// One property; each has an oracle in [`oracle`](crate::oracle) or is watched by the world.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Property {
            $(#[doc = $title] $name,)*
        }

        impl Property {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its number, such as `G1`.
            #[must_use]
            pub const fn number(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Returns the title, such as `durable ack`.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                }
            }
        }
    };
}

properties! {
    G0 "G0" "calm",
    G1 "G1" "durable ack",
    G2 "G2" "exactly once",
    G3 "G3" "outcomes settle",
    G4 "G4" "total order",
    G5 "G5" "gap-free streams",
    G6 "G6" "sessions survive",
    G7 "G7" "session order",
    G8 "G8" "one permission",
    G9 "G9" "tasks end",
    G10 "G10" "failed stay out",
    G11 "G11" "membership",
    G12 "G12" "presence",
    G13 "G13" "keys",
    G14 "G14" "secrecy",
    G15 "G15" "weak service",
    G16 "G16" "overload is explicit",
    G17 "G17" "failover time",
    G18 "G18" "determinism",
}

impl Property {
    /// Returns whether a violation is a liveness failure: the property is about the time after
    /// the faults.
    #[must_use]
    pub const fn is_liveness(self) -> bool {
        matches!(self, Self::G3 | Self::G9 | Self::G11 | Self::G12 | Self::G17)
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.title())
    }
}

impl FromStr for Property {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .find(|property| property.number().eq_ignore_ascii_case(text))
            .copied()
            .ok_or_else(|| {
                let near = nearest(text, Self::ALL.iter().map(|property| property.number()));
                let hint = near.map_or_else(String::new, did_you_mean);
                format!("{text:?} is not a property: want G0 to G18{hint}")
            })
    }
}
