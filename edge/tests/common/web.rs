//! A web origin over raw TCP, scripted by a story: items whose every byte is a function of path,
//! version and offset, conditions and ranges as RFC 9110 says, a gate that holds answers back,
//! and misdeeds that no HTTP library would commit.

use super::web_answer::{Body, Request, answer};
pub use super::web_misdeed::Misdeed;
use bytes::Bytes;
use http::HeaderMap;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the origin has under a path. Made by [`Item::of`]: a strong `ETag`, ranges, an hour.
#[derive(Clone, Debug)]
pub struct Item {
    pub bytes: u64,
    pub version: u64,
    /// Told apart in the `ETag`, by nothing in the bytes.
    pub tag: u64,
    pub validator: Validator,
    pub fields: Vec<(String, String)>,
    pub has_ranges: bool,
    /// Chunked, without a length.
    pub is_chunked: bool,
    pub status: u16,
    /// A request field that selects the variant, as `Vary` says.
    pub vary: Option<String>,
}

/// What an item is told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validator {
    /// A strong `ETag`.
    Strong,
    /// `W/` before it.
    Weak,
    /// `Last-Modified`, years ago.
    Date,
    /// The `Last-Modified` among its fields, whatever the version.
    Told,
    None,
}

impl Item {
    /// So many bytes, good for an hour.
    pub fn of(bytes: u64) -> Self {
        Self {
            bytes,
            version: 1,
            tag: 0,
            validator: Validator::Strong,
            fields: vec![("cache-control".into(), "max-age=3600".into())],
            has_ranges: true,
            is_chunked: false,
            status: 200,
            vary: None,
        }
    }

    /// Stale at once: nothing has to wait for it to become so. With more for `Cache-Control`.
    pub fn stale(bytes: u64, more: &str) -> Self {
        let control = ["max-age=10", more].join(if more.is_empty() { "" } else { ", " });
        Self::of(bytes).cache_control(&control).field("age", "20")
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Instead of the hour.
    pub fn cache_control(mut self, value: &str) -> Self {
        self.fields.retain(|(name, _)| name != "cache-control");
        self.field("cache-control", value)
    }

    pub fn validator(self, validator: Validator) -> Self {
        Self { validator, ..self }
    }

    /// `Last-Modified`, and a `Date` so many seconds later.
    pub fn dated(self, modified: SystemTime, later_s: u64) -> Self {
        let sent = modified + Duration::from_secs(later_s);
        let [modified, sent] = [modified, sent].map(httpdate::fmt_http_date);
        self.validator(Validator::Told).field("last-modified", &modified).field("date", &sent)
    }

    pub fn version(self, version: u64) -> Self {
        Self { version, ..self }
    }

    pub fn no_ranges(self) -> Self {
        Self { has_ranges: false, ..self }
    }

    pub fn chunked(self) -> Self {
        Self { is_chunked: true, ..self }
    }

    pub fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub fn vary(self, name: &str) -> Self {
        Self { vary: Some(name.into()), ..self }
    }
}

/// Where answers are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Before their head.
    Head,
    /// Before their head, but for those to the first so many requests of all.
    HeadsAfter(usize),
    /// Before their head, if they are to a GET.
    Get,
    /// Before this byte of the item, whatever range is asked for.
    Byte(u64),
}

/// One request that the origin saw, and how its answer went.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// `/path?query`.
    pub target: String,
    pub fields: HeaderMap,
    pub status: u16,
    /// Bytes of body written.
    pub sent: u64,
    /// The client left before the end.
    pub is_left: bool,
    /// The answer is over.
    pub is_over: bool,
}

