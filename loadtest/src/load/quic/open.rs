//! One connection: its requests and their answers.

use super::super::Context;
use super::super::arrivals::Next;
use super::super::h3::{Answer, CONTROL, NO_ERROR, request};
use super::super::slow::Trickle;
use super::super::wire::broken;
use super::wire::Wire;
use crate::Error;
use quinn_proto::{
    ConnectionHandle, Dir, Endpoint, Event, ReadError, StreamEvent, StreamId, WriteError,
};
use std::time::Instant;

/// Datagrams of one send, as quinn has them.
const SEGMENTS_MAX: usize = 10;

/// A connection that stands, or is in its handshake.
pub(super) struct Open {
    pub(super) handle: ConnectionHandle,
    pub(super) quic: quinn_proto::Connection,
    answers: Vec<(StreamId, Answer)>,
    /// Of requests, and of our control stream: what flow control held back.
    unsent: Vec<(StreamId, Vec<u8>)>,
    /// Opened, and nothing was due.
    spare: Option<StreamId>,
    /// For a request to become due.
    pub(super) waits: bool,
    pub(super) timer: Option<Instant>,
    /// When a slow reader reads on.
    pub(super) read_at: Option<Instant>,
}

impl Open {
    pub(super) fn new(handle: ConnectionHandle, quic: quinn_proto::Connection) -> Self {
        Self {
            handle,
            quic,
            answers: Vec::new(),
            unsent: Vec::new(),
            spare: None,
            waits: false,
            timer: None,
            read_at: None,
        }
    }

    /// Reads, asks and sends. `true` when the load is over.
    pub(super) fn turn(
        &mut self,
        context: &Context,
        endpoint: &mut Endpoint,
        wire: &mut Wire,
        slow: Option<Trickle>,
        now: Instant,
    ) -> Result<bool, Error> {
        if self.timer.is_some_and(|timer| timer <= now) {
            self.quic.handle_timeout(now);
        }
        if let Some(slow) = slow.filter(|_| self.read_at.is_some_and(|at| at <= now)) {
            self.trickle(context, slow, now)?;
        }
        loop {
            let mut is_stirred = false;
            while let Some(event) = self.quic.poll() {
                is_stirred = true;
                self.heed(context, event, slow.is_some(), now)?;
            }
            if !self.quic.is_handshaking() && !self.ask(context, slow.is_some())? {
                return Ok(true);
            }
            while let Some(event) = self.quic.poll_endpoint_events() {
                is_stirred = true;
                if let Some(event) = endpoint.handle_event(self.handle, event) {
                    self.quic.handle_event(event);
                }
            }
            self.transmit(wire, now).map_err(|error| broken(&error.to_string()))?;
            if !is_stirred {
                break;
            }
        }
        self.timer = self.quic.poll_timeout();
        Ok(false)
    }

