//! Whether an answer is one to what was asked: one that is sound by itself may be none, and then that
//! try has failed. Pure.

use caching::RangeSpec;
use http::response::Parts;
use http::{HeaderMap, Method, StatusCode, header};

/// Why it is none, if it is none: a 304 to who has named nothing that it could go on using (RFC 9110
/// section 15.4.5), or a 206 of other bytes than were asked for. `asked`: the request's fields.
pub(crate) fn wrong(method: &Method, asked: &HeaderMap, head: &Parts) -> Option<String> {
    let is_get = *method == Method::GET;
    match head.status {
        StatusCode::NOT_MODIFIED if is_get || *method == Method::HEAD => {
            let conditions = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];
            let is_conditional = conditions.iter().any(|name| asked.contains_key(name));
            (!is_conditional).then(|| "304 to a request without a condition".to_owned())
        }
        StatusCode::PARTIAL_CONTENT if is_get => {
            (!is_part_of(asked, &head.headers)).then(|| said(asked, &head.headers))
        }
        _ => None,
    }
}

/// Whether a 206 holds what was asked for, or the beginning of it: an origin may send less, but
/// nothing else (RFC 9110 section 15.3.7). Of several ranges that is for who asked for them to see,
/// as is what has numbers that can't be counted here.
fn is_part_of(asked: &HeaderMap, fields: &HeaderMap) -> bool {
    if !asked.contains_key(header::RANGE) {
        return caching::is_past_counting(fields);
    }
    let mut specs = caching::range_specs(asked);
    let (Some(Some(spec)), None) = (specs.next(), specs.next()) else { return true };
    let Some(given) = caching::content_range(fields) else {
        return caching::is_past_counting(fields);
    };
    let is_asked = match spec {
        RangeSpec::From { first, last } => {
            given.range.start == first && last.is_none_or(|last| given.range.end() - 1 <= last)
        }
        RangeSpec::Last { bytes } => given.range.bytes <= bytes,
    };
    let framed = fields.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let framed = framed.and_then(|length| length.trim().parse::<u64>().ok());
    is_asked && framed.is_none_or(|framed| framed == given.range.bytes)
}

fn said(asked: &HeaderMap, fields: &HeaderMap) -> String {
    let shown = |fields: &HeaderMap, name: header::HeaderName, none: &str| match fields.get(&name) {
        Some(value) => value.as_bytes().escape_ascii().to_string(),
        None => none.to_owned(),
    };
    let given = shown(fields, header::CONTENT_RANGE, "no Content-Range");
    let length = shown(fields, header::CONTENT_LENGTH, "no length");
    format!("206, {given}, {length}, to {}", shown(asked, header::RANGE, "no Range"))
}
