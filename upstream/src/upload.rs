//! The body of a request on its way up: taken from the client once, and only when a
//! connection asks for it.
//!
//! A small one stays here until the head of its answer comes, so that it can be sent anew should
//! the server not have looked at the request.

use crate::ask::RequestBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// A body of more is gone as it is sent. Forms and calls of an API are smaller; for as many of
/// them as an origin is asked at a time this is 32 MiB (512, the default of `in-flight-max`).
const KEPT_BYTES_MAX: usize = 64 << 10;

/// A client's body, and how far it is.
pub(crate) struct Upload {
    state: Mutex<State>,
    hint: SizeHint,
}

struct State {
    body: RequestBody,
    /// What was taken of it, as long as that is all here.
    kept: Option<Vec<u8>>,
    /// Who sends it: of those that came before, none takes any more.
    sender: u64,
    /// What that one has taken.
    sent: u64,
    /// Whether that one has taken its end.
    sent_whole: bool,
    /// When something was last taken.
    moved: Option<Instant>,
    /// What the client has sent.
    bytes: u64,
    /// Whether the server waits for the client.
    starved: bool,
    ended: bool,
    failed: Option<String>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Upload {
    pub(crate) fn new(body: RequestBody) -> Arc<Self> {
        let hint = body.size_hint();
        let may_be_kept = hint.lower() <= KEPT_BYTES_MAX as u64;
        let state = State {
            body,
            kept: may_be_kept.then(Vec::new),
            sender: 0,
            sent: 0,
            sent_whole: false,
            moved: None,
            bytes: 0,
            starved: false,
            ended: false,
            failed: None,
        };
        Arc::new(Self { state: Mutex::new(state), hint })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a server last took a piece.
    pub(crate) fn moved(&self) -> Option<Instant> {
        self.state().moved
    }

    /// Whether all of it can be sent, should some have been already.
    pub(crate) fn is_here(&self) -> bool {
        self.state().is_here()
    }

    /// It is not sent again: nothing is kept of it any more.
    pub(crate) fn forget(&self) {
        self.state().kept = None;
    }

    /// Bytes that the client has sent so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// Whether the client is to send more.
    pub(crate) fn is_starved(&self) -> bool {
        self.state().starved
    }

    /// Whether the server that it is sent to has taken some of it.
    pub(crate) fn is_begun(&self) -> bool {
        self.state().sent > 0
    }

    /// Whether that server has taken some of it, but not all.
    pub(crate) fn is_cut(&self) -> bool {
        let state = self.state();
        let whole = self.hint.exact().map_or(state.sent_whole, |exact| state.sent >= exact);
        state.sent > 0 && !whole
    }

    /// What the client's side failed with.
    pub(crate) fn failed(&self) -> Option<String> {
        self.state().failed.clone()
    }
}

impl State {
    fn is_here(&self) -> bool {
        self.failed.is_none() && (self.moved.is_none() || self.kept.is_some())
    }

    /// Another one sends it from its beginning: which.
    fn begin(&mut self) -> u64 {
        if !self.is_here() {
            // That one can't.
            return u64::MAX;
        }
        (self.sent, self.sent_whole) = (0, false);
        self.sender += 1;
        self.sender
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let at = usize::try_from(self.sent).unwrap_or(usize::MAX);
        let again = self.kept.as_ref().and_then(|kept| kept.get(at..));
        if let Some(again) = again.filter(|again| !again.is_empty()) {
            let piece = Bytes::copy_from_slice(again);
            self.moved = Some(Instant::now());
            self.sent = self.bytes;
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if !self.ended {
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            self.starved = polled.is_pending();
            let came = ready!(polled);
            self.moved = Some(Instant::now());
            if let Some(came) = came {
                self.came(&came);
                return Poll::Ready(Some(came));
            }
            self.ended = true;
        }
        self.sent_whole = true;
        Poll::Ready(None)
    }

    fn came(&mut self, came: &Result<Frame<Bytes>, BoxError>) {
        match came.as_ref().map(Frame::data_ref) {
            Ok(Some(piece)) => {
                self.bytes += piece.len() as u64;
                self.sent = self.bytes;
                let fits = |kept: &Vec<u8>| kept.len() + piece.len() <= KEPT_BYTES_MAX;
                self.kept = self.kept.take().filter(fits);
                self.kept.iter_mut().for_each(|kept| kept.extend_from_slice(piece));
            }
            // Trailers.
            Ok(None) => self.kept = None,
            Err(error) => self.failed = Some(error.to_string()),
        }
    }
}

/// What a connection sends: nothing, or an upload.
pub(crate) struct SendBody {
    upload: Option<Arc<Upload>>,
    sender: u64,
    taken: Taken,
}

/// Whether a connection has begun with a request: hyper asks for the size of its body first.
#[derive(Clone, Default)]
pub(crate) struct Taken(Arc<AtomicBool>);

impl Taken {
    pub(crate) fn is_so(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl SendBody {
    pub(crate) fn new(upload: Option<Arc<Upload>>) -> Self {
        Self { upload, sender: 0, taken: Taken::default() }
    }

    /// Sends it from its beginning; those that were made before send no more.
    pub(crate) fn anew(&self) -> Self {
        let sender = self.upload.as_ref().map_or(0, |upload| upload.state().begin());
        Self { upload: self.upload.clone(), sender, taken: Taken::default() }
    }

    pub(crate) fn taken(&self) -> Taken {
        self.taken.clone()
    }

    /// Whether all of it can be sent, should some have been already.
    pub(crate) fn is_here(&self) -> bool {
        self.upload.as_deref().is_none_or(Upload::is_here)
    }
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(upload) = &self.upload else { return Poll::Ready(None) };
        let mut state = upload.state();
        if self.sender != state.sender {
            return Poll::Ready(Some(Err("it is sent by another connection".into())));
        }
        state.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.taken.0.store(true, Relaxed);
        self.upload.as_ref().is_none_or(|upload| upload.hint.exact() == Some(0))
    }

    fn size_hint(&self) -> SizeHint {
        self.upload.as_ref().map_or(SizeHint::with_exact(0), |upload| upload.hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body_util::{BodyExt, StreamBody};

    fn upload(pieces: &[usize]) -> SendBody {
        let piece = |bytes: &usize| Ok::<_, BoxError>(Frame::data(vec![b'x'; *bytes].into()));
        let pieces: Vec<_> = pieces.iter().map(piece).collect();
        let body = StreamBody::new(stream::iter(pieces)).boxed_unsync();
        SendBody::new(Some(Upload::new(body)))
    }

    async fn bytes(body: SendBody) -> Option<usize> {
        body.collect().await.ok().map(|whole| whole.to_bytes().len())
    }

    #[tokio::test]
    async fn a_small_body_is_sent_again_and_no_part_of_a_large_one() {
        let table: [(&[usize], bool); 5] = [
            (&[], true),
            (&[1, 0, 2], true),
            (&[KEPT_BYTES_MAX - 1, 1], true),
            (&[KEPT_BYTES_MAX, 1], false),
            (&[1, KEPT_BYTES_MAX], false),
        ];
        for (pieces, again) in table {
            let (first, whole) = (upload(pieces), Some(pieces.iter().sum()));
            assert_eq!(bytes(first.anew()).await, whole, "{pieces:?}");
            assert_eq!(first.is_here(), again, "{pieces:?}");
            assert_eq!(bytes(first.anew()).await, whole.filter(|_| again), "{pieces:?}");
            first.upload.iter().for_each(|upload| upload.forget());
            assert!(!first.is_here() && bytes(first.anew()).await.is_none(), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn who_began_before_takes_nothing_from_who_sends_it_anew() {
        let upload = upload(&[3, 4]);
        let (mut late, mut first) = (upload.anew(), upload.anew());
        assert!(first.frame().await.unwrap().is_ok());
        let mut second = upload.anew();
        assert!(late.frame().await.unwrap().is_err());
        assert!(second.frame().await.unwrap().is_ok());
        assert!(first.frame().await.unwrap().is_err());
        assert_eq!(bytes(second).await, Some(4));
    }
}
