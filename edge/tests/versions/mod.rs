//! An origin whose every byte tells of which thing, version and place it is, over a real
//! socket: it changes versions, and cuts, stalls and fails when told.

#![allow(dead_code, missing_docs, reason = "each test uses its part")]

mod connection;
mod fields;

use bytes::Bytes;
use fields::{judge, own_fields};
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// Random bytes of which every content is a part. Two contents start nowhere near each other's
/// start at the same place, so equal bytes at equal places never come about by chance.
const POOL_BYTES: usize = 48 << 20;
/// Bytes in a frame of a body.
const FRAME_BYTES: usize = 48 << 10;
/// With fewer in an answer, an edge does not go on from there.
const ANSWER_BYTES_MIN: usize = 64 << 10;

fn pool() -> &'static Bytes {
    static POOL: OnceLock<Bytes> = OnceLock::new();
    POOL.get_or_init(|| {
        let mut bytes = vec![0; POOL_BYTES];
        StdRng::seed_from_u64(1).fill_bytes(&mut bytes);
        bytes.into()
    })
}

/// By what a version is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Strong,
    Weak,
    Date,
    /// A date that a version of an even number has in common with the next one, which came within
    /// the same second: the first is only sent right then, the other long after it.
    Young,
    /// The same by a clock that is fast.
    Fast,
    /// A date that can't be read.
    Garbled,
    Nothing,
}

/// What the origin has under `/NUMBER`, whatever the version.
#[derive(Debug, Clone, Copy)]
pub struct Thing {
    pub known: Known,
    /// Says how long it is.
    pub has_length: bool,
    pub has_ranges: bool,
    /// Heeds `If-Match`, `If-Unmodified-Since` and `If-Range`; many origins don't.
    pub heeds: bool,
    pub cache_control: &'static str,
    /// Answers a range with so many bytes at most.
    pub cap: Option<usize>,
    /// About so many bytes.
    pub bytes: usize,
}

impl Thing {
    pub fn strong(bytes: usize) -> Self {
        Self {
            known: Known::Strong,
            has_length: true,
            has_ranges: true,
            heeds: true,
            cache_control: "max-age=3600",
            cap: None,
            bytes,
        }
    }

    /// Missing parts of it can be asked for.
    pub fn is_strong(&self) -> bool {
        matches!(self.known, Known::Strong | Known::Date) && self.has_length && !self.gives_crumbs()
    }

    fn gives_crumbs(&self) -> bool {
        self.cap.is_some_and(|cap| cap < ANSWER_BYTES_MIN)
    }
}

/// The bytes of a version. Those of things of an even number are all of one length.
pub fn content(number: usize, thing: &Thing, version: u64) -> Bytes {
    let counts = if number.is_multiple_of(2) { 0 } else { version };
    let mix = (number as u64 * 1_000 + counts).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let length = thing.bytes - usize::try_from(mix % (thing.bytes as u64 / 8 + 1)).unwrap();
    let most = pool().len() - length;
    let start = (number * 7_919 + usize::try_from(version).unwrap() * 104_729) % most;
    pool().slice(start..start + length)
}

/// What the origin does to a request for a body, in place of answering it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misdeed {
    /// Closes the connection after this many bytes of the body.
    Cut(usize),
    /// Sends no more after this many bytes of the body, until released.
    Stall(usize),
    /// Sends nothing, not even a head, until released.
    Hold,
    /// Answers 503.
    Fail,
}

/// The name of the one deed that is none of a failure.
pub const CAPPED: &str = "answers capped by the origin";

struct State {
    things: Vec<Thing>,
    versions: Vec<u64>,
    misdeeds: VecDeque<Misdeed>,
    requests: u64,
    /// Of each thing.
    body_bytes: Vec<u64>,
    deeds: BTreeMap<&'static str, u64>,
}

impl State {
    fn did(&mut self, deed: &'static str) {
        *self.deeds.entry(deed).or_default() += 1;
    }

