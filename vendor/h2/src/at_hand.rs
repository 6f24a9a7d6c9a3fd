//! Answers that are at hand when their requests have been read: they leave without a stream of
//! their own.

use crate::hpack::{self, Header};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

pub use crate::codec::{BODY_BYTES_MAX, HEAD_BYTES_MAX};

/// Who has answers at hand.
pub trait Answers: Send + Sync {
    /// Answers a GET without a body, if its answer is whole, its head is
    /// [`HEAD_BYTES_MAX`] at most, and its body, which is not empty, has no more bytes than
    /// `room`. Else what goes the usual way is given back: the request, or one that stands for
    /// it. Must not panic.
    fn answer(&self, request: Request<()>, room: usize) -> Result<Answer, Request<()>>;

    /// Fields of the 431 that a head gets which is longer than what is read.
    fn too_long(&self) -> HeaderMap {
        HeaderMap::new()
    }

    /// It has got one.
    fn was_too_long(&self) {}
}

/// An answer that is whole.
#[derive(Debug)]
pub struct Answer {
    /// A field block without a reference to the dynamic table (RFC 7541, section 6.2.2): right
    /// whatever was sent before it. [`Head`] makes one.
    pub head: Bytes,
    /// The body.
    pub body: Bytes,
}

/// An answer's head as a field block that changes no dynamic table, and needs none.
#[derive(Debug, Default)]
pub struct Head(BytesMut);

impl Head {
    /// One of this status.
    pub fn new(status: StatusCode) -> Self {
        let mut block = BytesMut::with_capacity(512);
        hpack::encode_apart(Header::Status(status), &mut block);
        Head(block)
    }

    /// Adds a field.
    pub fn push(&mut self, name: HeaderName, value: HeaderValue) {
        hpack::encode_apart(Header::Field { name, value }, &mut self.0);
    }

    /// The block.
    pub fn into_bytes(self) -> Bytes {
        self.0.freeze()
    }
}

#[derive(Clone)]
pub(crate) struct Hook(Arc<dyn Answers>);

impl Hook {
    pub(crate) fn answer(&self, request: Request<()>, room: usize) -> Result<Answer, Request<()>> {
        self.0.answer(request, room)
    }

    pub(crate) fn too_long(&self) -> HeaderMap {
        self.0.too_long()
    }

    pub(crate) fn was_too_long(&self) {
        self.0.was_too_long();
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, fmt: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt.write_str("Hook")
    }
}

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// Has the server's side of a connection, whose handshake `start` begins on this thread, ask
/// `answers` first. It is the way past who owns that connection.
pub fn begin<T>(answers: Arc<dyn Answers>, start: impl FnOnce() -> T) -> T {
    HOOK.with(|hook| *hook.borrow_mut() = Some(Hook(answers)));
    let started = start();
    taken();
    started
}

pub(crate) fn taken() -> Option<Hook> {
    HOOK.with(|hook| hook.borrow_mut().take())
}