impl Asked {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

#[derive(Default)]
struct State {
    items: HashMap<String, Item>,
    asked: Vec<Asked>,
    misdeeds: VecDeque<Misdeed>,
    always: Option<Misdeed>,
    held: usize,
    busy: usize,
    busy_max: usize,
}

struct Shared {
    state: Mutex<State>,
    gate: watch::Sender<Option<Hold>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The origin.
pub struct Web {
    pub url: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Web {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { state: Mutex::default(), gate: watch::channel(None).0 });
        let seen = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                connections.spawn(serve(stream, Arc::clone(&seen)));
            }
        });
        Self { url, shared, task }
    }

    pub fn put(&self, path: &str, item: Item) {
        self.shared.lock().items.insert(path.into(), item);
    }

    pub fn remove(&self, path: &str) {
        self.shared.lock().items.remove(path);
    }

    /// The item has its next version: other bytes, another validator.
    pub fn change(&self, path: &str) {
        self.shared.lock().items.get_mut(path).unwrap().version += 1;
    }

    /// The next requests meet these, one each.
    pub fn misbehave(&self, misdeeds: &[Misdeed]) {
        self.shared.lock().misdeeds.extend(misdeeds);
    }

    /// Every request meets this.
    pub fn always(&self, misdeed: Option<Misdeed>) {
        self.shared.lock().always = misdeed;
    }

    /// Holds every answer there until [`Web::release`].
    pub fn hold(&self, hold: Hold) {
        self.shared.gate.send_replace(Some(hold));
    }

    pub fn release(&self) {
        self.shared.gate.send_replace(None);
    }

    /// Answers that are held now.
    pub fn held(&self) -> usize {
        self.shared.lock().held
    }

    /// Most requests that were answered at a time.
    pub fn busy_max(&self) -> usize {
        self.shared.lock().busy_max
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.lock().asked.clone()
    }

    /// Those for a path, whatever the query.
    pub fn asked_for(&self, path: &str) -> Vec<Asked> {
        let is_it = |asked: &Asked| asked.target.split('?').next() == Some(path);
        self.asked().into_iter().filter(is_it).collect()
    }

    /// How many.
    pub fn count(&self, path: &str) -> usize {
        self.asked_for(path).len()
    }

    /// Bytes of body written for a path.
    pub fn sent(&self, path: &str) -> u64 {
        self.asked_for(path).iter().map(|asked| asked.sent).sum()
    }

    /// The `Range` fields, empty for none.
    pub fn ranges(&self, path: &str) -> Vec<String> {
        self.asked_for(path).iter().map(|asked| asked.field("range").to_owned()).collect()
    }

    /// All bytes of the item's version.
    pub fn whole(&self, path: &str) -> Bytes {
        let bytes = self.shared.lock().items[path].bytes;
        self.part(path, 0..bytes)
    }

    /// Some bytes of the item's version.
    pub fn part(&self, path: &str, range: Range<u64>) -> Bytes {
        let version = self.shared.lock().items[path].version;
        content(path, version, "", range)
    }

    /// Ends it: connections are closed, new ones refused.
    pub async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

/// The bytes of one variant of one version.
pub fn content(path: &str, version: u64, variant: &str, range: Range<u64>) -> Bytes {
    let seed =
        xxhash_rust::xxh3::xxh3_64_with_seed(format!("{path}|{variant}").as_bytes(), version);
    let word = |number: u64| {
        let mut z = seed.wrapping_add((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 27)).to_le_bytes()
    };
    let (first, end) = (range.start / 8, range.end.div_ceil(8));
    let mut words = vec![0; usize::try_from(end.saturating_sub(first) * 8).unwrap()];
    for (number, bytes) in (first..end).zip(words.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&word(number));
    }
    let skip = usize::try_from(range.start - first * 8).unwrap();
    let length = usize::try_from(range.end - range.start).unwrap();
    Bytes::from(words).slice(skip..skip + length)
}

/// A connection, until an answer that ends it.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut buffer = Vec::new();
    while let Some(request) = Request::read(&mut stream, &mut buffer).await {
        let (place, misdeed) = {
            let mut state = shared.lock();
            let misdeed = state.misdeeds.pop_front().or(state.always);
            state.asked.push(request.asked());
            state.busy += 1;
            state.busy_max = state.busy_max.max(state.busy);
            (state.asked.len() - 1, misdeed)
        };
        let goes_on = exchange(&mut stream, &shared, &request, misdeed, place).await;
        let mut state = shared.lock();
        state.busy -= 1;
        state.asked[place].is_over = true;
        state.asked[place].is_left = goes_on.is_none();
        drop(state);
        if goes_on != Some(true) {
            return;
        }
    }
}

