//! A client's control stream (RFC 9114 section 6.2.1), judged as its bytes come: h3 passes over some
//! of what ends a connection, and collects frames that nobody knows.
//!
//! Invariant: no more of it is kept than a frame that is known, of at most [`PAYLOAD_BYTES_MAX`].

use super::plain::{HEADERS, varint};

/// Of a frame that is known. SETTINGS have a handful of numbers, the others one.
pub const PAYLOAD_BYTES_MAX: u64 = 4 << 10;

/// Frames (section 7.2).
pub const DATA: u64 = 0;
const CANCEL_PUSH: u64 = 3;
const SETTINGS: u64 = 4;
const PUSH_PROMISE: u64 = 5;
const GOAWAY: u64 = 7;
const MAX_PUSH_ID: u64 = 0xd;

/// What a client may not do on a connection: it ends by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Sections 6.2.1 and 6.2.2; RFC 9204 section 4.2.
    #[error("a stream that no client opens, or not twice")]
    Creation,
    /// The same.
    #[error("a stream ends that a connection needs")]
    Closed,
    /// Section 7.2, and 4.1 for requests.
    #[error("a frame that does not belong there")]
    Unexpected,
    /// Section 7.1.
    #[error("a frame that has too much, too little, or no end")]
    Frame,
    /// Of no use, and it would be kept.
    #[error("a frame is longer than {PAYLOAD_BYTES_MAX} bytes")]
    Long,
    /// Sections 5.2, 7.2.3 and 7.2.7.
    #[error("a number that none of this kind may have")]
    Id,
    /// Section 7.2.4.
    #[error("a setting that may not be, or is there twice")]
    Settings,
    /// Section 6.2.1.
    #[error("no SETTINGS first")]
    Missing,
}

impl Broken {
    /// As section 8.1 has it.
    pub fn code(self) -> u32 {
        match self {
            Self::Creation => 0x103,
            Self::Closed => 0x104,
            Self::Unexpected => 0x105,
            Self::Frame => 0x106,
            Self::Long => 0x107,
            Self::Id => 0x108,
            Self::Settings => 0x109,
            Self::Missing => 0x10a,
        }
    }
}

/// Whether frames of this type are HTTP/2's alone, which must not come (section 11.2.1).
fn is_of_http2(kind: u64) -> bool {
    matches!(kind, 2 | 6 | 8 | 9)
}

/// Whether a request has no frame of this type, though it is known.
pub fn is_no_requests(kind: u64) -> bool {
    let known = matches!(kind, CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID);
    known || is_of_http2(kind)
}

/// What has come of it.
#[derive(Debug, Default)]
pub struct Control {
    /// The start of a frame that is not whole.
    held: Vec<u8>,
    /// What is left of one that nobody knows.
    skips: u64,
    /// SETTINGS have come.
    is_set: bool,
    /// The last ones.
    push_max: Option<u64>,
    goaway: Option<u64>,
}

impl Control {
    /// Takes the next bytes, behind the stream's type.
    ///
    /// # Errors
    /// What of it ends the connection.
    pub fn takes(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut rest = &held[..];
        while let Some(behind) = self.frame(rest)? {
            rest = behind;
        }
        self.held = rest.to_vec();
        Ok(())
    }

    /// The client takes and asks no more (section 5.2).
    pub fn goes(&self) -> bool {
        self.goaway.is_some()
    }

    /// What it means that nothing more comes.
    pub fn ended(&self) -> Broken {
        if self.held.is_empty() && self.skips == 0 { Broken::Closed } else { Broken::Frame }
    }

