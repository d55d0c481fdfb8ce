//! Recovery classes: what each link does about a lost packet.

use std::fmt;
use std::str::FromStr;

/// How a message is recovered on every link it crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Sent once on each link; a loss is final.
    BestEffort,
    /// Selective repeat on each link, end-to-end repair for what crashes lost.
    Reliable,
}

impl Class {
    /// Every class, in the order of its code on the wire.
    pub const ALL: [Class; 2] = [Class::BestEffort, Class::Reliable];

    /// The class's code on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Class::BestEffort => 0,
            Class::Reliable => 1,
        }
    }

    /// The class with this code, if there is one.
    pub const fn from_code(code: u8) -> Option<Class> {
        match code {
            0 => Some(Class::BestEffort),
            1 => Some(Class::Reliable),
            _ => None,
        }
    }

    /// The name users read and write.
    pub const fn name(self) -> &'static str {
        match self {
            Class::BestEffort => "best-effort",
            Class::Reliable => "reliable",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Class, String> {
        Class::ALL
            .into_iter()
            .find(|class| class.name() == text)
            .ok_or_else(|| format!("unknown class `{text}`: use `best-effort` or `reliable`"))
    }
}
