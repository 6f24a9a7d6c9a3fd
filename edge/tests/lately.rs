//! Stories of what is asked for again and again: the answers are those that a request gets which
//! goes the long way, and none outlives what it is of.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Answer, Edge, Item, Proxy, Web, ask, get_as, over_tls, proxy_settings, until};
use http::Method;
use nearcast_edge::Settings;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const PATH: &str = "/small";
/// More than an edge has shards, of which each remembers for itself.
const TIMES: usize = 12;

/// The fields of an answer, but those that tell the time.
fn fields(answer: &Answer) -> Vec<(String, String)> {
    let mut fields: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .filter(|(name, _)| name != "age")
        .map(|(name, value)| {
            let parts = value.split(';').filter(|part| !part.starts_with("ttl="));
            let value = parts.collect::<Vec<_>>().join(";");
            (name, value)
        })
        .collect();
    fields.sort();
    fields
}

fn age(answer: &Answer) -> i64 {
    answer.header("age").parse().unwrap()
}

fn ttl(answer: &Answer) -> i64 {
    let told = answer.header("cache-status");
    told.split(';').find_map(|part| part.strip_prefix("ttl=")).unwrap().parse().unwrap()
}

/// A field that says nothing new, but may have.
const LONG_WAY: [(&str, &str); 1] = [("priority", "u=3")];

#[tokio::test]
async fn answers_are_those_of_the_long_way() {
    let proxy = Proxy::new().await;
    let item = Item::of(2000).field("age", "5").field("x-a", "b").field("alt-svc", "h3=\":1\"");
    proxy.web.put(PATH, item);
    proxy.get(PATH).await;
    let before = proxy.get_with(PATH, &LONG_WAY).await;
    for _ in 0..TIMES {
        let answer = proxy.get(PATH).await;
        assert_eq!((answer.status.as_u16(), answer.verdict()), (200, "hit-memory"));
        assert_eq!(answer.bytes(), &proxy.web.part(PATH, 0..2000));
        assert_eq!(fields(&answer), fields(&before));
        let after = proxy.get_with(PATH, &LONG_WAY).await;
        assert!((age(&before)..=age(&after)).contains(&age(&answer)), "{answer:?} {after:?}");
        assert!((ttl(&after)..=ttl(&before)).contains(&ttl(&answer)), "{answer:?} {after:?}");
    }
    assert_eq!(proxy.web.count(PATH), 1);
}

#[tokio::test]
async fn what_a_request_says_counts_however_often_the_plain_one_was_asked() {
    let proxy = Proxy::new().await;
    proxy.web.put(PATH, Item::of(2000));
    for _ in 0..TIMES {
        proxy.get(PATH).await;
    }
    let etag = proxy.get(PATH).await.header("etag").to_owned();
    for (name, value, status) in [
        ("range", "bytes=0-9", 206),
        ("range", "bytes=5000-", 416),
        ("if-none-match", &*etag, 304),
        ("content_length", "1", 400),
        ("host", "a b", 400),
    ] {
        let answer = proxy.get_with(PATH, &[(name, value)]).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {value}");
    }
    let reloaded = proxy.get_with(PATH, &[("cache-control", "no-cache")]).await;
    assert_eq!(reloaded.verdict(), "revalidated");
    let reloaded = proxy.get_with(PATH, &[("pragma", "no-cache")]).await;
    assert_eq!(reloaded.verdict(), "revalidated");
    let of_other = proxy.get_with(PATH, &[("host", "other.example")]).await;
    assert_eq!(of_other.verdict(), "hit-memory");
}