    fn heed(
        &mut self,
        context: &Context,
        event: Event,
        is_slow: bool,
        now: Instant,
    ) -> Result<(), Error> {
        match event {
            Event::Connected => {
                // It must stay open as long as the connection.
                let stream = self.quic.streams().open(Dir::Uni);
                let stream = stream.ok_or_else(|| broken("no room for a control stream"))?;
                self.write(stream, CONTROL.to_vec())?;
            }
            Event::ConnectionLost { reason } => return Err(broken(&reason.to_string())),
            Event::Stream(StreamEvent::Opened { dir }) => {
                while let Some(stream) = self.quic.streams().accept(dir) {
                    self.forget(stream);
                }
            }
            Event::Stream(StreamEvent::Readable { id }) => {
                if !self.answers.iter().any(|(stream, _)| *stream == id) {
                    self.forget(id);
                } else if is_slow {
                    self.read_at.get_or_insert(now);
                } else {
                    self.read(context, id)?;
                }
            }
            Event::Stream(StreamEvent::Writable { id }) => {
                let unsent = self.unsent.iter().position(|(stream, _)| *stream == id);
                if let Some((stream, rest)) = unsent.map(|at| self.unsent.swap_remove(at)) {
                    self.write(stream, rest)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends requests for which there is room. `false` when there will be none.
    fn ask(&mut self, context: &Context, is_slow: bool) -> Result<bool, Error> {
        self.waits = false;
        let most = if is_slow { 1 } else { context.streams };
        while self.answers.len() < most {
            let Some(stream) = self.spare.take().or_else(|| self.quic.streams().open(Dir::Bi))
            else {
                break;
            };
            let next =
                if is_slow { Next::Send(context.queue.untimed()) } else { context.queue.poll() };
            let exchange = match next {
                Next::Send(exchange) => exchange,
                Next::Wait => {
                    (self.spare, self.waits) = (Some(stream), true);
                    break;
                }
                Next::Over => {
                    self.spare = Some(stream);
                    return Ok(!self.answers.is_empty());
                }
            };
            self.write(stream, request(context, &exchange))?;
            self.answers.push((stream, Answer::new(exchange)));
        }
        Ok(true)
    }

    /// Writes what there is room for, and ends a request's stream after the last of it.
    fn write(&mut self, id: StreamId, mut bytes: Vec<u8>) -> Result<(), Error> {
        let mut stream = self.quic.send_stream(id);
        while !bytes.is_empty() {
            match stream.write(&bytes) {
                Ok(written) => drop(bytes.drain(..written)),
                Err(WriteError::Blocked) => {
                    self.unsent.push((id, bytes));
                    return Ok(());
                }
                Err(error) => return Err(broken(&error.to_string())),
            }
        }
        if id.dir() == Dir::Bi {
            let _ = stream.finish();
        }
        Ok(())
    }

    /// Reads what the server says on its own streams, and forgets it.
    fn forget(&mut self, id: StreamId) {
        let mut stream = self.quic.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return };
        while let Ok(Some(_)) = chunks.next(usize::MAX) {}
        let _ = chunks.finalize();
    }

    fn read(&mut self, context: &Context, id: StreamId) -> Result<(), Error> {
        self.read_some(context, id, usize::MAX, usize::MAX).map(drop)
    }

    /// Reads once, and says when it reads on.
    fn trickle(&mut self, context: &Context, slow: Trickle, now: Instant) -> Result<(), Error> {
        self.read_at = None;
        let Some((id, _)) = self.answers.first() else { return Ok(()) };
        if self.read_some(context, *id, slow.bytes(), 1)? {
            self.read_at = Some(now + slow.pause());
        }
        Ok(())
    }

    /// Reads as many times, as many bytes each. `true` if the stream may have more.
    fn read_some(
        &mut self,
        context: &Context,
        id: StreamId,
        bytes: usize,
        times: usize,
    ) -> Result<bool, Error> {
        let Some(place) = self.answers.iter().position(|(stream, _)| *stream == id) else {
            return Ok(false);
        };
        let mut stream = self.quic.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else {
            return Err(broken("a stream that is gone"));
        };
        let mut done = Ok(true);
        for _ in 0..times {
            match chunks.next(bytes) {
                Ok(Some(chunk)) => {
                    done = self.answers[place].1.read(&chunk.bytes, &context.tally).map(|()| true);
                }
                Ok(None) => {
                    done = self.answers.swap_remove(place).1.end(&context.tally).map(|()| false);
                }
                Err(ReadError::Blocked) => done = Ok(false),
                Err(ReadError::Reset(code)) => {
                    self.answers.swap_remove(place);
                    context.tally.failed(format!("the server reset a stream, error {code}"));
                    done = Ok(false);
                }
            }
            if !matches!(done, Ok(true)) {
                break;
            }
        }
        // All that is to be sent is sent after each turn.
        let _ = chunks.finalize();
        done
    }

    pub(super) fn transmit(&mut self, wire: &mut Wire, now: Instant) -> std::io::Result<()> {
        let segments = wire.socket.max_transmit_segments().min(SEGMENTS_MAX);
        loop {
            let mut buffer = std::mem::take(&mut wire.spare);
            buffer.clear();
            let Some(transmit) = self.quic.poll_transmit(now, segments, &mut buffer) else {
                wire.spare = buffer;
                return Ok(());
            };
            wire.send(transmit, buffer)?;
        }
    }

    pub(super) fn close(&mut self, wire: &mut Wire, now: Instant) {
        self.quic.close(now, NO_ERROR, bytes::Bytes::new());
        // Who is not told finds out by its own timeout.
        let _ = self.transmit(wire, now);
    }
}
