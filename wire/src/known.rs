//! The head of an answer that is given again and again, made ready once.
//!
//! Invariant: however it leaves, its fields are the same.

use crate::at_hand;
use crate::direct::head;
use crate::quic::{DATA_BYTES_MAX, head_and_data};
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
    /// As HTTP/3's frames up to the body's bytes, once that was asked for.
    frames: OnceLock<Bytes>,
}

impl Known {
    /// Of these fields, which tell the length of the body (`body_bytes`, above 0) themselves.
    #[must_use]
    pub fn new(status: StatusCode, fields: HeaderMap, body_bytes: u64) -> Self {
        let mut head = Response::new(());
        (*head.status_mut(), *head.headers_mut()) = (status, fields);
        let (text, block, frames) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { head, body_bytes, text, block, frames }
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

    /// What goes before the body over HTTP/3, if that has so many bytes and is one DATA frame.
    pub(crate) fn frames(&self, body_bytes: u64) -> Option<Bytes> {
        if body_bytes != self.body_bytes || !(1..=DATA_BYTES_MAX).contains(&body_bytes) {
            return None;
        }
        let frames = || head_and_data(self.head.status(), self.head.headers(), body_bytes);
        Some(self.frames.get_or_init(frames).clone())
    }

    /// The answer with this body.
    pub(crate) fn response<B>(&self, body: B) -> Response<B> {
        let mut response = Response::new(body);
        *response.status_mut() = self.head.status();
        *response.headers_mut() = self.head.headers().clone();
        response
    }
}
