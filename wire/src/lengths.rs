//! Which request of an HTTP/1.1 connection tells its body's length twice, by `Content-Length` and
//! by `Transfer-Encoding`. hyper takes the chunks and drops the other length before a service sees
//! the request (RFC 9112 section 6.3), so what hyper gets is looked through on its way. The same
//! look tells where a request ended with nothing behind it.
//!
//! Invariants: nothing is held back, changed or kept. Where a request ends is read as hyper reads
//! it; what hyper refuses ends the connection, so whatever is made here of what comes behind that
//! reaches nobody.

mod chunks;

use chunks::{Chunks, Step};

/// A request had `Content-Length` beside `Transfer-Encoding`: in its head's extensions, since its
/// fields show the latter alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwoLengths;

const LENGTH: &[u8] = b"content-length";
const CODING: &[u8] = b"transfer-encoding";
/// HTTP/2's beginning where no handshake told of it (RFC 9113 section 3.4). To hyper's HTTP/1.1
/// that version is unknown.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What comes next.
#[derive(Debug, Clone, Copy)]
enum At {
    /// A request.
    Start,
    /// The same, behind empty lines (RFC 9112 section 2.2).
    Blank,
    /// The LF of such a line.
    BlankLf,
    /// The request line, so far as long a beginning of [`PREFACE`].
    Preface(usize),
    /// The rest of a line that does not matter.
    Line,
    /// A field, or the end of the head.
    Field,
    /// A field's name, so far as long a beginning of this one.
    Name(&'static [u8], usize),
    /// The value of `Content-Length`.
    Length,
    /// The LF that ends a head.
    EndLf,
    /// A head ended.
    Ended,
    /// So many bytes of a body.
    Body(u64),
    /// A body in chunks.
    Chunks(Chunks),
    /// Nothing that matters: HTTP/2, or bytes that hyper does not read.
    Over,
}

/// The requests of a connection, as hyper gets them.
#[derive(Debug)]
pub struct Lengths {
    at: At,
    length: Option<u64>,
    is_chunked: bool,
    heads: usize,
}

impl Lengths {
    /// Of a connection's first byte on. Over HTTP/2 (`is_on` unset) nothing is looked at.
    pub fn new(is_on: bool) -> Self {
        let at = if is_on { At::Start } else { At::Over };
        Self { at, length: None, is_chunked: false, heads: 0 }
    }

    /// Requests whose heads came to their ends.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// The last request came to its end, and nothing behind it, not even an empty line.
    pub fn is_between(&self) -> bool {
        matches!(self.at, At::Start)
    }

    /// What comes next. Returns the number of the request that has both lengths, counted from 1,
    /// if its head ends here.
    pub fn take(&mut self, mut came: &[u8]) -> Option<usize> {
        while let Some((&byte, behind)) = came.split_first() {
            came = match &mut self.at {
                At::Line => {
                    let end = memchr::memchr(b'\n', came)?;
                    self.at = At::Field;
                    &came[end + 1..]
                }
                At::Body(left) => {
                    let bytes =
                        usize::try_from(*left).map_or(came.len(), |all| all.min(came.len()));
                    *left -= bytes as u64;
                    if *left == 0 {
                        self.at = At::Start;
                    }
                    &came[bytes..]
                }
                At::Chunks(chunks) => {
                    let (step, behind) = chunks.take(came);
                    match step {
                        Step::More => {}
                        Step::End => self.at = At::Start,
                        Step::Bad => self.at = At::Over,
                    }
                    behind
                }
                At::Over => return None,
                _ => {
                    self.at = self.in_head(byte);
                    if let At::Ended = self.at {
                        self.heads = self.heads.wrapping_add(1);
                        self.at = self.body();
                        if let At::Over = self.at {
                            return Some(self.heads);
                        }
                    }
                    behind
                }
            };
        }
        None
    }

    /// A byte of a head, or before one.
    fn in_head(&mut self, byte: u8) -> At {
        match (self.at, byte) {
            (At::Start | At::Blank, b'\r') => At::BlankLf,
            (At::Start | At::Blank | At::BlankLf, b'\n') => At::Blank,
            (At::Start | At::Blank, _) => {
                (self.length, self.is_chunked) = (None, false);
                preface(0, byte)
            }
            (At::Preface(at), _) => preface(at, byte),
            (At::Field, b'\r') => At::EndLf,
            (At::Field | At::EndLf, b'\n') => At::Ended,
            (At::Field, b'c' | b'C') => At::Name(LENGTH, 1),
            (At::Field, b't' | b'T') => At::Name(CODING, 1),
            (At::Field, _) => At::Line,
            (At::Name(name, at), _) => match name.get(at) {
                Some(wanted) if byte.eq_ignore_ascii_case(wanted) => At::Name(name, at + 1),
                None if byte == b':' => self.named(name),
                _ => rest(byte),
            },
            (At::Length, b'\n') => At::Field,
            (At::Length, b'0'..=b'9') => {
                let digits = self.length.unwrap_or_default().saturating_mul(10);
                self.length = Some(digits.saturating_add(u64::from(byte - b'0')));
                At::Length
            }
            // Spaces; of anything else hyper makes no length.
            (At::Length, _) => At::Length,
            // An LF that is missing.
            _ => At::Over,
        }
    }

    fn named(&mut self, name: &[u8]) -> At {
        if name == LENGTH {
            // Of several, hyper takes such as are equal.
            self.length = Some(0);
            At::Length
        } else {
            self.is_chunked = true;
            At::Line
        }
    }

    /// What follows a head. Behind one with both lengths hyper reads no other request.
    fn body(&self) -> At {
        match (self.is_chunked, self.length) {
            (true, Some(_)) => At::Over,
            (true, None) => At::Chunks(Chunks::default()),
            (false, None | Some(0)) => At::Start,
            (false, Some(bytes)) => At::Body(bytes),
        }
    }
}

fn preface(at: usize, byte: u8) -> At {
    match PREFACE.get(at) == Some(&byte) {
        true if at + 1 == PREFACE.len() => At::Over,
        true => At::Preface(at + 1),
        false => rest(byte),
    }
}

/// What follows a byte of a line that does not matter.
fn rest(byte: u8) -> At {
    if byte == b'\n' { At::Field } else { At::Line }
}

#[cfg(test)]
mod tests;
