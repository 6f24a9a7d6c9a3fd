//! Field sections of HTTP/2 (RFC 7541) and HTTP/3 (RFC 9204) without dynamic tables: a request's
//! is written, of an answer's the status is read.

use super::Context;

/// Integers with a prefix of `bits`, RFC 7541 section 5.1.
fn number(bits: u32, flags: u8, value: usize, out: &mut Vec<u8>) {
    let limit = (1_usize << bits) - 1;
    if value < limit {
        out.push(flags | u8::try_from(value).expect("below the prefix's limit"));
        return;
    }
    out.push(flags | u8::try_from(limit).expect("at most 8 bits"));
    let mut rest = value - limit;
    while rest >= 0x80 {
        out.push(0x80 | u8::try_from(rest & 0x7f).expect("7 bits"));
        rest >>= 7;
    }
    out.push(u8::try_from(rest).expect("7 bits"));
}

/// The integer at the front and what is behind it.
fn read_number(bits: u32, bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let limit = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & limit;
    if value < limit {
        return Some((value, rest));
    }
    for shift in (0..28).step_by(7) {
        let (byte, after) = rest.split_first()?;
        rest = after;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

fn text(value: &str, out: &mut Vec<u8>) {
    number(7, 0, value.len(), out);
    out.extend_from_slice(value.as_bytes());
}

/// A GET's HPACK block.
pub(super) fn h2_request(authority: &str, path: &str, context: &Context) -> Vec<u8> {
    // Static table: 2 is `:method: GET`, 7 `:scheme: https`, 1 `:authority`, 4 `:path`.
    let mut out = vec![0x82, 0x87, 0x01];
    text(authority, &mut out);
    out.push(0x04);
    text(path, &mut out);
    for (name, value) in &context.fields {
        out.push(0);
        text(&name.to_ascii_lowercase(), &mut out);
        text(value, &mut out);
    }
    out
}

/// The status at the front of an HPACK block.
pub(super) fn h2_status(mut block: &[u8]) -> Option<u16> {
    // Changes of the table's size come first.
    while block.first()? & 0xe0 == 0x20 {
        block = read_number(5, block)?.1;
    }
    let first = *block.first()?;
    if first & 0x80 != 0 {
        let known = [200, 204, 206, 304, 400, 404, 500];
        let (index, _) = read_number(7, block)?;
        return known.get(index.checked_sub(8)?).copied();
    }
    let (index, rest) = read_number(if first & 0x40 == 0 { 4 } else { 6 }, block)?;
    if (8..=14).contains(&index) { digits(rest) } else { None }
}

/// A GET's QPACK block.
pub(super) fn h3_request(authority: &str, path: &str, context: &Context) -> Vec<u8> {
    // Static table: 17 is `:method: GET`, 23 `:scheme: https`, 0 `:authority`, 1 `:path`.
    let mut out = vec![0, 0, 0xc0 | 17, 0xc0 | 23, 0x50];
    text(authority, &mut out);
    out.push(0x51);
    text(path, &mut out);
    for (name, value) in &context.fields {
        let name = name.to_ascii_lowercase();
        number(3, 0x20, name.len(), &mut out);
        out.extend_from_slice(name.as_bytes());
        text(value, &mut out);
    }
    out
}

/// The status at the front of a QPACK block.
pub(super) fn h3_status(block: &[u8]) -> Option<u16> {
    // Required insert count and base: nothing was inserted.
    let (_, block) = read_number(8, block)?;
    let (_, block) = read_number(7, block)?;
    let first = *block.first()?;
    if first & 0xc0 == 0xc0 {
        let (index, _) = read_number(6, block)?;
        return match index {
            24..=28 => Some([103, 200, 304, 404, 503][index - 24]),
            63..=71 => Some([100, 204, 206, 302, 400, 403, 421, 425, 500][index - 63]),
            _ => None,
        };
    }
    if first & 0xd0 == 0x50 {
        let (index, rest) = read_number(4, block)?;
        return if matches!(index, 24..=28 | 63..=71) { digits(rest) } else { None };
    }
    None
}

/// Three digits as a string literal, Huffman-coded (RFC 7541, appendix B) or not.
fn digits(literal: &[u8]) -> Option<u16> {
    let huffman = literal.first()? & 0x80 != 0;
    let (length, rest) = read_number(7, literal)?;
    let bytes = rest.get(..length)?;
    if !huffman {
        return std::str::from_utf8(bytes).ok()?.parse().ok();
    }
    let bits = bytes.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = u32::try_from(length).ok().filter(|length| *length <= 3)? * 8;
    let mut status = 0;
    for _ in 0..3 {
        let top = |count: u32| left.checked_sub(count).map(|at| bits >> at & ((1 << count) - 1));
        // 0 to 2 have five bits, 3 to 9 six, which begin at 0x19.
        let five = top(5)?;
        let (digit, used) = if five <= 2 { (five, 5) } else { (top(6)?.checked_sub(0x16)?, 6) };
        left -= used;
        status = status * 10 + u16::try_from(digit).ok().filter(|digit| *digit <= 9)?;
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_in_the_standard() {
        // RFC 7541, appendix C.1.
        for (bits, value, bytes) in
            [(5, 10, &[10][..]), (5, 1337, &[0x1f, 0x9a, 0x0a]), (8, 42, &[42])]
        {
            let mut out = Vec::new();
            number(bits, 0, value, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(read_number(bits, bytes), Some((value, &[][..])));
        }
        assert_eq!(read_number(5, &[0x1f, 0xff]), None);
    }

    #[test]
    fn a_status_is_read_in_every_form() {
        assert_eq!(h2_status(&[0x88]), Some(200));
        assert_eq!(h2_status(&[0x20, 0x3f, 0x00, 0x8d]), Some(404));
        assert_eq!(h2_status(&[0x08, 3, b'5', b'0', b'3']), Some(503));
        // "302", "307" and "503" of RFC 7541 appendix C.6 and by hand.
        assert_eq!(h2_status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
        assert_eq!(h2_status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), Some(307));
        assert_eq!(h2_status(&[0x0f]), None);
        assert_eq!(h2_status(&[]), None);
        assert_eq!(h3_status(&[0, 0, 0xd9]), Some(200));
        assert_eq!(h3_status(&[0, 0, 0xff, 0x02]), Some(206));
        assert_eq!(h3_status(&[0, 0, 0x5f, 0x0a, 3, b'5', b'0', b'2']), Some(502));
        assert_eq!(h3_status(&[0, 0, 0x51, 1, b'/']), None);
    }
}
