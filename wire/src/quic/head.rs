//! The head of an answer as a HEADERS frame (RFC 9114 section 7.2.2), made in one go and for the
//! same write as the body's first bytes. QPACK (RFC 9204) with its static table alone, as h3 has
//! it, and without Huffman's code: that saves some fifty bytes of an answer, and cost more CPU
//! than the rest of its head.
//!
//! Invariant: what h3 would send, in another spelling.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, StatusCode};

/// More than a field's name and value need on top: an index, and two lengths.
const FIELD_BYTES: usize = 32;
/// HEADERS, and a length of four bytes (RFC 9000 section 16).
const FRAME_HEAD: [u8; 5] = [1, 0x80, 0, 0, 0];
/// `:status` in the static table, whatever its value.
const STATUS: u8 = 24;

/// The frame, with room for the head of another one. A peer that takes no head of this size
/// refuses it (RFC 9114 section 4.2.2); ours are as large as origins make them.
pub fn frame(status: StatusCode, fields: &HeaderMap) -> BytesMut {
    let size = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + FIELD_BYTES
    };
    let section = ":status200".len() + FIELD_BYTES + fields.iter().map(size).sum::<usize>();
    let mut out = BytesMut::with_capacity(section + 2 * FRAME_HEAD.len());
    out.extend_from_slice(&FRAME_HEAD);
    // No dynamic table: no insert is required, and the base is 0 (section 4.5.1).
    out.extend_from_slice(&[0, 0]);
    match indexed(status) {
        Some(index) => integer(&mut out, 0xc0, 6, index.into()),
        None => named(&mut out, STATUS, status.as_str().as_bytes()),
    }
    for (name, value) in fields {
        match known(name.as_str()) {
            Some(index) => named(&mut out, index, value.as_bytes()),
            None => {
                // A literal name (section 4.5.6).
                integer(&mut out, 0x20, 3, name.as_str().len());
                out.extend_from_slice(name.as_str().as_bytes());
                literal(&mut out, value.as_bytes());
            }
        }
    }
    let length =
        u32::try_from(out.len() - FRAME_HEAD.len()).expect("fields have fewer than 2^30 bytes");
    out[1..FRAME_HEAD.len()].copy_from_slice(&(0x8000_0000 | length).to_be_bytes());
    out
}

/// A value with a name of the static table (section 4.5.4).
fn named(out: &mut BytesMut, index: u8, value: &[u8]) {
    integer(out, 0x50, 4, index.into());
    literal(out, value);
}

/// A string as it is (section 4.1.2).
fn literal(out: &mut BytesMut, value: &[u8]) {
    integer(out, 0, 7, value.len());
    out.extend_from_slice(value);
}

/// An integer that shares its first byte with flags (RFC 7541 section 5.1).
fn integer(out: &mut BytesMut, flags: u8, bits: u32, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        return out.put_u8(flags | value.to_le_bytes()[0]);
    }
    out.put_u8(flags | most.to_le_bytes()[0]);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.put_u8(0x80 | rest.to_le_bytes()[0]);
        rest >>= 7;
    }
    out.put_u8(rest.to_le_bytes()[0]);
}

/// The place of a status in the static table (appendix A).
fn indexed(status: StatusCode) -> Option<u8> {
    Some(match status.as_u16() {
        200 => 25,
        304 => 26,
        404 => 27,
        503 => 28,
        204 => 64,
        206 => 65,
        302 => 66,
        400 => 67,
        403 => 68,
        500 => 71,
        _ => return None,
    })
}

/// The first place of a field's name in the static table (appendix A).
fn known(name: &str) -> Option<u8> {
    Some(match name {
        "age" => 2,
        "content-disposition" => 3,
        "content-length" => 4,
        "date" => 6,
        "etag" => 7,
        "last-modified" => 10,
        "link" => 11,
        "location" => 12,
        "set-cookie" => 14,
        "accept-ranges" => 32,
        "access-control-allow-headers" => 33,
        "access-control-allow-origin" => 35,
        "cache-control" => 36,
        "content-encoding" => 42,
        "content-type" => 44,
        "strict-transport-security" => 56,
        "vary" => 59,
        "x-content-type-options" => 61,
        "access-control-allow-credentials" => 73,
        "access-control-allow-methods" => 76,
        "access-control-expose-headers" => 79,
        "alt-svc" => 83,
        "content-security-policy" => 85,
        "server" => 92,
        "timing-allow-origin" => 93,
        "x-frame-options" => 97,
        _ => return None,
    })
}
