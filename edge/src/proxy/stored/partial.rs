//! Which parts of what is stored a client gets, and how several are sent (RFC 9110 section 14).

use crate::body::Piece;
use crate::compress;
use crate::proxy::Wanted;
use crate::refused::Refused;
use crate::serve::set;
use bytes::Bytes;
use caching::Ranges;
use heads::Head;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::ByteRange;

/// Whether the client's range is one of what is stored. One who names what it has by its date has
/// most likely the encoded form, where it likes that: both have one date.
pub fn wants_parts(wanted: &Wanted, head: &Head) -> bool {
    let fields = &wanted.fields;
    let may_be_encoded =
        || super::compresses(&wanted.site, head) && compress::liked(fields).is_some();
    caching::if_range(fields, &head.stored)
        && !(caching::is_range_dated(fields) && may_be_encoded())
}

/// The parts that the client wants; none for the whole.
pub(super) fn parts(
    wanted: &Wanted,
    head: &Head,
    status: StatusCode,
) -> Result<Option<Vec<ByteRange>>, Refused> {
    let fields = &wanted.fields;
    if status != StatusCode::OK || wanted.method != Method::GET || !wants_parts(wanted, head) {
        return Ok(None);
    }
    match caching::ranges(fields, head.bytes, wanted.site.ranges_max) {
        Ranges::Whole => Ok(None),
        Ranges::Parts(parts) => Ok(Some(parts)),
        Ranges::Unsatisfiable => Err(Refused::Range { bytes: head.bytes }),
        Ranges::TooMany => Err(Refused::Ranges { most: wanted.site.ranges_max }),
    }
}

/// What a partial answer sends.
pub(super) enum Partial {
    One(ByteRange),
    Several(Vec<Piece>),
}

/// The fields and the pieces of a partial answer (RFC 9110 section 15.3.7).
pub(super) fn partial(headers: &mut HeaderMap, parts: &[ByteRange], bytes: u64) -> Partial {
    compress::remove_content_digests(headers);
    let range = |part: &ByteRange| format!("bytes {}-{}/{bytes}", part.start, part.end() - 1);
    if let [part] = parts {
        set(headers, header::CONTENT_RANGE, range(part));
        return Partial::One(*part);
    }
    let boundary = format!("{:032x}", rand::random::<u128>());
    let kind = headers.get(header::CONTENT_TYPE).cloned();
    let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let kind = kind.to_str().unwrap_or("application/octet-stream").to_owned();
    set(headers, header::CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"));
    let mut pieces = Vec::with_capacity(2 * parts.len() + 1);
    for part in parts {
        let text = format!(
            "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {}\r\n\r\n",
            range(part)
        );
        pieces.push(Piece::Text(Bytes::from(text)));
        pieces.push(Piece::Part(*part));
    }
    pieces.push(Piece::Text(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    Partial::Several(pieces)
}
