//! An origin over a real socket: counts its requests, and misbehaves when told.

use super::Film;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Bytes in a frame of a body.
const FRAME_BYTES: usize = 48 << 10;

/// What the origin does to a request for media, in place of answering it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misdeed {
    /// Flips a bit of the byte at this offset of the answer.
    Corrupt(usize),
    /// Has a bit of the byte at this place of a file flipped.
    Wrong(usize),
    /// Sends so many bytes of a range at most, and flips a bit of the first.
    CorruptAndShort(usize),
    /// Sends so many bytes of a range at most, as it may (RFC 9110 section 15.3.7).
    Cap(usize),
    /// Closes the connection after this many bytes of the body.
    Cut(usize),
    /// Sends nothing after this many bytes of the body.
    Stall(usize),
    /// Answers 500.
    Fail,
    /// Answers 404.
    Lose,
}

#[derive(Default)]
struct State {
    media: Vec<String>,
    indexes: usize,
    misdeeds: VecDeque<Misdeed>,
    /// Done to every request for media once the list is empty.
    always: Option<Misdeed>,
    /// For every request for an index.
    index: Option<Misdeed>,
    /// Sent, of all but indexes.
    body_bytes: u64,
}

/// The origin.
pub struct Origin {
    pub url: String,
    state: Arc<Mutex<State>>,
    open: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

type Body = BoxBody<Bytes, io::Error>;

impl Origin {
    pub async fn start(film: &Film) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let base = format!("/titles/film/{}", film.version);
        let mut objects: HashMap<String, Bytes> = film
            .files
            .iter()
            .map(|(name, bytes)| (format!("{base}/{name}"), bytes.clone()))
            .collect();
        objects.insert(format!("{base}/index"), film.encoded.clone());
        let (objects, state) = (Arc::new(objects), Arc::<Mutex<State>>::default());
        let (open, is_open) = watch::channel(true);
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (objects, state) = (Arc::clone(&objects), Arc::clone(&shared));
                let is_open = is_open.clone();
                let service = service_fn(move |request| {
                    answer(request, Arc::clone(&objects), Arc::clone(&state), is_open.clone())
                });
                connections.spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url, state, open, task }
    }

    /// The next requests for media meet these, one each.
    pub fn misbehave(&self, misdeeds: &[Misdeed]) {
        self.state.lock().unwrap().misdeeds.extend(misdeeds);
    }

    /// Every request for media meets this.
    pub fn always(&self, misdeed: Option<Misdeed>) {
        self.state.lock().unwrap().always = misdeed;
    }

    /// Every request for an index meets this.
    pub fn always_at_indexes(&self, misdeed: Option<Misdeed>) {
        self.state.lock().unwrap().index = misdeed;
    }

    /// Requests for media so far: path's last part and range.
    pub fn media(&self) -> Vec<String> {
        self.state.lock().unwrap().media.clone()
    }

    /// Bytes of media that were sent so far, or are about to be.
    pub fn body_bytes(&self) -> u64 {
        self.state.lock().unwrap().body_bytes
    }

    /// Requests for indexes so far.
    pub fn indexes(&self) -> usize {
        self.state.lock().unwrap().indexes
    }

    /// Holds every answer back, or lets them go.
    pub fn hold(&self, held: bool) {
        self.open.send_replace(!held);
    }

    /// Ends it: connections are closed, new ones refused.
    pub async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

fn plain(status: StatusCode) -> Response<Body> {
    let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

async fn answer(
    request: Request<Incoming>,
    objects: Arc<HashMap<String, Bytes>>,
    state: Arc<Mutex<State>>,
    mut is_open: watch::Receiver<bool>,
) -> Result<Response<Body>, io::Error> {
    let path = request.uri().path().to_owned();
    let range = request.headers().get(header::RANGE).map(|v| v.to_str().unwrap().to_owned());
    let mut misdeed = {
        let mut state = state.lock().unwrap();
        if path.ends_with("/index") {
            state.indexes += 1;
            state.index
        } else {
            let file = path.rsplit('/').next().unwrap_or_default();
            state.media.push(format!("{file} {}", range.as_deref().unwrap_or("whole")));
            let next = state.misdeeds.pop_front();
            next.or(state.always)
        }
    };
    let _ = is_open.wait_for(|open| *open).await;
    let Some(object) = objects.get(&path) else { return Ok(plain(StatusCode::NOT_FOUND)) };
    if misdeed == Some(Misdeed::Fail) {
        return Ok(plain(StatusCode::INTERNAL_SERVER_ERROR));
    }
    if misdeed == Some(Misdeed::Lose) {
        return Ok(plain(StatusCode::NOT_FOUND));
    }
    let mut response = plain(StatusCode::OK);
    let (mut start, mut bytes) = (0, object.clone());
    if let Some(range) = range {
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let last = match misdeed {
            Some(Misdeed::CorruptAndShort(most) | Misdeed::Cap(most)) => last.min(first + most - 1),
            _ => last,
        };
        (start, bytes) = (first, object.slice(first..=last));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let given = format!("bytes {first}-{last}/{}", object.len());
        response.headers_mut().insert(header::CONTENT_RANGE, given.parse().unwrap());
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, bytes.len().into());
    if let Some(Misdeed::Wrong(at)) = misdeed {
        let at = at.checked_sub(start).filter(|at| *at < bytes.len());
        misdeed = at.map(Misdeed::Corrupt);
    }
    let body = body(bytes, misdeed);
    *response.body_mut() = if path.ends_with("/index") { body } else { counted(body, state) };
    Ok(response)
}

/// Counts each frame when it is asked for.
fn counted(body: Body, state: Arc<Mutex<State>>) -> Body {
    let count = move |frame: Frame<Bytes>| {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        state.lock().unwrap().body_bytes += bytes as u64;
        frame
    };
    BodyExt::boxed(body.map_frame(count))
}

fn body(bytes: Bytes, misdeed: Option<Misdeed>) -> Body {
    let frame = |bytes: Bytes| Ok::<_, io::Error>(Frame::data(bytes));
    match misdeed {
        Some(Misdeed::Corrupt(_) | Misdeed::CorruptAndShort(_)) => {
            let at = if let Some(Misdeed::Corrupt(at)) = misdeed { at } else { 0 };
            let mut wrong = bytes.to_vec();
            wrong[at] ^= 1;
            Full::new(wrong.into()).map_err(|never| match never {}).boxed()
        }
        Some(Misdeed::Cut(after)) => {
            let first = futures::stream::iter([frame(bytes.slice(..after))]);
            // So that what came before is sent.
            let cut = futures::stream::once(async {
                tokio::task::yield_now().await;
                Err(io::Error::other("cut"))
            });
            BodyExt::boxed(StreamBody::new(first.chain(cut)))
        }
        Some(Misdeed::Stall(after)) => {
            let first = futures::stream::iter([frame(bytes.slice(..after))]);
            BodyExt::boxed(StreamBody::new(first.chain(futures::stream::pending())))
        }
        _ => {
            let starts = (0..bytes.len()).step_by(FRAME_BYTES);
            let cut = |at| frame(bytes.slice(at..bytes.len().min(at + FRAME_BYTES)));
            BodyExt::boxed(StreamBody::new(futures::stream::iter(
                starts.map(cut).collect::<Vec<_>>(),
            )))
        }
    }
}
