//! Requests of HTTP/1.1 and 2 to the service, and answers back, their bodies watched.

use crate::at_hand;
pub use crate::direct::BODY_BYTES_MAX;
use crate::direct::head;
use crate::frames::{Cut, FRAME_BYTES};
use crate::half::{Answers, Asked, Counted};
use crate::idle::UnderWay;
use crate::pace::{Pace, Paced};
use crate::service::Answering;
use crate::unframed::{Ending, Unframed};
#[cfg(feature = "at-hand")]
use crate::unread::Why;
use crate::{Known, Reply, Request, RequestBody, Service, Shared, TwoLengths, Via};
use bytes::Bytes;
use http::{HeaderMap, Response, Version};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

/// A body on its way, as its connection watches it.
pub type Sent<B> = Paced<Cut<Counted<Ending<B>>>>;

/// What a connection's requests share.
pub struct Requests<S: Service> {
    shared: Arc<Shared<S>>,
    via: Arc<Via>,
    pace: Arc<Pace>,
    unframed: Unframed,
    answers: Answers,
    /// The answer to the request that hyper reads next, for which the service was asked before.
    begun: Mutex<Option<Answering<S::Body>>>,
}

/// The head of an answer that is at hand.
pub enum Head {
    Own(http::response::Parts),
    Known(Arc<Known>),
}

impl Head {
    /// Writes it as HTTP/1.1 has it.
    pub fn write(&self, text: &mut Vec<u8>) {
        match self {
            Self::Own(head) => head::write(head.status, &head.headers, text),
            Self::Known(known) => text.extend_from_slice(known.text().unwrap_or_default()),
        }
    }
}

/// The length of a body that is short, and has any.
pub fn small<B: Body>(body: &B) -> Option<u64> {
    body.size_hint().exact().filter(|bytes| (1..=BODY_BYTES_MAX).contains(bytes))
}

fn no_body() -> RequestBody {
    Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync()
}

/// hyper's view of them.
pub struct Serving<S: Service>(pub Arc<Requests<S>>);

impl<S: Service> Clone for Serving<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// How the bodies of a request's answer are watched.
pub struct Watch {
    version: Version,
    /// HTTP/1.1.
    asked: Option<Asked>,
    /// HTTP/2. An HTTP/1.1 peer that takes nothing is found by its socket.
    under_way: Option<UnderWay>,
}

impl<S: Service> Requests<S> {
    /// None yet.
    pub fn new(
        shared: Arc<Shared<S>>,
        via: Arc<Via>,
        pace: Arc<Pace>,
        unframed: Unframed,
        answers: Answers,
    ) -> Self {
        Self { shared, via, pace, unframed, answers, begun: Mutex::new(None) }
    }

    /// Answers an HTTP/1.1 request that has no body, if its answer is small and at hand. Else
    /// that waits until hyper has read the same request.
    pub fn at_hand(&self, head: http::request::Parts) -> Option<(Head, Bytes)> {
        let reply = match self.reply(head, "http/1.1") {
            Reply::Known(known, mut body) => {
                if known.text().is_some()
                    && small(&body).is_some()
                    && let Some(bytes) = S::whole(&mut body)
                {
                    return Some((Head::Known(known), bytes));
                }
                Reply::Known(known, body)
            }
            Reply::Now(mut response) => {
                let is_whole = |bytes: &u64| head::is_whole(&response, *bytes);
                if small(response.body()).filter(is_whole).is_some()
                    && let Some(bytes) = S::whole(response.body_mut())
                {
                    return Some((Head::Own(response.into_parts().0), bytes));
                }
                Reply::Now(response)
            }
            later @ Reply::Later(_) => later,
        };
        let begun = self.awaited(reply);
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
        None
    }

    /// Fields of answers to what can't be read.
    pub fn of_unread(&self) -> HeaderMap {
        self.shared.service.of_unread()
    }

    /// An HTTP/2 request's head was longer than what is read.
    #[cfg(feature = "at-hand")]
    pub fn refused_too_long(&self) {
        self.shared.metrics.unread.count("h2", Why::TooLarge);
    }

    /// What the service says to a request without a body.
    pub fn reply(&self, head: http::request::Parts, protocol: &'static str) -> Reply<S::Body> {
        let via = Arc::clone(&self.via);
        self.shared.reply(Request { head, body: no_body(), protocol, via })
    }

