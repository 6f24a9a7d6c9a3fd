//! What an HTTP/2 server says of a connection as a whole, read from the frames that come over it
//! (RFC 9113 section 4.1): of that, hyper-util tells nothing.

/// Bytes of a frame's head, which is longer than what is looked for in a frame.
const HEAD_BYTES: usize = 9;
const SETTINGS: u8 = 4;
/// Bytes of one setting.
const SETTING_BYTES: usize = 6;
const MAX_CONCURRENT_STREAMS: u32 = 3;
const GOAWAY: u8 = 7;
/// Bytes of a GOAWAY frame up to its debug data.
const GOAWAY_BYTES: usize = 8;

/// What was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// It takes this many requests at a time (RFC 9113 section 6.5.2).
    StreamsMax(u32),
    /// Its settings have come.
    Settled,
    /// It takes no more requests (RFC 9113 section 6.8).
    Goaway {
        /// The last stream that it may have looked at; 0: none.
        last: u32,
        /// Why; 0 is NO_ERROR.
        error: u32,
    },
}

/// Where in the frames the bytes are that came last.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// What came of what is being read: a frame's head, a setting, a GOAWAY.
    part: [u8; HEAD_BYTES],
    came: usize,
    kind: u8,
    /// Bytes of the frame to come: of parts that are read, and behind these.
    to_read: usize,
    to_skip: usize,
}

impl Scan {
    /// More came: what is said in it.
    pub(crate) fn read(&mut self, mut piece: &[u8], mut tell: impl FnMut(Said)) {
        loop {
            if self.to_read == 0 {
                let skipped = self.to_skip.min(piece.len());
                self.to_skip -= skipped;
                piece = piece.get(skipped..).unwrap_or_default();
            }
            let wanted = match (self.to_read, self.kind) {
                (0, _) => HEAD_BYTES,
                (_, SETTINGS) => SETTING_BYTES,
                _ => GOAWAY_BYTES,
            };
            let taken = (wanted - self.came).min(piece.len());
            if taken == 0 {
                return;
            }
            self.part[self.came..self.came + taken].copy_from_slice(&piece[..taken]);
            (self.came, piece) = (self.came + taken, &piece[taken..]);
            if self.came < wanted {
                return;
            }
            self.came = 0;
            match self.to_read {
                0 => self.head(),
                _ => {
                    self.to_read -= wanted;
                    self.said().into_iter().for_each(&mut tell);
                }
            }
            if self.to_read == 0 && self.kind == SETTINGS {
                tell(Said::Settled);
            }
        }
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.part[at], self.part[at + 1], self.part[at + 2], self.part[at + 3]])
    }

    fn said(&self) -> Option<Said> {
        if self.kind == GOAWAY {
            // The first bit is reserved.
            return Some(Said::Goaway { last: self.number(0) << 1 >> 1, error: self.number(4) });
        }
        let is_limit = self.number(0) >> 16 == MAX_CONCURRENT_STREAMS;
        is_limit.then(|| Said::StreamsMax(self.number(2)))
    }

    fn head(&mut self) {
        let length = usize::try_from(self.number(0) >> 8).unwrap_or(usize::MAX);
        self.kind = self.part[3];
        self.to_read = match self.kind {
            SETTINGS => length - length % SETTING_BYTES,
            GOAWAY if length >= GOAWAY_BYTES => GOAWAY_BYTES,
            _ => 0,
        };
        self.to_skip = length - self.to_read;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
    }

    #[test]
    fn it_is_found_among_other_frames_however_the_bytes_come() {
        let goaway = |last: u32, error: u32, debug: &[u8]| {
            frame(GOAWAY, &[&last.to_be_bytes(), &error.to_be_bytes(), debug].concat())
        };
        let bytes = [
            frame(SETTINGS, &[0, 1, 0, 0, 16, 0, 0, 3, 0, 0, 1, 4, 0, 4, 0, 0, 0, 9]),
            frame(SETTINGS, &[]),
            frame(0, &[GOAWAY; 20_000]),
            goaway(u32::MAX, 0, b""),
            frame(GOAWAY, &[1; 7]),
            frame(6, &[GOAWAY; 8]),
            goaway(17, 11, b"enhance your calm"),
            frame(1, &[GOAWAY]),
        ];
        let bytes = bytes.concat();
        for size in [1, 2, 9, 10, 16_384, bytes.len()] {
            let (mut scan, mut said) = (Scan::default(), Vec::new());
            bytes.chunks(size).for_each(|piece| scan.read(piece, |more| said.push(more)));
            let first = Said::Goaway { last: u32::MAX >> 1, error: 0 };
            let last = Said::Goaway { last: 17, error: 11 };
            let settings = [Said::StreamsMax(260), Said::Settled, Said::Settled];
            assert_eq!(said, [&settings[..], &[first, last]].concat(), "by {size}");
        }
    }
}
