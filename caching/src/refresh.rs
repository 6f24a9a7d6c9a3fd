//! Stored heads renewed by a 304 and by the answer to a HEAD (RFC 9111 sections 3.2, 4.3.4 and
//! 4.3.5). What names or measures the stored bytes never changes by it, nor how well.

use crate::storable::{Renewable, fillable, is_silent_to_cookie, renewable};
use crate::validator::{gains, weak_match};
use crate::{Settings, Stored, date, forward, is_of_one};
use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, StatusCode};

/// A request that the origin answered, which may renew what is stored.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// The client's fields.
    pub request: &'a HeaderMap,
    /// The rules of the site.
    pub settings: &'a Settings,
    /// When it was sent on, in milliseconds since the epoch.
    pub requested_ms: i64,
    /// When the answer's head arrived, in milliseconds since the epoch.
    pub received_ms: i64,
}

/// What a 304 means for the stored response that it was asked with.
#[derive(Debug, Clone, PartialEq)]
pub enum Renewal {
    /// It is still good: this is its renewed head.
    Shared(Stored),
    /// It is still good for the one who asked, with this head, of which nothing may be kept.
    Alone {
        /// The head for that one.
        renewed: Stored,
        /// Nobody else may have what is stored from now on, fresh or stale: let go of it.
        ends: bool,
    },
    /// The 304 speaks of another representation, or may: the date by which it was asked for was
    /// weak when the bytes came. Fetch the whole without conditions.
    Changed,
}

/// What becomes of bytes that a stored response lacked (RFC 9111 sections 3.3 and 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fills {
    /// They are kept with it.
    Kept,
    /// They are for the one who asked.
    Apart {
        /// Nobody else may have what is stored from now on, either: let go of it.
        ends: bool,
    },
}

/// What the answer to a HEAD means for a stored response.
#[derive(Debug, Clone, PartialEq)]
pub enum HeadUpdate {
    /// The representation is the one stored: this is its renewed head.
    Refreshed(Stored),
    /// The origin has another one, or none, by now, or it may not be shared any more: let go of
    /// what is stored.
    Outdated,
    /// The answer says nothing of the stored response, or nothing that may be kept.
    Unrelated,
}

/// The stored response renewed by the 304 that answered its own [`crate::revalidation_fields`].
#[must_use]
pub fn refreshed(exchange: Exchange<'_>, stored: &Stored, fields_304: &HeaderMap) -> Renewal {
    if !is_selected(stored, fields_304) {
        return Renewal::Changed;
    }
    let new = forward::received_fields(fields_304, exchange.received_ms);
    let renewed = renewed(exchange, stored, &new);
    if gains(stored, &renewed.fields) {
        return Renewal::Changed;
    }
    match renewable(exchange.request, &new, &renewed, exchange.settings) {
        Renewable::Yes => Renewal::Shared(renewed),
        Renewable::No => Renewal::Alone { renewed, ends: false },
        Renewable::Never => Renewal::Alone { renewed, ends: true },
    }
}

/// Judges an answer that brings bytes which a stored response lacks, of its version: as if it were
/// the whole answer.
#[must_use]
pub fn fills(exchange: Exchange<'_>, stored: &Stored, fields: &HeaderMap) -> Fills {
    let new = forward::received_fields(fields, exchange.received_ms);
    let renewed = renewed(exchange, stored, &new);
    match fillable(exchange.request, &new, &renewed, exchange.settings) {
        Renewable::Yes => Fills::Kept,
        Renewable::No => Fills::Apart { ends: false },
        Renewable::Never => Fills::Apart { ends: true },
    }
}