    /// The same as a future.
    pub fn awaited(&self, reply: Reply<S::Body>) -> Answering<S::Body> {
        self.shared.awaited(reply)
    }

    /// So many bytes of a body that is whole were handed over.
    #[cfg(feature = "at-hand")]
    pub fn took(&self, bytes: usize) {
        self.pace.took(bytes);
    }

    fn begun(&self) -> Option<Answering<S::Body>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn answer(&self, request: http::Request<Incoming>) -> Answering<S::Body> {
        let is_h2 = request.version() == Version::HTTP_2;
        let (head, body) = request.into_parts();
        // A body of no size needs no memory.
        let body: RequestBody = match body.is_end_stream() {
            true => no_body(),
            false => body.map_err(Into::into).boxed_unsync(),
        };
        let protocol = if is_h2 { "h2" } else { "http/1.1" };
        let via = Arc::clone(&self.via);
        self.shared.answer(Request { head, body, protocol, via })
    }

    fn watched(&self, response: Response<S::Body>, watch: Watch) -> Response<Sent<S::Body>> {
        let Watch { version, asked, under_way } = watch;
        let is_h2 = version == Version::HTTP_2;
        let bytes_max = if is_h2 && !self.shared.levers.frames { FRAME_BYTES } else { usize::MAX };
        response.map(|body| {
            let body = Counted::new(self.unframed.watch(version, body), asked);
            Paced::new(Cut::new(body, bytes_max), under_way)
        })
    }
}

impl<S: Service> hyper::service::Service<http::Request<Incoming>> for Serving<S> {
    type Response = Response<Sent<S::Body>>;
    type Error = Infallible;
    type Future = Responding<S>;

    fn call(&self, mut request: http::Request<Incoming>) -> Responding<S> {
        let (version, is_whole) = (request.version(), request.body().is_end_stream());
        let is_h2 = version == Version::HTTP_2;
        let asked = (!is_h2).then(|| self.0.answers.asked(is_whole));
        if asked.as_ref().is_some_and(Asked::has_two_lengths) {
            request.extensions_mut().insert(TwoLengths);
        }
        let under_way = is_h2.then(|| UnderWay::new(&self.0.pace));
        if !is_h2 {
            self.0.pace.requested.is_http1();
        }
        let watch = Watch { version, asked, under_way };
        let begun = match is_h2 {
            true => at_hand::begun::<S, _>(&mut request),
            false => None,
        };
        if begun.is_none() && (is_h2 || !is_whole) {
            return Responding::Asked(Some((request, watch)), Arc::clone(&self.0));
        }
        let begun = begun.or_else(|| self.0.begun());
        match begun.unwrap_or_else(|| self.0.answer(request)) {
            Answering::Now(response) => {
                Responding::Ready(response.map(|response| self.0.watched(response, watch)))
            }
            later => Responding::Later(later, Some(watch), Arc::clone(&self.0)),
        }
    }
}

/// An answer under way.
pub enum Responding<S: Service> {
    /// It is asked for when it is polled. For HTTP/2 that is in a task of its own, so that a panic
    /// is that request's alone; and a request with a body is not refused before hyper has begun
    /// to read that, or it would not read it to its end and close the connection.
    Asked(Option<(http::Request<Incoming>, Watch)>, Arc<Requests<S>>),
    Later(Answering<S::Body>, Option<Watch>, Arc<Requests<S>>),
    /// Taken once.
    Ready(Option<Response<Sent<S::Body>>>),
}

impl<S: Service> Future for Responding<S> {
    type Output = Result<Response<Sent<S::Body>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match this {
                Self::Ready(response) => {
                    return Poll::Ready(Ok(response.take().expect("polled until it is ready")));
                }
                Self::Asked(request, requests) => {
                    let (request, watch) = request.take().expect("it is polled to its end");
                    let requests = Arc::clone(requests);
                    *this = match requests.answer(request) {
                        Answering::Now(response) => {
                            Self::Ready(response.map(|response| requests.watched(response, watch)))
                        }
                        later => Self::Later(later, Some(watch), requests),
                    };
                }
                Self::Later(answering, watch, requests) => {
                    let response = ready!(Pin::new(answering).poll(cx));
                    let watch = watch.take().expect("it is polled to its end");
                    *this = Self::Ready(Some(requests.watched(response, watch)));
                }
            }
        }
    }
}
