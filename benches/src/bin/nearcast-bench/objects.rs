//! The objects that all servers serve, and the origin that has them. A path tells what is behind
//! it: `/o/BYTES/NUMBER` is one of a few objects, `/m/BYTES/WORD` the same body under any name.

use crate::cases::{Cell, Source};
use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use loadtest::load::Target;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// All objects of one size together: more than processors' caches hold.
const SET_BYTES: u64 = 64 << 20;
/// Of one size, at most, where hits come from memory.
const OBJECTS_MAX: u64 = 512;
/// Of one size, at most, where they come from disk: of 2 KiB, too, more than memory keeps, and
/// no more files than a server may have open.
const DISK_OBJECTS_MAX: u64 = 16 << 10;
/// When all of them were last changed.
const LAST_MODIFIED: &str = "Mon, 01 Jan 2024 00:00:00 GMT";

/// How many objects of this size a source has.
pub fn count(source: Source, bytes: u64) -> u64 {
    let most = match source {
        Source::Ssd | Source::Planned => DISK_OBJECTS_MAX,
        Source::Memory | Source::Miss => OBJECTS_MAX,
    };
    (SET_BYTES / bytes).clamp(1, most)
}

/// One object's content: random bytes of a known seed, so nothing can be compressed or mixed up.
pub fn content(bytes: u64, number: u64) -> Bytes {
    let length = usize::try_from(bytes).expect("an object fits into memory");
    let mut state = bytes.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number + 1);
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    out.truncate(length);
    out.into()
}

/// The bodies of all sizes, and their digests.
pub struct Objects {
    bodies: HashMap<u64, Vec<Bytes>>,
}

impl Objects {
    /// What these cells ask for.
    pub fn of(cells: &[Cell]) -> Self {
        let mut counts: HashMap<u64, u64> = HashMap::new();
        for cell in cells {
            let wanted = count(cell.source, cell.body_bytes);
            let most = counts.entry(cell.body_bytes).or_default();
            *most = wanted.max(*most);
        }
        let all = |bytes, count| (0..count).map(|number| content(bytes, number)).collect();
        let bodies = counts.into_iter().map(|(bytes, count)| (bytes, all(bytes, count)));
        Self { bodies: bodies.collect() }
    }

    /// All sizes, in no order.
    pub fn sizes(&self) -> Vec<u64> {
        self.bodies.keys().copied().collect()
    }

    /// All bodies of a size.
    pub fn bodies(&self, bytes: u64) -> &[Bytes] {
        self.bodies.get(&bytes).map_or(&[], Vec::as_slice)
    }

    /// The first `count` objects of a size, each with what is expected of it, where `path` tells.
    pub fn targets(&self, bytes: u64, count: u64, path: impl Fn(usize) -> String) -> Vec<Target> {
        let target = |(number, body): (usize, &Bytes)| expect(&path(number), body);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.bodies(bytes).iter().take(count).enumerate().map(target).collect()
    }

    /// An object that no request has asked for before; `run` is a word that no other run has.
    pub fn missed(&self, bytes: u64, run: &str) -> Vec<Target> {
        self.bodies(bytes)
            .first()
            .map(|body| expect(&format!("/m/{bytes}/{run}-{{n}}"), body))
            .into_iter()
            .collect()
    }

    /// Writes them below `dir` as their paths say, for a server of files.
    pub fn write(&self, dir: &Path, wanted: bool) -> Result<()> {
        for (bytes, bodies) in self.bodies.iter().filter(|_| wanted) {
            let dir = dir.join("o").join(bytes.to_string());
            std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            for (number, body) in bodies.iter().enumerate() {
                std::fs::write(dir.join(number.to_string()), body)?;
            }
        }
        Ok(())
    }

    fn find(&self, path: &str) -> Option<Bytes> {
        let (kind, rest) = path.strip_prefix('/')?.split_once('/')?;
        let (bytes, name) = rest.split_once('/')?;
        let bodies = self.bodies.get(&bytes.parse().ok()?)?;
        match kind {
            "o" => bodies.get(name.parse::<usize>().ok()?).cloned(),
            "m" => bodies.first().cloned(),
            _ => None,
        }
    }
}

