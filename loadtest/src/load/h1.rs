//! HTTP/1.1 answers, read as they come: as much of RFC 9112 as a cache's answer to a GET needs.
//! `Content-Length` is required; a body in chunks is refused.

use super::Context;
use super::slow::Trickle;
use super::tally::{Exchange, Tally};
use super::wire::{Wire, broken};
use crate::Error;

/// A head longer than this is refused.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// Read at a time to find the head of an answer whose body is not looked at.
const HEAD_BYTES_READ: usize = 2 << 10;

/// One connection after the other until the load is over.
pub(super) async fn run(context: &Context, slow: Option<Trickle>) -> Result<(), Error> {
    let mut wire = Wire::connect(&context.peer, &context.scratch, slow.is_some()).await?;
    let mut answer = Answer::default();
    loop {
        let exchange = match &slow {
            Some(_) => Some(context.queue.untimed()),
            None => context.queue.next().await,
        };
        let Some(exchange) = exchange else { return Ok(()) };
        wire.send(&request(context, &exchange)).await?;
        answer.begin(exchange);
        // Of a body that nobody looks at, all but what comes with the head is left to the kernel.
        let looks = slow.is_some() || answer.is_looked_at(&context.tally);
        while !answer.is_idle() {
            let limit = match &slow {
                Some(slow) => slow.bytes(),
                None if looks => usize::MAX / 2,
                None => HEAD_BYTES_READ,
            };
            let skipped = match answer.left.filter(|_| !looks) {
                Some(left) => wire.skip(usize::try_from(left).unwrap_or(usize::MAX)).await?,
                None => None,
            };
            let more = match skipped {
                Some(bytes) => {
                    answer.skip(bytes as u64, &context.tally);
                    bytes > 0
                }
                None => {
                    wire.receive(limit, &mut |bytes| answer.take(bytes, &context.tally)).await?
                }
            };
            if !more && !answer.is_idle() {
                return Err(broken("closed before the body's end"));
            }
            if let Some(slow) = &slow {
                slow.wait().await;
            }
        }
        if answer.closes {
            return Ok(());
        }
    }
}

fn request(context: &Context, exchange: &Exchange) -> Vec<u8> {
    let mut text = Vec::with_capacity(256);
    text.extend_from_slice(b"GET ");
    text.extend_from_slice(context.path(exchange).as_bytes());
    text.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    text.extend_from_slice(context.authority.as_bytes());
    text.extend_from_slice(b"\r\n");
    for (name, value) in &context.fields {
        for part in [name, ": ", value, "\r\n"] {
            text.extend_from_slice(part.as_bytes());
        }
    }
    text.extend_from_slice(b"\r\n");
    text
}

/// Where in an answer the stream is.
#[derive(Default)]
struct Answer {
    exchange: Option<Exchange>,
    /// The head, until it is whole.
    head: Vec<u8>,
    /// Of the body; `None` in the head.
    left: Option<u64>,
    closes: bool,
}

impl Answer {
    fn begin(&mut self, exchange: Exchange) {
        self.exchange = Some(exchange);
    }

    fn is_looked_at(&self, tally: &Tally) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.is_looked_at(tally))
    }

    /// Bytes of the body that went by unread, at most what is left of it.
    fn skip(&mut self, bytes: u64, tally: &Tally) {
        if let (Some(exchange), Some(left)) = (&mut self.exchange, &mut self.left) {
            exchange.came(tally, bytes);
            *left -= bytes;
        }
        self.end_if_whole(tally);
    }

    fn end_if_whole(&mut self, tally: &Tally) {
        if self.left == Some(0) {
            self.left = None;
            if let Some(exchange) = self.exchange.take() {
                exchange.end(tally);
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.exchange.is_none()
    }

    fn take(&mut self, mut bytes: &[u8], tally: &Tally) -> Result<(), Error> {
        while !bytes.is_empty() {
            let Some(exchange) = &mut self.exchange else {
                return Err(broken("bytes that nothing was asked for"));
            };
            if let Some(left) = &mut self.left {
                let part = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                exchange.body(tally, &bytes[..part]);
                *left -= part as u64;
                bytes = &bytes[part..];
            } else {
                let used = head_bytes(&mut self.head, bytes)?;
                bytes = &bytes[used..];
                if !self.head.ends_with(b"\r\n\r\n") {
                    return Ok(());
                }
                let head = parse(&self.head)?;
                self.head.clear();
                if head.status < 200 {
                    continue;
                }
                exchange.status(head.status);
                self.left = Some(head.length);
                self.closes |= head.closes;
            }
            self.end_if_whole(tally);
        }
        Ok(())
    }
}

/// Adds to the head what belongs to it; returns how many bytes did.
fn head_bytes(head: &mut Vec<u8>, bytes: &[u8]) -> Result<usize, Error> {
    let before = head.len();
    // The end may lie across two reads.
    let from = before.saturating_sub(3);
    head.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES_MAX)]);
    let end = head[from..].windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end.map(|at| from + at + 4) else {
        if head.len() >= HEAD_BYTES_MAX {
            return Err(broken("a head of more than 32 KiB"));
        }
        return Ok(head.len() - before);
    };
    head.truncate(end);
    Ok(end - before)
}

struct Head {
    status: u16,
    length: u64,
    closes: bool,
}

fn parse(head: &[u8]) -> Result<Head, Error> {
    let text = std::str::from_utf8(head).map_err(|_| broken("a head that is not text"))?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status = status.and_then(|status| status.parse().ok());
    let status: u16 = status.ok_or_else(|| broken(&format!("{first:?} for a status line")))?;
    let (mut length, mut closes) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            closes |= value.eq_ignore_ascii_case("close");
        }
    }
    let bodiless = status < 200 || status == 204 || status == 304;
    let length = length.or(bodiless.then_some(0));
    let length = length.ok_or_else(|| broken("an answer without Content-Length"))?;
    Ok(Head { status, length, closes })
}

#[cfg(test)]
mod tests {
    use super::super::plan::Target;
    use super::*;
    use std::rc::Rc;
    use std::time::Instant;

    #[test]
    fn answers_are_read_whatever_the_pieces_they_come_in() {
        let stream = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello";
        for piece in 1..stream.len() {
            let target = Target::from_line("/a 5").unwrap();
            let tally = Tally::new(Rc::from(vec![target]), 1);
            let mut answer = Answer::default();
            for number in 0..2 {
                answer.begin(Exchange::new(0, number, Instant::now(), true));
                for part in stream.chunks(piece) {
                    answer.take(part, &tally).unwrap();
                }
                assert!(answer.is_idle() && !answer.closes);
            }
            assert_eq!((tally.answers.get(), tally.checked.get()), (2, 2), "{piece}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let tally = Tally::new(Rc::from(vec![Target::new("/")]), 1);
        assert!(Answer::default().take(b"x", &tally).is_err());
        let mut answer = Answer::default();
        answer.begin(Exchange::new(0, 0, Instant::now(), true));
        assert!(answer.take(&vec![b'a'; 40 << 10], &tally).is_err());
        assert!(
            parse(b"HTTP/1.1 200 OK\r\nconnection: Close\r\ncontent-length: 3\r\n\r\n")
                .unwrap()
                .closes
        );
    }
}
