//! The configuration file: TOML, read once, every mistake named with file, line and key.

mod place;

use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// A configuration file larger than this is refused.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{path}:{line}:{column}: {key}{message}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// The key at that place, with a colon and a space, or nothing.
        key: String,
        /// What is wrong, and what is allowed.
        message: String,
    },
    /// A value that is not allowed, from the file, a flag or the environment.
    #[error("{key}: {given:?} is not allowed: expected {expected}")]
    Value {
        /// The key, as in the file: `edge.listen`.
        key: String,
        /// What was given.
        given: String,
        /// What is allowed.
        expected: String,
    },
    /// A key that must be given.
    #[error("{key} is missing: expected {expected}")]
    Missing {
        /// The key, as in the file: `edge.origin`.
        key: String,
        /// What is allowed.
        expected: String,
    },
    /// More than one mistake; none of these is of this kind.
    #[error("{}", lines(.0))]
    Several(Vec<ConfigError>),
}

fn lines(mistakes: &[ConfigError]) -> String {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// What all of these give.
///
/// # Errors
/// Every mistake in them, in their order: one alone, or [`ConfigError::Several`].
pub fn all<T>(
    checked: impl IntoIterator<Item = Result<T, ConfigError>>,
) -> Result<Vec<T>, ConfigError> {
    let (mut good, mut mistakes) = (Vec::new(), Vec::new());
    for checked in checked {
        match checked {
            Ok(value) => good.push(value),
            Err(mistake) => mistakes.extend(mistake.each()),
        }
    }
    match mistakes.len() {
        0 => Ok(good),
        1 => Err(mistakes.remove(0)),
        _ => Err(ConfigError::Several(mistakes)),
    }
}

/// What both of these give.
///
/// # Errors
/// Every mistake in them, as [`all`] has it.
pub fn both<A, B>(
    one: Result<A, ConfigError>,
    other: Result<B, ConfigError>,
) -> Result<(A, B), ConfigError> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(mistake), Ok(_)) | (Ok(_), Err(mistake)) => Err(mistake),
        (Err(one), Err(other)) => {
            Err(ConfigError::Several([one.each(), other.each()].into_iter().flatten().collect()))
        }
    }
}

impl ConfigError {
    /// The mistakes that this is.
    #[must_use]
    pub fn each(self) -> Vec<Self> {
        match self {
            Self::Several(mistakes) => mistakes,
            one => vec![one],
        }
    }

    /// A value that is not allowed.
    pub fn value(key: &str, given: impl Display, expected: impl Display) -> Self {
        let (given, expected) = (given.to_string(), expected.to_string());
        Self::Value { key: key.to_owned(), given, expected }
    }

    /// A key that must be given.
    pub fn missing(key: &str, expected: impl Display) -> Self {
        Self::Missing { key: key.to_owned(), expected: expected.to_string() }
    }

    /// The same with its line in `text`, the file at `path`, if that holds the key (or, for one
    /// that is missing, the table that it is missed in). Only for what came from that file alone:
    /// a flag may have gone before it.
    #[must_use]
    pub fn placed(self, path: &Path, text: &str) -> Self {
        if let Self::Several(mistakes) = self {
            let mistakes = mistakes.into_iter().map(|mistake| mistake.placed(path, text));
            return Self::Several(mistakes.collect());
        }
        let at = match &self {
            Self::Value { key, given, .. } => place::of_value(text, key, given),
            Self::Missing { key, .. } => place::of_missing(text, key),
            Self::Read { .. } | Self::File { .. } | Self::Several(_) => None,
        };
        match at {
            Some(at) => Self::at(path, text, at, String::new(), self.to_string()),
            None => self,
        }
    }

    /// An error at a byte of a file's text.
    fn at(path: &Path, text: &str, at: usize, key: String, message: String) -> Self {
        let before = &text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        Self::File { path: path.to_owned(), line, column, key, message }
    }
}

/// Reads and parses a configuration file.
///
/// # Errors
/// [`ConfigError::Read`] or [`ConfigError::File`].
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    parse(path, &read(path)?)
}

/// The text of a configuration file.
///
/// # Errors
/// [`ConfigError::Read`].
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes > CONFIG_BYTES_MAX {
        let text = format!("{bytes} bytes; a configuration has at most {CONFIG_BYTES_MAX}");
        return Err(read(std::io::Error::other(text)));
    }
    std::fs::read_to_string(path).map_err(read)
}

/// Parses the text of the file at `path` (named in errors only).
///
/// # Errors
/// [`ConfigError::File`].
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let at = text.floor_char_boundary(at);
        let key = place::key_at(text, at).map(|key| format!("{key}: "));
        let key = key.unwrap_or_else(|| guessed_key(text, at));
        ConfigError::at(path, text, at, key, error.message().to_owned())
    })
}

/// The key that seems to stand at byte `at` of what is no TOML: `edge.memory: `, or nothing
/// where there is none.
fn guessed_key(text: &str, at: usize) -> String {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let Some((key, _)) = text[start..].lines().next().and_then(|line| line.split_once('=')) else {
        return String::new();
    };
    let headers = text[..start].lines().rev().map(str::trim);
    let header = headers.filter(|line| line.starts_with('[')).find(|line| line.contains(']'));
    let table = header.and_then(|header| header.trim_start_matches('[').split(']').next());
    let table = table.map(str::trim);
    let dotted = table.map(|table| format!("{table}.")).unwrap_or_default();
    format!("{dotted}{}: ", key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{ByteSize, Span};
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    #[expect(dead_code, reason = "only its parsing is looked at")]
    struct File {
        edge: Edge,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    #[expect(dead_code, reason = "only its parsing is looked at")]
    struct Edge {
        listen: Vec<String>,
        memory: Option<ByteSize>,
        drain: Option<Span>,
    }

    fn error(text: &str) -> String {
        parse::<File>(Path::new("nearcast.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_are_named_with_file_line_key_and_what_is_allowed() {
        insta::assert_snapshot!(
            [
                error("[edge]\nlisten = [\"http://127.0.0.1:8080\"]\nmemroy = \"1GiB\"\n"),
                error("[edge]\nlisten = [\"a\"]\nmemory = \"1 gig\"\n"),
                error("[edge]\nlisten = [\"a\"]\ndrain = 5\n"),
                error("[egde]\nlisten = []\n"),
                error("[edge]\nlisten = [\n"),
                error("listen = 1\n"),
            ]
            .join("\n---\n")
        );
    }
}
