//! A client that believes nothing: every byte of an answer is compared with what the version
//! that the answer names has at that place.

use super::Scene;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::ops::Range;
use tokio::net::{TcpSocket, TcpStream};

/// A paused client's kernel holds little for it.
const SMALL_BUFFER_BYTES: u32 = 8 << 10;

/// How a client reads.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    Fast,
    /// Reads so many bytes, then nothing until everybody is told to go on.
    PausesAfter(usize),
    /// Reads so many bytes and is gone.
    LeavesAfter(usize),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Ask {
    pub number: usize,
    pub range: Option<String>,
    pub pace: Pace,
    pub is_head: bool,
    pub no_cache: bool,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// All of it, right, of this version.
    Whole(u64),
    /// Refused, cut, or left.
    Failed,
}

/// `POST`s, and gives the status.
pub async fn post(url: &str, body: &str) -> u16 {
    let uri: Uri = url.parse().unwrap();
    let stream = TcpStream::connect(uri.authority().unwrap().as_str()).await.unwrap();
    let request = Request::post(uri.path())
        .header("host", uri.authority().unwrap().as_str())
        .header("content-type", "application/json")
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let task = tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    let said = response.into_body().collect().await.map(|body| body.to_bytes());
    task.abort();
    assert!(status.is_success() || status.is_server_error(), "{url} {body}: {status} {said:?}");
    status.as_u16()
}

async fn connect(addr: &str, pace: Pace) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if !matches!(pace, Pace::Fast) {
        socket.set_recv_buffer_size(SMALL_BUFFER_BYTES).unwrap();
    }
    socket.connect(addr.parse().unwrap()).await.unwrap()
}

/// What a client does, for whoever finds that it hangs.
struct Doing<'a> {
    scene: &'a Scene,
    name: u64,
}

impl<'a> Doing<'a> {
    fn now(scene: &'a Scene, what: String) -> Self {
        let mut doing = scene.doing.lock().unwrap();
        let name = doing.last_key_value().map_or(0, |(name, _)| name + 1);
        doing.insert(name, what);
        drop(doing);
        Self { scene, name }
    }

    fn tell(&self, what: String) {
        self.scene.doing.lock().unwrap().insert(self.name, what);
    }
}

impl Drop for Doing<'_> {
    fn drop(&mut self) {
        self.scene.doing.lock().unwrap().remove(&self.name);
    }
}

/// Asks, and checks what comes.
pub async fn ask(scene: &Scene, ask: &Ask) -> End {
    let floor = scene.floor(ask.number);
    let current = scene.origin.version(ask.number);
    let url = format!("{}/{}", scene.edge.http, ask.number);
    let addr = url.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    let mut paused = scene.paused.subscribe();
    let stream = connect(&addr, ask.pace).await;
    let method = if ask.is_head { Method::HEAD } else { Method::GET };
    let mut request =
        Request::builder().method(method).uri(format!("/{}", ask.number)).header("host", &addr);
    if let Some(range) = &ask.range {
        request = request.header("range", range);
    }
    if ask.no_cache {
        request = request.header("cache-control", "no-cache");
    }
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let task = tokio::spawn(connection);
    let doing = Doing::now(scene, format!("{ask:?}: no head"));
    let response = sender.send_request(request).await.expect("every request is answered");
    let (head, body) = response.into_parts();
    let seen = || format!("{ask:?}: {} {:?}", head.status, head.headers);
    doing.tell(seen());
    let read = read(body, ask.pace, &mut paused).await;
    task.abort();
    let Some(read) = read else { return End::Failed };
    if head.status.is_server_error() {
        assert!(scene.may_fail(ask.number), "{}: {read:?}", seen());
        return End::Failed;
    }
    let Ok(bytes) = read else {
        assert!(scene.may_fail(ask.number), "{}: {read:?}", seen());
        return End::Failed;
    };
    let version = field(&head.headers, "x-version").map(|version| version.parse().unwrap());
    if head.status == StatusCode::RANGE_NOT_SATISFIABLE {
        return End::Failed;
    }
    let version: u64 = version.unwrap_or_else(|| panic!("no version: {}", seen()));
    let tag = format!("\"{}-{version}\"", ask.number);
    if let Some(said) = field(&head.headers, "etag") {
        assert_eq!(said.trim_start_matches("W/"), tag, "{}", seen());
    }
    assert!(version >= floor, "version {floor} was current at a purge: {}", seen());
    // Where the origin does not fail, who insists has what is current.
    let insists = ask.no_cache && scene.mood != super::Mood::Wild;
    assert!(!insists || version >= current, "older than {current}: {}", seen());
    let whole = scene.origin.content(ask.number, version);
    if ask.is_head {
        assert!(bytes.is_empty());
        let length = field(&head.headers, "content-length");
        let right = head.status != StatusCode::OK
            || length.is_none_or(|length| length == whole.len().to_string());
        assert!(right, "not {}: {}", whole.len(), seen());
        return End::Whole(version);
    }
    match head.status {
        StatusCode::OK => assert!(bytes == whole, "{}: {}", seen(), differ(&bytes, &whole)),
        StatusCode::PARTIAL_CONTENT => {
            // Only what is passed on is as short as it came.
            let is_capped = scene.origin.thing(ask.number).cap.is_some();
            let told = field(&head.headers, "cache-status").unwrap_or_default();
            let is_passed_on = told.contains("detail=\"bypass\"");
            let may_be_short = is_capped && is_passed_on && scene.may_fail(ask.number);
            partial(ask, &head.headers, (&bytes, &whole, may_be_short), &seen);
        }
        _ => panic!("{}", seen()),
    }
    End::Whole(version)
}