fn expect(path: &str, body: &Bytes) -> Target {
    let mut target = Target::new(path);
    target.bytes = Some(body.len() as u64);
    target.digest = Some(xxh3_64(body));
    target
}

/// Starts the origin on a thread of its own, on `core`.
pub fn serve(objects: Arc<Objects>, core: usize) -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("the origin's socket")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        crate::bind_to(core)?;
        runtime.block_on(accept(listener, objects))
    });
    Ok(address)
}

async fn accept(listener: std::net::TcpListener, objects: Arc<Objects>) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let objects = objects.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let answer = answer(&objects, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let server = hyper::server::conn::http1::Builder::new();
            // A proxy that leaves is no fault.
            drop(server.serve_connection(TokioIo::new(socket), service).await);
        });
    }
}

fn answer(objects: &Objects, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    let Some(body) = objects.find(request.uri().path()) else {
        *answer.status_mut() = StatusCode::NOT_FOUND;
        return answer;
    };
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
    let range = range.and_then(|range| range_of(range, body.len()));
    let headers = answer.headers_mut();
    let static_value = http::HeaderValue::from_static;
    headers.insert(header::CACHE_CONTROL, static_value("public, max-age=86400"));
    headers.insert(header::CONTENT_TYPE, static_value("video/mp4"));
    headers.insert(header::LAST_MODIFIED, static_value(LAST_MODIFIED));
    headers.insert(header::ACCEPT_RANGES, static_value("bytes"));
    let tag = format!("\"{:016x}\"", body.len());
    if let Ok(tag) = tag.parse() {
        headers.insert(header::ETAG, tag);
    }
    let Some((from, to)) = range else {
        *answer.body_mut() = Full::new(body);
        return answer;
    };
    if let Ok(value) = format!("bytes {from}-{}/{}", to - 1, body.len()).parse() {
        headers.insert(header::CONTENT_RANGE, value);
    }
    *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    *answer.body_mut() = Full::new(body.slice(from..to));
    answer
}

/// `bytes=A-B` or `bytes=A-`, as a cache asks; from and behind the last byte.
fn range_of(text: &str, length: usize) -> Option<(usize, usize)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to = to.parse::<usize>().map_or(length, |last| (last + 1).min(length));
    (from < to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_as_long_as_their_path_says_and_all_differ() {
        let cell = |source, body_bytes| {
            let case = crate::cases::Case::H1;
            Cell { case, source, body_bytes, connections: 1, slow: false }
        };
        let objects = Objects::of(&[cell(Source::Memory, 2048), cell(Source::Memory, 1 << 20)]);
        let targets = objects.targets(2048, u64::MAX, |number| format!("/o/2048/{number}"));
        assert_eq!(targets.len() as u64, OBJECTS_MAX);
        assert_eq!(objects.targets(2048, 7, |_| String::new()).len(), 7);
        let more = Objects::of(&[cell(Source::Ssd, 2048), cell(Source::Memory, 2048)]);
        assert_eq!(more.bodies(2048).len() as u64, DISK_OBJECTS_MAX);
        let mut digests: Vec<_> = targets.iter().filter_map(|target| target.digest).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len() as u64, OBJECTS_MAX);
        assert_eq!(objects.find("/o/1048576/3").map(|body| body.len()), Some(1 << 20));
        assert_eq!(objects.find("/m/2048/x-7"), objects.find("/o/2048/0"));
        assert_eq!(objects.find("/o/2048/9999"), None);
        assert_eq!(objects.find("/o/4096/0"), None);
        assert_eq!(objects.missed(2048, "r1")[0].path, "/m/2048/r1-{n}");
        assert_eq!(content(10, 0).len(), 10);
    }

    #[test]
    fn ranges_are_cut_at_the_end() {
        assert_eq!(range_of("bytes=0-9", 100), Some((0, 10)));
        assert_eq!(range_of("bytes=90-", 100), Some((90, 100)));
        assert_eq!(range_of("bytes=90-200", 100), Some((90, 100)));
        assert_eq!(range_of("bytes=100-", 100), None);
    }
}
