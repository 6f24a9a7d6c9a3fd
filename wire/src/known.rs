//! The head of an answer that is given again and again, made ready once.
//!
//! Invariant: however it leaves, its fields are the same.

use crate::at_hand;
use crate::direct::head;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

/// The head of an answer with a body, as long as it stays the same.
pub struct Known {
    status: StatusCode,
    fields: HeaderMap,
    /// As HTTP/1.1 has it, if it can be sent as it is.
    text: Option<Box<[u8]>>,
    /// As a block of HTTP/2's fields, likewise.
    block: Option<Bytes>,
}

impl Known {
    /// Of these fields, which tell the length of the body (`body_bytes`, above 0) themselves.
    #[must_use]
    pub fn new(status: StatusCode, fields: HeaderMap, body_bytes: u64) -> Self {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = fields;
        let is_whole = head::is_whole(&response, body_bytes);
        let block = at_hand::block(&response, body_bytes);
        let response = response.into_parts().0;
        let text = is_whole.then(|| {
            let mut text = Vec::new();
            head::write(&response, &mut text);
            text.into()
        });
        Self { status, fields: response.headers, text, block }
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn text(&self) -> Option<&[u8]> {
        self.text.as_deref()
    }

    pub(crate) fn block(&self) -> Option<Bytes> {
        self.block.clone()
    }

    /// The answer with this body.
    pub(crate) fn response<B>(&self, body: B) -> Response<B> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.fields.clone();
        response
    }
}