fn field<'a>(fields: &'a HeaderMap, name: &str) -> Option<&'a str> {
    fields.get(name).map(|value| value.to_str().unwrap())
}

/// The body, or how it was cut; nothing if the client left.
async fn read(
    mut body: Incoming,
    pace: Pace,
    paused: &mut tokio::sync::watch::Receiver<u64>,
) -> Option<Result<Bytes, String>> {
    let mut bytes = BytesMut::new();
    let mut has_paused = false;
    loop {
        match pace {
            Pace::LeavesAfter(most) if bytes.len() >= most => return None,
            Pace::PausesAfter(most) if bytes.len() >= most && !has_paused => {
                has_paused = true;
                let _ = paused.changed().await;
            }
            _ => {}
        }
        match body.frame().await {
            None => return Some(Ok(bytes.freeze())),
            Some(Err(error)) => return Some(Err(error.to_string())),
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
        }
    }
}

/// The parts that a request wants of something that long, in order.
fn wanted(range: &str, length: usize) -> Vec<Range<usize>> {
    let parts = range.strip_prefix("bytes=").unwrap().split(',');
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap();
        let part = match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => first..length.min(last + 1),
            (Ok(first), Err(_)) => first..length,
            (Err(_), Ok(last)) => length.saturating_sub(last)..length,
            (Err(_), Err(_)) => unreachable!("{range}"),
        };
        (part.start < part.end).then_some(part)
    };
    parts.filter_map(part).collect()
}

fn given(text: &str, length: usize) -> Option<Range<usize>> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    (total.parse() == Ok(length)).then_some(())?;
    Some(first.parse().ok()?..last.parse::<usize>().ok()? + 1)
}

fn partial(
    ask: &Ask,
    fields: &HeaderMap,
    (bytes, whole, may_be_short): (&Bytes, &Bytes, bool),
    seen: &dyn Fn() -> String,
) {
    let wanted = wanted(ask.range.as_deref().unwrap(), whole.len());
    if let Some(range) = field(fields, "content-range") {
        let given = given(range, whole.len()).unwrap_or_else(|| panic!("{}", seen()));
        // Those that meet may be joined (RFC 9110 section 15.3.7.2).
        let start = wanted.iter().map(|part| part.start).min();
        let end = wanted.iter().map(|part| part.end).max();
        assert_eq!(start, Some(given.start), "{}", seen());
        let is_short = may_be_short && Some(given.end) < end;
        assert!(is_short || Some(given.end) == end, "{}", seen());
        let right = whole.slice(given);
        assert!(*bytes == right, "{}: {}", seen(), differ(bytes, &right));
        return;
    }
    let kind = field(fields, "content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let mut rest = &bytes[..];
    for part in wanted {
        let start = format!("\r\n--{boundary}\r\n");
        rest = rest.strip_prefix(start.as_bytes()).unwrap_or_else(|| panic!("{}", seen()));
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(rest[..end].to_vec()).unwrap();
        let said = head.split("Content-Range: ").nth(1).unwrap();
        assert_eq!(given(said, whole.len()).as_ref(), Some(&part), "{}", seen());
        let (body, after) = rest[end + 4..].split_at(part.len());
        let right = whole.slice(part);
        assert!(body == right, "{}: {}", seen(), differ(body, &right));
        rest = after;
    }
    assert_eq!(rest, format!("\r\n--{boundary}--\r\n").as_bytes(), "{}", seen());
}

/// Where two bodies part.
fn differ(given: &[u8], right: &[u8]) -> String {
    let at = given.iter().zip(right).position(|(given, right)| given != right);
    format!("{} bytes, not {}; the first that differs is at {at:?}", given.len(), right.len())
}
