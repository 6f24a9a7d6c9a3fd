//! The start of a request's stream, up to its head's last byte: held back from h3 until it is whole
//! and was looked at, since h3 takes the last of several `:authority` for the request's, and
//! pseudo-header fields wherever they come.
//!
//! Invariant: of what h3 can read, nothing passes that RFC 9114 section 4.3 calls malformed for the
//! order, number or kind of its pseudo-header fields. The rest is left to h3's own judgement.

use super::fields::Section;
use super::plain::{HEADERS, varint};
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;

/// A pseudo-header field comes twice, too late, or is none of requests; or a name can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pseudo-header fields are those of requests, once each and before all others")]
pub struct Malformed;

/// Those of a request (RFC 9114 section 4.3.1, RFC 9220 section 3).
const OF_REQUESTS: [&[u8]; 5] = [b":method", b":scheme", b":authority", b":path", b":protocol"];

/// What has come of a stream whose head has not.
#[derive(Default)]
pub struct Heading {
    held: BytesMut,
    /// Where the first frame begins that is not behind it.
    at: usize,
}

impl Heading {
    /// What h3 may have now that this has come; none: not enough.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn took(&mut self, piece: Bytes) -> Result<Option<Bytes>, Malformed> {
        if self.held.is_empty() {
            // A head nearly always comes in one piece.
            if self.is_whole(&piece)? {
                return Ok(Some(piece));
            }
            self.held.extend_from_slice(&piece);
            return Ok(None);
        }
        self.held.extend_from_slice(&piece);
        let held = std::mem::take(&mut self.held);
        if self.is_whole(&held)? {
            return Ok(Some(held.freeze()));
        }
        self.held = held;
        Ok(None)
    }

    /// What came, when no more does.
    pub fn rest(&mut self) -> Option<Bytes> {
        let held = std::mem::take(&mut self.held);
        (!held.is_empty()).then(|| held.freeze())
    }

    /// Whether the head is there. Frames that nobody knows may come before it (section 9); before
    /// others h3 has something to say.
    fn is_whole(&mut self, bytes: &[u8]) -> Result<bool, Malformed> {
        while let Some(frame) = bytes.get(self.at..) {
            let Some((kind, rest)) = varint(frame) else { return Ok(false) };
            let Some((length, payload)) = varint(rest) else { return Ok(false) };
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if kind == HEADERS {
                return match payload.get(..length) {
                    Some(section) => check(section).map(|()| true),
                    None => Ok(false),
                };
            }
            if is_known(kind) {
                return Ok(true);
            }
            let head = frame.len() - payload.len();
            self.at = self.at.saturating_add(head).saturating_add(length);
        }
        Ok(false)
    }
}

/// Frames that h3 does not pass over: DATA, CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID
/// (section 11.2.1), those of HTTP/2 that must not come, and WebTransport's, which has no length.
fn is_known(kind: u64) -> bool {
    matches!(kind, 0..=9 | 0xd | 0x41)
}

/// Looks at a field section's names, as far as they can be read at all.
fn check(section: &[u8]) -> Result<(), Malformed> {
    let Some(mut section) = Section::any(section) else { return Ok(()) };
    let (mut seen, mut is_over) = ([false; OF_REQUESTS.len()], false);
    while let Some(name) = name(&mut section) {
        if !name.starts_with(b":") {
            is_over = true;
            continue;
        }
        let place = OF_REQUESTS.iter().position(|known| **known == *name).ok_or(Malformed)?;
        if is_over || std::mem::replace(&mut seen[place], true) {
            return Err(Malformed);
        }
    }
    Ok(())
}

