//! Purges: what they name, what they do to a head, and the log that keeps them.
//!
//! A head is valid while its epoch (the log's number when its fetch began) is not below the
//! number of any purge that matches it.

mod file;
mod log;
mod rules;

pub use log::{PurgeLog, Words};
pub use rules::PURGES_MAX;

use crate::error::Error;

/// Bytes of a purge's URL, prefix or tag.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// Bytes of a site's name.
const SITE_BYTES_MAX: usize = 255;
/// Bytes of a purge's note; what is longer is cut.
const NOTE_BYTES_MAX: usize = 512;

/// What a purge ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum What {
    /// The URL, exactly as heads have it: `host/path?query`. All its variants.
    Url(String),
    /// Every URL that begins so, byte for byte.
    Prefix(String),
    /// All that carry this surrogate key or cache group, byte for byte.
    Tag(String),
    /// Everything.
    All,
}

impl What {
    /// `url`, `prefix`, `tag` or `all`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Prefix(_) => "prefix",
            Self::Tag(_) => "tag",
            Self::All => "all",
        }
    }

    /// What it names; empty for everything.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Url(text) | Self::Prefix(text) | Self::Tag(text) => text,
            Self::All => "",
        }
    }
}

/// A purge as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// What it ends.
    pub what: What,
    /// Of this site alone; `None`: of every site.
    pub site: Option<String>,
    /// What it names is stale as of the purge; otherwise it is gone.
    pub soft: bool,
    /// Who asked, and why: for the audit.
    pub note: String,
}

impl Purge {
    /// Checks the lengths, and cuts the note.
    fn checked(mut self) -> Result<Self, Error> {
        let kind = self.what.kind();
        let bad = |field, reason: String| Err(Error::BadPurge { field, reason });
        let length = self.what.text().len();
        if self.what != What::All && length == 0 {
            return bad(kind, "is empty: expected text, or a purge of everything".to_owned());
        }
        if length > TEXT_BYTES_MAX {
            return bad(kind, format!("has {length} bytes: expected at most {TEXT_BYTES_MAX}"));
        }
        match self.site.as_deref().map(str::len) {
            Some(0) => return bad("site", "is empty: expected a site's name, or none".to_owned()),
            Some(length) if length > SITE_BYTES_MAX => {
                return bad(
                    "site",
                    format!("has {length} bytes: expected at most {SITE_BYTES_MAX}"),
                );
            }
            _ => {}
        }
        let end = (0..=NOTE_BYTES_MAX.min(self.note.len())).rev();
        let end = end.into_iter().find(|end| self.note.is_char_boundary(*end)).unwrap_or(0);
        self.note.truncate(end);
        Ok(self)
    }
}

/// A purge in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purged {
    /// Above those of all before it. Heads whose epoch is below it are ended.
    pub number: u64,
    /// When it was acknowledged, in ms since 1970.
    pub unix_ms: i64,
    /// What was asked for.
    pub purge: Purge,
}

/// When something was purged last, in ms since 1970; none: never, as far as is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Last {
    /// Softly or hard.
    pub any_ms: Option<i64>,
    /// Hard.
    pub hard_ms: Option<i64>,
}

/// What the purges say of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// None ends it.
    Valid,
    /// It is stale, since [`PurgeLog::stale_since`].
    Soft,
    /// It must not be served, and can go.
    Hard,
}
