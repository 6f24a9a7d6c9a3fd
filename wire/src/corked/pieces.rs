//! The pieces of a write: which of them become records together.
//!
//! Invariant: their bytes and the order of these are the same, however they are cut.

use crate::batch::RECORD_BYTES;
use rustls::ServerConnection;
use std::io::{self, IoSlice, Write};

/// Pieces of one write that are looked at; hyper and h2 offer no more.
pub const PIECES_MAX: usize = 64;
/// A piece so long is worth a record that begins with it.
const LARGE_PIECE_BYTES: usize = 4 << 10;

/// Writes pieces as records that begin with a large piece where they can.
pub fn write_apart(tls: &mut ServerConnection, mut pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut written = 0;
    while !pieces.is_empty() {
        let (part, rest) = pieces.split_at(together(pieces));
        let bytes = tls.writer().write_vectored(part)?;
        written += bytes;
        if bytes < part.iter().map(|piece| piece.len()).sum() {
            break;
        }
        pieces = rest;
    }
    Ok(written)
}

/// How many of the pieces are cut into records together. A record that is a large piece, and few
/// bytes behind it, is sealed from where it lies: so where several large pieces have small ones
/// between them, as frames have heads, those go with what is before them.
fn together(pieces: &[IoSlice<'_>]) -> usize {
    let is_small = |piece: &&IoSlice<'_>| piece.len() < LARGE_PIECE_BYTES;
    let leading = pieces.iter().take_while(is_small).count();
    if pieces.len() < leading + 2 {
        let bytes = |pieces: &[IoSlice<'_>]| pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let records = |pieces| bytes(pieces).div_ceil(RECORD_BYTES);
        let (small, large) = pieces.split_at(leading);
        // A head in a record of its own, where that makes no more of them.
        let is_apart = !small.is_empty()
            && !large.is_empty()
            && records(small) + records(large) == records(pieces);
        return if is_apart { leading } else { pieces.len() };
    }
    if leading > 0 {
        return leading;
    }
    let mut end = 0;
    while end < pieces.len() {
        let small = pieces[end + 1..].iter().take_while(is_small).count();
        let next = end + 1 + small;
        let bytes: usize = pieces[end..next].iter().map(|piece| piece.len()).sum();
        end = next;
        if !bytes.is_multiple_of(RECORD_BYTES) {
            break;
        }
    }
    end
}

/// The first `room` bytes of `bufs`: how many of `pieces` they take.
pub fn clip<'a>(bufs: &'a [IoSlice<'_>], mut room: usize, pieces: &mut [IoSlice<'a>]) -> usize {
    let mut count = 0;
    for (piece, buf) in pieces.iter_mut().zip(bufs) {
        if room == 0 {
            break;
        }
        let taken = buf.len().min(room);
        *piece = IoSlice::new(&buf[..taken]);
        room -= taken;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plaintext of the records that pieces of these lengths become.
    fn records(lengths: &[usize]) -> Vec<usize> {
        let bytes = vec![0; lengths.iter().copied().max().unwrap_or(0)];
        let pieces: Vec<_> = lengths.iter().map(|&length| IoSlice::new(&bytes[..length])).collect();
        let (mut rest, mut records) = (&pieces[..], Vec::new());
        while !rest.is_empty() {
            let (part, next) = rest.split_at(together(rest));
            let mut left: usize = part.iter().map(|piece| piece.len()).sum();
            while left > 0 {
                records.push(left.min(RECORD_BYTES));
                left -= left.min(RECORD_BYTES);
            }
            rest = next;
        }
        records
    }

    #[test]
    fn a_record_is_a_frame_and_the_next_ones_head() {
        const FULL: usize = RECORD_BYTES - 9;
        // A head, a run that begins with a short frame: what is before the full frames goes first.
        let run = [200, 9, 36, 9, FULL, 9, FULL, 9, FULL];
        assert_eq!(records(&run), [254, RECORD_BYTES, RECORD_BYTES, FULL]);
        // The rest of a frame, of which the last turn had the beginning.
        assert_eq!(records(&[9_000, 9, FULL, 9, FULL]), [9_009, RECORD_BYTES, FULL]);
        // One frame, a body of HTTP/1.1 with its head, small answers: as few records as can be.
        assert_eq!(records(&[9, FULL]), [RECORD_BYTES]);
        assert_eq!(records(&[300, 1 << 20]).len(), 65);
        assert_eq!(records(&[300, 100, 9, 2_000, 9, 3_000]), [5_418]);
        assert_eq!(records(&[9, FULL, 9, 100]), [9, RECORD_BYTES, 100]);
        assert!(records(&[]).is_empty());
    }
}