    /// Counts a misdeed, if it is one in an answer with so many bytes of body.
    fn misdid(&mut self, misdeed: Misdeed, bytes: usize) {
        match misdeed {
            Misdeed::Cut(after) if after < bytes => self.did("answers cut by the origin"),
            Misdeed::Stall(after) if after < bytes => self.did("answers stalled by the origin"),
            Misdeed::Cut(_) | Misdeed::Stall(_) => {}
            Misdeed::Hold => self.did("answers held back by the origin"),
            Misdeed::Fail => self.did("answers refused by the origin"),
        }
    }
}

/// The origin.
pub struct Origin {
    pub url: String,
    state: Arc<Mutex<State>>,
    released: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

type Body = BoxBody<Bytes, io::Error>;

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    pub async fn start(things: Vec<Thing>) -> Self {
        Self::serving(things, None).await
    }

    /// One that speaks HTTP/2 over TLS, to who trusts what it writes to `ca`.
    pub async fn start_over_http2(things: Vec<Thing>, ca: &Path) -> Self {
        Self::serving(things, Some(connection::acceptor(ca))).await
    }

    async fn serving(things: Vec<Thing>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            versions: vec![1; things.len()],
            body_bytes: vec![0; things.len()],
            things,
            misdeeds: VecDeque::new(),
            requests: 0,
            deeds: BTreeMap::new(),
        }));
        let (released, stalled) = watch::channel(0);
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, stalled) = (Arc::clone(&shared), stalled.clone());
                let service = service_fn(move |request| {
                    let mut released = stalled.clone();
                    released.mark_unchanged();
                    let (answer, held) = answer(&request, &state, stalled.clone());
                    async move {
                        if held {
                            let _ = released.changed().await;
                        }
                        Ok::<_, io::Error>(answer)
                    }
                });
                connections.spawn(connection::serve(stream, tls.clone(), service));
            }
        });
        Self { url, state, released, task }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn thing(&self, number: usize) -> Thing {
        self.state().things[number]
    }

    pub fn version(&self, number: usize) -> u64 {
        self.state().versions[number]
    }

    pub fn content(&self, number: usize, version: u64) -> Bytes {
        content(number, &self.thing(number), version)
    }

    /// There is another version from now on.
    pub fn change(&self, number: usize) {
        self.state().versions[number] += 1;
    }

    /// The next request for a body meets this.
    pub fn misbehave(&self, misdeed: Misdeed) {
        self.state().misdeeds.push_back(misdeed);
    }

    /// How often it did what makes an answer other than what was asked for.
    pub fn deeds(&self) -> BTreeMap<&'static str, u64> {
        self.state().deeds.clone()
    }

    /// What stalls goes on; misdeeds that nobody met are forgotten.
    pub fn behave(&self) {
        self.state().misdeeds.clear();
        self.release();
    }

    /// What stalls goes on.
    pub fn release(&self) {
        self.released.send_modify(|released| *released += 1);
    }

    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// Bytes of bodies that were sent, or would have been but for misdeeds.
    pub fn body_bytes(&self) -> u64 {
        self.state().body_bytes.iter().sum()
    }

    /// Those of one thing.
    pub fn body_bytes_of(&self, number: usize) -> u64 {
        self.state().body_bytes[number]
    }
}

