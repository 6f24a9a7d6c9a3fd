//! Frames as they pass on their way to h3, which collects any frame but DATA until it is whole,
//! however long it is, even one that it does not know and passes over.
//!
//! Invariant: no frame but DATA passes that says it is longer than [`FRAME_BYTES_MAX`], and none that
//! does not belong where it comes.

use super::control::{DATA, is_no_requests};
use super::outlets::HEAD_STREAM_BYTES_MAX;
use super::plain::HEADERS;

/// Of a frame (RFC 9114 section 7.1) of a request.
pub const FRAME_BYTES_MAX: u64 = HEAD_STREAM_BYTES_MAX as u64;
/// The head and the trailers (section 4.1).
const SECTIONS_MAX: u8 = 2;

/// Why frames do not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It would be collected.
    #[error("a frame is longer than {FRAME_BYTES_MAX} bytes")]
    Long,
    /// Section 4.1, which ends the connection.
    #[error("a frame that no request has, or not there")]
    Unexpected,
    /// Section 7.1.
    #[error("a request ends within DATA")]
    Cut,
}

/// What has passed of a request.
#[derive(Debug, Default)]
pub struct Frames {
    /// HEADERS so far.
    sections: u8,
    /// Bytes of body so far.
    body: u64,
    next: Next,
    /// A number that is not whole (RFC 9000 section 16).
    number: [u8; 8],
    have: usize,
}

/// What the next byte belongs to.
#[derive(Debug, Default)]
enum Next {
    /// A frame's type.
    #[default]
    Kind,
    /// The length of a frame of this type.
    Length(u64),
    /// A frame of this type, of which this is left.
    Payload(u64, u64),
}

impl Frames {
    /// Bytes of body that have passed.
    pub fn body(&self) -> u64 {
        self.body
    }

    /// Whether a frame is not whole.
    pub fn is_cut(&self) -> bool {
        self.have > 0 || matches!(self.next, Next::Length(_) | Next::Payload(..))
    }

    /// Whether DATA is not whole, whose length has passed.
    pub fn is_body_cut(&self) -> bool {
        matches!(self.next, Next::Payload(DATA, _))
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// [`Fault`]: they may not pass.
    pub fn takes(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while let [first, rest @ ..] = bytes {
            self.next = match self.next {
                Next::Payload(kind, left) => {
                    let skipped =
                        usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    bytes = &bytes[skipped..];
                    if kind == DATA {
                        self.body += skipped as u64;
                    }
                    after(kind, left - skipped as u64)
                }
                _ => {
                    bytes = rest;
                    let Some(number) = self.number(*first) else { continue };
                    match self.next {
                        Next::Kind => self.begun(number)?,
                        Next::Length(kind) if kind != DATA && number > FRAME_BYTES_MAX => {
                            return Err(Fault::Long);
                        }
                        Next::Length(kind) => after(kind, number),
                        _ => Next::Kind,
                    }
                }
            };
        }
        Ok(())
    }

    /// A frame of this type comes.
    fn begun(&mut self, kind: u64) -> Result<Next, Fault> {
        // DATA comes behind the head, and neither comes behind trailers.
        let place = match kind {
            DATA => 1..SECTIONS_MAX,
            HEADERS => 0..SECTIONS_MAX,
            kind if is_no_requests(kind) => return Err(Fault::Unexpected),
            _ => return Ok(Next::Length(kind)),
        };
        if !place.contains(&self.sections) {
            return Err(Fault::Unexpected);
        }
        self.sections += u8::from(kind == HEADERS);
        Ok(Next::Length(kind))
    }

    /// The number that ends with this byte.
    fn number(&mut self, byte: u8) -> Option<u64> {
        self.number[self.have] = byte;
        self.have += 1;
        let length = 1 << (self.number[0] >> 6);
        if self.have < length {
            return None;
        }
        self.have = 0;
        let rest = self.number[1..length].iter();
        Some(
            rest.fold(u64::from(self.number[0] & 0x3f), |value, &byte| {
                value << 8 | u64::from(byte)
            }),
        )
    }
}

fn after(kind: u64, left: u64) -> Next {
    if left == 0 { Next::Kind } else { Next::Payload(kind, left) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// In four or eight bytes, as it may be spelled.
    fn number(into: &mut Vec<u8>, value: u64) {
        match u32::try_from(value) {
            Ok(value) if value < 1 << 30 => into.extend((value | 0x8000_0000).to_be_bytes()),
            _ => into.extend((value | 0xc000_0000_0000_0000).to_be_bytes()),
        }
    }

    #[test]
    fn behind_trailers_only_what_nobody_knows_passes() {
        let request = [1, 1, 9, 0, 2, 7, 7, 0x21, 1, 9, 0, 1, 7, 1, 1, 9, 0x21, 1, 9];
        for more in [&[0, 1, 7][..], &[0, 0], &[1, 0]] {
            let mut frames = Frames::default();
            assert_eq!(frames.takes(&request), Ok(()));
            assert_eq!((frames.body(), frames.is_cut()), (3, false));
            assert_eq!(frames.takes(more), Err(Fault::Unexpected));
        }
    }

    #[test]
    fn what_is_cut() {
        let request = [1, 1, 9, 0, 0x40, 2, 7, 7];
        let cut = |cut| {
            let mut frames = Frames::default();
            frames.takes(&request[..cut]).unwrap();
            (frames.is_cut(), frames.is_body_cut())
        };
        let whole = [0, 3, 8];
        for at in 0..=request.len() {
            assert_eq!(cut(at), (!whole.contains(&at), at == 6 || at == 7), "{at}");
        }
    }

    /// Mostly those that requests have.
    fn kinds() -> impl Strategy<Value = u64> {
        prop_oneof![20 => 0_u64..2, 10 => 0x21_u64..0x23, 1 => 2_u64..10]
    }

    proptest! {
        /// However a stream is cut, what passes ends before the first frame that is too long.
        #[test]
        fn frames_end_where_they_say(
            frames in proptest::collection::vec((kinds(), prop_oneof![
                0_u64..100, FRAME_BYTES_MAX - 1..FRAME_BYTES_MAX + 2
            ]), 1..6),
            cuts in proptest::collection::vec(1_usize..5_000, 1..40),
        ) {
            let (mut stream, mut passes, mut sections) = (Vec::new(), None, 0);
            for (kind, length) in frames {
                let is_wrong = match kind {
                    DATA => sections == 0 || sections == SECTIONS_MAX,
                    HEADERS => sections == SECTIONS_MAX,
                    kind => is_no_requests(kind),
                };
                if is_wrong {
                    passes = passes.or(Some(stream.len() + 3));
                }
                sections += u8::from(kind == HEADERS);
                number(&mut stream, kind);
                number(&mut stream, length);
                if kind != DATA && length > FRAME_BYTES_MAX {
                    passes = passes.or(Some(stream.len() - 1));
                }
                stream.resize(stream.len() + usize::try_from(length).unwrap(), 0xff);
            }
            let mut watched = Frames::default();
            let (mut at, mut cuts) = (0, cuts.into_iter().cycle());
            while at < stream.len() {
                let to = (at + cuts.next().unwrap()).min(stream.len());
                let taken = watched.takes(&stream[at..to]).is_ok();
                prop_assert_eq!(taken, passes.is_none_or(|passes| to <= passes), "{}..{}", at, to);
                if !taken {
                    return Ok(());
                }
                at = to;
            }
        }
    }
}
