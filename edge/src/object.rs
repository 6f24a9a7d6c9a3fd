//! What chunks belong to: bytes that never change, under one body id.
//!
//! A track of a title's version, or one stored representation of a proxy site's URL. Whatever
//! changes gets another body id, so no chunk is ever wrong for its key.

use crate::proxy::Wanted;
use crate::title::Title;
use chunks::Key;
use heads::Head;
use http::{HeaderMap, HeaderName, HeaderValue};
use model::{ByteRange, chunk};
use std::sync::Arc;
use std::time::Instant;
use upstream::Ask;

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// The largest object that is cached by chunk, 16 TiB: what claims more is passed on. Chunks have
/// numbers of 32 bits, and what is done for each chunk of an object must end.
pub const OBJECT_BYTES_MAX: u64 = 16 << 40;

/// Bytes of known length that are cached by chunk.
#[derive(Clone)]
pub struct Object {
    /// Names the bytes.
    pub body: [u8; 16],
    /// How many.
    pub bytes: u64,
    /// What they are of.
    pub kind: Kind,
}

/// Where an object's missing chunks come from, and how they are known to be right.
#[derive(Clone)]
pub enum Kind {
    /// A title's track file: each chunk is verified against the index before anyone has it.
    Track {
        /// The title.
        title: Arc<Title>,
        /// The track's place in the index.
        track: usize,
        /// Who asked, where that was another node.
        passed: Passed,
    },
    /// A stored representation: chunks are fetched on condition of its validator.
    Web(Web),
}

/// The nodes that a request has passed: its `CDN-Loop` values (RFC 8586). What is fetched for it
/// says so, too.
///
/// Only another node's request has any: were a client believed, it could keep others that wait
/// for the same bytes from the nodes that it names.
#[derive(Clone, Default)]
pub struct Passed(Arc<[HeaderValue]>, Option<Instant>);

impl Passed {
    /// Those of a request, of which the last waits for the answer until `answer_by`.
    pub fn of(fields: &HeaderMap, answer_by: Option<Instant>) -> Self {
        Self(fields.get_all(CDN_LOOP).iter().cloned().collect(), answer_by)
    }

    /// Whether another node asks.
    pub fn is_for_peer(&self) -> bool {
        !self.0.is_empty()
    }

    /// Until when the last of them waits for the answer to begin.
    pub fn answer_by(&self) -> Option<Instant> {
        self.1
    }

    /// Says it in a request.
    pub fn tell(&self, ask: &mut Ask) {
        ask.by_peer = self.is_for_peer();
        for value in self.0.iter() {
            ask.fields.append(CDN_LOOP, value.clone());
        }
    }
}

/// A stored representation, and the request at hand, for which what is missing is fetched.
#[derive(Clone)]
pub struct Web {
    /// The request.
    pub wanted: Arc<Wanted>,
    /// What is known of the representation.
    pub head: Arc<Head>,
}

impl Object {
    /// A track of a title.
    pub fn track(title: &Arc<Title>, track: usize) -> Option<Self> {
        let bytes = title.index.tracks.get(track)?.facts.file_bytes;
        let place = u32::try_from(track).ok()?;
        let mut named = [0; 20];
        named[..16].copy_from_slice(title.version.as_bytes());
        named[16..].copy_from_slice(&place.to_le_bytes());
        let body = xxhash_rust::xxh3::xxh3_128(&named).to_le_bytes();
        Some(Self {
            body,
            bytes,
            kind: Kind::Track { title: Arc::clone(title), track, passed: Passed::default() },
        })
    }

    /// The same, on behalf of a request that has passed these nodes.
    pub fn passed_by(mut self, nodes: Passed) -> Self {
        if let Kind::Track { passed, .. } = &mut self.kind {
            *passed = nodes;
        }
        self
    }

    /// Whether another node asks.
    pub fn is_for_peer(&self) -> bool {
        match &self.kind {
            Kind::Track { passed, .. } => passed.is_for_peer(),
            Kind::Web(web) => web.wanted.by_peer,
        }
    }

    /// By which hash its runs have owners among nodes.
    pub fn asked_as(&self) -> [u8; 16] {
        match &self.kind {
            Kind::Track { .. } => self.body,
            Kind::Web(web) => web.wanted.key.0,
        }
    }

    /// Until when the node that asks, where one does, waits for the answer to begin.
    pub fn answer_by(&self) -> Option<Instant> {
        match &self.kind {
            Kind::Track { passed, .. } => passed.answer_by(),
            Kind::Web(web) => web.wanted.answer_by,
        }
    }

    /// A stored representation.
    pub fn web(wanted: &Arc<Wanted>, head: &Arc<Head>) -> Self {
        let web = Web { wanted: Arc::clone(wanted), head: Arc::clone(head) };
        Self { body: head.body, bytes: head.bytes, kind: Kind::Web(web) }
    }

    /// Whether missing chunks can be fetched: those of a stored representation only on
    /// condition of its validator (RFC 9110 section 13.1.5).
    pub fn can_be_fetched(&self) -> bool {
        match &self.kind {
            Kind::Track { .. } => true,
            Kind::Web(web) => web.head.facts(&web.wanted.caching).has_strong_validator(),
        }
    }

    /// The key of a chunk; there is one for each of an object of [`OBJECT_BYTES_MAX`].
    pub fn key(&self, number: u64) -> Option<Key> {
        let number = u32::try_from(number).ok()?;
        Some(Key { body: self.body, number })
    }

    /// The bytes of a chunk.
    pub fn chunk(&self, number: u64) -> ByteRange {
        chunk::range(number, self.bytes)
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> u64 {
        chunk::count(self.bytes)
    }
}
