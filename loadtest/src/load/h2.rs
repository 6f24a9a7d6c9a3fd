//! HTTP/2 answers, read as they come (RFC 9113): bodies are looked at where they were decrypted,
//! of heads only the status. The dynamic table is switched off, so that no head depends on
//! another one.

use super::Context;
use super::arrivals::Next;
use super::fields;
use super::slow::Trickle;
use super::tally::{Exchange, Tally};
use super::wire::{Wire, broken};
use crate::Error;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a connection starts with, RFC 9113 section 6.9.2.
const WINDOW_BYTES_AT_START: u32 = 65_535;
/// Streams a connection may open: before ids run out it is left.
const STREAM_ID_MAX: u32 = 1 << 30;
const FRAME_HEADER_BYTES: usize = 9;
/// A frame other than DATA that is longer is refused; DATA frames are at most the default 16 KiB.
const FRAME_BYTES_MAX: usize = 16 << 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// One connection until the server leaves it or the load is over.
pub(super) async fn run(context: &Context, slow: Option<Trickle>) -> Result<(), Error> {
    let mut wire = Wire::connect(&context.peer, &context.scratch, slow.is_some()).await?;
    let mut session = Session::new(context.stream_window_bytes, context.window_bytes);
    let limit = slow.as_ref().map_or(usize::MAX / 2, Trickle::bytes);
    loop {
        let room = session.fill(context, slow.is_some())?;
        if !session.out.is_empty() {
            wire.send(&session.out).await?;
            session.out.clear();
        }
        let idle = session.streams.is_empty();
        if idle && (session.leaving || matches!(room, Room::Over)) {
            return Ok(());
        }
        let mut sink = |bytes: &[u8]| session.take(bytes, &context.tally);
        let more = if matches!(room, Room::Waits) {
            tokio::select! {
                more = wire.receive(limit, &mut sink) => more?,
                () = context.queue.changed() => continue,
            }
        } else {
            wire.receive(limit, &mut sink).await?
        };
        if !more && !session.streams.is_empty() {
            return Err(broken("closed before a body's end"));
        }
        if !more {
            return Ok(());
        }
        if let Some(slow) = &slow {
            slow.wait().await;
        }
    }
}

/// Why no further stream is opened.
enum Room {
    /// As many as may be are open.
    Full,
    /// No request is due.
    Waits,
    /// There will be no more.
    Over,
}

struct Stream {
    id: u32,
    exchange: Exchange,
    /// Of the window, not yet given back.
    taken: u32,
}

/// A client's side of one connection, without the connection.
struct Session {
    /// To be sent.
    out: Vec<u8>,
    streams: Vec<Stream>,
    next_id: u32,
    /// The server's SETTINGS_MAX_CONCURRENT_STREAMS.
    streams_max: usize,
    leaving: bool,
    stream_window: u32,
    window: u32,
    taken: u32,
    reading: Reading,
}

enum Reading {
    /// A frame's header.
    Header(Vec<u8>),
    /// A DATA frame without padding.
    Data { id: u32, left: usize, last: bool },
    /// Any other frame's payload.
    Frame { kind: u8, flags: u8, id: u32, length: usize, payload: Vec<u8> },
}

