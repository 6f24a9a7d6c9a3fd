//! Requests to one hop: which connection each goes over, and which are sent anew over another one:
//! those whose connection was given up by the other side, or that the other side did not take.

use crate::anew::{Anew, End};
use crate::connect::Connector;
use crate::fault;
use crate::lanes::{LANES_MAX, Lanes, NoConnection, Stage};
use crate::link::{Link, Stream, link, poison};
use crate::upload::{SendBody, Taken};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Client, Error};
use prometheus::IntCounter;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Connections to one place.
pub(crate) struct Pool {
    /// One for each lane.
    clients: [Client<Connector, SendBody>; LANES_MAX],
    lanes: Lanes,
    /// How long it may take until a connection of HTTP/2 that is there has said what it takes.
    settled_max: Duration,
    /// Those that requests went over, as long as they are there.
    known: Mutex<Vec<(Arc<Link>, CaptureConnection)>>,
    /// Requests sent anew.
    anew: IntCounter,
}

/// Why a request has no answer.
pub(crate) enum Unanswered {
    /// None of it was sent.
    NoConnection(NoConnection),
    /// It was given to a connection, or was to open one.
    Lost(Lost),
}

/// What is known of a request without an answer.
pub(crate) struct Lost {
    pub(crate) error: Arc<Error>,
    pub(crate) fate: Fate,
    /// By which it may be sent anew, as its fate allows.
    pub(crate) end: End,
    /// The other side dropped the connection with something unread.
    pub(crate) is_reset: bool,
}

/// What has become of a request without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The server has not looked at it: it said so (RFC 9113 sections 6.8 and 8.7), or none of it
    /// was sent. Any request may be sent anew.
    Unprocessed,
    /// Its connection was there before it, and given up by the other side without a byte of an
    /// answer: that says nothing of the server.
    GivenUp,
    /// The server may have done anything with it.
    Unknown,
}

impl Unanswered {
    /// Whether a connection could not be opened, or was ended by the other side.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::NoConnection(NoConnection::Failed(_)) | Self::Lost(_))
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection(NoConnection::Full) => {
                write!(f, "{LANES_MAX} connections have as many requests under way as they take")
            }
            Self::NoConnection(NoConnection::Silent) => {
                f.write_str("no connection over which it said in time what it takes")
            }
            Self::NoConnection(NoConnection::Failed(error)) | Self::Lost(Lost { error, .. }) => {
                f.write_str(&service::client::chain(&**error))
            }
        }
    }
}

impl Pool {
    /// Counts those that are sent anew in `anew`.
    pub(crate) fn new(connector: Connector, anew: IntCounter) -> Self {
        let lanes = Lanes::new(connector.may_be_shared());
        let settled_max = connector.limit();
        let clients = std::array::from_fn(|_| connector.client());
        Self { clients, lanes, settled_max, known: Mutex::default(), anew }
    }

    /// Requests that wait for others to end, since all connections have as many as they take.
    pub(crate) fn waiting(&self) -> usize {
        self.lanes.waiting()
    }

