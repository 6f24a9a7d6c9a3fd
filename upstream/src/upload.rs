//! The body of a request on its way up: taken from the client once, and only when a
//! connection asks for it.

use crate::ask::RequestBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

/// A client's body, and how far it is.
pub(crate) struct Upload {
    body: Mutex<RequestBody>,
    hint: SizeHint,
    moved: Mutex<Option<Instant>>,
    bytes: AtomicU64,
    /// Whether the server waits for the client.
    starved: AtomicBool,
    /// Whether its end was taken.
    ended: AtomicBool,
    failed: OnceLock<String>,
}

impl Upload {
    pub(crate) fn new(body: RequestBody) -> Arc<Self> {
        let hint = body.size_hint();
        let (moved, failed, starved) = (Mutex::new(None), OnceLock::new(), AtomicBool::default());
        let (bytes, ended) = (AtomicU64::new(0), AtomicBool::default());
        Arc::new(Self { body: Mutex::new(body), hint, moved, bytes, starved, ended, failed })
    }

    /// When the server last took a piece.
    pub(crate) fn moved(&self) -> Option<Instant> {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether none of it was taken.
    pub(crate) fn is_untouched(&self) -> bool {
        self.moved().is_none()
    }

    /// Bytes that the server has taken so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether the client is to send more.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved.load(Relaxed)
    }

    /// Whether some of it was taken, but not all.
    pub(crate) fn is_cut(&self) -> bool {
        let whole = self
            .hint
            .exact()
            .map_or_else(|| self.ended.load(Relaxed), |exact| self.bytes() >= exact);
        self.bytes() > 0 && !whole
    }

    /// What the client's side failed with.
    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }
}

/// What a connection sends: nothing, or an upload.
#[derive(Clone)]
pub(crate) struct SendBody(pub(crate) Option<Arc<Upload>>);

impl SendBody {
    /// Whether all of it is there still.
    pub(crate) fn is_untouched(&self) -> bool {
        self.0.as_deref().is_none_or(Upload::is_untouched)
    }
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(upload) = &self.0 else { return Poll::Ready(None) };
        let mut body = upload.body.lock().unwrap_or_else(PoisonError::into_inner);
        let polled = Pin::new(&mut *body).poll_frame(cx);
        upload.starved.store(polled.is_pending(), Relaxed);
        if polled.is_ready() {
            *upload.moved.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        upload.ended.fetch_or(matches!(polled, Poll::Ready(None)), Relaxed);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let taken = frame.data_ref().map_or(0, Bytes::len);
            upload.bytes.fetch_add(taken as u64, Relaxed);
        }
        if let Poll::Ready(Some(Err(error))) = &polled {
            _ = upload.failed.set(error.to_string());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|upload| upload.hint.exact() == Some(0))
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |upload| upload.hint)
    }
}