    /// What is behind the first frame, or what is left of one; none: it is not whole.
    fn frame<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Broken> {
        if self.skips > 0 {
            let skipped = usize::try_from(self.skips).map_or(bytes.len(), |it| it.min(bytes.len()));
            self.skips -= skipped as u64;
            return Ok((skipped > 0).then(|| &bytes[skipped..]));
        }
        let Some((kind, rest)) = varint(bytes) else { return Ok(None) };
        let known = self.begins(kind)?;
        let Some((length, rest)) = varint(rest) else { return Ok(None) };
        if !known {
            self.skips = length;
            return Ok(Some(rest));
        }
        if length > PAYLOAD_BYTES_MAX {
            return Err(Broken::Long);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((payload, behind)) = rest.split_at_checked(length) else { return Ok(None) };
        self.came(kind, payload)?;
        Ok(Some(behind))
    }

    /// Whether a frame of this type has a meaning here.
    fn begins(&self, kind: u64) -> Result<bool, Broken> {
        match kind {
            SETTINGS if self.is_set => Err(Broken::Unexpected),
            SETTINGS => Ok(true),
            _ if !self.is_set => Err(Broken::Missing),
            DATA | HEADERS | PUSH_PROMISE => Err(Broken::Unexpected),
            kind if is_of_http2(kind) => Err(Broken::Unexpected),
            kind => Ok(matches!(kind, CANCEL_PUSH | GOAWAY | MAX_PUSH_ID)),
        }
    }

    fn came(&mut self, kind: u64, payload: &[u8]) -> Result<(), Broken> {
        if kind == SETTINGS {
            self.is_set = true;
            return settings(payload);
        }
        let Some((number, [])) = varint(payload) else { return Err(Broken::Frame) };
        let is_right = match kind {
            GOAWAY => self.goaway.replace(number).is_none_or(|before| number <= before),
            MAX_PUSH_ID => self.push_max.replace(number).is_none_or(|before| number >= before),
            // Nothing is ever promised.
            _ => false,
        };
        if is_right { Ok(()) } else { Err(Broken::Id) }
    }
}

/// Nothing that is set changes what is sent: neither are heads compressed by a table of their own,
/// nor is anything pushed.
fn settings(mut payload: &[u8]) -> Result<(), Broken> {
    let mut seen = Vec::new();
    while !payload.is_empty() {
        let (setting, rest) = varint(payload).ok_or(Broken::Frame)?;
        let (_, rest) = varint(rest).ok_or(Broken::Frame)?;
        seen.push(setting);
        payload = rest;
    }
    seen.sort_unstable();
    // HTTP/2's that have no counterpart (section 7.2.4.1).
    let is_wrong = seen.iter().any(|setting| matches!(setting, 2..=5));
    if is_wrong || seen.windows(2).any(|two| two[0] == two[1]) {
        return Err(Broken::Settings);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What each of these ends in is held by `wire/tests/quic/rules.rs`.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let frames = [
            &[4_u8, 0][..],
            &[4, 4, 6, 1, 0x40, 7],
            &[4, 5, 6, 0x80, 0, 0, 0],
            &[0x21, 3, 4, 0, 4],
            &[0x40, 0x40, 0],
            &[7, 1, 4],
            &[7, 2, 0x40, 0],
            &[0xd, 1, 1],
            &[0xd, 2, 0x40, 9],
            &[0xd, 2, 1, 1],
            &[3, 1, 0],
            &[4, 0x60, 0],
            &[2, 0],
        ];
        let frames = proptest::sample::select(frames.map(<[u8]>::to_vec).to_vec());
        proptest::collection::vec(frames, 0..6).prop_map(|frames| frames.concat())
    }

    /// How it goes with a stream that comes in pieces of these sizes.
    fn taken(stream: &[u8], sizes: &[usize]) -> (Result<(), Broken>, bool, Broken) {
        let (mut control, mut sizes, mut rest) = (Control::default(), sizes.iter().cycle(), stream);
        while let Some(size) = sizes.next().filter(|_| !rest.is_empty()) {
            let (piece, behind) = rest.split_at((*size).min(rest.len()));
            if let Err(broken) = control.takes(piece) {
                return (Err(broken), control.goes(), broken);
            }
            assert!(control.held.len() as u64 <= PAYLOAD_BYTES_MAX + 16);
            rest = behind;
        }
        (Ok(()), control.goes(), control.ended())
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(
            known in any::<bool>(),
            stream in streams(),
            cut in 0_usize..4,
            sizes in proptest::collection::vec(1_usize..9, 1..6),
        ) {
            let mut stream = if known { [&[4, 0], &stream[..]].concat() } else { stream };
            stream.truncate(stream.len() - cut.min(stream.len()));
            prop_assert_eq!(taken(&stream, &sizes), taken(&stream, &[usize::MAX]));
        }
    }

    #[test]
    fn what_nobody_knows_is_kept_no_longer_than_it_takes_to_pass_over_it() {
        let mut control = Control::default();
        control.takes(&[4, 0, 0x21, 0xc0, 0, 0, 1, 0, 0, 0, 0]).unwrap();
        for _ in 0..100 {
            control.takes(&[4; 10_000]).unwrap();
            assert!(control.held.is_empty());
        }
        assert_eq!(control.ended(), Broken::Frame);
    }
}
