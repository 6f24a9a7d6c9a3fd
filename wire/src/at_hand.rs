//! HTTP/2 requests whose answer is small and at hand: it leaves as soon as h2 has read the request,
//! without a stream of its own in h2 and hyper. Our patched h2 asks (`vendor/README.md`); all else
//! goes the usual way.
//!
//! Invariant: each request reaches the service once, here. What it said goes with the stream, if
//! that is not answered at once.

use crate::responding::{BODY_BYTES_MAX, Requests, small};
use crate::service::Answering;
use crate::{Reply, Service, direct::head};
use bytes::Bytes;
use h2::at_hand::{Answer, Answers, HEAD_BYTES_MAX, Head};
use http::header::{HeaderName, TE};
use http::{HeaderMap, Request, Response, Version, request};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

const _: () = assert!(BODY_BYTES_MAX <= h2::at_hand::BODY_BYTES_MAX as u64, "h2 takes them");

/// Fields of a connection (RFC 9113 section 8.2.2), beside those that no whole head has.
const OF_CONNECTIONS: [HeaderName; 3] =
    [TE, HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")];

/// What the service said to a request, on its way through h2 and hyper. Taken once.
struct Begun<B>(Arc<Mutex<Option<Answering<B>>>>);

impl<B> Clone for Begun<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Begins a connection whose requests are asked for here first.
pub fn begin<S: Service, T>(requests: Arc<Requests<S>>, start: impl FnOnce() -> T) -> T {
    h2::at_hand::begin(requests, start)
}

/// What the service said to this request before, if it was asked.
pub fn begun<S: Service, T>(request: &mut Request<T>) -> Option<Answering<S::Body>> {
    let begun = request.extensions_mut().remove::<Begun<S::Body>>()?;
    begun.0.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The head of an answer with a body of so many bytes, as a block that is right at any time on any
/// connection. None where it must be seen by hyper, or is long.
pub fn block<B>(response: &Response<B>, body_bytes: u64) -> Option<Bytes> {
    let fields = response.headers();
    let is_plain = head::is_whole(response, body_bytes)
        && !OF_CONNECTIONS.iter().any(|name| fields.contains_key(name));
    if !is_plain {
        return None;
    }
    let mut head = Head::new(response.status());
    for (name, value) in fields {
        head.push(name.clone(), value.clone());
    }
    Some(head.into_bytes()).filter(|block| block.len() <= HEAD_BYTES_MAX)
}

impl<S: Service> Answers for Requests<S> {
    fn answer(&self, request: Request<()>, room: usize) -> Result<Answer, Request<()>> {
        let head = request.into_parts().0;
        // As in a task of its own, a panic is this request's alone.
        let asked = catch_unwind(AssertUnwindSafe(|| self.ask(head, room as u64)));
        let begun = match asked {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(reply)) => reply,
            Err(panic) => Reply::later(async move { resume_unwind(panic) }),
        };
        let begun = Begun(Arc::new(Mutex::new(Some(self.awaited(begun)))));
        let mut stands_for = Request::new(());
        *stands_for.version_mut() = Version::HTTP_2;
        stands_for.extensions_mut().insert(begun);
        Err(stands_for)
    }

    fn too_long(&self) -> HeaderMap {
        self.of_unread()
    }

    fn was_too_long(&self) {
        self.refused_too_long();
    }
}

impl<S: Service> Requests<S> {
    fn ask(&self, head: request::Parts, room: u64) -> Result<Answer, Reply<S::Body>> {
        let fits = |body: &S::Body| small(body).filter(|bytes| *bytes <= room);
        let (head, body, whole) = match self.reply(head, "h2") {
            Reply::Known(known, mut body) => {
                let head = known.block().filter(|_| fits(&body).is_some());
                let whole = head.and_then(|head| Some((head, S::whole(&mut body)?)));
                match whole {
                    Some((head, whole)) => (head, body, whole),
                    None => return Err(Reply::Known(known, body)),
                }
            }
            Reply::Now(mut response) => {
                let head = fits(response.body()).and_then(|bytes| block(&response, bytes));
                let whole = head.and_then(|head| Some((head, S::whole(response.body_mut())?)));
                match whole {
                    Some((head, whole)) => (head, response.into_body(), whole),
                    None => return Err(Reply::Now(response)),
                }
            }
            later @ Reply::Later(_) => return Err(later),
        };
        drop(body);
        self.took(whole.len());
        Ok(Answer { head, body: whole })
    }
}
