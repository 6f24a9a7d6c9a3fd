//! Where a body in chunks ends (RFC 9112 section 7.1), as hyper reads it.

/// What comes next.
#[derive(Debug, Clone, Copy)]
pub enum Chunks {
    /// A chunk's size, of which these digits came.
    Size(Option<u64>),
    /// What may stand between the size and the end of its line.
    Extension(u64),
    /// The LF behind the size.
    SizeLf(u64),
    /// So many bytes of a chunk.
    Data(u64),
    /// The CR behind them.
    DataCr,
    /// Its LF.
    DataLf,
    /// A line of trailers, or the empty one that ends the body.
    Trailers,
    /// The rest of such a line.
    Trailer,
    /// Its LF.
    TrailerLf,
    /// The last LF.
    EndLf,
}

impl Default for Chunks {
    fn default() -> Self {
        Self::Size(None)
    }
}

/// How far the body came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It goes on.
    More,
    /// It ended.
    End,
    /// hyper refuses it.
    Bad,
}

impl Chunks {
    /// What comes next, and is not empty: how far the body came by some of it, and what is behind that.
    pub fn take<'a>(&mut self, came: &'a [u8]) -> (Step, &'a [u8]) {
        let (byte, behind) = match came.split_first() {
            Some((byte, behind)) => (*byte, behind),
            None => return (Step::More, came),
        };
        let (next, behind) = match (*self, byte) {
            (Self::Size(digits), _) => match (sum(digits, byte), digits, byte) {
                (Some(bytes), _, _) => (Self::Size(Some(bytes)), behind),
                (None, Some(bytes), b'\r') => (Self::SizeLf(bytes), behind),
                (None, Some(bytes), b' ' | b'\t' | b';') => (Self::Extension(bytes), behind),
                _ => return (Step::Bad, behind),
            },
            (Self::Extension(bytes), _) => match memchr::memchr2(b'\r', b'\n', came) {
                Some(end) if came[end] == b'\r' => (Self::SizeLf(bytes), &came[end + 1..]),
                Some(_) => return (Step::Bad, behind),
                None => return (Step::More, &[]),
            },
            (Self::SizeLf(0), b'\n') => (Self::Trailers, behind),
            (Self::SizeLf(bytes), b'\n') => (Self::Data(bytes), behind),
            (Self::Data(left), _) => {
                let bytes = usize::try_from(left).map_or(came.len(), |all| all.min(came.len()));
                let left = left - bytes as u64;
                (if left == 0 { Self::DataCr } else { Self::Data(left) }, &came[bytes..])
            }
            (Self::DataCr, b'\r') => (Self::DataLf, behind),
            (Self::DataLf, b'\n') => (Self::Size(None), behind),
            (Self::Trailers, b'\r') => (Self::EndLf, behind),
            // hyper looks for the CR alone.
            (Self::Trailers | Self::Trailer, _) => match memchr::memchr(b'\r', came) {
                Some(end) => (Self::TrailerLf, &came[end + 1..]),
                None => (Self::Trailer, &[][..]),
            },
            (Self::TrailerLf, b'\n') => (Self::Trailers, behind),
            (Self::EndLf, b'\n') => return (Step::End, behind),
            _ => return (Step::Bad, behind),
        };
        *self = next;
        (Step::More, behind)
    }
}

/// A size with one more digit.
fn sum(digits: Option<u64>, byte: u8) -> Option<u64> {
    let digit = char::from(byte).to_digit(16)?;
    digits.unwrap_or_default().checked_mul(16)?.checked_add(digit.into())
}
