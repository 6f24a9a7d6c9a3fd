//! The head of a plain GET, read, and that of its answer, written. What is not plain is `None`:
//! hyper reads it, or refuses it.
//!
//! Invariant: what is read here hyper would read in the same way. So there is one way to end a
//! line and no folding, no body, no word on the connection but that it stays, and of a path only
//! what every reader takes.

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HeaderName, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, request};
use std::cell::RefCell;

/// Longer heads are read by hyper.
const BYTES_MAX: usize = 8 << 10;
/// More fields are counted by hyper.
const FIELDS_MAX: usize = 64;
/// Room that a thread takes for the heads that come next, at once.
const KEPT_BYTES: usize = 4 << 10;

const START: &[u8] = b"GET /";
const VERSION: &[u8] = b" HTTP/1.1\r\n";
/// The end of a head.
pub const END: &[u8] = b"\r\n\r\n";

thread_local! {
    /// A head's bytes go into one piece, which its fields share. When all of them are gone, it
    /// takes the next.
    static KEPT: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// The request that these bytes are, all of them and nothing more.
pub fn read(came: &[u8]) -> Option<request::Parts> {
    if came.len() > BYTES_MAX || !came.starts_with(START) || !came.ends_with(END) {
        return None;
    }
    let line = memchr::memchr(b'\n', came)? + 1;
    let path_end = line.checked_sub(VERSION.len())?;
    if !came[..line].ends_with(VERSION) || !came[START.len()..path_end].iter().all(is_plain) {
        return None;
    }
    let all = kept(came);
    let uri = Uri::from_maybe_shared(all.slice(START.len() - 1..path_end)).ok()?;
    let headers = fields(&all, line)?;
    let mut request = Request::new(()).into_parts().0;
    (request.method, request.uri, request.version) = (Method::GET, uri, Version::HTTP_11);
    request.headers = headers;
    Some(request)
}

/// A byte of a path or query (RFC 3986 section 3.3).
fn is_plain(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/%?=&!$'()*+,;:@".contains(byte)
}

fn kept(came: &[u8]) -> Bytes {
    KEPT.with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.capacity() < came.len() {
            kept.reserve(came.len().max(KEPT_BYTES));
        }
        kept.extend_from_slice(came);
        kept.split().freeze()
    })
}

/// The fields from `at` on, to the empty line that ends the head.
fn fields(all: &Bytes, mut at: usize) -> Option<HeaderMap> {
    let end = all.len() - 2;
    let count = memchr::memchr_iter(b'\n', &all[at..end]).count();
    if count > FIELDS_MAX {
        return None;
    }
    let mut fields = HeaderMap::with_capacity(count);
    while at < end {
        let line = memchr::memchr(b'\n', &all[at..])? + at;
        let colon = memchr::memchr(b':', &all[at..line])? + at;
        // A name takes no space, so no line is folded, and none is empty.
        let name = HeaderName::from_bytes(&all[at..colon]).ok()?;
        let value = all.slice_ref(trimmed(all[colon + 1..line].strip_suffix(b"\r")?));
        if !is_taken(&name, &value) {
            return None;
        }
        // It takes no control byte.
        fields.try_append(name, HeaderValue::from_maybe_shared(value).ok()?).ok()?;
        at = line + 1;
    }
    Some(fields)
}

/// Without spaces around it (RFC 9110 section 5.5).
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether a field changes nothing of where the request or the connection ends.
fn is_taken(name: &HeaderName, value: &[u8]) -> bool {
    match *name {
        CONTENT_LENGTH | TRANSFER_ENCODING | EXPECT | UPGRADE => false,
        CONNECTION => value.eq_ignore_ascii_case(b"keep-alive"),
        _ => true,
    }
}

/// Whether [`write`] can write this answer's head, before a body of so many bytes: it says how
/// many, and when, and nothing of the connection.
pub fn is_whole<B>(response: &Response<B>, body_bytes: u64) -> bool {
    let status = response.status();
    let has_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !has_body || status.is_informational() || response.version() != Version::HTTP_11 {
        return false;
    }
    let (mut lengths, mut has_date) = (0, false);
    for (name, value) in response.headers() {
        match *name {
            CONNECTION | TRANSFER_ENCODING | UPGRADE | TRAILER => return false,
            CONTENT_LENGTH => {
                let bytes = value.to_str().ok().and_then(|text| text.parse().ok());
                if bytes != Some(body_bytes) {
                    return false;
                }
                lengths += 1;
            }
            DATE => has_date = true,
            _ => {}
        }
    }
    lengths == 1 && has_date && status.canonical_reason().is_some()
}

/// Writes a head that [`is_whole`].
pub fn write(status: StatusCode, fields: &HeaderMap, text: &mut Vec<u8>) {
    if status == StatusCode::OK {
        text.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        let reason = status.canonical_reason().unwrap_or_default();
        for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
            text.extend_from_slice(part.as_bytes());
        }
    }
    write_fields(fields, text);
}

/// Writes the fields of a head, and its end.
pub fn write_fields(fields: &HeaderMap, text: &mut Vec<u8>) {
    for (name, value) in fields {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        text.reserve(name.len() + value.len() + ": \r\n\r\n".len());
        text.extend_from_slice(name);
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
