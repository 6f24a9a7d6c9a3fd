//! What a response has yet to send, and what is told of that.

use super::{Piece, Sending};
use crate::verdict::Verdict;
use model::chunk;
use std::ops::Range;

impl Sending {
    /// What is still to be sent.
    pub fn bytes_left(&self) -> u64 {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.len() as u64,
            Piece::Part(range) => range.bytes,
        };
        let ahead = match &self.ahead {
            Some(Ok((bytes, _))) => bytes.len() as u64,
            _ => 0,
        };
        ahead + self.left.bytes + self.pieces.iter().map(piece).sum::<u64>()
    }

    /// The chunks of each part that is left.
    fn parts_left(&self) -> impl Iterator<Item = Range<u64>> {
        let parts = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Part(range) => Some(*range),
            Piece::Text(_) => None,
        });
        let begun = Some(self.left).filter(|left| left.bytes > 0);
        begun.into_iter().chain(parts).map(chunk::covering)
    }

    /// The costliest source that the parts would have now.
    pub(super) fn foreseen(&self) -> Option<Verdict> {
        self.parts_left().map(|chunks| self.engine.foresee(&self.object, chunks)).max()
    }

    /// Tells how far it has got.
    pub(super) fn is_underway(&mut self) {
        let next = self.parts_left().map(|chunks| chunks.start).min();
        match (next, &mut self.underway) {
            (None, _) => self.underway = None,
            (Some(next), Some(underway)) => underway.at(next),
            (Some(next), None) => {
                let until = self.parts_left().map(|chunks| chunks.end).max().unwrap_or(next);
                self.underway = self.engine.begins(&self.object, next..until);
            }
        }
    }
}
