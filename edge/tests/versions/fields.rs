//! What the origin says of its things, and how it heeds conditions and ranges.

use super::{Known, Thing};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::ops::Range;

/// 2020-01-01: what changes then is old enough for `Last-Modified` to be a strong validator.
const EPOCH_S: u64 = 1_577_836_800;

/// 2100-01-01.
const FAST_EPOCH_S: u64 = 4_102_444_800;
/// From such a change on until a version is sent that shares its second, or is the last of it.
const SENT_AFTER_S: [u64; 2] = [1, 100];

fn http_date(unix_s: u64) -> HeaderValue {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix_s);
    httpdate::fmt_http_date(at).parse().unwrap()
}

/// What an answer says of a version.
pub fn own_fields(number: usize, thing: &Thing, version: u64) -> HeaderMap {
    let mut fields = HeaderMap::new();
    let tag = format!("\"{number}-{version}\"");
    match thing.known {
        Known::Strong => fields.insert(header::ETAG, tag.parse().unwrap()),
        Known::Weak => fields.insert(header::ETAG, format!("W/{tag}").parse().unwrap()),
        Known::Date => {
            let changed_s = EPOCH_S + 1_000 * version + number as u64;
            fields.insert(header::LAST_MODIFIED, http_date(changed_s))
        }
        Known::Young | Known::Fast => {
            let epoch_s = if thing.known == Known::Fast { FAST_EPOCH_S } else { EPOCH_S };
            let changed_s = epoch_s + 1_000 * (version / 2) + number as u64;
            let sent_after_s = SENT_AFTER_S[usize::try_from(version % 2).unwrap()];
            fields.insert(header::DATE, http_date(changed_s + sent_after_s));
            fields.insert(header::LAST_MODIFIED, http_date(changed_s))
        }
        Known::Garbled => {
            fields.insert(header::LAST_MODIFIED, format!("version {version}").parse().unwrap())
        }
        Known::Nothing => None,
    };
    fields.insert(header::CACHE_CONTROL, thing.cache_control.parse().unwrap());
    fields.insert("x-version", version.into());
    if thing.has_ranges {
        fields.insert(header::ACCEPT_RANGES, "bytes".parse().unwrap());
    }
    fields
}

/// The status by the request's conditions, and which bytes are wanted (RFC 9110 section 13.2).
pub fn judge(
    asked: &HeaderMap,
    thing: &Thing,
    own: &HeaderMap,
    length: usize,
) -> (StatusCode, Range<usize>) {
    let text = |name: header::HeaderName| asked.get(name).map(|value| value.to_str().unwrap());
    let mine = |name: header::HeaderName| own.get(name).map(|value| value.to_str().unwrap());
    let (tag, modified) = (mine(header::ETAG), mine(header::LAST_MODIFIED));
    let strong = tag.filter(|tag| !tag.starts_with("W/"));
    let precondition = match (text(header::IF_MATCH), text(header::IF_UNMODIFIED_SINCE)) {
        (Some(wanted), _) => Some(wanted) == strong,
        (None, Some(wanted)) => modified.is_none_or(|modified| modified == wanted),
        (None, None) => true,
    };
    if !precondition && thing.heeds {
        return (StatusCode::PRECONDITION_FAILED, 0..0);
    }
    let same = match (text(header::IF_NONE_MATCH), text(header::IF_MODIFIED_SINCE)) {
        (Some(wanted), _) => Some(wanted) == tag,
        (None, Some(wanted)) => Some(wanted) == modified,
        (None, None) => false,
    };
    if same {
        return (StatusCode::NOT_MODIFIED, 0..0);
    }
    let whole = (StatusCode::OK, 0..length);
    let range = text(header::RANGE).and_then(|range| range.strip_prefix("bytes="));
    let may = text(header::IF_RANGE)
        .is_none_or(|wanted| Some(wanted) == strong || (tag.is_none() && Some(wanted) == modified));
    let Some(range) = range.filter(|_| thing.has_ranges && may) else { return whole };
    let Some((first, last)) = range.split_once('-') else { return whole };
    let range = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => first..length.min(last.saturating_add(1)),
        (Ok(first), Err(_)) => first..length,
        (Err(_), Ok(last)) => length.saturating_sub(last)..length,
        (Err(_), Err(_)) => return whole,
    };
    if range.start >= range.end {
        return (StatusCode::RANGE_NOT_SATISFIABLE, 0..0);
    }
    (StatusCode::PARTIAL_CONTENT, range)
}
