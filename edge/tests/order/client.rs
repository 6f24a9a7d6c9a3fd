//! A client that believes nothing: every byte of an answer is compared with what the version
//! that the answer names has at that place.

use super::connection::{self, Body, Lost, Protocol};
use super::excuse::Failed;
use super::judge::{differ, field, is_past_the_end, own_member, partial};
use super::process::Place;
use super::scene::Asked;
use super::{Mood, Scene};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpStream;

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
    /// Whom.
    pub node: usize,
    pub number: usize,
    pub protocol: Protocol,
    pub range: Option<String>,
    pub pace: Pace,
    pub is_head: bool,
    pub no_cache: bool,
}

impl Ask {
    /// For the whole thing.
    pub fn whole(node: usize, number: usize, protocol: Protocol) -> Self {
        Self {
            node,
            number,
            protocol,
            range: None,
            pace: Pace::Fast,
            is_head: false,
            no_cache: false,
        }
    }

    fn fields(&self) -> HeaderMap {
        let mut fields = HeaderMap::new();
        if let Some(range) = &self.range {
            fields.insert("range", range.parse().unwrap());
        }
        if self.no_cache {
            fields.insert("cache-control", "no-cache".parse().unwrap());
        }
        fields
    }
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// All of it, right, of this version.
    Whole(u64),
    /// Refused, cut, or left.
    Failed,
}

/// `POST`s to a path of this host, and gives the status.
pub async fn post(addr: SocketAddr, host: &str, path: &str, body: &str) -> u16 {
    let stream = TcpStream::connect(addr).await.unwrap();
    let request = Request::post(path)
        .header("host", host)
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
    assert!(status.is_success() || status.is_server_error(), "{path} {body}: {status} {said:?}");
    status.as_u16()
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
    let place = scene.nodes[ask.node].place();
    // Nothing tells a QUIC client that a server was killed but long silence.
    let silence = async {
        match ask.protocol {
            Protocol::H3 => place.gone().await,
            Protocol::H1 | Protocol::H2 => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        end = exchange(scene, &place, ask) => end,
        () = silence => End::Failed,
    }
}

async fn exchange(scene: &Scene, place: &Arc<Place>, ask: &Ask) -> End {
    let number = ask.number;
    let asked = Asked { number, floor: scene.nodes[ask.node].floor(number), began: Instant::now() };
    let current = scene.origin.version(number);
    // Where the origin does not fail, who insists has what is current.
    let insists = ask.no_cache && scene.mood != Mood::Wild;
    let oldest = if insists { asked.floor.max(current) } else { asked.floor };
    let mut paused = scene.paused.subscribe();
    let method = if ask.is_head { Method::HEAD } else { Method::GET };
    let is_slow = !matches!(ask.pace, Pace::Fast);
    let doing = Doing::now(scene, format!("{ask:?}: no head"));
    let request = (method, number, ask.fields());
    let (head, body) = match connection::open(place, ask.protocol, request, is_slow).await {
        Ok(opened) => opened,
        Err(Lost::Unanswered(_)) if place.is_ending() => return End::Failed,
        Err(Lost::Unanswered(error)) => panic!("{ask:?}: every request is answered: {error}"),
        Err(Lost::Cut(error)) => {
            scene.count_awaited();
            scene.excuse(place, Failed::Cut, &asked, format!("{ask:?}: {error}")).await;
            return End::Failed;
        }
    };
    let seen = || format!("{ask:?}: {} {:?}", head.status, head.headers);
    doing.tell(seen());
    let Some(read) = read(body, ask.pace, &mut paused).await else { return End::Failed };
    scene.count_awaited();
    let bytes = match read {
        Ok(bytes) if !head.status.is_server_error() => bytes,
        Ok(_) => {
            scene.excuse(place, Failed::Refused, &asked, seen()).await;
            return End::Failed;
        }
        Err(error) => {
            scene.excuse(place, Failed::Cut, &asked, format!("{}: {error}", seen())).await;
            scene.tally.add(format!("cut over {:?}", ask.protocol), 1);
            return End::Failed;
        }
    };
    if head.status == StatusCode::RANGE_NOT_SATISFIABLE {
        past_the_end(scene, ask, &head, oldest, &seen);
        return End::Failed;
    }
    let version = field(&head.headers, "x-version").map(|version| version.parse().unwrap());
    let version: u64 = version.unwrap_or_else(|| panic!("no version: {}", seen()));
    assert!(version >= asked.floor, "version {} was current at a purge: {}", asked.floor, seen());
    assert!(version >= oldest, "older than {current}: {}", seen());
    check(scene, ask, &head, &bytes, version, &seen);
    scene.count(place, ask, &head, version);
    End::Whole(version)
}

/// Holds a 416 against the versions that may answer.
fn past_the_end(
    scene: &Scene,
    ask: &Ask,
    head: &response::Parts,
    oldest: u64,
    seen: &dyn Fn() -> String,
) {
    let range = ask.range.as_deref().unwrap_or_else(|| panic!("none was asked for: {}", seen()));
    let told = field(&head.headers, "content-range").unwrap_or_default();
    let is_of =
        |version| is_past_the_end(range, told, scene.origin.content(ask.number, version).len());
    let versions = scene.versions(ask.number, oldest);
    assert!(versions.clone().any(is_of), "of none of {versions:?}: {}", seen());
    scene.tally.add("answers past the end", 1);
}

/// Holds an answer that ended cleanly against the bytes of its version.
fn check(
    scene: &Scene,
    ask: &Ask,
    head: &response::Parts,
    bytes: &Bytes,
    version: u64,
    seen: &dyn Fn() -> String,
) {
    let tag = format!("\"{}-{version}\"", ask.number);
    if let Some(said) = field(&head.headers, "etag") {
        assert_eq!(said.trim_start_matches("W/"), tag, "{}", seen());
    }
    let whole = scene.origin.content(ask.number, version);
    if ask.is_head {
        assert!(bytes.is_empty());
        let length = field(&head.headers, "content-length");
        let right = head.status != StatusCode::OK
            || length.is_none_or(|length| length == whole.len().to_string());
        assert!(right, "not {}: {}", whole.len(), seen());
        return;
    }
    match head.status {
        StatusCode::OK => assert!(*bytes == whole, "{}: {}", seen(), differ(bytes, &whole)),
        StatusCode::PARTIAL_CONTENT => {
            // Only what is passed on is as short as it came.
            let is_capped = scene.origin.thing(ask.number).cap.is_some();
            let is_passed_on = own_member(&head.headers).contains("detail=\"bypass\"");
            let may_be_short = is_capped && is_passed_on && scene.may_be_short(ask.number);
            let range = ask.range.as_deref().unwrap();
            partial(range, &head.headers, (bytes, &whole, may_be_short), seen);
        }
        _ => panic!("{}", seen()),
    }
}

/// The body, or how it was cut; nothing if the client left.
async fn read(
    mut body: Body,
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
        match body.more().await {
            None => return Some(Ok(bytes.freeze())),
            Some(Err(error)) => return Some(Err(error)),
            Some(Ok(piece)) => bytes.extend_from_slice(&piece),
        }
    }
}