impl Session {
    fn new(stream_window: u32, window: u32) -> Self {
        let mut session = Self {
            out: PREFACE.to_vec(),
            streams: Vec::new(),
            next_id: 1,
            streams_max: usize::MAX,
            leaving: false,
            stream_window,
            window,
            taken: 0,
            reading: Reading::Header(Vec::with_capacity(FRAME_HEADER_BYTES)),
        };
        // SETTINGS_HEADER_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW_SIZE: section 6.5.2.
        let mut settings = Vec::new();
        for (id, value) in [(1_u16, 0), (2, 0), (4, stream_window)] {
            settings.extend_from_slice(&id.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        session.frame(SETTINGS, 0, 0, &settings);
        let more = window.saturating_sub(WINDOW_BYTES_AT_START).max(1);
        session.frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        session
    }

    fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("frames are short");
        self.out.extend_from_slice(&length.to_be_bytes()[1..]);
        self.out.extend_from_slice(&[kind, flags]);
        self.out.extend_from_slice(&id.to_be_bytes());
        self.out.extend_from_slice(payload);
    }

    /// Opens streams while there is room and something to ask for.
    fn fill(&mut self, context: &Context, slow: bool) -> Result<Room, Error> {
        let streams = if slow { 1 } else { context.streams };
        loop {
            if self.leaving || self.streams.len() >= streams.min(self.streams_max) {
                return Ok(Room::Full);
            }
            let exchange =
                match if slow { Next::Send(context.queue.untimed()) } else { context.queue.poll() }
                {
                    Next::Send(exchange) => exchange,
                    Next::Wait => return Ok(Room::Waits),
                    Next::Over => return Ok(Room::Over),
                };
            let fields = fields::h2_request(&context.authority, &context.path(&exchange), context);
            if fields.len() > FRAME_BYTES_MAX {
                return Err(broken("a request head of more than 16 KiB was asked for"));
            }
            let id = self.next_id;
            self.next_id += 2;
            self.leaving |= self.next_id > STREAM_ID_MAX;
            self.frame(HEADERS, END_STREAM | END_HEADERS, id, &fields);
            self.streams.push(Stream { id, exchange, taken: 0 });
        }
    }

    fn take(&mut self, mut bytes: &[u8], tally: &Tally) -> Result<(), Error> {
        while !bytes.is_empty() {
            match &mut self.reading {
                Reading::Header(header) => {
                    let part = bytes.len().min(FRAME_HEADER_BYTES - header.len());
                    header.extend_from_slice(&bytes[..part]);
                    bytes = &bytes[part..];
                    if let Some(header) = header.first_chunk().copied() {
                        self.begin(header, tally)?;
                    }
                }
                Reading::Data { id, left, last } => {
                    let part = bytes.len().min(*left);
                    *left -= part;
                    let (id, last) = (*id, *last && *left == 0);
                    let done = *left == 0;
                    self.data(id, &bytes[..part], last, tally)?;
                    bytes = &bytes[part..];
                    if done {
                        self.reading = Reading::Header(Vec::with_capacity(FRAME_HEADER_BYTES));
                    }
                }
                Reading::Frame { length, payload, .. } => {
                    let part = bytes.len().min(*length - payload.len());
                    payload.extend_from_slice(&bytes[..part]);
                    bytes = &bytes[part..];
                    if payload.len() == *length {
                        self.whole(tally)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, header: [u8; FRAME_HEADER_BYTES], tally: &Tally) -> Result<(), Error> {
        let [a, b, c, kind, flags, ids @ ..] = header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let id = u32::from_be_bytes(ids) & 0x7fff_ffff;
        if length > FRAME_BYTES_MAX {
            return Err(broken("a frame of more than 16 KiB"));
        }
        if kind == DATA && flags & PADDED == 0 && length > 0 {
            self.window_used(length);
            self.reading = Reading::Data { id, left: length, last: flags & END_STREAM != 0 };
            return Ok(());
        }
        self.reading = Reading::Frame { kind, flags, id, length, payload: Vec::new() };
        if length == 0 { self.whole(tally) } else { Ok(()) }
    }

    /// Gives the connection's window back by halves.
    fn window_used(&mut self, length: usize) {
        self.taken += u32::try_from(length).expect("a frame's length");
        if self.taken >= self.window / 2 {
            let taken = std::mem::take(&mut self.taken);
            self.frame(WINDOW_UPDATE, 0, 0, &taken.to_be_bytes());
        }
    }

    fn data(&mut self, id: u32, bytes: &[u8], last: bool, tally: &Tally) -> Result<(), Error> {
        let at = self.streams.iter().position(|stream| stream.id == id);
        let at = at.ok_or_else(|| broken("DATA on a stream that is not open"))?;
        let stream = &mut self.streams[at];
        stream.exchange.body(tally, bytes);
        if last {
            self.streams.swap_remove(at).exchange.end(tally);
            return Ok(());
        }
        stream.taken += u32::try_from(bytes.len()).expect("a frame's length");
        if stream.taken >= self.stream_window / 2 {
            let taken = std::mem::take(&mut stream.taken);
            self.frame(WINDOW_UPDATE, 0, id, &taken.to_be_bytes());
        }
        Ok(())
    }

    /// A frame that was buffered.
    fn whole(&mut self, tally: &Tally) -> Result<(), Error> {
        let fresh = Reading::Header(Vec::with_capacity(FRAME_HEADER_BYTES));
        let Reading::Frame { kind, flags, id, payload, .. } =
            std::mem::replace(&mut self.reading, fresh)
        else {
            return Ok(());
        };
        match kind {
            DATA => {
                self.window_used(payload.len());
                let content = unpadded(&payload, flags, false)?;
                self.data(id, content, flags & END_STREAM != 0, tally)
            }
            HEADERS => self.head(id, flags, &payload, tally),
            RST_STREAM => {
                let code = payload.first_chunk().copied().map_or(0, u32::from_be_bytes);
                self.streams.retain(|stream| stream.id != id);
                tally.failed(format!("the server reset a stream, error {code}"));
                Ok(())
            }
            SETTINGS if flags & ACK == 0 => {
                self.settings(&payload);
                self.frame(SETTINGS, ACK, 0, &[]);
                Ok(())
            }
            PING if flags & ACK == 0 => {
                self.frame(PING, ACK, 0, &payload);
                Ok(())
            }
            GOAWAY => self.goaway(&payload),
            PUSH_PROMISE => Err(broken("PUSH_PROMISE, which was switched off")),
            _ => Ok(()),
        }
    }

    fn head(&mut self, id: u32, flags: u8, payload: &[u8], tally: &Tally) -> Result<(), Error> {
        let block = unpadded(payload, flags, flags & PRIORITY != 0)?;
        let at = self.streams.iter().position(|stream| stream.id == id);
        let at = at.ok_or_else(|| broken("HEADERS on a stream that is not open"))?;
        // Trailers have no status.
        if let Some(status) = fields::h2_status(block) {
            self.streams[at].exchange.status(status);
        }
        if flags & END_STREAM != 0 {
            self.streams.swap_remove(at).exchange.end(tally);
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            let id = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            // SETTINGS_MAX_CONCURRENT_STREAMS; the others limit what is not sent here.
            if id == 3 {
                self.streams_max = usize::try_from(value).unwrap_or(usize::MAX).max(1);
            }
        }
    }

    /// Streams above the last one that the server takes are not failures of it.
    fn goaway(&mut self, payload: &[u8]) -> Result<(), Error> {
        let last = payload.first_chunk().copied().map_or(0, u32::from_be_bytes);
        let code = payload.get(4..8).and_then(|code| code.try_into().ok());
        match code.map(u32::from_be_bytes) {
            Some(0) => {
                self.streams.retain(|stream| stream.id <= last);
                self.leaving = true;
                Ok(())
            }
            code => Err(broken(&format!("GOAWAY with error {code:?}"))),
        }
    }
}

/// A payload without its padding and priority, RFC 9113 section 6.2.
fn unpadded(payload: &[u8], flags: u8, priority: bool) -> Result<&[u8], Error> {
    let (mut from, mut to) = (0, payload.len());
    if flags & PADDED != 0 {
        let pad = payload.first().copied().ok_or_else(|| broken("a frame without its padding"))?;
        from = 1;
        to = to.checked_sub(usize::from(pad)).ok_or_else(|| broken("too much padding"))?;
    }
    if priority {
        from += 5;
    }
    payload.get(from..to).ok_or_else(|| broken("too much padding"))
}

#[cfg(test)]
mod tests {
    use super::super::plan::Target;
    use super::*;
    use std::rc::Rc;
    use std::time::Instant;

    fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
        let mut session = Session::new(1 << 20, 1 << 20);
        session.out.clear();
        session.frame(kind, flags, id, payload);
        session.out
    }

    fn asked(streams: u32) -> Session {
        let mut session = Session::new(1 << 20, 1 << 20);
        session.out.clear();
        for number in 0..streams {
            let exchange = Exchange::new(0, number.into(), Instant::now(), true);
            session.streams.push(Stream { id: 1 + 2 * number, exchange, taken: 0 });
        }
        session
    }

    #[test]
    fn two_streams_are_read_whatever_the_pieces_they_come_in() {
        let stream: Vec<u8> = [
            frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
            frame(HEADERS, END_HEADERS, 1, &[0x20, 0x88]),
            frame(HEADERS, END_HEADERS | PADDED, 3, &[2, 0x88, 0, 0]),
            frame(DATA, 0, 3, b"hel"),
            frame(DATA, 0, 1, b""),
            frame(DATA, PADDED, 3, &[1, b'l', 0]),
            frame(PING, 0, 0, &[7; 8]),
            frame(DATA, END_STREAM, 1, b"hello"),
            frame(DATA, END_STREAM, 3, b"o"),
            frame(GOAWAY, 0, 0, &[0; 8]),
        ]
        .concat();
        for piece in 1..stream.len() {
            let tally = Tally::new(Rc::from(vec![Target::from_line("/a 5").unwrap()]), 1);
            let mut session = asked(2);
            for part in stream.chunks(piece) {
                session.take(part, &tally).unwrap();
            }
            assert_eq!((tally.answers.get(), tally.checked.get(), tally.wrong.get()), (2, 2, 0));
            assert!(session.streams.is_empty() && session.leaving);
            assert_eq!(session.streams_max, 100);
            let ack = frame(SETTINGS, ACK, 0, &[]);
            let pong = frame(PING, ACK, 0, &[7; 8]);
            assert_eq!(session.out, [ack, pong].concat());
        }
    }

    #[test]
    fn windows_are_given_back_by_halves() {
        let tally = Tally::new(Rc::from(vec![Target::new("/a")]), 1);
        let mut session = asked(1);
        let part = frame(DATA, 0, 1, &[0; 16 << 10]);
        for _ in 0..32 {
            assert!(session.out.is_empty());
            session.take(&part, &tally).unwrap();
        }
        let update = (512_u32 << 10).to_be_bytes();
        let (whole, one) =
            (frame(WINDOW_UPDATE, 0, 0, &update), frame(WINDOW_UPDATE, 0, 1, &update));
        assert_eq!(session.out, [whole, one].concat());
    }

    #[test]
    fn what_is_not_allowed_is_refused_and_a_reset_is_a_failure() {
        let tally = Tally::new(Rc::from(vec![Target::new("/a")]), 1);
        for bad in [
            frame(DATA, 0, 9, b"x"),
            frame(PUSH_PROMISE, 0, 1, b"xxxx"),
            frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 2]),
            frame(DATA, PADDED, 1, &[9, 1]),
            vec![1, 0, 0, HEADERS, 0, 0, 0, 0, 1],
        ] {
            assert!(asked(1).take(&bad, &tally).is_err(), "{bad:?}");
        }
        let mut session = asked(1);
        session.take(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 2]), &tally).unwrap();
        assert_eq!((tally.failures.get(), session.streams.len()), (1, 0));
    }
}