fn plain(status: StatusCode) -> Response<Body> {
    let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// The answer, and whether it is held back until released.
fn answer(
    request: &Request<Incoming>,
    state: &Mutex<State>,
    stalled: watch::Receiver<u64>,
) -> (Response<Body>, bool) {
    let number: Option<usize> = request.uri().path().trim_start_matches('/').parse().ok();
    let mut state = state.lock().unwrap();
    state.requests += 1;
    let Some(number) = number.filter(|number| *number < state.things.len()) else {
        return (plain(StatusCode::NOT_FOUND), false);
    };
    if request.method() == Method::POST {
        state.versions[number] += 1;
        return (plain(StatusCode::OK), false);
    }
    let is_head = request.method() == Method::HEAD;
    let misdeed = if is_head { None } else { state.misdeeds.pop_front() };
    if misdeed == Some(Misdeed::Fail) {
        state.misdid(Misdeed::Fail, 0);
        return (plain(StatusCode::SERVICE_UNAVAILABLE), false);
    }
    let held = misdeed == Some(Misdeed::Hold);
    let (thing, version) = (state.things[number], state.versions[number]);
    let whole = content(number, &thing, version);
    let own = own_fields(number, &thing, version);
    let (status, wanted) = judge(request.headers(), &thing, &own, whole.len());
    let cap = thing.cap.filter(|_| status == StatusCode::PARTIAL_CONTENT);
    let range = wanted.start..cap.map_or(wanted.end, |cap| wanted.end.min(wanted.start + cap));
    let mut response = plain(status);
    response.headers_mut().extend(own);
    let fields = response.headers_mut();
    match status {
        StatusCode::PARTIAL_CONTENT => {
            let said = format!("bytes {}-{}/{}", range.start, range.end - 1, whole.len());
            fields.insert(header::CONTENT_RANGE, said.parse().unwrap());
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let said = format!("bytes */{}", whole.len());
            fields.insert(header::CONTENT_RANGE, said.parse().unwrap());
            return (response, held);
        }
        StatusCode::OK => {}
        _ => return (response, held),
    }
    if thing.has_length {
        fields.insert(header::CONTENT_LENGTH, range.len().into());
    }
    if !is_head {
        state.body_bytes[number] += range.len() as u64;
        if range.end < wanted.end {
            state.did(CAPPED);
        }
        if let Some(misdeed) = misdeed {
            state.misdid(misdeed, range.len());
        }
        *response.body_mut() = body(whole.slice(range), misdeed, stalled);
    }
    (response, held)
}

fn body(bytes: Bytes, misdeed: Option<Misdeed>, mut stalled: watch::Receiver<u64>) -> Body {
    let frame = |bytes: Bytes| Ok::<_, io::Error>(Frame::data(bytes));
    let frames = |bytes: &Bytes| {
        let starts = (0..bytes.len()).step_by(FRAME_BYTES);
        let cut = |at: usize| frame(bytes.slice(at..bytes.len().min(at + FRAME_BYTES)));
        futures::stream::iter(starts.map(cut).collect::<Vec<_>>())
    };
    match misdeed {
        Some(Misdeed::Cut(after)) if after < bytes.len() => {
            let cut = futures::stream::iter([Err(io::Error::other("cut"))]);
            BodyExt::boxed(StreamBody::new(frames(&bytes.slice(..after)).chain(cut)))
        }
        Some(Misdeed::Stall(after)) if after < bytes.len() => {
            stalled.mark_unchanged();
            let wait = futures::stream::once(async move {
                let _ = stalled.changed().await;
                Ok(Frame::data(Bytes::new()))
            });
            let (first, rest) = (bytes.slice(..after), bytes.slice(after..));
            BodyExt::boxed(StreamBody::new(frames(&first).chain(wait).chain(frames(&rest))))
        }
        _ => BodyExt::boxed(StreamBody::new(frames(&bytes))),
    }
}

/// A random way to want a part of something of about `bytes` bytes.
pub fn any_range(rng: &mut StdRng, bytes: usize) -> String {
    let at = rng.random_range(0..bytes);
    match rng.random_range(0..6) {
        0 => format!("bytes={at}-"),
        1 => format!("bytes=-{}", rng.random_range(1..bytes)),
        2 => format!("bytes={at}-{}", at + rng.random_range(0..300)),
        3 => format!("bytes={}-{}", at / 4, at / 4 + 99),
        4 => {
            let other = rng.random_range(0..bytes);
            format!("bytes={at}-{},{other}-{}", at + 999, other + 9_999)
        }
        _ => format!("bytes={at}-{}", at + rng.random_range(0..2 * bytes)),
    }
}
