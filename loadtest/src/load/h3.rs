//! HTTP/3 answers, without a general HTTP/3 library: bodies are looked at in the packets they
//! came in, of heads only the status (RFC 9114). No GREASE is sent.

use super::Context;
use super::fields;
use super::tally::{Exchange, Tally};
use super::wire::broken;
use crate::Error;

/// A frame other than DATA that is longer is refused.
const FRAME_BYTES_MAX: u64 = 64 << 10;
const DATA: u64 = 0;
const HEADERS: u64 = 1;
/// What begins a control stream: its type, then SETTINGS without any: no dynamic table.
pub(super) const CONTROL: [u8; 3] = [0, 4, 0];
/// `H3_NO_ERROR`, RFC 9114 section 8.1.
pub(super) const NO_ERROR: quinn::VarInt = quinn::VarInt::from_u32(0x100);

/// A request's HEADERS frame.
pub(super) fn request(context: &Context, exchange: &Exchange) -> Vec<u8> {
    let block = fields::h3_request(&context.authority, &context.path(exchange), context);
    let mut out = Vec::with_capacity(block.len() + 4);
    out.push(1);
    // A varint of two bytes, RFC 9000 section 16: 14 bits.
    let length = u16::try_from(block.len()).unwrap_or(u16::MAX).min((1 << 14) - 1);
    out.extend_from_slice(&(length | 1 << 14).to_be_bytes());
    out.extend_from_slice(&block);
    out
}

/// Where in an answer the stream is.
pub(super) struct Answer {
    exchange: Exchange,
    /// A frame's type and length, until both are there.
    header: Vec<u8>,
    /// The frame under way.
    frame: Option<(u64, u64)>,
    block: Vec<u8>,
}

impl Answer {
    pub(super) fn new(exchange: Exchange) -> Self {
        Self { exchange, header: Vec::new(), frame: None, block: Vec::new() }
    }

    /// Bytes of the stream, in order.
    pub(super) fn read(&mut self, mut bytes: &[u8], tally: &Tally) -> Result<(), Error> {
        while !bytes.is_empty() {
            let Some((kind, left)) = &mut self.frame else {
                self.header.push(bytes[0]);
                bytes = &bytes[1..];
                self.begin()?;
                continue;
            };
            let part = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= part as u64;
            match *kind {
                DATA => self.exchange.body(tally, &bytes[..part]),
                HEADERS => self.block.extend_from_slice(&bytes[..part]),
                _ => {}
            }
            bytes = &bytes[part..];
            if *left == 0 {
                self.frame = None;
                self.heads();
            }
        }
        Ok(())
    }

    /// Starts a frame once its type and length are there.
    fn begin(&mut self) -> Result<(), Error> {
        let Some((kind, rest)) = varint(&self.header) else { return Ok(()) };
        let Some((length, _)) = varint(rest) else { return Ok(()) };
        if kind != DATA && length > FRAME_BYTES_MAX {
            return Err(broken("a frame of more than 64 KiB"));
        }
        self.header.clear();
        self.frame = (length > 0).then_some((kind, length));
        Ok(())
    }

    /// A head is whole.
    fn heads(&mut self) {
        if !self.block.is_empty() {
            // Trailers have no status.
            if let Some(status) = fields::h3_status(&std::mem::take(&mut self.block)) {
                self.exchange.status(status);
            }
        }
    }

    /// The stream has ended.
    pub(super) fn end(self, tally: &Tally) -> Result<(), Error> {
        if self.frame.is_some() || !self.header.is_empty() {
            return Err(broken("a stream that ends within a frame"));
        }
        self.exchange.end(tally);
        Ok(())
    }
}

/// RFC 9000, section 16.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let (number, rest) = bytes.split_at_checked(length)?;
    let start = u64::from(first & 0x3f);
    Some((number[1..].iter().fold(start, |value, byte| value << 8 | u64::from(*byte)), rest))
}

#[cfg(test)]
mod tests {
    use super::super::plan::Target;
    use super::*;
    use std::rc::Rc;
    use std::time::Instant;

    #[test]
    fn an_answer_is_read_whatever_the_pieces_it_comes_in() {
        // An unknown frame, HEADERS, DATA of 2 and, with a two-byte length, of 3.
        let stream = b"\x21\x02xx\x01\x03\0\0\xd9\x00\x02he\x00\x00\x00\x40\x03llo";
        for piece in 1..stream.len() {
            let tally = Tally::new(Rc::from(vec![Target::from_line("/a 5").unwrap()]), 1);
            let mut answer = Answer::new(Exchange::new(0, 0, Instant::now(), true));
            for part in stream.chunks(piece) {
                answer.read(part, &tally).unwrap();
            }
            answer.end(&tally).unwrap();
            assert_eq!((tally.answers.get(), tally.checked.get(), tally.wrong.get()), (1, 1, 0));
        }
        let tally = Tally::new(Rc::from(vec![Target::new("/a")]), 1);
        let mut cut = Answer::new(Exchange::new(0, 0, Instant::now(), true));
        cut.read(&stream[..stream.len() - 1], &tally).unwrap();
        assert!(cut.end(&tally).is_err());
        let mut long = Answer::new(Exchange::new(0, 0, Instant::now(), true));
        assert!(long.read(&[1, 0x80, 0xff, 0xff, 0xff], &tally).is_err());
    }
}
