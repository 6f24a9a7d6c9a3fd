//! A herd: thousands ask for one cold object at once. The origin sends each byte once, every
//! body is right. The last one's first byte is told beside the time that as many hits take, and
//! whether it met what is aimed at; a time fails nothing.
//!
//! `NEARCAST_HERD=10000 NEARCAST_HERD_ROUNDS=3` for the whole herd, of three cold objects in turn,
//! with `--release --nocapture` for its figures.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;
mod versions;

use bytes::Bytes;
use common::{Edge, settings};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use service::value::ByteSize;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use versions::{Origin, Thing};

const HERD: usize = 500;
/// What is aimed at: the last first byte comes within so many times what as many hits take in all.
const RATIO_AIM: f64 = 1.2;
/// Requests of one connection at a time.
const STREAMS: usize = 64;
const BYTES: usize = 4 << 20;
/// A client takes so much of a body before it must say that it wants more.
const WINDOW: u32 = 64 << 10;

async fn connect(edge: &Edge) -> SendRequest<Empty<Bytes>> {
    let addr = edge.http.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(WINDOW).initial_connection_window_size(16 << 20);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// One of the herd: how long its first byte took. The whole body is compared as it comes.
async fn one(
    mut sender: SendRequest<Empty<Bytes>>,
    uri: Uri,
    content: Bytes,
    began: Instant,
) -> Duration {
    sender.ready().await.unwrap();
    let request = Request::get(uri).body(Empty::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let (mut at, mut first) = (0, None);
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        first.get_or_insert_with(|| began.elapsed());
        assert!(data == content[at..at + data.len()], "a wrong byte after {at}");
        at += data.len();
    }
    assert_eq!(at, content.len(), "a short body");
    first.unwrap()
}

/// The time of the last first byte, and of the last byte.
async fn herd(
    senders: &[SendRequest<Empty<Bytes>>],
    count: usize,
    uri: &Uri,
    content: &Bytes,
) -> (Duration, Duration) {
    let began = Instant::now();
    let mut herd = JoinSet::new();
    for number in 0..count {
        let sender = senders[number / STREAMS].clone();
        herd.spawn(one(sender, uri.clone(), content.clone(), began));
    }
    let firsts = herd.join_all().await;
    (firsts.into_iter().max().unwrap(), began.elapsed())
}

fn given(name: &str) -> Option<usize> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_costs_the_origin_each_byte_once() {
    let count = given("NEARCAST_HERD").unwrap_or(HERD);
    let rounds = given("NEARCAST_HERD_ROUNDS").unwrap_or(1);
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start(vec![Thing::strong(BYTES); rounds]).await;
    let mut settings = settings(dir.path(), &origin.url);
    settings.control_plane = None;
    settings.listen = vec!["http://127.0.0.1:0".into()];
    settings.memory = Some(ByteSize(64 << 20));
    let edge = Edge::start(settings).await;
    let mut senders = Vec::new();
    for _ in 0..count.div_ceil(STREAMS) {
        senders.push(connect(&edge).await);
    }
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let uri: Uri = format!("{}/{round}", edge.http).parse().unwrap();
        let content = origin.content(round, 1);
        let cold = herd(&senders, count, &uri, &content).await;
        assert_eq!(origin.body_bytes_of(round), content.len() as u64, "bytes from the origin");
        let hits = herd(&senders, count, &uri, &content).await;
        assert_eq!(origin.requests(), round as u64 + 1);
        ratios.push(cold.0.as_secs_f64() / hits.1.as_secs_f64());
        println!(
            "{count} requests: the last first byte came after {:.2?}, as many hits took {:.2?}; the \
             last byte after {:.2?}, the hits' last first byte after {:.2?}",
            cold.0, hits.1, cold.1, hits.0
        );
    }
    ratios.sort_by(f64::total_cmp);
    let (least, median, most) = (ratios[0], ratios[rounds / 2], ratios[rounds - 1]);
    let met = if median <= RATIO_AIM { "met" } else { "MISSED" };
    println!("herd: ratio {median:.2} ({least:.2}..{most:.2}), aim at most {RATIO_AIM}: {met}");
}
