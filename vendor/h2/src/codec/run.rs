//! A run of DATA frames of one stream: written in one go, their heads between
//! the parts of one payload.

use crate::frame::{self, Data};

use bytes::Buf;
use std::cmp;
use std::io::IoSlice;

/// Bytes of a DATA frame's payload at most: with its head it is one full TLS
/// record. No peer takes less than 16,384 (RFC 9113, section 6.5.2).
pub(crate) const FRAME_SIZE_MAX: usize = 16_384 - frame::HEADER_LEN;

/// Frames that a stream sends in one go while no other stream waits.
pub(crate) const FRAMES_ALONE: usize = 8;

/// Frames that a stream sends in one go before another one's turn.
pub(crate) const FRAMES_IN_TURN: usize = 4;

/// The first frame has what the others, which are full, leave.
#[derive(Debug)]
pub(super) struct Run<B> {
    frame: Data<B>,
    /// The heads of the first frame, the last, and those between them.
    first: [u8; frame::HEADER_LEN],
    between: [u8; frame::HEADER_LEN],
    last: [u8; frame::HEADER_LEN],
    /// Payload of a full frame.
    size: usize,
    is_first: bool,
    /// Left of the current frame's head.
    head_left: usize,
    /// Left of the current frame's payload.
    body_left: usize,
}

impl<B: Buf> Run<B> {
    /// `frame`, as frames of `size` bytes at most, more than 0.
    pub(super) fn new(frame: Data<B>, size: usize) -> Self {
        let len = frame.payload().remaining();
        let first = match len % size {
            0 => cmp::min(len, size),
            rest => rest,
        };
        let last = frame.head();
        let between = frame::Head::new(last.kind(), 0, last.stream_id());
        let encoded = |head: frame::Head, len| {
            let mut bytes = [0; frame::HEADER_LEN];
            head.encode(len, &mut bytes.as_mut_slice());
            bytes
        };
        Run {
            frame,
            first: encoded(if first == len { last } else { between }, first),
            between: encoded(between, size),
            last: encoded(last, size),
            size,
            is_first: true,
            head_left: frame::HEADER_LEN,
            body_left: first,
        }
    }

    pub(super) fn into_frame(self) -> Data<B> {
        self.frame
    }

    /// What is left of the current frame's head.
    fn head(&self) -> &[u8] {
        let rest = self.frame.payload().remaining();
        let head = if self.is_first {
            &self.first
        } else {
            self.head_after(rest)
        };
        &head[frame::HEADER_LEN - self.head_left..]
    }

    /// The head of a frame that is not the first, before the last `rest` bytes
    /// of the payload.
    fn head_after(&self, rest: usize) -> &[u8; frame::HEADER_LEN] {
        if rest > self.size {
            &self.between
        } else {
            &self.last
        }
    }
}

impl<B: Buf> Buf for Run<B> {
    fn remaining(&self) -> usize {
        let rest = self.frame.payload().remaining();
        let heads = (rest - self.body_left) / self.size * frame::HEADER_LEN;
        self.head_left + rest + heads
    }

    fn chunk(&self) -> &[u8] {
        if self.head_left > 0 {
            return self.head();
        }
        let chunk = self.frame.payload().chunk();
        &chunk[..cmp::min(chunk.len(), self.body_left)]
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let mut rest = self.frame.payload().remaining();
        let mut chunk = self.frame.payload().chunk();
        let mut body_left = self.body_left;
        let mut n = 0;
        let mut put = |slice: &'a [u8]| {
            let room = dst.get_mut(n);
            n += usize::from(room.is_some());
            room.map(|room| *room = IoSlice::new(slice))
        };
        if self.head_left > 0 && put(self.head()).is_none() {
            return n;
        }
        while rest > 0 {
            let len = cmp::min(chunk.len(), body_left);
            let (part, behind) = chunk.split_at(len);
            if put(part).is_none() || len < body_left {
                // No room, or the payload has more chunks.
                break;
            }
            chunk = behind;
            rest -= len;
            body_left = self.size;
            if rest > 0 && put(self.head_after(rest)).is_none() {
                break;
            }
        }
        n
    }

    fn advance(&mut self, mut cnt: usize) {
        assert!(cnt <= self.remaining(), "no more than is left");
        // The payload is told once of all its bytes.
        let mut payload = 0;
        let rest = self.frame.payload().remaining();
        while cnt > 0 {
            let head = cmp::min(cnt, self.head_left);
            let body = cmp::min(cnt - head, self.body_left);
            self.head_left -= head;
            self.body_left -= body;
            payload += body;
            cnt -= head + body;
            if self.body_left == 0 && payload < rest {
                self.is_first = false;
                self.head_left = frame::HEADER_LEN;
                self.body_left = self.size;
            }
        }
        self.frame.payload_mut().advance(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const SIZE: usize = 7;
    const END_STREAM: u8 = 1;

    fn body(len: usize) -> Bytes {
        (0..len).map(|at| at as u8).collect()
    }

    /// As frames, one by one.
    fn frames(len: usize, is_end: bool) -> Vec<u8> {
        let first = if len % SIZE == 0 { cmp::min(len, SIZE) } else { len % SIZE };
        let (mut at, mut next, mut all) = (0, first, Vec::new());
        while at < len {
            let flag = if is_end && at + next == len { END_STREAM } else { 0 };
            all.extend_from_slice(&[0, 0, next as u8, 0, flag, 0, 0, 0, 5]);
            all.extend_from_slice(&body(len)[at..at + next]);
            (at, next) = (at + next, SIZE);
        }
        all
    }

    fn run<B: Buf>(payload: B, is_end: bool) -> Run<B> {
        let mut frame = Data::new(5.into(), payload);
        frame.set_end_stream(is_end);
        Run::new(frame, SIZE)
    }

    #[test]
    fn a_run_is_its_frames_however_it_is_written() {
        for len in 1..60 {
            let expected = frames(len, len % 2 == 0);
            for step in 1..expected.len() + 1 {
                for slices in [1, 2, 3, 64] {
                    let mut run = run(body(len), len % 2 == 0);
                    let mut written = Vec::new();
                    while run.has_remaining() {
                        assert_eq!(run.remaining(), expected.len() - written.len());
                        let chunk = run.chunk().to_vec();
                        let mut dst = vec![IoSlice::new(&[]); slices];
                        let filled = run.chunks_vectored(&mut dst);
                        let all: Vec<u8> = dst[..filled].iter().flat_map(|s| s.to_vec()).collect();
                        assert!(all.starts_with(&chunk) && !chunk.is_empty());
                        let taken = cmp::min(step, all.len());
                        written.extend_from_slice(&all[..taken]);
                        run.advance(taken);
                    }
                    assert_eq!(written, expected, "{} bytes, {} at a time", len, step);
                    assert!(!run.into_frame().payload().has_remaining());
                }
            }
        }
    }

    #[test]
    fn a_payload_of_several_chunks_is_the_same_run() {
        for len in 2..40 {
            for cut in 1..len {
                let payload = body(len).slice(..cut).chain(body(len).slice(cut..));
                let mut run = run(payload, true);
                let mut written = Vec::new();
                while run.has_remaining() {
                    let mut dst = [IoSlice::new(&[]); 64];
                    let filled = run.chunks_vectored(&mut dst);
                    let all: Vec<u8> = dst[..filled].iter().flat_map(|s| s.to_vec()).collect();
                    run.advance(all.len());
                    written.extend(all);
                }
                assert_eq!(written, frames(len, true));
            }
        }
    }
}