/// One answer: whether the connection goes on, none if the client left.
async fn exchange(
    stream: &mut TcpStream,
    shared: &Shared,
    request: &Request,
    misdeed: Option<Misdeed>,
    place: usize,
) -> Option<bool> {
    let is_get = request.method == "GET";
    let is_held = |hold| match hold {
        Hold::Head => true,
        Hold::HeadsAfter(first) => place >= first,
        Hold::Get => is_get,
        Hold::Byte(_) => false,
    };
    pass(stream, shared, is_held).await?;
    let path = request.target.split('?').next().unwrap_or_default();
    let mut item = shared.lock().items.get(path).cloned();
    if let (Some(item), Some(Misdeed::Retag(count))) = (&mut item, misdeed) {
        item.tag = 1 + place as u64 % count;
    }
    if misdeed == Some(Misdeed::Mute) {
        return Some(false);
    }
    let (status, head, body) = answer(request, item.as_ref(), misdeed);
    shared.lock().asked[place].status = status;
    stream.write_all(head.as_bytes()).await.ok()?;
    if request.method == "HEAD" {
        return Some(body.keeps);
    }
    send(stream, shared, &body, place, path, misdeed).await
}

/// The body, piece by piece, past the gate.
async fn send(
    stream: &mut TcpStream,
    shared: &Shared,
    body: &Body,
    place: usize,
    path: &str,
    misdeed: Option<Misdeed>,
) -> Option<bool> {
    let mut sent = 0;
    while sent < body.sends() {
        let at = body.range.start + sent;
        pass(stream, shared, |hold| matches!(hold, Hold::Byte(byte) if byte <= at)).await?;
        let gate = match *shared.gate.borrow() {
            Some(Hold::Byte(byte)) => byte - at,
            _ => u64::MAX,
        };
        let most = if matches!(misdeed, Some(Misdeed::Drip(_))) { 1 } else { 64 << 10 };
        let piece = most.min(body.sends() - sent).min(gate);
        let bytes = content(path, body.version, &body.variant, at..at + piece);
        if body.is_chunked {
            stream.write_all(format!("{piece:x}\r\n").as_bytes()).await.ok()?;
        }
        stream.write_all(&bytes).await.ok()?;
        if body.is_chunked {
            stream.write_all(b"\r\n").await.ok()?;
        }
        sent += piece;
        shared.lock().asked[place].sent = sent;
        if let Some(Misdeed::Drip(pause)) = misdeed {
            stays(stream, tokio::time::sleep(pause)).await?;
        }
    }
    end(stream, shared, body, path, misdeed).await
}

/// What follows the last byte.
async fn end(
    stream: &mut TcpStream,
    shared: &Shared,
    body: &Body,
    path: &str,
    misdeed: Option<Misdeed>,
) -> Option<bool> {
    match misdeed {
        Some(Misdeed::Stall(_)) => stays(stream, std::future::pending()).await?,
        Some(Misdeed::BadChunk(_)) => stream.write_all(b"xyz\r\nxyz\r\n").await.ok()?,
        Some(Misdeed::Change(_)) => {
            shared.lock().items.get_mut(path).unwrap().version += 1;
        }
        Some(Misdeed::Reset(_)) => {
            // So that what was written is on the wire before the reset.
            stream.flush().await.ok()?;
            let linger = Some(Duration::ZERO);
            socket2::SockRef::from(&*stream).set_linger(linger).unwrap();
        }
        _ if body.is_chunked && body.keeps => stream.write_all(b"0\r\n\r\n").await.ok()?,
        _ => {}
    }
    Some(body.keeps)
}

/// Waits at the gate; none if the client leaves meanwhile.
async fn pass(stream: &mut TcpStream, shared: &Shared, holds: impl Fn(Hold) -> bool) -> Option<()> {
    let mut gate = shared.gate.subscribe();
    let is_open = |hold: &Option<Hold>| !hold.is_some_and(&holds);
    if is_open(&gate.borrow()) {
        return Some(());
    }
    shared.lock().held += 1;
    let passed = stays(stream, async { drop(gate.wait_for(is_open).await) }).await;
    shared.lock().held -= 1;
    passed
}

/// Waits for something while the client stays; none if it leaves.
async fn stays(stream: &mut TcpStream, something: impl Future<Output = ()>) -> Option<()> {
    let mut byte = [0; 1];
    tokio::select! {
        () = something => Some(()),
        // Nobody here sends its next request before it has its answer.
        _ = stream.read(&mut byte) => None,
    }
}
