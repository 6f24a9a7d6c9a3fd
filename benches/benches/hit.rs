//! A hit served end to end: a whole edge (token, route, memory tier) over loopback HTTP/1.1,
//! beside the limit: a bare hyper server that answers every request from one `Bytes`. The
//! client, the same for both, takes its share: the true ratio is a little larger.

use bytes::Bytes;
use divan::Bencher;
use divan::counter::BytesCount;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use loadtest::{Client, Protocol};
use model::fleet::EdgeView;
use model::index::{Kind, TitleIndex, VideoRange};
use model::{TitleId, Version, chunk};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;

/// A small audio segment, a usual one, a large one.
const SIZES: [u64; 3] = [16 << 10, 256 << 10, 2 << 20];
/// The longest that the edge may take to start and to fill.
const START_MAX: Duration = Duration::from_secs(20);

fn main() {
    divan::main();
}

struct World {
    runtime: Runtime,
    client: Client,
    /// URL of a segment for each of `SIZES`, at the edge and at the bare server.
    edge: Vec<String>,
    bare: Vec<String>,
    _data: tempfile::TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(start);

#[divan::bench(args = [0, 1, 2])]
fn a_edge(bencher: Bencher, size: usize) {
    measure(bencher, &WORLD.edge[size], SIZES[size]);
}

#[divan::bench(args = [0, 1, 2])]
fn b_limit_bare_hyper(bencher: Bencher, size: usize) {
    measure(bencher, &WORLD.bare[size], SIZES[size]);
}

fn measure(bencher: Bencher, url: &str, bytes: u64) {
    let world = &*WORLD;
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        let fetched = world.runtime.block_on(world.client.get(url, &[])).expect("it answers");
        assert_eq!((fetched.status, fetched.body.len() as u64), (200, bytes));
    });
}

/// A title of one track with one segment for each size, and its track file.
fn title() -> (TitleIndex, Bytes) {
    let kind = Kind::Video { width: 16, height: 16, frame_rate: (25, 1), range: VideoRange::Sdr };
    let segments = SIZES.iter().map(|bytes| (100, *bytes));
    let mut track = nearcast_benches::track("v1", kind, "avc1.64001e", 25, None, segments);
    let file: Vec<u8> = (0..track.facts.file_bytes).map(|n| (n * 31 % 251) as u8).collect();
    track.digests =
        file.chunks(chunk::CHUNK_BYTES as usize).map(|c| *blake3::hash(c).as_bytes()).collect();
    (TitleIndex { segment_target_ms: 4000, tracks: vec![track] }, file.into())
}

fn start() -> World {
    let runtime = Runtime::new().expect("threads can start");
    let data = tempfile::tempdir().expect("a folder can be made");
    let (index, file) = title();
    let encoded = Bytes::from(index.encode());
    let version = Version::of_index(&encoded);
    let origin = runtime.block_on(serve(move |request| from_origin(request, &encoded, &file)));
    let bodies: Vec<Bytes> = SIZES.iter().map(|n| Bytes::from(vec![7; *n as usize])).collect();
    let bare = runtime.block_on(serve(move |request| {
        let n = request.uri().path()[1..].parse::<usize>().unwrap_or(0);
        Response::new(Full::new(bodies[n].clone()))
    }));
    let (url, token) = runtime.block_on(start_edge(data.path(), origin));
    let client = Client::new(Protocol::H1, &[], Duration::from_secs(10)).expect("no TLS is used");
    let edge: Vec<String> =
        (0..SIZES.len()).map(|n| format!("{url}/~{token}/t/film/{version}/v1/{n}.m4s")).collect();
    for segment in &edge {
        runtime.block_on(warm(&client, segment));
    }
    let bare = (0..SIZES.len()).map(|n| format!("http://{bare}/{n}")).collect();
    World { runtime, client, edge, bare, _data: data }
}

/// Fetches until the edge says that it comes from memory.
async fn warm(client: &Client, url: &str) {
    let until = Instant::now() + START_MAX;
    loop {
        let fetched = client.get(url, &[]).await.expect("the edge answers");
        assert_eq!(fetched.status, 200, "{:?}", fetched.body);
        if fetched.verdict() == Some("hit-memory") {
            return;
        }
        assert!(Instant::now() < until, "no hit: {:?}", fetched.header("cache-status"));
    }
}

async fn start_edge(data: &Path, origin: SocketAddr) -> (String, String) {
    let signer = token::Signer::generate().expect("keys can be made");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let title: TitleId = "film".parse().expect("a title's name");
    let grant = token::Grant { play: [1; 16], title, not_before: now, expires: now + 3600 };
    // The control plane is gone: the edge serves by the view that it kept.
    let control_plane_url = "http://127.0.0.1:9".to_owned();
    let view = EdgeView {
        version: 1,
        keys: vec![signer.public()],
        control_plane_url: control_plane_url.clone(),
        edges: vec![],
    };
    let view = serde_json::to_vec(&view).expect("plain data always serialises");
    std::fs::write(data.join("view.json"), view).expect("the folder can be written");
    let announce = data.join("announce.json");
    let config = edge::Config::check(edge::Settings {
        listen: vec!["http://127.0.0.1:0".to_owned()],
        origin: vec![format!("http://{origin}")],
        control_plane: Some(control_plane_url),
        join_secret: Some("bench".parse().expect("a secret")),
        data_dir: Some(data.to_owned()),
        memory: Some("64MiB".parse().expect("a size")),
        ssd: Some("0".parse().expect("a size")),
        admin: Some("127.0.0.1:0".to_owned()),
        announce: Some(announce.clone()),
        ..Default::default()
    })
    .expect("settings that the edge takes");
    let task = tokio::spawn(edge::run(config, service::Shutdown::new()));
    let until = Instant::now() + START_MAX;
    loop {
        assert!(!task.is_finished() && Instant::now() < until, "the edge did not start");
        let announced = std::fs::read(&announce).ok();
        let announced: Option<serde_json::Value> =
            announced.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(url) = announced.as_ref().and_then(|value| value["urls"][0].as_str()) {
            return (url.to_owned(), signer.mint(&grant));
        }
        tokio::task::yield_now().await;
    }
}

/// An origin for one title: the index, and one range of the track file.
fn from_origin(request: &Request<Incoming>, index: &Bytes, file: &Bytes) -> Response<Full<Bytes>> {
    if request.uri().path().ends_with("/index") {
        return Response::new(Full::new(index.clone()));
    }
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
    let bounds = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (start, end) = bounds.expect("an edge asks for ranges");
    let start: usize = start.parse().expect("a number");
    let end = end.parse::<usize>().map_or(file.len(), |last| last + 1).min(file.len());
    Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header(header::ETAG, "\"film\"")
        .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{}", end - 1, file.len()))
        .body(Full::new(file.slice(start..end)))
        .expect("fixed parts")
}

/// A bare HTTP/1.1 server on a free port.
async fn serve<F>(answer: F) -> SocketAddr
where
    F: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).expect("a TCP socket");
            let answer = Arc::clone(&answer);
            let service = hyper::service::service_fn(move |request| {
                let response = answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(socket), service));
        }
    });
    address
}
