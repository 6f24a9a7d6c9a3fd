//! The head of an answer as a HEADERS frame (RFC 9114 section 7.2.2), made in one go and for the
//! same write as the body's first bytes. QPACK (RFC 9204) with its static table alone, as h3 has
//! it, and without Huffman's code: that saves some fifty bytes of an answer, and cost more CPU
//! than the rest of its head.
//!
//! Invariant: what h3 would send, in another spelling.

use http::{HeaderMap, StatusCode};

/// More than a field's name and value need on top: an index, and two lengths.
const FIELD_BYTES: usize = 32;
/// HEADERS, and a length of four bytes (RFC 9000 section 16).
const FRAME_HEAD: [u8; 5] = [1, 0x80, 0, 0, 0];
/// `:status` in the static table, whatever its value.
const STATUS: u8 = 24;

/// The frame, with room for the head of another one. A peer that takes no head of this size
/// refuses it (RFC 9114 section 4.2.2); ours are as large as origins make them, whatever the
/// peer's SETTINGS_MAX_FIELD_SECTION_SIZE says.
pub fn frame(status: StatusCode, fields: &HeaderMap) -> Vec<u8> {
    let size = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + FIELD_BYTES
    };
    let section = ":status200".len() + FIELD_BYTES + fields.iter().map(size).sum::<usize>();
    let mut out = Vec::with_capacity(section + 2 * FRAME_HEAD.len());
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
fn named(out: &mut Vec<u8>, index: u8, value: &[u8]) {
    integer(out, 0x50, 4, index.into());
    literal(out, value);
}

/// A string as it is (section 4.1.2).
fn literal(out: &mut Vec<u8>, value: &[u8]) {
    integer(out, 0, 7, value.len());
    out.extend_from_slice(value);
}

/// An integer that shares its first byte with flags (RFC 7541 section 5.1).
fn integer(out: &mut Vec<u8>, flags: u8, bits: u32, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        return out.push(flags | value.to_le_bytes()[0]);
    }
    out.push(flags | most.to_le_bytes()[0]);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(0x80 | rest.to_le_bytes()[0]);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
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

/// The first place of a field's name in the static table (appendix A). Told apart by length first:
/// one text compared with all of them would cost as much as the rest of a head.
fn known(name: &str) -> Option<u8> {
    let place = match name.len() {
        3 if name == "age" => 2,
        4 => match name {
            "date" => 6,
            "etag" => 7,
            "link" => 11,
            "vary" => 59,
            _ => return None,
        },
        6 if name == "server" => 92,
        7 if name == "alt-svc" => 83,
        8 if name == "location" => 12,
        10 if name == "set-cookie" => 14,
        12 if name == "content-type" => 44,
        13 => match name {
            "last-modified" => 10,
            "accept-ranges" => 32,
            "cache-control" => 36,
            _ => return None,
        },
        14 if name == "content-length" => 4,
        15 if name == "x-frame-options" => 97,
        16 if name == "content-encoding" => 42,
        19 => match name {
            "content-disposition" => 3,
            "timing-allow-origin" => 93,
            _ => return None,
        },
        22 if name == "x-content-type-options" => 61,
        23 if name == "content-security-policy" => 85,
        25 if name == "strict-transport-security" => 56,
        _ => return of_access_control(name),
    };
    Some(place)
}

/// The same of the fields of CORS.
fn of_access_control(name: &str) -> Option<u8> {
    Some(match name.strip_prefix("access-control-")? {
        "allow-headers" => 33,
        "allow-origin" => 35,
        "allow-credentials" => 73,
        "allow-methods" => 76,
        "expose-headers" => 79,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fields::STATIC;
    use super::*;

    /// All names that are known stand first where the static table has them.
    #[test]
    fn names_stand_where_the_table_has_them() {
        let mut count = 0;
        for (place, (name, _)) in STATIC.iter().enumerate() {
            let first = STATIC.iter().position(|it| it.0 == *name);
            if let Some(known) = known(name) {
                assert_eq!(Some(usize::from(known)), first, "{name}");
                count += usize::from(first == Some(place));
            }
        }
        assert_eq!(count, 26);
        for name in ["", "x", "Date", "content-typf", "access-control-", "access-control-max-age"] {
            assert_eq!(known(name), None, "{name}");
        }
    }
}