#[tokio::test]
async fn a_new_version_and_variants_are_told_apart() {
    let proxy = Proxy::with(json!({ "compress": true })).await;
    proxy.web.put(PATH, Item::of(2000));
    proxy.web.put("/varied", Item::of(2000).vary("x-kind"));
    proxy.web.put("/text", Item::of(2000).field("content-type", "text/plain"));
    for version in 1..4 {
        proxy.web.put(PATH, Item::of(2000).version(version));
        let fetched = proxy.get_with(PATH, &[("cache-control", "no-cache")]).await;
        for _ in 0..TIMES {
            let answer = proxy.get(PATH).await;
            assert_eq!(answer.verdict(), "hit-memory");
            assert_eq!(answer.header("etag"), fetched.header("etag"));
            assert_eq!(answer.bytes(), &proxy.web.part(PATH, 0..2000));
        }
    }
    for _ in 0..TIMES {
        proxy.get("/varied").await;
        let kind = proxy.get_with("/varied", &[("x-kind", "b")]).await;
        let count = proxy.web.count("/varied");
        assert_eq!((kind.status.as_u16(), count <= 2), (200, true));
        let plain = proxy.get("/text").await;
        let small = proxy.get_with("/text", &[("accept-encoding", "gzip")]).await;
        assert!(!plain.header("vary").is_empty(), "{plain:?}");
        assert_eq!(small.header("vary"), plain.header("vary"));
    }
}

/// One on whose only shard everything is remembered.
async fn on_one_shard(change: impl FnOnce(&mut Settings)) -> Proxy {
    let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    let mut settings = proxy_settings(dir.path(), &web.url, &json!({}));
    settings.shards = Some(1);
    change(&mut settings);
    let edge = Edge::start(settings).await;
    Proxy { dir, web, edge }
}

/// Asks until it is remembered, and was answered from that.
async fn remembered(proxy: &Proxy) {
    proxy.get(PATH).await;
    for _ in 0..3 {
        assert_eq!(proxy.get(PATH).await.verdict(), "hit-memory");
    }
}

async fn purge(proxy: &Proxy, what: &Value, soft: bool) {
    let mut request = what.clone();
    request["soft"] = soft.into();
    proxy.edge.purge(&request).await;
}

#[tokio::test]
async fn what_was_ended_is_not_answered_once_more() {
    let proxy = on_one_shard(|_| ()).await;
    proxy.web.put(PATH, Item::of(2000).field("surrogate-key", "film"));
    let url = proxy.url(PATH);
    let purges = [
        json!({ "url": url }),
        json!({ "tag": "film" }),
        json!({ "prefix": proxy.url("/s") }),
        json!({ "all": true }),
    ];
    for what in &purges {
        for (soft, verdict) in [(false, "origin"), (true, "revalidated")] {
            remembered(&proxy).await;
            purge(&proxy, what, soft).await;
            assert_eq!(proxy.get(PATH).await.verdict(), verdict, "{what}, soft: {soft}");
        }
    }
    remembered(&proxy).await;
    ask(Method::POST, &url, &[]).await;
    assert_ne!(proxy.get(PATH).await.verdict(), "hit-memory");
}

