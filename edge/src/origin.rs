//! Fetches from origins: bounded bodies, a deadline for the head and for each silence, several
//! origins tried in order.
//!
//! It knows nothing of titles: what it returns is not verified yet.

use crate::error::Fault;
use bytes::{Buf, Bytes, BytesMut};
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use model::ByteRange;
use prometheus::IntCounter;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// From the request to the head of the answer, connecting included. A player gives an edge
/// up after a few seconds, so a slow origin must leave room for a second try.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// The longest silence within a body.
const STALL_MAX: Duration = Duration::from_secs(5);
/// An origin that failed is tried after the others for this long.
const AVOIDED: Duration = Duration::from_secs(5);
/// Idle connections kept to each origin.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// How long an idle connection is kept: less than origins keep it, so that few are lost in use.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// The origins of this edge, best first.
pub struct Origin {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    bases: Vec<Base>,
    fetched: IntCounter,
}

struct Base {
    /// Without a trailing slash.
    url: String,
    failed: Mutex<Option<Instant>>,
}

/// The body of an origin's answer, taken in pieces of a wanted size.
pub struct Pieces {
    body: Incoming,
    held: BytesMut,
    url: String,
    base: usize,
    fetched: IntCounter,
}

impl Origin {
    /// Origins at `urls`, of which there is at least one. `fetched` counts bytes.
    pub fn new(urls: &[String], tls: HttpsConnector<HttpConnector>, fetched: IntCounter) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_MAX)
            .pool_timer(TokioTimer::new())
            .build(tls);
        let base = |url: &String| Base {
            url: url.trim_end_matches('/').to_owned(),
            failed: Mutex::new(None),
        };
        Self { client, bases: urls.iter().map(base).collect(), fetched }
    }

    /// How often a fetch is tried: each origin once, and any chunk twice.
    pub fn tries_max(&self) -> usize {
        self.bases.len().max(2)
    }

    /// The origin to try next: the first that did not fail lately, else the one whose failure
    /// is oldest.
    fn next(&self) -> usize {
        let now = Instant::now();
        let rank = |(place, base): (usize, &Base)| {
            let failed = *base.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            (failed.filter(|at| now.duration_since(*at) < AVOIDED), place)
        };
        self.bases.iter().enumerate().map(rank).min().map_or(0, |(_, place)| place)
    }

    /// Remembers that the origin which `pieces` came from is not to be trusted for a while.
    pub fn avoid(&self, pieces: &Pieces) {
        self.mark(pieces.base, Some(Instant::now()));
    }

    fn mark(&self, base: usize, failed: Option<Instant>) {
        *self.bases[base].failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = failed;
    }

    /// A whole object of at most `bytes_max`, from the first origin that has it.
    ///
    /// # Errors
    /// [`Fault::NotFound`] when every origin says so; else the last failure.
    pub async fn whole(&self, path: &str, bytes_max: usize) -> Result<Bytes, Fault> {
        let mut last = Fault::Lost;
        for _ in 0..self.tries_max() {
            match self.whole_once(path, bytes_max).await {
                Ok(bytes) => return Ok(bytes),
                Err(Fault::NotFound) if self.bases.len() == 1 => return Err(Fault::NotFound),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    async fn whole_once(&self, path: &str, bytes_max: usize) -> Result<Bytes, Fault> {
        let (base, response) = self.send(path, None).await?;
        let mut pieces = self.pieces(base, response);
        let mut whole = BytesMut::new();
        while let Some(bytes) = pieces.frame().await.inspect_err(|_| self.avoid(&pieces))? {
            whole.extend_from_slice(&bytes);
            if whole.len() > bytes_max {
                return Err(Fault::unavailable(format!("{} is too large", pieces.url)));
            }
        }
        Ok(whole.freeze())
    }

    /// The bytes `range` of an object, from one origin.
    ///
    /// # Errors
    /// Whatever that origin said; the next call tries another.
    pub async fn range(&self, path: &str, range: ByteRange) -> Result<Pieces, Fault> {
        let (base, response) = self.send(path, Some(range)).await?;
        let given = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
        let wanted = format!("bytes {}-{}/", range.start, range.end().saturating_sub(1));
        if response.status() == StatusCode::PARTIAL_CONTENT
            && given.is_some_and(|given| given.starts_with(&wanted))
        {
            return Ok(self.pieces(base, response));
        }
        self.mark(base, Some(Instant::now()));
        let (url, status) = (&self.bases[base].url, response.status());
        Err(Fault::unavailable(format!("{url} answered {status} {given:?} to {wanted}")))
    }

    fn pieces(&self, base: usize, response: Response<Incoming>) -> Pieces {
        Pieces {
            body: response.into_body(),
            held: BytesMut::new(),
            url: self.bases[base].url.clone(),
            base,
            fetched: self.fetched.clone(),
        }
    }

    async fn send(
        &self,
        path: &str,
        range: Option<ByteRange>,
    ) -> Result<(usize, Response<Incoming>), Fault> {
        let base = self.next();
        let answer = self.try_send(base, path, range).await;
        // An origin that says "not found" is well, but another may know more.
        self.mark(base, answer.is_err().then(Instant::now));
        answer.map(|response| (base, response))
    }

    async fn try_send(
        &self,
        base: usize,
        path: &str,
        range: Option<ByteRange>,
    ) -> Result<Response<Incoming>, Fault> {
        let url = &self.bases[base].url;
        let uri: Uri = format!("{url}/{path}").parse().map_err(Fault::unavailable)?;
        let mut request = Request::get(uri);
        if let Some(range) = range {
            let last = range.end().saturating_sub(1);
            request = request.header(header::RANGE, format!("bytes={}-{last}", range.start));
        }
        let request = request.body(Empty::new()).map_err(Fault::unavailable)?;
        let response = tokio::time::timeout(HEAD_MAX, self.client.request(request))
            .await
            .map_err(|_| Fault::TimedOut(format!("{url}: no answer in {HEAD_MAX:?}").into()))?
            .map_err(|error| {
                Fault::unavailable(format!("{url}: {}", service::client::chain(&error)))
            })?;
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND => Err(Fault::NotFound),
            status => Err(Fault::unavailable(format!("{url} answered {status}"))),
        }
    }
}

impl Pieces {
    /// The next `bytes` bytes, at once.
    ///
    /// # Errors
    /// [`Fault::TimedOut`] after a silence, [`Fault::Unavailable`] when the body is cut.
    pub async fn take(&mut self, bytes: usize) -> Result<Bytes, Fault> {
        if self.held.is_empty() {
            self.held.reserve(bytes);
        }
        while self.held.len() < bytes {
            let Some(frame) = self.frame().await? else {
                return Err(Fault::unavailable(format!("{} cut its answer", self.url)));
            };
            self.held.extend_from_slice(&frame);
        }
        if self.held.len() == bytes {
            return Ok(std::mem::take(&mut self.held).freeze());
        }
        // What is left over is small: the rest of one frame.
        let mut rest = BytesMut::with_capacity(bytes);
        rest.extend_from_slice(&self.held[bytes..]);
        self.held.truncate(bytes);
        Ok(std::mem::replace(&mut self.held, rest).freeze())
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let frame = tokio::time::timeout(STALL_MAX, self.body.frame()).await.map_err(|_| {
                Fault::TimedOut(format!("{}: silent for {STALL_MAX:?}", self.url).into())
            })?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(Fault::unavailable(format!(
                        "{}: {}",
                        self.url,
                        service::client::chain(&error)
                    )));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.fetched.inc_by(data.remaining() as u64);
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}
