//! A request's header block that is like the one before but for its path: what it says is known.
//!
//! That is what nearly all blocks of a connection are, once the dynamic table has their fields.
//! What a block says follows from its bytes and from the table. So where a block changes no
//! table, and the table is as it was, equal bytes before and behind the path's value say the
//! same again; the value alone is read.

use super::decoder::{decode_int, Decoder};
use super::BytesStr;
use crate::frame::Pseudo;

use bytes::{Buf, Bytes};
use http::uri::{self, Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use std::ops::Range;

/// Longer blocks are read as ever.
const BLOCK_BYTES_MAX: usize = 1_024;

/// The prefix of a string's length that tells of Huffman coding.
const HUFFMAN: u8 = 0x80;

/// The last block of a connection, and its request.
#[derive(Debug, Default)]
pub struct Alike {
    block: Vec<u8>,
    /// Where the value of its path lies, with its length.
    path: Range<usize>,
    /// Changes of the decoder's table before it.
    changes: u64,
    /// It was like the one before it, but of that one's request nothing is known.
    is_again: bool,
    known: Option<Box<Known>>,
    ready: Option<Request<()>>,
}

/// All that a block says, but for the path.
#[derive(Debug)]
struct Known {
    scheme: Scheme,
    authority: Authority,
    fields: HeaderMap,
    /// As RFC 9113, section 6.5.2 counts it.
    list_size: usize,
}

impl Alike {
    /// Reads a block, if it is like the last one. Else it remembers it, and it is to be read as
    /// ever.
    pub fn read(&mut self, block: &[u8], decoder: &mut Decoder, list_size_max: usize) -> bool {
        self.is_again = false;
        self.ready = match self.path_of(block, decoder) {
            Some(path) => {
                self.is_again = self.known.is_none();
                let known = self.known.as_ref();
                known.and_then(|known| known.request(decoder.string(&block[path])?, list_size_max))
            }
            None => {
                self.remember(block, decoder);
                None
            }
        };
        self.ready.is_some()
    }

    /// A block comes that is to be read as ever.
    pub fn pass(&mut self) {
        (self.is_again, self.ready) = (false, None);
    }

    /// The request of the block that was read last, if it was read here.
    pub fn take(&mut self) -> Option<Request<()>> {
        self.ready.take()
    }

    /// The last block, which was read as ever, is this request, whose list of fields is of this
    /// size.
    pub fn learn(&mut self, request: &Request<()>, list_size: usize) {
        if std::mem::take(&mut self.is_again) {
            self.known = Known::of(request, list_size).map(Box::new);
        }
    }

    /// Where the path's value is in a block that is like the last one.
    fn path_of(&self, block: &[u8], decoder: &Decoder) -> Option<Range<usize>> {
        let (before, behind) = (&self.block[..self.path.start], &self.block[self.path.end..]);
        if before.is_empty() || self.changes != decoder.changes() {
            return None;
        }
        let mut rest = block.strip_prefix(before)?;
        string(&mut rest)?;
        (rest == behind).then(|| before.len()..block.len() - rest.len())
    }

    fn remember(&mut self, block: &[u8], decoder: &Decoder) {
        self.known = None;
        self.block.clear();
        self.path = 0..0;
        if let Some(path) = find_path(block).filter(|_| block.len() <= BLOCK_BYTES_MAX) {
            self.block.extend_from_slice(block);
            (self.path, self.changes) = (path, decoder.changes());
        }
    }
}

impl Known {
    /// None of a request whose like must be read as ever: what is given back by [`parts`] must be
    /// what was read.
    fn of(request: &Request<()>, list_size: usize) -> Option<Self> {
        let uri = request.uri();
        let (scheme, authority) = (uri.scheme()?, uri.authority()?);
        if request.method() != Method::GET || !request.extensions().is_empty() {
            return None;
        }
        if request.headers().contains_key(http::header::CONTENT_LENGTH) {
            return None;
        }
        // Copies: what was read from may be a large buffer.
        let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let mut fields = HeaderMap::with_capacity(request.headers().keys_len());
        for (name, value) in request.headers() {
            let value = HeaderValue::from_maybe_shared(copy(value.as_bytes())).ok()?;
            fields.try_append(name.clone(), value).ok()?;
        }
        Some(Known {
            scheme: scheme.clone(),
            authority: Authority::from_maybe_shared(copy(authority.as_str().as_bytes())).ok()?,
            fields,
            list_size: list_size.checked_sub(uri.path_and_query()?.as_str().len())?,
        })
    }

    fn request(&self, path: Bytes, list_size_max: usize) -> Option<Request<()>> {
        let bytes = path.len();
        if self.list_size + bytes >= list_size_max || !path.is_ascii() {
            return None;
        }
        let path = PathAndQuery::from_maybe_shared(path).ok()?;
        // Without what it drops, or puts in place of nothing.
        if path.as_str().len() != bytes {
            return None;
        }
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        let mut request = Request::new(());
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(parts).ok()?;
        *request.headers_mut() = self.fields.clone();
        Some(request)
    }
}

/// What a request that was read here would have been read as.
pub fn parts(request: Request<()>) -> (Pseudo, HeaderMap) {
    let uri = request.uri();
    let pseudo = Pseudo {
        method: Some(request.method().clone()),
        scheme: uri.scheme_str().map(BytesStr::from),
        authority: uri.authority().map(|authority| BytesStr::from(authority.as_str())),
        path: uri.path_and_query().map(|path| BytesStr::from(path.as_str())),
        ..Pseudo::default()
    };
    (pseudo, request.into_parts().0.headers)
}

/// Where the value of the one path is in a block that changes no table. None in any other block.
fn find_path(block: &[u8]) -> Option<Range<usize>> {
    let (mut rest, mut found) = (block, None);
    while let Some(first) = rest.first() {
        if first & 0x80 != 0 {
            // Of a table (RFC 7541, section 6.1).
            decode_int(&mut rest, 7).ok()?;
        } else if first & 0xe0 == 0 {
            // Not to be put into a table (sections 6.2.2 and 6.2.3).
            let name = decode_int(&mut rest, 4).ok()?;
            if name == 0 {
                string(&mut rest)?;
            }
            let from = block.len() - rest.len();
            string(&mut rest)?;
            let is_path = name == 4 || name == 5;
            if is_path && found.replace(from..block.len() - rest.len()).is_some() {
                return None;
            }
        } else {
            return None;
        }
    }
    found
}

/// A string (RFC 7541, section 5.2) taken from the front, and whether it is Huffman-coded.
pub(super) fn string<'a>(rest: &mut &'a [u8]) -> Option<(bool, &'a [u8])> {
    let is_coded = rest.first()? & HUFFMAN != 0;
    let length = decode_int(rest, 7).ok()?;
    let bytes = rest.get(..length)?;
    rest.advance(length);
    Some((is_coded, bytes))
}