#[tokio::test]
async fn what_becomes_stale_is_asked_for_anew() {
    let proxy = on_one_shard(|_| ()).await;
    // Two seconds of its hour are left.
    proxy.web.put(PATH, Item::of(2000).field("age", "3598"));
    remembered(&proxy).await;
    assert_eq!(proxy.web.count(PATH), 1);
    until("it is stale", || async {
        let answer = proxy.get(PATH).await;
        if answer.verdict() == "hit-memory" {
            assert!(age(&answer) < 3600 && ttl(&answer) >= 0, "{answer:?}");
            return None;
        }
        assert_eq!(proxy.web.count(PATH), 2);
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_long_head_is_sent_whole_each_time() {
    let proxy = on_one_shard(|_| ()).await;
    let long = "b".repeat(1000);
    let item = (0..60).fold(Item::of(2000), |item, at| item.field(&format!("x-{at}"), &long));
    proxy.web.put(PATH, item);
    remembered(&proxy).await;
    let before = proxy.get_with(PATH, &LONG_WAY).await;
    for _ in 0..3 {
        let answer = proxy.get(PATH).await;
        assert_eq!(fields(&answer), fields(&before));
        assert_eq!(answer.header("x-59"), long);
    }
}

/// Each listener tells of its own HTTP/3; all else of an answer is the same by any protocol.
#[tokio::test]
async fn listeners_and_protocols_share_answers_but_for_what_is_their_own() {
    let proxy = on_one_shard(|settings| settings.listen.push("https://127.0.0.1:0".into())).await;
    proxy.web.put(PATH, Item::of(2000));
    let announced = std::fs::read(proxy.dir.path().join("announced.json")).unwrap();
    let announced: Value = serde_json::from_slice(&announced).unwrap();
    let urls = announced["urls"].as_array().unwrap().iter().map(|url| url.as_str().unwrap());
    let addrs: Vec<SocketAddr> =
        urls.filter_map(|url| url.strip_prefix("https://")?.parse().ok()).collect();
    assert_eq!(addrs.len(), 2);
    let (url, host) = (format!("https://{}{PATH}", addrs[0]), addrs[0].to_string());
    let certificate = proxy.edge.dir.join("tls/cert.pem");
    let host = [("host", &*host)];
    proxy.get_with(PATH, &host).await;
    let before = proxy.get_with(PATH, &[host[0], LONG_WAY[0]]).await;
    assert_eq!(before.header("alt-svc"), "");
    let same = |mut answer: Answer, alt_svc: &str| {
        assert_eq!((answer.verdict(), answer.header("alt-svc")), ("hit-memory", alt_svc));
        assert_eq!(answer.bytes(), before.bytes());
        answer.headers.remove("alt-svc");
        assert_eq!(fields(&answer), fields(&before));
    };
    for _ in 0..3 {
        // Those of one scheme one after the other, since one of both is remembered.
        for protocol in ["http/1.1", "h2", "h3"] {
            for addr in &addrs {
                let answer = get_as(protocol, &url, &certificate, "127.0.0.1", *addr).await;
                same(answer, &format!("h3=\":{}\"; ma=86400", addr.port()));
            }
        }
        for _ in 0..2 {
            same(proxy.get_with(PATH, &host).await, "");
        }
    }
    assert_eq!(proxy.web.count(PATH), 1);
}

/// A whole answer as it came: its lines, in order of their names, those that tell the time or the
/// listener's port masked.
async fn raw(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> Vec<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: films.example\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    let masked = |line: &str| {
        let is_of_time = ["date: ", "age: ", "cache-status: ", "alt-svc: "];
        match is_of_time.iter().any(|name| line.starts_with(name)) {
            true => line.split(|byte: char| byte.is_ascii_digit()).collect(),
            false => line.to_owned(),
        }
    };
    let mut lines: Vec<_> = head.lines().map(masked).collect();
    lines[1..].sort();
    lines.push(format!("{body:?}"));
    lines
}

/// What is read and answered before hyper is answered as by hyper.
#[tokio::test]
async fn heads_are_those_that_hyper_writes() {
    let web = Web::start().await;
    let fields = [("x-a", "b"), ("x-a", "c"), ("age", "5"), ("set-cookie", "a=b"), ("x-e", "")];
    let item = fields.iter().fold(Item::of(2000), |item, (name, value)| item.field(name, value));
    web.put(PATH, item.cache_control("public, max-age=3600"));
    web.put("/gone", Item::of(300).status(404));
    let start = async |off: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = proxy_settings(dir.path(), &web.url, &json!({}));
        settings.shards = Some(1);
        settings.write_path_off = off.iter().map(|&name| name.to_owned()).collect();
        (Edge::start(settings).await, dir)
    };
    let edges = [start(&[]).await, start(&["direct"]).await];
    let mut told = Vec::new();
    for (edge, dir) in &edges {
        let addr = |url: &str| url.split_once("://").unwrap().1.parse::<SocketAddr>().unwrap();
        let mut plain = TcpStream::connect(addr(&edge.http)).await.unwrap();
        let stream = TcpStream::connect(addr(&edge.https)).await.unwrap();
        let mut tls = over_tls(stream, &dir.path().join("tls/cert.pem")).await;
        let mut answers = Vec::new();
        for path in [PATH, "/gone"] {
            for _ in 0..TIMES {
                answers.push(raw(&mut plain, path).await);
                answers.push(raw(&mut tls, path).await);
            }
        }
        assert!(answers[3].iter().any(|line| line.contains("hit-memory")), "{:?}", answers[3]);
        told.push(answers);
    }
    assert_eq!(told[0], told[1]);
}
