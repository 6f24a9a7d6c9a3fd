//! Common Media Client Data (CTA-5004, versions 1 and 2): read from a header or a query, bounded.
//!
//! A player may tell with each request what it plays, how full its buffer is and what it will
//! ask for next: in four header fields, or in the query argument `CMCD`. It is advice for logs,
//! for prefetching and for pacing. Invariant: nothing a client writes here fails its request,
//! costs more than time linear in its length, or is believed beyond its own host.
//!
//! `text` cuts the text into keys and values, `fields` and `tokens` give them types, `next`
//! resolves the hints of what comes next, `query` finds and removes the query argument, `log`
//! writes the compact form.

mod fields;
mod log;
mod next;
mod query;
mod text;
mod tokens;

pub use fields::{Cmcd, Numbers};
pub use next::{Next, NextObject, Span};
pub use query::{is_cmcd, strip};
pub use tokens::{ObjectType, PlayerState, StreamType, StreamingFormat};

use http::{HeaderMap, HeaderName};

/// The four header fields, in the order in which they are read. None belongs to an origin's
/// cache key, nor is it for the origin.
pub const HEADERS: [HeaderName; 4] = [
    HeaderName::from_static("cmcd-request"),
    HeaderName::from_static("cmcd-object"),
    HeaderName::from_static("cmcd-status"),
    HeaderName::from_static("cmcd-session"),
];

/// All CMCD of one request, after decoding; players send some 200 bytes. More is not read.
pub const BYTES_MAX: usize = 4 << 10;
/// Keys read of one request; version 2 has fewer than 50. The rest is counted as bad.
pub const KEYS_MAX: usize = 64;
/// Items of one list: object types have nine names.
pub const LIST_MAX: usize = 9;
/// Hints of what comes next, of one request. The rest is left out.
pub const NEXT_MAX: usize = 4;
/// A hint longer than this is bad.
pub const NEXT_BYTES_MAX: usize = 1 << 10;
/// The compact form for the log; keys that don't fit are left out.
pub const LOG_BYTES_MAX: usize = 512;

/// How a request's CMCD was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There was none.
    Absent,
    /// Each key was understood, or is one that a reader must ignore.
    Good,
    /// Some keys were understood, and some had bad values.
    Partial,
    /// There was something, and nothing of it could be used.
    Bad,
    /// Longer than [`BYTES_MAX`]: not looked at.
    TooLong,
}

impl Verdict {
    /// All of them, for metrics that start at zero.
    pub const ALL: [Self; 5] = [Self::Absent, Self::Good, Self::Partial, Self::Bad, Self::TooLong];

    /// Its name in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Good => "good",
            Self::Partial => "partial",
            Self::Bad => "bad",
            Self::TooLong => "too-long",
        }
    }
}

/// What was read of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// How it went.
    pub verdict: Verdict,
    /// What was understood; empty unless the verdict is `Good` or `Partial`.
    pub cmcd: Cmcd,
}

impl Read {
    const fn nothing(verdict: Verdict) -> Self {
        Self { verdict, cmcd: Cmcd::NONE }
    }
}

/// Reads a request's CMCD: its header fields, or else the query argument `CMCD` (CTA-5004
/// forbids to send both). Never fails.
#[must_use]
pub fn read(fields: &HeaderMap, query: Option<&str>) -> Read {
    // Most requests have few fields: to look at their names is quicker than to look each up.
    if fields.keys().any(|name| HEADERS.contains(name)) {
        return of_headers(fields);
    }
    match query.and_then(query::find) {
        None => Read::nothing(Verdict::Absent),
        // Before decoding a byte may take three.
        Some(raw) if raw.len() > 3 * BYTES_MAX => Read::nothing(Verdict::TooLong),
        Some(raw) => match query::decode(raw) {
            None => Read::nothing(Verdict::Bad),
            Some(text) => parse(&text),
        },
    }
}

fn of_headers(fields: &HeaderMap) -> Read {
    let mut text = String::new();
    for value in HEADERS.iter().flat_map(|name| fields.get_all(name)) {
        if text.len() + value.len() > BYTES_MAX {
            return Read::nothing(Verdict::TooLong);
        }
        let Ok(value) = value.to_str() else { return Read::nothing(Verdict::Bad) };
        text.push_str(value);
        text.push(',');
    }
    parse(&text)
}

/// Reads CMCD as it stands in a header field, or in the query once that is decoded.
#[must_use]
pub fn parse(text: &str) -> Read {
    if text.len() > BYTES_MAX + HEADERS.len() {
        return Read::nothing(Verdict::TooLong);
    }
    let mut cmcd = Cmcd::NONE;
    let (mut understood, mut bad) = (0, 0);
    for (place, pair) in text::pairs(text).enumerate() {
        let Some(pair) = pair.filter(|_| place < KEYS_MAX) else {
            bad += 1;
            continue;
        };
        match cmcd.set(&pair) {
            fields::Outcome::Set => understood += 1,
            fields::Outcome::Ignored => {}
            fields::Outcome::Bad => bad += 1,
        }
    }
    cmcd.settle();
    let verdict = match (understood, bad) {
        (_, 0) => Verdict::Good,
        (0, _) => Verdict::Bad,
        _ => Verdict::Partial,
    };
    Read { verdict, cmcd }
}

#[cfg(test)]
mod tests;