/// Judges the origin's answer to a HEAD against a stored response that would have answered the
/// same GET. `fields` are as they came, `Content-Length` included; `body_bytes` is the length of
/// what is stored.
#[must_use]
pub fn head_update(
    exchange: Exchange<'_>,
    stored: &Stored,
    body_bytes: u64,
    status: StatusCode,
    fields: &HeaderMap,
) -> HeadUpdate {
    // What one client alone is told of the resource takes nothing from others.
    let other = match is_of_one(exchange.request) {
        true => HeadUpdate::Unrelated,
        false => HeadUpdate::Outdated,
    };
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) && status != stored.status {
        return other;
    }
    if status != StatusCode::OK || !matches!(stored.status.as_u16(), 200 | 206) {
        return HeadUpdate::Unrelated;
    }
    let length = date::single(fields, &CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let same_length = length.is_none_or(|length| length.parse() == Ok(body_bytes));
    let coding = fields.get(CONTENT_ENCODING);
    let same_coding = coding.is_none() || coding == stored.fields.get(CONTENT_ENCODING);
    if !same_length || !same_coding || !is_selected(stored, fields) {
        return other;
    }
    // Two versions may well be of one length: unless both have the same validator, nothing
    // vouches that the fields are about the bytes that are stored.
    if !fields.contains_key(ETAG) && !is_dated_alike(stored, fields) {
        return HeadUpdate::Unrelated;
    }
    let new = forward::received_fields(fields, exchange.received_ms);
    let renewed = renewed(exchange, stored, &new);
    match renewable(exchange.request, &new, &renewed, exchange.settings) {
        Renewable::Yes if gains(stored, &renewed.fields) => HeadUpdate::Unrelated,
        Renewable::Yes => HeadUpdate::Refreshed(renewed),
        Renewable::No => HeadUpdate::Unrelated,
        Renewable::Never => HeadUpdate::Outdated,
    }
}

/// Whether `fields` are of the stored representation: each validator that they have is the stored
/// one. Entity tags are compared weakly: an origin that compresses may mark one weak in a 200 and
/// not in the 304.
fn is_selected(stored: &Stored, fields: &HeaderMap) -> bool {
    if fields.contains_key(ETAG) {
        let tags = (date::single(&stored.fields, &ETAG), date::single(fields, &ETAG));
        return matches!(tags, (Some(a), Some(b)) if weak_match(a.as_bytes(), b.as_bytes()));
    }
    if !fields.contains_key(LAST_MODIFIED) {
        return true;
    }
    if !stored.fields.contains_key(LAST_MODIFIED) {
        // A date where none was: the representation that was stored had an entity tag or nothing.
        return stored.fields.contains_key(ETAG);
    }
    // What can't be read as a date is told apart by its text alone.
    is_dated_alike(stored, fields)
        || fields.get_all(LAST_MODIFIED).iter().eq(stored.fields.get_all(LAST_MODIFIED))
}

/// Whether both were modified at the same time, which both tell.
fn is_dated_alike(stored: &Stored, fields: &HeaderMap) -> bool {
    let known_ms = date::of(&stored.fields, &LAST_MODIFIED);
    known_ms.is_some() && known_ms == date::of(fields, &LAST_MODIFIED)
}

fn renewed(exchange: Exchange<'_>, stored: &Stored, new: &HeaderMap) -> Stored {
    let Exchange { request, settings, requested_ms, received_ms } = exchange;
    // Where only the stored fields name a lifetime, that is for all. But what else comes with
    // such a 304 may be about the cookie.
    let is_about_time = is_silent_to_cookie(request, stored.status, new, settings);
    let is_taken = |name: &&HeaderName| match is_about_time {
        true => [AGE, DATE].contains(name),
        false => !is_of_the_bytes(name),
    };
    let mut fields = stored.fields.clone();
    // The age begins anew: an old Age or Date must not outlive the validation.
    fields.remove(AGE);
    fields.remove(DATE);
    for name in new.keys().filter(is_taken) {
        fields.remove(name);
        for value in new.get_all(name) {
            // An addition fails only past 32,768 fields, which no listener lets in.
            let _ = fields.try_append(name, value.clone());
        }
    }
    Stored { status: stored.status, fields, requested_ms, received_ms }
}

/// Fields that describe the bytes that are stored: a 304 and a HEAD have none (section 3.2).
fn is_of_the_bytes(name: &HeaderName) -> bool {
    const DIGESTS: [&str; 4] = ["content-md5", "content-digest", "repr-digest", "digest"];
    [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE, ETAG].contains(name)
        || DIGESTS.contains(&name.as_str())
}

#[cfg(test)]
mod tests;