fn name<'a>(section: &mut Section<'a>) -> Option<Cow<'a, [u8]>> {
    if section.is_empty() { None } else { section.name() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GET, https, a host, `/`.
    const GOOD: [u8; 8] = [0, 0, 0xd1, 0xd7, 0x50, 1, b'a', 0xc1];

    fn framed(section: &[u8]) -> Vec<u8> {
        let mut frame = vec![1, 0x40 | (section.len() >> 8) as u8, section.len() as u8];
        frame.extend_from_slice(section);
        frame
    }

    /// What h3 gets of a stream that comes in pieces of this size.
    fn given(stream: &[u8], size: usize) -> Result<Vec<u8>, Malformed> {
        let (mut heading, mut given) = (Heading::default(), Vec::new());
        for piece in stream.chunks(size) {
            given.extend(heading.took(Bytes::copy_from_slice(piece))?.unwrap_or_default());
        }
        given.extend(heading.rest().unwrap_or_default());
        Ok(given)
    }

    #[test]
    fn whatever_is_well_formed_or_unreadable_passes_unchanged() {
        let field: &[u8] = &[0x22, b'n', b's', 0];
        let streams = [
            framed(&GOOD),
            framed(&[&GOOD, field].concat()),
            [&[0x21, 3, 1, 1, 1], &framed(&GOOD)[..], &[0, 2, 1, 1]].concat(),
            framed(&GOOD[..3]),
            framed(&[]),
            framed(&[0, 0, 0x80]),
            framed(&[0, 0, 0x50, 0x7f, 0xff, 0xff, 0xff, 0xff]),
            vec![0, 2, 1, 1],
            vec![4, 0],
            vec![0x21, 0x80, 0xff, 0xff, 0xff, 1],
            vec![1],
            Vec::new(),
        ];
        for stream in streams {
            for size in 1..20 {
                assert_eq!(given(&stream, size), Ok(stream.clone()), "{size}");
            }
        }
    }

    #[test]
    fn what_means_two_things_does_not_pass() {
        let regular: &[u8] = &[0x22, b'n', b's', 0];
        let sections: [(&str, &[&[u8]]); 14] = [
            ("two methods", &[&GOOD, &[0xd4]]),
            ("two schemes", &[&GOOD, &[0xd7]]),
            ("two hosts", &[&GOOD, &[0x50, 1, b'b']]),
            ("two paths", &[&GOOD, &[0x51, 2, b'/', b'b']]),
            ("a late one", &[&GOOD[..7], regular, &[0xc1]]),
            ("a status", &[&GOOD, &[0xd9]]),
            ("a name as it is", &[&GOOD, &[0x25, b':', b'p', b'a', b't', b'h', 1, b'/']]),
            (
                "a value in Huffman's code that is not printable",
                &[&GOOD[..7], &[0x21, b'x', 0x84, 0xff, 0xff, 0xff, 0xff, 0xc1]],
            ),
            (
                "a padded integer",
                &[
                    &GOOD[..7],
                    &[0x21, b'x', 0x7f, 0x81, 0x80, 0x80, 0x80, 0],
                    &[b'y'; 128],
                    &[0xc1],
                ],
            ),
            ("one that is unknown", &[&GOOD, &[0x22, b':', b'a', 1, b'b']]),
            ("a name in Huffman's code, padded too far", &[&GOOD, &[0x2a, 0xf3, 0xff, 0]]),
            ("one before another host", &[&GOOD, &[0x2a, 0xf3, 0xff, 0, 0x50, 1, b'b']]),
            ("a name of nothing printable", &[&GOOD, &[0x2c, 0xff, 0xff, 0xff, 0xff, 0]]),
            ("another prefix, as h3 reads it", &[&[9, 0x85], &GOOD[2..], &[0xd4]]),
        ];
        for (what, section) in sections {
            let stream = framed(&section.concat());
            for size in [1, 2, 7, stream.len()] {
                assert_eq!(given(&stream, size), Err(Malformed), "{what}");
            }
        }
    }

    #[test]
    fn frames_that_h3_passes_over_hide_no_head() {
        let bad = framed(&[&GOOD[..], &[0xd4]].concat());
        for kind in (0xa..=0xc).chain(0xe..0x40) {
            let stream = [&[kind, 0, kind, 2, 1, 1][..], &bad].concat();
            for size in [1, 3, stream.len()] {
                assert_eq!(given(&stream, size), Err(Malformed), "{kind:#x}");
            }
        }
    }
}
