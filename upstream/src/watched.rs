//! A connection that notes whether the head of an answer has come whole: hyper has one error for
//! a head that is too long, and for one that announces a longer body than it counts.

use crate::connect::{FIELDS_MAX, HEAD_BYTES_MAX};
use hyper_util::client::legacy::connect::{Connected, Connection};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Where in the first line of HTTP/1.1 the status begins.
const STATUS_AT: usize = "HTTP/1.1 ".len();

/// Whether the last answer's head was as long as may be, and ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeadSeen(Arc<AtomicBool>);

impl HeadSeen {
    pub(crate) fn is_whole(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// What came since something was last written, up to a head's end.
#[derive(Default)]
struct Scan {
    bytes: usize,
    lines: usize,
    /// Bytes of the current line, without its end.
    line: usize,
    is_interim: bool,
    is_over: bool,
}

impl Scan {
    /// More came: whether a head ends in it that is not too long.
    fn ends(&mut self, piece: &[u8]) -> bool {
        for &byte in piece {
            if self.is_over || self.bytes >= HEAD_BYTES_MAX {
                break;
            }
            self.bytes += 1;
            match byte {
                b'\r' => {}
                b'\n' if self.line > 0 => (self.lines, self.line) = (self.lines + 1, 0),
                // An answer of 1xx is followed by another one.
                b'\n' if self.is_interim => *self = Self::default(),
                b'\n' if self.lines > 0 => {
                    self.is_over = true;
                    return self.lines - 1 <= FIELDS_MAX;
                }
                b'\n' => {}
                _ => {
                    if (self.lines, self.line) == (0, STATUS_AT) {
                        self.is_interim = byte == b'1';
                    }
                    self.line += 1;
                }
            }
        }
        false
    }
}

/// The connection.
pub(crate) struct Watched<S> {
    stream: S,
    scan: Scan,
    seen: HeadSeen,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, scan: Scan::default(), seen: HeadSeen::default() }
    }

    fn begin(&mut self) {
        if self.scan.bytes > 0 {
            self.scan = Scan::default();
            self.seen.0.store(false, Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.scan.ends(buf.filled().get(before..).unwrap_or_default()) {
            self.seen.0.store(true, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.begin();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.begin();
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: Connection> Connection for Watched<S> {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.seen.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_end_where_they_do() {
        let fields = |count: usize| "a: b\r\n".repeat(count);
        let long = format!("a: {}\r\n", "b".repeat(HEAD_BYTES_MAX));
        let table = [
            ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), true),
            ("HTTP/1.1 200 OK\na: b\n\nbody".into(), true),
            ("\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".into(), true),
            ("HTTP/1.1 200 OK\r\na: b\r\n".into(), false),
            ("HTTP/1.1 103 Early\r\na: b\r\n\r\n".into(), false),
            ("HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".into(), true),
            (format!("HTTP/1.1 200 OK\r\n{}\r\n", fields(FIELDS_MAX)), true),
            (format!("HTTP/1.1 200 OK\r\n{}\r\n", fields(FIELDS_MAX + 1)), false),
            (format!("HTTP/1.1 200 OK\r\n{long}\r\n"), false),
        ];
        for (text, ends) in table {
            for size in [1, 7, text.len()] {
                let mut scan = Scan::default();
                let seen = text.as_bytes().chunks(size).any(|piece| scan.ends(piece));
                assert_eq!(seen, ends, "{:.60} by {size}", text);
            }
        }
    }
}