    /// Sends a request; anew where all of its body is there still, and it was not processed, or may
    /// be sent twice (RFC 9110 section 9.2.2) and its connection was given up.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn request(
        &self,
        request: Request<SendBody>,
    ) -> Result<Response<Incoming>, Unanswered> {
        self.give(request, &Anew::default(), &Stage::default()).await
    }

    /// As [`Self::request`]; `anew` is what is left of how often that may be, `stage` tells how far
    /// it is.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn give(
        &self,
        request: Request<SendBody>,
        anew: &Anew,
        stage: &Stage,
    ) -> Result<Response<Incoming>, Unanswered> {
        let (head, body) = request.into_parts();
        loop {
            let request = Request::from_parts(head.clone(), body.anew());
            let Some(outcome) = self.once(request, anew, stage).await else {
                self.anew.inc();
                continue;
            };
            let Err(Unanswered::Lost(Lost { fate, end, .. })) = &outcome else {
                return outcome;
            };
            let fate = *fate;
            let may_again = match fate {
                Fate::Unprocessed => true,
                Fate::GivenUp => head.method.is_idempotent(),
                Fate::Unknown => false,
            };
            if !may_again || !body.is_here() || !anew.take(*end) {
                return outcome;
            }
            if fate == Fate::GivenUp {
                anew.unsure.note();
            }
            self.anew.inc();
        }
    }

    /// `None`: no connection has begun with it, and it may be sent anew.
    async fn once(
        &self,
        mut request: Request<SendBody>,
        anew: &Anew,
        stage: &Stage,
    ) -> Option<Result<Response<Incoming>, Unanswered>> {
        let taken = request.body().taken();
        let mut turn = match self.lanes.turn(request.uri().authority(), stage).await {
            Ok(turn) => turn,
            Err(none) => return Some(Err(Unanswered::NoConnection(none))),
        };
        let captured = capture_connection(&mut request);
        let began = Instant::now();
        let mut asked = pin!(self.clients[turn.lane].request(request));
        let (opens, joined) = (turn.opens, turn.link());
        // What it counts as at a connection that was not known to be its own.
        let (mut under_way, mut is_given) = (None, false);
        let mut asked = poll_fn(|cx| {
            let polled = asked.as_mut().poll(cx);
            if !is_given && captured.connection_metadata().is_some() {
                stage.give();
                is_given = true;
                under_way = count(&captured, joined.as_ref()).filter(|_| !opens);
            }
            polled
        });
        let mut may_be_lost = true;
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut asked => break outcome,
                link = opened(captured.clone(), self.settled_max), if turn.is_opening() => {
                    match link {
                        Some(link) => turn.over(&link, &captured),
                        None => {
                            poison(&captured);
                            turn.silent();
                        }
                    }
                }
                () = lost(captured.clone(), &taken), if may_be_lost => {
                    poison(&captured);
                    if anew.take(if turn.opens { End::Refused } else { End::InOrder }) {
                        return None;
                    }
                    may_be_lost = false;
                }
            }
        };
        Some(match outcome {
            Ok(mut response) => {
                if let Some(link) = response.extensions_mut().remove::<Arc<Link>>() {
                    turn.over(&link, &captured);
                    if link.is_old() {
                        poison(&captured);
                    }
                    self.know(link, captured);
                }
                turn.take_stream().map(|stream| response.extensions_mut().insert(Arc::new(stream)));
                Ok(response)
            }
            Err(error) => {
                let error = Arc::new(error);
                if error.is_connect() {
                    turn.failed(&error);
                }
                let link = link(&captured);
                let fate = fate(&error, link.as_deref(), began);
                match fate {
                    // That connection takes no more, or no more at a time.
                    Fate::Unprocessed => poison(&captured),
                    Fate::GivenUp => self.retire(began),
                    Fate::Unknown => {}
                }
                let end = match &link {
                    // Whichever was to be joined: it may have gone over another one.
                    Some(link) if !turn.opens && link.has_ended_in_order() => End::InOrder,
                    _ if turn.opens || fault::is_refused(&error) => End::Refused,
                    _ => End::GivenUp,
                };
                let is_reset = link.is_some_and(|link| link.is_reset());
                Err(Unanswered::Lost(Lost { error, fate, end, is_reset }))
            }
        })
    }

    fn know(&self, link: Arc<Link>, captured: CaptureConnection) {
        if !link.listed.swap(true, Relaxed) {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|(link, _)| !link.is_closed());
            link.capture(captured.clone());
            known.push((link, captured));
        }
    }

    /// No request goes any more over connections opened before then that have not been heard of
    /// since: what became of one may have become of all, as when another server has taken over
    /// the address.
    fn retire(&self, before: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(link, captured)| {
            let is_old = link.is_unheard_since(before);
            if is_old {
                poison(captured);
            }
            !is_old
        });
    }
}

/// Counts a request that goes over another connection than the one that it was to join, where idle
/// ones are counted.
fn count(captured: &CaptureConnection, joined: Option<&Arc<Link>>) -> Option<Stream> {
    let link = link(captured).filter(|link| link.is_counted())?;
    let is_counted = joined.is_some_and(|joined| Arc::ptr_eq(joined, &link));
    if is_counted { None } else { Stream::begin(link, None) }
}

/// What became of a request that began then.
fn fate(error: &Error, link: Option<&Link>, began: Instant) -> Fate {
    let is_shared = link.is_some_and(Link::is_shared);
    let is_gone = is_shared && fault::is_unqueued(error);
    // Over a new connection of HTTP/1.1 it comes to nothing again.
    let is_unsent = fault::is_unsent(error) && link.is_some_and(|link| link.is_before(began));
    // Of those that begin a connection at once, hyper-util may lose one that is to share it.
    let is_unsent = is_unsent || (link.is_none() && !error.is_connect());
    if is_unsent || fault::is_refused(error) {
        Fate::Unprocessed
    } else if is_gone || link.is_some_and(|link| link.is_stale(began)) {
        Fate::GivenUp
    } else {
        Fate::Unknown
    }
}

/// The connection of a request that begins one, once it is known what it takes; `None` if the
/// server does not say so in time, as one that hangs behind what ends TLS for it.
async fn opened(mut captured: CaptureConnection, settled_max: Duration) -> Option<Arc<Link>> {
    _ = captured.wait_for_connection_metadata().await;
    match link(&captured) {
        Some(link) => {
            let settled = tokio::time::timeout(settled_max, link.settled()).await;
            settled.is_ok().then_some(link)
        }
        // It fails.
        None => std::future::pending().await,
    }
}

/// Waits until it is known that a request's connection, of HTTP/2, has gone without beginning with
/// it. hyper then tells nothing if it came into the connection's queue just as that was emptied for
/// the last time: whoever waits for the answer keeps the queue there.
async fn lost(mut captured: CaptureConnection, taken: &Taken) {
    _ = captured.wait_for_connection_metadata().await;
    let link = link(&captured).filter(|link| link.is_shared());
    if let Some(link) = link {
        link.closed().await;
        if !taken.is_so() {
            return;
        }
    }
    std::future::pending().await
}
