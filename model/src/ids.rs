//! Names that come from outside: each is checked once, where it enters, and is safe in a
//! path, a URL and a log line from then on.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not valid: expected {expected}")]
pub struct IdError {
    what: &'static str,
    given: String,
    expected: &'static str,
}

impl IdError {
    /// What would have been valid.
    #[must_use]
    pub fn expected(&self) -> &'static str {
        self.expected
    }
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Lower-case letters, digits and inner hyphens, starting with a letter or a digit.
fn is_slug(text: &str, max: usize) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= max
        && bytes[0] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

macro_rules! slug {
    ($name:ident, $what:literal, $max:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_slug(text, $max) {
                    return Ok(Self(text.to_owned()));
                }
                Err(IdError {
                    what: $what,
                    given: short(text),
                    expected: concat!(
                        "1 to ",
                        $max,
                        " characters of a-z, 0-9 and -, not starting with -"
                    ),
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

slug!(TitleId, "title", 64, "A title's name in URLs and in the store: `[a-z0-9][a-z0-9-]{0,63}`.");
slug!(TrackId, "track", 32, "A track's name within its title: `[a-z0-9][a-z0-9-]{0,31}`.");
slug!(EdgeId, "edge", 63, "An edge's name within its fleet: `[a-z0-9][a-z0-9-]{0,62}`.");

/// The version of a title: the first 16 bytes of the BLAKE3 hash of its encoded index, which
/// in turn holds the packaging parameters and the digests of every track file. The same
/// input, packaged in the same way, is the same version; whoever holds the version can check
/// the index, and with the index every byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version([u8; 16]);

impl Version {
    /// The version that an encoded index stands for.
    #[must_use]
    pub fn of_index(encoded: &[u8]) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(encoded).as_bytes()[..16]);
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for Version {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let refused = || IdError {
            what: "version",
            given: short(text),
            expected: "32 lower-case hexadecimal digits",
        };
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(refused());
        }
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| refused())?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Version {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for bad in ["", "-a", "A", "a/b", "..", "a.b", "ä", &"a".repeat(65)] {
            assert!(bad.parse::<TitleId>().is_err(), "{bad:?} was taken");
        }
        assert_eq!("big-film-2".parse::<TitleId>().map(String::from), Ok("big-film-2".into()));
    }

    #[test]
    fn a_version_has_one_spelling() {
        let version = Version::of_index(b"index");
        assert_eq!(version.to_string().parse(), Ok(version));
        assert!(version.to_string().to_uppercase().parse::<Version>().is_err());
        assert!("abc".parse::<Version>().is_err());
    }
}
