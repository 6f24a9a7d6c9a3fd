//! The head of an answer that is given again and again, made ready once.
//!
//! Invariant: however it leaves, its fields are the same.

use crate::at_hand;
use crate::direct::head;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use std::sync::OnceLock;

/// The head of an answer with a body, as long as it stays the same.
pub struct Known {
    head: Response<()>,
    body_bytes: u64,
    /// As HTTP/1.1 has it, once that was asked for, if it can be sent as it is.
    text: OnceLock<Option<Box<[u8]>>>,
    /// As a block of HTTP/2's fields, likewise.
    block: OnceLock<Option<Bytes>>,
}

impl Known {
    /// Of these fields, which tell the length of the body (`body_bytes`, above 0) themselves.
    #[must_use]
    pub fn new(status: StatusCode, fields: HeaderMap, body_bytes: u64) -> Self {
        let mut head = Response::new(());
        (*head.status_mut(), *head.headers_mut()) = (status, fields);
        Self { head, body_bytes, text: OnceLock::new(), block: OnceLock::new() }
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.head.status()
    }

    pub(crate) fn text(&self) -> Option<&[u8]> {
        let write = || {
            let mut text = Vec::new();
            head::write(self.head.status(), self.head.headers(), &mut text);
            text.into()
        };
        let text = || head::is_whole(&self.head, self.body_bytes).then(write);
        self.text.get_or_init(text).as_deref()
    }

    pub(crate) fn block(&self) -> Option<Bytes> {
        self.block.get_or_init(|| at_hand::block(&self.head, self.body_bytes)).clone()
    }

    /// The answer with this body.
    pub(crate) fn response<B>(&self, body: B) -> Response<B> {
        let mut response = Response::new(body);
        *response.status_mut() = self.head.status();
        *response.headers_mut() = self.head.headers().clone();
        response
    }
}
