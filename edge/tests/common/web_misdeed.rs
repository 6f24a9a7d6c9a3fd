//! How the scripted web origin misbehaves, or is at odds with what caches expect of one.

use std::time::Duration;

/// What the origin does in place of answering well, or as well as it might. Offsets count in the body that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdeed {
    /// Promises so many bytes more than it sends, and closes.
    Short(u64),
    /// Sends so many bytes more than it promised.
    Long(u64),
    /// Sends what is no HTTP.
    Garbage,
    /// Closes without a word.
    Mute,
    /// Resets the connection after so many bytes.
    Reset(u64),
    /// Closes it after so many.
    Cut(u64),
    /// Sends nothing after so many.
    Stall(u64),
    /// Sends a byte, and another one after so long each time.
    Drip(Duration),
    /// Is on its next version after so many bytes, and closes.
    Change(u64),
    /// 206 with bytes from so many further on than was asked for.
    WrongRange(u64),
    /// 206 with a length of the whole that is one too large.
    WrongTotal,
    /// 206 without the length of the whole (RFC 9110 section 14.4).
    NoTotal,
    /// 206 with this length of the whole.
    Vast(u64),
    /// 206 with so many bytes at most, however many were asked for (RFC 9110 section 15.3.7).
    Cap(u64),
    /// 206 with so many bytes from the first that is asked for on, or up to the end, whatever end is
    /// asked for.
    Endless(u64),
    /// The same from the number on that all digits of the range make; 416 past the end.
    Digits(u64),
    /// 206 with all bytes up to the end that is asked for, wherever the range begins.
    Beginless,
    /// 416 where the last byte that is asked for is past the end.
    Strict,
    /// 416 to every range, but to those without an end where it takes these.
    NoRange { but_open: bool },
    /// 206 to who wants the whole.
    Unasked,
    /// The same bytes under so many `ETag`s, one request after the other.
    Retag(u64),
    /// Answers as if no condition had been given.
    Unconditional,
    /// 302 to itself.
    Redirect,
    /// This many fields of 1,000 bytes.
    HeaderBomb(usize),
    /// Both `Content-Length` and `Transfer-Encoding`.
    TwoLengths,
    /// A chunk of a size that is no number, after so many bytes.
    BadChunk(u64),
    /// This status and no body.
    Status(u16),
    /// This status, no body, to a request with the field `x-refused`.
    Refuses(u16),
    /// This status to a HEAD.
    NoHead(u16),
}
